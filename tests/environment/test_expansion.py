"""Expansion: what a text may refer to, who is told of what lacks, and that it always ends."""

from __future__ import annotations

import random
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.environment.commands import Commands
from ssot.environment.expansion import Definition, Expansion, expand

NO_COMMANDS = Commands((), environment={})
NAMES = ("A", "B", "C", "D", "E")
# Texts that mean something more often than arbitrary ones do.
PIECES = st.sampled_from(
    ["${", "}", "$", "$$", "$(", ")", ":-", ":?", ":", "{", "x", "'", '"', "\\", "\n", "é", *NAMES]
    + [f"${{{name}}}" for name in NAMES]
    + [f"${{{name}:-" for name in NAMES]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
WORLDS = st.dictionaries(st.sampled_from(NAMES), TEXTS, min_size=1)


def world(**texts: str) -> dict[str, Definition]:
    """These definitions, on one line each of a file."""
    return {
        name: Definition(name, text, f".env, line {line}", literal=False, secret=False)
        for line, (name, text) in enumerate(texts.items(), 1)
    }


def expanded(**texts: str) -> Expansion:
    return expand(world(**texts), commands=NO_COMMANDS)


def value(text: str, **texts: str) -> str:
    """What the text becomes among these."""
    expansion = expanded(IT=text, **texts)
    assert expansion.problems == ()
    return expansion.values["IT"].value


# What it makes


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${FULL}", "full"),
        ("<${FULL}-${FULL}>", "<full-full>"),
        ("[${EMPTY}]", "[]"),
        ("${FULL:-no}", "full"),
        ("${EMPTY:-yes}", "yes"),
        ("${ABSENT:-yes}", "yes"),
        ("${ABSENT:-}", ""),
        ("${ABSENT:-${EMPTY:-${FULL}!}}", "full!"),
        ("${ABSENT:-a:-b:?c}", "a:-b:?c"),
        ('${ABSENT:-{"x":1}}', '{"x":1}'),
        ("${FULL:?is needed}", "full"),
        ("$$", "$"),
        ("$${FULL}", "${FULL}"),
        ("$$$${FULL}", "$${FULL}"),
        ("$", "$"),
        ("$FULL", "$FULL"),
        ("costs $5 or 5$", "costs $5 or 5$"),
        ("a}b{c", "a}b{c"),
        ("${DOLLARS}", "${FULL}$(x)"),
        ("${ABSENT:-${DOLLARS}}", "${FULL}$(x)"),
    ],
)
def test_the_syntax(text: str, made: str) -> None:
    """As the module says; and what was put in is never looked into again."""
    assert value(text, FULL="full", EMPTY="", DOLLARS="$${FULL}$$(x)") == made


@given(st.text())
def test_an_escaped_text_comes_back(text: str) -> None:
    """Every dollar twice is the identity, for any text."""
    assert value(text.replace("$", "$$")) == text


@given(st.text())
def test_a_literal_text_is_never_looked_into(text: str) -> None:
    """Whatever it holds, also where it is referred to."""
    definitions = world(A="", B="${A}")
    definitions["A"] = Definition("A", text, ".env", literal=True, secret=False)
    expansion = expand(definitions, commands=NO_COMMANDS)
    assert expansion.problems == ()
    assert [expansion.values[name].value for name in "AB"] == [text, text]


def test_a_default_that_is_not_needed_is_not_expanded() -> None:
    """So it may name what is absent, or closes a circle that nobody walks."""
    assert value("${FULL:-${ABSENT}${IT}}", FULL="full") == "full"


def test_the_own_name_is_the_value_below() -> None:
    """A stronger layer extends what it won over, on any number of layers."""
    lowest = Definition("PATHS", "/a", "default", literal=False, secret=False)
    middle = Definition("PATHS", "${PATHS}:/b", ".env, line 1", False, False, below=lowest)
    upper = Definition("PATHS", "${PATHS}:${X:-/c}", ".env.test, line 1", False, False, middle)
    expansion = expand({"PATHS": upper}, commands=NO_COMMANDS)
    assert expansion.problems == ()
    assert expansion.values["PATHS"].value == "/a:/b:/c"


def test_what_was_won_over_is_left_alone() -> None:
    """A mistake in a definition that nobody uses is no problem."""
    below = Definition("A", "${ABSENT}", ".env, line 1", literal=False, secret=False)
    above = Definition("A", "fine", ".env.test, line 1", False, False, below)
    assert expand({"A": above}, commands=NO_COMMANDS).problems == ()


def test_what_is_made_of_a_secret_is_one() -> None:
    """Through every step, and not because of what was only asked for, or gave its default."""
    definitions = world(A="${KEY}", B="x${A}", C="${NONE:-${B}}", D="${PLAIN:-${KEY}}", PLAIN="p")
    definitions["KEY"] = Definition("KEY", "s3cret", "secrets/KEY", literal=True, secret=True)
    made = expand(definitions, commands=NO_COMMANDS).values
    assert {name for name, it in made.items() if it.secret} == {"KEY", "A", "B", "C"}
    assert made["C"].references == ("NONE", "B")
    assert made["D"].references == ("PLAIN",)
    assert "s3cret" not in repr(made) + repr(definitions)


# Commands


def test_commands_are_run_and_their_origin_is_kept() -> None:
    """The text of each is taken as it stands, up to its own parenthesis."""
    commands = Commands(["printf"], environment={"PATH": "/usr/bin:/bin"})
    text = """$(printf 'a)$(b)${c}')-$(printf "%s" x\\) (y) ')')${ABSENT:-$(printf z)}"""
    definitions = world(A=text, B="${A}", C="${A:-$(printf never)}")
    expansion = expand(definitions, commands=commands)
    assert expansion.problems == ()
    made = expansion.values
    assert made["A"].value == "a)$(b)${c}-x)(y))z"
    assert made["A"].commands == (
        "printf 'a)$(b)${c}'",
        "printf \"%s\" x\\) (y) ')'",
        "printf z",
    )
    assert made["B"].value == made["C"].value == made["A"].value
    assert made["B"].commands == made["C"].commands == ()


def test_a_refused_command_is_told_where_it_stands() -> None:
    """By name and place; who depends on it has no second problem."""
    expansion = expanded(A="x$(id)", B="${A}")
    assert expansion.values == {}
    assert expansion.problems == (
        "A (.env, line 1): the command at character 2 of its text: commands are off; write the "
        "value itself, or list the program in SSOT_ENV_COMMANDS",
    )


# What it tells


def test_an_absent_name_is_told_once_with_all_that_need_it() -> None:
    """The cascade: who refers to it, and who to those; one that has a default does not need it."""
    expansion = expanded(
        OTHER="x", SSOT_X="${SSOT_AUTH_URL}", SSOT_AUTH_URL="http://${SSOT_HOST}/${SSOT_HOST}", SSOT_Y="${SSOT_HOST:-h}"
    )  # fmt: skip
    assert expansion.problems == (
        "SSOT_HOST is not set; SSOT_AUTH_URL (.env, line 3), and by it SSOT_X (.env, line 2), "
        "refer to it: set it, or write ${SSOT_HOST:-…}",
    )
    assert sorted(expansion.values) == ["OTHER", "SSOT_Y"]


def test_a_message_writes_nothing_to_a_terminal() -> None:
    """Colours, titles and bells in the text after :? are told as Python would write them."""
    (problem,) = expanded(A="${X:?call \x1b[31mus\x07 \u202enow}").problems
    assert "X is not set: call \\x1b[31mus\\x07 \\u202enow;" in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("texts", "problems"),
    [
        ({"A": "${X}"}, ["X is not set; A (.env, line 1) refers to it: set it, or write ${X:-…}"]),
        (
            {"B": "${X}", "A": "${X}${Y}", "C": "${A}${B}"},
            [
                "X is not set; A (.env, line 2), B (.env, line 1), and by them C (.env, line 3), "
                "refer to it: set it, or write ${X:-…}",
                "Y is not set; A (.env, line 2), and by it C (.env, line 3), refer to it: set it, "
                "or write ${Y:-…}",
            ],
        ),
        (
            {"A": "${X:?see the\n  manual}", "B": "${X:?or ask}", "C": "${E:?must}", "E": ""},
            [
                "E is empty: must; C (.env, line 3) refers to it: give it a value",
                "X is not set: see the manual / or ask; A (.env, line 1), B (.env, line 2) refer "
                "to it: set it",
            ],
        ),
        (
            {"C": "${A}", "B": "${C}", "A": "${B}${B}", "D": "${A}"},
            [
                "A -> B -> C -> A: A (.env, line 3), B (.env, line 2), C (.env, line 1) refer to "
                "each other in a circle; give one of them a value of its own"
            ],
        ),
        (
            {"A": "${A}"},
            [
                "A -> A: A (.env, line 1) refers to itself, and no weaker layer sets it; give it a "
                "value of its own"
            ],
        ),
        (
            {"A": "${B}${C}", "B": "${A}", "C": "${A}"},
            [
                "A -> B -> A: A (.env, line 1), B (.env, line 2) refer to each other in a circle; "
                "give one of them a value of its own",
                "A -> C -> A: A (.env, line 1), C (.env, line 3) refer to each other in a circle; "
                "give one of them a value of its own",
            ],
        ),
    ],
)  # fmt: skip
def test_what_lacks_and_what_runs_in_circles(texts: dict[str, str], problems: list[str]) -> None:
    """Whole sentences, each cause once, in an order that does not depend on the file's."""
    assert list(expanded(**texts).problems) == problems
    assert list(expanded(**dict(reversed(list(texts.items())))).values) == list(
        expanded(**texts).values
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a${VAR:+s3cret}", "${VAR:+…} at character 2 of its text is not understood; write"),
        ("${VAR-s3cret}", "${VAR-…} at character 1 of its text is not understood; write"),
        ("${VAR:=s3cret}", "${VAR:=…} at character 1 of its text is not understood; write"),
        ("${#s3cret}", "${…} at character 1 of its text is not understood; write"),
        ("${s3 cret}", "${…} at character 1 of its text is not understood; write"),
        ("${}", "${…} at character 1 of its text is not understood; write"),
        ("ab${VAR", "the ${ at character 3 of its text is never closed; close it, or write $${"),
        ("${VAR:-s3cret", "the ${ at character 1 of its text is never closed; close it"),
        ("${VAR:-${FULL:?s3cret}", "the ${ at character 1 of its text is never closed; close it"),
        ("$(s3cret 'x)", "the $( at character 1 of its text is never closed; close it, or write $$("),
        ("$(echo ${FULL})", "${ stands in the command at character 1 of its text, and nothing in a"),
        ('$(echo "$(id)")', "$( stands in the command at character 1 of its text, and nothing in"),
        ("${FULL:-" * 33 + "}" * 33, "more than 32 ${…} inside of each other at character"),
        ("x" * 131_073, "its value is more than 128 KiB; make it smaller"),
        ("é" * 65_537, "its value is more than 128 KiB; make it smaller"),
    ],
)  # fmt: skip
def test_what_is_not_understood(text: str, problem: str) -> None:
    """The name, the place and the position, and nothing of the text that may be a value."""
    (told,) = expanded(FULL="full", IT=text, USER="${IT}").problems
    assert told.startswith(f"IT (.env, line 2): {problem}")
    assert "s3" not in told


def test_all_the_problems_of_a_text_at_once() -> None:
    """Mistakes that end where they began do not hide the next, nor the names that lack."""
    problems = expanded(A="${-}${X}${B:+}${Y:-${Z}}").problems
    assert [problem.split()[0] for problem in problems] == ["X", "Z", "A", "A"]


# That it ends


@given(WORLDS, st.randoms(use_true_random=False))
def test_it_ends_the_same_way_in_any_order(texts: dict[str, str], chance: random.Random) -> None:
    """Twice, and from a mapping in another order: the same values and problems, as sentences."""
    definitions = world(**texts)
    items = list(definitions.items())
    chance.shuffle(items)
    first = expand(definitions, commands=NO_COMMANDS)
    assert first == expand(definitions, commands=NO_COMMANDS)
    assert first == expand(dict(items), commands=NO_COMMANDS)
    assert set(first.values) <= set(texts)
    assert bool(first.problems) == (set(first.values) != set(texts))
    assert all(len(made.value.encode()) <= 128 * 1024 for made in first.values.values())


SILENT = PIECES.filter(lambda piece: piece != ":?") | st.just("s3-cret!")


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(SILENT, max_size=10).map("".join)))
def test_no_problem_shows_a_value(texts: dict[str, str]) -> None:
    """What stands in any text, or is put into one, is in no problem and no representation."""
    definitions = world(**texts)
    expansion = expand(definitions, commands=NO_COMMANDS)
    assert "s3-cret!" not in "".join(expansion.problems)
    assert "s3-cret!" not in repr(definitions) + repr(expansion)


def test_the_deepest_chain() -> None:
    """32 references one behind the other are fine, and the first beyond is told alone."""
    chain = {f"N{n:02}": f"${{N{n + 1:02}}}" for n in range(32)} | {"N32": "end"}
    assert expanded(**chain).values["N00"].value == "end"
    expansion = expanded(TOP="${UP}", UP="${N00}", **chain)
    assert expansion.problems == (
        "UP (.env, line 2): it stands on more than 32 references one behind the other; give one "
        "of them a value without references",
    )
    assert "TOP" not in expansion.values


@pytest.mark.parametrize("last", ["end", "${ABSENT}", "${N0}", "${N5000}"])
@pytest.mark.parametrize("order", [1, -1])
def test_ten_thousand_in_a_chain(last: str, order: int) -> None:
    """Too deep, or for want of one name, or in a circle: one problem, whatever the recursion limit."""
    count = 10_000
    assert sys.getrecursionlimit() < count
    chain = {f"N{n}": f"${{N{n + 1}}}" for n in range(count - 1)} | {f"N{count - 1}": last}
    expansion = expanded(**dict(list(chain.items())[::order]))
    assert len(expansion.problems) == 1
    assert len(expansion.problems[0]) < 2000
    assert len(expansion.values) == (33 if last == "end" else 0)


def test_ten_thousand_layers() -> None:
    """Also of definitions that won over each other."""
    below = None
    for layer in range(10_000):
        below = Definition("A", "${A}x" if layer else "x", str(layer), False, False, below)
    assert below is not None
    expansion = expand({"A": below}, commands=NO_COMMANDS)
    assert expansion.problems[0].startswith("A (33): it stands on more than 32 references")
    assert len(expansion.problems) == 1


@pytest.mark.parametrize(
    "texts",
    [
        {f"L{n:02}": f"${{L{n + 1:02}}}" * 10 for n in range(30)} | {"L30": "ha"},
        {"A": "x" * 100_000} | {f"B{n}": "${A}${A}" for n in range(5000)},
        {"A": "x" * 100_000} | {f"B{n}": f"{n}${{A}}" for n in range(20_000)},
        {"A": "", "B": "${A}" * 100_000},
        {"A": "${A:-" * 100_000},
        {"A": "${" * 100_000},
        {"A": "$(" * 100_000},
        {"A": "${-}" * 50_000},
        {f"R{n}": f"${{R{(n + 1) % 5000}}}${{R0}}" for n in range(5000)},
        {"D0": "".join(f"${{M{n}}}" for n in range(2000))} | {f"D{n + 1}": f"${{D{n}}}" for n in range(2000)},
    ],
    ids=["laughs", "doubled", "many large", "many empty", "nested", "open", "commands", "mistakes", "ring", "lacks"],
)  # fmt: skip
def test_it_ends_soon(texts: dict[str, str]) -> None:
    """What grows without bounds is refused before it has grown."""
    begin = time.process_time()
    expansion = expanded(**texts)
    assert time.process_time() - begin < 10
    assert sum(len(made.value) for made in expansion.values.values()) < 17 * 1024 * 1024

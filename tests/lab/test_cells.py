"""What a check's cell is made with: rewritten assertions, parameters, tables, the timeline, the check."""

from __future__ import annotations

import ast
import asyncio
import html
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.errors import SettingsError
from ssot.lab.asserts import RewriteAsserts, Seen
from ssot.lab.checks import Check, Unknown
from ssot.lab.parameters import check_parameters, injected_names, overrides
from ssot.lab.tables import Table
from ssot.lab.timeline import Timeline

# Assertions


def run(source: str, **names: Any) -> dict[str, Any]:
    """Run a cell whose assertions are rewritten; its names afterwards."""
    tree = ast.fix_missing_locations(RewriteAsserts().visit(ast.parse(source)))
    names[RewriteAsserts.name] = Seen
    code = compile(tree, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, names)
    if asyncio.iscoroutine(made):
        asyncio.run(made)
    return names


def message(source: str, **names: Any) -> str:
    with pytest.raises(AssertionError) as failed:
        run(source, **names)
    return str(failed.value)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("assert a == b", ["a == b", "a = 1", "b = 2"]),
        ("assert a + 1 == len(c)", ["a + 1 = 2", "len(c) = 3"]),
        ("assert b < a < 5", ["b = 2", "a = 1"]),
        ("assert not c", ["c = [1, 2, 3]"]),
        ("assert a == 1 and b == 1", ["a = 1", "b = 2"]),
        ("assert b in [x for x in c if x > 2]", ["b = 2", "[x for x in c if x > 2] = [3]"]),
        ("assert all(x < 3 for x in c)", ["False"]),
        ("assert (d := b) == a", ["2", "a = 1"]),
        ("assert f'{a}' == '2'", ["'1'"]),
        ("assert a == b, 'they differ'", ["they differ", "a = 1"]),
        ("assert a == b, f'{a} is not {b}'", ["1 is not 2"]),
        ("assert isinstance(a, str)", ["isinstance(a, str) = False"]),
        ("def f(x):\n    assert x == a\nf(7)", ["x = 7", "a = 1"]),
        ("if a:\n    for y in c:\n        assert y < 3", ["y = 3"]),
        ("assert None", ["None"]),
    ],
)
def test_a_failed_assertion_shows_its_values(source: str, parts: list[str]) -> None:
    """Whatever stands in it, the parts and their values are in the message."""
    said = re.sub(" +=", " =", message(source, a=1, b=2, c=[1, 2, 3]))
    assert [part for part in parts if part not in said] == []


def test_each_part_is_evaluated_once_and_short_circuits_stay() -> None:
    """Rewriting changes nothing of what is run, nor in which order."""
    seen: list[int] = []

    def f(value: int) -> int:
        seen.append(value)
        return value

    run("assert f(1) < f(2) < f(3)", f=f)
    message("assert f(5) < f(4) < f(6)", f=f)
    run("assert f(7) or f(8)", f=f)
    message("assert f(0) and f(9)", f=f)
    run("assert f(1), f(99)", f=f)
    assert seen == [1, 2, 3, 5, 4, 7, 0, 1]


def test_two_calls_of_one_function_show_both_values() -> None:
    """The same words twice are two values, not one."""
    values: Iterator[int] = iter([1, 2])
    said = re.sub(" +=", " =", message("assert next(i) == next(i)", i=values))
    assert "= 1" in said
    assert "= 2" in said


def test_what_held_is_told_but_not_what_was_only_identified() -> None:
    """Each operand of an assertion that holds, except where it was asked whether it is None."""
    told: list[tuple[str, object]] = []
    names = {"a": 1, "b": [2]}
    tree = ast.fix_missing_locations(
        RewriteAsserts().visit(ast.parse("assert a == 1 and b is not None\nassert b[0] == 2"))
    )
    names[RewriteAsserts.name] = lambda: Seen(lambda *seen: told.append(seen))  # type: ignore[assignment]
    exec(compile(tree, "<cell>", "exec"), names)
    assert told == [("a", 1), ("b[0]", 2)]


def test_an_assertion_may_await() -> None:
    """Awaiting inside an assertion works and is shown."""

    async def one() -> int:
        return 1

    run("assert await one() == 1", one=one)
    assert "await one() = 1" in message("assert await one() == 2", one=one)


def test_a_value_that_cannot_be_shown_does_not_hide_the_failure() -> None:
    """A broken repr and a huge value still leave a short message of the assertion."""

    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no")

        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    assert "a == b" in message("assert a == b", a=Broken(), b=1)
    assert len(message("assert a == b", a="x" * 100_000, b=list(range(100_000)))) < 2000


def test_the_traceback_points_at_the_assertion() -> None:
    """The line of the error is the line of the assertion."""
    with pytest.raises(AssertionError) as failed:
        run("a = 1\n\nassert (\n    a == 2\n)\n")
    assert failed.traceback[-1].lineno == 2


@given(st.sampled_from(["x < y", "x == y or y > 3", "not x", "x and y", "x in (y, 1)", "-x < y <= 4"]),
       st.integers(-2, 5), st.integers(-2, 5))  # fmt: skip
def test_a_rewritten_assertion_fails_exactly_when_the_plain_one_does(
    test: str, x: int, y: int
) -> None:
    """The verdict never changes."""
    if eval(test, {"x": x, "y": y}):
        run(f"assert {test}", x=x, y=y)
    else:
        message(f"assert {test}", x=x, y=y)


# Parameters

GIVEN = {"users": 4, "seed": 1, "services": "embedded", "latency_ms": 0, "workers": 2}


def test_good_parameters_pass() -> None:
    """The defaults of a notebook are no problem."""
    check_parameters(GIVEN, {"users"})


def test_every_wrong_parameter_is_told_at_once() -> None:
    """Unknown (with what was meant), ill-typed and impossible ones in one error."""
    wrong = {
        **GIVEN,
        "users": 1,
        "services": "docker",
        "latency_ms": "20",
        "seed": True,
        "workers": 1.5,
    }
    with pytest.raises(SettingsError) as refused:
        check_parameters(wrong, {"user", "nonsense"})
    text = str(refused.value)
    assert len(refused.value.problems) == 7
    assert "did you mean users?" in text
    for part in (
        "from 2 to 1000, not 1",
        "'docker'",
        "'20' (str)",
        "True (bool)",
        "1.5 (float)",
        "nonsense",
    ):
        assert part in text


def test_the_names_that_papermill_injects_are_found() -> None:
    """Only its own cell counts."""
    cells = [
        "users = 1\nother = 2",
        "# Parameters\nusers = 8\nseed = 3\n",
        "# Parameters of mine\nx = 1",
    ]
    assert injected_names(cells) == {"users", "seed"}


def test_the_environment_sets_what_papermill_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSOT_LAB_… gives a value of the parameter's type; papermill's own value wins."""
    monkeypatch.setenv("SSOT_LAB_USERS", "32")
    monkeypatch.setenv("SSOT_LAB_SEED", "7")
    monkeypatch.setenv("SSOT_LAB_SERVICES", "url")
    monkeypatch.setenv("SSOT_LAB_WORKERS", "many")
    assert overrides(GIVEN, ["seed"]) == {"users": 32, "services": "url", "workers": "many"}
    assert overrides(GIVEN, iter(["seed"])) == {"users": 32, "services": "url", "workers": "many"}


# Tables and the timeline


def test_a_table_is_aligned_text_and_escaped_html() -> None:
    """Numbers are flush right; what looks like HTML is shown as it is."""
    table = Table(("name", "count"), [("<b>", 7), ("longer & name", 1234)])
    assert repr(table).splitlines() == [
        "name           count",
        "─────────────  ─────",
        "<b>                7",
        "longer & name   1234",
    ]
    made = table._repr_html_()
    assert "&lt;b&gt;" in made
    assert "longer &amp; name" in made
    assert "<b>" not in made
    assert 'text-align: right">1234' in made


@given(st.lists(st.tuples(st.text(max_size=5), st.integers()), max_size=5))
def test_every_cell_of_a_table_is_in_its_html(rows: list[tuple[str, int]]) -> None:
    """Nothing is lost, whatever the cells hold."""
    made = Table(("a", "b"), rows)._repr_html_()
    assert made.count("<td") == 2 * len(rows)
    for text, number in rows:
        assert f">{html.escape(text)}</td>" in made
        assert f">{number}</td>" in made


def test_an_empty_table_shows_its_heads() -> None:
    """No rows are no error."""
    assert repr(Table(("a", "bb"), [])).splitlines()[0] == "a  bb"


def test_a_timeline_tells_what_happened_since_then() -> None:
    """Entries are in order, relative to the start; the last ones when there are many."""
    timeline = Timeline()
    timeline.record("old", "before")
    start = time.monotonic()
    for number in range(100):
        timeline.record("lab", f"step {number}")
    assert [e.what for e in timeline.since(start)] == [f"step {n}" for n in range(100)]
    lines = timeline.text(start, last=10).splitlines()
    assert len(lines) == 11
    assert "90 earlier entries" in lines[0]
    assert lines[-1].endswith("step 99")
    assert "nothing was recorded" in Timeline().text(start)


def test_a_timeline_keeps_the_newest_twenty_thousand() -> None:
    """It is bounded, and keeps as much as it says."""
    timeline = Timeline()
    for number in range(30_001):
        timeline.record("lab", str(number))
    kept = timeline.since(0)
    assert len(kept) == 20_000
    assert kept[-1].what == "30000"


# The check


def check(deadline: float = 5, *, end: Any = None, shown: list[Table] | None = None) -> Check:
    async def nothing() -> None:
        return None

    async def report(error: BaseException) -> tuple[str, object | None]:
        return f"report of {type(error).__name__}: {error}", None

    tables = [] if shown is None else shown
    return Check(
        "GP-01", "it holds", deadline=deadline, begin=nothing, end=end or nothing,
        passed=nothing, failed=report, display=tables.append,
    )  # fmt: skip


async def test_a_check_that_passes_prints_one_line_and_then_its_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The verdict line is the whole output; tables come after it."""
    shown: list[Table] = []
    async with check(shown=shown) as one:
        one.show(("a",), [(1,)])
        assert shown == []
    assert capsys.readouterr().out == "GP-01 PASS it holds\n"
    assert len(shown) == 1


async def test_a_check_that_fails_prints_its_report_and_raises(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The assertion passes through as it is."""
    with pytest.raises(AssertionError, match="no"):
        async with check():
            raise AssertionError("no")
    out = capsys.readouterr().out
    assert out.startswith("GP-01 FAIL it holds\n")
    assert "report of AssertionError: no" in out


async def test_a_check_that_cannot_be_made_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown is told with its reason and raised."""
    with pytest.raises(Unknown):
        async with check():
            raise Unknown("no kill here")
    assert capsys.readouterr().out == "GP-01 UNKNOWN it holds: no kill here\n"


async def test_a_check_that_blocks_the_loop_past_its_deadline_has_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No timer can act while a cell computes; it has taken too long all the same."""
    with pytest.raises(TimeoutError, match=r"longer than its deadline of 0\.05 s"):
        async with check(deadline=0.05):
            time.sleep(0.1)  # noqa: ASYNC251
    assert "GP-01 FAIL" in capsys.readouterr().out


async def test_a_check_past_its_deadline_is_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    """The wait ends at the deadline, and the error says which."""
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"longer than its deadline of 0\.05 s"):
        async with check(0.05):
            await asyncio.get_running_loop().create_future()
    assert time.monotonic() - begin < 2
    assert "GP-01 FAIL" in capsys.readouterr().out


async def test_what_is_found_at_the_end_fails_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    """A leak or a warning noticed on leaving is a failure, without a verdict of PASS."""

    async def end() -> None:
        raise RuntimeError("left behind")

    with pytest.raises(RuntimeError, match="left behind"):
        async with check(end=end):
            pass
    out = capsys.readouterr().out
    assert "PASS" not in out
    assert "report of RuntimeError: left behind" in out


BLOCKED = """
import asyncio, sys, time
sys.path.insert(0, {tests!r})
from lab.test_cells import check
from ssot.lab.checks import Blocked

async def main():
    try:
        async with check(0.1):
            {what}
    except Blocked as error:
        assert "in main" in str(error), str(error)
        print("interrupted")
    async with check():
        pass

begin = time.monotonic()
asyncio.run(main())
assert time.monotonic() - begin < 6
"""

SWALLOWS = "exec('try: time.sleep(30)\\nexcept KeyboardInterrupt: pass')"


def test_a_check_that_blocks_the_loop_is_interrupted() -> None:
    """A blocked loop is told with where it stood, and the next check runs as if nothing had been."""
    tests = str(__file__).rpartition("/lab/")[0]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", BLOCKED.format(tests=tests, what=what)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for what in ("time.sleep(30)", "while True: pass", SWALLOWS)
    ]  # fmt: skip
    for process in running:
        out, log = process.communicate(timeout=30)
        assert process.returncode == 0, log
        assert "interrupted" in out
        assert out.endswith("GP-01 PASS it holds\n")

"""Expansion of values by other values: references, defaults, demands, and output of commands.

================  ==============================================================================
``${NAME}``       the value of NAME; a problem when it is absent
``${NAME:-text}`` the value of NAME, or the text when that is absent or empty
``${NAME:?text}`` the value of NAME; a problem with this text when it is absent or empty
``$(command)``    what the command writes; its text is taken as it stands
``$$``            a dollar
================  ==============================================================================

The text after ``:-`` is expanded in the same way, and ends at the first ``}`` of its own. A dollar
before anything else stands for itself, so ``$NAME`` and ``$5`` stay as they are. What was put in is
never looked into again, and a default that is not needed is not expanded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ssot.environment.commands import CommandRefused, Commands
from ssot.environment.redaction import printable

__all__ = ["Definition", "Expanded", "Expansion", "expand"]

_DEEPEST = 32
_LARGEST = 128 * 1024
"""In bytes of UTF-8: no child process could be given more in one variable."""
_LARGEST_SUM = 16 * 1024 * 1024
_MOST_SHOWN = 20
_LONGEST_MESSAGE = 200

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-+?=]|[#%/^,@\[:]")
_STOPS = re.compile(r"\$[$({]|\}")
_COMMAND_STOPS = re.compile(r"""[()'"\\]|\$[({]""")


@dataclass(frozen=True, slots=True)
class Definition:
    """One value before its expansion; the representation shows none.

    ``where`` says for people where it was set: ``.env.test, line 3``. A ``literal`` text is never
    looked into. ``below`` is the definition of the same name that this one won over: a reference
    to the own name means that.
    """

    name: str
    text: str = field(repr=False)
    where: str
    literal: bool
    secret: bool
    below: Definition | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Expanded:
    """A value with what it was made of; the representation does not show it.

    ``secret`` when its definition is, or any value that was put into it. ``references`` are the
    names that were asked for, and ``commands`` the commands that were run, directly and in order.
    """

    value: str = field(repr=False)
    secret: bool
    references: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expansion:
    """Every value that could be made, by name, and every problem, none of which shows a value.

    A name that depends on a problem has no value and no problem of its own.
    """

    values: Mapping[str, Expanded]
    problems: tuple[str, ...]


def expand(
    definitions: Mapping[str, Definition],
    *,
    commands: Commands,
    unseen: Callable[[str], str | None] = lambda _: None,
) -> Expansion:
    """Expand all definitions; the result does not depend on the order of the mapping.

    ``unseen`` says why a name is never among the definitions, whoever sets it; mostly nothing.
    References go at most 32 deep, a value has at most 128 KiB, all together 16 MiB; beyond is a
    problem. Commands are run while this runs, so it blocks as long as they do.
    """
    return _Run(definitions, commands, unseen).expansion()


# The parts of a text


@dataclass(frozen=True, slots=True)
class _Reference:
    name: str
    default: tuple[_Part, ...] | None = None
    demand: str | None = None


@dataclass(frozen=True, slots=True)
class _Command:
    text: str
    position: int


_Part = str | _Reference | _Command


class _Unreadable(Exception):
    """What is wrong with a text from one place on, so that the rest cannot be read."""


class _Parser:
    """Reads one text from left to right; mistakes that end where they began do not stop it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.problems: list[str] = []

    def parse(self) -> tuple[_Part, ...]:
        """The parts of the text, as far as it could be read."""
        try:
            return self._parts(0, depth=0)
        except _Unreadable as reason:
            self.problems.append(str(reason))
            return ()

    def _parts(self, start: int, *, depth: int) -> tuple[_Part, ...]:
        """Up to the end of the text, or of what began at ``start``: its brace is taken too."""
        parts: list[_Part] = []
        if depth > _DEEPEST:
            raise _Unreadable(
                f"more than {_DEEPEST} ${{…}} inside of each other at {_at(start)}; "
                "give some of them a name of their own"
            )
        while match := _STOPS.search(self._text, self._at):
            parts.append(self._text[self._at : match.start()])
            self._at = match.end()
            if match[0] == "$$":
                parts.append("$")
            elif match[0] == "$(":
                parts.append(self._command(match.start()))
            elif match[0] == "${":
                parts.extend(self._reference(match.start(), depth=depth))
            elif depth:
                return tuple(filter(None, parts))
            else:
                parts.append("}")
        if depth:
            raise _open("${", start)
        parts.append(self._text[self._at :])
        self._at = len(self._text)
        return tuple(filter(None, parts))

    def _reference(self, start: int, *, depth: int) -> Iterable[_Part]:
        text = self._text
        name = _NAME.match(text, self._at)
        after = name.end() if name else self._at
        if name and text.startswith("}", after):
            self._at = after + 1
            return [_Reference(name[0])]
        operator = text[after : after + 2]
        if name and operator in (":-", ":?"):
            self._at = after + 2
            inner = self._parts(start, depth=depth + 1)
            if operator == ":-":
                return [_Reference(name[0], default=inner)]
            demand = " ".join(text[after + 2 : self._at - 1].split())
            return [_Reference(name[0], demand=demand[:_LONGEST_MESSAGE])]
        end = text.find("}", after)
        if end < 0:
            raise _open("${", start)
        # Not more than this of the text is shown: it may be a value.
        known = _OPERATOR.match(text, after) if name else None
        shown = f"${{{name[0]}{known[0]}…}}" if name and known else "${…}"
        self.problems.append(
            f"{shown} at {_at(start)} is not understood; write ${{NAME}}, "
            "${NAME:-default} or ${NAME:?message}, or $$ for a dollar"
        )
        self._at = end + 1
        return []

    def _command(self, start: int) -> _Command:
        """The command up to its parenthesis; those in quotes, or in pairs, belong to it."""
        text = self._text
        begin, open_, quote, inner = self._at, 1, "", ""
        while match := _COMMAND_STOPS.search(text, self._at):
            self._at = match.end()
            found = match[0]
            if found == "\\":
                # In single quotes it escapes nothing.
                self._at += quote != "'"
            elif found in ("'", '"'):
                quote = "" if quote == found else quote or found
            elif found in ("${", "$("):
                if quote != "'":
                    inner = inner or found
                open_ += found == "$(" and not quote
            elif not quote:
                open_ += 1 if found == "(" else -1
                if not open_:
                    if inner:
                        self.problems.append(
                            f"{inner} stands in the command at {_at(start)}, and nothing in a "
                            "command is expanded; leave it out, or put it in single quotes"
                        )
                    return _Command(text[begin : match.start()], start)
        raise _open("$(", start)


def _at(start: int) -> str:
    return f"character {start + 1} of its text"


def _open(sign: str, start: int) -> _Unreadable:
    return _Unreadable(f"the {sign} at {_at(start)} is never closed; close it, or write ${sign}")


# Putting the values in


_Node = tuple[str, int]
"""A name, and how many definitions of it stand above this one."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of a node; a value of None is one that cannot be made."""

    value: str | None = None
    size: int = 0
    secret: bool = False
    depth: int = 0
    references: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


_NOTHING = _Result()


class _Making:
    """The value of one node while it is put together."""

    def __init__(self, node: _Node, definition: Definition) -> None:
        self.node = node
        self.pieces: list[str] = []
        self.size = 0
        self.secret = definition.secret
        self.depth = 0
        self.failed = False
        self.references: dict[str, None] = {}
        self.commands: dict[str, None] = {}

    def add(self, piece: str, size: int) -> None:
        """Append, but keep nothing of what has become too large."""
        self.size += size
        if self.size <= _LARGEST:
            self.pieces.append(piece)


@dataclass(slots=True)
class _Lack:
    """A name that is needed and not there: by whom, and what those say who demand it."""

    users: dict[_Node, None] = field(default_factory=dict)
    messages: dict[str, None] = field(default_factory=dict)
    plain: bool = False


class _Run:
    """One expansion. Nodes wait for each other on a stack of its own, however long the chain."""

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        commands: Commands,
        unseen: Callable[[str], str | None],
    ) -> None:
        self._commands = commands
        self._unseen = unseen
        self._nodes: dict[_Node, Definition] = {}
        for name, definition in definitions.items():
            level, current = 0, definition
            self._nodes[name, level] = current
            while current.below is not None:
                level, current = level + 1, current.below
                self._nodes[name, level] = current
        self._results: dict[_Node, _Result] = {}
        self._users: dict[_Node, dict[_Node, None]] = {}
        self._lacks: dict[tuple[str, bool], _Lack] = {}
        self._cascades: dict[tuple[_Node, ...], list[_Node]] = {}
        self._cycles: set[tuple[_Node, _Node]] = set()
        self._problems: list[str] = []
        self._made = 0

    def expansion(self) -> Expansion:
        """Expand everything, by name."""
        values: dict[str, Expanded] = {}
        for node in sorted(self._nodes):
            # What was won over is expanded when it is referred to, and not otherwise.
            if node[1] > 0:
                continue
            result = self._settle(node)
            if result.value is not None:
                values[node[0]] = Expanded(
                    result.value, result.secret, result.references, result.commands
                )
        lacks = [self._lack(*key) for key in sorted(self._lacks)]
        return Expansion(MappingProxyType(values), (*lacks, *self._problems))

    def _settle(self, root: _Node) -> _Result:
        if root in self._results:
            return self._results[root]
        waiting = [(root, self._make(root))]
        places = {root: 0}
        answer: _Result | None = None
        while waiting:
            node, making = waiting[-1]
            try:
                # A generator that has just begun takes None.
                wanted = making.send(answer)  # type: ignore[arg-type]
            except StopIteration as made:
                answer = self._results[node] = made.value
                waiting.pop()
                del places[node]
                continue
            answer = self._results.get(wanted)
            if answer is None and wanted in places:
                begin = places[wanted]
                shown = [step for step, _ in waiting[begin : begin + _MOST_SHOWN]]
                self._cycle((node, wanted), shown, length=len(waiting) - begin)
                answer = _NOTHING
            elif answer is None:
                places[wanted] = len(waiting)
                waiting.append((wanted, self._make(wanted)))
        return self._results[root]

    def _make(self, node: _Node) -> Generator[_Node, _Result, _Result]:
        """Ask for nodes one after the other; return what became of this one."""
        definition = self._nodes[node]
        making = _Making(node, definition)
        if self._made > _LARGEST_SUM:
            return _NOTHING
        if definition.literal or "$" not in definition.text:
            making.add(definition.text, _size(definition.text))
        else:
            parser = _Parser(definition.text)
            parts = parser.parse()
            for problem in parser.problems:
                self._fail(making, problem)
            yield from self._fill(making, parts)
        if making.failed:
            return _NOTHING
        if making.size > _LARGEST:
            self._fail(making, f"its value is more than {_LARGEST // 1024} KiB; make it smaller")
            return _NOTHING
        if making.depth > _DEEPEST:
            self._fail(
                making,
                f"it stands on more than {_DEEPEST} references one behind the other; give one of "
                "them a value without references",
            )
            return _NOTHING
        if making.references or making.commands:
            self._made += making.size
            if self._made > _LARGEST_SUM:
                self._fail(
                    making,
                    f"with it, the values made of others are more than "
                    f"{_LARGEST_SUM // 1024 // 1024} MiB together; make them smaller",
                )
                return _NOTHING
        return _Result(
            "".join(making.pieces),
            making.size,
            making.secret,
            making.depth,
            tuple(making.references),
            tuple(making.commands),
        )

    def _fill(self, making: _Making, parts: Sequence[_Part]) -> Generator[_Node, _Result, None]:
        for part in parts:
            if making.size > _LARGEST:
                return
            if isinstance(part, str):
                making.add(part, _size(part))
            elif isinstance(part, _Reference):
                yield from self._refer(making, part)
            elif not making.failed:
                self._run(making, part)

    def _refer(self, making: _Making, part: _Reference) -> Generator[_Node, _Result, None]:
        making.references[part.name] = None
        name, level = making.node
        target = (part.name, 0)
        if part.name == name:
            target = (name, level + 1)
            # Nothing below: absent, as in a shell, when the text says what then; else a circle.
            if target not in self._nodes and (part.default, part.demand) == (None, None):
                target = making.node
        result = None
        if target in self._nodes:
            result = yield target
            if result.value is None:
                self._users.setdefault(target, {})[making.node] = None
                making.failed = True
                return
            making.depth = max(making.depth, result.depth + 1)
        if result is not None and (result.value or (part.default, part.demand) == (None, None)):
            making.secret |= result.secret
            making.add(result.value or "", result.size)
        elif part.default is not None:
            yield from self._fill(making, part.default)
        else:
            lack = self._lacks.setdefault((part.name, result is not None), _Lack())
            lack.users[making.node] = None
            lack.plain |= part.demand is None
            if part.demand:
                lack.messages[part.demand] = None
            making.failed = True

    def _run(self, making: _Making, part: _Command) -> None:
        making.commands[part.text] = None
        try:
            output = self._commands.run(part.text)
        except CommandRefused as refused:
            self._fail(making, f"the command at {_at(part.position)}: {refused.reason}")
        else:
            making.add(output, _size(output))

    # What is told

    def _fail(self, making: _Making, problem: str) -> None:
        making.failed = True
        self._problems.append(f"{self._shown(making.node)}: {problem}")

    def _shown(self, node: _Node) -> str:
        return f"{node[0]} ({self._nodes[node].where})"

    def _list(self, nodes: Sequence[_Node], length: int) -> str:
        more = length - _MOST_SHOWN
        rest = f" and {more} more" if more > 0 else ""
        return ", ".join(map(self._shown, nodes[:_MOST_SHOWN])) + rest

    def _lack(self, name: str, empty: bool) -> str:
        """One sentence on a name, with all that cannot be made for want of it."""
        lack = self._lacks[name, empty]
        users = tuple(sorted(lack.users))
        others = self._others(users)
        by = ""
        if others:
            means = "them" if len(users) > 1 else "it"
            by = f", and by {means} {self._list(others, len(others))},"
        message = ": " + " / ".join(map(printable, lack.messages)) if lack.messages else ""
        why = f"{name} is {'empty' if empty else 'not set'}"
        advice = "give it a value" if empty else "set it"
        if (unseen := self._unseen(name)) is not None:
            # To set it there, where it may well be set already, would change nothing.
            why, advice = unseen, "use a shared name"
        if lack.plain:
            advice += f", or write ${{{name}:-…}}"
        return (
            f"{why}{message}; {self._list(users, len(users))}"
            f"{by} refer{'' if others or len(users) > 1 else 's'} to it: {advice}"
        )

    def _others(self, users: tuple[_Node, ...]) -> list[_Node]:
        """All that cannot be made because of these, directly or not, without these."""
        if users not in self._cascades:
            reached = set(users)
            waiting = list(users)
            while waiting:
                for node in self._users.get(waiting.pop(), ()):
                    if node not in reached:
                        reached.add(node)
                        waiting.append(node)
            self._cascades[users] = sorted(reached.difference(users))
        return self._cascades[users]

    def _cycle(self, closing: tuple[_Node, _Node], nodes: list[_Node], *, length: int) -> None:
        """Tell the way round: of a long one its begin, of any other from its first name on."""
        if closing in self._cycles:
            return
        self._cycles.add(closing)
        if length == len(nodes):
            first = nodes.index(min(nodes))
            nodes = nodes[first:] + nodes[:first]
        names = [name for name, _ in nodes]
        rest = ["…"] if length > len(nodes) else []
        path = " -> ".join([*names, *rest, names[0]])
        if length == 1:
            why = "refers to itself, and no weaker layer sets it; give it a value of its own"
        else:
            why = "refer to each other in a circle; give one of them a value of its own"
        self._problems.append(f"{path}: {self._list(nodes, length)} {why}")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

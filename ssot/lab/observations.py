"""Where an asserted value came from: the evidence that a check looks at the far side."""

from __future__ import annotations

import ast
import json
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["COMPONENTS", "Asserted", "Observations"]

T = TypeVar("T")

COMPONENTS = (
    "environment",
    "configuration",
    "streams",
    "database",
    "auth",
    "websocket",
    "agents",
    "postgresql",
    "redis",
)
"""What a check may be between: the platform's components, and the servers below them."""

_SHORTEST = 4
_SMALLEST = 1000
_MOST_PARTS = 5000
_MOST_ASSERTED = 60
_BEHIND = {"database": "postgresql", "streams": "redis"}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 8
_short.maxlevel = 3


@dataclass(frozen=True, slots=True)
class Asserted:
    """An operand of an assertion that held, and a component that its value came from."""

    component: str
    expression: str
    value: str


class Observations:
    """Knows which values came from which component, and notes those that were asserted.

    A value counts as a component's when it was handed out by what watches that component
    (:meth:`saw`), is a distinctive part of such a value, or is an object of the component's own
    package. ``namespace`` resolves the names in an assertion.
    """

    def __init__(self, namespace: Callable[[], Mapping[str, Any]]) -> None:
        self._namespace = namespace
        self._objects: dict[int, tuple[Any, frozenset[str]]] = {}
        self._parts: dict[Any, frozenset[str]] = {}
        self._asserted: dict[tuple[str, str], Asserted] = {}
        self._before: dict[str, Any] = {}

    def clear(self) -> None:
        """Forget everything: another check begins. What has a name by now is none of its values."""
        self._objects.clear()
        self._parts.clear()
        self._asserted.clear()
        self._before = dict(self._namespace())

    def saw(self, components: Iterable[str], value: T) -> T:
        """Note that a value came from these components, and return it."""
        found = frozenset(components)
        for part in _walk(value):
            if _is_distinctive(part):
                key = (type(part), part)
                self._parts[key] = self._parts.get(key, frozenset()) | found
            elif not isinstance(part, str | bytes | int | float | None):
                known = self._objects.get(id(part), (part, frozenset()))[1]
                # Kept alive, so that no other object gets its identity.
                self._objects[id(part)] = (part, known | found)
        return value

    def caught(self, error: BaseException, holder: object) -> None:
        """Note an expected error, and what holds it, as of the components that it came through."""
        found = _components_of_traceback(error.__traceback__) | _component_of(error)
        if type(error).__name__ == "AuthenticationError" and not found & {"database", "streams"}:
            # Refused in another process, by the one component that decides on tokens.
            found |= {"auth"}
        found |= {_BEHIND[each] for each in found if each in _BEHIND}
        self.saw(found, [holder, error, str(error), *error.args, *vars(error).values()])

    def held(self, expression: str, value: Any) -> None:
        """An operand of an assertion that held."""
        if len(self._asserted) >= _MOST_ASSERTED:
            return
        namespace = self._namespace()
        names = [name for name in _names(expression) if name != "lab"]
        own = [n for n in names if n in namespace and not self._is_older(n, namespace[n])]
        if not own and all(name in namespace for name in names) and "lab" not in expression:
            # A literal, or what was there before the check, like a constant of the set-up cell.
            return
        found = self._origin(value)
        for name in own:
            found |= self._origin(namespace[name])
        for component in found:
            key = (component, expression)
            if key not in self._asserted:
                self._asserted[key] = Asserted(component, expression, _short.repr(value))

    def asserted(self) -> list[Asserted]:
        """What was asserted since the check began, by component and in order."""
        return sorted(self._asserted.values(), key=lambda each: COMPONENTS.index(each.component))

    def _is_older(self, name: str, value: Any) -> bool:
        return name in self._before and self._before[name] is value

    def _origin(self, value: Any) -> frozenset[str]:
        if _is_distinctive(value):
            return self._parts.get((type(value), value), frozenset())
        noted = self._objects.get(id(value))
        found = noted[1] if noted is not None and noted[0] is value else frozenset()
        if isinstance(value, list | tuple | set | frozenset) and not found:
            for part in value:
                found |= self._origin(part) if part is not value else frozenset()
        return found | _component_of(value)


def _is_distinctive(value: Any) -> bool:
    """Whether equality says enough: a long word or a large number, not 0, True or 'ok'."""
    if isinstance(value, str | bytes):
        return len(value) >= _SHORTEST
    if isinstance(value, float):
        return math.isfinite(value) and not value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _SMALLEST


def _walk(value: Any) -> Iterable[Any]:
    """The value and its parts, also those of JSON in a text; a bounded number of them."""
    left = [value]
    seen: set[int] = set()
    while left and len(seen) < _MOST_PARTS:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, Mapping):
            left += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            left += part
        elif isinstance(part, str) and part[:1] in ("{", "["):
            try:
                left.append(json.loads(part))
            except ValueError:
                continue
        elif hasattr(type(part), "__struct_fields__"):
            left += (getattr(part, name) for name in type(part).__struct_fields__)


@lru_cache(maxsize=1000)
def _names(expression: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        return ()
    return tuple(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _component_of(value: object) -> frozenset[str]:
    """The component whose package defines a value's type; the lab's own say what they watch."""
    package, _, rest = type(value).__module__.partition(".")
    if rest.startswith("lab."):
        watches: frozenset[str] = getattr(value, "watches", frozenset())
        return watches
    component = rest.partition(".")[0]
    return frozenset({component} if package == "ssot" and component in COMPONENTS else ())


def _components_of_traceback(trace: TracebackType | None) -> frozenset[str]:
    found = set()
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        package, _, rest = name.partition(".")
        if package == "ssot":
            found.add(rest.partition(".")[0])
        trace = trace.tb_next
    return frozenset(found & set(COMPONENTS))

"""What is known of the variables at one moment: values, where each came from, what it won over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from ssot.environment.redaction import MASK, mask_value

__all__ = ["LAYERS", "Change", "Layer", "Origin", "Snapshot", "Variable"]

Layer = Literal[
    "default", "test default", "env file", "secret file", "process", "override", "overlay"
]
"""Where a value came from, from the weakest to the strongest."""

LAYERS: tuple[Layer, ...] = get_args(Layer)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value stands: its layer, and of a file the path and line.

    ``label`` is the name of an overlay, or who made an override; empty for every other layer.
    """

    layer: Layer
    path: Path | None = None
    line: int | None = None
    label: str = ""

    def __str__(self) -> str:
        if self.path is None:
            return f"{self.layer} {self.label}".rstrip()
        return f"{self.path}, line {self.line}" if self.line else f"secret file {self.path}"


@dataclass(frozen=True, slots=True, repr=False)
class Variable:
    """One value with its story. Shown as text, a secret is masked.

    ``over`` are those that it won over, the strongest first. ``references`` are the names that its
    value was made of, ``commands`` those that were run for it.
    """

    name: str
    value: str
    origin: Origin
    secret: bool
    over: tuple[Variable, ...] = ()
    references: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}={self.shown} ({self.origin})"

    def __repr__(self) -> str:
        return f"<{self}>"

    @property
    def shown(self) -> str:
        """The value as people may see it."""
        return MASK if self.secret and self.value else mask_value(self.value)


@dataclass(frozen=True, slots=True)
class Change:
    """One name before and after a swap; ``None`` where it was or is absent.

    ``origin`` is where the new value came from. A secret's values are masked unless the subscriber
    was granted them, and always in the text of a change.
    """

    name: str
    old: str | None = field(repr=False)
    new: str | None = field(repr=False)
    origin: Origin | None
    secret: bool

    def masked(self) -> Change:
        """The same without the values of a secret, and without passwords in URLs."""
        old, new = self._shown(self.old), self._shown(self.new)
        return Change(self.name, old, new, self.origin, self.secret)

    def __str__(self) -> str:
        old, new = (self._shown(value) for value in (self.old, self.new))
        return f"{self.name}: {old} -> {new} ({self.origin or 'deleted'})"

    def _shown(self, value: str | None) -> str | None:
        if value is None:
            return None
        return MASK if self.secret and value else mask_value(value)


class Snapshot(Mapping[str, str]):
    """The environment at one moment: it never changes, so two reads of it never tear.

    ``trace`` is the W3C traceparent of the span that built it, empty when nobody traces: whatever
    is made of these values can name its origin. ``broken`` are names that are written somewhere and
    have no value: for a validator because what is written is wrong, and in a view that was narrowed
    to one service because it is made of another's names. ``deleted`` are those that somebody took
    away in code, whatever the layers hold.
    """

    __slots__ = ("_values", "_variables", "broken", "deleted", "trace")

    def __init__(
        self,
        variables: Mapping[str, Variable],
        *,
        trace: str = "",
        broken: frozenset[str] = frozenset(),
        deleted: frozenset[str] = frozenset(),
    ) -> None:
        self.trace = trace
        self.deleted = deleted
        self.broken = broken
        self._variables = MappingProxyType(dict(variables))
        self._values = {name: variable.value for name, variable in variables.items()}

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self)} variables>"

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """The value, or ``default`` when the name is absent; an empty value is a value."""
        return self._values.get(name, default)

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Every variable with its origin, by name."""
        return self._variables

"""What one direction of a link does to the bytes that go through it; pure.

An :class:`Effect` says what, an :class:`Injection` when, to which directions and on whose bytes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "DIRECTIONS",
    "Bandwidth",
    "BlackHole",
    "Cut",
    "Direction",
    "Effect",
    "Injection",
    "Latency",
    "Shape",
    "Way",
]

Way = Literal["to", "from"]
"""``to`` the server (the far end), or ``from`` it."""

Direction = Literal["to", "from", "both"]

DIRECTIONS: Mapping[Direction, tuple[Way, ...]] = {
    "to": ("to",),
    "from": ("from",),
    "both": ("to", "from"),
}

_SMALLEST_PIECE = 64
_PIECES_A_SECOND = 50


@dataclass(frozen=True, slots=True)
class Latency:
    """``seconds`` later, and up to ``jitter`` seconds more, drawn for each piece; order is kept."""

    seconds: float
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _from_zero("seconds", self.seconds)
        _from_zero("jitter", self.jitter)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """``rate`` bytes a second, shared by all connections of the link."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ValueError(f"a bandwidth is more than 0 bytes a second, not {self.rate!r}")


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Nothing arrives and nobody is told; what was held goes on when it is healed."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Every connection is reset; new ones are refused while it lasts, if ``refuse``."""

    refuse: bool = True


Effect = Latency | Bandwidth | BlackHole | Cut


@dataclass(slots=True, eq=False)
class Injection:
    """An effect with its trigger: at once, after so many bytes, or after so many seconds.

    ``direction`` is where it acts and whose bytes are counted: with ``both`` those of both
    directions together. ``left`` is how many may still go by.
    """

    effect: Effect
    direction: Direction = "both"
    after_bytes: int | None = None
    after: float | None = None
    left: int | None = field(init=False)

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"a direction is to, from or both, not {self.direction!r}")
        if self.after_bytes is not None and self.after is not None:
            raise ValueError("a fault begins after_bytes or after some seconds, not both")
        if self.after_bytes is not None and self.after_bytes < 0:
            raise ValueError(f"after_bytes is 0 or more, not {self.after_bytes}")
        if self.after is not None:
            _from_zero("after", self.after)
        self.left = self.after_bytes

    @property
    def ways(self) -> tuple[Way, ...]:
        """The directions that it acts on."""
        return DIRECTIONS[self.direction]


class Shape:
    """Everything that one direction suffers now.

    ``base`` is a latency in seconds that is always there. ``held``: nothing goes by; ``clear``:
    everything does, at once; ``free_at``: when the bandwidth allows the next piece. Jitter is drawn
    from ``seed``, anew for each injection: it does not depend on what was injected before.
    """

    def __init__(self, *, base: float, seed: str) -> None:
        self.base = base
        self.held = False
        self.rate: float | None = None
        self.clear = True
        self.free_at = 0.0
        self._seed = seed
        self._latencies: dict[Injection, random.Random] = {}
        self._rates: dict[Injection, float] = {}
        self._holding: set[Injection] = set()
        self._counting: list[Injection] = []
        self._settle()

    def __repr__(self) -> str:
        return f"<Shape: {'clear' if self.clear else self._describe()}>"

    def add(self, injection: Injection) -> None:
        """It acts from now on. A cut, whose connections are about to be reset, holds everything."""
        effect = injection.effect
        if isinstance(effect, Latency):
            # Jitter decides nothing that must be hard to guess.
            self._latencies[injection] = random.Random(self._seed)  # noqa: S311
        elif isinstance(effect, Bandwidth):
            self._rates[injection] = effect.rate
        else:
            self._holding.add(injection)
        self._settle()

    def count(self, injection: Injection) -> None:
        """It will act once enough bytes have gone by."""
        self._counting.append(injection)
        self._settle()

    def remove(self, injection: Injection) -> None:
        """It acts no more, and will not."""
        self._latencies.pop(injection, None)
        self._rates.pop(injection, None)
        self._holding.discard(injection)
        self._counting = [other for other in self._counting if other is not injection]
        self._settle()

    def delay(self) -> float:
        """Seconds that the next piece is to be late; draws the jitter."""
        total = self.base
        for injection, randomness in self._latencies.items():
            effect = injection.effect
            assert isinstance(effect, Latency)
            total += effect.seconds
            if effect.jitter:
                total += randomness.uniform(0, effect.jitter)
        return total

    def longest(self) -> float:
        """Seconds that a piece can be late now."""
        effects = [injection.effect for injection in self._latencies]
        return self.base + sum(e.seconds + e.jitter for e in effects if isinstance(e, Latency))

    def allowance(self, size: int) -> int:
        """How many of ``size`` bytes may go at once: the next trigger is met exactly."""
        if self.rate is not None:
            size = min(size, max(_SMALLEST_PIECE, int(self.rate / _PIECES_A_SECOND)))
        for injection in self._counting:
            assert injection.left is not None
            size = min(size, injection.left)
        return size

    def spend(self, size: int, now: float) -> None:
        """So many bytes go out now; nothing else does before :attr:`free_at`."""
        if self.rate is not None:
            self.free_at = max(now, self.free_at) + size / self.rate

    def passed(self, size: int) -> list[Injection]:
        """So many bytes went by, at most the allowance; returns what is triggered by that."""
        for injection in self._counting:
            assert injection.left is not None
            injection.left -= size
        return self.due()

    def due(self) -> list[Injection]:
        """What has counted its last byte."""
        return [injection for injection in self._counting if injection.left == 0]

    def _settle(self) -> None:
        self.held = bool(self._holding)
        self.rate = min(self._rates.values(), default=None)
        if self.rate is None:
            self.free_at = 0.0
        self.clear = not (
            self.base or self._latencies or self._rates or self._holding or self._counting
        )

    def _describe(self) -> str:
        acting = [*self._latencies, *self._rates, *self._holding]
        waiting = [f"{i.effect} after {i.left} more bytes" for i in self._counting]
        base = [f"{self.base:g} s always"] if self.base else []
        return ", ".join([*base, *(str(i.effect) for i in acting), *waiting])


def _from_zero(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is a number of seconds from 0, not {value!r}")

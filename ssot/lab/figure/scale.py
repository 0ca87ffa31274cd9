"""Time on paper: where a moment stands, which idle stretches are cut, which ticks are round."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Scale", "Segment", "Tick", "duration"]

_WORTH = 0.65
"""Idle stretches are cut only where together they would take this part of the axis."""

_IDLE = 0.05
"""The part of the whole that a stretch without any change must last to count as idle."""

_CUTS = 6
_CUT_WIDTH = 64.0
_APART = 76.0
"""Pixels from one tick to the next, at least."""

_HALF_LABEL = 10.0


class Segment(NamedTuple):
    """A stretch of time and its place; one that is cut does not share the others' scale."""

    begin: float
    end: float
    left: float
    right: float
    cut: bool


class Tick(NamedTuple):
    """A round moment, in seconds, its place, and how it is written."""

    at: float
    x: float
    label: str


def duration(seconds: float) -> str:
    """Write a length of time with two or three digits that say something, and its unit."""
    if seconds <= 0:
        return "0 ms"
    if seconds >= 119.5:
        return f"{int((seconds + 0.5) // 60)} min {int((seconds + 0.5) % 60)} s"
    if seconds >= 0.9995:
        return f"{seconds:.1f} s" if seconds >= 9.995 else f"{seconds:.2f} s"
    value, unit = (seconds * 1e3, "ms") if seconds >= 9.995e-4 else (seconds * 1e6, "µs")
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"


class Scale:
    """Places the moments from 0 to ``seconds`` between ``left`` and ``right``.

    All that happens, happens at one of the ``moments``. Where most of the axis would be stretches
    in which nothing does, the longest of these are cut to a fixed width; all the rest is to scale.
    """

    def __init__(
        self, seconds: float, moments: Iterable[float], *, left: float, right: float
    ) -> None:
        self.seconds = seconds if seconds > 0 else 0.001
        self.left = left
        self.right = right
        self.segments = self._segments(sorted({0.0, self.seconds, *moments}))
        self._begins = [segment.begin for segment in self.segments]

    def __call__(self, at: float) -> float:
        """The place of a moment; one before or after the axis stands at its end."""
        at = min(max(at, 0.0), self.seconds)
        segment = self.segments[max(bisect_right(self._begins, at) - 1, 0)]
        share = (at - segment.begin) / (segment.end - segment.begin)
        return segment.left + min(share, 1.0) * (segment.right - segment.left)

    @property
    def cuts(self) -> list[Segment]:
        """The stretches that are shorter on paper than they were."""
        return [segment for segment in self.segments if segment.cut]

    def _segments(self, moments: list[float]) -> list[Segment]:
        idle = [
            (begin, end)
            for begin, end in itertools.pairwise(moments)
            if end - begin >= _IDLE * self.seconds
        ]
        idle = sorted(sorted(idle, key=lambda gap: gap[0] - gap[1])[:_CUTS])
        rest = self.seconds - sum(end - begin for begin, end in idle)
        if 1 - rest / self.seconds < _WORTH or rest <= self.seconds * 1e-9:
            return [Segment(0.0, self.seconds, self.left, self.right, False)]
        # A little room on both sides of a cut, so that what stands at its edge is seen whole.
        rim = min(rest * 0.06, *((end - begin) * 0.2 for begin, end in idle))
        idle = [(begin + rim, end - rim) for begin, end in idle]
        rest = self.seconds - sum(end - begin for begin, end in idle)
        width = self.right - self.left
        # A cut never gets more room than its share of the time would.
        widths = [min(_CUT_WIDTH, (e - b) / self.seconds * width) for b, e in idle]
        scale = (width - sum(widths)) / rest
        found: list[Segment] = []
        at, x = 0.0, self.left
        for (begin, end), cut_width in zip(idle, widths, strict=True):
            if begin > at:
                found.append(Segment(at, begin, x, x + (begin - at) * scale, False))
                x += (begin - at) * scale
            found.append(Segment(begin, end, x, x + cut_width, True))
            at, x = end, x + cut_width
        if self.seconds > at:
            found.append(Segment(at, self.seconds, x, self.right, False))
        return found

    def ticks(self) -> list[Tick]:
        """Round moments, so far apart that their labels have room; none inside a cut."""
        plain = [segment for segment in self.segments if not segment.cut]
        longest = max(plain, key=lambda segment: segment.right - segment.left)
        a_pixel = (longest.end - longest.begin) / max(longest.right - longest.left, 1.0)
        step = _round_up(a_pixel * _APART)
        found: list[Tick] = []
        for segment in plain:
            number = math.ceil(segment.begin / step - 1e-9)
            while (at := number * step) <= segment.end * (1 + 1e-12):
                tick = Tick(at, self(at), self._label(at, step))
                near = found and tick.x - found[-1].x < _APART * 0.8
                # A cut writes its length under its middle.
                near = near or any(
                    cut.left - _HALF_LABEL < tick.x < cut.right + _HALF_LABEL for cut in self.cuts
                )
                if not near:
                    found.append(tick)
                number += 1
        return found

    def _label(self, at: float, step: float) -> str:
        if at <= 0:
            return "0"
        factor, unit = (1, "s") if self.seconds >= 1 else (1e3, "ms")
        if self.seconds < 1e-3:
            factor, unit = 1e6, "µs"
        digits = max(0, math.ceil(-math.log10(step * factor) - 1e-9))
        return f"{at * factor:.{digits}f} {unit}"


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    for factor in (1, 2, 5):
        if factor * power >= value * (1 - 1e-9):
            return factor * power
    return 10 * power

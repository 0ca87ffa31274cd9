"""Where everything of a figure stands: rows of bars, marks, and labels that do not collide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ssot.lab.figure.lanes import Band, Lane, Moment, Span
from ssot.lab.figure.scale import Scale, duration
from ssot.lab.figure.svg import text_width

__all__ = ["BAR", "MARKS", "PILLS", "Bar", "Mark", "Placed", "place"]

BAR = 13.0
"""The height of a bar."""

MARKS = 19.0
"""The height of the row of events and actions."""

PILLS = 17.0
"""The height of a row of labels of faults."""

_ROW = 16.0
_PAD = 6.0
_LOWEST = 32.0
_ROWS = 12
"""Bars on top of each other in one lane, at most; what else there is shares one more row."""

_GRAINS = (1.5, 3.0, 6.0, 12.0, 24.0, 48.0, 96.0)
"""Bars that are nearer than this are drawn as one, if there are too many bars: in pixels."""

_MIXED = 96.0
_TINY = 3.0


@dataclass(slots=True)
class Bar:
    """One or more spans of a component, drawn as one."""

    first: Span
    row: int
    left: float
    right: float
    component: str
    spans: list[Span] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether any of its spans ended with an error."""
        return any(span.error for span in self.spans)

    @property
    def title(self) -> str:
        """All of it, for whoever points at it."""
        if len(self.spans) == 1:
            return self.first.title
        names = Counter(span.name for span in self.spans)
        told = [f"{name} ×{count}" for name, count in names.most_common(6)]
        if len(names) > 6:
            told.append(f"and {len(names) - 6} other names")
        begin = min(span.start for span in self.spans)
        end = max(span.end for span in self.spans)
        errors = sum(bool(span.error) for span in self.spans)
        return "\n".join(
            [
                f"{len(self.spans)} spans{f' of {self.component}' if self.component else ''}",
                *told,
                f"from {duration(begin)} to {duration(end)}",
                *([f"{errors} with an error"] if errors else []),
            ]
        )


class Mark(NamedTuple):
    """Entries of the timeline that are drawn as one."""

    x: float
    moments: tuple[Moment, ...]


@dataclass(slots=True)
class Placed:
    """A lane with its place on paper."""

    lane: Lane
    bars: list[Bar]
    marks: list[Mark]
    pills: list[tuple[Band, float, float, int]]
    rows: int
    top: float = 0.0

    @property
    def _inside(self) -> float:
        levels = 1 + max((level for *_, level in self.pills), default=-1)
        marks = MARKS if self.marks else 0.0
        return 2 * _PAD + levels * PILLS + marks + self.rows * _ROW

    @property
    def height(self) -> float:
        """How high the lane is."""
        return max(self._inside, _LOWEST)

    @property
    def pills_top(self) -> float:
        """Where the labels of its faults begin."""
        return self.top + _PAD + (self.height - self._inside) / 2

    @property
    def marks_top(self) -> float:
        """Where the row of its events and actions begins."""
        levels = 1 + max((level for *_, level in self.pills), default=-1)
        return self.pills_top + levels * PILLS

    @property
    def bars_top(self) -> float:
        """Where its first row of bars begins."""
        return self.marks_top + (MARKS if self.marks else 0.0)

    def bar_top(self, row: int) -> float:
        """Where the bars of a row begin."""
        return self.bars_top + row * _ROW + (_ROW - BAR) / 2


def place(lanes: Sequence[Lane], x: Scale, *, top: float, limit: int) -> list[Placed]:
    """Place lanes below each other, with at most about ``limit`` bars and marks in all of them."""
    placed: list[Placed] = []
    for grain in _GRAINS:
        placed = []
        told: set[Band] = set()
        for lane in lanes:
            placed.append(_placed(lane, x, grain, told))
            told.update(lane.bands)
        if sum(len(each.bars) + len(each.marks) for each in placed) <= limit:
            break
    for each in placed:
        each.top = top
        top += each.height
    return placed


def _placed(lane: Lane, x: Scale, grain: float, told: set[Band]) -> Placed:
    bars = _merged(_packed(lane, x), grain)
    marks = _marks(lane.moments, x, max(grain, 7.0))
    rows = 1 + max((bar.row for bar in bars), default=-1)
    return Placed(lane, bars, marks, _pills(lane.bands, x, told), rows)


def _packed(lane: Lane, x: Scale) -> list[Bar]:
    """Give each span a row: below its cause, and with all that it caused apart from others."""
    causes: dict[str, str] = {}
    known: dict[str, Span] = {}
    trees: dict[str, list[Span]] = {}
    for span in lane.spans:  # in the order of their starts
        cause = next(
            (each for each in span.causes if each in known and span.start <= known[each].end),
            "",
        )
        root = causes.get(cause, cause) if cause else span.id
        known[span.id] = span
        causes[span.id] = root
        trees.setdefault(root, []).append(span)
    bars: list[Bar] = []
    ends: list[float] = []
    for tree in trees.values():
        rows = _nested(tree, x)
        height = 1 + max(rows.values())
        left = x(tree[0].start)
        right = max(x(span.end) for span in tree)
        base = 0
        while any(end > left + 0.01 for end in ends[base : base + height]):
            base += 1
        if base + height > _ROWS:
            # No room is left: all of it goes into the last row, which is of no component.
            bars += [Bar(span, _ROWS, x(span.start), x(span.end), "", [span]) for span in tree]
            continue
        ends += [-1.0] * (base + height - len(ends))
        ends[base : base + height] = [right] * height
        bars += [
            Bar(
                span, base + rows[span.id], x(span.start), x(span.end),
                span.component, [span],
            )
            for span in tree
        ]  # fmt: skip
    return sorted(bars, key=lambda bar: (bar.left, -bar.right))


def _nested(tree: Sequence[Span], x: Scale) -> dict[str, int]:
    """Return the rows of spans that belong together: each below its cause, none on another."""
    rows: dict[str, int] = {}
    ends: list[float] = []
    for span in tree:
        row = 1 + max((rows[cause] for cause in span.causes if cause in rows), default=-1)
        left = x(span.start)
        while row < len(ends) and ends[row] > left + 0.01:
            row += 1
        ends += [-1.0] * (row + 1 - len(ends))
        ends[row] = x(span.end)
        rows[span.id] = row
    return rows


def _merged(bars: Iterable[Bar], grain: float) -> list[Bar]:
    """Join small neighbours of one component in one row, and whatever covers another.

    The coarsest grain joins those of several components too.
    """
    last: dict[tuple[int, str], Bar] = {}
    found: list[Bar] = []
    for bar in bars:
        key = bar.row, "" if grain >= _MIXED else bar.component
        previous = last.get(key)
        small = bar.right - bar.left < max(_TINY, grain)
        covers = bar.row == _ROWS and previous is not None and bar.left < previous.right + 1
        if previous is not None and (
            covers
            or (
                small
                and bar.left - previous.right < grain
                and (len(previous.spans) > 1 or previous.right - previous.left < grain)
            )
        ):
            previous.right = max(previous.right, bar.right)
            previous.spans += bar.spans
            if previous.component != bar.component:
                previous.component = ""
            continue
        found.append(bar)
        last[key] = bar
    return found


def _marks(moments: Sequence[Moment], x: Scale, grain: float) -> list[Mark]:
    groups: list[list[Moment]] = []
    begin = -grain
    for moment in moments:
        place = x(moment.at)
        if groups and place - begin < grain:
            groups[-1].append(moment)
        else:
            groups.append([moment])
            begin = place
    return [Mark(x(group[0].at), tuple(group)) for group in groups]


def _pills(
    bands: Sequence[Band], x: Scale, told: set[Band]
) -> list[tuple[Band, float, float, int]]:
    """Place the labels of faults in up to three levels; return band, left, width and level."""
    ends = [-1.0, -1.0, -1.0]
    found = []
    for band in bands:
        if band in told:
            continue  # it stands in the first of its lanes
        width = text_width(band.label, 10, bold=True) + 12
        left = max(min(x(band.begin), x.right - width), x.left)
        level = next((i for i, end in enumerate(ends) if end + 3 <= left), None)
        if level is not None:
            ends[level] = left + width
            found.append((band, left, width, level))
    return found

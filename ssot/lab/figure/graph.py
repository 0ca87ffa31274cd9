"""Which components a check touched, and what led from one to the other, on one constant map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ssot.lab.figure.palette import COMPONENTS, Theme, css_class, stylesheet
from ssot.lab.figure.svg import clipped, element, number

__all__ = ["graph"]

_COLUMNS, _ROWS = (82.0, 262.0, 442.0, 622.0), (34.0, 120.0, 206.0)
_PLACES = {
    "environment": (_COLUMNS[0], _ROWS[0]),
    "configuration": (_COLUMNS[1], _ROWS[0]),
    "auth": (_COLUMNS[2], _ROWS[0]),
    "websocket": (_COLUMNS[0], _ROWS[1]),
    "streams": (_COLUMNS[1], _ROWS[1]),
    "agents": (_COLUMNS[2], _ROWS[1]),
    "database": (_COLUMNS[3], _ROWS[1]),
    "redis": (_COLUMNS[1], _ROWS[2]),
    "postgresql": (_COLUMNS[3], _ROWS[2]),
}
_SPARE = ((_COLUMNS[3], _ROWS[0]), (_COLUMNS[0], _ROWS[2]), (_COLUMNS[2], _ROWS[2]))
_HALF, _TALL = 66.0, 15.0
_LEFT, _TOP, _WIDTH, _HEIGHT = -24.0, -24.0, 752.0, 268.0
# How far a way bows: to its right first, so that both directions between two boxes are seen.
_BOWS = (12, 22, 34, -17, 48, -28, 64, -40, 84, -54, -72, 5, 110, -100, 150, -150, 190)
_CLEAR = 9.0  # of every box that it does not lead to
_FREE = 16.0  # as much room as a count can use
_STEPS = tuple(step / 30 for step in range(31))


class _Way(NamedTuple):
    """A quadratic curve from the rim of a box to that of another."""

    begin: tuple[float, float]
    control: tuple[float, float]
    end: tuple[float, float]

    def at(self, share: float) -> tuple[float, float]:
        """The point after this share of it."""
        rest = 1 - share
        x, y = (
            rest * rest * begin + 2 * rest * share * control + share * share * end
            for begin, control, end in zip(*self, strict=True)
        )
        return x, y


def graph(
    components: Mapping[str, int],
    edges: Sequence[tuple[str, str, int]],
    *,
    between: Sequence[str] = (),
    theme: Theme = "auto",
) -> str:
    """Return an SVG of the components, each always at the same place, and the causal ``edges``.

    ``components`` says how many spans each had, an edge is from, to and how often. What was not
    touched is pale; the ones named in ``between`` have a bold rim.
    """
    touched = {name for edge in edges for name in edge[:2]} | {*components}
    places = dict(_PLACES)
    others = sorted(touched.difference(places))
    places.update(zip(others, _SPARE, strict=False))
    known = [edge for edge in edges if edge[0] in places and edge[1] in places]
    drawn = [edge for edge in known if edge[0] != edge[1]]
    ways = [_way(source, target, places) for source, target, _ in drawn]
    boxes = [
        _box(name, place, components.get(name, 0), name in touched, name in between)
        for name, place in places.items()
    ]
    told = ", ".join(f"{source} to {target} {count} times" for source, target, count in known)
    label = element("title", text=f"Causes and effects between components: {told or 'none'}")
    style = "" if theme == "page" else f"<style>{stylesheet(theme)}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sf-{theme}" role="img" '
        f'viewBox="{number(_LEFT)} {number(_TOP)} {number(_WIDTH)} {number(_HEIGHT)}" '
        f'width="{number(_WIDTH)}" height="{number(_HEIGHT)}">{label}{style}'
        + element("rect", class_="g", x=_LEFT, y=_TOP, width=_WIDTH, height=_HEIGHT, rx=10)
        + "".join(_line(edge, way) for edge, way in zip(drawn, ways, strict=True))
        + "".join(boxes)
        # Last, so that nothing is drawn over a count.
        + "".join(_counts(drawn, ways, places))
        + "</svg>"
    )


def _box(name: str, place: tuple[float, float], count: int, touched: bool, bold: bool) -> str:
    x, y = place
    server = name in ("redis", "postgresql")
    parts = [
        element("title", text=f"{name}: {count} spans" if count else name),
        element(
            "rect",
            class_="o j" if touched else "g l",
            x=x - _HALF,
            y=y - _TALL,
            width=2 * _HALF,
            height=2 * _TALL,
            rx=4 if server else 15,
            stroke_width=2.4 if bold else 1.0,
        ),
    ]
    label = clipped(name, 2 * _HALF - 34, 12.5)
    dot = touched and name in COMPONENTS
    if dot:
        parts.append(element("circle", class_=f"b {css_class(name)}", cx=x - _HALF + 15, cy=y, r=5))
    parts.append(
        element(
            "text",
            text=label,
            class_="n t" if touched else "m",
            x=x - _HALF + 27 if dot else x,
            y=y + 4.3,
            text_anchor="start" if dot else "middle",
        )
    )
    return element("g", *parts)


def _way(source: str, target: str, places: Mapping[str, tuple[float, float]]) -> _Way:
    """The least bowed way that passes no other box and stays in the picture."""
    (x1, y1), (x2, y2) = places[source], places[target]
    along = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / along, (y2 - y1) / along
    others = [place for name, place in places.items() if name not in (source, target)]
    found: list[tuple[float, _Way]] = []
    for bow in _BOWS:
        control = (x1 + x2) / 2 - uy * bow, (y1 + y2) / 2 + ux * bow
        way = _Way(_rim(x1, y1, *control), control, _rim(x2, y2, *control))
        points = [way.at(share) for share in _STEPS]
        room = min(min(_away(*point, others), _inside(*point)) for point in points)
        if room >= _CLEAR:
            return way
        found.append((room, way))
    return max(found, key=lambda each: each[0])[1]


def _line(edge: tuple[str, str, int], way: _Way) -> str:
    source, target, count = edge
    (x, y), (cx, cy) = way.end, way.control
    length = math.hypot(x - cx, y - cy) or 1.0
    tx, ty = (x - cx) / length, (y - cy) / length
    head = (
        f"M{number(x)} {number(y)}"
        f"L{number(x - 8 * tx - 4 * ty)} {number(y - 8 * ty + 4 * tx)}"
        f"L{number(x - 8 * tx + 4 * ty)} {number(y - 8 * ty - 4 * tx)}z"
    )
    width = min(1.2 + math.log10(max(count, 1)), 4.0)
    return element(
        "g",
        element("title", text=f"{source} → {target}: {count}"),
        element(
            "path",
            class_="i",
            d=f"M{number(way.begin[0])} {number(way.begin[1])}Q{number(cx)} {number(cy)} "
            f"{number(x - 5 * tx)} {number(y - 5 * ty)}",
            style=f"stroke-width:{number(width)}",
        ),
        element("path", class_="m", d=head),
    )


def _counts(
    edges: Sequence[tuple[str, str, int]],
    ways: Sequence[_Way],
    places: Mapping[str, tuple[float, float]],
) -> Iterator[str]:
    """Each count upon its own line, where the other lines and counts are farthest away."""
    boxes = [*places.values()]
    taken: list[tuple[float, float]] = []
    for (source, target, count), own in zip(edges, ways, strict=True):
        others = [way.at(share) for way in ways if way is not own for share in _STEPS]

        def room(
            share: float, own: _Way = own, others: Sequence[tuple[float, float]] = others
        ) -> float:
            x, y = own.at(share)
            lines = min((math.hypot(x - px, y - py) for px, py in others), default=_FREE)
            counts = min((math.hypot(x - px, y - py) for px, py in taken), default=2 * _FREE)
            ends = min(math.dist((x, y), own.begin), math.dist((x, y), own.end) - 4)
            near = min(lines, counts / 2, _away(x, y, boxes) + 4, ends, _FREE)
            return near - 4 * abs(share - 0.5)  # of equals the one in the middle

        best = max((share for share in _STEPS if 0.15 <= share <= 0.8), key=room)
        x, y = own.at(best)
        taken.append((x, y))
        yield element(
            "g",
            element("title", text=f"{source} → {target}: {count}"),
            element("text", text=str(count), class_="v t u", x=x, y=y + 3.5, text_anchor="middle"),
        )


def _away(x: float, y: float, boxes: Sequence[tuple[float, float]]) -> float:
    """How far a point is from the nearest of the boxes, whose ends are round; negative within."""
    return min(
        (math.hypot(max(abs(x - bx) - _HALF + _TALL, 0), y - by) - _TALL for bx, by in boxes),
        default=math.inf,
    )


def _inside(x: float, y: float) -> float:
    """How far a point is from the edge of the picture."""
    return min(x - _LEFT, _LEFT + _WIDTH - x, y - _TOP, _TOP + _HEIGHT - y)


def _rim(x: float, y: float, cx: float, cy: float) -> tuple[float, float]:
    """Where the way from the middle of a box towards a point leaves it."""
    dx, dy = cx - x, cy - y
    share = min(
        (_HALF + 3) / abs(dx) if dx else math.inf, (_TALL + 3) / abs(dy) if dy else math.inf
    )
    return x + dx * share, y + dy * share

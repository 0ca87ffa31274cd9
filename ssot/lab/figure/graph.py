"""Which components a check touched, and what led from one to the other, on one constant map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ssot.lab.figure.palette import COMPONENTS, Theme, css_class, stylesheet
from ssot.lab.figure.svg import clipped, element, number

__all__ = ["graph"]

_PLACES = {
    "environment": (82.0, 34.0),
    "configuration": (262.0, 34.0),
    "auth": (442.0, 34.0),
    "websocket": (82.0, 106.0),
    "streams": (262.0, 106.0),
    "agents": (442.0, 106.0),
    "database": (622.0, 106.0),
    "redis": (262.0, 178.0),
    "postgresql": (622.0, 178.0),
}
_SPARE = ((622.0, 34.0), (82.0, 178.0), (442.0, 178.0))
_HALF, _TALL = 62.0, 15.0
_WIDTH, _HEIGHT = 704.0, 206.0


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
    lines = [_edge(edge, places) for edge in known if edge[0] != edge[1]]
    boxes = [
        _box(name, place, components.get(name, 0), name in touched, name in between)
        for name, place in places.items()
    ]
    told = ", ".join(f"{source} to {target} {count} times" for source, target, count in known)
    label = element("title", text=f"Causes and effects between components: {told or 'none'}")
    style = "" if theme == "page" else f"<style>{stylesheet(theme)}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sf-{theme}" role="img" '
        f'viewBox="0 0 {number(_WIDTH)} {number(_HEIGHT)}" '
        f'width="{number(_WIDTH)}" height="{number(_HEIGHT)}">{label}{style}'
        + element("rect", class_="g", width=_WIDTH, height=_HEIGHT, rx=10)
        + "".join(lines)
        + "".join(boxes)
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
    label = clipped(name, 2 * _HALF - 30, 12.5)
    if touched and name in COMPONENTS:
        parts.append(element("circle", class_=f"b {css_class(name)}", cx=x - _HALF + 15, cy=y, r=5))
    parts.append(
        element(
            "text",
            text=label,
            class_="n t" if touched else "m",
            x=x + (7 if touched and not server else 0),
            y=y + 4.3,
            text_anchor="middle",
        )
    )
    return element("g", *parts)


def _edge(edge: tuple[str, str, int], places: Mapping[str, tuple[float, float]]) -> str:
    source, target, count = edge
    (x1, y1), (x2, y2) = places[source], places[target]
    along = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / along, (y2 - y1) / along
    # To the right of the way, so that both directions are seen; farther ones go around.
    far = abs(x2 - x1) > 200 and y1 == y2
    aside = 58.0 if far else 12.0
    cx, cy = (x1 + x2) / 2 - uy * aside, (y1 + y2) / 2 + ux * aside
    begin, end = _rim(x1, y1, cx, cy), _rim(x2, y2, cx, cy)
    tx, ty = end[0] - cx, end[1] - cy
    length = math.hypot(tx, ty) or 1.0
    tx, ty = tx / length, ty / length
    head = (
        f"M{number(end[0])} {number(end[1])}"
        f"L{number(end[0] - 8 * tx - 4 * ty)} {number(end[1] - 8 * ty + 4 * tx)}"
        f"L{number(end[0] - 8 * tx + 4 * ty)} {number(end[1] - 8 * ty - 4 * tx)}z"
    )
    width = min(1.2 + math.log10(max(count, 1)), 4.0)
    middle = (begin[0] + 2 * cx + end[0]) / 4, (begin[1] + 2 * cy + end[1]) / 4
    return element(
        "g",
        element("title", text=f"{source} → {target}: {count}"),
        element(
            "path",
            class_="i",
            d=f"M{number(begin[0])} {number(begin[1])}Q{number(cx)} {number(cy)} "
            f"{number(end[0] - 5 * tx)} {number(end[1] - 5 * ty)}",
            style=f"stroke-width:{number(width)}",
        ),
        element("path", class_="m", d=head),
        element(
            "text",
            text=str(count),
            class_="v m",
            x=middle[0] - uy * 8,
            y=middle[1] + ux * 9 + 3.4,
            text_anchor="middle",
        ),
    )


def _rim(x: float, y: float, cx: float, cy: float) -> tuple[float, float]:
    """Where the way from the middle of a box towards a point leaves it."""
    dx, dy = cx - x, cy - y
    share = min(
        (_HALF + 3) / abs(dx) if dx else math.inf, (_TALL + 3) / abs(dy) if dy else math.inf
    )
    return x + dx * share, y + dy * share

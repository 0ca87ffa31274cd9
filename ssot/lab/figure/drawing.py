"""The figure of a check: lanes over time, with spans, events, faults and the moment of failure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ssot.lab.figure.lanes import Happening, arrange, read, severs
from ssot.lab.figure.palette import COMPONENTS, Theme, css_class, stylesheet
from ssot.lab.figure.placing import BAR, MARKS, PILLS, Bar, Placed, place
from ssot.lab.figure.scale import Scale, duration
from ssot.lab.figure.svg import clipped, element, number, text_width

__all__ = ["draw", "draw_apart"]

_WIDTH = 960.0
_GUTTER = 132.0
_RIGHT = _WIDTH - 22.0
_MARGIN = 14.0
_ARROWS = 60


def draw(
    timeline: Iterable[object],
    spans: Iterable[object],
    faults: Iterable[object],
    *,
    seconds: float,
    failed_at: float | None = None,
    theme: Theme = "auto",
    limit: int = 500,
) -> str:
    """Return one SVG of what happened in a check that took ``seconds``.

    ``timeline``, ``spans`` and ``faults`` are those of the evidence, as mappings or as objects; all
    times are seconds since the check began. At most about ``limit`` bars are drawn: nearer ones are
    then merged, and the figure says so. The same input gives the same bytes.
    """
    happened = read(timeline, spans, faults, seconds)
    return _Drawing(happened, failed_at, theme, limit).svg()


def draw_apart(
    timeline: Iterable[object],
    spans: Iterable[object],
    faults: Iterable[object],
    *,
    seconds: float,
    failed_at: float | None = None,
    theme: Theme = "auto",
    limit: int = 500,
) -> tuple[str, list[str]]:
    """Return what :func:`draw` does without its legend, and the legend: each item an SVG.

    So a page can break the legend into lines where it is narrower than the figure.
    """
    happened = read(timeline, spans, faults, seconds)
    drawing = _Drawing(happened, failed_at, theme, limit)
    return drawing.svg(legend=False), drawing.items()


class _Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float


class _Drawing:
    def __init__(
        self, happened: Happening, failed_at: float | None, theme: Theme, limit: int
    ) -> None:
        self._happened = happened
        self._theme = theme
        self._failed_at = None if failed_at is None else min(max(failed_at, 0), happened.seconds)
        moments = [moment.at for moment in happened.moments]
        moments += [at for span in happened.spans for at in (span.start, span.end)]
        moments += [at for band in happened.faults for at in (band.begin, band.end)]
        if self._failed_at is not None:
            moments.append(self._failed_at)
        lanes = arrange(happened)
        names = max((text_width(lane.name, 12.5, bold=True) for lane in lanes), default=0.0)
        self._gutter = min(max(names + 44, _GUTTER), 1.4 * _GUTTER)
        self._x = Scale(happened.seconds, moments, left=self._gutter, right=_RIGHT)
        self._top = 26.0 if self._failed_at is not None else 10.0
        self._placed = place(lanes, self._x, top=self._top, limit=limit)
        self._bottom = max([self._top + 32, *(each.top + each.height for each in self._placed)])
        self._id = "sf" + hashlib.sha256(repr((happened, failed_at)).encode()).hexdigest()[:8]
        self._notes: list[str] = []

    def svg(self, *, legend: bool = True) -> str:
        lanes = "".join(self._ground(each, index) for index, each in enumerate(self._placed))
        body = [
            self._grid(),
            "".join(self._bands(each) for each in self._placed),
            self._ties(),
            self._arrows(),
            "".join(self._bars(each) for each in self._placed),
            "".join(self._moments(each) for each in self._placed),
            "".join(self._band_labels(each) for each in self._placed),
            self._failure(),
        ]
        if not self._placed:
            body.append(
                element(
                    "text",
                    text="nothing was recorded",
                    class_="m",
                    x=(self._gutter + _RIGHT) / 2,
                    y=self._top + 20,
                    text_anchor="middle",
                )
            )
        told, height = self._legend(self._bottom + 42) if legend else ("", self._bottom + 24)
        total = height + _MARGIN
        style = "" if self._theme == "page" else f"<style>{stylesheet(self._theme)}</style>"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="sf-{self._theme}" '
            f'viewBox="0 0 {number(_WIDTH)} {number(total)}" '
            f'width="{number(_WIDTH)}" height="{number(total)}" role="img" '
            f'aria-label="{self._summary()}">{style}{self._defs()}'
            + element("rect", class_="g", width=_WIDTH, height=total, rx=10)
            + lanes
            + "".join(body)
            + told
            + "</svg>"
        )

    def items(self) -> list[str]:
        """The legend, each item in a drawing of its own; its hatches are those of :meth:`svg`."""
        parts = [
            (
                self._swatch(kind, 1, 9) + element("text", text=told, class_="m", x=18, y=13),
                20 + text_width(told, 11),
            )
            for kind, told in self._keys()
        ]
        if notes := " · ".join(self._told_notes()):
            text = element("text", text=notes, class_="v m", y=13, font_style="italic")
            parts.append((text, text_width(notes, 10)))
        return [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="sf-{self._theme}" '
            f'width="{number(width)}" height="18">{inside}</svg>'
            for inside, width in parts
        ]

    def _summary(self) -> str:
        kinds = Counter(each.lane.kind for each in self._placed)
        happened = self._happened
        events = sum(bool(moment.event) for moment in happened.moments)
        told = [
            _count(kinds["user"], "user"),
            _count(kinds["process"], "process", "processes"),
            _count(len(happened.spans), "span"),
            _count(events, "event received", "events received"),
        ]
        # Names of faults come from outside; kinds and numbers are enough here.
        told += [_count(len(happened.faults), "fault")] if happened.faults else []
        failed = "" if self._failed_at is None else f"; failed at {duration(self._failed_at)}"
        return f"What happened in {duration(happened.seconds)}: {', '.join(told)}{failed}"

    def _defs(self) -> str:
        found = ""
        for name, wanted in (("h1", True), ("h2", False)):
            if any(severs(band.what) is wanted for band in self._happened.faults):
                line = element("path", d="M0 0V7", class_=f"h {name}")
                found += element(
                    "pattern",
                    line,
                    id=f"{self._id}{name}",
                    width=7,
                    height=7,
                    patternUnits="userSpaceOnUse",
                    patternTransform="rotate(45)",
                )
        return element("defs", found) if found else ""

    def _ground(self, placed: Placed, index: int) -> str:
        lane = placed.lane
        top = placed.top
        middle = top + placed.height / 2
        name = clipped(lane.name, self._gutter - 44, 12.5, bold=True)
        parts = []
        if index % 2 == 0:
            parts.append(
                element(
                    "rect", class_="o", x=_MARGIN / 2, y=top, width=_WIDTH - _MARGIN,
                    height=placed.height, rx=6,
                )
            )  # fmt: skip
        parts.append(_icon(lane.kind, _MARGIN + 8, middle))
        parts.append(
            element(
                "text",
                element("title", text=lane.name) if name != lane.name else "",
                element("tspan", text=name),
                class_="n t",
                x=_MARGIN + 25,
                y=middle + 4.3,
            )
        )
        return "".join(parts)

    def _grid(self) -> str:
        top, bottom = self._top, self._bottom
        parts = [element("path", class_="a", fill="none", d=self._axis(bottom))]
        for tick in self._x.ticks():
            x = number(tick.x)
            anchor = "end" if tick.x > _RIGHT - 14 else "middle"
            parts.append(element("path", class_="l", d=f"M{x} {number(top)}V{number(bottom)}"))
            parts.append(element("path", class_="a", d=f"M{x} {number(bottom)}v4"))
            parts.append(
                element(
                    "text", text=tick.label, class_="v m", x=tick.x, y=bottom + 16,
                    text_anchor=anchor,
                )
            )  # fmt: skip
        for cut in self._x.cuts:
            middle = (cut.left + cut.right) / 2
            length = duration(cut.end - cut.begin)
            line = f"M{number(middle)} {number(top)}V{number(bottom)}"
            parts.append(
                element(
                    "g",
                    element("title", text=f"nothing begins or ends for {length}; not to scale"),
                    element("path", class_="k j", d=line),
                    element(
                        "text", text=length, class_="v m", x=middle, y=bottom + 16,
                        text_anchor="middle", font_style="italic",
                    ),
                )
            )  # fmt: skip
        return "".join(parts)

    def _axis(self, y: float) -> str:
        path = f"M{number(self._gutter)} {number(y)}"
        for segment in self._x.segments:
            if segment.cut:
                middle = (segment.left + segment.right) / 2
                path += f"H{number(middle - 7)}l3.5 -4l4 8l4 -8l2.5 4"
            path += f"H{number(segment.right)}"
        return path

    def _bands(self, placed: Placed) -> str:
        parts = []
        top = placed.top
        for band in placed.lane.bands:
            left, right = self._x(band.begin), self._x(band.end)
            kind = 1 if severs(band.what) else 2
            box = _Box(left, top, max(right - left, 2.0), placed.height)
            edges = f"M{number(left)} {number(top)}v{number(placed.height)}"
            if band.healed and right - left > 2:
                edges += f"M{number(right)} {number(top)}v{number(placed.height)}"
            parts.append(
                element(
                    "g",
                    element("title", text=band.title),
                    self._shaded(kind, box),
                    element("path", class_=f"e e{kind}", d=edges),
                )
            )
        return "".join(parts)

    def _ties(self) -> str:
        """Tie the bands of a fault that has several lanes together, where it begins and ends."""
        parts = []
        for band in dict.fromkeys(self._happened.faults):
            held = [each for each in self._placed if band in each.lane.bands]
            if len(held) < 2:
                continue
            top = held[0].top
            bottom = held[-1].top + held[-1].height
            kind = 1 if severs(band.what) else 2
            for x in {self._x(band.begin), self._x(band.end)}:
                d = f"M{number(x)} {number(top)}V{number(bottom)}"
                parts.append(element("path", class_=f"k k{kind}", d=d))
        return "".join(sorted(parts))

    def _band_labels(self, placed: Placed) -> str:
        parts = []
        for band, left, width, level in placed.pills:
            y = placed.pills_top - 1 + level * PILLS
            kind = 1 if severs(band.what) else 2
            parts.append(
                element(
                    "g",
                    element("title", text=band.title),
                    element(
                        "rect", class_=f"p{kind}", x=left, y=y, width=width, height=14.5, rx=3.5
                    ),
                    element("text", text=band.label, class_=f"p t{kind}", x=left + 6, y=y + 10.8),
                )
            )
        return "".join(parts)

    def _arrows(self) -> str:
        """Lead from each cause to its effect in another lane, in the order of time."""
        places: dict[str, tuple[Placed, Bar]] = {}
        for placed in self._placed:
            for bar in placed.bars:
                for span in bar.spans:
                    places.setdefault(span.id, (placed, bar))
        found: dict[tuple[int, int, float, float], str] = {}
        for span in self._happened.spans:
            if span.id not in places:
                continue
            target, bar = places[span.id]
            for cause in span.causes:
                if cause not in places or places[cause][0] is target:
                    continue
                source, origin = places[cause]
                down = source.top < target.top
                x1 = min(max(bar.left, origin.left), origin.right)
                y1 = source.bar_top(origin.row) + (BAR if down else 0)
                x2 = bar.left + min(2.0, (bar.right - bar.left) / 2)
                y2 = target.bar_top(bar.row) + (0 if down else BAR)
                tip = 4.5 if down else -4.5
                middle = number((y1 + y2 - tip) / 2)
                begin = f"M{number(x1)} {number(y1)}C{number(x1)} {middle} {number(x2)} {middle}"
                ends = f"{number(x2)} {number(y2 - tip)}"
                key = (int(y1), int(y2), x1 // 4, x2 // 4)
                found.setdefault(
                    key,
                    element(
                        "path", class_="c", d=f"{begin} {ends}",
                    )
                    + element(
                        "path", class_="ch", d=f"M{ends}h-2.6l2.6 {number(tip)}l2.6 {number(-tip)}z"
                    ),
                )  # fmt: skip
        if len(found) > _ARROWS:
            self._notes.append(f"{len(found)} causal arrows are left out")
            return ""
        return "".join(found.values())

    def _bars(self, placed: Placed) -> str:
        parts = []
        for bar in placed.bars:
            width = max(bar.right - bar.left, 1.6)
            y = placed.bar_top(bar.row)
            left = min(bar.left, _RIGHT - width)
            colour = css_class(bar.component)
            echo = " q" if placed.lane.kind == "server" else ""
            inside = [
                element("title", text=bar.title),
                element(
                    "rect",
                    class_=f"b {colour}{' x' if bar.failed else ''}{echo}",
                    x=left,
                    y=y,
                    width=width,
                    height=BAR,
                    rx=min(3.0, width / 2),
                ),
            ]
            several = len(bar.spans) > 1
            told = f"×{len(bar.spans)}" if several else bar.first.name.rpartition(".")[2]
            label = "" if echo else clipped(told, width - 8, 9.5)
            if label:
                inside.append(
                    element("text", text=label, class_=f"w w{colour}", x=left + 4, y=y + 9.8)
                )
            parts.append(element("g", *inside))
        return "".join(parts)

    def _moments(self, placed: Placed) -> str:
        parts = []
        y = placed.marks_top + MARKS / 2
        for index, mark in enumerate(placed.marks):
            following = placed.marks[index + 1].x if index + 1 < len(placed.marks) else _RIGHT + 18
            events = [moment for moment in mark.moments if moment.event]
            first = events[0] if events else mark.moments[0]
            several = len(mark.moments) > 1
            title = "\n".join(
                f"{duration(moment.at)}  {moment.what}" for moment in mark.moments[:12]
            )
            if len(mark.moments) > 12:
                title += f"\nand {len(mark.moments) - 12} more"
            if events:
                bad = any(moment.event in ("agent_failed", "agent_cancelled") for moment in events)
                shape = element(
                    "circle", class_=f"d{' d2' if bad else ''}", cx=mark.x, cy=y,
                    r=5.2 if several else 4.6, stroke_width=1.5,
                )  # fmt: skip
            else:
                shape = element(
                    "path", class_="i",
                    d=f"M{number(mark.x)} {number(y - 6)}v12" + ("m3 -12v12" if several else ""),
                )  # fmt: skip
            inside = [element("title", text=title), shape]
            begin = mark.x + (8 if events else 5 + 3 * several)
            room = following - begin - 7
            told = f"×{len(mark.moments)}" if several else first.event or first.what
            label = clipped(told, room, 10.5)
            whole = label and not label.endswith("…")
            if whole or (label and not events and room >= 60):
                inside.append(
                    element(
                        "text", text=label, class_="t" if events else "m", x=begin, y=y + 3.7,
                        font_size="10.5",
                    )
                )  # fmt: skip
            parts.append(element("g", *inside))
        return "".join(parts)

    def _failure(self) -> str:
        if self._failed_at is None:
            return ""
        x = self._x(self._failed_at)
        label = f"✕ failed at {duration(self._failed_at)}"
        width = text_width(label, 10, bold=True) + 16
        left = min(max(x - width / 2, self._gutter), _RIGHT + 12 - width)
        return element(
            "g",
            element(
                "path", class_="z", d=f"M{number(x)} {number(self._top - 3)}V{number(self._bottom)}"
            ),
            element("rect", class_="p1", x=left, y=6, width=width, height=16, rx=8),
            element("text", text=label, class_="p t1", x=left + 8, y=17.6),
        )

    def _keys(self) -> list[tuple[str, str]]:
        """What the legend explains: the kind of each swatch, and what it stands for."""
        present = {span.component for span in self._happened.spans}
        known = [component for component in COMPONENTS if component in present]
        items: list[tuple[str, str]] = [(css_class(name), name) for name in known]
        others = sorted(present.difference(COMPONENTS))
        if others:
            items.append((css_class("other"), ", ".join(filter(None, others)) or "other"))
        if any(moment.event for moment in self._happened.moments):
            items.append(("event", "event received"))
        if any(not moment.event for moment in self._happened.moments):
            items.append(("action", "done or noticed"))
        if any(severs(band.what) for band in self._happened.faults):
            items.append(("f1", "fault: broken off"))
        if any(not severs(band.what) for band in self._happened.faults):
            items.append(("f2", "fault: held up"))
        return [(kind, clipped(told, 260, 11)) for kind, told in items]

    def _legend(self, y: float) -> tuple[str, float]:
        """Return the legend, in as many lines as it needs, and where it ends."""
        items, notes = self._keys(), self._told_notes()
        parts = []
        x = self._gutter
        for kind, told in items:
            width = 17 + text_width(told, 11) + 10
            if x + width > _RIGHT + 14 and x > self._gutter:
                x, y = self._gutter, y + 18
            parts.append(self._swatch(kind, x, y - 4))
            parts.append(element("text", text=told, class_="m", x=x + 17, y=y))
            x += width
        if notes:
            y += 18 if items else 0
            told = clipped(" · ".join(notes), _RIGHT - self._gutter, 10)
            parts.append(
                element("text", text=told, class_="v m", x=self._gutter, y=y, font_style="italic")
            )
        return "".join(parts), y + (2 if items or notes else -18)

    def _told_notes(self) -> list[str]:
        """What was left out of the drawing, which must be whole by now."""
        merged = sum(
            len(bar.spans)
            for each in self._placed
            for bar in each.bars
            # what stands in a server's lane stands in its caller's as well
            if len(bar.spans) > 1 and each.lane.kind != "server"
        )
        notes = [*self._notes]
        if merged:
            notes.append(f"{merged} of {len(self._happened.spans)} spans are drawn merged")
        if self._x.cuts:
            notes.append("idle stretches are cut short")
        return notes

    def _swatch(self, kind: str, x: float, y: float) -> str:
        if kind == "event":
            return element("circle", class_="d", cx=x + 6, cy=y, r=4.6, stroke_width=1.5)
        if kind == "action":
            return element("path", class_="i", d=f"M{number(x + 6)} {number(y - 5)}v10")
        if kind.startswith("f"):
            return self._shaded(int(kind[1]), _Box(x, y - 5, 12, 10))
        return element("rect", class_=f"b {kind}", rx=2.5, x=x, y=y - 5, width=12, height=10)

    def _shaded(self, kind: int, box: _Box) -> str:
        """A box in the colour of a fault, and hatched, so that colour is not all that tells it."""
        path = f"M{number(box.x)} {number(box.y)}h{number(box.width)}v{number(box.height)}"
        path += f"h{number(-box.width)}z"
        return element("path", class_=f"f f{kind}", d=path) + element(
            "path", fill=f"url(#{self._id}h{kind})", d=path
        )


def _count(number_: int, one: str, many: str = "") -> str:
    return f"{number_} {one if number_ == 1 else many or one + 's'}"


def _icon(kind: str, x: float, y: float) -> str:
    """A person, a flask, a process or a server, some 14 pixels wide, around x and y."""
    shapes = {
        "user": "M3 -3.2a3 3 0 1 1 -6 0a3 3 0 1 1 6 0zM-5.5 6.5c0 -7.4 11 -7.4 11 0z",
        "lab": "M-2 -6.5h4M-1.3 -6.5v4.5l-4.2 7c-.6 1 0 1.8 1 1.8h9"
        "c1 0 1.6 -.8 1 -1.8l-4.2 -7v-4.5M-3.6 2.5h7.2",
        "process": "M-5.5 -5.5h11v11h-11zM-5.5 -2h11M-3.4 -3.8h.1M-1.4 -3.8h.1",
        "server": "M-5.5 -4.5c0 -2.7 11 -2.7 11 0v9c0 2.7 -11 2.7 -11 0z"
        "M-5.5 -4.5c0 2.7 11 2.7 11 0M-5.5 0c0 2.7 11 2.7 11 0",
    }
    return element(
        "path",
        class_="i",
        d=shapes[kind],
        transform=f"translate({number(x)} {number(y)})",
        stroke_linejoin="round",
        stroke_linecap="round",
    )

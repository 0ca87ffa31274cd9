"""A check's life in the size of a word: where its time went, what came, what was broken."""

from __future__ import annotations

from collections.abc import Iterable

from ssot.lab.figure.lanes import arrange, read, severs
from ssot.lab.figure.palette import Theme, css_class, stylesheet
from ssot.lab.figure.scale import Scale
from ssot.lab.figure.svg import element, number

__all__ = ["strip"]

_WIDTH, _HEIGHT = 200.0, 24.0


def strip(
    timeline: Iterable[object],
    spans: Iterable[object],
    faults: Iterable[object],
    *,
    seconds: float,
    failed_at: float | None = None,
    theme: Theme = "auto",
) -> str:
    """Return a small SVG, 200 by 24: a hair line for each lane of :func:`draw`, without words.

    It is decoration for who sees it, and hidden from who does not: the figure says it in words.
    """
    happened = read(timeline, spans, faults, seconds)
    lanes = [lane for lane in arrange(happened) if lane.spans or lane.moments or lane.bands]
    moments = [at for span in happened.spans for at in (span.start, span.end)]
    moments += [moment.at for moment in happened.moments]
    moments += [at for band in happened.faults for at in (band.begin, band.end)]
    x = Scale(happened.seconds, moments, left=2.0, right=_WIDTH - 2.0)
    height = min((_HEIGHT - 4) / max(len(lanes), 1), 5.0)
    top = (_HEIGHT - height * len(lanes)) / 2
    parts: list[str] = []
    for index, lane in enumerate(lanes):
        y = top + index * height
        for band in lane.bands:
            left, right = x(band.begin), x(band.end)
            parts.append(
                element(
                    "rect",
                    class_=f"p{1 if severs(band.what) else 2}",
                    fill_opacity="0.3",
                    x=left,
                    y=y,
                    width=max(right - left, 1.5),
                    height=height,
                )
            )
        drawn: dict[str, list[tuple[float, float]]] = {}
        for span in lane.spans:
            pieces = drawn.setdefault(css_class(span.component), [])
            left, right = x(span.start), max(x(span.end), x(span.start) + 1.2)
            if pieces and left - pieces[-1][1] < 0.8:
                pieces[-1] = (pieces[-1][0], max(pieces[-1][1], right))
            else:
                pieces.append((left, right))
        thick = max(height - 1.2, 1.4)
        for colour, pieces in drawn.items():
            d = "".join(
                f"M{number(left)} {number(y + height / 2 - thick / 2)}"
                f"H{number(right)}v{number(thick)}H{number(left)}z"
                for left, right in pieces
            )
            parts.append(element("path", class_=colour, d=d))
        events: list[float] = []
        for moment in lane.moments:
            if moment.event and (not events or x(moment.at) - events[-1] > 2.5):
                events.append(x(moment.at))
        if events:
            r = min(height / 2, 1.8)
            d = "".join(
                f"M{number(at - r)} {number(y + height / 2)}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0"
                f"a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0z"
                for at in events
            )
            parts.append(element("path", class_="t", d=d))
    if failed_at is not None:
        at = number(x(failed_at))
        parts.append(element("path", class_="e e1", d=f"M{at} 0V{number(_HEIGHT)}"))
    style = "" if theme == "page" else f"<style>{stylesheet(theme)}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sf-{theme}" viewBox="0 0 200 24" '
        f'width="200" height="24" aria-hidden="true" focusable="false">{style}'
        + element("rect", class_="o", width=_WIDTH, height=_HEIGHT, rx=4)
        + "".join(parts)
        + "</svg>"
    )

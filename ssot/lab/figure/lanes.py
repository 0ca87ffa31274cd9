"""Who has which lane of a figure, and what happened in it: evidence read leniently, and sorted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ssot.lab.figure.scale import duration

__all__ = ["Band", "Happening", "Kind", "Lane", "Moment", "Span", "arrange", "read", "severs"]

Kind = Literal["user", "lab", "process", "server"]

SERVERS = ("redis", "postgresql")

_EVENT = re.compile(r"(?P<type>(?:agent|tool)_[a-z]+)(?: at .*)?", re.DOTALL)
_SEVERING = {"cut", "black hole", "killed", "restarted", "terminated"}
_IN_POSTGRESQL = ("locked", "terminated")
_USERS = 8
_PROCESSES = 10
_LINK = re.compile(r"\s*(?:→|->)\s*")


@dataclass(frozen=True, slots=True)
class Span:
    """One span, in seconds since the check began; ``causes`` are the ids of parent and links."""

    id: str
    causes: tuple[str, ...]
    name: str
    component: str
    process: str
    user: str
    server: str
    start: float
    end: float
    error: str

    @property
    def title(self) -> str:
        """All of it, for whoever points at it."""
        who = " · ".join(filter(None, (self.component, self.process, self.user)))
        lines = [
            self.name,
            who,
            f"at {duration(self.start)}, took {duration(self.end - self.start)}",
        ]
        return "\n".join([*filter(None, lines), *([f"error: {self.error}"] if self.error else [])])


class Moment(NamedTuple):
    """An entry of the timeline: an event that was received, or something that was done."""

    at: float
    who: str
    what: str

    @property
    def event(self) -> str:
        """The type of the event that was received, or nothing."""
        found = _EVENT.fullmatch(self.what)
        return found["type"] if found else ""


class Band(NamedTuple):
    """A fault in one lane, from ``begin`` to ``end``."""

    what: str
    target: str
    begin: float
    end: float
    healed: bool

    @property
    def label(self) -> str:
        """What stands on it."""
        more = f" {duration(self.end - self.begin)}" if self.end > self.begin else ""
        elsewhere = _LINK.search(self.target) or self.what in _IN_POSTGRESQL
        whom = f" {self.target}" if elsewhere and self.target not in SERVERS else ""
        return f"{self.what}{whom}{more}"

    @property
    def title(self) -> str:
        """All of it, for whoever points at it."""
        until = f"until {duration(self.end)}" if self.healed else "not healed"
        return f"{self.target} {self.what}\nfrom {duration(self.begin)}, {until}"


@dataclass(frozen=True, slots=True)
class Happening:
    """What is drawn: everything within 0 and ``seconds``, in the order of time."""

    moments: tuple[Moment, ...]
    spans: tuple[Span, ...]
    faults: tuple[Band, ...]
    seconds: float


@dataclass(slots=True)
class Lane:
    """One user, process or server, and what happened there."""

    name: str
    kind: Kind
    spans: list[Span] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)


def severs(what: str) -> bool:
    """Whether such a fault breaks something off; the others slow it or hold it up."""
    return what in _SEVERING


# Reading


def read(
    timeline: Iterable[object], spans: Iterable[object], faults: Iterable[object], seconds: float
) -> Happening:
    """Take mappings or objects as they come; what has no usable time is left out."""
    whole = max(_number(seconds) or 0.0, 0.0)
    found = [span for each in spans if (span := _span(each)) is not None]
    happened = [moment for each in timeline if (moment := _moment(each)) is not None]
    # What a check left behind may end a little later than the check.
    whole = max([whole, *(span.end for span in found), *(moment.at for moment in happened)])
    bands = [band for each in faults if (band := _band(each, whole)) is not None]
    whole = max([whole, *(band.end for band in bands)])
    return Happening(
        tuple(sorted(happened, key=lambda moment: moment.at)),
        tuple(sorted(found, key=lambda span: (span.start, -span.end, span.id))),
        tuple(sorted(bands, key=lambda band: (band.begin, band.target, band.what))),
        whole or 0.001,
    )


def _get(source: object, name: str) -> Any:
    if isinstance(source, Mapping):
        return source.get(name)
    return getattr(source, name, None)


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _span(source: object) -> Span | None:
    start, end = _number(_get(source, "start")), _number(_get(source, "end"))
    if start is None:
        return None
    end = start if end is None else max(start, end)
    if end < 0:
        return None  # it was over before the check began
    links = _get(source, "links")
    causes = [_get(source, "parent"), *(links if isinstance(links, list | tuple) else ())]
    return Span(
        id=_text(_get(source, "id")),
        causes=tuple(str(cause) for cause in causes if cause),
        name=_text(_get(source, "name")),
        component=_text(_get(source, "component")),
        process=_text(_get(source, "process")),
        user=_text(_get(source, "user")),
        server=_text(_get(source, "server")),
        start=max(start, 0.0),
        end=end,
        error=_text(_get(source, "error")),
    )


def _moment(source: object) -> Moment | None:
    at = _number(_get(source, "at"))
    if at is None:
        return None
    return Moment(max(at, 0.0), _text(_get(source, "who")), _text(_get(source, "what")))


def _band(source: object, whole: float) -> Band | None:
    begin, end = _number(_get(source, "begin")), _number(_get(source, "end"))
    if begin is None:
        return None
    begin = max(begin, 0.0)
    return Band(
        _text(_get(source, "what")),
        _text(_get(source, "target")),
        begin,
        max(begin, whole if end is None else end),
        end is not None,
    )


# Sorting into lanes


def arrange(happened: Happening) -> list[Lane]:
    """Return the lanes that have anything in them, along the way of the data.

    Users come first, then the lab, auth, nodes, Redis, workers, PostgreSQL. What a user's client
    does in the kernel stands in the user's lane. Beyond eight users and ten processes, those in
    which least happened share a lane.
    """
    lanes: dict[str, Lane] = {}

    def lane(name: str, kind: Kind | None = None) -> Lane:
        name = name or "?"
        if name not in lanes:
            lanes[name] = Lane(name, kind or _kind(name, processes))
        return lanes[name]

    processes = {span.process for span in happened.spans}
    for span in happened.spans:
        if span.process in ("kernel", "lab", ""):
            lane(*((span.user, "user") if span.user else ("lab", "lab"))).spans.append(span)
        else:
            lane(span.process, "process").spans.append(span)
        if span.server in SERVERS:
            lane(span.server, "server").spans.append(span)
    for moment in happened.moments:
        lane("lab" if moment.who == "kernel" else moment.who).moments.append(moment)
    users = [each for each in lanes.values() if each.kind == "user"]
    for band in happened.faults:
        for end in _LINK.split(band.target) if _LINK.search(band.target) else [band.target]:
            if end == "client" and users:
                for each in users:
                    each.bands.append(band)
            elif end in lanes or band.what not in _IN_POSTGRESQL:
                lane("lab" if end == "kernel" else end).bands.append(band)
            else:  # a table, or the connections of somebody
                lane("postgresql").bands.append(band)
    first = {name: place for place, name in enumerate(lanes)}
    ordered = sorted(lanes.values(), key=lambda each: (*_order(each), first[each.name]))
    return _share(ordered)


def _kind(name: str, processes: set[str]) -> Kind:
    if name in SERVERS:
        return "server"
    if name in ("lab", "kernel"):
        return "lab"
    if name in processes or re.fullmatch(r"auth|(?:node|worker|all)(?: .*)?", name):
        return "process"
    return "user"


def _order(lane: Lane) -> tuple[int, str]:
    if lane.kind == "user":
        return 0, ""  # as they came
    role = lane.name.split(" ")[0]
    roles = ("lab", "auth", "node", "redis", "worker", "postgresql")
    return (roles.index(role) if role in roles else len(roles)) + 1, lane.name


def _share(lanes: Sequence[Lane]) -> list[Lane]:
    """Join the quietest lanes of a kind where there are too many."""
    result = [*lanes]
    for kind, most in (("user", _USERS), ("process", _PROCESSES)):
        of_kind = [each for each in result if each.kind == kind]
        if len(of_kind) <= most:
            continue
        by_weight = sorted(
            of_kind, key=lambda each: -(10_000 * len(each.bands) + len(each.spans + each.moments))
        )
        rest = [each for each in of_kind if each not in by_weight[: most - 1]]
        plural = "users" if kind == "user" else "processes"
        joined = Lane(f"{len(rest)} more {plural}", "user" if kind == "user" else "process")
        for each in rest:
            joined.spans += each.spans
            joined.moments += each.moments
            joined.bands += [band for band in each.bands if band not in joined.bands]
        joined.spans.sort(key=lambda span: (span.start, -span.end, span.id))
        joined.moments.sort(key=lambda moment: moment.at)
        place = result.index(rest[-1])
        result[place] = joined
        result = [each for each in result if each not in rest]
    return result

"""Which faults there were, when each began and when it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ssot.lab.timeline import Timeline

__all__ = ["FaultLog", "FaultRecord", "What"]

What = Literal[
    "latency",
    "bandwidth",
    "cut",
    "black hole",
    "frozen",
    "killed",
    "restarted",
    "terminated",
    "paused",
    "locked",
]

_OVER: Mapping[What, str] = {
    "latency": "latency over",
    "bandwidth": "bandwidth limit over",
    "cut": "cut over",
    "black hole": "black hole over",
    "frozen": "thawed",
    "killed": "back after the kill",
    "restarted": "back after the restart",
    "terminated": "termination over",
    "paused": "pause over",
    "locked": "lock released",
}


@dataclass(slots=True)
class FaultRecord:
    """One fault. Times are of ``time.monotonic()``; ``end`` is ``None`` while it lasts.

    ``target`` is a process, a server, or a link as ``"worker a → redis"``.
    """

    what: What
    target: str
    begin: float
    end: float | None = None


class FaultLog:
    """The faults of a lab in the order in which they began. Thread-safe.

    Each is told to the ``timeline`` as well, if there is one.
    """

    def __init__(self, timeline: Timeline | None = None) -> None:
        self._records: list[FaultRecord] = []
        self._timeline = timeline

    def begin(self, what: What, target: str, *, detail: str = "") -> FaultRecord:
        """A fault has begun now; ``detail`` is for the timeline."""
        record = FaultRecord(what, target, time.monotonic())
        self._records.append(record)
        if self._timeline is not None:
            self._tell(target, f"{what} {detail}".strip())
        return record

    def end(self, record: FaultRecord) -> None:
        """It has ended now. Does nothing when it had ended before."""
        if record.end is None:
            record.end = time.monotonic()
            if self._timeline is not None:
                self._tell(record.target, _OVER[record.what])

    def _tell(self, target: str, what: str) -> None:
        """A link's fault is told of its near end."""
        assert self._timeline is not None
        near, _, far = target.partition(" → ")
        self._timeline.record(near, f"{what} (link to {far})" if far else what)

    @contextmanager
    def during(self, what: What, target: str, *, detail: str = "") -> Iterator[FaultRecord]:
        """A fault that lasts as long as the body."""
        record = self.begin(what, target, detail=detail)
        try:
            yield record
        finally:
            self.end(record)

    def since(self, start: float) -> list[FaultRecord]:
        """The faults that began, ended or lasted after ``start`` (monotonic seconds)."""
        return [r for r in self._records if r.end is None or r.end >= start]

"""What happened in a lab, and when: the record that a failed check is explained from."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

__all__ = ["Entry", "Timeline"]

_KEPT = 20_000


class Entry(NamedTuple):
    """One thing that happened: the time of ``time.monotonic()``, who, and what."""

    at: float
    who: str
    what: str


class Timeline:
    """Entries in the order in which they happened; the newest 20,000."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=_KEPT)

    def record(self, who: str, what: str) -> None:
        """Add an entry now."""
        self._entries.append(Entry(time.monotonic(), who, what))

    def since(self, start: float) -> list[Entry]:
        """The entries from ``start`` (monotonic seconds) on."""
        return [entry for entry in self._entries if entry.at >= start]

    def text(self, start: float, *, last: int = 60) -> str:
        """Aligned lines, in seconds after ``start``; the ``last`` ones when there are more."""
        entries = self.since(start)
        lines = [f"{e.at - start:8.3f}  {e.who:<14}  {e.what}" for e in entries[-last:]]
        if len(entries) > last:
            lines.insert(0, f"          … {len(entries) - last} earlier entries")
        return "\n".join(lines) or "          nothing was recorded"

"""Health as data: what a probe found, and how several findings make one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

__all__ = ["Health", "Status", "merge"]

Status = Literal["ok", "degraded", "down"]
_WORST: dict[Status, int] = {"ok": 0, "degraded": 1, "down": 2}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe found.

    ``latency`` is the probe's round trip in seconds (``None`` when there was no answer), and
    ``reason`` says why the status is not ``ok``.
    """

    name: str
    status: Status
    latency: float | None = None
    reason: str = ""
    parts: tuple[Health, ...] = ()


def merge(name: str, parts: Iterable[Health]) -> Health:
    """One health of many: as bad as the worst part, with the reason of each bad one."""
    found = tuple(parts)
    status: Status = max((part.status for part in found), key=_WORST.__getitem__, default="ok")
    reason = "; ".join(f"{part.name}: {part.reason}" for part in found if part.status != "ok")
    return Health(name=name, status=status, reason=reason, parts=found)

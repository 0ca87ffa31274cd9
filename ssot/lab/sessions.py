"""Who is connected to the database of a lab, as PostgreSQL says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["SESSIONS", "Session", "sessions_among"]

# The prefix that all login roles of a site share is its database's name, which differs each time.
SESSIONS = (
    "SELECT pid, application_name AS service, "
    "replace(CAST(usename AS text), datname || '_', '') AS login "
    "FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name NOT LIKE 'ssot-lab%' "
    "ORDER BY service, login, pid"
)
"""All sessions but the lab's own, for :func:`sessions_among`."""


class Session(NamedTuple):
    """One session: who it is for, as what login role, and the process id that serves it.

    ``service`` is like ``ssot-worker``, or the name that a check has given its own pool; ``login``
    is like ``app_a``. No two sessions of a check have the same ``pid``.
    """

    pid: int
    service: str
    login: str


def sessions_among(rows: Sequence[Mapping[str, Any]], service: str | None = None) -> list[Session]:
    """The sessions in rows of :data:`SESSIONS`, in their order; of one service, or all."""
    return [Session(**row) for row in rows if service in (None, row["service"])]

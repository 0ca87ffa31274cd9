"""What an engineer looks at: statistics, logs, the timeline, the figure, and why a check failed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ssot.lab.checks import Unknown
from ssot.lab.evidence import Failure, values_of
from ssot.lab.figure import Picture, draw
from ssot.lab.processes import Process
from ssot.lab.tables import Table
from ssot.lab.timeline import Timeline
from ssot.lab.users import LabClient
from ssot.lab.watch import Watch

__all__ = ["LOG_LINES", "Inspection", "Logs"]

LOG_LINES = 25
"""How many of the last lines of one log are shown."""

_CONNECTIONS = (
    "SELECT application_name AS name, count(*) AS connections, "
    "count(*) FILTER (WHERE state = 'active') AS active FROM pg_stat_activity "
    "WHERE datname = current_database() GROUP BY 1 ORDER BY 1"
)


class Logs(Protocol):
    """A server or a process, as whoever reads its log sees it."""

    def log_position(self) -> int:
        """Where the log ends now."""

    def log_lines(self, since: int = 0) -> list[str]:
        """What it logged after ``since``."""


class Inspection:
    """Tells of a lab what there is to see, as text and tables, redacted.

    ``logs`` gives by name all that log, ``processes`` and ``clients`` those that there are now, and
    ``rows`` asks the database.
    """

    def __init__(
        self,
        *,
        watch: Watch,
        timeline: Timeline,
        redact: Callable[[str], str],
        logs: Callable[[], Mapping[str, Logs]],
        processes: Callable[[], Iterable[Process]],
        clients: Callable[[], Iterable[LabClient]],
        rows: Callable[[str], Awaitable[list[dict[str, Any]]]],
    ) -> None:
        self._watch = watch
        self._timeline = timeline
        self._redact = redact
        self._logs = logs
        self._processes = processes
        self._clients = clients
        self._rows = rows
        self._marks: dict[str, int] = {}

    def begin(self) -> None:
        """A check begins: of the logs, only what follows is its own."""
        self._marks = {name: source.log_position() for name, source in self._logs().items()}

    def joins(self, name: str) -> None:
        """Another one logs, or one of this name again: what its log held before is not its own."""
        self._marks.setdefault(name, self._logs()[name].log_position())

    def lines_of(self, name: str) -> list[str]:
        """What one has logged since the check began; :class:`LookupError` names those there are."""
        sources = self._logs()
        if name not in sources:
            raise LookupError(f"nothing is called {name!r} here: there are {', '.join(sources)}")
        return sources[name].log_lines(self._marks.get(name, 0))

    def log_lines(self) -> list[tuple[str, str]]:
        """The last lines of each log since the check began, with whose they are."""
        return [(name, line) for name in self._logs() for line in self.lines_of(name)[-LOG_LINES:]]

    def logs(self) -> str:
        """The same as aligned text."""
        return self._redact(_aligned(self.log_lines()))

    def timeline(self) -> str:
        """What has happened since the check began, line by line."""
        return self._redact(self._timeline.text(self._watch.began))

    def figure(self, check_id: str) -> Picture | str:
        """What happened in a check that has run here, drawn; in words when it has not."""
        if not self._watch.evidence.knows(check_id):
            return f"{check_id} has not run here yet"
        found = self._watch.evidence.of(check_id)
        svg = draw(
            found["timeline"],
            found["spans"],
            found["faults"],
            seconds=found["seconds"],
            failed_at=found["seconds"] if found["verdict"] == "fail" else None,
            theme="auto",
        )
        return Picture(svg, told=f"figure of {check_id}: {found['title']}")

    async def statistics(self) -> Table:
        """What is open now: clients, and the servers' own view of their connections."""
        rows: list[tuple[str, str, str]] = []
        for client in self._clients():
            values = dataclasses.asdict(client.statistics())
            rows.append(("client", client.user.name, _pairs(values)))
        rows += [
            (process.role, process.name, "running" if process.running else "not running")
            for process in self._processes()
        ]
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2):
                found = await self._rows(_CONNECTIONS)
                rows += [("postgresql", row.pop("name"), _pairs(row)) for row in found]
        return Table(("what", "name", "state"), rows)

    async def explain(self, error: BaseException, *, again: str) -> tuple[Failure, str]:
        """Why a check did not pass: for the evidence, and as the text below its verdict line.

        ``again`` is the command that runs just this check.
        """
        kind, said = type(error).__name__, str(error)
        trace = "".join(traceback.format_exception(error))
        failure = Failure(kind, said, values_of(said), trace, [], [], again)
        if isinstance(error, Unknown) or not isinstance(error, Exception):
            return failure, ""
        await self._watch.settled()
        statistics = await self.statistics()
        failure.statistics = [(row[0], row[1], row[2]) for row in statistics.rows]
        failure.logs = self.log_lines()
        sections = {
            kind: said,
            "timeline, in seconds since the check began": self._timeline.text(self._watch.began),
            "statistics": repr(statistics),
            "logs since the check began": _aligned(failure.logs),
            "run just this check again": again,
        }
        text = "\n\n".join(f"── {title} ──\n{body}" for title, body in sections.items())
        return failure, self._redact(text)


def _aligned(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<11} | {line}" for name, line in lines) or "nothing was logged"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())

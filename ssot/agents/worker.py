"""A worker: claims commands, and holds each run's lease while the engine runs it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from ssot.agents.abc import CommandSource, Leases, Sinks
from ssot.agents.engine import ExecutionEngine
from ssot.commands import RunCommand, decode_command
from ssot.configuration import WorkerSettings
from ssot.context import new_id
from ssot.errors import Fenced, ProtocolError, SsotError, VersionMismatch
from ssot.limit import Limit
from ssot.tracing import Spans, apart, continuing

__all__ = ["Worker", "WorkerStatistics"]

_log = logging.getLogger(__name__)
_spans = Spans("agents")


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """Commands under way, finished, taken over from silent workers, and lost to others."""

    running: int
    finished: int
    taken_over: int
    fenced: int


class Worker:
    """One worker. An async context manager: entering starts claiming, leaving drains.

    Leaving stops claiming and waits ``drain_timeout`` seconds for the runs under way; those that
    are not done are cancelled and left for another worker.
    """

    def __init__(
        self,
        *,
        commands: CommandSource,
        leases: Leases,
        sinks: Sinks,
        engine: ExecutionEngine,
        settings: WorkerSettings,
    ) -> None:
        self.name = new_id("worker")
        self._commands = commands
        self._leases = leases
        self._sinks = sinks
        self._engine = engine
        self._settings = settings
        self._runs: dict[str, asyncio.Task[None]] = {}
        # Commands beyond these stay in the stream, where another worker may take them.
        self._places = Limit(settings.max_claims)
        self._claiming: asyncio.Task[None] | None = None
        self._finished = self._taken_over = self._fenced = 0

    async def __aenter__(self) -> Worker:
        with _spans.span("agents.start"), apart():
            self._claiming = asyncio.create_task(self._claim(), name="claim commands")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Drain, then stop. Idempotent."""
        if self._claiming is not None:
            claiming, self._claiming = self._claiming, None
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
        if self._runs:
            await asyncio.wait(set(self._runs.values()), timeout=self._settings.drain_timeout)
        left = list(self._runs.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        try:
            await self._commands.leave(self.name)
        except SsotError as error:
            _log.warning("%s could not be signed off: %s", self.name, error)

    def apply(self, settings: WorkerSettings) -> None:
        """Take another ``max_claims`` and ``drain_timeout`` from now on.

        Commands that are held stay held. The time of the leases is theirs, and does not change.
        """
        self._settings = settings
        self._places.resize(settings.max_claims)

    async def failed(self) -> None:
        """Wait until claiming fails, and raise its error; for ever while it goes well."""
        assert self._claiming is not None
        await asyncio.shield(self._claiming)

    def statistics(self) -> WorkerStatistics:
        """Commands under way and what has happened."""
        return WorkerStatistics(len(self._runs), self._finished, self._taken_over, self._fenced)

    async def _claim(self) -> None:
        async for claim in self._commands.claims(self.name, abandoned_after=self._leases.ttl):
            # Given again although it is under way here: it only takes long.
            if claim.entry not in self._runs:
                await self._places.acquire()
                task = asyncio.create_task(self._take(claim), name=f"command {claim.entry}")
                self._runs[claim.entry] = task
                task.add_done_callback(partial(self._let_go, claim.entry))

    def _let_go(self, entry: str, _: asyncio.Task[None]) -> None:
        del self._runs[entry]
        self._places.release()

    async def _take(self, claim: Any) -> None:
        try:
            command = decode_command(claim.body)
        except (ProtocolError, VersionMismatch):
            # Another version's worker may understand it: leave it in the stream.
            _log.exception("command %s cannot be read", claim.entry)
            return
        if claim.trace:
            command = msgspec.structs.replace(command, trace=claim.trace)
        try:
            with continuing(command.trace):
                await self._hold(claim, command)
        except Fenced as error:
            self._fenced += 1
            _log.warning("stopped: %s", error)
        except SsotError as error:
            _log.error("run %s will be tried again: %s", command.run_id, error)
        except Exception:
            _log.exception("run %s will be tried again", command.run_id)

    async def _hold(self, claim: Any, command: RunCommand) -> None:
        lease = await self._leases.acquire(command.run_id, self.name)
        if lease is None:
            return
        if claim.again:
            self._taken_over += 1
            _log.info("took over run %s from a silent worker", command.run_id)
        sink = self._sinks.sink(user_id=command.user_id, run_id=command.run_id, token=lease.token)
        run = asyncio.create_task(self._engine.execute(command, sink), name=f"run {command.run_id}")
        renewing = asyncio.create_task(self._renew(lease, run), name=f"renew {command.run_id}")
        try:
            await asyncio.shield(run)
            await self._commands.finish(claim)
            self._finished += 1
        finally:
            run.cancel()
            renewing.cancel()
            await asyncio.gather(run, renewing, return_exceptions=True)
            await self._leases.release(lease)

    async def _renew(self, lease: Any, run: asyncio.Task[None]) -> None:
        while True:
            await asyncio.sleep(self._leases.ttl / 3)
            try:
                if not await self._leases.renew(lease):
                    run.cancel()
                    return
            except SsotError as error:
                # Whoever takes the run meanwhile fences this worker out of the log.
                _log.warning("the lease of run %s could not be renewed: %s", lease.name, error)

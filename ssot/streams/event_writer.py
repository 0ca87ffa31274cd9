"""Writing events: emitting is synchronous, one flusher appends, a barrier waits for durability."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from dataclasses import dataclass

from ssot.errors import LimitExceeded, SsotError, Unavailable
from ssot.events import AgentEvent, encode_event
from ssot.streams.event_log import Append, EventLog
from ssot.tracing import apart

__all__ = ["EventWriter", "RunSink", "WriterStatistics"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """What the writer has done: events waiting, appended and refused, and calls to the server."""

    waiting: int
    appended: int
    refused: int
    calls: int


class RunSink:
    """Where one run's events go, under its fencing token."""

    def __init__(self, writer: EventWriter, *, user_id: str, run_id: str, token: int) -> None:
        self._writer = writer
        self.user_id = user_id
        self.run_id = run_id
        self.token = token
        self._again = False
        self.failure: SsotError | None = None

    def emit(self, event: AgentEvent) -> None:
        """Queue an event, in order.

        Raises :class:`~ssot.errors.NotSerializable` at once for a payload without JSON, the
        run's failure once one of its events was refused, and
        :class:`~ssot.errors.LimitExceeded` when the queue is full.
        """
        if self.failure is not None:
            raise self.failure
        body = encode_event(event)
        self._writer.put(
            self, Append(event.id, self.run_id, self.token, body, self._again, event.trace)
        )

    def replaying(self) -> None:
        """An earlier worker may have emitted some of the events: look for each in the log."""
        self._again = True

    async def barrier(self) -> None:
        """Return when everything emitted so far is in the log; raises the run's failure."""
        await self._writer.barrier()
        if self.failure is not None:
            raise self.failure


class EventWriter:
    """One process's writer: a bounded queue and one task that appends, one call per user and flush.

    An async context manager; leaving it flushes what is queued.
    """

    def __init__(self, log: EventLog, *, capacity: int = 10_000) -> None:
        self._log = log
        self._capacity = capacity
        self._queue: deque[tuple[RunSink, Append]] = deque()
        self._wake = asyncio.Event()
        self._flushed = asyncio.Condition()
        self._queued_total = 0
        self._done_total = 0
        self._appended = 0
        self._refused = 0
        self._calls = 0
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> EventWriter:
        with apart():
            self._task = asyncio.create_task(self._run(), name="event-writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Append what is queued, then stop. Idempotent."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
            self._task = None

    def sink(self, *, user_id: str, run_id: str, token: int) -> RunSink:
        """The sink of one run."""
        return RunSink(self, user_id=user_id, run_id=run_id, token=token)

    def put(self, sink: RunSink, event: Append) -> None:
        """Queue one encoded event.

        Raises :class:`LimitExceeded` when the queue is full, and
        :class:`~ssot.errors.Unavailable` once the writer is closed.
        """
        if self._closing:
            raise Unavailable("the event writer", deadline=0, cause="it is closed")
        waiting = self._queued_total - self._done_total
        if waiting >= self._capacity:
            raise LimitExceeded(
                "events waiting for Redis in this process",
                limit=self._capacity,
                observed=waiting + 1,
            )
        self._queued_total += 1
        self._queue.append((sink, event))
        self._wake.set()

    async def barrier(self) -> None:
        """Return when everything queued so far was appended or refused."""
        goal = self._queued_total
        async with self._flushed:
            await self._flushed.wait_for(lambda: self._done_total >= goal)

    def statistics(self) -> WriterStatistics:
        """What is waiting and what has happened."""
        return WriterStatistics(
            waiting=self._queued_total - self._done_total,
            appended=self._appended,
            refused=self._refused,
            calls=self._calls,
        )

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = list(self._queue)
            self._queue.clear()
            if batch:
                await self._flush(batch)
            elif self._closing:
                return
            if self._closing:
                self._wake.set()

    async def _flush(self, batch: list[tuple[RunSink, Append]]) -> None:
        # Sorting is stable: within a user the order of emission stays.
        batch.sort(key=lambda item: item[0].user_id)
        by_user = [
            (user_id, list(items))
            for user_id, items in itertools.groupby(batch, key=lambda item: item[0].user_id)
        ]
        await asyncio.gather(*(self._append(user_id, items) for user_id, items in by_user))
        async with self._flushed:
            self._done_total += len(batch)
            self._flushed.notify_all()

    async def _append(self, user_id: str, items: list[tuple[RunSink, Append]]) -> None:
        # A run that lost an event writes none after it: the log would have them out of order.
        refused = [item for item in items if item[0].failure is not None]
        self._refused += len(refused)
        items = [item for item in items if item[0].failure is None]
        if not items:
            return
        self._calls += 1
        try:
            answers = await self._log.append(user_id, [event for _, event in items])
        except Exception as error:
            # Not swallowed: every run concerned fails with it at its next emit or barrier.
            _log.exception("%d events of user %s were not appended", len(items), user_id)
            for sink, _ in items:
                sink.failure = (
                    error if isinstance(error, SsotError) else SsotError(f"no append: {error}")
                )
            self._refused += len(items)
            return
        for (sink, _), answer in zip(items, answers, strict=True):
            if isinstance(answer, SsotError):
                if sink.failure is None:
                    # The run may be cancelled before it asks: then nobody else would tell.
                    _log.warning("refused: %s", answer)
                sink.failure = answer
                self._refused += 1
            else:
                self._appended += 1

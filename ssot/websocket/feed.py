"""One user's events on one node: from the log and its live channel to a ring of encoded frames."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from ssot.events import Bounds, LogEntry, Position
from ssot.tracing import Spans, trace_of
from ssot.websocket.abc import EventSource
from ssot.websocket.protocol import Reset, encode, event_frame

__all__ = ["Feed", "Frame", "Ring", "bridge", "resumable"]

_log = logging.getLogger(__name__)
_spans = Spans("websocket")
_PAGE = 500
_PAUSE = 0.5


class Frame(NamedTuple):
    """An encoded frame and the position of whoever has received it."""

    position: Position
    data: bytes


class Ring:
    """The newest frames, under absolute indices that never repeat."""

    def __init__(self, size: int) -> None:
        self._frames: deque[Frame] = deque(maxlen=size)
        self.end = 0

    @property
    def start(self) -> int:
        """The index of the oldest frame that is still here."""
        return self.end - len(self._frames)

    def append(self, frame: Frame) -> None:
        """Add a frame; the oldest gives way."""
        self._frames.append(frame)
        self.end += 1

    def __getitem__(self, index: int) -> Frame:
        return self._frames[index - self.start]


def bridge(position: Position, entry: LogEntry) -> list[Frame]:
    """The frames that take a reader from ``position`` over ``entry``.

    The entry alone when it is the next one; otherwise a reset first.
    """
    frame = Frame(entry.position, event_frame(*entry))
    if position.precedes(entry.position):
        return [frame]
    before = Position(entry.position.epoch, entry.position.seq - 1)
    return [reset(position, before), frame]


def reset(old: Position, new: Position) -> Frame:
    """The frame that says: between ``old`` and ``new`` events may be missing."""
    if old.epoch == new.epoch:
        reason = f"the log no longer holds the events between {old} and {new}"
    else:
        reason = f"the server of the log was rebooted: epoch {old.epoch} is over"
    return Frame(new, encode(Reset(new.epoch, new.seq, reason)))


def resumable(cursor: Position, bounds: Bounds) -> bool:
    """Whether every event after ``cursor`` is certainly still in the log."""
    first, last = bounds
    if cursor.epoch != last.epoch or cursor.seq > last.seq:
        return False
    return cursor.seq == last.seq or (first is not None and first <= (cursor.epoch, cursor.seq + 1))


class Feed:
    """Follows one user's log while at least one connection wants it.

    Subscribes first, then reads the log, then applies what was published meanwhile. Next in
    sequence: into the ring; older: dropped; a gap or a lost link: repaired from the log.
    """

    def __init__(
        self, user_id: str, source: EventSource, *, ring_size: int, wake: Callable[[], None]
    ) -> None:
        self.user_id = user_id
        self.ring = Ring(ring_size)
        self.position = Position(0, 0)
        self.repairs = 0
        self._source = source
        self._wake = wake
        # Published while the log is being read; applied after it.
        self._held: list[LogEntry] | None = []
        self._repairing: asyncio.Task[None] | None = None
        self._again = False
        self._open = False
        # Of the events that came since the loop was last free: what caused each, and when it began.
        self._causes: list[str] = []
        self._began = 0

    async def open(self) -> None:
        """Be up to date with the log; from then on every event comes to the ring."""
        await self._source.subscribe(self.user_id, self)
        self.position = (await self._source.bounds(self.user_id)).last
        self._open = True
        self._release()
        if self._again:
            self._repair()

    async def aclose(self) -> None:
        """Stop following. Idempotent."""
        if self._repairing is not None:
            self._repairing.cancel()
            await asyncio.gather(self._repairing, return_exceptions=True)
        await self._source.unsubscribe(self.user_id, self)

    async def settled(self) -> Bounds:
        """The log's bounds, once this feed has reached their epoch."""
        while True:
            bounds = await self._source.bounds(self.user_id)
            if self.position.epoch == bounds.last.epoch:
                return bounds
            await asyncio.shield(self._repair())

    def on_event(self, position: Position, body: bytes) -> None:
        """An event was published."""
        if self._held is not None:
            self._held.append(LogEntry(position, body))
        elif self.position.precedes(position):
            self._push(Frame(position, event_frame(position, body)))
        elif position > self.position:
            self._repair()

    def on_link(self) -> None:
        """Events may have been missed."""
        if self._open:
            self._repair()
        else:
            self._again = True

    def _push(self, frame: Frame) -> None:
        self.ring.append(frame)
        self.position = frame.position
        self._wake()
        cause = trace.get_current_span()
        if cause.is_recording():
            if not self._causes:
                self._began = time.time_ns()
                # Behind the connections that were woken, so that it lasts until they have sent.
                asyncio.get_running_loop().call_soon(self._delivered)
            self._causes.append(trace_of(cause))

    def _delivered(self) -> None:
        causes, self._causes = self._causes, []
        first, *others = dict.fromkeys(causes)
        with _spans.span(
            "websocket.deliver",
            user=self.user_id,
            parent=first,
            links=others,
            kind=SpanKind.PRODUCER,
            began=self._began,
            events=len(causes),
        ):
            pass

    def _repair(self) -> asyncio.Task[None]:
        if self._repairing is None or self._repairing.done():
            self._repairing = asyncio.create_task(self._read_log(), name=f"repair {self.user_id}")
        else:
            # What is being read may be older than this call.
            self._again = True
        return self._repairing

    async def _read_log(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            self.repairs += 1
            if self._held is None:
                self._held = []
            try:
                with _spans.span("websocket.repair", user=self.user_id):
                    await self._read_on()
            except Exception as error:
                # What is held stays held: the log is the only way over the gap.
                _log.warning("the log of user %s cannot be read yet: %r", self.user_id, error)
                await asyncio.sleep(_PAUSE)
                self._again = True
            else:
                self._release()

    async def _read_on(self) -> None:
        bounds = await self._source.bounds(self.user_id)
        while entries := await self._source.read(self.user_id, self.position, limit=_PAGE):
            for entry in entries:
                for frame in bridge(self.position, entry):
                    self._push(frame)
        if bounds.last.epoch > self.position.epoch:
            self._push(reset(self.position, Position(bounds.last.epoch, 0)))

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for position, body in held:
            self.on_event(position, body)

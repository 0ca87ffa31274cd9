"""A node's one subscription to Redis: which users' events it wants, and when the link was lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import Any, Protocol

from opentelemetry.trace import SpanKind
from redis.asyncio import Connection

from ssot.errors import SsotError, Unavailable
from ssot.events import Position, origin
from ssot.streams.client import RedisClient, is_transient
from ssot.streams.event_log import EventLog
from ssot.tracing import Spans, apart, installed

__all__ = ["Listener", "Subscriber"]

_log = logging.getLogger(__name__)
_spans = Spans("streams")

_REFUSED_PAUSE = 0.5


class Listener(Protocol):
    """Who is told of one user's events. Both are called on the event loop and must not block."""

    def on_event(self, position: Position, body: bytes) -> None:
        """An event was published."""

    def on_link(self) -> None:
        """The link was lost and is up again: events may have been missed."""


class Subscriber:
    """One connection in subscribe mode, made again for as long as the subscriber is open.

    Written on a connection of its own, not on redis-py's ``PubSub``: that one reconnects unseen,
    and events published meanwhile would be missed without a word.
    """

    def __init__(self, client: RedisClient, log: EventLog, *, ping_interval: float) -> None:
        self._client = client
        self._log = log
        self._ping_interval = ping_interval
        self._listeners: dict[str, Listener] = {}
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._connection: Connection | None = None
        self._heard = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self.links = 0

    async def __aenter__(self) -> Subscriber:
        with apart():
            self._tasks = [
                asyncio.create_task(self._run(), name="subscriber"),
                asyncio.create_task(self._heartbeat(), name="subscriber-heartbeat"),
            ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop listening. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._connection is not None:
            await self._connection.disconnect()
            self._connection = None

    async def subscribe(self, user_id: str, listener: Listener) -> None:
        """Return when the server has confirmed: whatever is published from now on is heard.

        Waits through a restart of the server; :class:`~ssot.errors.Unavailable` at the deadline.
        """
        channel = self._log.channel(user_id)
        self._listeners[channel] = listener
        confirmed = self._confirmed.setdefault(channel, asyncio.get_running_loop().create_future())
        deadline = self._client.settings.retry_deadline
        await self._send("SUBSCRIBE", channel)
        try:
            async with asyncio.timeout(deadline):
                await asyncio.shield(confirmed)
        except TimeoutError:
            raise Unavailable("Redis", deadline=deadline, cause="no subscription") from None

    async def unsubscribe(self, user_id: str, listener: Listener) -> None:
        """Hear no more of a user, unless another listener has taken this one's place."""
        channel = self._log.channel(user_id)
        if self._listeners.get(channel) is listener:
            del self._listeners[channel]
            self._confirmed.pop(channel, None)
            await self._send("UNSUBSCRIBE", channel)

    async def _send(self, *command: str) -> None:
        """Best effort: after a lost link, everything is subscribed again anyway."""
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.send_command(*command)
        except Exception as error:
            if not is_transient(error):
                raise
            await connection.disconnect(nowait=True)

    async def _run(self) -> None:
        while True:
            connection = await self._connect()
            try:
                await self._listen(connection)
            except Exception as error:
                if not is_transient(error):
                    _log.exception("the subscription failed")
                _log.warning("the link to Redis was lost: %s", type(error).__name__)
            finally:
                self._connection = None
                with contextlib.suppress(Exception):
                    await connection.disconnect(nowait=True)

    async def _connect(self) -> Connection:
        while True:
            try:
                return await self._client.call(
                    lambda _: self._client.dedicated(), deadline=float("inf")
                )
            except SsotError as error:
                # A password that was rotated on the server first: it may fit again.
                _log.warning("no link to Redis: %s", error)
                await asyncio.sleep(_REFUSED_PAUSE)

    async def _listen(self, connection: Connection) -> None:
        self._heard = asyncio.get_running_loop().time()
        wanted = set(self._listeners)
        if wanted:
            await connection.send_command("SUBSCRIBE", *sorted(wanted))
        self._connection = connection
        # Those who asked while there was no connection.
        late = set(self._listeners) - wanted
        if late:
            await connection.send_command("SUBSCRIBE", *sorted(late))
            wanted |= late
        relink = wanted if self.links else set()
        self.links += 1
        while True:
            answer: Any = await connection.read_response(timeout=math.inf)
            self._heard = asyncio.get_running_loop().time()
            if not isinstance(answer, list):
                continue
            kind, channel = answer[0], answer[1].decode()
            if kind == b"message":
                self._deliver(channel, answer[2])
            elif kind == b"subscribe":
                confirmed = self._confirmed.get(channel)
                if confirmed is not None and not confirmed.done():
                    confirmed.set_result(None)
                if channel in relink and channel in self._listeners:
                    self._listeners[channel].on_link()

    def _deliver(self, channel: str, message: bytes) -> None:
        listener = self._listeners.get(channel)
        if listener is None:
            return
        entry, _, body = message.partition(b" ")
        position = Position.parse(entry.decode())
        if not installed():
            listener.on_event(position, body)
            return
        # Whatever the listener does with it is a consequence of what emitted it.
        whence = origin(body)
        with _spans.span(
            "streams.receive", user=whence.user_id, parent=whence.trace, kind=SpanKind.CONSUMER
        ):
            listener.on_event(position, body)

    async def _heartbeat(self) -> None:
        """Notice a link that is half open: no answer to a ping within another interval."""
        while True:
            await asyncio.sleep(self._ping_interval / 2)
            connection = self._connection
            if connection is None:
                continue
            if asyncio.get_running_loop().time() - self._heard > self._ping_interval:
                _log.warning("Redis did not answer for %g s; reconnecting", self._ping_interval)
                await connection.disconnect(nowait=True)
            else:
                await self._send("PING")

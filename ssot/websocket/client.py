"""A client of the nodes: every event once and in order, across lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry.trace import SpanKind
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from ssot.context import new_id
from ssot.errors import (
    AuthenticationError,
    ProtocolError,
    Unavailable,
    VersionMismatch,
)
from ssot.events import AgentEvent, Position, decode_event
from ssot.tracing import Spans, current_trace, installed
from ssot.websocket.protocol import (
    BEARER,
    PROTOCOL_VERSION,
    SUBPROTOCOL,
    Accepted,
    ClientFrame,
    CloseCode,
    Error,
    Event,
    GetRun,
    Reset,
    RunRecord,
    UserMessage,
    Welcome,
    decode_server,
    encode,
)

__all__ = ["Client", "ClientStatistics", "Received"]

_log = logging.getLogger(__name__)
_spans = Spans("websocket")


class Received(NamedTuple):
    """One event, at its position in the user's log."""

    position: Position
    event: AgentEvent


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """What has happened to this client.

    ``resets`` counts the times that it was told that events may be missing; ``duplicates`` the
    events that came again and were dropped.
    """

    received: int
    duplicates: int
    connects: int
    resets: int


class Client:
    """One user's client. An async context manager, and an async iterator of :class:`Received`.

    Connects to the first node of ``urls`` that answers, and to the next one whenever the
    connection is lost, from the last position it has: events come once and in order. Entering
    raises :class:`AuthenticationError` when the token is refused, and :class:`Unavailable` when no
    node answers within ``deadline`` seconds; later the iterator raises them.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        token: str,
        after: Position | None = None,
        deadline: float = 30.0,
        buffer: int = 1000,
    ) -> None:
        self._urls = list(urls)
        self._token = token
        self._deadline = deadline
        self.position = after
        self.user_id = ""
        self._events: asyncio.Queue[Received | None] = asyncio.Queue(buffer)
        self._pending: dict[str, tuple[ClientFrame, asyncio.Future[Any]]] = {}
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._ended = False
        self._received = self._duplicates = self._connects = self._resets = 0

    async def __aenter__(self) -> Client:
        socket = await self._connect()
        self._task = asyncio.create_task(self._run(socket), name="websocket-client")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; what was received can still be read. Idempotent."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _, answer in self._pending.values():
            answer.cancel()
        if self._socket is not None:
            await self._socket.close()
        self._ended = True
        with contextlib.suppress(asyncio.QueueFull):
            self._events.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Received]:
        # A full queue has no place for the mark at its end.
        while not (self._ended and self._events.empty()):
            received = await self._events.get()
            if received is None:
                break
            yield received
        if self._failure is not None:
            raise self._failure

    async def send(
        self, text: str, *, thread_id: str, agent: str, message_id: str | None = None
    ) -> str:
        """Ask an agent; returns the run's id once the message is safely queued.

        Sent again with the same id after a lost connection, so it starts one run. Raises
        :class:`ProtocolError` when the node refuses the message.
        """
        message_id = message_id or new_id("message")
        with _spans.span(
            "websocket.send", user=self.user_id, kind=SpanKind.CLIENT, frame="user_message"
        ) as span:
            frame = UserMessage(message_id, thread_id, text, agent, current_trace())
            answer: Accepted = await self._ask(frame)
            span.set_attribute("ssot.run_id", answer.run_id)
            return answer.run_id

    async def run(self, run_id: str) -> dict[str, Any] | None:
        """The durable record of a run; what to read after a reset."""
        with _spans.span(
            "websocket.send", user=self.user_id, kind=SpanKind.CLIENT, frame="get_run"
        ):
            frame = GetRun(new_id("request"), run_id, current_trace())
            answer: RunRecord = await self._ask(frame)
            return answer.record

    def statistics(self) -> ClientStatistics:
        """What has happened."""
        return ClientStatistics(self._received, self._duplicates, self._connects, self._resets)

    async def _ask(self, frame: ClientFrame) -> Any:
        if self._failure is not None:
            raise self._failure
        if frame.id in self._pending:
            return await asyncio.shield(self._pending[frame.id][1])
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[frame.id] = (frame, answer)
        try:
            if self._socket is not None:
                # If it is lost, the frame goes out again on the next connection.
                with contextlib.suppress(ConnectionClosed):
                    await self._socket.send(encode(frame), text=True)
            return await answer
        finally:
            self._pending.pop(frame.id, None)

    async def _connect(self) -> ClientConnection:
        with _spans.span("websocket.connect", user=self.user_id, kind=SpanKind.CLIENT) as span:
            socket = await self._connect_somewhere()
            span.set_attribute("ssot.user_id", self.user_id)
        self._connects += 1
        self._socket = socket
        return socket

    async def _connect_somewhere(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadline
        pause = 0.01
        while True:
            try:
                return await self._try_connect(self._urls[0])
            except (OSError, TimeoutError, WebSocketException) as error:
                self._urls.append(self._urls.pop(0))
                wait = pause * random.uniform(0.5, 1)  # noqa: S311
                if loop.time() + wait >= end:
                    raise Unavailable(
                        f"every node of {', '.join(self._urls)}",
                        deadline=self._deadline,
                        cause=repr(error),
                    ) from error
                await asyncio.sleep(wait)
                pause = min(pause * 2, 0.5)

    async def _try_connect(self, url: str) -> ClientConnection:
        query = f"?after={self.position}" if self.position else ""
        trace = current_trace()
        try:
            socket = await connect(
                f"{url}/events{query}",
                subprotocols=[Subprotocol(SUBPROTOCOL), Subprotocol(f"{BEARER}{self._token}")],
                additional_headers={"traceparent": trace} if trace else None,
                compression=None,
                max_size=None,
                proxy=None,
                open_timeout=10,
                close_timeout=2,
            )
        except InvalidStatus as refused:
            reason = (refused.response.body or b"").decode(errors="replace").strip()
            status = refused.response.status_code
            if status == 401:
                raise AuthenticationError(reason) from None
            if 400 <= status < 500 and status != 429:
                raise ProtocolError(
                    f"the node refused the connection (HTTP {status}): {reason}"
                ) from None
            raise
        try:
            async with asyncio.timeout(self._deadline):
                welcome = decode_server(await socket.recv())
            if not isinstance(welcome, Welcome):
                raise ProtocolError(
                    f"the node's first frame was {type(welcome).__name__}, not welcome"
                )
            if welcome.v != PROTOCOL_VERSION:
                raise VersionMismatch(
                    "the wire protocol",
                    ours=PROTOCOL_VERSION,
                    theirs=welcome.v,
                    advice="update the older one",
                )
        except BaseException:
            socket.transport.abort()
            raise
        self.user_id = welcome.user_id
        if self.position is None or not welcome.recovered:
            self.position = Position(welcome.epoch, welcome.seq)
        return socket

    async def _run(self, socket: ClientConnection) -> None:
        try:
            while True:
                with contextlib.suppress(ConnectionClosed):
                    for frame, _ in list(self._pending.values()):
                        await socket.send(encode(frame), text=True)
                    async for message in socket:
                        await self._take(message)
                if socket.close_code == CloseCode.TOO_BIG:
                    self._refuse_largest()
                if socket.close_code == CloseCode.TOKEN_EXPIRED:
                    raise AuthenticationError("the token has expired")
                socket = await self._connect()
        except Exception as error:
            self._failure = error
            for _, answer in self._pending.values():
                if not answer.done():
                    answer.set_exception(error)
            await self._events.put(None)

    def _refuse_largest(self) -> None:
        """Sent again, it would only close the next connection."""
        if self._pending:
            frame, _ = max(self._pending.values(), key=lambda pending: len(encode(pending[0])))
            self._resolve(frame.id, error=ProtocolError("the message is too large for the node"))

    async def _take(self, message: str | bytes) -> None:
        frame = decode_server(message)
        if isinstance(frame, Event):
            position = Position(frame.epoch, frame.seq)
            if self.position is not None and position <= self.position:
                self._duplicates += 1
                return
            received = Received(position, decode_event(bytes(frame.event)))
            self._received += 1
            await self._hand_over(received)
            # Only now: an event that was not handed over must come again on the next connection.
            self.position = position
        elif isinstance(frame, Reset):
            self._resets += 1
            self.position = Position(frame.epoch, frame.seq)
        elif isinstance(frame, Accepted | RunRecord):
            self._resolve(frame.id, result=frame)
        elif isinstance(frame, Error):
            if frame.retry and frame.id in self._pending and self._socket is not None:
                await self._socket.send(encode(self._pending[frame.id][0]), text=True)
            else:
                self._resolve(frame.id, error=ProtocolError(frame.reason))

    async def _hand_over(self, received: Received) -> None:
        event = received.event
        if not installed():
            await self._events.put(received)
            return
        with _spans.span(
            "websocket.receive",
            user=self.user_id,
            parent=event.trace,
            kind=SpanKind.CONSUMER,
            event=event.type,
            run_id=event.run_id,
        ):
            await self._events.put(received)

    def _resolve(
        self, frame_id: str | None, *, result: Any = None, error: Exception | None = None
    ) -> None:
        if frame_id not in self._pending:
            if error is not None:
                _log.warning("the node reports: %s", error)
            return
        answer = self._pending[frame_id][1]
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

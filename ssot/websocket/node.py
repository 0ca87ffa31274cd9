"""A WebSocket node: takes connections, checks who they are, delivers events, queues messages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import msgspec
from opentelemetry.trace import Span, SpanKind
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidOrigin
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from ssot.commands import RunCommand
from ssot.configuration import NodeSettings
from ssot.context import UserContext, new_id
from ssot.errors import AuthenticationError, ProtocolError, SsotError, Unavailable
from ssot.events import Position
from ssot.health import Health
from ssot.tracing import Spans, apart, continuing, current_trace, mark_failed, trace_of
from ssot.websocket.abc import Commands, EventSource, Identity, Runs, Verifier
from ssot.websocket.connection import Connection
from ssot.websocket.feed import Feed
from ssot.websocket.protocol import (
    BEARER,
    SUBPROTOCOL,
    Accepted,
    CloseCode,
    Error,
    GetRun,
    RunRecord,
    ServerFrame,
    UserMessage,
    decode_client,
    encode,
    id_of,
)

__all__ = ["Node", "NodeStatistics"]

_log = logging.getLogger(__name__)
_spans = Spans("websocket")

_LONGEST_ORIGIN = 100
"""In characters: as much of an origin as is logged."""


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """What is open and what has happened on this node."""

    users: int
    connections: int
    accepted: int
    refused: int
    messages: int
    sent: int
    repairs: int


class Node:
    """One node. An async context manager: entering listens, leaving drains.

    Leaving closes every connection with 1001 (going away), so that clients resume elsewhere.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        source: EventSource,
        commands: Commands,
        runs: Runs,
        verifier: Verifier,
        health: Callable[[], Awaitable[Health]],
    ) -> None:
        self._settings = settings
        self._source = source
        self._commands = commands
        self._runs = runs
        self._verifier = verifier
        self._health = health
        self._admitted: WeakKeyDictionary[ServerConnection, _Admitted] = WeakKeyDictionary()
        self._users: dict[str, _User] = {}
        self._server: Server | None = None
        self._accepted = self._refused = self._messages = self._sent = self._repairs = 0

    @property
    def address(self) -> str:
        """Where clients connect: ``ws://host:port``."""
        if self._server is None:
            raise ProtocolError("the node is not open")
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    async def __aenter__(self) -> Node:
        origins = [Origin(o.strip()) for o in self._settings.origins.split(",") if o.strip()]
        with _spans.span("websocket.start"), apart():
            self._server = await serve(
                self._serve,
                self._settings.host,
                self._settings.port,
                process_request=self._answer,
                process_response=self._note_origin,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                # None: a client that is no browser sends no origin.
                origins=[None, *origins],
                max_size=self._settings.max_message_bytes,
                ping_interval=self._settings.ping_interval,
                ping_timeout=self._settings.ping_interval,
                # Compressing every small event costs more than it saves, and 30 KiB a connection.
                compression=None,
                close_timeout=2,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop listening, send every client elsewhere, wait until they are gone. Idempotent."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close(
                code=CloseCode.GOING_AWAY, reason="the node is stopping; resume on another"
            )
            await server.wait_closed()

    def statistics(self) -> NodeStatistics:
        """What is open and what has happened."""
        open_ = [c for user in self._users.values() for c in user.connections]
        return NodeStatistics(
            users=len(self._users),
            connections=len(open_),
            accepted=self._accepted,
            refused=self._refused,
            messages=self._messages,
            sent=self._sent + sum(c.sent for c in open_),
            repairs=self._repairs + sum(u.feed.repairs for u in self._users.values()),
        )

    async def _answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer the HTTP request, or return ``None`` to go on with the handshake."""
        path = urlsplit(request.path).path
        if path == "/health":
            return await self._answer_health(socket)
        if path != "/events":
            return _refusal(
                socket, HTTPStatus.NOT_FOUND, f"there is /events and /health, not {path}"
            )
        caller = request.headers.get_all("traceparent")
        with _spans.span(
            "websocket.admit", parent="".join(caller[:1]), kind=SpanKind.SERVER
        ) as span:
            return await self._admit(socket, request, span)

    async def _admit(
        self, socket: ServerConnection, request: Request, span: Span
    ) -> Response | None:
        offered = _subprotocols(request.headers)
        if SUBPROTOCOL not in offered:
            others = ", ".join(p for p in offered if not p.startswith(BEARER)) or "none"
            return self._refuse(
                socket,
                HTTPStatus.BAD_REQUEST,
                f"this node speaks {SUBPROTOCOL}, the client offers {others}; update the older one",
                span,
            )
        try:
            _cursor(request.path)
            identity = await self._verifier.verify(_token(request.headers, offered))
        except AuthenticationError as error:
            return self._refuse(socket, HTTPStatus.UNAUTHORIZED, error.reason, span)
        except ProtocolError as error:
            return self._refuse(socket, HTTPStatus.BAD_REQUEST, str(error), span)
        except Unavailable as error:
            return self._refuse(socket, HTTPStatus.SERVICE_UNAVAILABLE, str(error), span)
        user = self._users.get(identity.user_id)
        if user is not None and len(user.connections) >= self._settings.max_connections:
            return self._refuse(socket, HTTPStatus.TOO_MANY_REQUESTS, self._too_many(), span)
        span.set_attribute("ssot.user_id", identity.user_id)
        self._admitted[socket] = _Admitted(identity, trace_of(span))
        return None

    def _note_origin(self, socket: ServerConnection, _: Request, __: Response) -> None:
        """Log the page that may not connect: its browser does not tell it why."""
        refused = socket.protocol.handshake_exc
        if isinstance(refused, InvalidOrigin):
            self._refused += 1
            # It may be anything, of any length.
            origin = ascii((refused.value or "")[:_LONGEST_ORIGIN])
            _log.info("refused a connection: NODE_ORIGINS does not name the origin %s", origin)

    def _too_many(self) -> str:
        return f"a user may have {self._settings.max_connections} connections on one node"

    def _refuse(
        self, socket: ServerConnection, status: HTTPStatus, reason: str, span: Span
    ) -> Response:
        self._refused += 1
        span.set_attribute("http.response.status_code", status.value)
        mark_failed(span, reason)
        _log.info("refused a connection: %s", reason)
        return _refusal(socket, status, reason)

    async def _answer_health(self, socket: ServerConnection) -> Response:
        found = await self._health()
        status = HTTPStatus.OK if found.status == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
        response = socket.respond(status, msgspec.json.encode(found).decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        identity, trace = self._admitted[socket]
        with continuing(trace):
            await self._serve_user(socket, identity)

    async def _serve_user(self, socket: ServerConnection, identity: Identity) -> None:
        self._accepted += 1
        user = self._users.get(identity.user_id)
        if user is None:
            user = self._users[identity.user_id] = _User(
                identity.user_id, self._source, self._settings.ring_size
            )
        # Looked at again: several handshakes may have passed the first look at the same time.
        if len(user.connections) >= self._settings.max_connections:
            await socket.close(CloseCode.TOO_MANY, self._too_many())
            return
        connection = Connection(
            socket,
            user.feed,
            self._source,
            connection_id=new_id("connection"),
            stall_timeout=self._settings.stall_timeout,
        )
        user.connections.add(connection)
        try:
            await user.opened()
            await self._converse(connection, identity)
        except SsotError as error:
            _log.warning("connection %s failed: %s", connection.id, error)
            await socket.close(CloseCode.TRY_AGAIN_LATER, "try again later")
        finally:
            user.connections.discard(connection)
            self._sent += connection.sent
            if not user.connections and self._users.get(identity.user_id) is user:
                del self._users[identity.user_id]
                self._repairs += user.feed.repairs
                await user.aclose()

    async def _converse(self, connection: Connection, identity: Identity) -> None:
        socket = connection.socket
        assert socket.request is not None
        cursor = _cursor(socket.request.path)
        sender = asyncio.create_task(connection.run(cursor), name=f"send {connection.id}")
        expiry = asyncio.get_running_loop().call_later(
            max(identity.expires_at - time.time(), 0),
            lambda: sender.cancel(),
        )
        receiver = asyncio.create_task(
            self._receive(connection, identity), name=f"receive {connection.id}"
        )
        # An answer may wait for Redis; a connection that is closed does not wait for it.
        closed = asyncio.create_task(socket.wait_closed(), name=f"closed {connection.id}")
        try:
            await asyncio.wait({sender, receiver, closed}, return_when=asyncio.FIRST_COMPLETED)
            if sender.cancelled():
                await socket.close(CloseCode.TOKEN_EXPIRED, "the token has expired; log in again")
        finally:
            expiry.cancel()
            sender.cancel()
            receiver.cancel()
            closed.cancel()
            results = await asyncio.gather(sender, receiver, closed, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionClosed):
                raise result

    async def _receive(self, connection: Connection, identity: Identity) -> None:
        # Whatever a hasty client has sent already is answered after its welcome.
        await connection.welcomed.wait()
        socket = connection.socket
        async for message in socket:
            self._messages += 1
            answer: ServerFrame
            try:
                answer = await self._handle(decode_client(message), identity)
            except SsotError as error:
                # Who sends several at once must know which of them was refused.
                retry = isinstance(error, Unavailable)
                answer = Error(str(error), id_of(message), retry=retry)
            await socket.send(encode(answer), text=True)

    async def _handle(self, frame: UserMessage | GetRun, identity: Identity) -> ServerFrame:
        kind = "get_run" if isinstance(frame, GetRun) else "user_message"
        with _spans.span(
            "websocket.message",
            user=identity.user_id,
            # A client that traces the handshake alone is answered within it.
            parent=frame.trace or None,
            kind=SpanKind.SERVER,
            frame=kind,
        ):
            if isinstance(frame, GetRun):
                # A record is found by user and run; its thread is part of the answer.
                user = UserContext(identity.user_id, thread_id="record", run_id=frame.run_id)
                return RunRecord(frame.id, await self._runs.get(user))
            # Validates the ids before anything is queued.
            user = UserContext(identity.user_id, thread_id=frame.thread_id, run_id=new_id("run"))
            command = RunCommand(
                message_id=frame.id,
                user_id=user.user_id,
                thread_id=user.thread_id,
                run_id=user.run_id,
                agent=frame.agent,
                text=frame.text,
                trace=current_trace(),
            )
            return Accepted(frame.id, await self._commands.submit(command))


class _Admitted(NamedTuple):
    """Who was let in, and the span that let them in."""

    identity: Identity
    trace: str


class _User:
    """A user with at least one connection here: their feed, opened once."""

    def __init__(self, user_id: str, source: EventSource, ring_size: int) -> None:
        self.connections: set[Connection] = set()
        self.feed = Feed(user_id, source, ring_size=ring_size, wake=self._wake)
        self._opening: asyncio.Task[None] | None = None

    async def opened(self) -> None:
        """Return when the feed is open; several connections may wait for the same opening."""
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self.feed.open(), name=f"open {self.feed.user_id}")
        await asyncio.shield(self._opening)

    async def aclose(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self.feed.aclose()

    def _wake(self) -> None:
        for connection in self.connections:
            connection.wake()


def _refusal(socket: ServerConnection, status: HTTPStatus, reason: str) -> Response:
    return socket.respond(status, f"{reason}\n")


def _subprotocols(headers: Headers) -> list[str]:
    values = headers.get_all("Sec-WebSocket-Protocol")
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _token(headers: Headers, offered: list[str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    for subprotocol in offered:
        if subprotocol.startswith(BEARER):
            return subprotocol.removeprefix(BEARER)
    raise AuthenticationError(
        "no token: send Authorization: Bearer …, or the subprotocol bearer.<token>"
    )


def _cursor(path: str) -> Position | None:
    after = parse_qs(urlsplit(path).query, keep_blank_values=True).get("after")
    return Position.parse(after[0]) if after else None

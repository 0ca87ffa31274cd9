"""A WebSocket of a user without our client: the protocol itself, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from opentelemetry import propagate
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from ssot.errors import SsotError
from ssot.lab.users import User
from ssot.websocket.protocol import BEARER, SUBPROTOCOL

__all__ = ["BareSocket", "HandshakeRefused", "bare_socket"]

_PATIENCE = 12.0

Heard = Callable[[str, str | bytes], None]


class HandshakeRefused(SsotError):
    """A node did not let a bare connection in: the HTTP ``status``, and its ``reason`` in words."""

    watches: ClassVar[frozenset[str]] = frozenset({"websocket"})

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(f"the node refused the connection (HTTP {status}): {reason}")


class BareSocket:
    """A bare connection, whose messages count as what came from the platform."""

    def __init__(self, connection: ClientConnection, user: str, heard: Heard) -> None:
        self._connection = connection
        self._user = user
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def recv(self) -> str | bytes:
        """The next message; :class:`AssertionError` when none has come after 12 s."""
        try:
            async with asyncio.timeout(_PATIENCE):
                message: str | bytes = await self._connection.recv()
        except TimeoutError:
            raise AssertionError(
                f"{self._user} waited {_PATIENCE:g} s in vain for a message of the node"
            ) from None
        self._heard(self._user, message)
        return message


@asynccontextmanager
async def bare_socket(
    address: str, user: User, heard: Heard, *, origin: str | None = None
) -> AsyncIterator[BareSocket]:
    """Connect to a node as this user and take its welcome; ``heard`` is told what comes then.

    With an ``origin`` like the browser of a page from there.

    :raises HandshakeRefused: when the node does not let it in.
    """
    protocols = [Subprotocol(SUBPROTOCOL), Subprotocol(f"{BEARER}{user.token}")]
    headers: dict[str, str] = {}
    propagate.inject(headers)
    try:
        connection = await connect(
            f"{address}/events",
            subprotocols=protocols,
            additional_headers=headers,
            origin=None if origin is None else Origin(origin),
            proxy=None,
        )
    except InvalidStatus as refused:
        reason = (refused.response.body or b"").decode(errors="replace").strip()
        raise HandshakeRefused(refused.response.status_code, reason) from None
    async with connection as socket:
        await socket.recv()
        yield BareSocket(socket, user.name, heard)

"""One client's connection on a node: what it is sent, and how far it has got."""

from __future__ import annotations

import asyncio
import logging

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from ssot.events import Bounds, Position
from ssot.websocket.abc import EventSource
from ssot.websocket.feed import Feed, Frame, bridge, reset, resumable
from ssot.websocket.protocol import PROTOCOL_VERSION, CloseCode, Welcome, encode

__all__ = ["Connection"]

_log = logging.getLogger(__name__)
_PAGE = 500


class Connection:
    """Sends one client its user's events, in order, at the pace at which it takes them.

    A client that takes nothing for ``stall_timeout`` seconds, or falls behind the ring, is cut
    off; it can resume from the log. It costs no other connection anything.
    """

    def __init__(
        self,
        socket: ServerConnection,
        feed: Feed,
        source: EventSource,
        *,
        connection_id: str,
        stall_timeout: float,
    ) -> None:
        self.id = connection_id
        self.socket = socket
        self.sent = 0
        self.welcomed = asyncio.Event()
        self._feed = feed
        self._source = source
        self._stall_timeout = stall_timeout
        self._more = asyncio.Event()

    def wake(self) -> None:
        """The ring has grown."""
        self._more.set()

    async def run(self, cursor: Position | None) -> None:
        """Welcome the client, then send events until the connection closes."""
        try:
            await self._send_all(cursor)
        except ConnectionClosed:
            pass
        except TimeoutError:
            _log.warning("connection %s took nothing for %g s", self.id, self._stall_timeout)
            # A closing handshake would wait for the same client.
            self.socket.transport.abort()
        except _FellBehind:
            _log.warning("connection %s fell behind by a whole ring", self.id)
            await self.socket.close(CloseCode.TOO_SLOW, "too slow; resume from your last position")

    async def _send_all(self, cursor: Position | None) -> None:
        bounds = await self._feed.settled()
        # From here to the end of the statement nothing is awaited: ring and position agree.
        index, live = self._feed.ring.end, self._feed.position
        start, recovered = _start(cursor, bounds, live)
        await self._send(
            encode(
                Welcome(
                    PROTOCOL_VERSION, self.id, self._feed.user_id, start.epoch, start.seq, recovered
                )
            )
        )
        self.welcomed.set()
        position = await self._catch_up(start, live)
        if not recovered and position == start:
            # Nothing of the log could say it: say where the client stands now.
            position = max(position, live)
            await self._send(reset(cursor or start, position).data)
        while True:
            self._more.clear()
            index, position = await self._drain(index, position)
            await self._more.wait()

    async def _catch_up(self, position: Position, goal: Position) -> Position:
        while position < goal:
            page = await self._source.read(self._feed.user_id, position, limit=_PAGE)
            entries = [entry for entry in page if entry.position <= goal]
            for entry in entries:
                for frame in bridge(position, entry):
                    await self._send(frame.data)
                    position = frame.position
            if not entries:
                break
        if position < goal and position.epoch != goal.epoch:
            await self._send(reset(position, goal).data)
            position = goal
        return position

    async def _drain(self, index: int, position: Position) -> tuple[int, Position]:
        ring = self._feed.ring
        while index < ring.end:
            if index < ring.start:
                raise _FellBehind
            frame: Frame = ring[index]
            index += 1
            if frame.position > position:
                await self._send(frame.data)
                position = frame.position
        return index, position

    async def _send(self, data: bytes) -> None:
        async with asyncio.timeout(self._stall_timeout):
            # Text frames, as browsers expect of JSON.
            await self.socket.send(data, text=True)
        self.sent += 1


def _start(cursor: Position | None, bounds: Bounds, live: Position) -> tuple[Position, bool]:
    """Where a client's events begin, and whether it misses none."""
    if cursor is None:
        return live, True
    if resumable(cursor, bounds):
        return cursor, True
    # A cursor of an earlier epoch still orders before all that came later; one from the future
    # belongs to another log.
    return (cursor, False) if cursor < bounds.last else (live, False)


class _FellBehind(Exception):
    """The ring has lost frames that this connection has not sent."""

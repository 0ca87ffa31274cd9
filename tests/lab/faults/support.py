"""What the tests of the faults share: servers on sockets, links to them, clients that look."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from ssot.lab.faults.fault import Fault
from ssot.lab.faults.link import Link
from ssot.lab.faults.links import Links
from ssot.lab.faults.log import FaultLog

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say again what was heard, until the end of it."""
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Net:
    """Links to a server, with the log of their faults. Recovery is what ``recovers`` says it is."""

    def __init__(self, port: int) -> None:
        self.log = FaultLog()
        self.open_faults: dict[Fault, None] = {}
        self.recovered: list[str] = []
        self.links = Links(
            seed=7, log=self.log, open_faults=self.open_faults, recovered=self._on_recovery
        )
        self.port = port
        self.recovers: Callable[[], Awaitable[None]] | None = None
        self._clients: list[asyncio.StreamWriter] = []

    def link(self, name: str = "server", *, round_trip: float = 0.0) -> Link:
        return self.links.open(
            "client", name, lambda: ("127.0.0.1", self.port), kind="http", round_trip=round_trip
        )

    async def connect(self, link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        self._clients.append(writer)
        return reader, writer

    def close_clients(self) -> None:
        for writer in self._clients:
            writer.close()

    async def _on_recovery(self, link: Link, say: Callable[[str], None]) -> None:
        self.recovered.append(link.name)
        if self.recovers is not None:
            say("it is broken for ever")
            await self.recovers()


@asynccontextmanager
async def net(handler: Handler = echo) -> AsyncIterator[Net]:
    """A server with this handler, and links to it that are closed at the end."""
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(handler, "127.0.0.1", 0, limit=2**20)
        stack.callback(server.close)
        made = Net(server.sockets[0].getsockname()[1])
        stack.push_async_callback(made.links.aclose)
        stack.callback(made.close_clients)
        yield made


async def says(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes = b"hello"
) -> bytes:
    """What comes back for it, within five seconds."""
    writer.write(text)
    async with asyncio.timeout(5):
        return await reader.readexactly(len(text))


def everything(sock: socket.socket) -> tuple[bytes, bool]:
    """All bytes until the end, and whether that was a reset; blocks."""
    received = b""
    while True:
        try:
            data = sock.recv(65_536)
        except ConnectionResetError:
            return received, True
        if not data:
            return received, False
        received += data

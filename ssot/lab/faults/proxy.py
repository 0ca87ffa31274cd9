"""A TCP proxy that delays: what stands between two processes when a network lies between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Proxies"]

T = TypeVar("T")

_CHUNK = 65_536
_QUEUED_CHUNKS = 256


class Proxies:
    """Proxies of one lab, in a thread and an event loop of their own.

    A check that blocks its own loop does not slow the network down. ``round_trip`` is the time in
    seconds that each proxy adds to a request and its answer together, half of it each way.
    """

    def __init__(self, *, round_trip: float) -> None:
        self._delay = round_trip / 2
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    async def open(self, host: str, port: int) -> int:
        """Proxy to ``host:port``; returns the port on 127.0.0.1 to connect to instead."""
        return await self._in_thread(self._open(host, port))

    async def aclose(self) -> None:
        """Close every proxy and its connections. Idempotent."""
        if self._thread.is_alive():
            await self._in_thread(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join)
            self._loop.close()

    async def _in_thread(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _open(self, host: str, port: int) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far_reader, far_writer = await asyncio.open_connection(host, port)
            except OSError:
                # The server is down: the client sees its connection end, as it would see a reset.
                writer.transport.abort()
                return
            pair = (writer, far_writer)
            self._writers.update(pair)
            try:
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            except OSError:
                # A reset travels on; whatever is still on its way is lost with it.
                for each in pair:
                    each.transport.abort()
            finally:
                for each in pair:
                    each.close()
                self._writers.difference_update(pair)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self._servers.append(server)
        address: tuple[str, int] = server.sockets[0].getsockname()
        return address[1]

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way, each chunk ``delay`` after it came, and the end likewise.

        The other way stays open after the end of this one, as it would without the proxy.
        """
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS)
        sending = asyncio.create_task(self._send(queue, writer))
        loop = asyncio.get_running_loop()
        try:
            while True:
                data = await reader.read(_CHUNK)
                putting = asyncio.ensure_future(queue.put((loop.time() + self._delay, data)))
                await asyncio.wait({putting, sending}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    putting.cancel()
                    break
                if not data:
                    break
            await sending
        finally:
            sending.cancel()

    async def _send(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

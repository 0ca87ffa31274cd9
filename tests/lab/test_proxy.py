"""The proxy: adds its delay, and changes nothing else."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from ssot.lab.faults.proxy import Proxies

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxied(
    handler: Handler, *, round_trip: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Proxies]]:
    """A connection through a proxy to a server with this handler."""
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)  # type: ignore[arg-type]
        stack.callback(server.close)
        proxies = Proxies(round_trip=round_trip)
        stack.push_async_callback(proxies.aclose)
        port = await proxies.open(*server.sockets[0].getsockname()[:2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        yield reader, writer, proxies


async def test_every_exchange_takes_the_round_trip_at_least() -> None:
    """Each request and its answer together are delayed by the whole, and not by much more."""
    async with proxied(echo, round_trip=0.04) as (reader, writer, _):
        for _ in range(5):
            begin = time.monotonic()
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            assert 0.04 <= time.monotonic() - begin < 0.3


async def test_the_delay_is_no_limit_of_the_bandwidth() -> None:
    """Many messages on the way at once wait together, not one after the other."""
    async with proxied(echo, round_trip=0.04) as (reader, writer, _):
        begin = time.monotonic()
        for _ in range(100):
            writer.write(b"x" * 10)
            await asyncio.sleep(0)
        await reader.readexactly(1000)
        assert time.monotonic() - begin < 1


@pytest.mark.parametrize("seed", range(3))
async def test_bytes_are_carried_unchanged_and_in_order(seed: int) -> None:
    """Three megabytes in pieces of any size come back as they were."""
    randomness = random.Random(seed)
    payload = randomness.randbytes(3_000_000)
    async with proxied(echo, round_trip=0.002) as (reader, writer, _):

        async def send() -> None:
            at = 0
            while at < len(payload):
                size = randomness.randint(1, 200_000)
                writer.write(payload[at : at + size])
                await writer.drain()
                at += size

        sending = asyncio.create_task(send())
        async with asyncio.timeout(10):
            assert await reader.readexactly(len(payload)) == payload
        await sending


async def test_the_end_of_the_server_is_passed_on() -> None:
    """What the server sent before it closed arrives, then the end."""

    async def goodbye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"goodbye")
        writer.close()

    async with proxied(goodbye, round_trip=0.01) as (reader, _, _), asyncio.timeout(5):
        assert await reader.read() == b"goodbye"


async def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    """Closing one direction leaves the other open, as without the proxy."""

    async def at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.write(b"you said " + said)
        writer.close()

    async with proxied(at_the_end, round_trip=0.01) as (reader, writer, _), asyncio.timeout(5):
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"you said hello"


async def test_a_server_that_is_down_is_a_connection_that_ends() -> None:
    """The client is not left waiting."""
    proxies = Proxies(round_trip=0.0)
    try:
        port = await proxies.open("127.0.0.1", 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionError):
                if not await reader.read():
                    raise ConnectionResetError
        writer.close()
    finally:
        await proxies.aclose()


async def test_closing_ends_the_connections_and_twice_is_harmless() -> None:
    """A client of a closed proxy learns that it is closed."""
    async with proxied(echo, round_trip=0.0) as (reader, writer, proxies):
        writer.write(b"x")
        await reader.readexactly(1)
        await proxies.aclose()
        await proxies.aclose()
        async with asyncio.timeout(3):
            try:
                assert await reader.read() == b""
            except ConnectionError:
                pass

"""A proxy without a fault changes nothing but the time that its link takes."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time

import pytest
from streams.support import until

from lab.faults.support import everything, net, says
from ssot.lab.faults.proxy import Proxies


async def test_every_exchange_takes_the_round_trip_at_least() -> None:
    """Each request and its answer together are delayed by the whole, and not by much more."""
    async with net() as one:
        reader, writer = await one.connect(one.link(round_trip=0.04))
        for _ in range(5):
            begin = time.monotonic()
            await says(reader, writer, b"x")
            assert 0.04 <= time.monotonic() - begin < 0.5


async def test_the_delay_is_no_limit_of_the_bandwidth() -> None:
    """Many messages on the way at once wait together, not one after the other."""
    async with net() as one:
        reader, writer = await one.connect(one.link(round_trip=0.04))
        begin = time.monotonic()
        for _ in range(100):
            writer.write(b"x" * 10)
            await asyncio.sleep(0)
        await reader.readexactly(1000)
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize("round_trip", [0.0, 0.002])
@pytest.mark.parametrize("seed", range(2))
async def test_bytes_are_carried_unchanged_and_in_order(seed: int, round_trip: float) -> None:
    """Three megabytes in pieces of any size come back as they were."""
    randomness = random.Random(seed)
    payload = randomness.randbytes(3_000_000)
    async with net() as one:
        link = one.link(round_trip=round_trip)
        reader, writer = await one.connect(link)

        async def send() -> None:
            at = 0
            while at < len(payload):
                size = randomness.randint(1, 200_000)
                writer.write(payload[at : at + size])
                await writer.drain()
                at += size

        sending = asyncio.create_task(send())
        async with asyncio.timeout(20):
            assert await reader.readexactly(len(payload)) == payload
        await sending
        traffic = link.traffic()
        assert (traffic.bytes_to, traffic.bytes_from) == (3_000_000, 3_000_000)


async def test_two_hundred_connections_at_once() -> None:
    """Each gets what is its own, and all are gone when they are closed."""
    async with net() as one:
        link = one.link()
        pairs = await asyncio.gather(*(one.connect(link) for _ in range(200)))
        for turn in range(3):
            texts = [f"{turn} of {number}".encode() for number in range(200)]
            told = await asyncio.gather(
                *(says(*pair, text) for pair, text in zip(pairs, texts, strict=True))
            )
            assert told == texts
        assert link.traffic().connections == link.traffic().open == 200
        for _, writer in pairs:
            writer.close()
        await until(lambda: link.traffic().open == 0, what="the connections to end")


async def test_a_reader_that_is_slow_holds_its_sender_back() -> None:
    """What a proxy keeps is bounded: a server that is not read from cannot write on and on."""
    written = 0
    stuck = asyncio.Event()

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        try:
            while True:
                writer.write(bytes(100_000))
                try:
                    async with asyncio.timeout(1):
                        await writer.drain()
                except TimeoutError:
                    stuck.set()
                    await writer.drain()
                written += 100_000
        except OSError:
            writer.close()

    for round_trip in (0.0, 0.01):
        stuck.clear()
        written = 0
        async with net(pour) as one:
            with socket.socket() as client:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(
                    client, ("127.0.0.1", one.link(round_trip=round_trip).port)
                )
                async with asyncio.timeout(30):
                    await stuck.wait()
                assert written < 30_000_000
                # Read from again, it goes on.
                before, taken = written, 0
                async with asyncio.timeout(20):
                    while taken < before + 1_000_000:
                        data = await asyncio.get_running_loop().sock_recv(client, 2**20)
                        assert data
                        taken += len(data)


@pytest.mark.parametrize("round_trip", [0.0, 0.01])
async def test_the_end_of_the_server_is_passed_on(round_trip: float) -> None:
    """What the server sent before it closed arrives, then the end."""

    async def goodbye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"goodbye")
        writer.close()

    async with net(goodbye) as one, asyncio.timeout(5):
        reader, _ = await one.connect(one.link(round_trip=round_trip))
        assert await reader.read() == b"goodbye"


@pytest.mark.parametrize("round_trip", [0.0, 0.01])
async def test_a_client_that_has_said_all_still_gets_its_answer(round_trip: float) -> None:
    """Closing one direction leaves the other open, as without the proxy."""

    async def at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.write(b"you said " + said)
        writer.close()

    async with net(at_the_end) as one, asyncio.timeout(5):
        link = one.link(round_trip=round_trip)
        reader, writer = await one.connect(link)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"you said hello"
        await until(lambda: link.traffic().open == 0, what="the connection to end")


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_reset_of_one_side_is_a_reset_of_the_other(who: str) -> None:
    """Who is still there learns that it was no ordinary end."""
    ends: asyncio.Queue[tuple[str, asyncio.StreamWriter]] = asyncio.Queue()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ends.put(("connected", writer))
        try:
            await reader.read()
            await ends.put(("end", writer))
        except ConnectionResetError:
            await ends.put(("reset", writer))
        writer.close()

    async with net(watch) as one, asyncio.timeout(5):
        reader, writer = await one.connect(one.link())
        _, server_writer = await ends.get()
        _reset(writer if who == "client" else server_writer)
        if who == "client":
            assert (await ends.get())[0] == "reset"
        else:
            with pytest.raises(ConnectionResetError):
                await reader.read()


async def test_a_server_that_is_down_is_a_connection_that_ends() -> None:
    """The client is not left waiting."""
    async with net() as one, asyncio.timeout(5):
        one.port = 1

        async def talk() -> None:
            # the end may come while asyncio still looks at its new connection
            reader, _ = await one.connect(one.link())
            await reader.read()

        with pytest.raises(ConnectionResetError):
            await talk()


async def test_closing_ends_the_connections_and_twice_is_harmless() -> None:
    """A client of a closed proxy learns that it is closed, and its port is free."""
    async with net() as one:
        link = one.link()
        reader, writer = await one.connect(link)
        await says(reader, writer)
        await one.links.aclose()
        await one.links.aclose()
        async with asyncio.timeout(3):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        with socket.create_server(("127.0.0.1", link.port or 0)):
            pass
    assert not [thread for thread in threading.enumerate() if thread.name == "proxies"]


async def test_a_port_that_is_given_up_for_a_while_is_nobody_elses() -> None:
    """While a proxy refuses connections, nobody can listen where it will listen again."""
    async with net() as one:
        link = one.link()
        async with link.cut():
            with pytest.raises(OSError, match="in use"):
                socket.create_server(("127.0.0.1", link.port or 0))


async def test_a_loop_that_is_blocked_does_not_stop_the_network() -> None:
    """Bytes go by while the loop that opened the link stands still."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxies = Proxies(seed=1)
        try:
            proxy = proxies.open("a → b", listener.getsockname)
            client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
            server, _ = listener.accept()
            with client, server:
                client.sendall(b"hello")
                server.settimeout(5)
                assert server.recv(100) == b"hello"
                server.close()
                assert everything(client) == (b"", False)
        finally:
            await proxies.aclose()


async def test_frames_are_counted_where_websocket_is_spoken() -> None:
    """An upgrade and three frames of a client are three frames, and bytes are bytes."""
    head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    async with net() as one:
        link = one.link()
        reader, writer = await one.connect(link)
        await says(reader, writer, head)
        for _ in range(3):
            await says(reader, writer, b"\x81\x02hi")
        traffic = link.traffic()
        assert (traffic.frames_to, traffic.frames_from) == (3, 3)
        assert traffic.bytes_to == len(head) + 12


def _reset(writer: asyncio.StreamWriter) -> None:
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()

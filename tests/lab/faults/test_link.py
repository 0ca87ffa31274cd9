"""Each fault of a link as its client sees it: what it does, when it begins, and that it heals."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from streams.support import until

from lab.faults.support import everything, net, says
from ssot.lab.checks import Unknown
from ssot.lab.faults.fault import NotRecovered
from ssot.lab.faults.link import Link
from ssot.lab.faults.shape import Direction


async def silent(reader: asyncio.StreamReader, *, seconds: float = 0.1) -> bool:
    """Whether nothing comes for so long, and the connection is still open."""
    try:
        async with asyncio.timeout(seconds):
            return bool(await reader.read(1)) and False
    except TimeoutError:
        return True


@pytest.mark.parametrize("direction", ["to", "from", "both"])
async def test_latency_is_added_to_each_direction(direction: Direction) -> None:
    """An exchange takes it once, or twice with both directions; afterwards it does not."""
    async with net() as one:
        link = one.link()
        pair = await one.connect(link)
        expected = 0.1 if direction == "both" else 0.05
        async with link.latency(0.05, direction=direction):
            for _ in range(3):
                begin = time.monotonic()
                await says(*pair)
                assert expected <= time.monotonic() - begin < expected + 0.4
        begin = time.monotonic()
        for _ in range(10):
            await says(*pair)
        assert time.monotonic() - begin < 10 * expected


async def test_jitter_keeps_the_order() -> None:
    """Pieces with very different delays come as they were sent."""
    async with net() as one:
        link = one.link()
        reader, writer = await one.connect(link)
        async with link.latency(0.001, jitter=0.03), asyncio.timeout(20):
            expected = b""
            for number in range(100):
                piece = f"{number} ".encode()
                expected += piece
                writer.write(piece)
                await asyncio.sleep(0.0005)
            assert await reader.readexactly(len(expected)) == expected


async def test_healed_latency_holds_nothing_back() -> None:
    """What waits for a long delay goes on at once when it is over."""
    async with net() as one:
        link = one.link()
        reader, writer = await one.connect(link)
        async with link.latency(60):
            writer.write(b"hello")
            assert await silent(reader)
        async with asyncio.timeout(5):
            assert await reader.readexactly(5) == b"hello"


async def test_bandwidth_is_never_exceeded_and_is_shared() -> None:
    """Two connections together get no more than the rate, and it is used."""
    async with net() as one:
        link = one.link()
        pairs = [await one.connect(link) for _ in range(2)]
        rate, size = 40_000, 20_000
        async with link.bandwidth(rate, direction="to"):
            begin = time.monotonic()
            for _, writer in pairs:
                writer.write(bytes(size))
            async with asyncio.timeout(20):
                await asyncio.gather(*(reader.readexactly(size) for reader, _ in pairs))
            # The first piece goes at once: a fiftieth of a second's bytes for each connection.
            assert time.monotonic() - begin >= (2 * size - 2 * rate / 50) / rate


async def test_healed_bandwidth_holds_nothing_back() -> None:
    """A megabyte that would take hours is there at once when it is over."""
    async with net() as one:
        link = one.link()
        reader, writer = await one.connect(link)
        async with link.bandwidth(100, direction="to"):
            writer.write(bytes(1_000_000))
            await until(lambda: link.traffic().bytes_to > 0, what="the first bytes")
            assert link.traffic().bytes_to < 10_000
        async with asyncio.timeout(10):
            assert await reader.readexactly(1_000_000) == bytes(1_000_000)


async def test_a_cut_is_a_reset_for_both_ends_and_refuses_the_next() -> None:
    """RST on the old connection, refused for a new one, and an ordinary one after healing."""
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                writer.write(data)
            await ended.put("end")
        except ConnectionResetError:
            await ended.put("reset")
        writer.close()

    async with net(watch) as one, asyncio.timeout(10):
        link = one.link()
        reader, writer = await one.connect(link)
        await says(reader, writer)
        async with link.cut():
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert await ended.get() == "reset"
            with pytest.raises(ConnectionRefusedError):
                await one.connect(link)
        await says(*await one.connect(link))


async def test_a_cut_that_does_not_refuse_hits_the_old_connections_only() -> None:
    """A client that connects again at once can go on while the fault is not over yet."""
    async with net() as one:
        link = one.link()
        pairs = [await one.connect(link) for _ in range(20)]
        for pair in pairs:
            await says(*pair)
        async with link.cut(refuse=False):
            for reader, _ in pairs:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            await says(*await one.connect(link))


@pytest.mark.parametrize("count", [0, 1, 999, 70_000])
async def test_a_cut_after_bytes_from_the_server_is_exact(count: int) -> None:
    """Byte N arrives, then the reset; byte N+1 never does."""
    payload = bytes(range(256)) * 400

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        try:
            await writer.drain()
        except OSError:
            pass
        writer.close()

    async with net(send) as one:
        link = one.link()
        async with link.cut(after_bytes=count, direction="from", refuse=False) as fault:
            with socket.create_connection(("127.0.0.1", link.port), timeout=10) as client:
                received, reset = await asyncio.to_thread(everything, client)
            await fault.triggered()
        if count:
            assert (len(received), reset) == (count, True)
            assert received == payload[:count]
            assert link.traffic().bytes_from == count
        else:
            # It struck before there was a connection.
            assert received == payload


@pytest.mark.parametrize("count", [1, 50_001])
async def test_a_cut_after_bytes_to_the_server_is_exact(count: int) -> None:
    """The server has heard byte N when its connection is reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with net() as one:
            one.port = listener.getsockname()[1]
            link = one.link()
            async with link.cut(after_bytes=count, direction="to") as fault:
                with socket.create_connection(("127.0.0.1", link.port), timeout=10) as client:
                    server, _ = await asyncio.to_thread(listener.accept)
                    with server:
                        server.settimeout(10)
                        client.sendall(bytes(count + 1000))
                        received, reset = await asyncio.to_thread(everything, server)
                await fault.triggered()
    assert (len(received), reset) == (count, True)


async def test_a_cut_after_bytes_waits_until_they_were_taken() -> None:
    """A receiver that is slow gets all N bytes before the reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with net() as one:
            one.port = listener.getsockname()[1]
            link = one.link()
            count = 500_000
            async with link.cut(after_bytes=count, direction="to") as fault:
                _, writer = await one.connect(link)
                server, _ = await asyncio.to_thread(listener.accept)
                with server:
                    server.settimeout(10)
                    writer.write(bytes(count + 1))
                    with pytest.raises(AssertionError, match="was not triggered within"):
                        await fault.triggered(patience=0.1)
                    received, reset = await asyncio.to_thread(everything, server)
                    await fault.triggered()
    assert (len(received), reset) == (count, True)


async def test_a_black_hole_is_silence_on_an_open_connection() -> None:
    """Nothing comes and nothing fails; on healing what was held goes on, in order."""
    async with net() as one:
        link = one.link()
        reader, writer = await one.connect(link)
        await says(reader, writer)
        async with link.black_hole():
            for number in range(50):
                writer.write(f"{number} ".encode())
                await writer.drain()
            assert await silent(reader)
            assert link.traffic().open == 1
        expected = b"".join(f"{number} ".encode() for number in range(50))
        async with asyncio.timeout(5):
            assert await reader.readexactly(len(expected)) == expected
        await says(reader, writer)


@pytest.mark.parametrize("count", [1, 100, 65_537])
async def test_a_black_hole_after_bytes_is_exact(count: int) -> None:
    """Byte N is the last that comes, until it is healed."""
    async with net() as one:
        link = one.link()
        reader, writer = await one.connect(link)
        async with link.black_hole(after_bytes=count, direction="from") as fault:
            writer.write(bytes(count + 500))
            async with asyncio.timeout(5):
                await reader.readexactly(count)
            await fault.triggered()
            assert await silent(reader)
            assert link.traffic().bytes_from == count
        async with asyncio.timeout(5):
            await reader.readexactly(500)


@pytest.mark.parametrize("direction", ["to", "from"])
async def test_half_a_black_hole_swallows_one_direction(direction: Direction) -> None:
    """The server hears what is said when only its answers are lost, and else it does not."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            await heard.put(data)
            writer.write(data)
        writer.close()

    async with net(listen) as one:
        link = one.link()
        reader, writer = await one.connect(link)
        await says(reader, writer, b"first")
        await heard.get()
        async with link.black_hole(direction=direction):
            writer.write(b"second")
            if direction == "from":
                async with asyncio.timeout(5):
                    assert await heard.get() == b"second"
            assert await silent(reader)
            assert heard.empty()
        async with asyncio.timeout(5):
            assert await reader.readexactly(6) == b"second"


async def test_a_new_connection_into_a_black_hole_hangs() -> None:
    """The server never hears of it before it heals, and never at all if its client gave up."""
    async with net() as one, asyncio.timeout(10):
        link = one.link()
        async with link.black_hole():
            reader, writer = await one.connect(link)
            writer.write(b"hello")
            _, given_up = await one.connect(link)
            given_up.write(b"nobody hears this")
            given_up.close()
            assert await silent(reader)
            await until(lambda: link.traffic().open == 1, what="the other one to be gone")
            assert link.addresses() == set()
        assert await reader.readexactly(5) == b"hello"
        assert link.traffic().bytes_to == 5


async def test_nobody_is_told_through_a_black_hole_that_a_client_has_gone() -> None:
    """The server keeps a connection whose client is dead; it learns of that after healing."""
    ended = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError:
            ended.set()
        writer.close()

    async with net(watch) as one:
        link = one.link()
        _, writer = await one.connect(link)
        await until(lambda: bool(link.addresses()), what="the connection")
        async with link.black_hole():
            made = writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            writer.transport.abort()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ended.wait()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_writes_into_a_black_hole_succeed_until_the_buffers_are_full() -> None:
    """A sender is held up in the end, as it is by a peer that acknowledges nothing."""
    async with net() as one:
        link = one.link()
        _, writer = await one.connect(link)
        async with link.black_hole(direction="to"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    while True:
                        writer.write(bytes(100_000))
                        await writer.drain()
            assert link.traffic().bytes_to == 0
            writer.transport.abort()


async def test_a_fault_may_begin_after_a_time() -> None:
    """Until then everything goes by; then it strikes by itself."""
    async with net() as one:
        link = one.link()
        pair = await one.connect(link)
        async with link.black_hole(after=0.15) as fault:
            await says(*pair)
            assert not fault.acting
            await fault.triggered()
            assert fault.acting
            pair[1].write(b"x")
            assert await silent(pair[0])


async def test_a_fault_that_was_not_triggered_is_taken_back() -> None:
    """Nothing of it remains, no record is made, and it says how far it was."""
    async with net() as one:
        link = one.link()
        pair = await one.connect(link)
        async with link.cut(after_bytes=1000) as fault:
            await says(*pair)
            with pytest.raises(AssertionError, match="990 of 1000 bytes have not gone by yet"):
                await fault.triggered(patience=0.05)
        for _ in range(300):
            await says(*pair)
        assert one.log.since(0) == []


async def test_faults_of_one_link_add_up_and_heal_in_any_order() -> None:
    """Latency and a black hole together, then the latency alone, then nothing."""
    async with net() as one:
        link = one.link()
        pair = await one.connect(link)
        slow, hole = link.latency(0.1, direction="to"), link.black_hole()
        await slow.__aenter__()
        await hole.__aenter__()
        pair[1].write(b"x")
        assert await silent(pair[0], seconds=0.2)
        await hole.__aexit__(None, None, None)
        async with asyncio.timeout(5):
            await pair[0].readexactly(1)
        begin = time.monotonic()
        await says(*pair)
        assert time.monotonic() - begin >= 0.1
        await slow.__aexit__(None, None, None)
        assert not link.suffering


async def test_other_links_are_not_touched() -> None:
    """The fault is one link's: another one to the same server goes on."""
    async with net() as one:
        link, other = one.link("a"), one.link("b")
        await says(*await one.connect(link))
        pair = await one.connect(other)
        async with link.cut():
            await says(*pair)
            await says(*await one.connect(other))
        assert one.recovered == ["client → a"]


@pytest.mark.parametrize("kind", ["latency", "bandwidth", "cut", "black hole"])
@pytest.mark.parametrize("end", ["success", "error", "cancellation"])
async def test_every_fault_heals_however_its_body_ends(kind: str, end: str) -> None:
    """The same link carries everything afterwards, recovery was waited for, the error is kept."""
    async with net() as one:
        link = one.link()
        fault = _fault(link, kind)
        inside = asyncio.Event()

        async def body() -> None:
            async with fault:
                inside.set()
                if end == "error":
                    raise KeyError("of the body")
                if end == "cancellation":
                    await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await inside.wait()
        if end == "cancellation":
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        expected = {"success": type(None), "error": KeyError}.get(end, asyncio.CancelledError)
        assert isinstance(result, expected)
        assert one.recovered == [link.name]
        assert one.open_faults == {}
        assert not link.suffering
        await says(*await one.connect(link))
        (record,) = one.log.since(0)
        assert (record.what, record.target) == (kind, "client → server")
        assert record.end is not None
        assert record.begin <= record.end


async def test_a_recovery_that_does_not_come_is_an_error() -> None:
    """It says what is still wrong; the fault itself is over, and stays on the list."""
    async with net() as one:
        one.recovers = asyncio.Event().wait  # type: ignore[assignment]
        link = one.link()
        fault = link.latency(0.01)
        await fault.__aenter__()
        with pytest.raises(
            NotRecovered,
            match=r"latency of client → server is healed, but 0\.1 s later it is broken for ever",
        ):
            await fault.heal(patience=0.1)
        assert list(one.open_faults) == [fault]
        assert not link.suffering
        one.recovers = None
        await fault.heal()
        assert one.open_faults == {}


async def test_a_failed_recovery_is_a_note_on_the_error_of_the_body() -> None:
    """What went wrong first is what is raised."""

    async def refuse() -> None:
        raise NotRecovered("it", seconds=1, wrong="it is broken for ever")

    async with net() as one:
        one.recovers = refuse
        with pytest.raises(KeyError) as raised:
            async with one.link().latency(0.01):
                raise KeyError("of the body")
        assert raised.value.__notes__ == ["it is healed, but 1 s later it is broken for ever"]


async def test_the_name_of_a_link_that_is_not_there_is_told_with_the_nearest() -> None:
    """A misspelt end is found in the first minute."""
    async with net() as one:
        one.link("worker a")
        with pytest.raises(
            LookupError, match=r"no link client → wroker a: did you mean client → worker a\?"
        ):
            one.links.find("client", "wroker a")
        assert one.links.find("client", "worker a").name == "client → worker a"


async def test_a_link_without_a_proxy_cannot_be_broken() -> None:
    """It says so, with the reason: the check is unknown then, and not passed."""
    async with net() as one:
        link = one.links.open("a", "b", lambda: ("127.0.0.1", 1), kind="redis", direct="it is TLS")
        assert not link.proxied
        assert link.port is None
        assert link.traffic().connections == 0
        with pytest.raises(Unknown, match="a → b cannot be broken: it is TLS"):
            link.cut()


def _fault(link: Link, kind: str):  # type: ignore[no-untyped-def]
    return {
        "latency": lambda: link.latency(0.01),
        "bandwidth": lambda: link.bandwidth(1000),
        "cut": link.cut,
        "black hole": link.black_hole,
    }[kind]()

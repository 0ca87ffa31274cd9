"""TCP proxies: what stands between two processes as the network does, and can fail as it does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import resource
import socket
import struct
import termios
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from ssot.lab.faults.frames import FrameCounter
from ssot.lab.faults.shape import BlackHole, Cut, Injection, Shape, Way
from ssot.lab.services import ServiceError
from ssot.lab.services.ports import pick_port

__all__ = ["Proxies", "Proxy", "Traffic"]

T = TypeVar("T")

_HELD = 1_048_576
"""Bytes of one direction of a connection that are kept; then the sender is read no more."""

_BACKLOG = 1024
_PORTS = 10
_FILES = 65_536
_OPENING = 10.0
_DIALING = 30.0
_POLL = 0.001
_LINGER_0 = struct.pack("ii", 1, 0)

_END = b""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went over a link since it was opened.

    ``connections`` were accepted, ``open`` of them are there now. ``bytes_to`` the far end and
    ``bytes_from`` it were delivered; ``frames_to`` and ``frames_from`` of WebSocket likewise.
    """

    connections: int = 0
    open: int = 0
    bytes_to: int = 0
    bytes_from: int = 0
    frames_to: int = 0
    frames_from: int = 0


class Proxies:
    """Proxies of one lab, in a thread and an event loop of their own.

    A check that blocks its own loop does not slow the network down. All methods may be called from
    any thread; ``seed`` decides all randomness.
    """

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_on_exception)
        self._proxies: list[Proxy] = []
        _allow_files(_FILES)
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def open(
        self,
        name: str,
        target: Callable[[], tuple[str, int]],
        *,
        round_trip: float = 0.0,
        frames: bool = False,
    ) -> Proxy:
        """A proxy on a free port of 127.0.0.1; blocks for as long as that takes, a millisecond.

        ``target`` is asked for host and port at each connection, in the proxies' thread.
        ``round_trip`` is in seconds: what a request and its answer always take together, half of it
        each way. With ``frames``, those of WebSocket connections are counted.
        """
        proxy = Proxy(
            name, target, loop=self._loop, seed=self._seed, base=round_trip / 2, frames=frames
        )
        self._in_thread(proxy.listen()).result(_OPENING)
        self._proxies.append(proxy)
        return proxy

    async def aclose(self) -> None:
        """Close every proxy and its connections. Idempotent."""
        if self._thread.is_alive():
            for proxy in self._proxies:
                await asyncio.wrap_future(self._in_thread(proxy.close()))
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join)
            self._loop.close()

    def _in_thread(self, work: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


class Proxy:
    """One port of 127.0.0.1 that leads somewhere else, and what its two directions suffer."""

    def __init__(
        self,
        name: str,
        target: Callable[[], tuple[str, int]],
        *,
        loop: asyncio.AbstractEventLoop,
        seed: int,
        base: float,
        frames: bool,
    ) -> None:
        self.name = name
        self.port = 0
        self.shapes: dict[Way, Shape] = {
            way: Shape(base=base, seed=f"{seed} {name} {way}") for way in ("to", "from")
        }
        self.bytes: dict[Way, int] = {"to": 0, "from": 0}
        self.frames: dict[Way, int] = {"to": 0, "from": 0}
        self.counts_frames = frames
        self.loop = loop
        self._target = target
        self._accepted = 0
        self._server: asyncio.Server | None = None
        self._reserve: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._ended = asyncio.Event()
        self._injections: dict[Injection, _State] = {}

    def __repr__(self) -> str:
        return f"<proxy {self.name} on port {self.port}: {self.shapes}>"

    # From any thread

    def traffic(self) -> Traffic:
        """What went through so far."""
        return Traffic(
            connections=self._accepted,
            open=len(self._connections),
            bytes_to=self.bytes["to"],
            bytes_from=self.bytes["from"],
            frames_to=self.frames["to"],
            frames_from=self.frames["from"],
        )

    async def inject(self, injection: Injection, on_struck: Callable[[], None]) -> None:
        """Make a fault, now or at its trigger; ``on_struck`` is called when it acts, in the thread.

        Returns when an effect without a trigger acts.
        """
        await self._call(lambda: self._inject(injection, on_struck))

    async def heal(self, injection: Injection) -> None:
        """End it, or take it back when it was not triggered. Idempotent.

        What a black hole or a narrow bandwidth held back goes on; a refusing port listens again.
        """
        await self._call(lambda: self._heal(injection))

    @property
    def suffering(self) -> bool:
        """Whether a fault acts now."""
        return any(state.struck for state in list(self._injections.values()))

    def addresses(self) -> set[tuple[str, int]]:
        """Host and port of this side of each connection to the far end, as that end sees it."""
        found = (c.far.address() for c in list(self._connections))
        return {address for address in found if address is not None}

    async def _call(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self.loop))

    # In the thread of the proxies

    async def listen(self) -> None:
        """Listen: on a port that nobody else is given while it refuses connections."""
        for _ in range(_PORTS):
            reserve = socket.socket()
            try:
                # Bound and never listening: it keeps the port while the real listener is closed.
                reserve.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                reserve.bind(("127.0.0.1", self.port or pick_port()))
                self.port = reserve.getsockname()[1]
                await self._serve()
            except OSError as error:
                reserve.close()
                self.port = 0
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            self._reserve = reserve
            return
        raise ServiceError(f"the proxy {self.name} found each of {_PORTS} ports taken")

    async def close(self) -> None:
        """Stop listening and end every connection."""
        for injection in list(self._injections):
            await self._heal(injection)
        self._stop_listening()
        if self._reserve is not None:
            self._reserve.close()
        await _finish_tasks()
        for connection in list(self._connections):
            connection.reset()
        while self._connections:
            self._ended.clear()
            await self._ended.wait()

    def accepted(self, connection: _Connection) -> None:
        """A connection has come in."""
        self._accepted += 1
        self._connections.add(connection)
        if self._is_dark():
            connection.waiting = True
        else:
            connection.dial()

    def ended(self, connection: _Connection) -> None:
        """Both sockets of a connection are closed."""
        self._connections.discard(connection)
        self._ended.set()

    def target(self) -> tuple[str, int]:
        """Where connections lead."""
        return self._target()

    def strike(self, injection: Injection) -> None:
        """The effect begins."""
        state = self._injections[injection]
        if state.acting:
            return
        state.acting = True
        for way in injection.ways:
            self.shapes[way].remove(injection)
        if not isinstance(injection.effect, Cut):
            for way in injection.ways:
                self.shapes[way].add(injection)
            state.strike()
            return
        # Nothing goes by until the connections are gone.
        for shape in self.shapes.values():
            shape.add(injection)
        if injection.after_bytes is None or self._is_flushed(injection):
            self._cut(injection)
        else:
            state.task = self.loop.create_task(self._cut_when_flushed(injection))

    async def _serve(self) -> None:
        self._server = await self.loop.create_server(
            lambda: _Connection(self).near,
            "127.0.0.1",
            self.port,
            backlog=_BACKLOG,
            reuse_address=True,
            reuse_port=True,
        )

    def _stop_listening(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()

    def _is_dark(self) -> bool:
        """Whether the handshake of a new connection would not come through."""
        return any(
            state.acting and isinstance(injection.effect, BlackHole)
            for injection, state in self._injections.items()
        )

    async def _inject(self, injection: Injection, on_struck: Callable[[], None]) -> None:
        state = self._injections[injection] = _State(on_struck)
        if injection.after is not None:
            state.timer = self.loop.call_later(injection.after, self.strike, injection)
        elif injection.left:
            for way in injection.ways:
                self.shapes[way].count(injection)
        else:
            self.strike(injection)

    async def _heal(self, injection: Injection) -> None:
        state = self._injections.pop(injection, None)
        if state is None:
            return
        if state.timer is not None:
            state.timer.cancel()
        if state.task is not None:
            state.task.cancel()
            await asyncio.gather(state.task, return_exceptions=True)
        for shape in self.shapes.values():
            shape.remove(injection)
        if self._server is None and not self._refuses():
            await self._serve()
        dark = self._is_dark()
        for connection in list(self._connections):
            if connection.waiting and not dark:
                connection.dial()
            connection.hasten()

    def _refuses(self) -> bool:
        return any(
            state.struck and isinstance(injection.effect, Cut) and injection.effect.refuse
            for injection, state in self._injections.items()
        )

    def _is_flushed(self, injection: Injection) -> bool:
        """Whether all that went by in the directions that were counted was received."""
        return all(
            (connection.far if way == "to" else connection.near).flushed()
            for connection in self._connections
            for way in injection.ways
        )

    async def _cut_when_flushed(self, injection: Injection) -> None:
        # A reset destroys what is still on its way: the bytes up to the trigger must be there.
        while not self._is_flushed(injection):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(_POLL)
        self._cut(injection)

    def _cut(self, injection: Injection) -> None:
        assert isinstance(injection.effect, Cut)
        if injection.effect.refuse:
            self._stop_listening()
        for connection in list(self._connections):
            connection.reset()
        for shape in self.shapes.values():
            shape.remove(injection)
        self._injections[injection].strike()


class _State:
    """How far an injection has come: ``acting`` from its trigger on, ``struck`` when it is felt."""

    __slots__ = ("_on_struck", "acting", "struck", "task", "timer")

    def __init__(self, on_struck: Callable[[], None]) -> None:
        self.acting = False
        self.struck = False
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self._on_struck = on_struck

    def strike(self) -> None:
        self.struck = True
        self._on_struck()


class _Connection:
    """A connection through a proxy: the socket to its client, and the one to its server."""

    __slots__ = ("_dialing", "_gone", "_over", "far", "near", "proxy", "waiting")

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        # Not connected to the server, because the link is dark.
        self.waiting = False
        self.near = _End(self, "to")
        self.far = _End(self, "from")
        self.near.other, self.far.other = self.far, self.near
        self._dialing: asyncio.Task[None] | None = None
        self._over = self._gone = False

    def dial(self) -> None:
        """Connect to the server."""
        self.waiting = False
        self._dialing = self.proxy.loop.create_task(self._dial())

    def reset(self) -> None:
        """End both sides with an RST; a server that is just being connected to gets it then."""
        self._over = True
        for end in (self.near, self.far):
            end.reset()
        self.settle()

    def hasten(self) -> None:
        """Go on with what was held back, as the link is now."""
        for end in (self.near, self.far):
            end.hasten()

    def give_up(self) -> None:
        """The client has hung up on a dark link: its server never hears of it."""
        self.waiting = False
        if self.near.transport is not None:
            self.near.transport.abort()

    def settle(self) -> None:
        """Tell the proxy once both sockets are closed and none is coming."""
        dialing = self._dialing is not None and not self._dialing.done()
        if not self._gone and self.near.lost and (self.far.lost or self.far.transport is None):
            if dialing:
                # Whoever comes late closes it.
                assert self._dialing is not None
                self._dialing.add_done_callback(lambda _: self.settle())
                return
            self._gone = True
            self.proxy.ended(self)

    async def _dial(self) -> None:
        try:
            host, port = self.proxy.target()
            async with asyncio.timeout(_DIALING):
                await self.proxy.loop.create_connection(lambda: self.far, host, port)
        except OSError:
            # The server is down: the client sees its connection end, as it would see a reset.
            self.near.reset()
        except asyncio.CancelledError:
            self.near.reset()
            self.far.reset()
            raise
        else:
            if self._over:
                self.far.reset()


class _End(asyncio.Protocol):
    """One socket of a connection. What it receives is written to the other one.

    Nothing is waited for and no task is made on the way; a piece that must wait is queued here,
    with the time when it came and by how much it is late.
    """

    __slots__ = (
        "_clock", "_connection", "_counter", "_queue", "_queued", "_shape", "_timer", "_way",
        "ended", "full", "heard_all", "lost", "other", "transport",
    )  # fmt: skip

    other: _End

    def __init__(self, connection: _Connection, way: Way) -> None:
        proxy = connection.proxy
        self.transport: asyncio.Transport | None = None
        self.lost = False
        # The peer has said all; and that was passed on.
        self.ended = self.heard_all = False
        self._connection = connection
        self._way: Way = way
        self._shape = proxy.shapes[way]
        self._clock = proxy.loop.time
        self._counter = FrameCounter() if proxy.counts_frames else None
        self._queue: deque[_Piece] = deque()
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        # This socket takes no more at the moment.
        self.full = False

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self is self._connection.near:
            self._connection.proxy.accepted(self._connection)
        else:
            self.other.pump()

    def data_received(self, data: bytes) -> None:
        """Bytes from the socket."""
        to = self.other.transport
        if self._shape.clear and not self._queue and to is not None and not to.is_closing():
            # Counted first: whoever has received it finds it in the count.
            self._count(data)
            to.write(data)
            return
        if self.other.lost:
            return
        self._queue.append(_Piece(self._clock(), self._shape.delay(), memoryview(data)))
        self._queued += len(data)
        if self._queued > _HELD:
            self.listen(False)
        self.pump()

    def eof_received(self) -> bool:
        """The peer has said all; it may still be listening."""
        self.ended = True
        if self._connection.waiting:
            self._connection.give_up()
            return True
        self._queue.append(_Piece(self._clock(), self._shape.delay(), _END))
        self.pump()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed: by us (no ``error``), or by a reset of the peer."""
        self.lost = True
        # What was on its way to this socket has nowhere to go.
        self.other.drop()
        if error is not None and not self.other.lost and not self._connection.waiting:
            self._queue.append(_Piece(self._clock(), self._shape.delay(), None))
            self.pump()
        self._connection.settle()

    def pause_writing(self) -> None:
        """The socket takes no more: its sender is not listened to meanwhile."""
        self.full = True
        self.other.listen(False)

    def resume_writing(self) -> None:
        """The socket takes more."""
        self.full = False
        self.other.pump()
        self.other.listen_again()

    # What the connection and the proxy call

    def pump(self) -> None:
        """Deliver what is due; the rest is looked at again when it may be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        shape, to, queue = self._shape, self.other, self._queue
        while queue:
            if to.transport is None or to.transport.is_closing() or to.full or shape.held:
                return
            piece = queue[0]
            now = self._clock()
            due = max(piece.arrived + piece.delay, shape.free_at)
            if due > now:
                self._timer = self._connection.proxy.loop.call_at(due, self.pump)
                return
            if not piece.data:
                queue.popleft()
                if piece.data is None:
                    self._connection.reset()
                    return
                self._pass_end()
                continue
            size = shape.allowance(len(piece.data))
            data = piece.data[:size]
            piece.data = piece.data[size:]
            if not piece.data:
                queue.popleft()
            self._queued -= size
            shape.spend(size, now)
            self._count(data)
            to.transport.write(data)
            for injection in shape.passed(size):
                self._connection.proxy.strike(injection)
        self.listen_again()

    def hasten(self) -> None:
        """The link has healed of something: nothing waits longer than it would have to now."""
        longest = self._shape.longest()
        for piece in self._queue:
            piece.delay = min(piece.delay, longest)
        self.pump()

    def drop(self) -> None:
        """Forget what was to be delivered: there is nobody to take it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue.clear()
        self._queued = 0

    def reset(self) -> None:
        """Close the socket with an RST."""
        self.drop()
        if self.transport is not None and not self.lost:
            with contextlib.suppress(OSError):
                made = self.transport.get_extra_info("socket")
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self.transport.abort()

    def flushed(self) -> bool:
        """Whether the peer's machine has acknowledged all that was written."""
        if self.transport is None or self.lost or self.transport.is_closing():
            return True
        if self.transport.get_write_buffer_size():
            return False
        made = self.transport.get_extra_info("socket")
        (waiting,) = struct.unpack("i", fcntl.ioctl(made.fileno(), termios.TIOCOUTQ, bytes(4)))
        return bool(waiting == 0)

    def address(self) -> tuple[str, int] | None:
        """Host and port of our side of the socket."""
        transport = self.transport
        if transport is None or self.lost:
            return None
        name = transport.get_extra_info("sockname")
        return (str(name[0]), int(name[1]))

    def listen(self, on: bool) -> None:
        """Read from the socket, or let its sender wait."""
        if self.transport is None or self.lost or self.ended:
            return
        if on:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def listen_again(self) -> None:
        """Read from the socket, if there is room for it."""
        if self._queued <= _HELD // 2 and not self.other.full:
            self.listen(True)

    def _count(self, data: bytes | memoryview) -> None:
        proxy = self._connection.proxy
        proxy.bytes[self._way] += len(data)
        if self._counter is not None:
            before = self._counter.frames
            self._counter.feed(data)
            proxy.frames[self._way] += self._counter.frames - before

    def _pass_end(self) -> None:
        assert self.other.transport is not None
        self.heard_all = True
        # The peer may have reset the connection, and the loop may not have heard of it yet.
        with contextlib.suppress(OSError):
            self.other.transport.write_eof()
        if self.other.heard_all:
            for end in (self, self.other):
                if end.transport is not None:
                    end.transport.close()


class _Piece:
    """Bytes that wait, or the end of them (empty), or a reset (``None``)."""

    __slots__ = ("arrived", "data", "delay")

    def __init__(self, arrived: float, delay: float, data: bytes | memoryview | None) -> None:
        self.arrived = arrived
        self.delay = delay
        self.data = data


async def _finish_tasks() -> None:
    """End the tasks of this loop: connections that are being accepted, or made."""
    own = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not own]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A peer that is gone is what a proxy is about, and no news."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)


def _allow_files(count: int) -> None:
    """Each connection takes two descriptors; the usual limit of 1024 is reached by 300 users."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

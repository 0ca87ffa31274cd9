"""What a check left behind, told by whom it belongs to."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from opentelemetry import trace

from ssot.lab.counters import Reading

__all__ = ["LeakGuard", "Mark"]

_SETTLING = 2.0
_POLL = 0.02
# Threads of pools stay when their work is done; the lab's own serve whoever connects.
_STAYING = ("asyncio_", "ThreadPoolExecutor", "span collector", "proxies")
# Tasks of the kernel itself, which come and go with its messages.
_KERNELS = ("ipykernel", "jupyter", "tornado", "zmq", "IPython")


@dataclass(frozen=True, slots=True)
class Mark:
    """What was there when a check began."""

    threads: frozenset[threading.Thread]
    tasks: frozenset[asyncio.Task[object]]
    children: frozenset[int]
    sockets: frozenset[tuple[int, int]]
    files: frozenset[str]
    environment: dict[str, str]
    span: int
    reading: Reading


class LeakGuard:
    """Compares what the kernel owns after a check with what it owned before.

    ``temporary`` is the folder in which everything of the lab makes its temporary files;
    ``own_ports`` are those where the lab listens, and those that its links lead to;
    ``own_children`` are its processes; ``read`` reads the servers.
    """

    def __init__(
        self,
        *,
        temporary: Path,
        own_ports: Callable[[], tuple[set[int], set[int]]],
        own_children: Callable[[], Iterable[int]],
        read: Callable[[], Awaitable[Reading]],
        settle: float = _SETTLING,
    ) -> None:
        self._temporary = temporary
        self._own_ports = own_ports
        self._own_children = own_children
        self._read = read
        self._settle = settle

    async def mark(self, reading: Reading) -> Mark:
        """What is there now; ``reading`` is the servers' account of the same moment."""
        return Mark(
            threads=frozenset(threading.enumerate()),
            tasks=frozenset(asyncio.all_tasks()),
            children=frozenset(_children()),
            sockets=frozenset(self._sockets()),
            files=frozenset(self._files()),
            environment=dict(os.environ),
            span=id(trace.get_current_span()),
            reading=reading,
        )

    async def left(self, mark: Mark) -> list[str]:
        """What is there now and was not at ``mark``, each with its kind; nothing is a good check.

        What is about to go is waited for, ``settle`` seconds at most.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settle
        collected = False
        while True:
            found = self._found(mark) or _sessions(mark.reading, await self._read())
            if found and not collected:
                # Transports that nobody holds any more are closed when they are collected.
                collected = gc.collect() >= 0
            if not found:
                return found
            if loop.time() >= until:
                # A session is a connection to a port as well, of which that alone says little.
                more = _sessions(mark.reading, await self._read())
                return [*found, *(each for each in more if each not in found)]
            await asyncio.sleep(_POLL)

    def _found(self, mark: Mark) -> list[str]:
        found = [
            f"thread {thread.name}"
            for thread in threading.enumerate()
            if thread not in mark.threads and not thread.name.startswith(_STAYING)
        ]
        found += [
            f"task {task.get_name()} in {_where(task)}"
            for task in asyncio.all_tasks()
            if task not in mark.tasks
            and task is not asyncio.current_task()
            and not _where(task).startswith(_KERNELS)
        ]
        own = set(self._own_children())
        found += [
            f"process {name}"
            for pid, name in _children().items()
            if pid not in mark.children and pid not in own
        ]
        found += [
            f"connection to port {port}" for _, port in sorted(self._sockets() - mark.sockets)
        ]
        found += [f"temporary file {name}" for name in sorted(self._files() - mark.files)]
        names = {*mark.environment, *os.environ}
        found += [
            f"os.environ[{name!r}] changed"
            for name in sorted(names)
            if mark.environment.get(name) != os.environ.get(name)
        ]
        if id(trace.get_current_span()) != mark.span:
            found.append("a span that was entered and never left")
        return found

    def _sockets(self) -> set[tuple[int, int]]:
        """Local and remote port of every connection of this process that is not the lab's own."""
        listening, behind = self._own_ports()
        return {
            (each.laddr.port, each.raddr.port)
            for each in psutil.Process().net_connections(kind="inet")
            if each.raddr and each.laddr.port not in listening and each.raddr.port not in behind
        }

    def _files(self) -> set[str]:
        if not self._temporary.is_dir():
            return set()
        return {str(path.relative_to(self._temporary)) for path in self._temporary.rglob("*")}


def _sessions(before: Reading, after: Reading) -> list[str]:
    """Connections to the servers that the kernel did not have, and transactions left open."""
    more = Counter(_of_checks(after)) - Counter(_of_checks(before))
    found = [f"{count} connection(s) to {name}" for name, count in sorted(more.items())]
    found += [
        f"{count} transaction(s) of {name} open and idle"
        for name, count in sorted(after.open_transactions.items())
        if count > before.open_transactions.get(name, 0)
    ]
    return found


def _of_checks(reading: Reading) -> dict[str, int]:
    """Connections that are neither a process's nor the lab's: those keep pools of their own."""
    own = ("ssot-auth", "ssot-node", "ssot-worker", "ssot-migrate", "ssot-lab")
    return {
        name: count
        for name, count in reading.sessions.items()
        if not name.partition(" ")[2].startswith(own)
    }


def _children() -> dict[int, str]:
    """Direct children: what those start is theirs, like the backends of a PostgreSQL."""
    found = {}
    for child in psutil.Process().children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found[child.pid] = child.name()
        except psutil.NoSuchProcess:
            continue
    return found


def _where(task: asyncio.Task[object]) -> str:
    """The function that a task runs, with its module."""
    coroutine = task.get_coro()
    frame = getattr(coroutine, "cr_frame", None)
    module = frame.f_globals.get("__name__", "") if frame is not None else ""
    return f"{module}.{getattr(coroutine, '__qualname__', '?')}"

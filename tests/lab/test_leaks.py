"""What a check left behind is told by its kind; what is about to go is waited for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from opentelemetry import context, trace

from ssot.lab.counters import Reading
from ssot.lab.leaks import LeakGuard


async def nothing() -> Reading:
    return Reading()


def guard(
    folder: Path, read: Callable[[], Awaitable[Reading]] = nothing, settle: float = 0.3
) -> LeakGuard:
    return LeakGuard(
        temporary=folder,
        own_ports=lambda: (set(), set()),
        own_children=list,
        read=read,
        settle=settle,
    )


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def a_thread(stack: AsyncExitStack, _: Path) -> str:
    end = threading.Event()
    threading.Thread(target=end.wait, name="left over").start()
    stack.callback(end.set)
    return "thread left over"


async def a_task(stack: AsyncExitStack, _: Path) -> str:
    task = asyncio.create_task(asyncio.Event().wait(), name="waits for ever")
    stack.callback(task.cancel)
    return "task waits for ever in asyncio.locks.Event.wait"


async def a_process(stack: AsyncExitStack, _: Path) -> str:
    command = [sys.executable, "-c", "input()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: ASYNC220
    stack.callback(process.wait)
    assert process.stdin is not None
    stack.callback(process.stdin.close)
    return "process "


async def a_socket(stack: AsyncExitStack, _: Path) -> str:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stack.callback(writer.close)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stack.callback(server.close)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    stack.callback(writer.close)
    return "connection to port "


async def a_file(_: AsyncExitStack, folder: Path) -> str:
    (folder / "scratch").write_text("x")
    return "temporary file scratch"


async def a_variable(stack: AsyncExitStack, _: Path) -> str:
    os.environ["SSOT_LEFT"] = "over"
    stack.callback(os.environ.pop, "SSOT_LEFT")
    return "os.environ['SSOT_LEFT'] changed"


async def a_span(stack: AsyncExitStack, _: Path) -> str:
    span = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=False))
    token = context.attach(trace.set_span_in_context(span))
    stack.callback(context.detach, token)
    return "a span that was entered and never left"


@pytest.mark.parametrize(
    "leave", [a_thread, a_task, a_process, a_socket, a_file, a_variable, a_span]
)
async def test_what_is_left_is_named(
    leave: Callable[[AsyncExitStack, Path], Awaitable[str]],
    stack: AsyncExitStack,
    tmp_path: Path,
):
    """Each kind of thing, by its kind and name, and nothing else with it."""
    leaks = guard(tmp_path)
    mark = await leaks.mark(Reading())
    said = await leave(stack, tmp_path)
    found = await leaks.left(mark)
    assert found
    assert all(each.startswith(said) for each in found), found


async def test_nothing_left_is_nothing_said(tmp_path: Path):
    """Also when there were threads, tasks and files before."""
    (tmp_path / "before").write_text("x")
    leaks = guard(tmp_path)
    assert await leaks.left(await leaks.mark(Reading())) == []


async def test_what_ends_by_itself_is_waited_for(tmp_path: Path):
    """A task that is done a moment later was not left behind."""
    leaks = guard(tmp_path, settle=30)
    mark = await leaks.mark(Reading())
    later = asyncio.create_task(asyncio.sleep(0.05))
    assert await leaks.left(mark) == []
    assert later.done()


async def test_sessions_on_a_server_are_counted_by_who_opened_them(tmp_path: Path):
    """A stranger's connection is a leak, a process's own pool is not; an open transaction is."""
    before = Reading(sessions={"postgresql ssot-worker": 1})
    after = Reading(
        sessions={"postgresql ssot-worker": 4, "postgresql stranger": 2},
        open_transactions={"ssot-worker": 1},
    )

    async def read() -> Reading:
        return after

    leaks = guard(tmp_path, read)
    assert await leaks.left(await leaks.mark(before)) == [
        "2 connection(s) to postgresql stranger",
        "1 transaction(s) of ssot-worker open and idle",
    ]


async def test_a_session_is_named_beside_its_connection(tmp_path: Path, stack: AsyncExitStack):
    """A port alone does not say that a transaction was left open."""
    opened = Reading(sessions={"postgresql x": 1}, open_transactions={"x": 1})
    readings = [Reading()]

    async def read() -> Reading:
        return readings[-1]

    leaks = guard(tmp_path, read)
    mark = await leaks.mark(readings[-1])
    port = await a_socket(stack, tmp_path)
    readings.append(opened)
    found = await leaks.left(mark)
    assert any(each.startswith(port) for each in found)
    assert found[-2:] == ["1 connection(s) to postgresql x", "1 transaction(s) of x open and idle"]

"""Clean up after a workspace's owner, however it ended: a script of its own, run by file path.

It reads JSON lines from its standard input, which the owner holds open: first ``root`` (the
directory of the workspace), ``owner`` (its pid) and ``path`` (where packages are found), then the
steps of :meth:`ssot.lab.services.workspace.Workspace.at_end`. When the owner says ``end``, closes
the pipe or is gone, every process of the workspace is killed, the directory is removed and the
steps are run. What could not be done is written to standard output as a JSON list.

A process is the workspace's own when it carries the mark ``SSOT_WORKSPACE=<root>`` in its
environment, or, for one that has overwritten its environment, when its command line or its working
directory is inside the root and it has no terminal (who looks at a log from a shell is spared); and
whatever descends from one. Never by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

__all__ = ["main"]

_KILLING = 3.0
_REMOVING = 3.0
_STEPPING = 20.0
_RETRYING = 3.0
_PAUSE = 0.01


def main() -> None:
    """Wait for the owner's end, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    orders = _listen()
    if not orders or "root" not in orders[0] or orders[-1].get("abandon"):
        return
    hello, steps = orders[0], orders[1:]
    root: str = hello["root"]
    # Run with -I, this interpreter may not see the owner's packages. Last, so that nothing in the
    # owner's folders shadows the standard library.
    sys.path.extend(entry for entry in hello["path"] if entry not in sys.path)

    problems: list[str] = []
    # An owner that lives is our parent: it may have taken the mark into its own environment.
    spared = {os.getpid()} | ({hello["owner"]} if os.getppid() == hello["owner"] else set())
    problems += _attempt("kill the processes", partial(_kill, root, spared))
    memory = [step["release_memory"] for step in steps if "release_memory" in step]
    for pid_file in memory:
        problems += _attempt("release shared memory", partial(_release, pid_file))
    problems += _attempt(f"remove {root}", partial(_remove, root))
    for step in steps:
        if "remove" in step:
            path = step["remove"]
            problems += _attempt(f"remove {path}", partial(_remove, path))
        elif "drop_database" in step:
            url, name = step["drop_database"], step["database"]
            problems += _attempt(f"drop database {name}", partial(_drop_database, url, name), url)
        elif "delete_keys" in step:
            url, prefix = step["delete_keys"], step["prefix"]
            problems += _attempt(
                f"delete the keys {prefix}*",
                partial(_delete_keys, url, prefix),
                url,
            )
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(problems).encode() + b"\n")


def _listen() -> list[dict[str, Any]]:
    """Everything that the owner ordered, returned at its end.

    A child that the owner was just forking holds the pipe until it runs its program, so that at the
    end of the file every process can be told by its own environment.
    """
    orders: list[dict[str, Any]] = []
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.25)
        if readable:
            chunk = os.read(0, 65536)
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    orders.append(json.loads(line))
            if not chunk or (orders and orders[-1].keys() & {"end", "abandon"}):
                return orders
        elif orders and os.getppid() != orders[0]["owner"]:
            # A child that the owner forked still holds the pipe.
            return orders


def _attempt(what: str, step: Callable[[], None], url: str = "") -> list[str]:
    """Run ``step``; the problem in one line, without the URL it used, or nothing."""
    try:
        step()
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        if url:
            text = text.replace(url, "the server")
        return [f"could not {what}: {type(error).__name__} {text}".rstrip()]
    return []


# Processes


def _kill(root: str, spared: set[int]) -> None:
    """Kill until nothing of the workspace is found."""
    import psutil

    deadline = time.monotonic() + _KILLING
    while processes := _owned(root, spared):
        # Parents first, so that none sees its child die and starts another. SIGKILL also ends a
        # stopped process.
        for process in sorted(processes, key=_age):
            with _vanished():
                try:
                    process.kill()
                except psutil.AccessDenied:
                    spared.add(process.pid)
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in processes)
            raise TimeoutError(f"still there after {_KILLING:g} s: {pids}")
        time.sleep(_PAUSE)


def _age(process: psutil.Process) -> float:
    with _vanished():
        return process.create_time()
    return 0.0


def _owned(root: str, spared: set[int]) -> list[psutil.Process]:
    """The living processes of the workspace, each with all that descend from it."""
    import psutil

    children: dict[int, list[psutil.Process]] = {}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        with _vanished():
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment: dict[str, str] = {}
            with _vanished():
                environment = process.environ()
            if "SSOT_WATCHDOG" in environment:
                # Another workspace's, opened by one of our processes: it ends with its owner, and
                # must live until it has cleaned up.
                continue
            children.setdefault(process.ppid(), []).append(process)
            if environment.get("SSOT_WORKSPACE") == root or _inside(process, root):
                found[process.pid] = process
    pending = list(found)
    while pending:
        for child in children.get(pending.pop(), ()):
            if child.pid not in found:
                found[child.pid] = child
                pending.append(child.pid)
    return list(found.values())


def _inside(process: psutil.Process, root: str) -> bool:
    """Whether its command line or working directory says so, and nobody sits before it."""
    with _vanished():
        named = any(root in argument for argument in process.cmdline())
        if not named:
            directory = process.cwd()
            named = directory == root or directory.startswith(root + os.sep)
        return named and process.terminal() is None
    return False


@contextlib.contextmanager
def _vanished() -> Iterator[None]:
    """A process may end, or be somebody else's, at any moment of looking at it."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        yield


def _release(pid_file: str) -> None:
    """Remove the System V segment that a killed PostgreSQL leaves; a kernel has few of them."""
    try:
        with open(pid_file, encoding="utf-8") as lines:
            key, identifier = (int(word) for word in lines.read().splitlines()[6].split())
    except (OSError, IndexError, ValueError):
        return  # it never started, or ended in order
    if sys.platform == "linux":
        with open("/proc/sysvipc/shm", encoding="utf-8") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        # The row must be this very segment, and nobody attached.
        if not any(row[:2] == [str(key), str(identifier)] and row[6] == "0" for row in rows):
            return
    ctypes.CDLL(None).shmctl(identifier, 0, None)


# Files


def _remove(path: str) -> None:
    """Remove a file or a directory, while files may still appear in it; links are not followed."""
    deadline = time.monotonic() + _REMOVING
    while os.path.lexists(path):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, onerror=_open_up)
        else:
            os.unlink(path)
        if time.monotonic() > deadline:
            raise TimeoutError(f"still there after {_REMOVING:g} s")
        time.sleep(0 if not os.path.lexists(path) else _PAUSE)


def _open_up(_function: object, path: str, _error: object) -> None:
    """Give ourselves the right that was missing; the next round removes it."""
    for place in (os.path.dirname(path), path):
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(place).st_mode):
                os.chmod(place, 0o700)


# What lies on servers that were there before


def _drop_database(url: str, database: str) -> None:
    asyncio.run(_until(partial(_drop, url, database)))


async def _until(step: Callable[[], Awaitable[None]]) -> None:
    """Try ``step`` again for a while; then its last error. A try that works may take longer."""
    last_try = time.monotonic() + _RETRYING
    while True:
        try:
            async with asyncio.timeout(_STEPPING):
                await step()
            return
        except Exception as error:
            if isinstance(error, ValueError) or time.monotonic() > last_try:
                raise
        await asyncio.sleep(0.2)


async def _drop(url: str, database: str) -> None:
    """Drop ``database`` with its connections, then the roles named ``<database>_…``."""
    import asyncpg

    connection = await asyncpg.connect(url, timeout=5)
    try:
        if database == await connection.fetchval("select current_database()"):
            raise ValueError("this is the database of the administrator")
        roles = [
            row["rolname"]
            for row in await connection.fetch(
                "select rolname from pg_roles where starts_with(rolname, $1 || '_')", database
            )
        ]
        if not await connection.fetchval(
            "select rolsuper from pg_roles where rolname = current_user"
        ):
            # Without being one of them, this user may neither end their connections nor drop what
            # they own.
            for role in roles:
                with contextlib.suppress(asyncpg.PostgresError):
                    await connection.execute(f"GRANT {_quoted(role)} TO CURRENT_USER")
        await connection.execute(f"DROP DATABASE IF EXISTS {_quoted(database)} WITH (FORCE)")
        for role in roles:
            try:
                await connection.execute(f"DROP ROLE IF EXISTS {_quoted(role)}")
            except asyncpg.DependentObjectsStillExistError:
                await connection.execute(f"DROP OWNED BY {_quoted(role)} CASCADE")
                await connection.execute(f"DROP ROLE IF EXISTS {_quoted(role)}")
    finally:
        await connection.close(timeout=5)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _delete_keys(url: str, prefix: str) -> None:
    asyncio.run(_until(partial(_unlink, url, prefix)))


async def _unlink(url: str, prefix: str) -> None:
    """Unlink the keys that start with ``prefix``, and only those."""
    import redis.asyncio

    if not prefix:
        raise ValueError("an empty prefix would mean every key")
    pattern = "".join("\\" + sign if sign in "\\*?[]^" else sign for sign in prefix) + "*"
    client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=10)
    try:
        batch: list[bytes] = []
        async for key in client.scan_iter(match=pattern, count=1000):
            name = key if isinstance(key, bytes) else str(key).encode()
            if name.startswith(prefix.encode()):
                batch.append(name)
            if len(batch) >= 500:
                await client.unlink(*batch)
                batch.clear()
        if batch:
            await client.unlink(*batch)
    finally:
        await client.aclose()


if __name__ == "__main__":
    main()

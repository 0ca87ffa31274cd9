"""What a server can do to its own sessions: end them, or let them wait."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Literal
from urllib.parse import unquote, urlsplit

import asyncpg
import redis.asyncio
import redis.exceptions

from ssot.lab.checks import Unknown
from ssot.lab.faults.fault import Fault, until
from ssot.lab.faults.log import FaultLog
from ssot.lab.services import ServiceError

__all__ = ["RedisPaused", "kill_clients", "terminate_backends"]

_GONE = 5.0
# The pause ends by itself if whoever made it cannot end it any more.
_LONGEST_PAUSE = 60_000

_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND ($2::text IS NULL AND application_name NOT LIKE 'ssot-lab%' OR application_name = $2)
"""
_TERMINATE = "SELECT pg_terminate_backend(p) FROM unnest($1::int[]) p"


async def terminate_backends(admin_url: str, database: str, application_name: str | None) -> int:
    """End the sessions of this application, or of all but the lab; returns how many were there.

    Returns when they are gone. :class:`Unknown` when the administrator may not.
    """
    connection = await asyncpg.connect(admin_url, timeout=_GONE)
    try:
        found = await connection.fetch(_BACKENDS, database, application_name)
        pids = [row["pid"] for row in found]
        try:
            await connection.execute(_TERMINATE, pids)
        except asyncpg.InsufficientPrivilegeError as error:
            raise Unknown(f"PostgreSQL's administrator may not end sessions: {error}") from None

        async def probe() -> str:
            left = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1::int[])"
            count = await connection.fetchval(left, pids)
            return f"{count} sessions of PostgreSQL are still there" if count else ""

        await _gone(probe)
        return len(pids)
    finally:
        connection.terminate()


async def kill_clients(
    url: str,
    *,
    name: str | None,
    kind: Literal["normal", "pubsub"] | None,
    addresses: Collection[tuple[str, int]] | None,
) -> int:
    """End the connections of this client name and kind; returns how many there were.

    ``addresses`` limits it to connections from there. Returns when they are gone.
    """
    client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    try:
        own = await client.client_id()

        async def matching() -> list[dict[str, str]]:
            found: list[dict[str, str]] = await client.client_list(_type=kind)
            return [
                one
                for one in found
                if int(one["id"]) != own
                and (name is None or one["name"] == name)
                and (addresses is None or _address(one["addr"]) in addresses)
            ]

        ids = {one["id"] for one in await matching()}
        for each in ids:
            # One that has gone by itself meanwhile is as good.
            with contextlib.suppress(redis.exceptions.ResponseError):
                await client.client_kill_filter(_id=each)

        async def probe() -> str:
            left = ids & {one["id"] for one in await matching()}
            return f"{len(left)} connections of Redis are still there" if left else ""

        await _gone(probe)
        return len(ids)
    finally:
        await client.aclose()


class RedisPaused(Fault):
    """Redis takes commands and answers none of them (``ALL``), or none that writes (``WRITE``)."""

    def __init__(
        self,
        url: str,
        mode: Literal["ALL", "WRITE"],
        *,
        log: FaultLog,
        open_faults: dict[Fault, None],
        recovered: Callable[[str, Callable[[str], None]], Awaitable[None]],
    ) -> None:
        if mode not in ("ALL", "WRITE"):
            raise ValueError(f"a pause is of ALL or WRITE, not {mode!r}")
        super().__init__("paused", "redis", log=log, open_faults=open_faults)
        self._parts = urlsplit(url)
        self._mode = mode
        self._recovered = recovered
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def stops_all(self) -> bool:
        """Whether not even a read is answered."""
        return self._mode == "ALL"

    async def _make(self) -> None:
        host, port = self._parts.hostname or "127.0.0.1", self._parts.port or 6379
        self._streams = await asyncio.open_connection(host, port)
        if self._parts.password:
            await self._say("AUTH", *self._login())
        if self.stops_all:
            # A pause stops whoever would end it, but not replicas; a monitor counts as one.
            await self._say("MONITOR")
        await self._say("CLIENT", "PAUSE", str(_LONGEST_PAUSE), self._mode)
        self._begun(self._mode)
        self._listening = asyncio.create_task(self._listen(), name="connection to a paused Redis")

    async def _undo(self) -> None:
        if self._streams is None:
            return
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        _, writer = self._streams
        # A server that was killed meanwhile is not paused any more.
        with contextlib.suppress(OSError, ServiceError):
            async with asyncio.timeout(_GONE):
                await self._say("CLIENT", "UNPAUSE")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self._streams = None

    async def _recover(self, say: Callable[[str], None]) -> None:
        await self._recovered("redis", say)

    def _login(self) -> list[str]:
        user = [unquote(self._parts.username)] if self._parts.username else []
        return [*user, unquote(self._parts.password or "")]

    async def _say(self, *words: str) -> None:
        """Send a command and wait for its OK; between them may be what a monitor sees."""
        assert self._streams is not None
        reader, writer = self._streams
        encoded = [word.encode() for word in words]
        writer.write(b"*%d\r\n" % len(encoded))
        writer.writelines(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
        while line := await reader.readline():
            if line == b"+OK\r\n":
                return
            if line.startswith(b"-"):
                raise ServiceError(f"Redis refuses {words[0]}: {line[1:].decode().strip()}")
        raise ServiceError(f"Redis hung up on {words[0]}")

    async def _listen(self) -> None:
        """Take what the monitor is told: it must not pile up in the server."""
        assert self._streams is not None
        with contextlib.suppress(OSError, ValueError):
            while await self._streams[0].readline():
                pass


async def _gone(probe: Callable[[], Awaitable[str]]) -> None:
    wrong = ""

    def say(text: str) -> None:
        nonlocal wrong
        wrong = text

    try:
        async with asyncio.timeout(_GONE):
            await until(probe, say)
    except TimeoutError:
        raise ServiceError(f"{_GONE:g} s after they were ended, {wrong}") from None


def _address(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"\[?(.*?)\]?:(\d+)", text)
    return (found[1], int(found[2])) if found else (text, 0)

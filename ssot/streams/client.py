"""The connections to Redis, each of which knows the epoch of the server that it reached."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError as RedisAuthenticationError
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from ssot.configuration import RedisSettings
from ssot.errors import AuthenticationError
from ssot.health import Health
from ssot.retry import retry
from ssot.tracing import Spans

__all__ = ["RedisClient", "StaleEpoch", "is_transient"]

T = TypeVar("T")

_spans = Spans("streams")

# The epoch belongs to one boot of the server: another run id is a higher epoch. It is never below
# the server's clock in milliseconds, because a server that lost the tail of its append-only file
# may have lost the epochs it issued last, and must not issue one of them again.
_OPEN_EPOCH = """
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local known = redis.call('HMGET', KEYS[1], 'run_id', 'epoch')
if known[1] == run_id and known[2] then return known[2] end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local epoch = string.format('%.0f', math.max((tonumber(known[2]) or 0) + 1, now))
redis.call('HSET', KEYS[1], 'run_id', run_id, 'epoch', epoch)
return epoch
"""


class StaleEpoch(Exception):
    """The server was rebooted, or emptied, since this process last verified its epoch."""


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed once the server is back."""
    if isinstance(error, RedisAuthenticationError):
        return False
    return isinstance(error, _TRANSIENT)


_TRANSIENT = (
    BusyLoadingError,
    ConnectionError,
    OSError,
    OutOfMemoryError,
    ReadOnlyError,
    StaleEpoch,
    TimeoutError,
)


class RedisClient:
    """One process's connections to Redis, under one key prefix.

    Every new connection first verifies the server's epoch, before anything else is sent on it. A
    connection cannot outlive the server it reached, so no command runs on a rebooted server
    before this process knows the new epoch.
    """

    def __init__(self, settings: RedisSettings, *, name: str) -> None:
        self.settings = settings
        self.name = name
        self.epoch = 0
        self._epoch_key = self.key("epoch")
        pool = BlockingConnectionPool.from_url(
            settings.url.get_secret_value(),
            max_connections=64,
            timeout=settings.timeout,
            client_name=name,
            # Replies are read as arrays; RESP3 maps and pushes would need a second shape for each.
            protocol=2,
            decode_responses=False,
            socket_connect_timeout=settings.timeout,
            # `call` has the timeout. redis-py would send inside asyncio.wait_for, which on Python
            # 3.11 loses a cancellation that arrives as it returns (python/cpython#86296).
            socket_timeout=None,
            # Trying again is done in one place, with one deadline: `call`.
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=self._verify,
        )
        self.redis: Redis = Redis.from_pool(pool)
        self._pool = pool

    @property
    def epoch_key(self) -> str:
        """The key that holds the server's run id and the highest epoch issued."""
        return self._epoch_key

    def key(self, *parts: str) -> str:
        """A key of this platform: the prefix and the parts, joined by colons."""
        return ":".join((self.settings.prefix, *parts))

    async def open(self) -> None:
        """Wait until the server answers; raises :class:`Unavailable` or a refused password."""
        with _spans.span("streams.connect", server="redis"):
            await self.call(lambda _: self.ping())

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        await self.redis.aclose()
        await self._pool.disconnect()

    async def ping(self) -> None:
        """One round trip."""
        await self.redis.ping()

    async def call(
        self, command: Callable[[int], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """Run an idempotent command, again after a lost connection, until the deadline.

        Each attempt may take ``timeout`` seconds of the settings; ``command`` receives its number.
        Raises :class:`Unavailable` at the deadline, and
        :class:`~ssot.errors.AuthenticationError` when the server refuses the password.
        """

        async def attempt(number: int) -> T:
            async with asyncio.timeout(self.settings.timeout):
                return await command(number)

        try:
            return await retry(
                attempt,
                what="Redis",
                on=is_transient,
                deadline=self.settings.retry_deadline if deadline is None else deadline,
            )
        except RedisAuthenticationError:
            raise AuthenticationError(
                "Redis refused this process's password; see SSOT_REDIS_URL"
            ) from None
        except ResponseError as error:
            if str(error).startswith(("NOAUTH", "WRONGPASS")):
                raise AuthenticationError(
                    "Redis refused this process's password; see SSOT_REDIS_URL"
                ) from None
            raise

    async def refresh_epoch(self) -> int:
        """Verify the epoch again, on a connection that may be old; needed after a FLUSHALL."""
        self.epoch = int(await self.redis.eval(_OPEN_EPOCH, 1, self._epoch_key))
        return self.epoch

    async def dedicated(self) -> Connection:
        """A connection of one's own, connected and verified; the caller disconnects it."""
        connection: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    async def health(self) -> Health:
        """A real round trip, with its time."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(self.settings.timeout):
                await self.ping()
        except (RedisError, OSError, builtins.TimeoutError) as error:
            return Health(name="redis", status="down", reason=type(error).__name__)
        return Health(name="redis", status="ok", latency=loop.time() - start)

    async def _verify(self, connection: Any) -> None:
        await connection.on_connect()
        await connection.send_command("EVAL", _OPEN_EPOCH, 1, self._epoch_key)
        self.epoch = int(await connection.read_response())

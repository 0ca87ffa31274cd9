"""Generation: the connections of one revision of the database settings, from first to last."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ssot.configuration import DatabaseSettings
from ssot.database.urls import asyncpg_url
from ssot.limit import Limit

__all__ = ["CLOSE_TIMEOUT", "Generation"]

CLOSE_TIMEOUT = 2.0
"""Seconds that one connection may take to say goodbye; then it is cut."""


class Generation:
    """Connections made under the same settings.

    Whoever wants one first takes a place of ``places`` and holds it until the connection is given
    back, so that nobody ever waits inside of the pool. Once retired, a generation gives no place,
    closes what is idle, and closes each lent connection as it comes back.
    """

    def __init__(self, settings: DatabaseSettings, *, name: str, number: int) -> None:
        self.settings = settings
        self.number = number
        self.retired = False
        self.places = Limit(settings.pool_size)
        self._engine = create_async_engine(
            asyncpg_url(settings.url.get_secret_value()),
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.acquire_timeout,
            connect_args={
                "timeout": settings.connect_timeout,
                "connection_class": _Connection,
                "server_settings": {
                    "application_name": name,
                    "statement_timeout": _milliseconds(settings.statement_timeout),
                    # A frozen process holds its locks: without this its successor waits for them.
                    "idle_in_transaction_session_timeout": _milliseconds(
                        settings.idle_transaction_timeout
                    ),
                },
            },
        )

    @property
    def in_use(self) -> int:
        """Connections lent to a session, or being made for one."""
        return self.places.held

    @property
    def open(self) -> int:
        """Connections made; of a retired generation those that are not yet back."""
        if self.retired:
            return self.in_use
        pool = cast("AsyncAdaptedQueuePool", self._engine.pool)
        return pool.checkedin() + pool.checkedout()

    async def connect(self) -> AsyncConnection:
        """A connection, to be closed by the caller, who holds a place."""
        return await self._engine.connect()

    def retire(self) -> None:
        """Lend nothing any more. :meth:`close_idle` must follow."""
        self.retired = True
        event.listen(self._engine.sync_engine.pool, "checkin", _close)
        self.places.dismiss()

    async def close_idle(self) -> None:
        """Close what is not lent; each connection that does not answer costs ``CLOSE_TIMEOUT``."""
        await self._engine.dispose()


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose end waits for no server for ever."""

    async def close(self, *, timeout: float | None = None) -> None:
        # Otherwise a server that is gone without a word keeps it, and all that wait for it. It is
        # closed either way: whoever closes a connection has no use for an error of it.
        errors = (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
        with contextlib.suppress(*errors):
            await super().close(timeout=CLOSE_TIMEOUT if timeout is None else timeout)


def _milliseconds(seconds: float) -> str:
    # Never 0, which means no limit to PostgreSQL.
    return str(max(int(seconds * 1000), 1))


def _close(_: object, record: Any) -> None:
    record.invalidate()

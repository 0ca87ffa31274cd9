"""DatabaseManager: one engine a process, sessions of one user each, transactions that replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from opentelemetry import trace
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ssot.configuration import DatabaseSettings
from ssot.context import UserContext
from ssot.database.models import Applied
from ssot.database.resilience import is_refused, is_transient
from ssot.database.urls import asyncpg_url
from ssot.errors import (
    AuthenticationError,
    LimitExceeded,
    PermissionDenied,
    SsotError,
    Unavailable,
    VersionMismatch,
)
from ssot.health import Health
from ssot.retry import retry

__all__ = ["SCHEMA_VERSION", "DatabaseManager", "DatabaseStatistics"]

T = TypeVar("T")

SCHEMA_VERSION = "0001"
"""The migration that this code needs; a database at any other is refused, naming both."""

_tracer = trace.get_tracer("ssot.database")

# For this transaction only: the next one on the same connection begins without a user.
_SET_USER = text("SELECT set_config('ssot.user_id', :user, true)")


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """What is open and what has happened.

    Connections: ``size`` at most, ``open`` of them made, ``in_use`` lent to a session.
    Transactions: ``committed``, and ``replayed`` for each further attempt.
    """

    size: int
    open: int
    in_use: int
    waiting: int
    committed: int
    replayed: int


class DatabaseManager:
    """One process's access to PostgreSQL. An async context manager.

    Every session is either one user's, whose rows alone the server then shows it, or nobody's,
    and sees no user's rows at all.
    """

    def __init__(self, settings: DatabaseSettings, *, name: str) -> None:
        self.settings = settings
        self._engine = create_async_engine(
            asyncpg_url(settings.url.get_secret_value()),
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.acquire_timeout,
            connect_args={
                "timeout": settings.connect_timeout,
                "server_settings": {
                    "application_name": name,
                    "statement_timeout": str(int(settings.statement_timeout * 1000)),
                },
            },
        )
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._waiting = 0
        self._committed = 0
        self._replayed = 0

    async def __aenter__(self) -> DatabaseManager:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close idle connections now, and those in use when they are given back. Idempotent."""
        await self._engine.dispose()

    @asynccontextmanager
    async def session(self, user: UserContext | None) -> AsyncIterator[AsyncSession]:
        """A session in a transaction of its own, committed on leaving and rolled back on an error.

        ``user`` is set for this transaction only. Raises :class:`LimitExceeded` when no
        connection comes free in time, and :class:`AuthenticationError` when the server refuses
        the role.
        """
        session = self._sessions()
        try:
            await self._acquire(session)
            await session.execute(_SET_USER, {"user": user.user_id if user else ""})
            yield session
            await session.commit()
        finally:
            # Shielded, so that a cancelled task still gives its connection back.
            await asyncio.shield(session.close())

    async def run_transaction(
        self,
        user: UserContext | None,
        body: Callable[[AsyncSession], Awaitable[T]],
        *,
        key: str | None = None,
        deadline: float | None = None,
    ) -> T:
        """Run ``body`` in one transaction as ``user``, again from its start when that may help.

        Replayed on serialization failure, deadlock and a lost connection, through a restart of
        the server, until ``deadline`` seconds have passed; then :class:`Unavailable`. ``body`` must
        have no effect outside of its session.

        When a connection is lost during the commit, nobody knows whether it happened. ``key``
        settles that: it is recorded in the same transaction with the result, which must then be
        JSON, and a replay or a repeated call returns the recorded result. Without a key the
        replay may apply the body a second time, so pass one whenever the body is not idempotent.
        A key belongs to a user; without one it is refused.
        """

        if key is not None and user is None:
            raise PermissionDenied("an idempotency key belongs to a user, and none was given")

        async def attempt(number: int) -> T:
            if number > 1:
                self._replayed += 1
            async with self.session(user) as session:
                if key is None or user is None:
                    result = await body(session)
                else:
                    result = await self._once(session, user.user_id, key, body)
            self._committed += 1
            return result

        with _tracer.start_as_current_span("database.transaction") as span:
            if user is not None:
                span.set_attribute("ssot.user_id", user.user_id)
            return await retry(
                attempt,
                what="PostgreSQL",
                on=lambda error: is_transient(error) or isinstance(error, _PoolExhausted),
                deadline=self.settings.retry_deadline if deadline is None else deadline,
            )

    async def wait_for_schema(self, *, deadline: float) -> None:
        """Return once the schema is the one that this code needs.

        A process may start before the migration has finished, so an older schema is waited for;
        a newer one raises :class:`VersionMismatch` at once, an older one at the deadline.
        """
        found: str | None = None

        async def attempt(_: int) -> None:
            nonlocal found
            async with self.session(None) as session:
                exists = await session.scalar(
                    text("SELECT to_regclass('alembic_version') IS NOT NULL")
                )
                found = (
                    await session.scalar(text("SELECT version_num FROM alembic_version"))
                    if exists
                    else None
                )
            if found is None or found < SCHEMA_VERSION:
                raise _Behind
            if found > SCHEMA_VERSION:
                raise _mismatch(found)

        try:
            await retry(
                attempt,
                what="PostgreSQL",
                deadline=deadline,
                on=lambda error: isinstance(error, _Behind) or is_transient(error),
            )
        except Unavailable as error:
            if isinstance(error.__cause__, _Behind):
                raise _mismatch(found) from None
            raise

    async def health(self) -> Health:
        """A real round trip with its time, within the acquire timeout."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(self.settings.acquire_timeout):
                async with self.session(None) as session:
                    await session.scalar(text("SELECT 1"))
        except (DBAPIError, OSError, SsotError) as error:
            return Health(name="database", status="down", reason=type(error).__name__)
        return Health(name="database", status="ok", latency=loop.time() - start)

    def statistics(self) -> DatabaseStatistics:
        """What is open and what has happened."""
        pool = cast("AsyncAdaptedQueuePool", self._engine.pool)
        return DatabaseStatistics(
            size=pool.size(),
            open=pool.checkedin() + pool.checkedout(),
            in_use=pool.checkedout(),
            waiting=self._waiting,
            committed=self._committed,
            replayed=self._replayed,
        )

    async def _acquire(self, session: AsyncSession) -> None:
        self._waiting += 1
        try:
            await session.connection()
        except PoolTimeout:
            raise self._exhausted() from None
        except DBAPIError as error:
            if is_refused(error):
                raise _refused() from None
            raise
        finally:
            self._waiting -= 1

    async def _once(
        self,
        session: AsyncSession,
        owner: str,
        key: str,
        body: Callable[[AsyncSession], Awaitable[T]],
    ) -> T:
        # A concurrent transaction with the same key waits here until the other one has ended.
        new = await session.scalar(
            insert(Applied)
            .values(user_id=owner, key=key, result=None)
            .on_conflict_do_nothing()
            .returning(Applied.key)
        )
        mine = (Applied.user_id == owner) & (Applied.key == key)
        if new is None:
            recorded: Any = await session.scalar(select(Applied.result).where(mine))
            return cast("T", recorded)
        result = await body(session)
        await session.execute(Applied.__table__.update().where(mine).values(result=result))  # type: ignore[attr-defined]
        return result

    def _exhausted(self) -> LimitExceeded:
        now = self.statistics()
        return _PoolExhausted(
            f"no database connection within {self.settings.acquire_timeout:g} s: "
            f"pool of {now.size}, {now.in_use} in use, {now.waiting} waiting",
            limit=now.size,
            observed=now.in_use + now.waiting,
        )


class _PoolExhausted(LimitExceeded):
    """No connection of the pool came free in time; a transaction goes on waiting for one."""


class _Behind(Exception):
    """The schema is older than this code needs."""


def _mismatch(found: str | None) -> VersionMismatch:
    return VersionMismatch(
        "database schema",
        ours=SCHEMA_VERSION,
        theirs=found or "none",
        advice="run `python -m ssot.serve migrate` with this version of the code",
    )


def _refused() -> AuthenticationError:
    return AuthenticationError(
        "PostgreSQL refused this process's role, password or database; see SSOT_DATABASE_URL"
    )

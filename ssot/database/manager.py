"""DatabaseManager: sessions of one user, transactions that replay, settings that may change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ssot.configuration import DatabaseSettings
from ssot.context import UserContext
from ssot.database.generation import CLOSE_TIMEOUT, Generation
from ssot.database.models import Applied
from ssot.database.resilience import is_refused, is_transient, refused_option, sqlstate
from ssot.errors import (
    AuthenticationError,
    LimitExceeded,
    PermissionDenied,
    SettingsError,
    SsotError,
    Unavailable,
    VersionMismatch,
)
from ssot.health import Health
from ssot.limit import Dismissed
from ssot.retry import retry
from ssot.tracing import Spans

__all__ = ["SCHEMA_VERSION", "DatabaseManager", "DatabaseStatistics"]

T = TypeVar("T")

SCHEMA_VERSION = "0002"
"""The migration that this code needs; a database at any other is refused, naming both."""

_spans = Spans("database")

# For this transaction only: the next one on the same connection begins without a user.
_SET_USER = text("SELECT set_config('ssot.user_id', :user, true)")


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """What is open and what has happened.

    Connections: ``size`` at most, ``open`` of them made, ``in_use`` lent to a session; the last
    two include the ``retired`` ones: lent before the settings changed, and not yet given back.
    ``generation`` counts the changes. Transactions: ``committed``, and ``replayed`` for each
    further attempt.
    """

    size: int
    open: int
    in_use: int
    retired: int
    waiting: int
    generation: int
    committed: int
    replayed: int


class DatabaseManager:
    """One process's access to PostgreSQL. An async context manager.

    Every session is either one user's, whose rows alone the server then shows it, or nobody's,
    and sees no user's rows at all. The settings may change while sessions are in use.
    """

    def __init__(self, settings: DatabaseSettings, *, name: str) -> None:
        self._name = name
        self._current = Generation(settings, name=name, number=0)
        self._retired: set[Generation] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._reconfiguring = asyncio.Lock()
        self._schema_checked = False
        self._waiting = 0
        self._committed = 0
        self._replayed = 0

    async def __aenter__(self) -> DatabaseManager:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def settings(self) -> DatabaseSettings:
        """What new sessions are opened under."""
        return self._current.settings

    async def aclose(self) -> None:
        """Close idle connections now, and those in use when they are given back. Idempotent.

        Whoever waits for a connection, or asks for one later, is told that this is closed.
        """
        self._closed = True
        self._retire(self._current)
        await self._idle_closed()

    async def reconfigure(self, settings: DatabaseSettings) -> None:
        """Open new sessions under ``settings`` from now on; the same settings change nothing.

        Sessions in use go on to their end on the connections that they have, which are then
        closed. Whoever waits for a connection gets a new one, and no longer waits for those: for a
        while the server may have the connections of both. Changes made at once happen one after
        the other, and the last one stays.

        The settings are tried first, with one connection, for ``connect_timeout`` seconds. Raises,
        and leaves everything as it was: :class:`AuthenticationError` when the server refuses
        them, :class:`SettingsError` when it refuses an option of the URL, :class:`Unavailable`
        when it is not reached, and :class:`VersionMismatch` when there is another schema than
        :meth:`wait_for_schema` found. Cancelled, it has happened or not, but not by half.
        """
        async with self._reconfiguring:
            if self._closed:
                raise _closed()
            if settings == self.settings:
                return
            number = self._current.number + 1
            with _spans.span("database.reconfigure", server="postgresql", generation=number):
                new = Generation(settings, name=self._name, number=number)
                try:
                    await self._try(new)
                    if self._closed:
                        raise _closed()
                except BaseException:
                    self._retire(new)
                    raise
                old, self._current = self._current, new
                self._retire(old)
                await self._idle_closed()

    @asynccontextmanager
    async def session(self, user: UserContext | None) -> AsyncIterator[AsyncSession]:
        """A session in a transaction of its own, committed on leaving and rolled back on an error.

        ``user`` is set for this transaction only. Raises :class:`LimitExceeded` when no
        connection comes free in time, :class:`AuthenticationError` when the server refuses the
        role, and :class:`SettingsError` when it refuses an option of the URL.
        """
        user_id = user.user_id if user else ""
        # Not current: the body is the caller's, and so are the spans in it.
        with _spans.span("database.session", user=user_id, server="postgresql", current=False):
            generation, connection = await self._connect()
            session = AsyncSession(connection, expire_on_commit=False)
            try:
                await session.execute(_SET_USER, {"user": user_id})
                yield session
                await session.commit()
            finally:
                # Shielded, so that a cancelled task still gives its connection back.
                await asyncio.shield(self._give_back(generation, connection, session))

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

        with _spans.span("database.transaction", user=user.user_id if user else ""):
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
                found = await _version(session)
            if found is None or found < SCHEMA_VERSION:
                raise _Behind
            if found > SCHEMA_VERSION:
                raise _mismatch(found)

        with _spans.span("database.connect"):
            try:
                await retry(
                    attempt,
                    what="PostgreSQL",
                    deadline=deadline,
                    on=lambda error: isinstance(error, _Behind) or is_transient(error),
                )
                self._schema_checked = True
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
        retired = sum(generation.in_use for generation in self._retired)
        return DatabaseStatistics(
            size=self._current.places.size,
            open=self._current.open + retired,
            in_use=self._current.in_use + retired,
            retired=retired,
            waiting=self._waiting,
            generation=self._current.number,
            committed=self._committed,
            replayed=self._replayed,
        )

    async def _connect(self) -> tuple[Generation, AsyncConnection]:
        """A connection and the generation that it belongs to, a place of which is now held."""
        self._waiting += 1
        try:
            while True:
                generation = await self._place()
                try:
                    return generation, await generation.connect()
                except BaseException as error:
                    self._release(generation)
                    if not isinstance(error, DBAPIError | OSError):
                        raise
                    # What the settings of before have come to is nobody's error any more.
                    if generation.retired and not self._closed:
                        continue
                    # 42501: the role may not connect to this database.
                    if is_refused(error) or sqlstate(error) == "42501":
                        raise _refused(generation.settings) from None
                    if why := refused_option(error):
                        raise _wrong_option(generation.settings, why) from None
                    raise
        finally:
            self._waiting -= 1

    async def _place(self) -> Generation:
        timeout = self.settings.acquire_timeout
        try:
            async with asyncio.timeout(timeout):
                while not self._closed:
                    generation = self._current
                    try:
                        await generation.places.acquire()
                    except Dismissed:
                        continue
                    if not generation.retired:
                        return generation
                    self._release(generation)
        except TimeoutError:
            raise self._exhausted(timeout) from None
        raise _closed()

    async def _give_back(
        self, generation: Generation, connection: AsyncConnection, session: AsyncSession
    ) -> None:
        try:
            try:
                await session.close()
            finally:
                await connection.close()
        finally:
            self._release(generation)

    def _release(self, generation: Generation) -> None:
        generation.places.release()
        if not generation.in_use:
            self._retired.discard(generation)

    def _retire(self, generation: Generation) -> None:
        if generation.retired:
            return
        generation.retire()
        if generation.in_use:
            self._retired.add(generation)
        # A task, so that it goes on when whoever changed the settings is cancelled.
        closing = asyncio.create_task(generation.close_idle(), name="close idle connections")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _idle_closed(self) -> None:
        # A server that does not answer any more is not waited for.
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=CLOSE_TIMEOUT)

    async def _try(self, generation: Generation) -> None:
        async def attempt(_: int) -> None:
            connection = await generation.connect()
            try:
                found = await _version(connection)
            finally:
                await asyncio.shield(connection.close())
            if self._schema_checked and found != SCHEMA_VERSION:
                raise _mismatch(found)

        try:
            await retry(
                attempt,
                what="PostgreSQL under the new settings (the ones before stay in use)",
                deadline=generation.settings.connect_timeout,
                on=is_transient,
            )
        except DBAPIError as error:
            if is_refused(error) or sqlstate(error) == "42501":
                raise AuthenticationError(
                    "PostgreSQL refused the role, password or database of the new settings, so "
                    f"the ones before stay in use; see {generation.settings.url_variable}"
                ) from None
            if why := refused_option(error):
                raise _wrong_option(generation.settings, why) from None
            raise

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

    def _exhausted(self, timeout: float) -> LimitExceeded:
        places = self._current.places
        return _PoolExhausted(
            f"no database connection within {timeout:g} s: "
            f"pool of {places.size}, {places.held} in use, {self._waiting} waiting",
            limit=places.size,
            observed=places.held + self._waiting,
        )


class _PoolExhausted(LimitExceeded):
    """No connection of the pool came free in time; a transaction goes on waiting for one."""


class _Behind(Exception):
    """The schema is older than this code needs."""


async def _version(session: AsyncSession | AsyncConnection) -> str | None:
    """The migration that the schema is at; ``None`` where there is none."""
    if not await session.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")):
        return None
    version: str | None = await session.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def _mismatch(found: str | None) -> VersionMismatch:
    return VersionMismatch(
        "database schema",
        ours=SCHEMA_VERSION,
        theirs=found or "none",
        advice="run `python -m ssot.serve migrate` with this version of the code",
    )


def _refused(settings: DatabaseSettings) -> AuthenticationError:
    return AuthenticationError(
        f"PostgreSQL refused this process's role, password or database; see {settings.url_variable}"
    )


def _wrong_option(settings: DatabaseSettings, why: str) -> SettingsError:
    return SettingsError(
        [f"an option behind the ? of {settings.url_variable} cannot be used: {why}"]
    )


def _closed() -> SsotError:
    return SsotError("this process's access to PostgreSQL is closed")

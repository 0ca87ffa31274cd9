"""Migrations: Alembic, under an advisory lock, so that many processes may start at once."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from ssot.configuration import DatabaseSettings
from ssot.database.resilience import is_refused, is_transient, sqlstate
from ssot.database.urls import asyncpg_url
from ssot.errors import AuthenticationError, PermissionDenied, Unavailable
from ssot.retry import retry
from ssot.tracing import Spans

__all__ = ["migrate"]

_log = logging.getLogger(__name__)
_spans = Spans("database")

# Any fixed number; it names "the migration of this database" among the advisory locks.
_LOCK = 0x5507_0001


async def migrate(settings: DatabaseSettings, *, wait: float = 60.0) -> None:
    """Bring the database to the newest schema, as its owner.

    One process migrates; the others wait for it for at most ``wait`` seconds (then
    :class:`Unavailable`) and find nothing left to do. The lock is held on a connection of its
    own, and ends with it whatever happens.
    """
    with _spans.span("database.migrate", server="postgresql"):
        await _migrate(settings, wait)


async def _migrate(settings: DatabaseSettings, wait: float) -> None:
    engine = create_async_engine(asyncpg_url(settings.url.get_secret_value()), poolclass=NullPool)
    try:
        connection = await retry(
            lambda _: engine.connect().start(), what="PostgreSQL", deadline=wait, on=is_transient
        )
        async with aclosing(connection), engine.connect() as lock:
            await _acquire(lock, wait)
            await connection.run_sync(_upgrade)
            await connection.commit()
    except Exception as error:
        if is_refused(error):
            raise AuthenticationError(
                "PostgreSQL refused the owner's role, password or database; "
                f"see {settings.url_variable}"
            ) from None
        if sqlstate(error) == "42501":
            raise PermissionDenied(
                "this role may not change the schema; MIGRATE needs the database's owner in "
                f"{settings.url_variable}"
            ) from None
        raise
    finally:
        await engine.dispose()


async def _acquire(lock: AsyncConnection, wait: float) -> None:
    try:
        async with asyncio.timeout(wait):
            await lock.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    except TimeoutError:
        raise Unavailable(
            "the migration lock", deadline=wait, cause="another process is still migrating"
        ) from None


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

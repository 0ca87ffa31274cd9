"""Migrations: any number of processes at once, and a schema that fits the code or is refused."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from streams.support import database_settings

from ssot.auth.accounts import Accounts
from ssot.database import SCHEMA_VERSION, Base, DatabaseManager, provision
from ssot.database.migrate import migrate
from ssot.database.urls import asyncpg_url
from ssot.errors import AuthenticationError, SettingsError, VersionMismatch
from ssot.lab.services import Services


async def test_of_ten_processes_at_once_none_fails_and_the_schema_is_there(
    servers: Services,
) -> None:
    """Ten migrations start together: all return, and the schema fits the code."""
    urls = await provision(servers.postgres.admin_url, f"t{secrets.token_hex(5)}")
    owner = database_settings(urls["owner"])
    await asyncio.gather(*(migrate(owner) for _ in range(10)))
    async with DatabaseManager(database_settings(urls["app_a"]), name="test") as manager:
        await manager.wait_for_schema(deadline=1)


async def test_a_schema_of_another_version_is_refused_with_both(servers: Services) -> None:
    """No schema and an older one are waited for until the deadline, a newer one is refused at once."""
    urls = await provision(servers.postgres.admin_url, f"t{secrets.token_hex(5)}")
    async with (
        DatabaseManager(database_settings(urls["app_a"]), name="test") as manager,
        DatabaseManager(database_settings(urls["owner"]), name="owner") as owner,
    ):
        with pytest.raises(VersionMismatch, match="none") as missing:
            await manager.wait_for_schema(deadline=0.2)
        assert missing.value.ours == SCHEMA_VERSION
        waiting = asyncio.create_task(manager.wait_for_schema(deadline=10))
        await migrate(database_settings(urls["owner"]))
        await waiting

        async def set_version(version: str) -> None:
            statement = text("UPDATE alembic_version SET version_num = :v")
            await owner.run_transaction(None, lambda s: s.execute(statement, {"v": version}))

        await set_version("0000")
        with pytest.raises(VersionMismatch, match="0000"):
            await manager.wait_for_schema(deadline=0.2)
        await set_version("9999")
        begin = time.monotonic()
        with pytest.raises(VersionMismatch, match="9999"):
            await manager.wait_for_schema(deadline=10)
        assert time.monotonic() - begin < 5


async def test_accounts_survive_each_step_of_the_schema(servers: Services) -> None:
    """Up from the first version and back to it: those with a password stay, those without go."""
    urls = await provision(servers.postgres.admin_url, f"t{secrets.token_hex(5)}")
    await _to(urls["owner"], "0001")
    auth = database_settings(urls["auth"])
    named = "INSERT INTO accounts (user_id, name, password_hash) VALUES ('u1', 'alice', 'x')"
    async with DatabaseManager(auth, name="auth") as manager:
        await manager.run_transaction(None, lambda s: s.execute(text(named)))
        await migrate(database_settings(urls["owner"]))
        await manager.wait_for_schema(deadline=1)
        accounts = Accounts(manager, scrypt_log_n=10)
        await accounts.of_subject("https://a", "s")
        with pytest.raises(IntegrityError, match="name_and_password"):
            half = "INSERT INTO accounts (user_id, name) VALUES ('u2', 'bob')"
            await manager.run_transaction(None, lambda s: s.execute(text(half)))
        await _to(urls["owner"], "0001")
        async with manager.session(None) as session:
            assert list(await session.scalars(text("SELECT name FROM accounts"))) == ["alice"]


async def test_the_tables_are_those_of_the_models(servers: Services) -> None:
    """What Alembic would change to make the schema fit the models is nothing."""
    urls = await provision(servers.postgres.admin_url, f"t{secrets.token_hex(5)}")
    await migrate(database_settings(urls["owner"]))
    engine = create_async_engine(asyncpg_url(urls["owner"]), poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), Base.metadata)
        )
    await engine.dispose()
    assert found == []


async def _to(owner: str, revision: str) -> None:
    """Go to a revision, up or down."""
    engine = create_async_engine(asyncpg_url(owner), poolclass=NullPool)

    def go(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "ssot:database/migrations")
        config.attributes["connection"] = connection
        known = MigrationContext.configure(connection).get_current_revision()
        (command.downgrade if known else command.upgrade)(config, revision)

    async with engine.connect() as connection:
        await connection.run_sync(go)
        await connection.commit()
    await engine.dispose()


async def test_a_wrong_password_of_the_owner_is_told(servers: Services) -> None:
    """A migration that is refused says which variable to look at, and no password."""
    urls = await provision(servers.postgres.admin_url, f"t{secrets.token_hex(5)}")
    head, _, tail = urls["owner"].rpartition("@")
    with pytest.raises(AuthenticationError, match="SSOT_DATABASE_URL") as refused:
        await migrate(database_settings(f"{head.rpartition(':')[0]}:not-the-password@{tail}"))
    assert "not-the-password" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "A", "a-b", "a;drop", "1a", "a" * 41, 'a"b'])
async def test_a_name_that_is_not_plain_is_refused_before_anything_is_made(
    servers: Services, name: str
) -> None:
    """Names that would need quoting make no database."""
    with pytest.raises(SettingsError, match="database name"):
        await provision(servers.postgres.admin_url, name)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:secret-pass@h/d", "postgresql://h:x/d"])
def test_a_url_that_is_no_postgresql_is_refused_without_repeating_it(url: str) -> None:
    """The error says what a URL looks like and holds no password."""
    with pytest.raises(SettingsError) as refused:
        asyncpg_url(url)
    assert "secret-pass" not in str(refused.value)

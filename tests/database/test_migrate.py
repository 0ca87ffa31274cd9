"""Migrations: any number of processes at once, and a schema that fits the code or is refused."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest
from sqlalchemy import text
from streams.support import database_settings

from ssot.database import SCHEMA_VERSION, DatabaseManager, provision
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

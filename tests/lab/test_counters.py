"""The servers' own counters."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping

import asyncpg
import pytest
import pytest_asyncio
import redis.asyncio
import redis.exceptions
from sqlalchemy import text

from ssot.database import DatabaseManager
from ssot.lab.counters import Counters, Reading
from ssot.lab.services import Services
from ssot.streams import RedisClient


@pytest_asyncio.fixture
async def counters(servers: Services, database_urls: Mapping[str, str]) -> AsyncIterator[Counters]:
    name = database_urls["owner"].rpartition("/")[2].partition("?")[0]
    counters = Counters(servers, name)
    yield counters
    await counters.aclose()


async def test_each_server_counts_what_was_asked_of_it(
    counters: Counters, database: DatabaseManager, client: RedisClient
):
    """Statements of the platform's roles, and commands that are no housekeeping."""
    before = await counters.read()
    async with database.session(None) as session:
        await session.execute(text("SELECT 1"))
    await client.redis.set(client.key("a"), "b")
    after = await counters.read()
    served = counters.served(before, after)
    assert (served["postgresql"].count or 0) >= 1
    assert (served["redis"].count or 0) >= 1
    assert served["postgresql"].restarts == served["redis"].restarts == 0
    assert served["postgresql"].started.startswith("20")


async def test_looking_is_not_counted(counters: Counters, database: DatabaseManager):
    """Reading the counters twice moves none of them."""
    del database
    before = await counters.read()
    after = await counters.read()
    assert counters.served(before, after)["postgresql"].count == 0
    assert counters.served(before, after)["redis"].count == 0


async def test_refused_logins_are_counted_by_the_servers(
    counters: Counters, servers: Services, database_urls: Mapping[str, str]
):
    """Neither server counts a statement or a command of whom it did not let in."""
    before = await counters.read()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(database_urls["app_a"], password="wrong")
    stranger = redis.asyncio.Redis(
        host=servers.redis.host,
        port=servers.redis.port,
        password="wrong",
    )
    with pytest.raises(redis.exceptions.AuthenticationError):
        await stranger.ping()
    await stranger.aclose()
    after = await counters.read()
    served = counters.served(before, after)
    owned = servers.postgres.log_path is not None
    assert served["postgresql"].refused == int(owned)
    assert served["redis"].refused >= 1  # its client tries again
    assert (served["postgresql"].count, served["redis"].count) == (0, 0)
    again = counters.served(after, await counters.read())
    assert (again["postgresql"].refused, again["redis"].refused) == (0, 0)


async def test_a_session_is_known_by_its_name(counters: Counters, database: DatabaseManager):
    """The name that a connection gave is what a leak is told by."""
    async with database.session(None):
        reading = await counters.read()
    assert reading.sessions["postgresql test"] >= 1
    assert reading.open_transactions.get("test") == 1


async def test_the_versions_are_told(counters: Counters):
    """What the evidence says of the servers is what the servers say."""
    versions = await counters.versions()
    assert versions["postgresql"][0].isdigit()
    assert versions["redis"].split()[0] in ("Valkey", "Redis")


async def test_a_server_that_was_started_again_counts_from_nothing(counters: Counters):
    """A crash resets the counters: then all of the new ones are the check's."""
    before = Reading(statements=100, commands=50, postgresql_started="a", redis_started="t x")
    after = Reading(statements=7, commands=60, postgresql_started="b", redis_started="u x")
    served = counters.served(before, after)
    assert (served["postgresql"].count, served["postgresql"].restarts) == (7, 1)
    assert (served["redis"].count, served["redis"].restarts) == (10, 0)


async def test_a_server_that_does_not_answer_is_no_error(counters: Counters):
    """Nobody can know what it did, and that is what is said."""
    before = Reading(statements=100, postgresql_started="a")
    served = counters.served(before, Reading())
    assert served["postgresql"].count is None


async def test_nothing_is_made_in_the_database_of_an_administrator(
    servers: Services, database_urls: Mapping[str, str]
):
    """On servers of others they are read from the lab's own database, and go with it."""
    name = database_urls["owner"].rpartition("/")[2].partition("?")[0]
    counters = Counters(dataclasses.replace(servers, kind="url"), name)
    try:
        assert (await counters.read()).statements is not None
        admin = await asyncpg.connect(servers.postgres.admin_url)
        try:
            used = await admin.fetch(
                "SELECT datname FROM pg_stat_activity WHERE application_name = 'ssot-lab-counters'"
            )
        finally:
            await admin.close()
    finally:
        await counters.aclose()
    assert name in {row["datname"] for row in used}

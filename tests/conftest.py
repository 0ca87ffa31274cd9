"""The servers and databases that all tests share, and the order of their lives.

One PostgreSQL and one Valkey serve a whole run. A test keeps apart by a key prefix and by user
ids of its own; one that needs a server to itself says so by killing it, and starts it again.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from streams.support import apart, database_settings, migrated, someone, until

from ssot.configuration import RedisSettings
from ssot.context import UserContext
from ssot.database import DatabaseManager
from ssot.lab.services import Services, Workspace, open_services
from ssot.streams import EventLog, RedisClient

# The same examples in every run: a failure of yesterday is a failure of today.
settings.register_profile(
    "ssot",
    derandomize=True,
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ssot")


@pytest.fixture(scope="session")
def servers() -> Iterator[Services]:
    """A real PostgreSQL and a real Valkey for the whole run."""
    with Workspace.open("tests") as workspace:
        yield apart(open_services("embedded", workspace))


@pytest.fixture(scope="session")
def database_urls(servers: Services) -> Mapping[str, str]:
    """A migrated database, shared by tests that keep apart by user; a URL for each login role."""
    return apart(migrated(servers))


@pytest.fixture
def redis_settings(servers: Services) -> RedisSettings:
    """Valkey, under a key prefix that is this test's own."""
    return RedisSettings.model_validate(
        {"url": servers.redis.url, "prefix": f"t{secrets.token_hex(5)}", "retry_deadline": 10}
    )


@pytest_asyncio.fixture
async def client(redis_settings: RedisSettings) -> AsyncIterator[RedisClient]:
    """An open client under the test's own prefix."""
    client = RedisClient(redis_settings, name="test")
    await client.open()
    yield client
    await client.aclose()


@pytest.fixture
def log(client: RedisClient) -> EventLog:
    """The event logs under the test's own prefix."""
    return EventLog(client)


@pytest_asyncio.fixture
async def database(database_urls: Mapping[str, str]) -> AsyncIterator[DatabaseManager]:
    """The shared database as an application role; no connection is lent at the end."""
    async with DatabaseManager(database_settings(database_urls["app_a"]), name="test") as database:
        yield database
        await until(lambda: database.statistics().in_use == 0, what="every connection to be back")


@pytest.fixture
def user() -> UserContext:
    """A user that nobody else is."""
    return someone()

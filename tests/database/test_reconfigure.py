"""DatabaseManager.reconfigure: other settings while sessions are in use, and no query fails of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from streams.support import database_settings, someone, until

from ssot.configuration import DatabaseSettings
from ssot.database import DatabaseManager, provision
from ssot.database.migrate import migrate
from ssot.errors import (
    AuthenticationError,
    LimitExceeded,
    SsotError,
    Unavailable,
    VersionMismatch,
)
from ssot.lab.faults.proxy import Proxies
from ssot.lab.faults.shape import BlackHole, Injection
from ssot.lab.services import Services
from ssot.lab.spans import SpanCollector, kernel_tracing

Connections = Callable[[], Awaitable[dict[str, int]]]


async def role(session: AsyncSession) -> str:
    """The login role that the server knows this session by, without its database's name."""
    return str(await session.scalar(text("SELECT session_user"))).rpartition("_app_")[2]


@pytest.fixture
def a(database_urls: Mapping[str, str]) -> DatabaseSettings:
    """The settings of before."""
    return database_settings(database_urls["app_a"])


@pytest.fixture
def b(database_urls: Mapping[str, str]) -> DatabaseSettings:
    """The settings of after: another login role with the same rights."""
    return database_settings(database_urls["app_b"])


@pytest_asyncio.fixture
async def manager(a: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    """A manager under the settings of before."""
    async with DatabaseManager(a, name="live") as manager:
        yield manager
        await until(lambda: manager.statistics().in_use == 0, what="every connection to be back")


@pytest_asyncio.fixture
async def connections(
    servers: Services, database_urls: Mapping[str, str]
) -> AsyncIterator[Connections]:
    """How many connections of the manager the server has, for each login role."""
    name = database_urls["owner"].rpartition("/")[2]
    url = servers.postgres.admin_url.rpartition("/")[0] + f"/{name}"
    query = text(
        "SELECT usename, count(*) FROM pg_stat_activity "
        "WHERE application_name = 'live' AND datname = current_database() GROUP BY usename"
    )
    async with DatabaseManager(database_settings(url), name="looks") as admin:

        async def found() -> dict[str, int]:
            async with admin.session(None) as session:
                rows = await session.execute(query)
                return {name.rpartition("_app_")[2]: count for name, count in rows}

        yield found


async def hold(manager: DatabaseManager, go: asyncio.Event) -> tuple[str, str]:
    """One session, open until ``go``; the role that it had at its begin and at its end."""
    async with manager.session(None) as session:
        before = await role(session)
        await go.wait()
        return before, await role(session)


async def test_new_sessions_have_the_new_role_and_the_old_connections_are_gone(
    manager: DatabaseManager, b: DatabaseSettings, connections: Connections
) -> None:
    """After the change the server has no connection of the old role, and the next query the new."""
    await asyncio.gather(*(manager.run_transaction(None, role) for _ in range(8)))
    await manager.reconfigure(b)
    assert manager.settings == b
    assert await manager.run_transaction(None, role) == "b"
    await until(lambda: only(connections, {"b"}), what="the old connections to end")
    now = manager.statistics()
    assert (now.generation, now.retired, now.in_use) == (1, 0, 0)


async def only(connections: Connections, roles: set[str]) -> bool:
    return set(await connections()) <= roles


@pytest.mark.long
async def test_under_load_twenty_changes_cost_no_query(
    manager: DatabaseManager,
    a: DatabaseSettings,
    b: DatabaseSettings,
    connections: Connections,
) -> None:
    """Fifty tasks work without a pause while the role goes back and forth: none of them fails."""
    stop = asyncio.Event()
    seen = {"a": 0, "b": 0}

    async def work() -> None:
        user = someone()
        while not stop.is_set():
            seen[await manager.run_transaction(user, role)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(work())
        for number in range(20):
            await manager.reconfigure(a if number % 2 else b)
            before = manager.statistics().committed
            await until(
                lambda before=before: manager.statistics().committed > before + 50,  # type: ignore[misc]
                what="transactions under the new settings",
            )
        stop.set()
    now = manager.statistics()
    assert (now.generation, now.replayed, now.retired, now.in_use) == (20, 0, 0, 0)
    assert min(seen.values()) > 0
    await until(lambda: only(connections, {"a"}), what="the retired connections to end")
    assert (await connections())["a"] <= 4


async def test_a_session_in_use_commits_on_its_own_connection_which_is_then_closed(
    manager: DatabaseManager, b: DatabaseSettings, connections: Connections
) -> None:
    """A transaction is not cut: it ends under the old role, and takes its connection with it."""
    go = asyncio.Event()
    holding = asyncio.create_task(hold(manager, go))
    await until(lambda: manager.statistics().in_use == 1, what="the session")
    await manager.reconfigure(b)
    now = manager.statistics()
    assert (now.retired, now.in_use, now.size) == (1, 1, 4)
    assert await manager.run_transaction(None, role) == "b"
    assert await connections() == {"a": 1, "b": 1}
    go.set()
    assert await holding == ("a", "a")
    assert manager.statistics().retired == 0
    await until(lambda: only(connections, {"b"}), what="the old connection to end")


async def test_a_body_that_commits_on_its_way_goes_on_on_its_connection(
    manager: DatabaseManager, b: DatabaseSettings
) -> None:
    """Also between two transactions of one session nothing is taken from it."""
    async with manager.session(None) as session:
        assert await role(session) == "a"
        await session.commit()
        await manager.reconfigure(b)
        assert await role(session) == "a"


async def test_whoever_waits_for_the_full_old_pool_gets_a_connection_of_the_new(
    manager: DatabaseManager, b: DatabaseSettings
) -> None:
    """Waiters do not wait for the sessions of before, however long those last."""
    go = asyncio.Event()
    holding = [asyncio.create_task(hold(manager, go)) for _ in range(4)]
    await until(lambda: manager.statistics().in_use == 4, what="a full pool")
    waiting = [asyncio.create_task(manager.run_transaction(None, role)) for _ in range(6)]
    await until(lambda: manager.statistics().waiting == 6, what="the waiters")
    await manager.reconfigure(b)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == ["b"] * 6
    assert manager.statistics().retired == 4
    go.set()
    assert await asyncio.gather(*holding) == [("a", "a")] * 4


async def test_the_pool_grows_and_shrinks(
    manager: DatabaseManager, a: DatabaseSettings, connections: Connections
) -> None:
    """As many sessions at once as the newest settings say, and no more connections than that."""
    for size in (7, 2, 5):
        await manager.reconfigure(a.model_copy(update={"pool_size": size, "acquire_timeout": 0.3}))
        go = asyncio.Event()
        holding = [asyncio.create_task(hold(manager, go)) for _ in range(size)]
        await until(lambda size=size: manager.statistics().in_use == size, what="a full pool")  # type: ignore[misc]
        with pytest.raises(LimitExceeded, match=f"pool of {size}, {size} in use"):
            async with manager.session(None):
                pass
        go.set()
        await asyncio.gather(*holding)
        assert manager.statistics().size == size
        assert manager.statistics().open <= size
        assert sum((await connections()).values()) <= size


async def test_new_timeouts_hold_for_new_sessions(
    manager: DatabaseManager, a: DatabaseSettings
) -> None:
    """The server's own limits come with the new connections."""

    async def limit(session: AsyncSession) -> str:
        return str(await session.scalar(text("SHOW statement_timeout")))

    assert await manager.run_transaction(None, limit) == "30s"
    await manager.reconfigure(a.model_copy(update={"statement_timeout": 7.0}))
    assert await manager.run_transaction(None, limit) == "7s"
    longest = {"statement_timeout": 2e6, "idle_transaction_timeout": 2e6}
    await manager.reconfigure(database_settings(a.url.get_secret_value(), **longest))
    assert await manager.run_transaction(None, limit) == "2000000s"


async def test_the_same_settings_change_nothing(
    manager: DatabaseManager, a: DatabaseSettings, connections: Connections
) -> None:
    """Equal settings are no change, and the connections stay."""
    await manager.run_transaction(None, role)
    before = manager.statistics()
    await manager.reconfigure(a.model_copy())
    assert manager.statistics() == before
    assert await connections() == {"a": 1}


async def test_each_change_is_a_span_and_a_refused_one_says_why(
    manager: DatabaseManager, b: DatabaseSettings
) -> None:
    """Which generation it made, or which error stopped it, without the secret."""
    head, _, tail = b.url.get_secret_value().rpartition("@")
    wrong = database_settings(f"{head.rpartition(':')[0]}:not-the-password@{tail}")
    with SpanCollector() as collector:
        kernel_tracing(collector)
        try:
            with pytest.raises(AuthenticationError):
                await manager.reconfigure(wrong)
            await manager.reconfigure(b)
        finally:
            kernel_tracing(None)
        refused, done = (s for s in collector.spans() if s.name == "database.reconfigure")
    assert refused.error.startswith("AuthenticationError: PostgreSQL refused")
    assert "not-the-password" not in repr(refused)
    assert (done.error, done.server, done.attributes["ssot.generation"]) == ("", "postgresql", 1)


# Refused


async def test_a_wrong_password_is_refused_and_the_old_one_goes_on(
    manager: DatabaseManager, a: DatabaseSettings, b: DatabaseSettings, connections: Connections
) -> None:
    """A secret that the server does not take is told, without it, and costs nobody anything."""
    head, _, tail = b.url.get_secret_value().rpartition("@")
    wrong = database_settings(f"{head.rpartition(':')[0]}:not-the-password@{tail}")
    go = asyncio.Event()
    holding = asyncio.create_task(hold(manager, go))
    with pytest.raises(AuthenticationError, match="the ones before stay in use") as refused:
        await manager.reconfigure(wrong)
    assert "SSOT_DATABASE_URL" in str(refused.value)
    assert "not-the-password" not in str(refused.value)
    assert manager.settings == a
    assert manager.statistics().generation == 0
    assert await manager.run_transaction(None, role) == "a"
    go.set()
    assert await holding == ("a", "a")
    await until(lambda: only(connections, {"a"}), what="only the old role's connections")
    await manager.reconfigure(b)
    assert await manager.run_transaction(None, role) == "b"


@pytest.mark.parametrize("how", ["refuses", "says nothing"])
async def test_a_server_that_is_not_reached_is_unavailable_in_time(
    manager: DatabaseManager, a: DatabaseSettings, how: str
) -> None:
    """Nobody listens, or somebody who never answers: told after connect_timeout, nothing changed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://x:y@127.0.0.1:{silent.getsockname()[1]}/z"
        if how == "refuses":
            silent.close()
        other = database_settings(url, connect_timeout=0.3)
        async with asyncio.timeout(3):
            with pytest.raises(Unavailable, match=r"stay in use.* no answer within 0\.3 s"):
                await manager.reconfigure(other)
    assert manager.settings == a
    assert await manager.run_transaction(None, role) == "a"


@pytest.mark.long
async def test_a_change_away_from_a_server_that_answers_no_more_waits_for_none_of_it(
    a: DatabaseSettings, b: DatabaseSettings
) -> None:
    """Idle and lent connections into the dark hold up neither the change, nor waiters, nor the end."""
    head, _, tail = a.url.get_secret_value().rpartition("@")
    host, port = tail.partition("/")[0].split(":")
    proxies = Proxies(seed=1)
    try:
        proxy = proxies.open("postgres", lambda: (host, int(port)))
        through = database_settings(
            f"{head}@127.0.0.1:{proxy.port}/{tail.partition('/')[2]}", pool_size=3
        )
        async with DatabaseManager(through, name="live") as manager:
            await asyncio.gather(*(manager.run_transaction(None, role) for _ in range(6)))
            await proxy.inject(Injection(BlackHole()), lambda: None)
            stuck = [asyncio.create_task(manager.run_transaction(None, role)) for _ in range(2)]
            await until(lambda: manager.statistics().in_use == 2, what="lent connections")
            async with asyncio.timeout(4):
                await manager.reconfigure(b)
            assert await manager.run_transaction(None, role) == "b"
            assert manager.statistics().retired == 2
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
            begin = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begin < 3
        await until(lambda: manager.statistics().open == 0, what="the last connection to be cut")
    finally:
        await proxies.aclose()


async def test_a_database_without_the_schema_is_refused_once_the_schema_was_there(
    servers: Services, manager: DatabaseManager
) -> None:
    """A URL that points to an empty database does not replace one that works."""
    urls = await provision(servers.postgres.admin_url, "t" + someone("x").user_id[-8:].lower())
    empty = database_settings(urls["app_a"])
    await manager.wait_for_schema(deadline=5)
    with pytest.raises(VersionMismatch, match="none"):
        await manager.reconfigure(empty)
    assert await manager.run_transaction(None, role) == "a"
    await migrate(database_settings(urls["owner"]))
    await manager.reconfigure(empty)
    assert manager.settings == empty


# At once, cancelled, closed


async def test_of_changes_at_once_the_last_stays(
    manager: DatabaseManager, a: DatabaseSettings, b: DatabaseSettings
) -> None:
    """They happen in the order in which they were asked for."""
    sizes = [5, 6, 7, 8]
    changes = [b.model_copy(update={"pool_size": size}) for size in sizes]
    await asyncio.gather(*(manager.reconfigure(change) for change in changes))
    now = manager.statistics()
    assert (manager.settings, now.size, now.generation) == (changes[-1], 8, 4)
    # A refused one in between does not stop those behind it.
    nowhere = database_settings("postgresql://x:y@127.0.0.1:1/z", connect_timeout=0.1)
    ended = await asyncio.gather(
        manager.reconfigure(nowhere), manager.reconfigure(a), return_exceptions=True
    )
    assert isinstance(ended[0], Unavailable)
    assert manager.settings == a


async def test_cancelled_at_any_moment_it_has_happened_or_not(
    manager: DatabaseManager,
    a: DatabaseSettings,
    b: DatabaseSettings,
    connections: Connections,
) -> None:
    """Cancelled after each of its first loop turns, it leaves one whole pool and no connection."""
    happened = []
    for turns in range(60):
        target = b if manager.settings == a else a
        before = manager.statistics().generation
        changing = asyncio.create_task(manager.reconfigure(target))
        working = asyncio.create_task(manager.run_transaction(None, role))
        for _ in range(turns):
            await asyncio.sleep(0)
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        after = manager.statistics().generation
        happened.append(after - before)
        assert (manager.settings == target) is bool(after - before)
        expected = "a" if manager.settings == a else "b"
        assert await working in {"a", "b"}
        assert await manager.run_transaction(None, role) == expected
    assert set(happened) <= {0, 1}
    assert 0 in happened
    expected = "a" if manager.settings == a else "b"
    await until(lambda: only(connections, {expected}), what="every other connection to end")
    assert (await connections())[expected] <= 4
    assert manager.statistics().retired == 0


async def test_a_session_cancelled_after_the_change_leaves_no_connection(
    manager: DatabaseManager, b: DatabaseSettings, connections: Connections
) -> None:
    """The connection of a retired session ends with it, however that one ends."""

    async def sleep(session: AsyncSession) -> None:
        await session.execute(text("SELECT pg_sleep(30)"))

    tasks = [asyncio.create_task(manager.run_transaction(None, sleep)) for _ in range(4)]
    await until(lambda: manager.statistics().in_use == 4, what="a full pool")
    await manager.reconfigure(b)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: manager.statistics().retired == 0, what="the connections to be back")
    await until(lambda: only(connections, {"b"}), what="the old connections to end")


async def test_closing_ends_every_generation_and_waits_for_no_session(
    a: DatabaseSettings, b: DatabaseSettings, connections: Connections
) -> None:
    """Idle ones end now, lent ones when they are given back; waiters are told, later ones too."""
    manager = DatabaseManager(a, name="live")
    go = asyncio.Event()
    holding = [asyncio.create_task(hold(manager, go)) for _ in range(2)]
    await until(lambda: manager.statistics().in_use == 2, what="two sessions")
    await manager.reconfigure(b.model_copy(update={"pool_size": 1}))
    holding.append(asyncio.create_task(hold(manager, go)))
    await until(lambda: manager.statistics().in_use == 3, what="a session under the new settings")
    waiting = asyncio.create_task(manager.run_transaction(None, role))
    await until(lambda: manager.statistics().waiting == 1, what="a waiter")
    async with asyncio.timeout(5):
        await manager.aclose()
        await manager.aclose()
        with pytest.raises(SsotError, match="closed"):
            await waiting
    for call in (manager.run_transaction(None, role), manager.reconfigure(a)):
        with pytest.raises(SsotError, match="closed"):
            await call
    go.set()
    assert await asyncio.gather(*holding) == [("a", "a"), ("a", "a"), ("b", "b")]
    await until(lambda: only(connections, set()), what="every connection to end")

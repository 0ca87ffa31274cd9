"""DatabaseManager: rows behind their user, a bounded pool, transactions that replay, keys that hold."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from streams.support import database_settings, someone, until

from ssot.context import UserContext
from ssot.database import DatabaseManager, RunRecords
from ssot.database.models import LlmUsage
from ssot.errors import (
    AuthenticationError,
    LimitExceeded,
    PermissionDenied,
    SettingsError,
    Unavailable,
)
from ssot.lab.services import Services


async def add(session: AsyncSession, user: UserContext, tokens: int = 1) -> int:
    """One row of usage; returns how many the session sees afterwards."""
    await session.execute(
        text(
            "INSERT INTO llm_usage (user_id, at, model, input_tokens, output_tokens, cost_microusd) "
            "VALUES (:user, now(), 'm', :tokens, 0, 0)"
        ),
        {"user": user.user_id, "tokens": tokens},
    )
    return await count(session)


async def count(session: AsyncSession) -> int:
    return int(await session.scalar(text("SELECT count(*) FROM llm_usage")) or 0)


@pytest_asyncio.fixture
async def admin(
    servers: Services, database_urls: Mapping[str, str]
) -> AsyncIterator[DatabaseManager]:
    """The administrator, in the same database: outside of every rule."""
    name = database_urls["owner"].rpartition("/")[2]
    url = servers.postgres.admin_url.rpartition("/")[0] + f"/{name}"
    async with DatabaseManager(database_settings(url), name="admin") as manager:
        yield manager


# Who sees what


async def test_a_user_sees_their_own_rows_only(database: DatabaseManager) -> None:
    """The same query gives each user their own rows, and nobody without a user any."""
    alice, bob = someone("alice"), someone("bob")
    await database.run_transaction(alice, lambda s: add(s, alice))
    await database.run_transaction(alice, lambda s: add(s, alice))
    await database.run_transaction(bob, lambda s: add(s, bob))
    assert await database.run_transaction(alice, count) == 2
    assert await database.run_transaction(bob, count) == 1
    assert await database.run_transaction(None, count) == 0


async def test_a_row_for_another_user_is_refused(database: DatabaseManager) -> None:
    """Writing as somebody else is refused by the server, and nothing is written."""
    alice, bob = someone("alice"), someone("bob")
    for who in (alice, None):
        with pytest.raises(DBAPIError, match="row-level security"):
            await database.run_transaction(who, lambda s: add(s, bob))
    assert await database.run_transaction(bob, count) == 0


async def test_a_user_cannot_give_their_rows_away_or_touch_others(
    database: DatabaseManager,
) -> None:
    """Updating and deleting reach one's own rows only, and cannot move one to another user."""
    alice, bob = someone("alice"), someone("bob")
    await database.run_transaction(alice, lambda s: add(s, alice))

    async def steal(session: AsyncSession) -> int:
        result = await session.execute(text("DELETE FROM llm_usage"))
        return int(result.rowcount)  # type: ignore[attr-defined]

    async def give(session: AsyncSession) -> None:
        await session.execute(text("UPDATE llm_usage SET user_id = :u"), {"u": bob.user_id})

    assert await database.run_transaction(bob, steal) == 0
    with pytest.raises(DBAPIError, match="row-level security"):
        await database.run_transaction(alice, give)
    assert await database.run_transaction(alice, count) == 1


async def test_the_owner_of_the_tables_sees_no_users_rows(
    database: DatabaseManager, database_urls: Mapping[str, str]
) -> None:
    """Row-level security binds the owner too: it migrates, it does not read."""
    alice = someone("alice")
    await database.run_transaction(alice, lambda s: add(s, alice))
    async with DatabaseManager(database_settings(database_urls["owner"]), name="owner") as owner:
        assert await owner.run_transaction(None, count) == 0


@pytest.mark.parametrize(
    ("role", "table"),
    [("app_a", "accounts"), ("app_b", "accounts"), ("auth", "llm_usage"), ("auth", "runs"),
     ("auth", "applied"), ("relay", "accounts"), ("relay", "llm_usage"), ("relay", "runs")],
)  # fmt: skip
async def test_a_role_reads_its_own_tables_only(
    database_urls: Mapping[str, str], role: str, table: str
) -> None:
    """Each login role is refused the tables of the other services."""
    async with DatabaseManager(database_settings(database_urls[role]), name=role) as manager:
        with pytest.raises(DBAPIError, match="permission denied"):
            await manager.run_transaction(None, lambda s: s.execute(text(f"SELECT 1 FROM {table}")))


async def test_a_user_does_not_leak_to_the_next_session_of_the_connection(
    database_urls: Mapping[str, str],
) -> None:
    """One connection serves user after user, also after an error: each sees only their own."""
    settings = database_settings(database_urls["app_a"], pool_size=1)
    async with DatabaseManager(settings, name="one connection") as manager:
        alice = someone("alice")
        await manager.run_transaction(alice, lambda s: add(s, alice))

        async def fail(session: AsyncSession) -> None:
            await add(session, alice)
            raise ValueError("on purpose")

        with pytest.raises(ValueError, match="on purpose"):
            await manager.run_transaction(alice, fail)
        for _ in range(3):
            assert await manager.run_transaction(None, count) == 0
            assert await manager.run_transaction(someone("bob"), count) == 0
            assert await manager.run_transaction(alice, count) == 1
        assert manager.statistics().open == 1


async def test_twenty_users_at_once_on_four_connections_never_mix(
    database: DatabaseManager,
) -> None:
    """However the connections go round, each user finds exactly what is theirs."""
    users = [(someone(), number) for number in range(1, 21)]

    async def work(user: UserContext, number: int) -> int:
        for _ in range(number % 4 + 1):
            await database.run_transaction(user, lambda s: add(s, user))
        return await database.run_transaction(user, count)

    found = await asyncio.gather(*(work(user, number) for user, number in users))
    assert found == [number % 4 + 1 for _, number in users]
    assert database.statistics().open <= 4


# The pool


async def test_an_exhausted_pool_says_its_size_use_and_waiters(
    database_urls: Mapping[str, str],
) -> None:
    """The error names the pool's size, how many are in use and how many wait; statistics agree."""
    settings = database_settings(database_urls["app_a"], pool_size=2, acquire_timeout=0.3)
    async with DatabaseManager(settings, name="small") as manager:
        async with manager.session(None), manager.session(None):

            async def ask() -> None:
                async with manager.session(None):
                    pass

            asking = [asyncio.create_task(ask()) for _ in range(3)]
            await asyncio.sleep(0.05)
            now = manager.statistics()
            errors = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(error, LimitExceeded) for error in errors), errors
        message = str(errors[0])
        assert "0.3 s" in message
        assert "pool of 2" in message
        assert "2 in use" in message
        assert (now.size, now.in_use, now.waiting) == (2, 2, 3)
        assert "3 waiting" in message
        assert await manager.run_transaction(None, count) == 0


async def test_a_cancelled_task_gives_its_connection_back(database: DatabaseManager) -> None:
    """Cancelled while the server works, waiting for the pool, or in the body: nothing stays lent."""

    async def sleep(session: AsyncSession) -> None:
        await session.execute(text("SELECT pg_sleep(30)"))

    tasks = [asyncio.create_task(database.run_transaction(None, sleep)) for _ in range(8)]
    await until(lambda: database.statistics().in_use == 4, what="a full pool")
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in ended)
    await until(lambda: database.statistics().in_use == 0, what="the connections to be back")
    results = await asyncio.gather(*(database.run_transaction(None, count) for _ in range(8)))
    assert results == [0] * 8


async def test_cancelled_at_any_moment_nothing_stays_lent(database: DatabaseManager) -> None:
    """Cancelling after each of the first loop turns of a transaction leaves the pool whole."""
    user = someone()
    for turns in range(40):
        task = asyncio.create_task(database.run_transaction(user, lambda s: add(s, user)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(lambda: database.statistics().in_use == 0, what="the connections to be back")
    assert database.statistics().open <= 4
    await database.run_transaction(user, count)


async def test_closing_twice_is_harmless_and_leaves_no_connection(
    database_urls: Mapping[str, str], admin: DatabaseManager
) -> None:
    """A closed manager has no connection on the server."""
    manager = DatabaseManager(database_settings(database_urls["app_a"]), name="closing")
    await manager.run_transaction(None, count)
    await manager.aclose()
    await manager.aclose()

    async def gone() -> bool:
        return await admin.run_transaction(None, connections) == 0

    async def connections(session: AsyncSession) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closing'"
        return int(await session.scalar(text(query)) or 0)

    await until(gone, what="the connection to end")


# Replay


async def test_a_serialization_failure_is_replayed(database: DatabaseManager) -> None:
    """The server refuses a transaction with 40001: it is run again from its start, and counts once."""
    user = someone()
    attempts = 0

    async def fails_twice(session: AsyncSession) -> int:
        nonlocal attempts
        attempts += 1
        await add(session, user)
        if attempts < 3:
            await session.execute(
                text("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$")
            )
        return await count(session)

    assert await database.run_transaction(user, fails_twice) == 1
    assert attempts == 3
    assert database.statistics().replayed == 2


async def test_a_deadlock_is_replayed(database: DatabaseManager) -> None:
    """Two transactions lock the same two rows in opposite order: both end well."""
    user = someone()
    await database.run_transaction(user, lambda s: add(s, user, 1))
    await database.run_transaction(user, lambda s: add(s, user, 2))
    meeting = asyncio.Barrier(2)

    def body(order: tuple[int, int]):
        tries = 0

        async def lock(session: AsyncSession) -> None:
            nonlocal tries
            tries += 1
            for step, tokens in enumerate(order):
                await session.execute(
                    text(
                        "UPDATE llm_usage SET output_tokens = output_tokens + 1 WHERE input_tokens = :t"
                    ),
                    {"t": tokens},
                )
                if tries == 1 and step == 0:
                    await meeting.wait()

        return lock

    await asyncio.gather(
        database.run_transaction(user, body((1, 2))), database.run_transaction(user, body((2, 1)))
    )
    assert database.statistics().replayed >= 1
    total = await database.run_transaction(
        user, lambda s: s.scalar(text("SELECT sum(output_tokens) FROM llm_usage"))
    )
    assert total == 4


async def test_a_terminated_backend_is_replayed(
    database: DatabaseManager, admin: DatabaseManager
) -> None:
    """pg_terminate_backend in mid-transaction: the body is run again, its effect is there once."""
    user = someone()
    attempts = 0

    async def body(session: AsyncSession) -> int:
        nonlocal attempts
        attempts += 1
        await add(session, user)
        if attempts == 1:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            await admin.run_transaction(
                None,
                lambda s: s.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid}),
            )
        return await count(session)

    assert await database.run_transaction(user, body) == 1
    assert attempts == 2


async def test_idle_connections_that_were_terminated_cost_no_error(
    database: DatabaseManager, admin: DatabaseManager
) -> None:
    """A pool whose connections have all been cut works on at the next call."""
    user = someone()
    await asyncio.gather(*(database.run_transaction(user, count) for _ in range(4)))
    await admin.run_transaction(
        None,
        lambda s: s.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE application_name = 'test' AND datname = current_database()"
            )
        ),
    )
    results = await asyncio.gather(*(database.run_transaction(user, count) for _ in range(8)))
    assert results == [0] * 8


async def test_a_restart_under_load_costs_no_error_and_no_double_effect(
    servers: Services, database: DatabaseManager
) -> None:
    """PostgreSQL is killed and started again under six writers: each key has had its effect once."""
    user = someone()
    stop = asyncio.Event()

    async def write(writer: int) -> int:
        done = 0
        while not stop.is_set():
            await database.run_transaction(user, lambda s: add(s, user), key=f"{writer}:{done}")
            done += 1
        return done

    writers = [asyncio.create_task(write(n)) for n in range(6)]
    await until(lambda: database.statistics().committed > 20, what="some commits")
    await servers.postgres.kill()
    await servers.postgres.restart()
    before = database.statistics().committed
    await until(
        lambda: database.statistics().committed > before + 20, what="commits after the restart"
    )
    stop.set()
    done = await asyncio.gather(*writers)
    assert await database.run_transaction(user, count) == sum(done)
    assert database.statistics().replayed > 0


async def test_a_server_that_stays_away_is_unavailable_at_the_deadline(
    servers: Services, database: DatabaseManager
) -> None:
    """The caller waits as long as it said, then is told; health says so meanwhile."""
    await database.run_transaction(None, count)
    await servers.postgres.kill()
    try:
        assert (await database.health()).status == "down"
        with pytest.raises(
            Unavailable, match=r"PostgreSQL is unavailable: no answer within 0\.3 s"
        ):
            await database.run_transaction(None, count, deadline=0.3)
    finally:
        await servers.postgres.restart()
    assert await database.run_transaction(None, count) == 0
    assert (await database.health()).status == "ok"


async def test_an_error_of_the_body_is_raised_at_once_and_rolls_back(
    database: DatabaseManager,
) -> None:
    """What a body does wrong is neither tried again nor half kept."""
    user = someone()
    attempts = 0

    async def body(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        await add(session, user)
        await session.execute(text("SELECT 1/0"))

    with pytest.raises(DBAPIError, match="division by zero"):
        await database.run_transaction(user, body)
    assert attempts == 1
    assert await database.run_transaction(user, count) == 0


@pytest.mark.parametrize("seconds", [0.1, 0.0004])
async def test_a_statement_that_takes_too_long_is_ended(
    database_urls: Mapping[str, str], seconds: float
) -> None:
    """The configured statement timeout is the server's; less than it can count is not none."""
    settings = database_settings(database_urls["app_a"], statement_timeout=seconds)
    async with DatabaseManager(settings, name="hasty") as manager:
        with pytest.raises(DBAPIError) as ended:
            await manager.run_transaction(None, lambda s: s.execute(text("SELECT pg_sleep(5)")))
    # By its code alone: a timer of 1 ms that fires between two statements ends the second one, and
    # PostgreSQL then words it as "user request" (ProcessInterrupts asks the timer, which is off).
    assert getattr(ended.value.orig, "sqlstate", None) == "57014"


# Keys


async def test_a_key_has_its_effect_once(database: DatabaseManager) -> None:
    """A repeated call with the same key does nothing and returns the first result."""
    user = someone()
    first = await database.run_transaction(user, lambda s: add(s, user), key="k")
    second = await database.run_transaction(user, lambda s: add(s, user), key="k")
    other = await database.run_transaction(user, lambda s: add(s, user), key="other")
    assert (first, second, other) == (1, 1, 2)


async def test_two_calls_with_one_key_at_once_have_one_effect(database: DatabaseManager) -> None:
    """The later one waits for the earlier and returns its result."""
    user = someone()

    async def slow(session: AsyncSession) -> int:
        await session.execute(text("SELECT pg_sleep(0.05)"))
        return await add(session, user)

    results = await asyncio.gather(
        *(database.run_transaction(user, slow, key="k") for _ in range(4))
    )
    assert results == [1] * 4
    assert await database.run_transaction(user, count) == 1


async def test_a_key_whose_transaction_failed_is_free(database: DatabaseManager) -> None:
    """Only a commit uses a key up."""
    user = someone()

    async def fail(session: AsyncSession) -> int:
        await add(session, user)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await database.run_transaction(user, fail, key="k")
    assert await database.run_transaction(user, lambda s: add(s, user), key="k") == 1


async def test_the_same_key_of_two_users_is_two_keys(database: DatabaseManager) -> None:
    """No user learns of, or uses up, another's keys."""
    alice, bob = someone("alice"), someone("bob")
    assert await database.run_transaction(alice, lambda s: add(s, alice), key="k") == 1
    assert await database.run_transaction(bob, lambda s: add(s, bob), key="k") == 1


async def test_a_key_without_a_user_is_refused(database: DatabaseManager) -> None:
    """A key belongs to somebody."""
    with pytest.raises(PermissionDenied, match="key"):
        await database.run_transaction(None, count, key="k")


async def test_a_result_without_json_fails_and_leaves_nothing(database: DatabaseManager) -> None:
    """A result that cannot be recorded is refused, with the effect."""
    user = someone()

    async def body(session: AsyncSession) -> object:
        await add(session, user)
        return object()

    with pytest.raises(Exception, match="serializable"):
        await database.run_transaction(user, body, key="k")
    assert await database.run_transaction(user, count) == 0


async def test_a_connection_that_dies_after_the_commit_has_one_effect(
    database: DatabaseManager, admin: DatabaseManager
) -> None:
    """Nobody knows whether the commit happened; the key settles it, whichever it was."""
    user = someone()
    results = []
    for number in range(10):
        attempts = 0

        async def body(session: AsyncSession) -> int:
            nonlocal attempts
            attempts += 1
            seen = await add(session, user)
            if attempts == 1:
                pid = await session.scalar(text("SELECT pg_backend_pid()"))
                # The backend dies a moment later: before, in or after the commit.
                await session.execute(text("SELECT 1"))
                tasks.append(asyncio.create_task(terminate(pid)))  # noqa: B023
                for _ in range(number):  # noqa: B023
                    await asyncio.sleep(0.0005)
            return seen

        async def terminate(pid: object) -> None:
            await admin.run_transaction(
                None, lambda s: s.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            )

        tasks: list[asyncio.Task[None]] = []
        results.append(await database.run_transaction(user, body, key=f"k{number}"))
        await asyncio.gather(*tasks)
    assert results == list(range(1, 11))
    assert await database.run_transaction(user, count) == 10


# Refusals


@pytest.mark.parametrize("call", ["run_transaction", "wait_for_schema", "session"])
async def test_a_wrong_password_is_an_authentication_error_without_it(
    database_urls: Mapping[str, str], call: str
) -> None:
    """A refused role is told at once and in our words, and the password is in none of them."""
    head, _, tail = database_urls["app_a"].rpartition("@")
    url = f"{head.rpartition(':')[0]}:not-the-password@{tail}"
    # Which variable to look at, is what the settings were read from.
    settings = database_settings(url, url_variable="WORKER_DATABASE_URL")
    async with DatabaseManager(settings, name="stranger") as manager:
        with pytest.raises(AuthenticationError) as refused:
            if call == "run_transaction":
                await manager.run_transaction(None, count)
            elif call == "wait_for_schema":
                await manager.wait_for_schema(deadline=5)
            else:
                async with manager.session(None):
                    pass
        assert str(refused.value).endswith("; see WORKER_DATABASE_URL")
        assert "not-the-password" not in str(refused.value)
        assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        ("sslmode=prefer&application_name=other", "application_name", "asks"),
        ("options=-clock_timeout%3D3s", "lock_timeout", "3s"),
    ],
)
async def test_options_of_a_url_are_those_of_libpq(
    database_urls: Mapping[str, str], options: str, setting: str, value: str
) -> None:
    """What people write behind the ? has its meaning there, and our own settings win over it."""
    settings = database_settings(f"{database_urls['app_a']}?{options}")
    query = text("SELECT current_setting(:name)")
    async with DatabaseManager(settings, name="asks") as manager, manager.session(None) as session:
        assert await session.scalar(query, {"name": setting}) == value


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("sslmode=maybe", "verify-full"),
        ("pool_size=3", 'unrecognized configuration parameter "pool_size"'),
        ("lock_timeout=soon", 'invalid value for parameter "lock_timeout"'),
    ],
)
async def test_an_option_that_cannot_be_used_is_told_without_the_password(
    database_urls: Mapping[str, str], options: str, why: str
) -> None:
    """A wrong option is a wrong setting, at the first connection and when settings change."""
    good = database_settings(database_urls["app_a"])
    bad = database_settings(f"{database_urls['app_a']}?{options}")
    async with DatabaseManager(bad, name="wrong") as manager:
        with pytest.raises(SettingsError) as first:
            await manager.run_transaction(None, count)
    async with DatabaseManager(good, name="right") as manager:
        with pytest.raises(SettingsError) as changed:
            await manager.reconfigure(bad)
        assert await manager.run_transaction(None, count) == 0
    for refused in (first, changed):
        assert why in str(refused.value)
        assert database_urls["app_a"].split(":")[2].partition("@")[0] not in str(refused.value)


async def test_a_database_that_a_role_may_not_enter_is_refused(
    admin: DatabaseManager, database_urls: Mapping[str, str]
) -> None:
    """The right to connect is part of what the server accepts or refuses."""
    url = database_urls["app_a"]
    database = url.rpartition("/")[2]

    async def run(statement: str) -> None:
        await admin.run_transaction(None, lambda s: s.execute(text(statement)))

    await run(f"REVOKE CONNECT ON DATABASE {database} FROM {database}_app_a")
    try:
        async with DatabaseManager(database_settings(url), name="outside") as manager:
            with pytest.raises(AuthenticationError):
                await manager.run_transaction(None, count)
    finally:
        await run(f"GRANT CONNECT ON DATABASE {database} TO {database}_app_a")


async def test_health_with_a_refused_role_is_down(database_urls: Mapping[str, str]) -> None:
    """Health is data, also when the server refuses the role."""
    head, _, tail = database_urls["app_a"].rpartition("@")
    url = f"{head.rpartition(':')[0]}:not-the-password@{tail}"
    async with DatabaseManager(database_settings(url), name="stranger") as manager:
        found = await manager.health()
    assert found.status == "down"
    assert "not-the-password" not in found.reason


async def test_health_of_a_pool_in_full_use_is_down_in_time(
    database_urls: Mapping[str, str],
) -> None:
    """A probe waits no longer than anybody else for a connection."""
    settings = database_settings(database_urls["app_a"], pool_size=1, acquire_timeout=0.2)
    async with DatabaseManager(settings, name="busy") as manager:
        async with manager.session(None):
            async with asyncio.timeout(2):
                assert (await manager.health()).status == "down"
        assert (await manager.health()).status == "ok"


# Records of runs


async def test_a_run_is_recorded_once_and_its_first_end_counts(database: DatabaseManager) -> None:
    """Beginning twice is one record; a later end does not change the first."""
    runs, user = RunRecords(database), someone()
    first, there_before = await runs.begin(user, agent="a")
    assert (first["state"], there_before) == ("running", False)
    assert await runs.begin(user, agent="a") == (first, True)
    await runs.finish(user, state="completed", result={"x": 1}, error=None)
    await runs.finish(user, state="failed", result=None, error="late")
    record, _ = await runs.begin(user, agent="a")
    assert (record["state"], record["result"], record["error"]) == ("completed", {"x": 1}, None)


async def test_a_run_is_its_users_only(database: DatabaseManager) -> None:
    """Another user's run is not there, even when its id is known."""
    runs, alice = RunRecords(database), someone("alice")
    await runs.begin(alice, agent="a")
    bob = UserContext(someone("bob").user_id, alice.thread_id, alice.run_id)
    assert await runs.get(bob) is None
    await runs.finish(bob, state="failed", result=None, error="not mine")
    record = await runs.get(alice)
    assert record is not None
    assert record["state"] == "running"


async def test_many_rows_at_once_are_the_users_own(database: DatabaseManager) -> None:
    """A bulk insert with one foreign row writes none."""
    alice, bob = someone("alice"), someone("bob")
    rows = [
        {"user_id": who.user_id, "at": dt.datetime.now(dt.UTC), "model": "m", "input_tokens": 1,
         "output_tokens": 1, "cost_microusd": 1}
        for who in (alice, alice, bob)
    ]  # fmt: skip
    with pytest.raises(DBAPIError, match="row-level security"):
        await database.run_transaction(alice, lambda s: s.execute(insert(LlmUsage), rows))
    assert await database.run_transaction(alice, count) == 0


async def test_a_process_that_stands_still_in_a_transaction_does_not_hold_its_successor(
    database_urls: Mapping[str, str], user: UserContext
) -> None:
    """The server ends its transaction; the same call made elsewhere goes on, and counts once."""
    settings = database_settings(database_urls["app_a"], idle_transaction_timeout=0.2)
    stands_still = asyncio.Event()
    go_on = asyncio.Event()
    calls = []

    async def frozen(session: AsyncSession) -> str:
        await session.execute(text("SELECT 1"))
        calls.append("frozen")
        stands_still.set()
        await go_on.wait()
        await session.execute(text("SELECT 1"))
        return "frozen"

    async def successor(session: AsyncSession) -> str:
        calls.append("successor")
        return "successor"

    async with DatabaseManager(settings, name="a") as a, DatabaseManager(settings, name="b") as b:
        first = asyncio.create_task(a.run_transaction(user, frozen, key="once"))
        await stands_still.wait()
        assert await b.run_transaction(user, successor, key="once", deadline=10) == "successor"
        go_on.set()
        assert await first == "successor"
    assert calls == ["frozen", "successor"]

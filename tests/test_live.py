"""LiveChanges: changed settings reach what runs, one revision after the other, and failures are told."""

from __future__ import annotations

import asyncio
import logging

import pytest
from streams.support import threads

from ssot.configuration import Settings, UnifiedConfiguration, environment_options
from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError, Unavailable
from ssot.live import LiveChanges

GOOD = {
    "SSOT_DATABASE_URL": "postgresql://role:s3cret-Pq7x@host/db",
    "SSOT_REDIS_URL": "redis://h:1/0",
}


def worker() -> tuple[IsolatedEnvironment, UnifiedConfiguration]:
    """The environment of a worker, and its settings, which follow it."""
    environment = IsolatedEnvironment(GOOD, **environment_options("worker"))
    configuration = UnifiedConfiguration(environment, "worker")
    configuration.follow(environment)
    return environment, configuration


async def test_a_change_reaches_who_asked_for_it(caplog: pytest.LogCaptureFixture) -> None:
    """A section or one setting; the others are not called; what nobody applies is told once."""
    caplog.set_level(logging.INFO)
    environment, configuration = worker()
    calls: list[tuple[str, int]] = []
    async with LiveChanges(configuration) as changes:
        changes.on(lambda s: calls.append(("pool", s.database.pool_size)), "database")
        changes.on(
            lambda s: calls.append(("claims", s.worker.max_claims if s.worker else 0)),
            "worker.max_claims",
        )
        environment.override({"SSOT_DATABASE_POOL_SIZE": "3", "WORKER_LEASE_TTL": "4"})
        assert await changes.applied() == ()
        assert calls == [("pool", 3)]
        environment.override({"WORKER_MAX_CLAIMS": "5"})
        assert await changes.applied() == ()
    assert calls == [("pool", 3), ("claims", 5)]
    told = [record.getMessage() for record in caplog.records if record.name == "ssot.live"]
    assert told == [
        "revision 2: database.pool_size: applied",
        "revision 2: worker.lease_ttl: takes effect at the next start",
        "revision 3: worker.max_claims: applied",
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unavailable("PostgreSQL", deadline=1, cause="refused"), "PostgreSQL is unavailable"),
        (ValueError("s3cret-Pq7x"), "database: ValueError"),
    ],
)
async def test_what_cannot_be_applied_is_told_and_tried_again(
    error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With every revision until it works, also one that changes something else; the others go on."""
    environment, configuration = worker()
    attempts: list[int] = []
    claims: list[int] = []

    async def reconfigure(settings: Settings) -> None:
        attempts.append(settings.database.pool_size)
        if len(attempts) < 3:
            raise error

    async with LiveChanges(configuration) as changes:
        changes.on(reconfigure, "database")
        changes.on(lambda s: claims.append(s.worker.max_claims if s.worker else 0), "worker")
        environment.override({"SSOT_DATABASE_POOL_SIZE": "3", "WORKER_MAX_CLAIMS": "5"})
        (failed,) = await changes.applied()
        assert told in failed
        environment.override({"WORKER_MAX_CLAIMS": "6"})
        assert len(await changes.applied()) == 1
        environment.override({"WORKER_MAX_CLAIMS": "7"})
        assert await changes.applied() == ()
    assert attempts == [3, 3, 3]
    assert claims == [5, 6, 7]
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("paths", [("database", "database.pool_size"), ("database", "database")])
async def test_all_whom_a_change_concerns_are_called(
    paths: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """In the order of `on`, also for one path; that one of them works hides no other's failure."""
    environment, configuration = worker()
    calls: list[tuple[str, int]] = []

    def first(settings: Settings) -> None:
        calls.append(("first", settings.database.pool_size))
        if settings.database.pool_size == 3:
            raise ValueError("not now")

    async with LiveChanges(configuration) as changes:
        changes.on(first, paths[0])
        changes.on(lambda s: calls.append(("second", s.database.pool_size)), paths[1])
        environment.override({"SSOT_DATABASE_POOL_SIZE": "3"})
        assert await changes.applied() == ("database: ValueError",)
        assert calls == [("first", 3), ("second", 3)]
        environment.override({"SSOT_DATABASE_POOL_SIZE": "4"})
        assert await changes.applied() == ()
    assert calls[2:] == [("first", 4), ("second", 4)]
    assert "takes effect at the next start" not in caplog.text


async def test_changes_of_many_threads_end_with_the_last_one() -> None:
    """Revisions may be passed over; they never go back, and the last one is applied."""
    environment, configuration = worker()
    seen: list[int] = []
    numbers: list[int] = []
    configuration.subscribe(lambda revision: numbers.append(revision.number))

    async def slowly(settings: Settings) -> None:
        seen.append(settings.database.pool_size)
        await asyncio.sleep(0)

    def work(number: int) -> None:
        for turn in range(20):
            environment.override({"SSOT_DATABASE_POOL_SIZE": str(1 + number * 20 + turn)})

    async with LiveChanges(configuration) as changes:
        changes.on(slowly, "database")
        await asyncio.to_thread(threads, work, 4)
        assert await changes.applied() == ()
        assert seen[-1] == configuration.settings.database.pool_size
        assert configuration.settings.database.pool_size == int(
            environment.get("SSOT_DATABASE_POOL_SIZE") or 0
        )
    assert numbers == sorted(numbers)
    assert numbers[-1] == configuration.current.number


async def test_an_invalid_change_makes_no_revision() -> None:
    """It is refused where it is made, and nobody is called."""
    environment, configuration = worker()
    async with LiveChanges(configuration) as changes:
        changes.on(lambda _: pytest.fail("called"), "database")
        with pytest.raises(SettingsError, match="SSOT_DATABASE_POOL_SIZE"):
            environment.override({"SSOT_DATABASE_POOL_SIZE": "many"})
        assert await changes.applied() == ()
    assert configuration.current.number == 1


async def test_closing_gives_up_what_is_being_applied() -> None:
    """Twice as well; a change afterwards reaches nobody and harms nobody."""
    environment, configuration = worker()
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def for_ever(_: Settings) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            given_up.set()

    async with LiveChanges(configuration) as changes:
        changes.on(for_ever, "database")
        environment.override({"SSOT_DATABASE_POOL_SIZE": "3"})
        async with asyncio.timeout(5):
            await begun.wait()
    assert given_up.is_set()
    await changes.aclose()
    environment.override({"SSOT_DATABASE_POOL_SIZE": "4"})
    assert configuration.settings.database.pool_size == 3
    assert environment.statistics().failed == 0

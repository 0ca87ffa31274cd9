"""Faults of a whole platform: whatever is broken, it works again when the fault is left."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
import redis.asyncio

from lab.faults.platform import FIVE, Platform
from ssot.errors import SsotError
from ssot.lab.faults.fault import NotRecovered

LINKS = [
    ("client", "auth"),
    ("client", "node a"),
    ("auth", "postgresql"),
    ("node a", "auth"),
    ("node a", "postgresql"),
    ("node a", "redis"),
    ("worker a", "postgresql"),
    ("worker a", "redis"),
]


async def select(platform: Platform, query: str, *values: object) -> object:
    connection = await asyncpg.connect(platform.site.services.postgres.admin_url, timeout=5)
    try:
        return await connection.fetchval(query, *values)
    finally:
        connection.terminate()


async def test_everything_that_a_platform_does_goes_over_links(platform: Platform) -> None:
    """One answered question is seen on each of them, as bytes both ways and as frames."""
    before = {link.name: link.traffic() for link in platform.faults.links}
    async with platform.client() as client:
        run = await client.ask("What did I spend?")
        await client.finished(run)
        assert await client.record(run)
    for near, far in LINKS:
        link = platform.site.link(near, far)
        was, now = before[link.name], link.traffic()
        if (near, far) != ("node a", "auth"):
            # Its keys are fetched once.
            assert now.bytes_to > was.bytes_to, link
        assert now.bytes_from >= was.bytes_from, link
        frames = now.frames_from - was.frames_from
        # The welcome, the acceptance, five events and a record.
        assert (frames >= 8) == (link.name == "client → node a"), link


@pytest.mark.parametrize("kind", ["latency", "bandwidth", "cut", "cut once", "black hole"])
@pytest.mark.parametrize("ends", LINKS, ids=" → ".join)
async def test_any_link_can_be_broken_and_heals(
    platform: Platform, ends: tuple[str, str], kind: str
) -> None:
    """After the fault, the same platform answers a question at the first attempt."""
    link = platform.site.link(*ends)
    user = await platform.user()
    make = {
        "latency": lambda: link.latency(0.02, jitter=0.01),
        "bandwidth": lambda: link.bandwidth(50_000),
        "cut": link.cut,
        "cut once": lambda: link.cut(refuse=False),
        "black hole": link.black_hole,
    }[kind]
    async with make() as fault:
        await fault.triggered()
    await platform.answers(user)
    record = platform.log.since(0)[-1]
    assert (record.what, record.target) == (kind.removesuffix(" once"), link.name)
    assert record.end is not None


async def test_a_run_survives_its_client_being_cut_off_in_the_middle(platform: Platform) -> None:
    """The reset comes in the middle of an event; it is there once, and in order."""
    async with platform.client() as client:
        link = platform.site.link("client", "node a")
        async with link.cut(after_bytes=700, direction="from") as fault:
            run = await client.ask("What did I spend?")
            await fault.triggered()
        await client.finished(run)
        assert client.types(run) == FIVE
        assert client.sequence == [1, 2, 3, 4, 5]
        assert client.statistics().connects == 2


async def test_a_worker_that_lost_redis_goes_on_where_it_was(platform: Platform) -> None:
    """A run that began before the cut ends after it."""
    async with platform.client() as client:
        async with platform.site.link("worker a", "redis").black_hole(after_bytes=500) as fault:
            run = await client.ask("What did I spend?")
            await fault.triggered()
        await client.finished(run)
        assert client.types(run) == FIVE


@pytest.mark.parametrize("target", ["auth", "node a", "worker a", "postgresql", "redis"])
async def test_anything_can_stand_still_and_goes_on(platform: Platform, target: str) -> None:
    """It is stopped with all its children on entering, and answers again on leaving."""
    pid = _pid(platform, target)
    user = await platform.user()
    async with platform.faults.frozen(target):
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        assert {process.status() for process in tree} == {psutil.STATUS_STOPPED}
    assert psutil.STATUS_STOPPED not in {process.status() for process in tree}
    assert _pid(platform, target) == pid
    await platform.answers(user)


@pytest.mark.parametrize("target", ["auth", "node a", "worker a", "postgresql", "redis"])
async def test_anything_can_be_killed_and_is_there_again(platform: Platform, target: str) -> None:
    """It is gone inside, and up afterwards as another process."""
    pid = _pid(platform, target)
    user = await platform.user()
    async with platform.faults.killed(target):
        assert not psutil.pid_exists(pid)
    assert _pid(platform, target) != pid
    await platform.answers(user)


@pytest.mark.parametrize("target", ["auth", "node a", "worker a", "postgresql", "redis"])
async def test_anything_can_be_restarted(platform: Platform, target: str) -> None:
    """It ends in order and is up again as another process when the call returns."""
    pid = _pid(platform, target)
    user = await platform.user()
    await platform.faults.restarted(target)
    assert _pid(platform, target) != pid
    await platform.answers(user)
    assert platform.log.since(0)[-1].what == "restarted"


async def test_what_was_started_inside_is_not_started_again(platform: Platform) -> None:
    """A check that restarts what it killed finds its own process afterwards."""
    node = platform.processes["node a"]
    async with platform.faults.killed(node):
        await node.start()
        pid = node.pid
    assert node.pid == pid


async def test_a_frozen_process_can_be_stopped_and_killed(platform: Platform) -> None:
    """Asked to stop, it goes on and obeys; thawing what is not frozen is harmless."""
    worker = platform.processes["worker a"]
    worker.thaw()
    worker.freeze()
    assert worker.frozen
    assert await worker.stop() == 0
    worker.thaw()
    await worker.start()
    worker.freeze()
    await worker.kill()
    assert not worker.running
    await worker.start()


async def test_backends_of_one_application_are_terminated(platform: Platform) -> None:
    """Those of the worker are gone, the others are not; the next question is answered."""
    user = await platform.user()
    await platform.answers(user)
    of = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
    there = await select(platform, of, "ssot-worker")
    others = await select(platform, of, "ssot-node")
    assert there
    assert await platform.faults.terminated_backends("ssot-worker") == there
    assert await select(platform, of, "ssot-worker") == 0
    assert await select(platform, of, "ssot-node") == others
    await platform.answers(user)


async def test_without_a_name_the_labs_own_backends_are_spared(platform: Platform) -> None:
    """All of the platform's are ended, and the session that a check holds is not."""
    own = await asyncpg.connect(
        platform.site.direct_urls["app_b"], server_settings={"application_name": "ssot-lab-lock"}
    )
    try:
        assert await platform.faults.terminated_backends() > 0
        assert await own.fetchval("SELECT 1") == 1
    finally:
        await own.close()


@pytest.mark.parametrize(("name", "kind"), [("ssot-node", None), (None, "pubsub"), (None, None)])
async def test_connections_of_redis_are_killed(
    platform: Platform, name: str | None, kind: str | None
) -> None:
    """Those that are meant are gone when it returns, and a client misses nothing."""
    async with platform.client() as client:
        first = await client.ask("What did I spend?")
        await client.finished(first)
        assert await platform.faults.redis_clients_killed(name, kind) > 0  # type: ignore[arg-type]
        second = await client.ask("And now?")
        await client.finished(second)
        assert client.types(second) == FIVE
        assert client.sequence == list(range(1, 11))


@pytest.mark.parametrize("mode", ["ALL", "WRITE"])
async def test_a_paused_redis_answers_when_it_goes_on(platform: Platform, mode: str) -> None:
    """Inside, a write waits, and a read only if all is paused; on leaving both are answered."""
    async with redis.asyncio.Redis.from_url(platform.site.services.redis.url) as client:
        await client.ping()
        async with platform.faults.redis_paused(mode):  # type: ignore[arg-type]
            read = asyncio.create_task(client.get("x"))
            write = asyncio.create_task(client.set(f"{platform.site.name}:x", 1))
            done, _ = await asyncio.wait({read, write}, timeout=0.2)
            assert done == (set() if mode == "ALL" else {read})
        async with asyncio.timeout(5):
            await asyncio.gather(read, write)


async def test_a_paused_redis_that_is_killed_is_healed_as_well(platform: Platform) -> None:
    """The pause is over with the server, and leaving it raises nothing."""
    async with platform.faults.redis_paused():
        await platform.faults.restarted("redis")


async def test_heal_ends_everything_that_is_open(platform: Platform) -> None:
    """A check that left its faults open leaves a platform that works."""
    for fault in (
        platform.faults.frozen("worker a"),
        platform.site.link("node a", "redis").black_hole(),
        platform.site.link("client", "node a").cut(),
        platform.faults.killed("auth"),
        platform.faults.redis_paused(),
        platform.site.link("auth", "postgresql").latency(0.05),
    ):
        await fault.__aenter__()
    assert len(platform.faults.open) == 6
    await platform.faults.heal()
    assert platform.faults.open == ()
    assert all(record.end is not None for record in platform.log.since(0))


async def test_faults_within_faults_are_left_one_by_one(platform: Platform) -> None:
    """A link can heal while its far end is frozen, and a process while its server is down."""
    async with platform.faults.frozen("redis"):
        async with platform.site.link("node a", "redis").cut():
            pass
        async with platform.faults.frozen("worker a"):
            pass
    async with platform.faults.killed("postgresql"), platform.faults.frozen("node a"):
        pass


async def test_servers_come_back_before_the_processes_that_need_them(platform: Platform) -> None:
    """Whatever the order in which they were killed, healing them all finds the one that works."""
    for target in ("redis", "postgresql", "worker a", "node a"):
        await platform.faults.killed(target).__aenter__()
    await platform.faults.heal()


async def test_a_cancelled_body_heals_without_keeping_its_canceller_waiting(
    platform: Platform,
) -> None:
    """The fault is over at once; what recovery takes longer is left to the end of the check."""
    inside = asyncio.Event()

    async def body() -> None:
        async with platform.faults.killed("node a"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await inside.wait()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 3
    await platform.faults.heal()
    assert platform.processes["node a"].running


async def test_a_recovery_that_cannot_come_says_what_is_wrong(platform: Platform) -> None:
    """Redis has another password since: the node is named, with what it says of itself."""
    url = platform.site.services.redis.url
    password = urlsplit(url).password
    async with redis.asyncio.Redis.from_url(url) as administrator:
        fault = platform.site.link("node a", "redis").cut()
        await fault.__aenter__()
        await administrator.config_set("requirepass", "another")
        try:
            with pytest.raises(NotRecovered, match=r"node a: /health says redis is down"):
                await fault.heal(patience=2)
        finally:
            await administrator.config_set("requirepass", password)
    assert platform.faults.open == (fault,)
    await platform.faults.heal()


async def test_what_stands_still_for_another_reason_is_not_asked(platform: Platform) -> None:
    """A fault is healed in no time while the process at the near end is frozen by hand."""
    node = platform.processes["node a"]
    async with platform.site.link("node a", "redis").latency(0.01):
        node.freeze()
    node.thaw()


async def test_a_worker_started_later_has_links_of_its_own(platform: Platform) -> None:
    """Worker b can be cut off while worker a goes on."""
    user = await platform.user()
    worker = platform.process("worker", "worker b")
    await worker.start()
    try:
        async with platform.site.link("worker b", "redis").cut():
            await platform.answers(user)
        assert platform.site.link("worker b", "postgresql").traffic().bytes_to > 0
    finally:
        del platform.processes["worker b"]
        await worker.kill()


async def test_a_process_that_is_gone_is_not_brought_back(platform: Platform) -> None:
    """A worker of a check that is over stays dead when its fault is healed late."""
    worker = platform.process("worker", "worker c")
    await worker.start()
    await platform.faults.killed("worker c").__aenter__()
    del platform.processes["worker c"]
    await platform.faults.heal()
    assert not worker.running


@pytest.mark.parametrize("call", ["frozen", "killed", "link"])
async def test_a_name_that_is_not_there_is_told_with_the_nearest(
    platform: Platform, call: str
) -> None:
    """A misspelt target is found in the first minute."""
    with pytest.raises(LookupError, match=r"did you mean .*worker a"):
        if call == "link":
            platform.site.link("worker_a", "redis")
        else:
            getattr(platform.faults, call)("worker_a")


async def test_a_fault_whose_target_does_not_run_is_refused(platform: Platform) -> None:
    """What is dead cannot be frozen; nothing remains open."""
    worker = platform.processes["worker a"]
    await worker.kill()
    try:
        with pytest.raises(SsotError, match="worker a is not running"):
            async with platform.faults.frozen("worker a"):
                pass
    finally:
        await worker.start()


def test_not_recovered_is_an_error_of_ours() -> None:
    """A check that meets it fails with its sentence."""
    error = NotRecovered("cut of a → b", seconds=15, wrong="b is silent")
    assert isinstance(error, SsotError)
    assert str(error) == "cut of a → b is healed, but 15 s later b is silent"


def _pid(platform: Platform, target: str) -> int:
    servers = {
        "postgresql": platform.site.services.postgres,
        "redis": platform.site.services.redis,
    }
    return servers[target].pid if target in servers else platform.processes[target].pid

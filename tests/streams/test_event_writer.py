"""The event writer: emitting is synchronous and ordered, failures reach the run, nothing hangs."""

from __future__ import annotations

import asyncio

import pytest

from ssot.errors import Fenced, LimitExceeded, NotSerializable, SsotError, Unavailable
from ssot.events import Position, decode_event
from ssot.lab.services import Services
from ssot.streams import EventLog, EventWriter, Leases, RedisClient
from streams.support import event, someone, until


async def texts(log: EventLog, user_id: str) -> list[str]:
    entries = await log.read(user_id, Position(0, 0), limit=10_000)
    return [decode_event(entry.body).payload.text for entry in entries]


async def test_each_users_events_keep_their_order(log: EventLog) -> None:
    """However many runs emit at once, each log holds its user's events as they were emitted."""
    users = [someone() for _ in range(10)]
    async with EventWriter(log) as writer:
        pairs = [(u, writer.sink(user_id=u.user_id, run_id=u.run_id, token=1)) for u in users]
        for index in range(1, 101):
            for user, sink in pairs:
                sink.emit(event(user, index))
            if index % 17 == 0:
                await asyncio.sleep(0)
        await writer.barrier()
        for user, _ in pairs:
            assert await texts(log, user.user_id) == [str(i) for i in range(1, 101)]
        statistics = writer.statistics()
        assert (statistics.waiting, statistics.appended, statistics.refused) == (0, 1000, 0)
        assert statistics.calls < 1000


async def test_a_barrier_returns_when_everything_is_in_the_log(log: EventLog) -> None:
    """After the barrier a reader finds every event that was emitted before it."""
    user = someone()
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=1)
        for index in range(1, 6):
            sink.emit(event(user, index))
            await sink.barrier()
            assert len(await texts(log, user.user_id)) == index


async def test_a_payload_without_json_is_refused_at_emit(log: EventLog) -> None:
    """The emitter gets the error, and the events around it arrive."""
    user = someone()
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=1)
        sink.emit(event(user, 1))
        with pytest.raises(NotSerializable):
            sink.emit(event(user, 2, value=object()))
        sink.emit(event(user, 3))
        await sink.barrier()
    assert await texts(log, user.user_id) == ["1", "3"]


async def test_leaving_flushes_what_is_queued(log: EventLog) -> None:
    """Nothing that was emitted before the end is lost; closing twice is harmless."""
    user = someone()
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=1)
        for index in range(1, 51):
            sink.emit(event(user, index))
    await writer.aclose()
    assert len(await texts(log, user.user_id)) == 50


async def test_emitting_into_a_closed_writer_is_refused(log: EventLog) -> None:
    """Whoever emits too late is told, and does not wait for ever at the barrier."""
    user = someone()
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=1)
    with pytest.raises(SsotError):
        async with asyncio.timeout(1):
            sink.emit(event(user, 1))
            await sink.barrier()


async def test_a_fenced_run_fails_at_its_barrier_and_its_next_emit(
    client: RedisClient, log: EventLog
) -> None:
    """The worker whose run was taken over is told, with both tokens; another run goes on."""
    leases = Leases(client, ttl=30)
    stale, other = someone(), someone()
    old = await leases.acquire(stale.run_id, "a")
    assert old is not None
    await leases.release(old)
    newer = await leases.acquire(stale.run_id, "b")
    assert newer is not None
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=stale.user_id, run_id=stale.run_id, token=old.token)
        neighbour = writer.sink(user_id=stale.user_id, run_id=other.run_id, token=1)
        sink.emit(event(stale, 1))
        neighbour.emit(event(other, 1))
        with pytest.raises(Fenced, match=str(newer.token)):
            await sink.barrier()
        with pytest.raises(Fenced):
            sink.emit(event(stale, 2))
        await neighbour.barrier()
        assert writer.statistics().refused == 1
    assert len(await texts(log, stale.user_id)) == 1


async def test_a_full_queue_is_refused_with_its_limit(servers: Services, log: EventLog) -> None:
    """While the server is away, memory is bounded: the emitter is told the limit."""
    user = someone()
    await servers.redis.kill()
    try:
        async with EventWriter(log, capacity=5) as writer:
            sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=1)
            for index in range(1, 6):
                sink.emit(event(user, index))
            with pytest.raises(LimitExceeded, match="5"):
                sink.emit(event(user, 6))
            await servers.redis.restart()
            await sink.barrier()
    finally:
        await servers.redis.start()
    assert await texts(log, user.user_id) == ["1", "2", "3", "4", "5"]


async def test_events_wait_through_a_restart_in_order(servers: Services, log: EventLog) -> None:
    """A restart of the server in mid-stream loses, doubles and reorders nothing."""
    user = someone()
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=1)
        for index in range(1, 101):
            sink.emit(event(user, index))
            if index == 30:
                await asyncio.sleep(0)
                await servers.redis.kill()
            if index == 60:
                await servers.redis.restart()
        await sink.barrier()
    assert await texts(log, user.user_id) == [str(i) for i in range(1, 101)]


async def test_a_server_that_stays_away_fails_the_run_and_not_the_writer(
    servers: Services, client: RedisClient
) -> None:
    """At the deadline the run's barrier raises; the writer works again when the server does."""
    short = RedisClient(client.settings.model_copy(update={"retry_deadline": 0.2}), name="short")
    await short.open()
    lost, later = someone(), someone()
    log = EventLog(short)
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=lost.user_id, run_id=lost.run_id, token=1)
        await servers.redis.kill()
        try:
            sink.emit(event(lost, 1))
            with pytest.raises(Unavailable):
                await sink.barrier()
        finally:
            await servers.redis.restart()
        sink = writer.sink(user_id=later.user_id, run_id=later.run_id, token=1)
        sink.emit(event(later, 1))
        await sink.barrier()
    assert await texts(log, later.user_id) == ["1"]
    await short.aclose()


async def test_a_server_out_of_memory_fails_the_run_and_not_the_writer(client: RedisClient) -> None:
    """A refused append reaches the run that waits for it, and the writer goes on afterwards."""
    short = RedisClient(client.settings.model_copy(update={"retry_deadline": 0.3}), name="short")
    await short.open()
    log = EventLog(short)
    user, later = someone(), someone()
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=1)
        await client.redis.config_set("maxmemory", "1")
        try:
            sink.emit(event(user, 1))
            with pytest.raises(SsotError, match=r"memory|OOM"):
                async with asyncio.timeout(3):
                    await sink.barrier()
        finally:
            await client.redis.config_set("maxmemory", "0")
        sink = writer.sink(user_id=later.user_id, run_id=later.run_id, token=1)
        sink.emit(event(later, 1))
        async with asyncio.timeout(3):
            await sink.barrier()
    assert await texts(log, later.user_id) == ["1"]
    await short.aclose()


async def test_a_run_that_lost_an_event_writes_none_after_it(
    servers: Services, client: RedisClient
) -> None:
    """Events emitted while the lost one was on its way do not overtake it in the log."""
    short = RedisClient(client.settings.model_copy(update={"retry_deadline": 0.3}), name="short")
    await short.open()
    log, user = EventLog(short), someone()
    async with EventWriter(log) as writer:
        sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=1)
        sink.emit(event(user, 1))
        await sink.barrier()
        await servers.redis.kill()
        try:
            sink.emit(event(user, 2))
            # One turn of the loop: the first is in flight, the next one waits behind it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            sink.emit(event(user, 3))
            await until(lambda: sink.failure is not None, what="the second event to be lost")
        finally:
            await servers.redis.restart()
        with pytest.raises(Unavailable):
            await sink.barrier()
    assert await texts(log, user.user_id) == ["1"]
    await short.aclose()

"""The event log: gap-free for any number of writers, honest about reboots, closed to fenced workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from ssot.configuration import RedisSettings
from ssot.context import UserContext
from ssot.errors import AuthenticationError, Fenced, Unavailable
from ssot.events import Bounds, Position
from ssot.lab.services import Services
from ssot.streams import Append, EventLog, Leases, RedisClient
from ssot.streams.client import StaleEpoch
from ssot.websocket.feed import resumable
from streams.support import someone, until


def some(
    user: UserContext, indices: Iterable[int], *, token: int = 1, again: bool = False
) -> list[Append]:
    return [
        Append(f"{user.run_id}:{i}", user.run_id, token, f'{{"i":{i}}}'.encode(), again)
        for i in indices
    ]


def sequence(positions: Iterable[object]) -> list[int]:
    return [p.seq for p in positions if isinstance(p, Position)]


async def test_eight_writers_leave_no_gap_and_no_double(
    servers: Services, redis_settings: RedisSettings, user: UserContext
) -> None:
    """Eight processes that append at once get the numbers 1 to 400, each once, in stored order."""
    clients = [RedisClient(redis_settings, name=f"writer-{n}") for n in range(8)]
    runs = [someone() for _ in clients]

    async def write(client: RedisClient, run: UserContext) -> list[int]:
        log = EventLog(client)
        seqs: list[int] = []
        for start in range(1, 51, 5):
            seqs += sequence(await log.append(user.user_id, some(run, range(start, start + 5))))
        return seqs

    got = await asyncio.gather(*(write(*pair) for pair in zip(clients, runs, strict=True)))
    assert sorted(seq for seqs in got for seq in seqs) == list(range(1, 401))
    assert all(seqs == sorted(seqs) for seqs in got)
    log = EventLog(clients[0])
    start = Position(clients[0].epoch, 0)
    entries = await log.read(user.user_id, start, limit=1000)
    assert sequence(e.position for e in entries) == list(range(1, 401))
    for client in clients:
        await client.aclose()


async def test_logs_of_two_users_count_apart(log: EventLog) -> None:
    """One user's events never move another user's sequence, and are not in the other's log."""
    alice, bob = someone("alice"), someone("bob")
    await log.append(alice.user_id, some(alice, range(1, 8)))
    (position,) = await log.append(bob.user_id, some(bob, [1]))
    assert isinstance(position, Position)
    assert position.seq == 1
    entries = await log.read(bob.user_id, Position(0, 0))
    assert [e.body for e in entries] == [b'{"i":1}']


async def test_reading_in_pages_gives_everything_in_order(log: EventLog, user: UserContext) -> None:
    """Each page goes on exactly after the last position of the one before."""
    await log.append(user.user_id, some(user, range(1, 24)))
    position, seqs = Position(0, 0), []
    while page := await log.read(user.user_id, position, limit=5):
        seqs += sequence(e.position for e in page)
        position = page[-1].position
    assert seqs == list(range(1, 24))


async def test_the_epoch_rises_after_kill_and_restart(
    servers: Services, client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """A rebooted server counts anew in a higher epoch; what it kept is still there."""
    (before,) = await log.append(user.user_id, some(user, [1]))
    await servers.redis.kill()
    await servers.redis.restart()
    (after,) = await log.append(user.user_id, some(user, [2]))
    assert isinstance(before, Position)
    assert isinstance(after, Position)
    assert after.epoch > before.epoch
    assert after.seq == 1
    entries = await log.read(user.user_id, Position(0, 0))
    assert [e.position for e in entries] == [before, after]
    bounds = await log.bounds(user.user_id)
    assert bounds == Bounds(before, after)
    assert not resumable(before, bounds)


async def test_an_append_waits_through_a_restart(
    servers: Services, client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """What is appended while the server is away is there when it is back."""
    await servers.redis.kill()
    appending = asyncio.create_task(log.append(user.user_id, some(user, [1, 2, 3])))
    try:
        done, _ = await asyncio.wait({appending}, timeout=0.1)
        assert not done
    finally:
        await servers.redis.restart()
    assert sequence(await appending) == [1, 2, 3]


async def test_the_epoch_changes_after_flushall_though_the_connection_stays(
    client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """An emptied server is a new beginning: a reader with an old cursor is told."""
    (before,) = await log.append(user.user_id, some(user, [1]))
    await client.redis.flushall()
    assert isinstance(before, Position)
    bounds = await log.bounds(user.user_id)
    assert bounds.last.epoch > before.epoch
    assert not resumable(before, bounds)
    (after,) = await log.append(user.user_id, some(user, [2]))
    assert after == Position(bounds.last.epoch, 1)


async def test_a_writer_that_missed_a_flushall_notices_in_its_append(
    redis_settings: RedisSettings, user: UserContext
) -> None:
    """Two writers of which one never looked write into one epoch afterwards."""
    one, two = (RedisClient(redis_settings, name=name) for name in ("one", "two"))
    await one.open()
    await two.open()
    old = two.epoch
    await one.redis.flushall()
    (first,) = await EventLog(one).append(user.user_id, some(user, [1]))
    (second,) = await EventLog(two).append(user.user_id, some(user, [2]))
    assert isinstance(first, Position)
    assert isinstance(second, Position)
    assert first.precedes(second)
    assert second.epoch > old
    await one.aclose()
    await two.aclose()


async def test_an_epoch_that_is_over_is_refused(
    client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """An append in an older epoch than the server's is not applied, but made again in the new one."""
    await log.append(user.user_id, some(user, [1]))
    newest = client.epoch + 5
    await client.redis.hset(client.epoch_key, "epoch", str(newest))  # type: ignore[misc]
    (position,) = await log.append(user.user_id, some(user, [2]))
    assert position == Position(newest, 1)
    assert [e.position.epoch for e in await log.read(user.user_id, Position(0, 0))] == [
        newest - 5,
        newest,
    ]


async def test_an_epoch_below_the_log_is_never_written(
    client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """A server whose epoch fell behind its own log cannot make the log go back."""
    await log.append(user.user_id, some(user, [1]))
    await client.redis.hset(client.epoch_key, "epoch", str(client.epoch - 5))  # type: ignore[misc]
    client.epoch -= 5
    short = RedisClient(client.settings.model_copy(update={"retry_deadline": 0.2}), name="short")
    short.epoch = client.epoch
    with pytest.raises(Unavailable) as ended:
        await EventLog(short).append(user.user_id, some(user, [2]))
    assert isinstance(ended.value.__cause__, StaleEpoch)
    await short.aclose()


async def test_a_fenced_run_is_refused_and_its_neighbour_is_not(
    client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """In one call, events of the run that was taken over are refused and all others are written."""
    leases = Leases(client, ttl=30)
    stale, fresh = someone(), someone()
    old = await leases.acquire(stale.run_id, "a")
    assert old is not None
    await leases.release(old)
    newer = await leases.acquire(stale.run_id, "b")
    good = await leases.acquire(fresh.run_id, "a")
    assert newer is not None
    assert good is not None
    batch = [
        *some(fresh, [1], token=good.token),
        *some(stale, [1, 2], token=old.token),
        *some(fresh, [2], token=good.token),
    ]
    answers = await log.append(user.user_id, batch)
    assert sequence(answers) == [1, 2]
    fenced = [a for a in answers if isinstance(a, Fenced)]
    assert [(f.run_id, f.token, f.current) for f in fenced] == [
        (stale.run_id, old.token, newer.token)
    ] * 2
    bodies = [e.body for e in await log.read(user.user_id, Position(0, 0))]
    assert bodies == [b'{"i":1}', b'{"i":2}']


async def test_an_event_appended_again_is_found_and_not_doubled(
    log: EventLog, user: UserContext
) -> None:
    """The second worker of a run repeats its events: the old positions come back, only new ones grow."""
    first = await log.append(user.user_id, some(user, [1, 2, 3]))
    second = await log.append(user.user_id, some(user, [1, 2, 3, 4], again=True))
    assert second[:3] == first
    assert sequence(second) == [1, 2, 3, 4]
    assert len(await log.read(user.user_id, Position(0, 0))) == 4


async def test_a_lost_answer_is_not_appended_twice(
    servers: Services, client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """The server applies the append and dies before it answers: the retry finds what was written."""
    await log.append(user.user_id, some(user, [1]))
    settings = client.settings.model_copy(update={"timeout": 0.2})
    impatient = RedisClient(settings, name="impatient")
    await impatient.open()
    # Warm connection, so that the request is in the server's socket before it freezes.
    servers.redis.freeze()
    try:
        appending = asyncio.create_task(
            EventLog(impatient).append(user.user_id, some(user, [2, 3]))
        )
        await asyncio.wait({appending}, timeout=0.5)
    finally:
        servers.redis.thaw()
    assert sequence(await appending) == [2, 3]
    entries = await log.read(user.user_id, Position(0, 0))
    assert [e.body for e in entries] == [b'{"i":1}', b'{"i":2}', b'{"i":3}']
    await impatient.aclose()


async def test_connections_killed_again_and_again_lose_and_double_nothing(
    redis_settings: RedisSettings, client: RedisClient, user: UserContext
) -> None:
    """CLIENT KILL of the writer's connections in mid-stream: every event is there once, in order."""
    writer = RedisClient(redis_settings, name=f"killed-{redis_settings.prefix}")
    log = EventLog(writer)
    stop = asyncio.Event()

    async def kill() -> int:
        killed = 0
        while not stop.is_set():
            for one in await client.redis.client_list():
                if one["name"] == writer.name:
                    killed += await client.redis.client_kill_filter(_id=one["id"])
            await asyncio.sleep(0.001)
        return killed

    killing = asyncio.create_task(kill())
    seqs: list[int] = []
    for start in range(1, 301, 3):
        seqs += sequence(await log.append(user.user_id, some(user, range(start, start + 3))))
    stop.set()
    assert await killing > 0
    assert seqs == list(range(1, 301))
    entries = await log.read(user.user_id, Position(0, 0), limit=1000)
    assert [e.body for e in entries] == [f'{{"i":{i}}}'.encode() for i in range(1, 301)]
    await writer.aclose()


async def test_bounds_tell_what_was_trimmed(client: RedisClient, user: UserContext) -> None:
    """A log keeps about what it was told to keep, and says which position is the oldest."""
    small = RedisClient(client.settings.model_copy(update={"keep_events": 100}), name="small")
    log = EventLog(small)
    assert await log.bounds(user.user_id) == Bounds(None, Position(client.epoch, 0))
    await log.append(user.user_id, some(user, range(1, 501)))
    first, last = await log.bounds(user.user_id)
    assert first is not None
    assert last == Position(client.epoch, 500)
    assert 1 < first.seq <= 401
    entries = await log.read(user.user_id, Position(0, 0), limit=1000)
    assert sequence(e.position for e in entries) == list(range(first.seq, 501))
    assert resumable(Position(client.epoch, first.seq - 1), Bounds(first, last))
    assert not resumable(Position(client.epoch, first.seq - 2), Bounds(first, last))
    await small.aclose()


async def test_a_log_trimmed_to_nothing_has_still_counted(
    client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """An empty log goes on after the last number it ever gave."""
    await log.append(user.user_id, some(user, [1, 2, 3]))
    await client.redis.xtrim(log.stream(user.user_id), maxlen=0)
    assert await log.bounds(user.user_id) == Bounds(None, Position(client.epoch, 3))
    assert sequence(await log.append(user.user_id, some(user, [4]))) == [4]


async def test_an_append_is_published_once_it_is_stored(
    client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """The channel carries each entry with its position, in order, to those who listen."""
    async with client.redis.pubsub() as listening:
        await listening.subscribe(log.channel(user.user_id))
        await listening.get_message(timeout=5)
        await log.append(user.user_id, some(user, [1, 2]))
        heard = [await listening.get_message(timeout=5) for _ in range(2)]
    assert [message["data"] for message in heard] == [
        f'{client.epoch}-{i} {{"i":{i}}}'.encode() for i in (1, 2)
    ]


async def test_a_cut_append_only_file_never_passes_for_whole(
    servers: Services, client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """A server that lost the newest events opens a higher epoch than any, and old cursors are told."""
    await log.append(user.user_id, some(user, range(1, 11)))
    cursor = (await log.bounds(user.user_id)).last
    path = await tail(client)
    issued = client.epoch
    await servers.redis.kill()
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 300)
    await servers.redis.restart()
    bounds = await log.bounds(user.user_id)
    kept = sequence(e.position for e in await log.read(user.user_id, Position(0, 0)))
    assert len(kept) < 10, "the cut has lost nothing"
    assert bounds.last.epoch > issued
    assert not resumable(cursor, bounds)
    (after,) = await log.append(user.user_id, some(user, [11]))
    assert after == Position(bounds.last.epoch, 1)


async def test_a_cut_that_loses_the_newest_epoch_does_not_issue_it_again(
    servers: Services, client: RedisClient, log: EventLog, user: UserContext
) -> None:
    """Also when the record of the epoch itself was lost, the next epoch is higher than it was."""
    path = await tail(client)
    size = path.stat().st_size
    await servers.redis.kill()
    await servers.redis.restart()
    (before,) = await log.append(user.user_id, some(user, [1]))
    lost = client.epoch
    await servers.redis.kill()
    with path.open("rb+") as file:
        file.truncate(size)
    await servers.redis.restart()
    bounds = await log.bounds(user.user_id)
    assert bounds.last.epoch > lost
    assert isinstance(before, Position)
    assert not resumable(before, bounds)


async def tail(client: RedisClient) -> Path:
    """The newest append-only file of the server."""
    configuration = await client.redis.config_get("*")
    folder = Path(configuration["dir"]) / configuration["appenddirname"]
    return max(folder.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)


# The client


async def test_a_wrong_password_is_an_authentication_error_without_it(
    redis_settings: RedisSettings, servers: Services
) -> None:
    """The server refuses a wrong password and none at all; the message holds neither."""
    for url in (
        f"redis://:wrong-password@127.0.0.1:{servers.redis.port}/0",
        f"redis://127.0.0.1:{servers.redis.port}/0",
    ):
        settings = RedisSettings.model_validate({"url": url, "prefix": redis_settings.prefix})
        client = RedisClient(settings, name="stranger")
        with pytest.raises(AuthenticationError) as refused:
            await client.open()
        assert "SSOT_REDIS_URL" in str(refused.value)
        assert "wrong-password" not in str(refused.value)
        await client.aclose()


async def test_health_is_a_round_trip_and_says_down(servers: Services, client: RedisClient) -> None:
    """Healthy with its time while the server answers; down, with a reason, when it is killed."""
    found = await client.health()
    assert found.status == "ok"
    assert found.latency is not None
    await servers.redis.kill()
    try:
        found = await client.health()
    finally:
        await servers.redis.restart()
    assert found.status == "down"
    assert found.reason
    assert (await client.health()).status == "ok"


async def test_health_of_a_frozen_server_is_down_within_the_timeout(
    servers: Services, redis_settings: RedisSettings
) -> None:
    """A server that takes connections and says nothing is down, not pending."""
    client = RedisClient(redis_settings.model_copy(update={"timeout": 0.2}), name="impatient")
    await client.open()
    servers.redis.freeze()
    try:
        async with asyncio.timeout(2):
            assert (await client.health()).status == "down"
    finally:
        servers.redis.thaw()
    await client.aclose()


async def test_a_command_fails_as_unavailable_at_the_deadline(
    servers: Services, redis_settings: RedisSettings
) -> None:
    """While the server is away a call waits as long as it was told, then says so."""
    client = RedisClient(redis_settings, name="waiting")
    await client.open()
    await servers.redis.kill()
    try:
        with pytest.raises(Unavailable, match=r"Redis is unavailable: no answer within 0\.2 s"):
            await client.call(lambda _: client.ping(), deadline=0.2)
    finally:
        await servers.redis.restart()
    await client.aclose()


async def test_an_error_of_the_command_is_not_tried_again(client: RedisClient) -> None:
    """What the server refuses for good is raised as it is."""
    tries = 0

    async def wrong(_: int) -> None:
        nonlocal tries
        tries += 1
        await client.redis.execute_command("NOSUCHCOMMAND")

    with pytest.raises(ResponseError):
        await client.call(wrong)
    assert tries == 1


async def test_closing_twice_is_harmless_and_leaves_no_connection(
    redis_settings: RedisSettings, client: RedisClient
) -> None:
    """A closed client holds nothing open on the server."""
    name = f"closing-{redis_settings.prefix}"
    other = RedisClient(redis_settings, name=name)
    await other.open()
    await other.aclose()
    await other.aclose()

    async def gone() -> bool:
        return all(one["name"] != name for one in await client.redis.client_list())

    with contextlib.suppress(TimeoutError):
        await until(gone, what="the connections to end")

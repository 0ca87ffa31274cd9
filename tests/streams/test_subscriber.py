"""The subscriber: hears everything after it subscribed, and says when it may have missed something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from ssot.configuration import RedisSettings
from ssot.context import UserContext
from ssot.events import Position
from ssot.lab.services import Services
from ssot.streams import Append, EventLog, RedisClient, Subscriber
from streams.support import someone, until


class Heard:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self.links = 0

    def on_event(self, position: Position, body: bytes) -> None:
        self.positions.append(position)

    def on_link(self) -> None:
        self.links += 1


@pytest_asyncio.fixture
async def listening(redis_settings: RedisSettings) -> AsyncIterator[RedisClient]:
    """The client of the subscriber, named so that the server's list tells it from others."""
    client = RedisClient(redis_settings, name=f"listening-{redis_settings.prefix}")
    await client.open()
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def subscriber(listening: RedisClient) -> AsyncIterator[Subscriber]:
    async with Subscriber(listening, EventLog(listening), ping_interval=5) as subscriber:
        yield subscriber


async def write(log: EventLog, user: UserContext, index: int) -> None:
    await log.append(user.user_id, [Append(f"{user.run_id}:{index}", user.run_id, 1, b"{}")])


async def kill_subscription(client: RedisClient, listening: RedisClient) -> None:
    """CLIENT KILL of the one connection that is in subscribe mode."""
    found = [
        one for one in await client.redis.client_list()
        if one["name"] == listening.name and int(one["sub"]) > 0
    ]  # fmt: skip
    assert len(found) == 1
    await client.redis.client_kill_filter(_id=found[0]["id"])


async def test_everything_after_subscribing_is_heard_in_order(
    subscriber: Subscriber, log: EventLog
) -> None:
    """Once subscribe has returned, no event of that user is missed, and none of another's heard."""
    alice, bob = someone("alice"), someone("bob")
    heard = Heard()
    await subscriber.subscribe(alice.user_id, heard)
    for index in range(1, 51):
        await write(log, alice, index)
        await write(log, bob, index)
    await until(lambda: len(heard.positions) == 50, what="50 events")
    assert [p.seq for p in heard.positions] == list(range(1, 51))
    assert heard.links == 0


async def test_many_subscribe_at_once(subscriber: Subscriber, log: EventLog) -> None:
    """A hundred users that come at once each hear their own event."""
    users = [(someone(), Heard()) for _ in range(100)]
    await asyncio.gather(*(subscriber.subscribe(u.user_id, heard) for u, heard in users))
    for user, _ in users:
        await write(log, user, 1)
    await until(lambda: all(len(h.positions) == 1 for _, h in users), what="an event each")


async def test_a_killed_connection_is_told_and_made_again(
    subscriber: Subscriber, client: RedisClient, listening: RedisClient, log: EventLog
) -> None:
    """Each listener learns that it may have missed something, and hears what comes after."""
    users = [(someone(), Heard()) for _ in range(3)]
    for user, heard in users:
        await subscriber.subscribe(user.user_id, heard)
    for number in range(1, 4):
        await kill_subscription(client, listening)
        await until(lambda: all(h.links == number for _, h in users), what="on_link")  # noqa: B023
        for user, _ in users:
            await write(log, user, number)
        await until(
            lambda: all(h.positions[-1:] and h.positions[-1].seq == number for _, h in users),  # noqa: B023
            what="the event after it",
        )


async def test_a_rebooted_server_is_told(
    servers: Services, subscriber: Subscriber, log: EventLog
) -> None:
    """After kill and restart every listener is told, and events are heard again."""
    user, heard = someone(), Heard()
    await subscriber.subscribe(user.user_id, heard)
    await servers.redis.kill()
    await servers.redis.restart()
    await until(lambda: heard.links >= 1, what="on_link")
    await write(log, user, 1)
    await until(lambda: len(heard.positions) == 1, what="the event")


async def test_subscribing_while_the_server_is_away_waits_for_it(
    servers: Services, subscriber: Subscriber, log: EventLog
) -> None:
    """Whoever asks during an outage is confirmed once the server is back."""
    user, heard = someone(), Heard()
    first = Heard()
    await subscriber.subscribe(someone().user_id, first)
    await servers.redis.kill()
    asking = asyncio.create_task(subscriber.subscribe(user.user_id, heard))
    try:
        done, _ = await asyncio.wait({asking}, timeout=0.05)
        assert not done
    finally:
        await servers.redis.restart()
    async with asyncio.timeout(5):
        await asking
    await write(log, user, 1)
    await until(lambda: len(heard.positions) == 1, what="the event")


async def test_the_end_of_an_old_listener_does_not_silence_the_new(
    subscriber: Subscriber, log: EventLog
) -> None:
    """A user who leaves and comes back at once is heard, in whichever order the two happen."""
    user, old, new = someone(), Heard(), Heard()
    await subscriber.subscribe(user.user_id, old)
    await subscriber.subscribe(user.user_id, new)
    await subscriber.unsubscribe(user.user_id, old)
    await write(log, user, 1)
    await until(lambda: len(new.positions) == 1, what="the event at the new listener")
    assert old.positions == []


async def test_leaving_and_coming_back_at_once_is_heard(
    subscriber: Subscriber, log: EventLog
) -> None:
    """Unsubscribing and subscribing in the same moment, many times: the last one hears."""
    user = someone()
    heard = Heard()
    await subscriber.subscribe(user.user_id, heard)
    for number in range(1, 31):
        following = Heard()
        await asyncio.gather(
            subscriber.unsubscribe(user.user_id, heard),
            subscriber.subscribe(user.user_id, following),
        )
        await write(log, user, number)
        await until(lambda: len(following.positions) == 1, what=f"event {number}")  # noqa: B023
        heard = following


async def test_after_unsubscribing_nothing_is_heard(
    subscriber: Subscriber, client: RedisClient, log: EventLog
) -> None:
    """The channel of a user whom nobody wants is given up on the server as well."""
    user, heard = someone(), Heard()
    await subscriber.subscribe(user.user_id, heard)
    await subscriber.unsubscribe(user.user_id, heard)

    async def forgotten() -> bool:
        channel = log.channel(user.user_id)
        return (await client.redis.pubsub_numsub(channel))[0][1] == 0

    await until(forgotten, what="the server to forget the subscription")
    await write(log, user, 1)
    assert heard.positions == []


async def test_a_frozen_server_is_noticed(servers: Services, listening: RedisClient) -> None:
    """A link that gives no answer within an interval is given up; its listeners are told later."""
    heard = Heard()
    async with Subscriber(listening, EventLog(listening), ping_interval=0.2) as subscriber:
        await subscriber.subscribe(someone().user_id, heard)
        links = subscriber.links
        servers.redis.freeze()
        try:
            await asyncio.sleep(0.6)
        finally:
            servers.redis.thaw()
        await until(lambda: subscriber.links > links, what="a new link")
        await until(lambda: heard.links >= 1, what="on_link")


async def test_a_password_that_is_refused_for_a_while_does_not_deafen_for_ever(
    subscriber: Subscriber, client: RedisClient, listening: RedisClient, log: EventLog
) -> None:
    """A rotation that the server has seen first: the subscriber tries until it is let in again."""
    user, heard = someone(), Heard()
    await subscriber.subscribe(user.user_id, heard)
    password = (await client.redis.config_get("requirepass"))["requirepass"]
    await client.redis.execute_command("ACL", "LOG", "RESET")
    await client.redis.config_set("requirepass", "another-password")
    try:
        await kill_subscription(client, listening)

        async def refused() -> bool:
            return bool(await client.redis.execute_command("ACL", "LOG"))

        await until(refused, what="the server to refuse the subscriber")
    finally:
        await client.redis.config_set("requirepass", password)
    await until(lambda: heard.links >= 1, what="the subscriber to be back", seconds=3)
    await write(log, user, 1)
    await until(lambda: len(heard.positions) == 1, what="the event")


async def test_closing_ends_the_subscription_and_twice_is_harmless(
    listening: RedisClient, client: RedisClient
) -> None:
    """A closed subscriber holds no connection."""
    subscriber = Subscriber(listening, EventLog(listening), ping_interval=5)
    async with subscriber:
        await subscriber.subscribe(someone().user_id, Heard())
    await subscriber.aclose()

    async def gone() -> bool:
        found = await client.redis.client_list()
        return not any(o["name"] == listening.name and int(o["sub"]) for o in found)

    await until(gone, what="the connection to end")

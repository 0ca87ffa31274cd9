"""The command stream: one run for one message, given to another worker until it is finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from ssot.commands import RunCommand, decode_command
from ssot.configuration import RedisSettings
from ssot.context import new_id
from ssot.lab.services import Services
from ssot.streams import Claim, CommandStream, RedisClient
from ssot.tracing import continuing
from streams.support import until


def command(message_id: str = "m1", *, user_id: str = "u1", text: str = "hello") -> RunCommand:
    return RunCommand(
        message_id=message_id,
        user_id=user_id,
        thread_id="t1",
        run_id=new_id("run"),
        agent="a",
        text=text,
    )


@asynccontextmanager
async def worker(
    stream: CommandStream,
    name: str,
    *,
    abandoned_after: float = 30,
    seen: list[Claim] | None = None,
) -> AsyncIterator[list[Claim]]:
    """A worker that notes what it is given and finishes nothing."""
    claimed: list[Claim] = [] if seen is None else seen

    async def claim() -> None:
        async for one in stream.claims(name, abandoned_after=abandoned_after):
            claimed.append(one)  # noqa: PERF401

    task = asyncio.create_task(claim())
    try:
        yield claimed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_same_message_twice_is_one_run(client: RedisClient) -> None:
    """A message sent again is answered with the first run and queues nothing."""
    stream = CommandStream(client)
    first, second = command(), command()
    assert await stream.submit(first) == first.run_id
    assert await stream.submit(second) == first.run_id
    assert await client.redis.xlen(client.key("commands")) == 1


async def test_the_same_message_at_once_from_many_nodes_is_one_run(
    redis_settings: RedisSettings,
) -> None:
    """Ten nodes that submit the same message at once agree on one run."""
    clients = [RedisClient(redis_settings, name=f"node-{n}") for n in range(10)]
    runs = await asyncio.gather(*(CommandStream(c).submit(command()) for c in clients))
    assert len(set(runs)) == 1
    assert await clients[0].redis.xlen(clients[0].key("commands")) == 1
    for client in clients:
        await client.aclose()


async def test_two_users_with_the_same_message_id_have_two_runs(client: RedisClient) -> None:
    """A message id is a user's own."""
    stream = CommandStream(client)
    runs = [await stream.submit(command("m1", user_id=user)) for user in ("alice", "bob")]
    assert runs[0] != runs[1]


async def test_no_user_and_message_are_taken_for_another_pair(client: RedisClient) -> None:
    """Ids may hold colons: user `a` with message `b:c` is not user `a:b` with message `c`."""
    stream = CommandStream(client)
    first, second = command("b:c", user_id="a"), command("c", user_id="a:b")
    assert await stream.submit(first) == first.run_id
    assert await stream.submit(second) == second.run_id


async def test_commands_come_in_order_and_once(client: RedisClient) -> None:
    """Two workers share the stream: each command goes to one of them."""
    stream = CommandStream(client)
    sent = [command(f"m{n}") for n in range(40)]
    async with worker(stream, "a") as one, worker(stream, "b") as two:
        for each in sent:
            await stream.submit(each)
        await until(lambda: len(one) + len(two) >= 40, what="all commands")
    for claims in (one, two):
        entries = [claim.entry for claim in claims]
        assert entries == sorted(entries, key=lambda e: [int(part) for part in e.split("-")])
        assert not any(claim.again for claim in claims)
    got = [decode_command(claim.body) for claim in (*one, *two)]
    assert sorted(c.message_id for c in got) == sorted(c.message_id for c in sent)


async def test_an_unfinished_command_is_given_to_another_worker(client: RedisClient) -> None:
    """A worker that falls silent loses its command after the idle time; the next one is told."""
    stream = CommandStream(client)
    await stream.submit(command())
    async with worker(stream, "a") as dead:
        await until(lambda: len(dead) == 1, what="the first worker to claim")
    async with worker(stream, "b", abandoned_after=0.1) as heir:
        await until(lambda: len(heir) >= 1, what="the second worker to claim")
    assert heir[0].entry == dead[0].entry
    assert (dead[0].again, heir[0].again) == (False, True)


async def test_a_finished_command_is_given_to_nobody(client: RedisClient) -> None:
    """What was finished does not come back, and leaves nothing in the stream."""
    stream = CommandStream(client)
    await stream.submit(command("m1"))
    async with worker(stream, "a") as claims:
        await until(lambda: len(claims) == 1, what="the claim")
        await stream.finish(claims[0])
        await stream.finish(claims[0])
    await stream.submit(command("m2"))
    async with worker(stream, "b", abandoned_after=0.05) as others:
        await until(lambda: len(others) >= 2, what="m2 to be given twice")
    assert {decode_command(claim.body).message_id for claim in others} == {"m2"}
    assert await client.redis.xlen(client.key("commands")) == 1


async def test_more_abandoned_commands_than_one_look_takes_all_come(client: RedisClient) -> None:
    """Forty commands of a dead worker are all given again."""
    stream = CommandStream(client)
    for number in range(40):
        await stream.submit(command(f"m{number}"))
    async with worker(stream, "dead") as dead:
        await until(lambda: len(dead) == 40, what="the first worker to claim all")
    async with worker(stream, "heir", abandoned_after=0.2) as heir:
        await until(
            lambda: len({c.entry for c in heir}) == 40, what="the second worker to claim all"
        )


async def test_a_group_that_is_gone_is_made_again(client: RedisClient) -> None:
    """After a FLUSHALL the workers go on by themselves."""
    stream = CommandStream(client)
    async with worker(stream, "a") as claims:
        await stream.submit(command("m1"))
        await until(lambda: len(claims) == 1, what="the first command")
        await client.redis.flushall()
        await stream.submit(command("m2"))
        await until(lambda: len(claims) == 2, what="the second command")
    assert decode_command(claims[1].body).message_id == "m2"


async def test_claiming_survives_kill_and_restart(servers: Services, client: RedisClient) -> None:
    """A worker waits through a restart of the server and takes what is submitted after it."""
    stream = CommandStream(client)
    async with worker(stream, "a") as claims:
        await stream.submit(command("m1"))
        await until(lambda: len(claims) == 1, what="the first command")
        await servers.redis.kill()
        submitting = asyncio.create_task(stream.submit(command("m2")))
        await asyncio.sleep(0)
        await servers.redis.restart()
        await submitting
        await until(lambda: len(claims) == 2, what="the second command")


async def test_a_submission_that_lost_its_answer_is_one_run(
    servers: Services, client: RedisClient
) -> None:
    """The server takes the command while it cannot answer: the retry returns the same run."""
    impatient = RedisClient(client.settings.model_copy(update={"timeout": 0.1}), name="impatient")
    await impatient.open()
    sent = command()
    servers.redis.freeze()
    try:
        submitting = asyncio.create_task(CommandStream(impatient).submit(sent))
        await asyncio.wait({submitting}, timeout=0.3)
    finally:
        servers.redis.thaw()
    assert await submitting == sent.run_id
    assert await client.redis.xlen(client.key("commands")) == 1
    await impatient.aclose()


async def test_a_command_travels_unchanged(client: RedisClient) -> None:
    """Text of any kind arrives as it was sent; its trace goes on where it was submitted."""
    stream = CommandStream(client)
    trace = f"00-{'4' * 32}-{'5' * 16}-01"
    sent = msgspec.structs.replace(command(text='ä\n\0"{}😀'), trace=trace)
    async with worker(stream, "a") as claims:
        with continuing(trace):
            await stream.submit(sent)
        await until(lambda: len(claims) == 1, what="the command")
    found = decode_command(claims[0].body)
    assert msgspec.structs.replace(found, trace=trace) == sent
    assert found.trace.split("-")[1] == "4" * 32


async def test_a_worker_that_leaves_is_forgotten_and_its_commands_are_not(
    client: RedisClient,
) -> None:
    """A consumer without unfinished commands goes; one that has some stays until they are done."""
    stream = CommandStream(client)
    key = client.key("commands")
    await stream.leave("before there is a group")
    await stream.submit(command("m1"))
    async with worker(stream, "a") as claims:
        await until(lambda: len(claims) == 1, what="the claim")
    await stream.leave("a")
    assert [row["name"] for row in await client.redis.xinfo_consumers(key, "workers")] == [b"a"]
    await stream.finish(claims[0])
    await stream.leave("a")
    assert await client.redis.xinfo_consumers(key, "workers") == []

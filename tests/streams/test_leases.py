"""Leases: one holder at a time, and tokens that only grow."""

from __future__ import annotations

import asyncio

from ssot.lab.services import Services
from ssot.streams import EventLog, Leases, RedisClient
from streams.support import until


async def test_of_many_who_ask_one_gets_the_lease(client: RedisClient) -> None:
    """Twenty workers ask at the same moment; one is granted, the others are told no."""
    leases = Leases(client, ttl=30)
    answers = await asyncio.gather(*(leases.acquire("run", f"worker-{n}") for n in range(20)))
    assert len([lease for lease in answers if lease is not None]) == 1


async def test_tokens_grow_with_every_grant(client: RedisClient) -> None:
    """Each holder's token is higher than those of all before, also for the same holder."""
    leases = Leases(client, ttl=30)
    tokens = []
    for number in range(10):
        lease = await leases.acquire("run", f"worker-{number}")
        assert lease is not None
        tokens.append(lease.token)
        await leases.release(lease)
    assert tokens == sorted(set(tokens))
    same = [await leases.acquire("run", "one") for _ in range(3)]
    again = [lease.token for lease in same if lease is not None]
    assert len(again) == 3
    assert again == sorted(set(again))
    assert again[0] > tokens[-1]


async def test_a_lease_is_free_after_its_time_and_the_old_holder_is_told(
    client: RedisClient,
) -> None:
    """A silent holder is replaced; its renewal is refused and it cannot end the new lease."""
    leases = Leases(client, ttl=0.1)
    old = await leases.acquire("run", "a")
    assert old is not None
    assert await leases.acquire("run", "b") is None
    taken = []

    async def takes_over() -> bool:
        taken.append(await leases.acquire("run", "b"))
        return taken[-1] is not None

    await until(takes_over, what="the lease to expire")
    assert taken[-1] is not None
    assert taken[-1].token > old.token
    assert not await leases.renew(old)
    long = Leases(client, ttl=30)
    assert await long.renew(taken[-1])
    await leases.release(old)
    assert await leases.acquire("run", "c") is None


async def test_renewing_keeps_the_lease_beyond_its_time(client: RedisClient) -> None:
    """A holder that renews is not replaced, however long it works."""
    leases = Leases(client, ttl=0.15)
    lease = await leases.acquire("run", "a")
    assert lease is not None
    key = client.key("lease", "run")
    for _ in range(6):
        await asyncio.sleep(0.05)
        assert await leases.renew(lease)
        assert await leases.acquire("run", "b") is None
    assert 0 < await client.redis.pttl(key) <= 150


async def test_an_expired_holder_whom_nobody_replaced_may_renew(client: RedisClient) -> None:
    """Nobody else has the run: the holder goes on under its old token."""
    leases = Leases(client, ttl=0.05)
    lease = await leases.acquire("run", "a")
    assert lease is not None

    async def expired() -> bool:
        return not await client.redis.exists(client.key("lease", "run"))

    await until(expired, what="the lease to expire")
    assert await leases.renew(lease)
    assert await leases.acquire("run", "b") is None


async def test_releasing_an_older_lease_of_the_same_holder_keeps_the_newer(
    client: RedisClient,
) -> None:
    """What is given back is that lease, not whatever the holder has by now."""
    leases = Leases(client, ttl=30)
    first = await leases.acquire("run", "a")
    second = await leases.acquire("run", "a")
    assert first is not None
    assert second is not None
    await leases.release(first)
    assert await leases.acquire("run", "b") is None


async def test_a_released_lease_still_fences(client: RedisClient, log: EventLog) -> None:
    """The newest token stays known after the lease ends, so that older ones stay refused."""
    leases = Leases(client, ttl=30)
    lease = await leases.acquire("run", "a")
    assert lease is not None
    await leases.release(lease)
    assert await client.redis.get(log.fence("run")) == str(lease.token).encode()


async def test_tokens_grow_over_a_flushall(client: RedisClient) -> None:
    """A server that has forgotten everything issues no token that was issued before."""
    leases = Leases(client, ttl=30)
    before = await leases.acquire("run", "a")
    assert before is not None
    await asyncio.sleep(0.002)
    await client.redis.flushall()
    after = await leases.acquire("run", "b")
    assert after is not None
    assert after.token > before.token


async def test_acquiring_waits_through_a_restart(servers: Services, client: RedisClient) -> None:
    """A worker that asks while the server is away gets its lease when it is back."""
    leases = Leases(client, ttl=30)
    await servers.redis.kill()
    asking = asyncio.create_task(leases.acquire("run", "a"))
    try:
        done, _ = await asyncio.wait({asking}, timeout=0.05)
        assert not done
    finally:
        await servers.redis.restart()
    assert await asking is not None

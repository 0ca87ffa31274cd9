"""Limit: as many holders as it says, in order, whatever its size becomes and whoever gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.limit import Dismissed, Limit


async def turns(count: int = 3) -> None:
    """Let every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_waiters_are_served_in_order_as_places_come_free() -> None:
    """Of five that come, two hold; the others follow one by one, the first to come first."""
    limit, order = Limit(2), []

    async def take(number: int) -> None:
        await limit.acquire()
        order.append(number)

    tasks = [asyncio.create_task(take(number)) for number in range(5)]
    await turns()
    assert (order, limit.held) == ([0, 1], 2)
    for count in (3, 4, 5):
        limit.release()
        await turns()
        assert order == list(range(count))
    await asyncio.gather(*tasks)


async def test_a_larger_size_lets_waiters_in_and_a_smaller_one_throws_nobody_out() -> None:
    """Growing serves who waits at once; shrinking waits until enough holders have gone."""
    limit = Limit(1)
    tasks = [asyncio.create_task(limit.acquire()) for _ in range(5)]
    await turns()
    limit.resize(4)
    await turns()
    assert limit.held == 4
    limit.resize(2)
    assert limit.held == 4
    limit.release()
    limit.release()
    await turns()
    assert limit.held == 2
    limit.release()
    await asyncio.gather(*tasks)
    assert limit.held == 2


async def test_a_waiter_cancelled_when_its_place_is_given_passes_it_on() -> None:
    """No place is lost, at whichever moment a waiter gives up."""
    limit = Limit(1)
    await limit.acquire()
    first, second = (asyncio.create_task(limit.acquire()) for _ in range(2))
    await turns()
    limit.release()
    first.cancel()
    async with asyncio.timeout(1):
        await second
    assert limit.held == 1
    assert first.cancelled()


async def test_who_waits_and_who_comes_is_dismissed_and_holders_are_not() -> None:
    """A dismissed limit gives nothing more, and takes its places back."""
    limit = Limit(1)
    await limit.acquire()
    waiting = asyncio.create_task(limit.acquire())
    given_up = asyncio.create_task(limit.acquire())
    await turns()
    limit.dismiss()
    given_up.cancel()
    with pytest.raises(Dismissed):
        await waiting
    with pytest.raises(asyncio.CancelledError):
        await given_up
    with pytest.raises(Dismissed):
        await limit.acquire()
    limit.release()
    assert limit.held == 0


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["take", "give", "size", "cancel"]), st.integers(1, 5)),
        max_size=40,
    )
)
def test_whatever_happens_no_place_is_lost_and_none_is_given_twice(
    steps: Sequence[tuple[str, int]],
) -> None:
    """Any order of coming, going, giving up and resizing: holders are counted, the rest waits."""

    async def play() -> None:
        limit = Limit(2)
        tasks: list[asyncio.Task[None]] = []
        holders = 0
        for step, number in steps:
            before = limit.held
            if step == "take":
                tasks.append(asyncio.create_task(limit.acquire()))
            elif step == "give" and holders:
                limit.release()
                holders -= 1
            elif step == "size":
                limit.resize(number)
            elif step == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            if number % 2:
                await turns()
            assert limit.held <= max(limit.size, before)
            done = [task for task in tasks if task.done()]
            holders += sum(not task.cancelled() for task in done)
            tasks = [task for task in tasks if not task.done()]
        await turns()
        holders += sum(task.done() and not task.cancelled() for task in tasks)
        waiting = [task for task in tasks if not task.done()]
        assert limit.held == holders
        assert not waiting or limit.held >= limit.size
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(play())

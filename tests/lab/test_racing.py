"""Readers race with changes: for as long as the readers need, and never without an end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ssot.lab.racing import race


async def test_it_ends_when_the_readers_have_seen_enough() -> None:
    """Each reader is a thread, and the event loop goes on meanwhile."""
    seen: set[int] = set()
    ticks = 0

    def read() -> None:
        seen.add(threading.get_ident())

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    calls = await race(lambda: len(seen) == 3, read, readers=3, at_most=10**9)
    ticking.cancel()
    assert len(seen) == 3
    assert threading.get_ident() not in seen
    assert calls >= 40
    assert ticks > 0


async def test_it_ends_also_when_they_never_have() -> None:
    """After as many calls as it may make."""
    assert await race(lambda: False, lambda: None, readers=2, at_least=1, at_most=50) == 50


@pytest.mark.parametrize("who", ["change", "read"])
async def test_an_error_of_either_ends_both(who: str) -> None:
    """And it is raised as it is, when no thread is left."""

    def wrong() -> bool:
        raise LookupError(who)

    def right() -> bool:
        return False

    change, read = (wrong, right) if who == "change" else (right, wrong)
    before = threading.active_count()
    with pytest.raises(LookupError, match=who):
        await race(change, read, readers=2, at_most=10**9)
    assert threading.active_count() == before


async def test_cancelled_it_leaves_no_thread() -> None:
    """Also when it would have gone on for ever."""
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        loop.call_soon_threadsafe(begun.set)

    before = threading.active_count()
    racing = asyncio.create_task(race(lambda: False, read, readers=2, at_most=10**9))
    await begun.wait()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert threading.active_count() == before

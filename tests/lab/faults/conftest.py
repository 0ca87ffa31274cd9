"""A platform of real processes, whose tests break it and must leave it whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from lab.faults.platform import Platform, platform_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Platform]:
    """Servers, auth, a worker and a node, for all tests of a module."""
    async with platform_of("embedded") as platform:
        yield platform


@pytest_asyncio.fixture(loop_scope="module")
async def platform(shared: Platform) -> AsyncIterator[Platform]:
    """The shared platform; at the end no fault is open and a question is answered."""
    yield shared
    assert shared.faults.open == ()
    assert not any(link.suffering for link in shared.faults.links)
    await shared.answers()

"""What the tests of several components share: users, settings, events, bounded waits."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from ssot.configuration import DatabaseSettings
from ssot.context import UserContext, new_id
from ssot.database import provision
from ssot.database.migrate import migrate
from ssot.events import AgentEvent, EventType, Payload
from ssot.lab.services import Services

T = TypeVar("T")


def someone(name: str = "alice") -> UserContext:
    """A fresh user with a fresh run."""
    return UserContext(new_id(name), thread_id=new_id("thread"), run_id=new_id("run"))


def database_settings(url: str, **values: Any) -> DatabaseSettings:
    """Settings of a small pool."""
    given = {"url": url, "pool_size": 4, "retry_deadline": 15, **values}
    return DatabaseSettings.model_validate(given)


async def migrated(servers: Services) -> Mapping[str, str]:
    """A fresh database at the newest schema; a URL for each of its login roles."""
    urls = await provision(servers.postgres.admin_url, f"t{secrets.token_hex(5)}")
    await migrate(database_settings(urls["owner"]))
    return urls


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in a thread and a loop of its own: the tests' loops are not touched."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def until(
    condition: Callable[[], bool | Awaitable[bool]], *, what: str, seconds: float = 10
) -> None:
    """Wait for a condition, for at most so long; fails by naming what was waited for."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:g} s in vain for {what}")
        await asyncio.sleep(0.005)


def threads(work: Callable[[int], None], count: int) -> None:
    """Run ``work`` in so many threads that begin together; the first error is raised."""
    begin = threading.Barrier(count)

    def body(number: int) -> None:
        begin.wait(10)
        work(number)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(body, range(count)))


def event(
    user: UserContext, index: int | str, kind: EventType = "agent_thinking", **data: Any
) -> AgentEvent:
    """An event of the user's run."""
    return AgentEvent(
        id=f"{user.run_id}:{index}",
        type=kind,
        user_id=user.user_id,
        thread_id=user.thread_id,
        run_id=user.run_id,
        agent="test",
        at=0.0,
        payload=Payload(text=str(index), data=data),
    )

"""Readers in threads of their own while something changes under them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context

__all__ = ["race"]

_TURN = 1e-5
"""Seconds that a thread may go on while others wait; Python's 5 ms hide most of the steps."""


async def race(
    change: Callable[[], bool],
    read: Callable[[], object],
    *,
    readers: int,
    at_least: int = 40,
    at_most: int = 6_000,
) -> int:
    """Call ``change`` again and again in one thread, and ``read`` in ``readers`` others meanwhile.

    It ends when ``change`` has been called ``at_least`` times and returns true, which should be
    when the readers have seen enough: how soon that is, the machine decides. After ``at_most``
    calls it ends without. Returns the number of calls. The event loop goes on meanwhile. Threads
    take turns far more often than usual, so that what is done in several steps is seen in between.

    :raises Exception: the first that ``change`` or a ``read`` raises, when all threads have ended.
    """
    over = threading.Event()

    def write() -> int:
        try:
            for count in range(1, at_most + 1):
                if over.is_set() or (change() and count >= at_least):
                    break
            return count
        finally:
            over.set()

    def look() -> int:
        try:
            while not over.is_set():
                read()
        finally:
            over.set()
        return 0

    with _often_switched(), ThreadPoolExecutor(readers + 1, thread_name_prefix="race") as threads:
        work = [threads.submit(copy_context().run, each) for each in (write, *[look] * readers)]
        try:
            await asyncio.gather(*map(asyncio.wrap_future, work), return_exceptions=True)
        finally:
            # Also when the check is over: leaving waits for the threads.
            over.set()
    return max(each.result() for each in work)


@contextmanager
def _often_switched() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)

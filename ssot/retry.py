"""Trying again until a deadline: the one loop that waits for a server to come back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ssot.errors import Unavailable

__all__ = ["retry"]

T = TypeVar("T")

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25


async def retry(
    call: Callable[[int], Awaitable[T]],
    *,
    what: str,
    deadline: float,
    on: Callable[[Exception], bool],
) -> T:
    """Call until it succeeds, for at most ``deadline`` seconds.

    ``call`` receives the number of the attempt, from 1. An error for which ``on`` is true is tried
    again after a pause that doubles from 10 to 250 ms, with full jitter so that many waiters do
    not return as one; any other is raised at once. When the deadline passes,
    :class:`~ssot.errors.Unavailable` is raised from the last error. The deadline also ends a call
    that hangs. Cancelling ends it at once.
    """
    end = time.monotonic() + deadline
    last: Exception | None = None
    attempt = 0
    pause = _FIRST_PAUSE
    while True:
        attempt += 1
        timer = asyncio.timeout(max(end - time.monotonic(), 0))
        try:
            async with timer:
                return await call(attempt)
        except Exception as error:
            if timer.expired() and isinstance(error, TimeoutError):
                cause = last or error
                raise Unavailable(what, deadline=deadline, cause=_brief(cause)) from cause
            if not on(error):
                raise
            last = error
        # Jitter spreads load; it protects nothing.
        wait = pause * random.uniform(0.5, 1)  # noqa: S311
        if time.monotonic() + wait >= end:
            raise Unavailable(what, deadline=deadline, cause=_brief(last)) from last
        await asyncio.sleep(wait)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _brief(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__

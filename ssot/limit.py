"""Limit: so many holders at a time, a number that may change while some hold and others wait."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Dismissed", "Limit"]


class Dismissed(Exception):
    """The limit was closed for good: whoever waits or comes must go elsewhere."""


class Limit:
    """A semaphore whose size may change. First come, first served.

    A size below the number of holders takes nothing from them: no place is given until enough of
    them have gone. For one event loop; ``async with`` holds one place.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self._dismissed = False
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def size(self) -> int:
        """Holders at most."""
        return self._size

    @property
    def held(self) -> int:
        """Holders now."""
        return self._held

    async def acquire(self) -> None:
        """Wait for a place and hold it; cancelled, none is held. Raises :class:`Dismissed`."""
        if self._dismissed:
            raise Dismissed
        if not self._waiters and self._held < self._size:
            self._held += 1
            return
        given = asyncio.get_running_loop().create_future()
        self._waiters.append(given)
        try:
            await given
        except asyncio.CancelledError:
            # The place may have been given in the same turn of the loop.
            if given.done() and not given.cancelled() and given.exception() is None:
                self.release()
            elif given in self._waiters:
                self._waiters.remove(given)
            raise

    def release(self) -> None:
        """Give one place back; whoever waits longest has it at once."""
        assert self._held > 0, "a place was given back that nobody holds"
        self._held -= 1
        self._give()

    def resize(self, size: int) -> None:
        """So many holders from now on; of those who wait, as many as fit begin."""
        self._size = size
        self._give()

    def dismiss(self) -> None:
        """Give no place ever again: all who wait get :class:`Dismissed`. Holders keep theirs."""
        self._dismissed = True
        while self._waiters:
            given = self._waiters.popleft()
            if not given.done():
                given.set_exception(Dismissed())

    def _give(self) -> None:
        while self._waiters and self._held < self._size:
            given = self._waiters.popleft()
            # Cancelled, and not yet taken from the queue by its task.
            if not given.done():
                self._held += 1
                given.set_result(None)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

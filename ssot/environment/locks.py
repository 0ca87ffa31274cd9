"""A lock that is free in a forked child, whoever held it in the parent."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

__all__ = ["ForkSafeLock"]


class ForkSafeLock:
    """Like :class:`threading.Lock`, for ``with`` alone, and free in a forked child.

    A thread that held it at the fork does not exist in the child: nobody would ever release it.
    What it guards must be whole at every moment, such as one reference that is swapped.
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: Any) -> None:
        if self._lock.locked():  # not, in a child that was forked while this very thread held it
            self._lock.release()

    def renew(self) -> None:
        """Free it, whoever holds it."""
        self._lock = threading.Lock()


_locks: WeakSet[ForkSafeLock] = WeakSet()


def _renew_all() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)

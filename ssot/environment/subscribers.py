"""Who is told of changes: in order, outside any lock, and one's failure is its own."""

from __future__ import annotations

import inspect
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ssot.environment.locks import ForkSafeLock
from ssot.environment.snapshot import Change

__all__ = ["Subscribers", "Subscription"]

_log = logging.getLogger("ssot.environment")

Callback = Callable[[Change], object]


@dataclass(eq=False, slots=True)
class Subscription:
    """One subscriber. ``close`` ends it; what is being told at that moment still arrives."""

    callback: Callback
    names: frozenset[str] | None
    secrets: bool
    closed: bool = False

    def close(self) -> None:
        """Hear of no further change. Idempotent."""
        self.closed = True


class Subscribers:
    """Tells every subscriber every change once, in the order of the changes.

    Whoever makes a change also tells it, unless another thread is telling at that moment: that one
    goes on with it. So a callback may read and change the environment itself; what it changes is
    told after what it is being told. :meth:`put` is called under the writer's lock, which gives the
    order, and :meth:`tell` outside of it.
    """

    def __init__(self) -> None:
        self._all: tuple[Subscription, ...] = ()
        self._waiting: deque[tuple[Subscription, Change]] = deque()
        self._lock = ForkSafeLock()
        # The process that tells: after a fork, the thread that did is not in the child.
        self._telling = 0
        self.told = 0
        self.failed = 0

    def __len__(self) -> int:
        return sum(not each.closed for each in self._all)

    def add(
        self, callback: Callback, names: Collection[str] | None, *, secrets: bool
    ) -> Subscription:
        """From the next change on, tell ``callback`` of each of ``names``; ``None`` means all.

        :class:`TypeError` for what would never hear of anything: what cannot be called, a coroutine
        function, which is called and not awaited, and a text in place of a collection of names.
        """
        if not callable(callback):
            raise TypeError(
                "a subscriber is a function that takes the change, "
                f"and no {type(callback).__name__}"
            )
        if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
            getattr(callback, "__call__", None)  # noqa: B004
        ):
            raise TypeError(f"a subscriber is called, not awaited: {_name(callback)}")
        if isinstance(names, str):
            raise TypeError(f"a collection of names is needed, not the text {names!r}")
        new = Subscription(callback, None if names is None else frozenset(names), secrets)
        with self._lock:
            self._all = (*(each for each in self._all if not each.closed), new)
        return new

    def put(self, changes: Sequence[Change]) -> None:
        """Note what has changed, for those who subscribe now."""
        with self._lock:
            for change in changes:
                self._waiting.extend((each, change) for each in self._all)

    def tell(self) -> None:
        """Tell everything that waits, unless another call is doing so.

        What is no :class:`Exception` (an interrupt, an exit, a cancellation) is raised when all are
        told.
        """
        stopped: BaseException | None = None
        with self._lock:
            if self._telling == os.getpid():
                return
            self._telling = os.getpid()
        try:
            while True:
                with self._lock:
                    if not self._waiting:
                        # in the same breath, or a change that comes now would be told by nobody
                        self._telling = 0
                        break
                    subscription, change = self._waiting.popleft()
                try:
                    self._tell(subscription, change)
                except BaseException as error:
                    stopped = stopped or error
        except BaseException:
            with self._lock:
                self._telling = 0
            raise
        if stopped is not None:
            raise stopped

    def _tell(self, subscription: Subscription, change: Change) -> None:
        if subscription.closed or (
            subscription.names is not None and change.name not in subscription.names
        ):
            return
        try:
            subscription.callback(change if subscription.secrets else change.masked())
        except BaseException as error:
            self.failed += 1
            # Not the error's text: it may quote a value. Its type and place help enough.
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}" if trace else "?"
            name = _name(subscription.callback)
            _log.error(
                "subscriber %s failed at the change of %s: %s (%s)",
                name,
                change.name,
                type(error).__name__,
                where,
            )
            if not isinstance(error, Exception):
                raise
        else:
            self.told += 1


def _name(callback: Callback) -> str:
    # Not its repr: that of a partial tells its arguments.
    found: str = getattr(callback, "__qualname__", type(callback).__qualname__)
    return found

"""One check: its deadline, its verdict line, and what is shown when it fails."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType, TracebackType
from typing import Any

from ssot.lab.tables import Table

__all__ = ["Blocked", "Check", "Leaked", "Unexpected", "Unknown"]

_GRACE = 3.0


class Unknown(Exception):
    """The check could not be made here, for this reason. Unknown is not passed."""


class Blocked(Exception):
    """The check blocked the event loop past its deadline and was interrupted."""


class Unexpected(Exception):
    """Something was logged, warned of or left behind that the check did not expect."""


class Leaked(Exception):
    """The check left something behind: names each thing with its kind."""

    def __init__(self, left: Sequence[str]) -> None:
        self.left = tuple(left)
        super().__init__("left behind: " + "; ".join(left))


class Check:
    """The scope of one check, entered by ``async with lab.check("GP-01", "its title"):``.

    On success it prints one verdict line, and then what :meth:`show` was given. After ``deadline``
    seconds it is cancelled with a :class:`TimeoutError`; if it blocks the event loop, a thread
    notes every stack and interrupts it.
    """

    def __init__(
        self,
        check_id: str,
        title: str,
        *,
        deadline: float,
        begin: Callable[[], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
        passed: Callable[[], Awaitable[None]],
        failed: Callable[[BaseException], Awaitable[tuple[str, object | None]]],
        display: Callable[[object], None],
    ) -> None:
        self.id = check_id
        self.title = title
        self.deadline = deadline
        self._begin = begin
        self._end = end
        self._passed = passed
        self._failed = failed
        self._display = display
        self._tables: list[Table] = []
        self._timer = asyncio.timeout(None)
        self._began = 0.0
        self._guard = _LoopGuard(deadline + _GRACE)

    def show(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table to be shown under the verdict; everything in it must be the same in every run."""
        self._tables.append(Table(columns, rows))

    async def __aenter__(self) -> Check:
        await self._begin()
        self._guard.start()
        self._began = time.monotonic()
        self._timer = asyncio.timeout(self.deadline)
        await self._timer.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        took = time.monotonic() - self._began
        late_text = f"the check took longer than its deadline of {self.deadline:g} s"
        try:
            await self._timer.__aexit__(kind, error, trace)
        except TimeoutError as timeout:
            timeout.args = (late_text,)
            error = timeout
        finally:
            self._guard.stop()
        if error is None and took > self.deadline:
            # A timer acts where a cell awaits; what computes or blocks it, passes it unseen.
            error = TimeoutError(late_text)
        # Also when the cell has swallowed the interrupt.
        if self._guard.stacks and isinstance(error, KeyboardInterrupt | TimeoutError):
            error = Blocked(
                f"the event loop was blocked past the deadline of {self.deadline:g} s; "
                f"where it stood:\n{self._guard.stacks}"
            )
        if error is None:
            try:
                await self._end()
            except Exception as late:
                error = late
        if error is None:
            await self._passed()
            sys.stdout.write(f"{self.id} PASS {self.title}\n")
            for table in self._tables:
                self._display(table)
            return
        await self._fail(error)
        # Raised anew only where it is not the error that is passing through already.
        if error is not sys.exc_info()[1]:
            raise error

    async def _fail(self, error: BaseException) -> None:
        report, picture = await self._failed(error)
        if isinstance(error, Unknown):
            sys.stdout.write(f"{self.id} UNKNOWN {self.title}: {error}\n")
        elif isinstance(error, Exception):
            sys.stdout.write(f"{self.id} FAIL {self.title}\n\n{report}\n")
            if picture is not None:
                self._display(picture)


class _LoopGuard:
    """Watches from a thread whether the check ends; if its loop is blocked, interrupts it.

    The interrupt is a signal, so it also ends a call that waits in C. IPython's own handler would
    only cancel the cell's task, which a blocked loop never learns of.
    """

    def __init__(self, patience: float) -> None:
        self.stacks = ""
        self._patience = patience
        self._ended = threading.Event()
        # So that a check which ends at the last moment is not interrupted after its end.
        self._deciding = threading.Lock()
        self._previous: Any = None
        self._main = threading.main_thread()

    def start(self) -> None:
        """Begin to watch."""
        if threading.current_thread() is self._main:
            self._previous = signal.signal(signal.SIGINT, self._on_interrupt)
            threading.Thread(target=self._watch, name="loop guard", daemon=True).start()

    def stop(self) -> None:
        """The check has ended."""
        with self._deciding:
            self._ended.set()
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _watch(self) -> None:
        if self._ended.wait(self._patience):
            return
        frames = sys._current_frames()  # noqa: SLF001
        stacks = "\n".join(
            f"{thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident])[-count:])}"
            for thread in threading.enumerate()
            if thread.ident in frames and thread is not threading.current_thread()
            # Of the others, which are many, only where they are.
            for count in [8 if thread is self._main else 1]
        )
        with self._deciding:
            if not self._ended.is_set():
                self.stacks = stacks
                assert self._main.ident is not None
                signal.pthread_kill(self._main.ident, signal.SIGINT)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stacks:
            raise KeyboardInterrupt
        if callable(self._previous):
            self._previous(number, frame)

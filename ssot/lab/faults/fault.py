"""One fault: made on entering, healed on leaving, and gone only when what it hit works again."""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, ClassVar, Self

from ssot.errors import SsotError
from ssot.lab.faults.log import FaultLog, FaultRecord, What

__all__ = ["RECOVERY", "Fault", "NotRecovered", "until"]

RECOVERY = 15.0
"""Seconds that recovery may take."""

# A check that was cancelled is interrupted a few seconds later: the rest is left to Faults.heal.
_HURRIED = 0.5
_TRIGGER = 10.0
_POLL = 0.005
_ATTEMPT = 3.0


class NotRecovered(SsotError):
    """A fault is healed, but what it hit does not work again; says what is still wrong."""

    def __init__(self, fault: str, *, seconds: float, wrong: str) -> None:
        self.wrong = wrong
        super().__init__(f"{fault} is healed, but {seconds:g} s later {wrong}")


class Fault(abc.ABC):
    """An async context manager; ``open_faults`` holds it from its beginning to its recovery.

    Leaving heals and waits for recovery, at most 15 s, also when the body raised or was cancelled:
    the error of the body is then the one that is raised, with a note when recovery failed too.
    After a cancellation, recovery is waited for half a second only.
    """

    def __init__(
        self, what: What, target: str, *, log: FaultLog, open_faults: dict[Fault, None]
    ) -> None:
        self.what: What = what
        self.target = target
        self._log = log
        self._open = open_faults
        self._record: FaultRecord | None = None
        self._healed = False

    def __repr__(self) -> str:
        state = "healed" if self._healed else "acting" if self.acting else "waiting"
        return f"<{self}, {state}>"

    def __str__(self) -> str:
        return f"{self.what} of {self.target}"

    @property
    def acting(self) -> bool:
        """Whether it has begun and was not healed."""
        return self._record is not None and self._record.end is None

    async def __aenter__(self) -> Self:
        self._open[self] = None
        try:
            await self._make()
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._leave(error)

    async def triggered(self, *, patience: float = _TRIGGER) -> None:
        """Return once it acts; :class:`AssertionError` when it does not within ``patience`` s."""
        end = time.monotonic() + patience
        while self._record is None:
            if time.monotonic() > end:
                raise AssertionError(
                    f"{self} was not triggered within {patience:g} s: {self._progress()}"
                )
            await asyncio.sleep(_POLL)

    async def heal(self, *, patience: float = RECOVERY) -> None:
        """End the fault and wait ``patience`` seconds for recovery. Idempotent.

        Cancelled, the fault is ended all the same; the recovery is then not waited for.

        :raises NotRecovered: what is still wrong.
        """
        await self.end()
        wrong = "nothing has answered"

        def say(text: str) -> None:
            nonlocal wrong
            wrong = text

        try:
            async with asyncio.timeout(patience):
                await self._recover(say)
        except TimeoutError:
            raise NotRecovered(str(self), seconds=patience, wrong=wrong) from None
        self._ended()
        self._open.pop(self, None)

    async def end(self) -> None:
        """End the fault, without looking at recovery. Idempotent; cancelled, it is ended still."""
        if not self._healed:
            await _to_its_end(self._undo())
            self._healed = True
            if not self.outlives_its_cause:
                self._ended()

    def give_up(self) -> None:
        """Wait for its recovery no more."""
        self._ended()
        self._open.pop(self, None)

    # What each kind of fault does

    outlives_its_cause: ClassVar[bool] = False
    """Whether it lasts until recovery: nothing is undone for a process that was killed."""

    @abc.abstractmethod
    async def _make(self) -> None:
        """Make it; calls :meth:`_begun` when it acts, now or later."""

    @abc.abstractmethod
    async def _undo(self) -> None:
        """End it; also when it was never made. Short: it is not interrupted."""

    @abc.abstractmethod
    async def _recover(self, say: Callable[[str], None]) -> None:
        """Return when what it hit works again; ``say`` what is still wrong."""

    def _progress(self) -> str:
        return "it was not made"

    def _begun(self, detail: str = "") -> None:
        """It acts. May be called from any thread."""
        if self._record is None:
            self._record = self._log.begin(self.what, self.target, detail=detail)

    def _ended(self) -> None:
        if self._record is not None:
            self._log.end(self._record)

    async def _leave(self, error: BaseException | None) -> None:
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            await self.heal(patience=_HURRIED if cancelled else RECOVERY)
        except SsotError as late:
            if error is None:
                raise
            error.add_note(str(late))


async def until(probe: Callable[[], Awaitable[str]], say: Callable[[str], None]) -> None:
    """Ask again until ``probe`` finds nothing wrong; what it finds, and errors, are told.

    One answer is waited for 3 seconds at most; the whole is bounded by the caller.
    """
    while True:
        try:
            async with asyncio.timeout(_ATTEMPT):
                wrong = await probe()
        except TimeoutError:
            wrong = f"there is no answer within {_ATTEMPT:g} s"
        except (OSError, SsotError) as error:
            wrong = f"{type(error).__name__}: {error}"
        if not wrong:
            return
        say(wrong)
        await asyncio.sleep(_POLL)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do all of it, and only then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait({task})
        raise

"""Processes and servers that stand still, die, or are started again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from ssot.lab.faults.fault import Fault
from ssot.lab.faults.log import FaultLog, What
from ssot.lab.processes import Process
from ssot.lab.services import Server

__all__ = ["Frozen", "Killed", "Recovered", "Restarted"]

Recovered = Callable[[str, Callable[[str], None]], Awaitable[None]]
"""Waits until the process or server of this name, and who depends on it, works again."""


class Frozen(Fault):
    """It is stopped with all its children (SIGSTOP): connections stay open, nothing answers."""

    def __init__(
        self,
        name: str,
        thing: Process | Server,
        *,
        log: FaultLog,
        open_faults: dict[Fault, None],
        recovered: Recovered,
    ) -> None:
        super().__init__("frozen", name, log=log, open_faults=open_faults)
        self._thing = thing
        self._recovered = recovered

    async def _make(self) -> None:
        self._thing.freeze()
        self._begun()

    async def _undo(self) -> None:
        self._thing.thaw()

    async def _recover(self, say: Callable[[str], None]) -> None:
        await self._recovered(self.target, say)


class Killed(Fault):
    """It is dead (SIGKILL); on leaving it is started again, unless somebody has done so."""

    outlives_its_cause: ClassVar[bool] = True
    _kind: ClassVar[What] = "killed"

    def __init__(
        self,
        name: str,
        thing: Process | Server,
        *,
        log: FaultLog,
        open_faults: dict[Fault, None],
        recovered: Recovered,
        wanted: Callable[[], bool],
    ) -> None:
        super().__init__(self._kind, name, log=log, open_faults=open_faults)
        self._thing = thing
        self._recovered = recovered
        # Whether it is still part of the lab: a worker of a check that is over is not.
        self._wanted = wanted

    async def _make(self) -> None:
        self._begun()
        await self._thing.kill()

    async def _undo(self) -> None:
        """There is nothing to undo; it is started in :meth:`_recover`, which takes its time."""

    async def _recover(self, say: Callable[[str], None]) -> None:
        if not self._wanted():
            return
        if not self._thing.running:
            say(f"{self.target} does not come up")
            await self._thing.start()
        await self._recovered(self.target, say)


class Restarted(Killed):
    """It is stopped in order and started again at once."""

    _kind: ClassVar[What] = "restarted"

    async def _make(self) -> None:
        self._begun()
        await self._thing.stop()

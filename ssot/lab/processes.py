"""The platform's processes as the lab runs them: started, killed and frozen from outside."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import psutil

from ssot.errors import SsotError
from ssot.lab.services import ServiceError, Workspace
from ssot.lab.services.signals import freeze_tree, is_frozen, thaw_tree
from ssot.lab.timeline import Timeline
from ssot.platform import ROLES

__all__ = ["COMPONENT_OF", "Process", "ProcessFailed"]

_READY = 60.0
_STOPPING = 20.0
_SERVE = "ssot.serve"
_PORT = {"auth": "AUTH_PORT", "node": "NODE_PORT"}

COMPONENT_OF: Mapping[str, str] = {
    "auth": "auth",
    "node": "websocket",
    "worker": "agents",
    "migrate": "database",
}
"""The component whose work a role does; others, like a provider, do that of none."""


class ProcessFailed(SsotError):
    """A process of the platform did not come up; carries its exit code and its log."""

    def __init__(self, name: str, *, role: str, code: int | None, log: str) -> None:
        self.name = name
        self.watches = _watches(role)
        self.code = code
        self.log = log
        how = "is not ready" if code is None else f"ended with exit code {code}"
        super().__init__(f"{name} {how}; it logged:\n{log}")


class Process:
    """``python -m ssot.serve <role>`` with exactly the environment that it is given.

    It keeps its ports when it is started again, and its log goes on in the same file. ``module`` is
    another one to be run, which says that it is ready in the same way; it is given no role.
    """

    def __init__(
        self,
        role: str,
        name: str,
        *,
        workspace: Workspace,
        environment: Mapping[str, str],
        timeline: Timeline,
        module: str = _SERVE,
    ) -> None:
        self.role = role
        self.name = name
        self.addresses: Mapping[str, str] = MappingProxyType({})
        self.environment: Mapping[str, str] = MappingProxyType({**environment, **workspace.mark})
        self.log_path: Path = workspace.root / f"{name.replace(' ', '-')}.log"
        # An earlier one of this name has perhaps written there.
        self._log_begin = self.log_position()
        self._workspace = workspace
        self._module = module
        self._ports: dict[str, str] = {}
        self._timeline = timeline
        self._popen: subprocess.Popen[bytes] | None = None
        self._ready = False

    def __repr__(self) -> str:
        return f"<{self.name}, {'running' if self.running else 'not running'}>"

    @property
    def address(self) -> str | None:
        """Where it listens; ``None`` when it does not, was never up, or is ``all``.

        ``addresses`` has those of every role in it, ``environment`` what it was given: the mark of
        its workspace too, but not the ports that it keeps.
        """
        return self.addresses.get(self.role)

    @property
    def has_health(self) -> bool:
        """Whether it answers ``/health`` at its address."""
        return self.role in _PORT

    @property
    def watches(self) -> frozenset[str]:
        """The components that its log and its end tell of."""
        return _watches(self.role)

    @property
    def running(self) -> bool:
        """Whether the process is there (also when it is frozen)."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def is_ready(self) -> bool:
        """Whether it runs and has said that it is ready."""
        return self._ready and self.running

    @property
    def frozen(self) -> bool:
        """Whether the process is there and stopped."""
        return self.running and is_frozen(self.pid)

    @property
    def pid(self) -> int:
        """The process's id.

        :raises ServiceError: when it does not run.
        """
        if self._popen is None or self._popen.poll() is not None:
            raise ServiceError(f"{self.name} is not running")
        return self._popen.pid

    def children(self) -> dict[str, int]:
        """The ids of the processes that ``all`` has started, by their roles.

        :raises ServiceError: when it does not run.
        """
        found: dict[str, int] = {}
        for child in psutil.Process(self.pid).children():
            try:
                _, module, role, *_ = child.cmdline()[1:]
            except (psutil.NoSuchProcess, ValueError):
                continue
            if module == _SERVE and role in ROLES:
                found[role] = child.pid
        return found

    def environ(self, role: str | None = None) -> dict[str, str]:
        """The variables that it runs with, as the operating system says.

        Of ``all`` those of its child of this role, or its own.

        :raises ServiceError: when it does not run.
        """
        pid = self.pid
        if role is not None and role != self.role:
            if role not in (children := self.children()):
                there = ", ".join(children) or "none"
                raise ServiceError(f"{self.name} has no process {role}; there are: {there}")
            pid = children[role]
        try:
            return psutil.Process(pid).environ()
        except psutil.NoSuchProcess:
            raise ServiceError(f"{self.name} is not running") from None

    async def start(self) -> None:
        """Start it and return when it says that it is ready; :class:`ProcessFailed` otherwise.

        ``all`` is ready when each of its roles is.
        """
        since = self.log_position()
        self._ready = False
        serve = self._module == _SERVE
        self._popen = self._workspace.spawn(
            [sys.executable, "-m", self._module, *([self.role] if serve else [])],
            environment={**self.environment, **self._ports},
            stdout=subprocess.PIPE,
            stderr=self.log_path,
        )
        reading = asyncio.create_task(asyncio.to_thread(self._read_ready, self._popen))
        try:
            async with asyncio.timeout(_READY):
                found = await asyncio.shield(reading)
        except (TimeoutError, asyncio.CancelledError) as error:
            # Its death ends the line that the thread is waiting for.
            await self._end(signal.SIGKILL, _STOPPING, keep=True)
            await reading
            self._close_stdout()
            if isinstance(error, TimeoutError):
                raise ProcessFailed(
                    self.name, role=self.role, code=None, log=self._log(since)
                ) from None
            raise
        if found is None:
            code = await self._end(signal.SIGTERM, _STOPPING)
            raise ProcessFailed(self.name, role=self.role, code=code, log=self._log(since))
        self.addresses = MappingProxyType(found)
        self._ports = {
            _PORT[role]: str(urlsplit(address).port)
            for role, address in found.items()
            if role in _PORT
        }
        self._ready = True
        self._timeline.record(self.name, "ready")

    async def stop(self) -> int:
        """Ask it to stop (SIGTERM) and return its exit code; killed after 20 s.

        A frozen one goes on first: it could not obey.
        """
        if self._popen is None:
            return 0
        self.thaw()
        self._timeline.record(self.name, "SIGTERM")
        return await self._end(signal.SIGTERM, _STOPPING)

    async def kill(self) -> None:
        """SIGKILL it; returns when it is gone."""
        self._timeline.record(self.name, "SIGKILL")
        if self._popen is not None:
            await self._end(signal.SIGKILL, _STOPPING)

    def release(self) -> None:
        """Let go of a process that its workspace has ended. Idempotent."""
        self._close_stdout()

    def freeze(self) -> None:
        """SIGSTOP it with all its children; returns when they have stopped.

        Its connections stay open and it does nothing.

        :raises ServiceError: when it does not run.
        """
        self._timeline.record(self.name, "SIGSTOP")
        freeze_tree(self.pid)

    def thaw(self) -> None:
        """Let it go on after :meth:`freeze`. Does nothing when it is not frozen."""
        if self.frozen:
            self._timeline.record(self.name, "SIGCONT")
            thaw_tree(self.pid)

    def log_position(self) -> int:
        """Where the log ends now."""
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def log_lines(self, since: int | None = None) -> list[str]:
        """What it logged, and nothing of an earlier process of its name; or all after ``since``."""
        return self._log(self._log_begin if since is None else since).splitlines()

    def _read_ready(self, popen: subprocess.Popen[bytes]) -> dict[str, str] | None:
        """The addresses that it says, by role; ``None`` when it ends before all are up."""
        assert popen.stdout is not None
        waiting = set(ROLES) if self.role == "all" else {self.role}
        found: dict[str, str] = {}
        while waiting:
            line = popen.stdout.readline()
            if not line:
                return None
            said = json.loads(line)
            waiting.discard(said["ready"])
            if said["address"] is not None:
                found[said["ready"]] = said["address"]
        return found

    async def _end(self, number: signal.Signals, patience: float, *, keep: bool = False) -> int:
        assert self._popen is not None
        popen = self._popen
        if popen.poll() is None:
            children = psutil.Process(popen.pid).children() if self.role == "all" else []
            popen.send_signal(number)
            try:
                await asyncio.to_thread(popen.wait, patience)
            except subprocess.TimeoutExpired:
                popen.kill()
                await asyncio.to_thread(popen.wait)
            # They end by themselves when the launcher is gone, and have its ports until then.
            await asyncio.to_thread(psutil.wait_procs, children, timeout=patience)
        if not keep:
            self._close_stdout()
        return popen.returncode

    def _close_stdout(self) -> None:
        if self._popen is not None and self._popen.stdout is not None:
            self._popen.stdout.close()

    def _log(self, since: int) -> str:
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")


def _watches(role: str) -> frozenset[str]:
    roles = ROLES if role == "all" else (role,)
    components = {COMPONENT_OF[each] for each in roles if each in COMPONENT_OF}
    return frozenset(components | {"configuration"} if components else ())

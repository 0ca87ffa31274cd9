"""The platform's processes as the lab runs them: started, killed and frozen from outside."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from ssot.errors import SsotError
from ssot.lab.services import Workspace
from ssot.lab.timeline import Timeline

__all__ = ["Process", "ProcessFailed"]

_READY = 60.0
_STOPPING = 20.0
_PORT = {"auth": "AUTH_PORT", "node": "NODE_PORT"}


class ProcessFailed(SsotError):
    """A process of the platform did not come up; carries its exit code and its log."""

    def __init__(self, name: str, *, code: int | None, log: str) -> None:
        self.name = name
        self.code = code
        self.log = log
        how = "is not ready" if code is None else f"ended with exit code {code}"
        super().__init__(f"{name} {how}; it logged:\n{log}")


class Process:
    """``python -m ssot.serve <role>`` with exactly the environment that it is given.

    It keeps its port when it is started again, and its log goes on in the same file.
    """

    def __init__(
        self,
        role: str,
        name: str,
        *,
        workspace: Workspace,
        environment: Mapping[str, str],
        timeline: Timeline,
    ) -> None:
        self.role = role
        self.name = name
        self.address: str | None = None
        self.log_path: Path = workspace.root / f"{name.replace(' ', '-')}.log"
        self._workspace = workspace
        self._environment = dict(environment)
        self._timeline = timeline
        self._popen: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}, {'running' if self.running else 'not running'}>"

    @property
    def running(self) -> bool:
        """Whether the process is there (also when it is frozen)."""
        return self._popen is not None and self._popen.poll() is None

    async def start(self) -> None:
        """Start it and return when it says that it is ready; :class:`ProcessFailed` otherwise."""
        since = self.log_position()
        self._popen = self._workspace.spawn(
            [sys.executable, "-m", "ssot.serve", self.role],
            environment=self._environment,
            stdout=subprocess.PIPE,
            stderr=self.log_path,
        )
        assert self._popen.stdout is not None
        reading = asyncio.create_task(asyncio.to_thread(self._popen.stdout.readline))
        try:
            async with asyncio.timeout(_READY):
                line = await asyncio.shield(reading)
        except (TimeoutError, asyncio.CancelledError) as error:
            # Its death ends the line that the thread is waiting for.
            self._popen.kill()
            await reading
            await self._end(signal.SIGKILL, _STOPPING)
            if isinstance(error, TimeoutError):
                raise ProcessFailed(self.name, code=None, log=self._log(since)) from None
            raise
        if not line:
            code = await self._end(signal.SIGTERM, _STOPPING)
            raise ProcessFailed(self.name, code=code, log=self._log(since))
        self.address = json.loads(line)["address"]
        if self.address is not None:
            self._environment[_PORT[self.role]] = str(urlsplit(self.address).port)
        self._timeline.record(self.name, "ready")

    async def stop(self) -> int:
        """Ask it to stop (SIGTERM) and return its exit code; killed after 20 s."""
        if self._popen is None:
            return 0
        self._timeline.record(self.name, "SIGTERM")
        return await self._end(signal.SIGTERM, _STOPPING)

    async def kill(self) -> None:
        """SIGKILL it; returns when it is gone."""
        self._timeline.record(self.name, "SIGKILL")
        if self._popen is not None:
            await self._end(signal.SIGKILL, _STOPPING)

    def freeze(self) -> None:
        """SIGSTOP it: its connections stay open and it does nothing."""
        self._timeline.record(self.name, "SIGSTOP")
        assert self._popen is not None
        psutil.Process(self._popen.pid).suspend()

    def thaw(self) -> None:
        """Let it go on after :meth:`freeze`."""
        self._timeline.record(self.name, "SIGCONT")
        assert self._popen is not None
        psutil.Process(self._popen.pid).resume()

    def log_position(self) -> int:
        """Where the log ends now."""
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def log_lines(self, since: int = 0) -> list[str]:
        """What it logged after ``since``."""
        return self._log(since).splitlines()

    async def _end(self, number: signal.Signals, patience: float) -> int:
        assert self._popen is not None
        popen = self._popen
        if popen.poll() is None:
            popen.send_signal(number)
            try:
                await asyncio.to_thread(popen.wait, patience)
            except subprocess.TimeoutExpired:
                popen.kill()
                await asyncio.to_thread(popen.wait)
        if popen.stdout is not None:
            popen.stdout.close()
        return popen.returncode

    def _log(self, since: int) -> str:
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

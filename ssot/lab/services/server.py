"""What every server of a lab offers, and what the servers that the lab starts have in common."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar, Protocol

import psutil

from ssot.lab.services.binaries import Installation, server_user
from ssot.lab.services.errors import ServiceError
from ssot.lab.services.ports import pick_port
from ssot.lab.services.signals import freeze_tree, thaw_tree, tree_of
from ssot.lab.services.workspace import Workspace

__all__ = ["EmbeddedServer", "PostgresServer", "RedisServer", "Server"]

_POLL = 0.005
_READY = 30.0
_STOPPING = 10.0
_GONE = 10.0
_AGAIN = 3.0
_PORTS = 10
_LAST_LINES = 4


class Server(Protocol):
    """A real server. One that the lab did not start refuses to be controlled.

    Everything here that a server cannot do raises :exc:`ServiceError`.
    """

    @property
    def host(self) -> str:
        """Where it listens."""

    @property
    def port(self) -> int:
        """Where it listens; the same after every restart."""

    @property
    def pid(self) -> int:
        """The process that clients connect to. Refused when the lab did not start it."""

    @property
    def running(self) -> bool:
        """Whether its process is there (also when it is frozen)."""

    @property
    def log_path(self) -> Path | None:
        """The file that it logs to; ``None`` when that is out of reach."""

    def log_position(self) -> int:
        """Where the log ends now, to be given to :meth:`log_lines` later."""

    def log_lines(self, since: int = 0) -> list[str]:
        """What it logged after ``since``; nothing when the log is out of reach."""

    async def start(self) -> None:
        """Return when it answers an authenticated request."""

    async def stop(self) -> None:
        """End it in order: clients are cut off, data are flushed."""

    async def kill(self) -> None:
        """SIGKILL it with all its children; returns when they are gone."""

    async def restart(self) -> None:
        """Start it again on its port with its data; stops it first when it runs."""

    def freeze(self) -> None:
        """SIGSTOP it with all its children: connections stay open, nothing answers."""

    def thaw(self) -> None:
        """Let it go on after :meth:`freeze`."""


class PostgresServer(Server, Protocol):
    """A PostgreSQL, with somebody who may create databases and roles there."""

    @property
    def admin_url(self) -> str:
        """``postgresql://user:password@host:port/database`` of the administrator."""


class RedisServer(Server, Protocol):
    """A Valkey or Redis."""

    @property
    def url(self) -> str:
        """``redis://:password@host:port/0``."""


class EmbeddedServer(abc.ABC):
    """A server that the lab starts in a workspace, which also ends it.

    ``port`` asks for that one and no other; without it a free one is drawn, and kept.
    ``installation`` is the program to run; without it the first that is found.
    """

    what: ClassVar[str]
    host: ClassVar[str] = "127.0.0.1"

    def __init__(
        self,
        workspace: Workspace,
        *,
        port: int | None = None,
        installation: Installation | None = None,
    ) -> None:
        self._workspace = workspace
        self._user = server_user()
        self._password = secrets.token_urlsafe(18)
        self._port = port
        self._installation = installation
        self._prepared = False
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0
        self._directory = workspace.root / type(self).__name__.removeprefix("Embedded").lower()

    @property
    def port(self) -> int:
        """Where it listens; the same after every restart."""
        if self._port is None:
            raise ServiceError(f"this {self.what} was never started")
        return self._port

    @property
    def pid(self) -> int:
        """The process that clients connect to.

        :raises ServiceError: when it does not run.
        """
        process = self._process
        if process is None or process.poll() is not None:
            raise ServiceError(f"this {self.what} is not running")
        return process.pid

    @property
    def running(self) -> bool:
        """Whether its process is there (also when it is frozen)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The file that it logs to."""
        return self._directory.with_suffix(".log")

    def log_position(self) -> int:
        """Where the log ends now, in bytes."""
        try:
            return self.log_path.stat().st_size
        except FileNotFoundError:
            return 0

    def log_lines(self, since: int = 0) -> list[str]:
        """What it logged after ``since``, without its password."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(since)
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return text.replace(self._password, "***").splitlines()

    async def start(self) -> None:
        """Return when it answers an authenticated request. Does nothing while it runs.

        Cancelled, it leaves nothing that the workspace does not remove.

        :raises ServiceError: with the last lines of its log when it does not come up; when the
            port that was asked for is taken; when there is no program to run.
        """
        if self.running:
            return
        if not self._prepared:
            # A start that was cancelled may have left half a cluster, and children of initdb that
            # die a moment after it.
            until = time.monotonic() + _GONE
            while self._directory.exists() and time.monotonic() < until:
                await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
            await self._prepare()
            self._prepared = True
        if self._port is not None:
            await self._launch(self._port)
            return
        for _ in range(_PORTS):
            port = pick_port()
            try:
                await self._launch(port)
            except _PortTaken:
                continue
            self._port = port
            return
        raise ServiceError(f"{self.what} found each of {_PORTS} ports taken that had been free")

    async def stop(self) -> None:
        """End it in order, within 10 seconds, then by force. Does nothing when it does not run."""
        if not self.running:
            return
        self.thaw()
        assert self._process is not None
        self._process.send_signal(self._stop_signal)
        until = time.monotonic() + _STOPPING
        while self.running:
            if time.monotonic() > until:
                await self.kill()
                return
            await asyncio.sleep(_POLL)

    async def kill(self) -> None:
        """SIGKILL it with all its children; returns when they are gone.

        :raises ServiceError: when they are still there after 10 seconds.
        """
        if not self.running:
            return
        assert self._process is not None
        # Stopped, it cannot start another child between the look and the kill.
        self._process.send_signal(signal.SIGSTOP)
        tree = self._tree()
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        until = time.monotonic() + _GONE
        while self.running or any(_alive(process) for process in tree):
            if time.monotonic() > until:
                raise ServiceError(f"{self.what} is still there {_GONE:g} s after SIGKILL")
            await asyncio.sleep(_POLL)

    async def restart(self) -> None:
        """Start it again on its port with its data; stops it first when it runs.

        :raises ServiceError: as :meth:`start`.
        """
        await self.stop()
        await self.start()

    def freeze(self) -> None:
        """SIGSTOP it with all its children; returns when they have stopped."""
        freeze_tree(self.pid)

    def thaw(self) -> None:
        """Let it go on after :meth:`freeze`. Does nothing when it does not run."""
        if self.running:
            thaw_tree(self.pid)

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "not running"
        return f"<{type(self).__name__} on port {self._port}, {state}>"

    # What each kind of server says for itself

    _stop_signal: ClassVar[signal.Signals]
    _taken: ClassVar[str]
    _passing: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    async def _prepare(self) -> None:
        """Find the program and lay out its directory, once."""

    @abc.abstractmethod
    def _command(self, port: int) -> list[str | Path]:
        """Configure ``port`` and return the command line."""

    @abc.abstractmethod
    async def _answers(self, process: subprocess.Popen[bytes], port: int) -> bool:
        """Whether this very process answers an authenticated request on ``port`` now."""

    # What they share

    def _environment(self) -> dict[str, str]:
        """The environment of the server and its tools: nothing of ours changes what they do."""
        return {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}

    def _own(self, path: Path) -> None:
        """Hand ``path`` to the user that the server runs as."""
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _make_directory(self, path: Path, mode: int) -> None:
        path.mkdir()
        path.chmod(mode)
        self._own(path)

    def _write(self, path: Path, text: str) -> None:
        """A file that only the server can read."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        self._own(path)

    async def _launch(self, port: int) -> None:
        """Start the process, again while what stands in its way passes, until it answers."""
        again_until = time.monotonic() + _AGAIN
        while True:
            position = self._started_at = self.log_position()
            process = self._workspace.spawn(
                self._command(port),
                environment=self._environment(),
                cwd=Path("/"),
                user=self._user,
                stdout=self.log_path,
                stderr=self.log_path,
            )
            self._process = process
            try:
                code = await self._wait_ready(process, port)
            except BaseException:
                # Also when cancelled: nobody would know of it. It ends within milliseconds.
                for member in self._tree():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.kill()
                process.wait(timeout=_GONE)
                raise
            if code is None:
                return
            lines = self.log_lines(position)
            text = "\n".join(lines)
            passing = any(reason in text for reason in self._passing)
            if passing and time.monotonic() < again_until:
                await asyncio.sleep(_POLL * 4)
                continue
            if self._taken in text:
                raise _PortTaken(f"port {port} is taken: {self.what} cannot listen there")
            raise ServiceError(
                f"{self.what} ended with code {code} when it was started: {_tail(lines)}"
            )

    async def _wait_ready(self, process: subprocess.Popen[bytes], port: int) -> int | None:
        """``None`` once it answers, or the exit code of a process that ended."""
        until = time.monotonic() + _READY
        while True:
            if (code := process.poll()) is not None:
                return code
            if await self._answers(process, port):
                return None
            if time.monotonic() > until:
                raise ServiceError(
                    f"{self.what} did not answer on port {port} within {_READY:g} s: "
                    f"{_tail(self.log_lines())}"
                )
            await asyncio.sleep(_POLL)

    def _tree(self) -> list[psutil.Process]:
        """Its processes, the parent first; none when it does not run."""
        if not self.running:
            return []
        assert self._process is not None
        return tree_of(self._process.pid)


class _PortTaken(ServiceError):
    """Somebody else listens there; another port may do."""


def _alive(process: psutil.Process) -> bool:
    try:
        # Dead children of a killed parent wait for init to take notice of them.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _tail(lines: list[str]) -> str:
    return " | ".join(line.strip() for line in lines[-_LAST_LINES:]) or "it logged nothing"

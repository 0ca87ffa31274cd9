"""The one temporary directory of a lab, with every process that was started in it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from ssot.lab.services.errors import ServiceError

__all__ = ["MARK", "Workspace", "place_for_workspaces"]

MARK = "SSOT_WORKSPACE"

_WATCHDOG = Path(__file__).with_name("watchdog.py")
_MEMORY = Path("/dev/shm")  # noqa: S108 - the name below it is drawn and new
_ROOMY = 2_000_000_000
_MINIMUM_FREE = 200_000_000
_CLOSING = 5.0
_CLOSING_WITH_STEPS = 10.0
_POLL = 0.005

_log = logging.getLogger(__name__)


class Workspace:
    """Owns one temporary root directory and every process that carries its mark.

    However the owner ends, SIGKILL included, a watchdog process kills what is the workspace's own,
    removes the directory and runs the steps of :meth:`at_end`; :meth:`close` takes the same way. A
    workspace that is collected open warns with a :exc:`ResourceWarning`; one that is still open
    when the interpreter exits is closed then.

    Use :meth:`open`, as a context manager of either kind. Thread-safe.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self._orders: list[Mapping[str, Any]] = [
            {
                "root": str(root),
                "owner": os.getpid(),
                "path": [os.path.abspath(entry) for entry in sys.path if entry],
            }
        ]
        self._owner = os.getpid()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.RLock()
        self._closing = threading.Lock()
        self._closed = False
        self._finished = False
        self._watchdog = self._start_watchdog()

    @classmethod
    def open(cls, name: str, *, minimum_free: int = _MINIMUM_FREE) -> Workspace:
        """A new workspace; ``name`` is for people. ``minimum_free`` is in bytes of disk space.

        :raises ServiceError: when the temporary directory has less space, or cannot be used.
        """
        _unreaped[:] = [process for process in _unreaped if process.poll() is None]
        base = place_for_workspaces(minimum_free=minimum_free)
        while True:
            # The watchdog comes first: there is no moment in which a SIGKILL would leave something.
            workspace = cls(name, base / f"ssot-{secrets.token_hex(4)}")
            try:
                workspace.root.mkdir(mode=0o711)
            except FileExistsError:
                workspace._abandon()
                continue
            except OSError as error:
                workspace._abandon()
                raise ServiceError(f"cannot write to {base}: {error.strerror}") from error
            # Whatever the umask: the user that the servers run as must get through.
            workspace.root.chmod(0o711)
            _open.add(workspace)
            return workspace

    @property
    def mark(self) -> dict[str, str]:
        """The environment variables that make a process, and its children, the workspace's own."""
        return {MARK: str(self.root)}

    @property
    def watchdog_pid(self) -> int:
        """The pid of the watchdog: a child of this process that is not one of the workspace's."""
        return self._watchdog.pid

    @property
    def pids(self) -> list[int]:
        """The processes that were started here and are there."""
        with self._lock:
            return [process.pid for process in self._processes if process.poll() is None]

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def spawn(
        self,
        argv: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        cwd: Path | None = None,
        user: str | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: Path | int | None = subprocess.DEVNULL,
        stderr: Path | int | None = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a process of the workspace, in a session of its own.

        ``environment`` is all that it gets, plus the mark. ``cwd`` is the root when it is not
        given. ``user`` is a name, for root only: its uid and group, no other groups. A path for
        ``stdout`` or ``stderr`` is appended to, and made with mode 0600. Closing the workspace ends
        the process.

        :raises ServiceError: when the workspace is closed.
        :raises OSError: when the program cannot be run.
        """
        identity: dict[str, Any] = {}
        if user is not None:
            entry = pwd.getpwnam(user)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        with contextlib.ExitStack() as stack:
            outputs = [
                stack.enter_context(_append(target)) if isinstance(target, Path) else target
                for target in (stdout, stderr)
            ]
            with self._lock:
                self._refuse_when_closed()
                process = subprocess.Popen(
                    [str(word) for word in argv],
                    env={**environment, **self.mark},
                    cwd=cwd or self.root,
                    stdin=stdin,
                    stdout=outputs[0],
                    stderr=outputs[1],
                    pass_fds=pass_fds,
                    start_new_session=True,
                    **identity,
                )
                self._processes = [old for old in self._processes if old.poll() is None]
                self._processes.append(process)
        return process

    async def run(
        self,
        argv: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        output: Path,
        deadline: float,
        user: str | None = None,
    ) -> int:
        """Run a program to its end and return its exit code; ``output`` gets all that it prints.

        It is killed when this is cancelled, or after ``deadline`` seconds.

        :raises ServiceError: when it takes longer than ``deadline``.
        """
        process = self.spawn(argv, environment=environment, user=user, stdout=output, stderr=output)
        until = time.monotonic() + deadline
        try:
            while (code := process.poll()) is None:
                if time.monotonic() > until:
                    raise ServiceError(f"{argv[0]} did not end within {deadline:g} s")
                await asyncio.sleep(_POLL)
        finally:
            if process.poll() is None:
                # Its group: initdb works through children.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return code

    def at_end(self, step: Mapping[str, str]) -> None:
        """Have the watchdog remove one thing more when the workspace ends, in any way.

        * ``{"drop_database": <administrator's URL>, "database": name}``: ends its connections,
          drops it, then every role named ``<name>_…``
        * ``{"delete_keys": <Redis URL>, "prefix": p}``: the keys that start with ``p``
        * ``{"remove": path}``: a file or directory
        * ``{"release_memory": path}``: what a killed PostgreSQL with this ``postmaster.pid`` leaves

        Give the order before the thing exists: one that is not there is no error. It goes through a
        pipe, never through a command line, so it may hold a password.
        """
        keys = frozenset(step)
        if keys not in _STEPS:
            raise ValueError(f"the watchdog knows no step with the keys {', '.join(sorted(keys))}")
        if not all(step.values()):
            # An empty prefix would mean every key of the server.
            raise ValueError(f"a step of the watchdog has an empty {', '.join(sorted(keys))}")
        with self._lock:
            self._refuse_when_closed()
            self._orders.append(dict(step))
            self._tell(step)

    def close(self) -> None:
        """End every process and remove everything; returns when that is done.

        Waits 5 seconds for it at most, 10 when there are steps on other servers; the watchdog goes
        on after that. What it could not do is logged. Idempotent. In a process forked from the
        owner it does nothing.
        """
        if os.getpid() != self._owner:
            return
        self._end()
        with self._closing:
            if self._finished:
                return
            try:
                self._wait_for_watchdog()
            finally:
                self._finished = True
                _open.discard(self)

    async def aclose(self) -> None:
        """:meth:`close` without blocking the loop. Cancelled, the clean-up still happens."""
        self._end()
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Workspace {self.name!r} at {self.root}, {state}>"

    def __del__(self) -> None:
        # A constructor that failed leaves no attribute behind.
        if not getattr(self, "_closed", True) and os.getpid() == self._owner:
            text = f"{self!r} was never closed"
            self._end()
            _drop_pipes(self._watchdog)
            # Nobody waits for them here; this keeps the one warning from becoming many.
            _unreaped.extend([self._watchdog, *self._processes])
            warnings.warn(text, ResourceWarning, source=self, stacklevel=1)

    def _start_watchdog(self) -> subprocess.Popen[bytes]:
        """Start a watchdog and give it all orders so far."""
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        watchdog = subprocess.Popen(
            [sys.executable, "-I", str(_WATCHDOG)],
            # The mark of a watchdog: it belongs to no workspace, not even to one that its owner
            # was started in.
            env={**environment, "SSOT_WATCHDOG": str(self.root)},
            cwd="/",
            stdin=subprocess.PIPE,
            # Nothing of the owner's: a reader of the owner's output must see its end.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._watchdog = watchdog
        for order in self._orders:
            self._tell(order)
        return watchdog

    def _tell(self, order: Mapping[str, Any]) -> None:
        pipe = self._watchdog.stdin
        # A watchdog that has died is replaced in `close`, with all orders.
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.write(json.dumps(order).encode() + b"\n")
                pipe.flush()

    def _end(self) -> None:
        """Let the watchdog begin; does not wait."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._dismiss()

    def _dismiss(self) -> None:
        """Let the watchdog begin."""
        with self._lock:
            # The word as well as the end of the file: a forked child may hold the pipe.
            self._tell({"end": True})
            self._hang_up()

    def _abandon(self) -> None:
        """Take it back: this root is not ours."""
        with self._lock:
            self._closed = self._finished = True
            self._tell({"abandon": True})
            self._hang_up()
            self._watchdog.communicate()

    def _hang_up(self) -> None:
        pipe, self._watchdog.stdin = self._watchdog.stdin, None
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()

    def _wait_for_watchdog(self) -> None:
        patience = _CLOSING if len(self._orders) == 1 else _CLOSING_WITH_STEPS
        try:
            answer, _ = self._watchdog.communicate(timeout=patience)
            if self._watchdog.returncode < 0:
                # Somebody has killed it: another one does the same.
                self._watchdog = self._start_watchdog()
                self._dismiss()
                answer, _ = self._watchdog.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            _log.warning("%r: the watchdog is not done after %g s", self, patience)
            _drop_pipes(self._watchdog)
            return
        # They are dead; without this they would stay zombies, and warn when they are collected.
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
        try:
            problems = json.loads(answer)
        except ValueError:
            problems = [f"the watchdog failed: {answer.decode(errors='replace').strip()}"]
        for problem in problems:
            _log.warning("%r: %s", self, problem)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ServiceError(f"the workspace {self.name!r} is closed")


_STEPS = frozenset(
    {
        frozenset({"drop_database", "database"}),
        frozenset({"delete_keys", "prefix"}),
        frozenset({"remove"}),
        frozenset({"release_memory"}),
    }
)

_open: weakref.WeakSet[Workspace] = weakref.WeakSet()
_unreaped: list[subprocess.Popen[bytes]] = []


@atexit.register
def _close_all() -> None:
    for workspace in list(_open):
        workspace.close()


def place_for_workspaces(*, minimum_free: int = _MINIMUM_FREE) -> Path:
    """Where a workspace would be made now.

    :raises ServiceError: when there is less space than ``minimum_free``, in bytes, or no place.
    """
    base = _temporary_directory()
    free = shutil.disk_usage(base).free
    if free < minimum_free:
        raise ServiceError(
            f"no disk: {base} has {free / 1e6:.0f} MB free, a workspace needs "
            f"{minimum_free / 1e6:.0f} MB; make room or set TMPDIR to another place"
        )
    return base


def _temporary_directory() -> Path:
    """Where workspaces are made: ``TMPDIR``, else memory where there is plenty, else the disk.

    For root it must be a place that the user of the servers can enter too.
    """
    places = [Path(tempfile.gettempdir())]
    if not any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")) and _memory_is_roomy():
        places.insert(0, _MEMORY)
    if os.geteuid() != 0:
        return places[0]
    places += [Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - the name below it is drawn and new
    for place in places:
        if place.is_dir() and _everybody_can_enter(place.resolve()):
            return place
    raise ServiceError(
        f"{places[0]} cannot be entered by other users, and as root the servers run as nobody; "
        "set TMPDIR to a place like /tmp"
    )


def _memory_is_roomy() -> bool:
    """Whether a lab or ten fit into memory.

    A cluster has a thousand files. On a disk their creation takes from 0.07 to 0.9 seconds (ext4
    is slow to use inodes again that were freed a moment ago), in memory always 0.08; and CREATE
    DATABASE a tenth of the time.
    """
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return False
    writable = os.access(_MEMORY, os.W_OK | os.X_OK)
    return writable and min(free, psutil.virtual_memory().available) > _ROOMY


def _everybody_can_enter(place: Path) -> bool:
    return all(part.stat().st_mode & stat.S_IXOTH for part in (place, *place.parents))


@contextlib.contextmanager
def _append(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _drop_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()

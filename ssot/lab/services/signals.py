"""Freezing a process with all its children, and letting them go on."""

from __future__ import annotations

import contextlib
import time

import psutil

from ssot.lab.services.errors import ServiceError

__all__ = ["freeze_tree", "is_frozen", "thaw_tree", "tree_of"]

_STOPPING = 1.0


def tree_of(pid: int) -> list[psutil.Process]:
    """The process and all its children, the parent first; none when it is gone."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def freeze_tree(pid: int) -> None:
    """SIGSTOP a process with all its children; returns when they have stopped.

    :raises ServiceError: when one has not stopped after a second.
    """
    # The parent first: what it could still start would be missed.
    _suspend(tree_of(pid)[:1])
    _suspend(tree_of(pid)[1:])


def thaw_tree(pid: int) -> None:
    """SIGCONT a process with all its children, which may be frozen, running or gone."""
    for process in reversed(tree_of(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def is_frozen(pid: int) -> bool:
    """Whether the process is there and stopped."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def _suspend(processes: list[psutil.Process]) -> None:
    """SIGSTOP acts when the process next enters the kernel: microseconds, but not at once."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    until = time.monotonic() + _STOPPING
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
                if time.monotonic() > until:
                    raise ServiceError(f"process {process.pid} did not stop on SIGSTOP")
                time.sleep(0.0005)

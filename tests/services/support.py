"""What the tests of the services share: owners in processes of their own, looks at processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[2]

OWNER = """
import asyncio, json, os, signal, sys
from ssot.lab.services import Workspace, open_services

async def main(then):
    workspace = Workspace.open("owner")
    services = await open_services("embedded", workspace)
    if then == "freeze":
        services.postgres.freeze()
        services.redis.freeze()
    if then == "fork" and os.fork() == 0:
        signal.pause()
    print(json.dumps({
        "root": str(workspace.root),
        "pids": [services.postgres.pid, services.redis.pid],
        "watchdog": workspace.watchdog_pid,
        "uid": os.getuid(),
    }), flush=True)
    if then == "raise":
        raise RuntimeError("an owner that fails")
    if then == "return":
        return
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


def environment(**more: str) -> dict[str, str]:
    """The environment of an owner in a process of its own: where this package is."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **more}


def start_owner(then: str = "wait", *, script: str = OWNER, **more: str) -> subprocess.Popen[bytes]:
    """An owner of a workspace with servers, in a process and a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", script, then],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def hello(owner: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What the owner says once its servers run."""
    assert owner.stdout is not None
    line = owner.stdout.readline()
    assert line, owner.communicate()[1].decode()
    return json.loads(line)


def until(condition: Callable[[], bool], *, seconds: float = 3.0) -> bool:
    """Whether ``condition`` came true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(root: str | Path) -> list[psutil.Process]:
    """The processes that have this root in their environment, command line or working directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            environ = process.environ()
            if "SSOT_WATCHDOG" in environ:
                continue
            texts = [*environ.values(), *process.cmdline(), process.cwd()]
            if any(str(root) in text for text in texts):
                found.append(process)
    return found


def nothing_left(said: dict[str, Any]) -> bool:
    """Whether no process and no directory of that owner's workspace is there."""
    return (
        not os.path.lexists(said["root"])
        and not any(alive(pid) for pid in [*said["pids"], said["watchdog"]])
        and not marked(said["root"])
    )

"""Telling a process to read its environment again, and hearing what it says of that."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable

from ssot.lab.processes import Process, ProcessFailed

__all__ = ["messages", "reload"]

_POLL = 0.02
_SAID = re.compile(r"environment (not )?reloaded")
# How each record of a process begins; the other lines of a message follow as they are.
_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: (?P<text>.*)")
_SERVING = ("auth", "node", "worker")
_SHOWN = 25


async def reload(
    process: Process, role: str, *, patience: float, redact: Callable[[str], str]
) -> str:
    """Send SIGHUP and return the message that the environment was, or was not, reloaded.

    ``role`` is its own, or that of a child of ``all``; ``all`` itself answers with a message for
    each child that serves. ``patience`` is in seconds; then an :class:`AssertionError` shows the
    log. :class:`ProcessFailed` when the process has ended: SIGHUP kills who does not expect it.
    """
    since = process.log_position()
    part = process.role == "all" != role
    wanted = len(_SERVING) if role == "all" else 1
    os.kill(process.children()[role] if part else process.pid, signal.SIGHUP)
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    before: list[str] = []
    while True:
        ended = not process.running
        lines = process.log_lines(since)
        found = messages(lines)
        # A message of several lines is there when no more of them come.
        if len(found) >= wanted and lines == before:
            return redact("\n".join(found))
        if ended:
            code = await process.stop()
            raise ProcessFailed(
                process.name, role=process.role, code=code, log=redact("\n".join(lines))
            )
        if loop.time() > until:
            logged = "\n".join(lines[-_SHOWN:]) or "nothing"
            raise AssertionError(
                f"{process.name} did not say within {patience:g} s whether its environment was "
                f"reloaded; it logged:\n{redact(logged)}"
            )
        before = lines
        await asyncio.sleep(_POLL)


def messages(lines: list[str]) -> list[str]:
    """The messages in a log that tell of a reload, each with all of its lines."""
    found: list[str] = []
    open_ = False
    for line in lines:
        record = _RECORD.match(line)
        if record is not None:
            open_ = _SAID.match(record["text"]) is not None
            if open_:
                found.append(record["text"])
        elif open_:
            found[-1] += f"\n{line}"
    return found

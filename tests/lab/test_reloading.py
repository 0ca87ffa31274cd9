"""Telling a process to reload: a real one gets the signal, and its own words come back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from ssot.lab.processes import Process, ProcessFailed
from ssot.lab.reloading import messages, reload
from ssot.lab.services import Workspace
from ssot.lab.timeline import Timeline

# Logs as `ssot.serve` does; what it says to the first, second, … signal are its blocks.
HEAD = """\
import json, logging, signal
logging.basicConfig(
    level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
)
log = logging.getLogger("ssot.serve")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
"""
READY = 'print(json.dumps({"ready": "listener", "address": None}), flush=True)\n'
HEARS = "signal.sigwait({signal.SIGHUP})\n"

Start = Callable[..., Awaitable[Process]]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a process that runs this source once it is ready, and ``before`` that another."""
    processes: list[Process] = []
    async with Workspace.open("reloading") as workspace:

        async def started(source: str, *, before: str = "") -> Process:
            (tmp_path / "listener.py").write_text(HEAD + before + READY + source)
            process = Process(
                "listener",
                "listener",
                workspace=workspace,
                environment={"PYTHONPATH": str(tmp_path)},
                timeline=Timeline(),
                module="listener",
            )
            processes.append(process)
            await process.start()
            return process

        yield started
        for process in processes:
            await process.kill()


async def asked(process: Process, patience: float = 12.0) -> str:
    return await reload(
        process, process.role, patience=patience, redact=lambda t: t.replace("secret-1", "***")
    )


async def test_what_it_says_after_the_signal_comes_back(start: Start) -> None:
    """All lines of the message, redacted, and nothing of what was said before or besides."""
    process = await start(
        HEARS
        + "log.info('4 connections')\nlog.info('environment reloaded, 1 changed: WORKER_SLOTS')\n"
        + HEARS
        + "log.error('environment not reloaded: 2 problems\\n  - A is secret-1\\n  - B')\n"
        "log.info('going on')\n" + HEARS,
        before="log.info('environment reloaded, 9 changed: OLD')\n",
    )
    assert await asked(process) == "environment reloaded, 1 changed: WORKER_SLOTS"
    assert await asked(process) == "environment not reloaded: 2 problems\n  - A is ***\n  - B"
    assert process.running


async def test_a_process_that_ends_is_told_with_its_log(start: Start) -> None:
    """With its code and what it logged, at once."""
    process = await start(HEARS + "log.error('no secret-1'); raise SystemExit(3)")
    with pytest.raises(ProcessFailed) as failed:
        await asked(process)
    assert failed.value.code == 3
    assert "no ***" in failed.value.log


async def test_a_process_that_says_nothing_of_it_is_told_with_its_log(start: Start) -> None:
    """After its time, with what it said instead."""
    process = await start(HEARS + "log.info('what is secret-1?')\n" + HEARS)
    with pytest.raises(AssertionError, match=r"within 0\.5 s.*\n.*what is \*\*\*\?"):
        await asked(process, 0.5)


def test_messages_are_told_from_other_records() -> None:
    """Each begins with a time, whatever stands in the lines below it."""
    at = "2026-11-22 10:00:00,123 INFO ssot.serve:"
    lines = [
        "left over of another message",
        f"{at} environment reloaded, 0 changed",
        f"{at} not about the environment reloaded",
        "  - of that",
        f"{at} environment reloaded, not all is applied: A",
        "  - environment reloaded",
        "",
        f"{at} 5/5",
    ]
    assert messages(lines) == [
        "environment reloaded, 0 changed",
        "environment reloaded, not all is applied: A\n  - environment reloaded\n",
    ]

"""The entry of every process: ``python -m ssot.serve auth|node|worker|migrate|all [--until-eof]``.

A role reads its environment variables, comes up, prints one line of JSON to standard output
(``{"ready": "node", "address": "ws://127.0.0.1:8082"}``) and runs until SIGTERM or SIGINT; a second
signal ends it at once. With ``--until-eof`` the end of standard input stops it like a signal, so
that it cannot outlive whoever holds the other end. Logs go to standard error, secrets redacted.

``migrate`` brings the schema up to date and ends. ``all`` starts migrate, auth, worker and node as
processes of their own, in this order, and stops them in the reverse one; ``AUTH_DATABASE_URL`` and
its like give each its own login role.

Exit codes: 0 stopped as asked, 1 failed, 2 wrong environment or arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from ssot.configuration import UnifiedConfiguration
from ssot.environment import IsolatedEnvironment, RedactingFilter
from ssot.errors import SettingsError, SsotError
from ssot.platform import ROLES, open_role

__all__ = ["main"]

_log = logging.getLogger("ssot.serve")


def main(arguments: list[str]) -> int:
    """Run one role; returns the exit code."""
    names = [argument for argument in arguments if argument != "--until-eof"]
    until_eof = len(names) < len(arguments)
    if len(names) != 1 or names[0] not in (*ROLES, "all"):
        sys.stderr.write(f"usage: python -m ssot.serve {'|'.join((*ROLES, 'all'))} [--until-eof]\n")
        return 2
    (name,) = names
    environment = IsolatedEnvironment(os.environ, service=None if name == "all" else name)
    _log_to_stderr(environment)
    try:
        if name == "migrate":
            asyncio.run(_until_stopped(_migrate(environment), until_eof=until_eof))
        elif name == "all":
            return asyncio.run(_all(environment))
        else:
            asyncio.run(_until_stopped(_run(name, environment), until_eof=until_eof))
    except SettingsError as error:
        _log.error("%s", error)
        return 2
    except SsotError as error:
        _log.error("%s", error)
        return 1
    return 0


async def _migrate(environment: IsolatedEnvironment) -> None:
    from ssot.database.migrate import migrate

    await migrate(UnifiedConfiguration(environment, "migrate").settings.database)
    _ready("migrate", None)


async def _until_stopped(work: Coroutine[Any, Any, None], *, until_eof: bool) -> None:
    """Do the work until it ends, or until we are told to stop; also in the middle of its start."""
    stop = _on_signals()
    eof = await _end_of_input() if until_eof else None
    if eof is not None:
        eof.add_done_callback(lambda _: stop.set())
    running = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (running, stopped, eof):
        if task is not None:
            task.cancel()
    # Whatever is open by then is closed in order.
    (result, _) = await asyncio.gather(running, stopped, return_exceptions=True)
    if isinstance(result, Exception):
        raise result


async def _run(name: str, environment: IsolatedEnvironment) -> None:
    async with open_role(name, environment) as role:
        _ready(name, role.address)
        await role.failed()


async def _end_of_input() -> asyncio.Task[bytes]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return asyncio.create_task(reader.read(), name="end of input")


async def _all(environment: IsolatedEnvironment) -> int:
    stop = _on_signals()
    running: list[asyncio.subprocess.Process] = []
    try:
        for role in ROLES:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ssot.serve", role, "--until-eof",
                env=_environment_of(role, environment), stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            running.append(process)
            assert process.stdout is not None
            line = await _line_or_stop(process.stdout, stop)
            if stop.is_set():
                return 0
            if not line:
                return await process.wait() or 1
            sys.stdout.write(line.decode())
            sys.stdout.flush()
            if role == "migrate":
                running.remove(process)
                if code := await process.wait():
                    return code
        ends = [asyncio.create_task(process.wait()) for process in running]
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return 0
        _log.error("a process ended by itself; stopping the others")
        return 1
    finally:
        for process in reversed(running):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _line_or_stop(stream: asyncio.StreamReader, stop: asyncio.Event) -> bytes:
    reading = asyncio.create_task(stream.readline())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not reading.done():
        reading.cancel()
        return b""
    return reading.result()


def _environment_of(role: str, environment: IsolatedEnvironment) -> dict[str, str]:
    own = f"{role.upper()}_DATABASE_URL"
    view = IsolatedEnvironment(environment.snapshot(), service=role).snapshot()
    extra = {name: value for name, value in view.items() if name != own}
    if own in view:
        extra["SSOT_DATABASE_URL"] = view[own]
    return environment.child_env(extra)


def _on_signals() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT; the second one kills as it would without us."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def _ready(name: str, address: str | None) -> None:
    sys.stdout.write(json.dumps({"ready": name, "address": address}) + "\n")
    sys.stdout.flush()


def _log_to_stderr(environment: IsolatedEnvironment) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(RedactingFilter(environment.redactor()))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Every connection and request; the roles log what matters of them.
    for noisy in ("alembic", "httpx", "httpcore", "uvicorn", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

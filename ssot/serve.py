"""The entry of every process: ``python -m ssot.serve auth|node|worker|migrate|all [--until-eof]``.

A role reads its environment variables, comes up, prints one line of JSON to standard output
(``{"ready": "node", "address": "ws://127.0.0.1:8082"}``) and runs until SIGTERM or SIGINT; a second
signal ends it at once. With ``--until-eof`` the end of standard input stops it like a signal, so
that it cannot outlive whoever holds the other end. Logs go to standard error, secrets redacted.

SIGHUP has a role read its files again and apply what has changed while it runs (see
:mod:`ssot.live`); what is not valid is refused whole and logged, and the role goes on as it was.

``migrate`` brings the schema up to date and ends. ``all`` starts migrate, auth, worker and node as
processes of their own, in this order, and stops them in the reverse one; each gets the names of its
own service and the shared ones. ``AUTH_DATABASE_URL`` and its like give each its own login role.
What any of them lacks is told before the first is started, all at once.

A role exports its spans when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set (see :mod:`ssot.telemetry`);
``TRACEPARENT`` makes its start part of a trace.

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
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from ssot.configuration import SECTIONS, UnifiedConfiguration, environment_options
from ssot.configuration.schema import secrecy
from ssot.environment import (
    IsolatedEnvironment,
    RedactingFilter,
    Redactor,
    process_environment,
    secrets_among,
)
from ssot.errors import SettingsError, SsotError
from ssot.telemetry import open_telemetry
from ssot.tracing import continuing

if TYPE_CHECKING:
    from ssot.platform import Role

__all__ = ["main"]

_log = logging.getLogger("ssot.serve")


def main(arguments: list[str]) -> int:
    """Run one role; returns the exit code."""
    names = [argument for argument in arguments if argument != "--until-eof"]
    until_eof = len(names) < len(arguments)
    if len(names) != 1 or names[0] not in (*SECTIONS, "all"):
        sys.stderr.write(
            f"usage: python -m ssot.serve {'|'.join((*SECTIONS, 'all'))} [--until-eof]\n"
        )
        return 2
    (name,) = names
    hang_ups = _HangUps()
    for number in (signal.SIGTERM, signal.SIGINT):
        # While files are read: a program of $(…) that runs for them is ended on the way out.
        signal.signal(number, lambda *_: sys.exit(0))
    # Of the process alone, before anything of a file is known: what is wrong there must be logged.
    cleaning = _log_to_stderr(Redactor(secrets_among(os.environ, secrecy())))
    try:
        if name == "all":
            _refuse_if_wrong(os.environ)
            return asyncio.run(_all(IsolatedEnvironment(os.environ), hang_ups))
        # First in and last out, so that the spans of a start that is refused get out as well.
        with open_telemetry(os.environ, name, redact=cleaning):
            # Whoever starts this process may be part of a trace, and so is its start then.
            with continuing(os.environ.get("TRACEPARENT")):
                environment = process_environment(**environment_options(name))
            cleaning.learn(environment.redact)
            work = _migrate(environment) if name == "migrate" else _run(name, environment, hang_ups)
            asyncio.run(_until_stopped(work, until_eof=until_eof))
    except SettingsError as error:
        _log.error("%s", error)
        return 2
    except SsotError as error:
        _log.error("%s", error)
        return 1
    return 0


def _refuse_if_wrong(process: Mapping[str, str]) -> None:
    """Tell what any role lacks before the first is started: not one crash after the other."""
    from ssot.configuration.inspection import problems_of

    if wrong := problems_of(process, tuple(SECTIONS)):
        raise SettingsError([f"[{', '.join(who)}] {problem}" for problem, who in wrong.items()])


async def _migrate(environment: IsolatedEnvironment) -> None:
    from ssot.database.migrate import migrate

    with continuing(environment.snapshot().trace):
        configuration = UnifiedConfiguration(environment, "migrate")
    with continuing(configuration.trace):
        await migrate(configuration.settings.database)
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


async def _run(name: str, environment: IsolatedEnvironment, hang_ups: _HangUps) -> None:
    # Imported here: a start that is refused for its environment is over before the clients of the
    # servers would have been loaded, which takes most of a start.
    from ssot.platform import open_role

    hung_up = hang_ups.follow()
    async with open_role(name, environment) as role:
        _ready(name, role.address)
        reloading = asyncio.create_task(_reload_when(hung_up, environment, role))
        try:
            await role.failed()
        finally:
            reloading.cancel()
            # A reload is in a thread, which the end of this process would wait for.
            environment.give_up()


async def _reload_when(
    hung_up: asyncio.Event, environment: IsolatedEnvironment, role: Role
) -> None:
    while True:
        await hung_up.wait()
        hung_up.clear()
        try:
            # In a thread: files may be slow, and commands take their time.
            changes = await asyncio.to_thread(environment.reload)
        except SettingsError as error:
            _log.error("environment not reloaded, the one before goes on serving: %s", error)
            continue
        except Exception as error:  # the role goes on serving whatever it was
            # Not its text: it may quote a value that nobody has learned to be secret.
            why = type(error).__name__
            _log.error("environment not reloaded, the one before goes on serving: %s", why)
            continue
        if not changes:
            # Whoever asks again has mended what refused the last one: a role, a server.
            await role.changes.retry()
        failed = await role.changes.applied()
        names = f": {', '.join(change.name for change in changes)}" if changes else ""
        if failed:
            told = "\n".join(f"  - {each}" for each in failed)
            _log.error("environment reloaded, not all is applied%s\n%s", names, told)
        else:
            _log.info("environment reloaded, %d changed%s", len(changes), names)


async def _end_of_input() -> asyncio.Task[bytes]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return asyncio.create_task(reader.read(), name="end of input")


async def _all(environment: IsolatedEnvironment, hang_ups: _HangUps) -> int:
    stop = _on_signals()
    running: list[asyncio.subprocess.Process] = []
    up: list[asyncio.subprocess.Process] = []

    def pass_on() -> None:
        for process in up:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    hung_up = hang_ups.follow(pass_on)
    try:
        for role in SECTIONS:
            # An interpreter that has only begun would be ended by it: it is told when it is up.
            hung_up.clear()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ssot.serve", role, "--until-eof",
                env=environment.child_env(service=role), stdin=asyncio.subprocess.PIPE,
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
                continue
            up.append(process)
            if hung_up.is_set():
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGHUP)
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


class _HangUps:
    """SIGHUP, which ends the process no more: neither while it starts nor while it stops."""

    def __init__(self) -> None:
        self._noted = False
        self._wake: Callable[[], object] | None = None
        signal.signal(signal.SIGHUP, self._note)

    def follow(self, do: Callable[[], object] | None = None) -> asyncio.Event:
        """Set at each, and now if there was one already; ``do`` is called in the loop as well."""
        hung_up = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell() -> None:
            hung_up.set()
            if do is not None:
                do()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell)

        self._wake = wake
        if self._noted:
            wake()
        return hung_up

    def _note(self, *_: object) -> None:
        self._noted = True
        if self._wake is not None:
            self._wake()


class _Cleaning:
    """Cleans text of the secrets that are known so far."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact: tuple[Callable[[str], str], ...] = (redact,)

    def learn(self, redact: Callable[[str], str]) -> None:
        """Also clean it of what another redactor knows."""
        self._redact = (*self._redact, redact)

    def __call__(self, text: str) -> str:
        for redact in self._redact:
            text = redact(text)
        return text


def _log_to_stderr(redactor: Redactor) -> _Cleaning:
    cleaning = _Cleaning(redactor)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(RedactingFilter(cleaning))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Every connection and request; the roles log what matters of them.
    for noisy in ("alembic", "httpx", "httpcore", "uvicorn", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return cleaning


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

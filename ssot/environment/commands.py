"""Running the commands of ``$(…)``: only programs of a list, no shell, within time and size."""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress

from ssot.environment.locks import ForkSafeLock
from ssot.errors import SsotError

__all__ = ["DEFAULT_TIMEOUT", "CommandRefused", "Commands"]

DEFAULT_TIMEOUT = 5.0
"""Seconds that a command may take, unless somebody says otherwise."""

_CHUNK = 65_536
_LONGEST_NAP = 0.02
# How soon a command that runs notices that it is given up.
_LOOK = 0.05


class CommandRefused(SsotError):
    """The command was not run, or its output is not used; ``reason`` says what to do.

    No output of the command is in it.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Commands:
    """Runs commands of the programs ``allowed``, and nothing at all when none is.

    An entry of ``allowed`` is the exact first word of a command: a bare name, which is looked up
    in the absolute folders of ``PATH`` in ``environment``, or an absolute path. The program gets
    exactly ``environment``, no input, and a session of its own; after ``timeout`` seconds or more
    than ``limit`` bytes of output its whole process group is killed. When :meth:`run` returns,
    nothing of the group is left, also not what the program put into the background; only what has
    left it for a session of its own is out of reach. Once ``given_up`` is set, whatever runs is
    killed, and nothing is run any more.

    The same text runs once; so everything that is expanded with one object sees one output. May
    be used by several threads, of which one at a time runs a command.
    """

    def __init__(
        self,
        allowed: Collection[str],
        *,
        environment: Mapping[str, str],
        timeout: float = DEFAULT_TIMEOUT,
        limit: int = 65_536,
        given_up: threading.Event | None = None,
    ) -> None:
        if isinstance(allowed, str):
            raise TypeError(f"a collection of programs is needed, not the text {allowed!r}")
        self._allowed = frozenset(allowed)
        self._environment = dict(environment)
        self._timeout = timeout
        self._limit = limit
        self._given_up = given_up or threading.Event()
        self._results: dict[str, str | CommandRefused] = {}
        self._running = ForkSafeLock()

    def __repr__(self) -> str:
        return f"<Commands: {', '.join(sorted(self._allowed)) or 'none'} allowed>"

    def run(self, text: str) -> str:
        """What the command writes, in UTF-8 and without the newlines at its end.

        Blocks for at most ``timeout`` seconds. :class:`CommandRefused` when it is not allowed or
        cannot be run, fails, takes too long, or writes too much or what is no text.
        """
        with self._running:
            result = self._results.get(text)
            if result is None:
                try:
                    result = self._text(self._output(text))
                except CommandRefused as refused:
                    result = refused
                self._results[text] = result
        if isinstance(result, CommandRefused):
            raise CommandRefused(result.reason)
        return result

    def _words(self, text: str) -> tuple[list[str], str]:
        """The words of the command, and the path of its program."""
        if not self._allowed:
            raise CommandRefused(
                "commands are off; write the value itself, or list the program in SSOT_ENV_COMMANDS"
            )
        try:
            words = shlex.split(text)
        except ValueError:
            raise CommandRefused("a quote in the command is never closed; close it") from None
        if not words:
            raise CommandRefused("there is no command in it; write $$ for a dollar")
        program = words[0]
        if program not in self._allowed:
            raise CommandRefused(
                f"the program {program!r} is not allowed; allowed: "
                f"{', '.join(sorted(self._allowed))}; write the value itself, or allow it"
            )
        if os.path.isabs(program):
            return words, program
        if os.sep in program:
            raise CommandRefused(
                f"the program {program!r} is named by a relative path; allow and write "
                "its absolute path, or its bare name"
            )
        folders = self._environment.get("PATH", "").split(os.pathsep)
        path = os.pathsep.join(folder for folder in folders if os.path.isabs(folder))
        found = shutil.which(program, path=path)
        if found is None:
            raise CommandRefused(
                f"the program {program!r} is in no folder of PATH; install it, or correct PATH"
            )
        return words, found

    def _output(self, text: str) -> bytes:
        words, program = self._words(text)
        deadline = time.monotonic() + self._timeout
        self._left(words[0], deadline)
        try:
            process = subprocess.Popen(
                words,
                executable=program,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            # A ValueError is of a NUL in a word or in the environment, and may hold no name.
            why = (isinstance(error, OSError) and error.strerror) or "its words are not legal"
            raise CommandRefused(
                f"the program {words[0]!r} cannot be started ({why}); correct the command"
            ) from None
        try:
            output = self._read(process, words[0], deadline)
            self._await_exit(process, words[0], deadline)
        finally:
            # Before it is reaped: until then its group's number can belong to nobody else.
            _kill_group(process.pid)
            code = process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if code != 0:
            how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
            raise CommandRefused(
                f"the program {words[0]!r} {how}; run the command by hand to see why"
            )
        return output

    def _read(self, process: subprocess.Popen[bytes], program: str, deadline: float) -> bytes:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        output = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while len(output) <= self._limit:
                # Selected, because a grandchild may hold the pipe open for ever.
                while not selector.select(min(_LOOK, max(self._left(program, deadline), 0))):
                    pass
                chunk = os.read(descriptor, min(_CHUNK, self._limit + 1 - len(output)))
                if not chunk:
                    return bytes(output)
                output += chunk
        raise CommandRefused(
            f"the program {program!r} wrote more than {self._limit} bytes; "
            "choose one that writes the value alone"
        )

    def _await_exit(self, process: subprocess.Popen[bytes], program: str, deadline: float) -> None:
        nap = 0.0005
        while not _has_exited(process.pid):
            nap = min(nap * 2, _LONGEST_NAP, self._left(program, deadline))
            time.sleep(nap)

    def _left(self, program: str, deadline: float) -> float:
        """The seconds that the program still has; or it is refused."""
        if self._given_up.is_set():
            raise CommandRefused(f"the program {program!r} was ended: this process is stopping")
        if (left := deadline - time.monotonic()) <= 0:
            raise CommandRefused(
                f"the program {program!r} did not end within {self._timeout:g} s, with all that it "
                "started; write the value itself, or make it faster"
            )
        return left

    @staticmethod
    def _text(output: bytes) -> str:
        try:
            text = output.decode()
        except UnicodeDecodeError as error:
            raise CommandRefused(
                f"byte {error.start} of its output is not UTF-8; choose a program that writes text"
            ) from None
        if (at := text.find("\0")) >= 0:
            raise CommandRefused(
                f"character {at} of its output is NUL; choose a program that writes text"
            )
        return text.rstrip("\n")


def _has_exited(pid: int) -> bool:
    try:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, pid, options) is not None
    except ChildProcessError:
        # Somebody ignores SIGCHLD, and so the system reaps.
        return True


def _kill_group(group: int) -> None:
    # Nobody is left; of a program with more rights than this process nothing can be ended.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)

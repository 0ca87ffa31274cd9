"""Commands of values: only what is listed, no shell, bounded, and nothing left running."""

from __future__ import annotations

import os
import secrets
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ssot.environment.commands import CommandRefused, Commands

PATH = "/usr/bin:/bin"


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Makes a program of the lines of a shell script; returns its path."""

    def make(lines: str) -> str:
        path = tmp_path / f"program{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return str(path)

    return make


def commands(*allowed: str, timeout: float = 30, limit: int = 65_536, **extra: str) -> Commands:
    return Commands(allowed, environment={"PATH": PATH, **extra}, timeout=timeout, limit=limit)


def refusal(commands: Commands, text: str) -> str:
    with pytest.raises(CommandRefused) as refused:
        commands.run(text)
    return refused.value.reason


def assert_gone(mark: str) -> None:
    """No process is left, or ends within some seconds, that got this value in its environment."""
    deadline = time.monotonic() + 10
    while left := [process.pid for process in psutil.process_iter() if _has(process, mark)]:
        assert time.monotonic() < deadline, f"left running: {left}"


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and mark in process.environ().values()
    except psutil.Error:
        return False


def test_the_output_without_its_newlines() -> None:
    """Words are split as in a shell, and are all that the program gets: no shell looks at them."""
    run = commands("printf").run
    assert run(r"printf '%s|%s\n\n' 'a b' $HOME;x") == "a b|$HOME;x"
    assert run(r"printf '\na '") == "\na "
    assert run("printf ''") == ""


def test_a_program_by_its_path(script: Callable[[str], str]) -> None:
    """An absolute path is allowed as such, and its bare name is not by that."""
    program = script("echo here")
    assert commands(program).run(program) == "here"
    folder, _, name = program.rpartition("/")
    assert Commands([name], environment={"PATH": folder}).run(name) == "here"
    assert refusal(commands(program, PATH=folder), name).startswith(f"the program {name!r} is not")
    assert "is not allowed" in refusal(Commands([name], environment={"PATH": folder}), program)


def test_exactly_the_given_environment() -> None:
    """Nothing of this process travels along."""
    assert commands("env", ONE="1").run("env").splitlines() == [f"PATH={PATH}", "ONE=1"]


def test_the_input_is_empty() -> None:
    """A program that reads does not wait for a terminal."""
    assert commands("cat").run("cat") == ""


def test_what_it_says_on_stderr_is_neither_shown_nor_in_its_way(
    script: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    """More than a pipe holds is written there, and the output comes."""
    program = script("head -c 1000000 /dev/zero >&2; echo done")
    assert commands(program).run(program) == "done"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("allowed", "text", "reason"),
    [
        ([], "printf x", "commands are off; write the value itself"),
        (["env", "cat"], "printf x", "the program 'printf' is not allowed; allowed: cat, env; "),
        (["printf"], "/usr/bin/printf x", "the program '/usr/bin/printf' is not allowed"),
        (["printf"], "", "there is no command in it; write $$"),
        (["printf"], "printf 'x", "a quote in the command is never closed; close it"),
        (["./x"], "./x", "the program './x' is named by a relative path; allow and write"),
        (["no-such"], "no-such", "the program 'no-such' is in no folder of PATH; install it"),
        (["/no-such"], "/no-such", "the program '/no-such' cannot be started (No such file or"),
        (["printf"], "printf a\0b", "the program 'printf' cannot be started (its words are not"),
        (["printf"], r"printf 'a\377'", "byte 1 of its output is not UTF-8; choose a program"),
        (["printf"], r"printf 'a\0'", "character 1 of its output is NUL; choose a program"),
        (["false"], "false", "the program 'false' exited with code 1; run the command by hand"),
    ],
)
def test_what_is_refused(allowed: list[str], text: str, reason: str) -> None:
    """Each refusal says what is wrong and what to do."""
    assert refusal(commands(*allowed), text).startswith(reason)


def test_programs_are_looked_up_in_absolute_folders_alone(
    script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write into the working directory names no program by that."""
    folder, _, name = script("echo wrong").rpartition("/")
    monkeypatch.chdir(folder)
    assert "no folder of PATH" in refusal(commands(name, PATH=":.:"), name)
    assert "no folder of PATH" in refusal(Commands([name], environment={}), name)


def test_a_failure_says_its_code_or_signal_and_no_output(script: Callable[[str], str]) -> None:
    """The output of a program that failed may be half a secret."""
    failing, killed = script("echo s3cret; exit 7"), script("echo s3cret; kill -9 $$")
    assert "exited with code 7; " in (reason := refusal(commands(failing), failing))
    assert "s3cret" not in reason
    assert "was ended by signal 9; " in refusal(commands(killed), killed)


def test_one_that_takes_too_long_is_killed_with_its_children(script: Callable[[str], str]) -> None:
    """The refusal comes in time, and nothing is left of the group, also not in the background."""
    program, mark = script("echo early; sleep 600 & sleep 600"), secrets.token_hex()
    begin = time.monotonic()
    assert "did not end within 0.3 s" in refusal(commands(program, timeout=0.3, MARK=mark), program)
    assert time.monotonic() - begin < 10
    assert_gone(mark)


@pytest.mark.parametrize(
    "how", ["exec >&-; sleep 600", "sleep 600 & echo early", "trap '' TERM HUP; sleep 600"]
)
def test_neither_pipe_nor_signal_makes_it_wait(script: Callable[[str], str], how: str) -> None:
    """It closes its output and stays; a grandchild keeps the pipe; signals are ignored."""
    program, mark = script(how), secrets.token_hex()
    assert "did not end within 0.3 s" in refusal(commands(program, timeout=0.3, MARK=mark), program)
    assert_gone(mark)


def test_a_grandchild_of_another_session_cannot_hold_it_up(script: Callable[[str], str]) -> None:
    """It has left the group and keeps the pipe, and the refusal comes all the same."""
    stop = script("") + ".stop"
    program = script(f"setsid sh -c 'until test -e {shlex.quote(stop)}; do sleep 0.05; done' &")
    mark = secrets.token_hex()
    begin = time.monotonic()
    assert "did not end" in refusal(commands(program, timeout=0.3, MARK=mark), program)
    assert time.monotonic() - begin < 10
    Path(stop).touch()
    assert_gone(mark)


def test_what_it_leaves_in_the_background_is_killed(script: Callable[[str], str]) -> None:
    """A program that ends well gives its output, and what it started ends with it."""
    program, mark = script("sleep 600 >/dev/null 2>&1 & echo done"), secrets.token_hex()
    assert commands(program, MARK=mark).run(program) == "done"
    assert_gone(mark)


def test_the_most_that_may_be_written(script: Callable[[str], str]) -> None:
    """The limit itself is fine; one that would write for ever is ended after one byte more."""
    program, mark = (
        script("head -c $1 /dev/zero | tr '\\0' x; test -z $2 || yes"),
        secrets.token_hex(),
    )
    allowing = commands(program, limit=100_000, MARK=mark)
    assert allowing.run(f"{program} 100000") == 100_000 * "x"
    assert "wrote more than 100000 bytes; " in refusal(allowing, f"{program} 100001")
    assert "wrote more than 100000 bytes; " in refusal(allowing, f"{program} 1 endless")
    assert_gone(mark)


def test_the_same_text_runs_once(script: Callable[[str], str], tmp_path: Path) -> None:
    """Its output is remembered, and so is its failure, also between threads; not between objects."""
    count = shlex.quote(str(tmp_path / "count"))
    program = script(f"echo x >> {count}; test -z $1; exec wc -l < {count}")
    failing = script(f"echo x >> {count}; exit 3")
    once = commands(program, failing)
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(once.run(program))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {text.strip() for text in seen} == {"1"}
    assert len(seen) == 8
    assert refusal(once, failing) == refusal(once, failing)
    assert commands(program).run(program).strip() == "3"


def test_no_descriptor_stays_open() -> None:
    """Whether it ends well, fails or cannot be started."""
    before = len(os.listdir("/proc/self/fd"))
    runner = commands("printf", "false", "/no-such")
    runner.run("printf x")
    refusal(runner, "false")
    refusal(runner, "/no-such")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_text_is_no_list_of_programs() -> None:
    """The letters of a name are not programs."""
    with pytest.raises(TypeError, match="a collection of programs"):
        Commands("printf", environment={})


def test_its_representation_shows_no_environment() -> None:
    """Only what is allowed."""
    assert repr(commands("cat", "env", KEY="s3cret")) == "<Commands: cat, env allowed>"
    assert repr(commands()) == "<Commands: none allowed>"

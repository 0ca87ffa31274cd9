"""The one environment of a process: built once, whoever races for it, and of use after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from streams.support import threads

from ssot.configuration import environment_options
from ssot.environment import IsolatedEnvironment, Singleton
from ssot.errors import SettingsError


def test_first_calls_that_race_build_one() -> None:
    """32 threads that begin together have the same object, built by one of them."""
    built: list[IsolatedEnvironment] = []
    got: list[IsolatedEnvironment] = []

    def build() -> IsolatedEnvironment:
        time.sleep(0.01)  # so that the others come while it is building
        built.append(IsolatedEnvironment({}))
        return built[-1]

    singleton = Singleton(build)
    threads(lambda _: got.append(singleton()), 32)
    assert len(built) == 1
    assert len(got) == 32
    assert all(each is built[0] for each in got)


def test_a_failing_build_is_that_callers_and_the_next_one_tries_again() -> None:
    """Racing as well: three errors, then one environment for everybody."""
    attempts: list[int] = []
    failed: list[str] = []
    got: list[IsolatedEnvironment] = []

    def build() -> IsolatedEnvironment:
        attempts.append(1)
        if len(attempts) <= 3:
            raise SettingsError(["not yet"])
        return IsolatedEnvironment({})

    singleton = Singleton(build)

    def work(_: int) -> None:
        try:
            got.append(singleton())
        except SettingsError as error:
            failed.extend(error.problems)

    threads(work, 8)
    assert failed == ["not yet"] * 3
    assert len(attempts) == 4
    assert len({id(each) for each in got}) == 1


def test_options_belong_to_the_first_call() -> None:
    """Repeated or left out they are fine; others are refused, and told by name."""
    singleton = Singleton(lambda **options: IsolatedEnvironment({}, **options))
    first = singleton(service="auth", secrecy={"A": True})
    assert singleton() is first
    assert singleton(service="auth", secrecy={"A": True}) is first
    with pytest.raises(SettingsError, match="built with another service; use an overlay"):
        singleton(service="node")


def test_the_options_of_a_service_may_be_repeated() -> None:
    """Two modules that ask in the documented way have the same environment."""
    process = {"SSOT_DATABASE_URL": "postgresql://role:Pq7-xK_m29@host/db"}
    singleton = Singleton(lambda **options: IsolatedEnvironment(process, **options))
    first = singleton(**environment_options("migrate"))
    assert singleton(**environment_options("migrate")) is first
    with pytest.raises(SettingsError, match="another service, test_defaults, validate"):
        singleton(**environment_options("auth"))


FORK = """
import os, signal, threading
from ssot.environment import IsolatedEnvironment, Singleton

held, go = threading.Event(), threading.Event()

def {name}(*_):
    held.set()
    go.wait(20)
    {result}

{scene}
thread.start()
assert held.wait(10)
child = os.fork()
if child == 0:
    signal.alarm(10)
    {child}
    os._exit(0)
_, status = os.waitpid(child, 0)
go.set()
thread.join()
assert os.waitstatus_to_exitcode(status) == 0, status
"""
SCENES = {
    # A thread of the parent is building: the child builds its own.
    "building": FORK.format(
        name="slowly",
        result="",
        scene="first = [1]\n"
        "def build():\n    if first and first.pop():\n        slowly()\n"
        "    return IsolatedEnvironment({'A': '1'})\n"
        "singleton = Singleton(build)\nthread = threading.Thread(target=singleton)",
        child="assert singleton().get('A') == '1'",
    ),
    # A thread of the parent is changing: the child has what was before, and may change it.
    "changing": FORK.format(
        name="validate",
        result="return []",
        scene="checks = []\n"
        "def once(snapshot):\n    checks.append(1)\n"
        "    return validate() if len(checks) == 2 else []\n"
        "singleton = Singleton(lambda: IsolatedEnvironment({'A': '1'}, validate=once))\n"
        "singleton()\n"
        "thread = threading.Thread(target=lambda: singleton().override({'A': '2'}))",
        child="told = []; singleton().subscribe(told.append); "
        "assert singleton().get('A') == '1'; singleton().override({'A': '3'}); "
        "assert singleton().get('A') == '3'; assert [each.new for each in told] == ['3'], told",
    ),
    # A thread of the parent is telling: the child's own changes are told nevertheless.
    "telling": FORK.format(
        name="slow",
        result="",
        scene="singleton = Singleton(lambda: IsolatedEnvironment({'A': '1'}))\n"
        "told = []\n"
        "singleton().subscribe(lambda change: slow() if change.new == '2' else told.append(change.new))\n"
        "thread = threading.Thread(target=lambda: singleton().override({'A': '2'}))",
        child="singleton().override({'A': '3'}); assert told == ['3'], told",
    ),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("scene", sorted(SCENES))
def test_a_fork_while_a_thread_holds_a_lock(scene: str) -> None:
    """The child waits for nobody who does not exist in it."""
    done = subprocess.run(
        [sys.executable, "-c", SCENES[scene]], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr


def test_a_thread_that_comes_later_waits_for_the_one_that_builds() -> None:
    """And has what that one built, without building."""
    begun, go = threading.Event(), threading.Event()
    environment = IsolatedEnvironment({})

    def build() -> IsolatedEnvironment:
        begun.set()
        assert go.wait(10)
        return environment

    singleton = Singleton(build)
    first = threading.Thread(target=singleton)
    first.start()
    assert begun.wait(10)
    got: list[IsolatedEnvironment] = []
    second = threading.Thread(target=lambda: got.append(singleton()))
    second.start()
    assert got == []
    go.set()
    second.join(10)
    first.join(10)
    assert got == [environment]

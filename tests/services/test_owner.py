"""However the owner of a lab ends, its servers and its directory are gone within three seconds."""

from __future__ import annotations

import os
import signal

import pytest

from services.support import alive, hello, nothing_left, start_owner, until


@pytest.mark.parametrize("then", ["wait", "freeze", "fork"])
def test_a_killed_owner_leaves_nothing(then: str):
    """After SIGKILL nothing stays: also when servers are frozen, or a fork holds the pipe."""
    owner = start_owner(then)
    said = hello(owner)
    try:
        assert all(alive(pid) for pid in [*said["pids"], said["watchdog"]])
        owner.kill()
        assert until(lambda: nothing_left(said))
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_owner_that_is_asked_to_end_leaves_nothing(number: signal.Signals):
    """The signals of a terminal and of a service manager, sent to the whole process group."""
    owner = start_owner()
    said = hello(owner)
    os.killpg(owner.pid, number)
    assert until(lambda: owner.poll() is not None)
    assert until(lambda: nothing_left(said))
    owner.communicate()


@pytest.mark.parametrize("then", ["raise", "return"])
def test_an_owner_that_ends_by_itself_leaves_nothing(then: str):
    """An uncaught exception or a plain end, without closing anything."""
    owner = start_owner(then)
    said = hello(owner)
    _, errors = owner.communicate(timeout=10)
    assert (b"an owner that fails" in errors) == (then == "raise")
    assert until(lambda: nothing_left(said))


def test_the_signals_of_a_terminal_do_not_reach_servers_or_watchdog():
    """The watchdog outlives the signals that end its owner, sent to it as well."""
    owner = start_owner()
    said = hello(owner)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(said["watchdog"], number)
    assert all(os.getsid(pid) != os.getsid(owner.pid) for pid in [*said["pids"], said["watchdog"]])
    owner.kill()
    assert until(lambda: nothing_left(said))
    owner.communicate()


def test_owners_that_start_at_once_without_a_template_do_not_meet(tmp_path):
    """Three cold starts race to build one template; each gets servers, one template remains."""
    owners = [start_owner("return", XDG_CACHE_HOME=str(tmp_path)) for _ in range(3)]
    said = [hello(owner) for owner in owners]
    for owner in owners:
        owner.communicate(timeout=20)
        assert owner.returncode == 0
    assert len({one["root"] for one in said}) == 3
    folders = [path for path in (tmp_path / "ssot-interplay").iterdir() if path.is_dir()]
    assert len(folders) == 1
    assert sorted(path.name for path in folders[0].iterdir()) == ["data", "password"]
    assert (folders[0] / "password").stat().st_mode & 0o777 == 0o600
    assert folders[0].stat().st_mode & 0o777 == 0o700


def test_an_owner_killed_while_it_builds_the_template_leaves_no_half_of_one(tmp_path):
    """The next owner finds no template, builds it, and wipes what was left."""
    script = (
        "import asyncio, json, os\nfrom ssot.lab.services import EmbeddedPostgres, Workspace\n"
        "async def main():\n"
        "    workspace = Workspace.open('builder')\n"
        "    print(json.dumps({'root': str(workspace.root), 'pids': [],"
        " 'watchdog': workspace.watchdog_pid}), flush=True)\n"
        "    await EmbeddedPostgres(workspace).start()\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    cache = tmp_path / "ssot-interplay"
    owner = start_owner(script=script, XDG_CACHE_HOME=str(tmp_path))
    said = hello(owner)
    assert until(lambda: any(cache.glob("*.staging-*")), seconds=20)
    owner.kill()
    owner.communicate()
    assert until(lambda: nothing_left(said))
    assert until(lambda: not any(cache.glob("*.staging-*")))

    following = start_owner("return", XDG_CACHE_HOME=str(tmp_path))
    hello(following)
    following.communicate(timeout=20)
    assert following.returncode == 0
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1

"""A workspace ends its processes, all of them and no others, and removes its directory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from services.support import REPOSITORY, alive, environment, until
from ssot.lab.services import MARK, ServiceError, Workspace

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def test_a_process_gets_its_environment_and_the_mark_and_nothing_else(workspace: Workspace):
    """A child of the workspace sees what it was given, and the mark that makes it its own."""
    child = workspace.spawn(["/usr/bin/env"], environment={"ONE": "1"}, stdout=subprocess.PIPE)
    output, _ = child.communicate(timeout=5)
    assert sorted(output.decode().split()) == ["ONE=1", f"{MARK}={workspace.root}"]
    assert workspace.mark == {MARK: str(workspace.root)}


def test_output_to_a_path_is_private_and_appended(workspace: Workspace):
    """Two processes may log to one file, which only the owner reads."""
    log = workspace.root / "log"
    for word in ("one", "two"):
        workspace.spawn(["/bin/echo", word], environment={}, stdout=log).wait(timeout=5)
    assert log.read_text() == "one\ntwo\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_close_ends_children_and_grandchildren_and_spares_strangers():
    """Closing kills what carries the mark, however deep and also when it is stopped."""
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    workspace = Workspace.open("family")
    other = Workspace.open("neighbour")
    try:
        neighbour = other.spawn(["/bin/sleep", "60"], environment=ENVIRONMENT)
        child = workspace.spawn(
            ["/bin/sh", "-c", "sleep 60 & echo $!; wait"],
            environment=ENVIRONMENT,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        stopped = workspace.spawn(["/bin/sleep", "60"], environment=ENVIRONMENT)
        stopped.send_signal(signal.SIGSTOP)
        # By its directory alone: nothing of the mark is in its environment or its command line.
        bare = workspace.spawn(["/usr/bin/env", "-i", "/bin/sleep", "60"], environment=ENVIRONMENT)
        assert until(lambda: psutil.Process(bare.pid).environ() == {})
        pids = [child.pid, grandchild, stopped.pid, bare.pid]
        assert all(alive(pid) for pid in pids)
        child.stdout.close()

        workspace.close()

        assert not any(alive(pid) for pid in pids)
        assert not workspace.root.exists()
        assert alive(stranger.pid)
        assert alive(neighbour.pid)
        assert other.root.exists()
    finally:
        workspace.close()
        other.close()
        stranger.kill()
        stranger.wait()


def test_a_process_that_left_its_parent_and_its_environment_is_still_found(workspace: Workspace):
    """A daemon with an environment of its own is known by its working directory."""
    script = "setsid env -i /bin/sleep 60 >/dev/null & echo $!"
    child = workspace.spawn(
        ["/bin/sh", "-c", script], environment=ENVIRONMENT, stdout=subprocess.PIPE
    )
    output, _ = child.communicate(timeout=5)
    pid = int(output)
    assert until(lambda: psutil.Process(pid).environ() == {})
    workspace.close()
    assert not alive(pid)


def test_who_looks_into_the_root_from_a_terminal_is_spared():
    """A person's pager or shell in the directory is not the workspace's own."""
    workspace = Workspace.open("looked into")
    controller, terminal = os.openpty()
    script = (
        "import fcntl, os, sys, termios, signal\n"
        "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); print('.', flush=True); signal.pause()"
    )
    person = subprocess.Popen(
        [sys.executable, "-c", script, f"{workspace.root}/postgres.log"],
        cwd=workspace.root,
        stdin=terminal,
        stdout=subprocess.PIPE,
    )
    try:
        assert person.stdout is not None
        assert person.stdout.readline() == b".\n"
        workspace.close()
        assert alive(person.pid)
        assert not workspace.root.exists()
    finally:
        workspace.close()
        person.kill()
        person.communicate()
        os.close(controller)
        os.close(terminal)


def test_the_owner_survives_its_own_mark():
    """An owner that took the mark into its environment is not killed by its own watchdog."""
    script = (
        "import os\nfrom ssot.lab.services import Workspace\n"
        "workspace = Workspace.open('marked')\n"
        "os.environ.update(workspace.mark)\n"
        "workspace.close()\nprint('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, timeout=20
    )
    assert done.stdout == b"alive\n", done.stderr


def test_a_workspace_inside_a_workspace_is_cleaned_up_with_it():
    """When a process that owns a workspace is ended by another's, both directories go."""
    script = (
        "import sys, signal\nfrom ssot.lab.services import Workspace\n"
        "inner = Workspace.open('inner')\nprint(inner.root, flush=True)\nsignal.pause()"
    )
    outer = Workspace.open("outer")
    child = outer.spawn(
        [sys.executable, "-c", script], environment=environment(), stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    inner = Path(child.stdout.readline().decode().strip())
    assert inner.is_dir()
    child.stdout.close()
    outer.close()
    assert not outer.root.exists()
    assert until(lambda: not inner.exists())


async def test_close_is_idempotent_and_final(workspace: Workspace):
    """Closing twice, also at once, is one closing; afterwards nothing can be started or ordered."""
    await asyncio.gather(workspace.aclose(), workspace.aclose())
    workspace.close()
    assert workspace.closed
    with pytest.raises(ServiceError, match="workspace 'test' is closed"):
        workspace.spawn(["/bin/true"], environment={})
    with pytest.raises(ServiceError, match="workspace 'test' is closed"):
        workspace.at_end({"remove": "/nowhere"})


def test_a_workspace_that_is_collected_open_warns_and_is_cleaned_up():
    """Forgetting to close is told, and costs nothing."""
    workspace = Workspace.open("forgotten")
    root, pid = workspace.root, workspace.watchdog_pid
    with pytest.warns(ResourceWarning, match="'forgotten' at .* was never closed"):
        del workspace
    assert until(lambda: not root.exists() and not alive(pid))


def test_a_killed_watchdog_is_replaced():
    """Closing cleans up also when somebody has killed the watchdog."""
    workspace = Workspace.open("bereft")
    child = workspace.spawn(["/bin/sleep", "60"], environment=ENVIRONMENT)
    more = Path(tempfile.mkdtemp(prefix="services-test-"))
    os.kill(workspace.watchdog_pid, signal.SIGKILL)
    workspace.at_end({"remove": str(more)})
    workspace.close()
    assert not alive(child.pid)
    assert not workspace.root.exists()
    assert not more.exists()


def test_an_unknown_step_is_refused(workspace: Workspace):
    """A misspelt or empty order is an error at once, not a surprise at the end."""
    with pytest.raises(ValueError, match="empty"):
        workspace.at_end({"delete_keys": "redis://localhost", "prefix": ""})
    with pytest.raises(ValueError, match="drop_databse"):
        workspace.at_end({"drop_databse": "postgresql://…", "database": "x"})


def test_orders_are_on_no_command_line(workspace: Workspace):
    """Everybody can read a command line, so a step's password is in none."""
    workspace.at_end({"remove": "/nowhere/sesame-4711"})
    words = [
        word
        for process in psutil.process_iter(["cmdline"])
        for word in process.info["cmdline"] or ()
    ]
    assert any(word.endswith("watchdog.py") for word in words)
    assert not any("sesame-4711" in word for word in words)


def test_no_disk_is_one_clear_line():
    """Too little room is an error before anything is made."""
    with pytest.raises(ServiceError, match=r"^no disk: .* MB free, a workspace needs \d+ MB; .+$"):
        Workspace.open("too big", minimum_free=10**18)


def test_two_workspaces_have_different_roots():
    """Labs that run at the same time do not meet."""
    with Workspace.open("same") as one, Workspace.open("same") as two:
        assert one.root != two.root


def test_the_interpreter_closes_what_is_open_when_it_exits():
    """A script that ends without closing leaves nothing, and waits until that is so."""
    script = (
        "import json\nfrom ssot.lab.services import Workspace\n"
        "workspace = Workspace.open('left open')\n"
        "child = workspace.spawn(['/bin/sleep', '60'], environment={})\n"
        "print(json.dumps([str(workspace.root), child.pid]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment(),
        capture_output=True,
        timeout=20,
        cwd=REPOSITORY,
    )
    root, pid = json.loads(done.stdout)
    assert done.stderr == b""
    assert not Path(root).exists()
    assert not alive(pid)

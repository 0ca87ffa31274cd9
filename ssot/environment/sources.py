"""Which environment this process is in, and so which files are read for it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ssot.environment.commands import DEFAULT_TIMEOUT
from ssot.errors import SettingsError

__all__ = [
    "BOOTSTRAP",
    "KINDS",
    "Bootstrap",
    "Kind",
    "Sources",
    "closest",
    "detect",
    "is_there",
    "nearest",
]

_LONGEST = 60
"""In seconds: who starts or reloads a service waits so long for each program that hangs."""

Kind = Literal["development", "test", "staging", "production"]
"""The environments. Nothing but ``SSOT_ENVIRONMENT`` decides which one this is."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A variable of the process that decides what else is read; no file can set it."""

    name: str
    meaning: str
    default: str


BOOTSTRAP = (
    Bootstrap("SSOT_ENVIRONMENT", "which environment this is", "development"),
    Bootstrap(
        "SSOT_ENV_DIRECTORY",
        "folder of .env and .env.<environment>; neither is read in staging and production",
        ".",
    ),
    Bootstrap(
        "SSOT_ENV_FILES",
        "files to read instead, in any environment, the weakest first, separated by "
        f"{os.pathsep}; empty: none",
        "",
    ),
    Bootstrap("SSOT_SECRETS_DIRECTORY", "folder of secret files, each named like its variable", ""),
    Bootstrap(
        "SSOT_ENV_COMMANDS",
        "programs that $(…) in a file may run, separated by commas; empty: none",
        "",
    ),
    Bootstrap(
        "SSOT_ENV_COMMAND_TIMEOUT",
        "seconds that each of them may take; more than 0, at most 60",
        f"{DEFAULT_TIMEOUT:g}",
    ),
)
"""What is read from the process alone, before any file."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What an environment is read from besides the process.

    ``files`` are from the weakest to the strongest; those that are ``asked_for`` by name must
    exist, and so must the ``folder`` of the others when it is named. ``commands`` are the programs
    that a file may run, each for ``timeout`` seconds. ``problems`` are what is wrong with how this
    was said: told with all that is wrong in the files. Paths are best absolute: whatever is read
    again must be the same, wherever the process has moved to.
    """

    files: tuple[Path, ...] = ()
    asked_for: bool = False
    folder: Path | None = None
    secrets: Path | None = None
    commands: frozenset[str] = frozenset()
    timeout: float = DEFAULT_TIMEOUT
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, process: Mapping[str, str]) -> Sources:
        """What the :data:`BOOTSTRAP` variables of a process say.

        Without ``SSOT_ENV_FILES``, files are read in development and tests only: a ``.env`` that
        was left in an image must not override a deployment. Set to nothing, it names none.
        :class:`SettingsError` when the environment is unknown, for then nobody knows what to read.
        Relative paths are those of the working directory at this moment.
        """
        timeout, problems = _seconds("SSOT_ENV_COMMAND_TIMEOUT", process)
        try:
            kind = detect(process)
        except SettingsError as error:
            raise SettingsError([*error.problems, *problems]) from None
        named = [name for name in process.get("SSOT_ENV_FILES", "").split(os.pathsep) if name]
        files: tuple[Path, ...] = tuple(map(_fixed, named))
        folder: Path | None = None
        if "SSOT_ENV_FILES" not in process and kind in ("development", "test"):
            folder = _fixed(directory) if (directory := process.get("SSOT_ENV_DIRECTORY")) else None
            place = folder or _fixed("")
            files = (place / ".env", place / f".env.{kind}")
        secrets = process.get("SSOT_SECRETS_DIRECTORY")
        commands = process.get("SSOT_ENV_COMMANDS", "").split(",")
        return cls(
            files=files,
            asked_for=bool(named),
            folder=folder,
            secrets=_fixed(secrets) if secrets else None,
            commands=frozenset(name.strip() for name in commands if name.strip()),
            timeout=timeout,
            problems=tuple(problems),
        )


def detect(process: Mapping[str, str]) -> Kind:
    """The environment that ``SSOT_ENVIRONMENT`` names; development when it is not set.

    What is set and unknown (``prod``, nothing at all) raises :class:`SettingsError`: to guess would
    be to run production with the rights of a developer.
    """
    name = process.get("SSOT_ENVIRONMENT", "development")
    for kind in KINDS:
        if name == kind:
            return kind
    told = repr(name) if name else "empty"
    raise SettingsError(
        [f"SSOT_ENVIRONMENT is {told}; there are {', '.join(KINDS)}{nearest(name, KINDS)}"]
    )


def _fixed(path: str) -> Path:
    """The absolute path, with its links as they are: they may lead elsewhere later."""
    try:
        return Path(path).absolute()
    except OSError:
        # There is no working directory any more: nothing is found there, as ever.
        return Path(path)


def _seconds(name: str, process: Mapping[str, str]) -> tuple[float, list[str]]:
    """What is given, or the default with a problem."""
    given = process.get(name, f"{DEFAULT_TIMEOUT:g}")
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    # Also false for what is no number at all (nan).
    if not 0 < seconds <= _LONGEST:
        told = repr(given) if given else "empty"
        problem = f"{name} is {told}; it must be seconds, above 0, at most {_LONGEST}"
        return DEFAULT_TIMEOUT, [problem]
    return seconds, []


def is_there(path: Path) -> bool:
    """Whether anything stands there, or may: only what is certainly absent is passed over.

    A link to nowhere, or a folder that cannot be searched, is a mistake and no absent file.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)``, or nothing when no known name is near; case does not matter."""
    found = closest(name, known)
    return f" (did you mean {found}?)" if found else ""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was most probably meant, if one is near; case does not matter."""
    lower = {each.lower(): each for each in sorted(known, reverse=True)}
    close = [each for each in lower if name and each.startswith(name.lower())]
    close = sorted(close, key=len) or difflib.get_close_matches(
        name.lower(), lower, n=1, cutoff=0.6
    )
    return lower[close[0]] if close else None

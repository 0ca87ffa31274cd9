"""Reading an environment: the same for the whole of it and for an overlay."""

from __future__ import annotations

import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from ssot.environment.redaction import Redactor, passwords_of, printable
from ssot.environment.snapshot import Snapshot, Variable
from ssot.environment.sources import BOOTSTRAP, nearest
from ssot.errors import SettingsError

__all__ = [
    "SERVICES",
    "View",
    "foreign_to",
    "owner_of",
    "problems_of",
    "secrets_of",
    "story_of",
    "unseen",
]

SERVICES = ("auth", "migrate", "node", "worker")
"""The services that have a namespace: ``AUTH_…`` is seen by the auth service alone."""

# What any child process needs of the machine it runs on, whatever service it is.
_MACHINE = (
    "HOME",
    "LANG",
    "LC_ALL",
    "PATH",
    "PYTHONPATH",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)


# Who decides what is read. Which environment this is, is true of a child as well.
_READING = frozenset(each.name for each in BOOTSTRAP) - {"SSOT_ENVIRONMENT"}


# Linux takes 128 KiB for a name with its value, the = and the end.
_LONGEST = 131_070


class View(ABC):
    """Variables as one service, user or task sees them. Reads take no lock."""

    service: str | None

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """The variables now. Read several names from one snapshot when they belong together."""

    @abstractmethod
    def seen_by(self, *services: str) -> tuple[Snapshot, tuple[str, ...]]:
        """The variables now, for one who sees what every one of the services does, and no more.

        Without a service it is this view itself, with what is wrong in it now.

        What was made of a name that they do not see is made anew without it, as if the files were
        read for them. Where that cannot be done the name is ``broken`` in the snapshot, and a
        sentence for people says why.
        """

    def __contains__(self, name: object) -> bool:
        return name in self.snapshot()

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value, or ``default`` when the name is absent; an empty value is a value."""
        return self.snapshot().get(name, default)

    def require(self, *names: str) -> tuple[str, ...]:
        """The values, from one snapshot; :class:`SettingsError` names all that are absent."""
        snapshot = self.snapshot()
        missing = [name for name in names if name not in snapshot]
        if missing:
            raise SettingsError([_absence(name, snapshot, self.service) for name in missing])
        return tuple(snapshot[name] for name in names)

    def explain(self, name: str) -> str:
        """The story of a name for people, a line each: its value, where from, what it won over.

        Secrets are masked. An absent name says why, where that is known.
        """
        return self.redactor()(story_of(name, self.snapshot(), self.service))

    def child_env(
        self, extra: Mapping[str, str] | None = None, *, service: str | None = None
    ) -> dict[str, str]:
        """Exactly what a child process should get: the machine's names and ``extra``, nothing else.

        With a ``service``, everything that this service may see: its own namespace and the shared
        names. Secrets of this process do not travel in any other way. A deleted name is not there,
        an empty one is empty. What files have given to this environment is handed on as it is, and
        the child reads none: they would bring back what was deleted here. A child that is to read
        them as well, below these values, is told so in ``extra``.

        :raises SettingsError: when a value cannot be made without the names of another service, or
            ``extra`` has what no environment can hold.
        """
        own = dict(extra or {})
        if problems := problems_of(own):
            raise SettingsError(problems)
        if service is None:
            snapshot = self.snapshot()
            child = {name: snapshot[name] for name in _MACHINE if name in snapshot}
        else:
            snapshot, unmade = self.seen_by(service)
            if unmade:
                raise SettingsError(unmade)
            child = dict(snapshot)
            if self.reads_files and not _READING & own.keys():
                child = {name: child[name] for name in child if name not in _READING}
                child["SSOT_ENV_FILES"] = ""
        return {**child, **own}

    @property
    @abstractmethod
    def reads_files(self) -> bool:
        """Whether values come, or could come at a reload, from files."""

    @abstractmethod
    def secrets(self) -> frozenset[str]:
        """The values that must not be shown: those that this view has, or ever had."""

    def redactor(self) -> Redactor:
        """A redactor that knows every secret which this view has, or ever had."""
        return Redactor(self.secrets())

    def redact(self, text: str) -> str:
        """The text without any secret that this view has, or ever had."""
        return self.redactor()(text)


def story_of(name: str, snapshot: Snapshot, service: str | None) -> str:
    """The story of a name in a service's view, a line each; secrets are masked."""
    variable = snapshot.variables.get(name)
    if variable is None:
        return _absence(name, snapshot, service)
    lines = [f"{name} = {printable(variable.shown) or '(empty)'}", f"  from {variable.origin}"]
    if variable.references:
        lines.append(f"  made of {', '.join(variable.references)}")
    lines += [f"  made by $({_program(command)})" for command in variable.commands]
    for number, loser in enumerate(variable.over):
        lead = "over" if number == 0 else "    "
        lines.append(f"  {lead} {loser.origin}: {printable(loser.shown) or '(empty)'}")
    return "\n".join(lines)


def _program(command: str) -> str:
    """The program of a command; of its arguments only that there are some: one may be a token."""
    program, *arguments = shlex.split(command)
    return f"{printable(program)} …" if arguments else printable(program)


def foreign_to(service: str | None) -> tuple[str, ...]:
    """What the names begin with that a service does not see; nothing for no service.

    Raises :class:`SettingsError` for an unknown service.
    """
    if service is None:
        return ()
    if service not in SERVICES:
        raise SettingsError([f"no service {service!r}; there are {', '.join(SERVICES)}"])
    return tuple(f"{name.upper()}_" for name in SERVICES if name != service)


def owner_of(name: str) -> str | None:
    """The service in whose namespace a name is; ``None`` for a shared one."""
    begin = name.partition("_")[0].lower()
    return begin if begin in SERVICES and name.startswith(f"{begin.upper()}_") else None


def unseen(name: str, service: str | None) -> str | None:
    """Why a service never sees a name; ``None`` when it would, were the name set."""
    if service is None or (owner := owner_of(name)) in (None, service):
        return None
    return f"{name} belongs to the {owner} service; the {service} service does not see it"


def _absence(name: str, snapshot: Snapshot, service: str | None) -> str:
    if (why := unseen(name, service)) is not None:
        return why
    if name in snapshot.broken:
        return f"{name} is made of what the {service} service does not see"
    if name in snapshot.deleted:
        return f"{name} is not set: a part of this process has deleted it, and can set it again"
    who = f" for the {service} service" if service else ""
    return f"{name} is not set{who}{nearest(name, snapshot)}"


def _size(value: str) -> int | None:
    """The bytes that the operating system is given; ``None`` for what it cannot be given."""
    try:
        return len(os.fsencode(value))
    except UnicodeEncodeError:
        return None


def problems_of(values: Mapping[str, str], service: str | None = None) -> list[str]:
    """What is wrong with what is to be set in a service's view, each problem in a sentence."""
    problems = []
    for name, value in values.items():
        if not (isinstance(name, str) and name.isascii() and name.isidentifier()):
            problems.append(
                f"{name!r} is no name of a variable: letters, digits and _, no digit first"
            )
        elif not isinstance(value, str):
            problems.append(f"{name}: a value is text, not {type(value).__name__}")
        elif "\0" in value:
            problems.append(f"{name}: a value cannot hold a NUL character")
        elif (size := _size(value)) is None:
            problems.append(f"{name}: a value of half a character (a surrogate) is no text")
        elif size + len(name) >= _LONGEST:
            problems.append(f"{name}: {size} bytes are more than a process can be given")
        elif (why := unseen(name, service)) is not None:
            problems.append(why)
    return problems


def secrets_of(variables: Iterable[Variable]) -> set[str]:
    """The values that must not be shown, of variables.

    Of a URL that is no secret only the password is: its host helps whoever reads a log.
    """
    found: set[str] = set()
    for variable in variables:
        for each in (variable, *variable.over):
            found |= {each.value} if each.secret else passwords_of(each.value)
    return found

"""What people ask of an environment: where a value comes from, and whether it can be used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ssot.configuration.reference import Entry, entries
from ssot.configuration.schema import SECTIONS, fields, secrecy, test_defaults
from ssot.configuration.settings import name_in
from ssot.configuration.unified import environment_options
from ssot.environment import (
    BOOTSTRAP,
    KINDS,
    SERVICES,
    Kind,
    Snapshot,
    Sources,
    detect,
    examine,
    nearest,
    owner_of,
    read_files,
)
from ssot.environment.redaction import Redactor, printable
from ssot.environment.sources import closest, is_there
from ssot.environment.view import secrets_of, story_of
from ssot.errors import SettingsError

__all__ = ["check", "explain", "notes_of", "problems_of"]

# What others set whose names begin as ours do: Node.js, and Kubernetes for each service that it
# runs. A switch for tests is either in force or a problem.
_BY_OTHERS = re.compile(
    r"NODE_(DEBUG|ENV|EXTRA_CA_CERTS|HOME|NO_WARNINGS|OPTIONS|PATH|VERSION)"
    r"|.*_SERVICE_(HOST|PORT(_\w+)?)|.*_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?"
    r"|SSOT_TEST_.*"
)


def explain(name: str, process: Mapping[str, str], *, service: str | None = None) -> str:
    """The story of a variable for people, as a process started with ``process`` would have it.

    Its value (a secret is masked), where it comes from, what it won over, what it is for and who
    reads it; then what is wrong with the environment, if anything is. ``service`` is whose view it
    is; without one that of the service to whose namespace the name belongs, or else of all.
    :class:`SettingsError` for an unknown service or environment, and for a name that is neither set
    nor known.
    """
    service = service or owner_of(name)
    snapshot, problems = examine(process, **_options(service))
    about = _about(name)
    if service is None and (concerned := _readers(name)):
        # That nothing is wrong with its text does not yet make it a setting that they can use.
        problems = tuple(problems_of(process, concerned))
    if not about and name not in snapshot and name not in snapshot.broken:
        for field in (field for each in SECTIONS for field in fields(each)):
            if field.by_environment and field.variable == name:
                here = name_in(detect(process), name)
                raise SettingsError([f"{name} has another name in each environment: here {here}"])
        known = _known() | {*snapshot}
        raise SettingsError([f"{name} is not set, and no setting{nearest(name, known)}"])
    if not about and (owner_of(name) or name.startswith("SSOT_")):
        about = [f"no setting has this name{nearest(name, _known())}"]
    lines = [_story(name, snapshot, service, known=name in _known())]
    lines += _winners(name, snapshot, service, detect(process))
    if about:
        lines += ["", *about]
    if problems:
        # What is wrong with the variable that was asked for comes first.
        mine = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])")
        problems = tuple(sorted(problems, key=lambda problem: not mine.search(problem)))
        lines += ["", "This environment cannot be used as it is:"]
        lines += [f"  - {problem}" for problem in problems]
    clean = Redactor(secrets_of(snapshot.variables.values()))
    return clean("\n".join(lines))


def check(
    process: Mapping[str, str], services: Sequence[str] = (), *, others: tuple[str, ...] = ()
) -> tuple[str, bool]:
    """Whether each of the services could start with this environment, and all that is wrong.

    The text names every problem once with the services that have it, and then what was probably
    meant otherwise; ``others`` are as in :func:`notes_of`. Nothing is connected to.
    """
    services = services or SERVICES
    affected = problems_of(process, services)
    files = Sources.of(process)
    read = [*files.files, *([files.secrets] if files.secrets else [])]
    # What is there may be unreadable: that is a problem, told below.
    there = ", ".join(str(path) for path in read if is_there(path))
    told = f"environment {detect(process)}, {f'{there} looked at' if there else 'no file there'}"
    notes = [f"note: {note}" for note in notes_of(process, services, others=others)]
    if not affected:
        return "\n".join([f"{told}: valid for {', '.join(services)}", *notes]), True
    lines = [f"{told}: {len(affected)} problem{'s' if len(affected) > 1 else ''}"]
    told_of = {
        problem: "all" if len(who) == len(services) > 1 else ", ".join(who)
        for problem, who in affected.items()
    }
    width = max(map(len, told_of.values()))
    lines += [f"  {who:<{width}}  {problem}" for problem, who in told_of.items()]
    return "\n".join([*lines, *notes]), False


def problems_of(process: Mapping[str, str], services: Sequence[str]) -> dict[str, list[str]]:
    """All that is wrong, each problem once, with the services that could not start because of it.

    In the order of the services. Files are read, and commands run, once for all of them.
    """
    affected: dict[str, list[str]] = {}
    files = read_files(process)
    for service in services:
        _, problems = examine(process, files=files, **_options(service))
        for problem in problems:
            if len(services) > 1:
                # Who needs it is told beside it, and then one missing name is one problem.
                problem = problem.replace(f" for the {service} service", "", 1)
                problem = problem.partition("; also needed by ")[0]
            affected.setdefault(problem, []).append(service)
    return affected


def notes_of(
    process: Mapping[str, str], services: Sequence[str] = (), *, others: tuple[str, ...] = ()
) -> list[str]:
    """What is set under a name of ours and read by nobody: mistyped, most likely. By name.

    Such a name begins with ``SSOT_`` or like those of one of the services (of all, if none is
    given), and no setting has it, nor does a line of a file refer to it. ``others`` are beginnings
    of names that something else reads, which are passed over. No service fails to start for it.
    """
    layers = read_files(process)
    known, kind = _known(), detect(process)
    by_environment = {
        field.variable for service in SECTIONS for field in fields(service) if field.by_environment
    }
    # Whoever mistypes one of those means that of this environment.
    away = {name_in(each, name) for each in KINDS if each != kind for name in by_environment}
    notes = []
    for name, origin in sorted(layers.places().items()):
        owner = owner_of(name)
        ours = name.startswith("SSOT_") if owner is None else owner in (services or SERVICES)
        if not ours or name in known or name in layers.mentioned():
            continue
        if name.startswith(others) or _BY_OTHERS.fullmatch(name):
            continue
        if name in by_environment:
            meant = f" (its name is {name_in(kind, name)} here)"
        else:
            # By what follows: what all names of a service begin with makes none of them alike.
            begin = name[: name.index("_") + 1]
            ends = [each.removeprefix(begin) for each in known - away if each.startswith(begin)]
            found = closest(name.removeprefix(begin), ends)
            meant = f" (did you mean {begin}{found}?)" if found else ""
        notes.append(f"{printable(name)} ({printable(str(origin))}) is read by no service{meant}")
    return notes


def _options(service: str | None) -> dict[str, Any]:
    if service is not None:
        if service not in SECTIONS:
            raise SettingsError([f"no service {service!r}; there are {', '.join(SECTIONS)}"])
        return environment_options(service)
    defaults = {n: v for each in SECTIONS for n, v in test_defaults(each).items()}
    return {"service": None, "secrecy": secrecy(), "test_defaults": defaults}


def _winners(name: str, snapshot: Snapshot, service: str | None, kind: Kind) -> list[str]:
    """Which services have a name of their own that wins over this one."""
    found = []
    for each in [service] if service else SECTIONS:
        for field in fields(each):
            (own, *shared) = field.names(each, kind)
            if name in shared and own in snapshot:
                found.append(f"  {own} wins over it for the {each} service")
    return found


def _story(name: str, snapshot: Snapshot, service: str | None, *, known: bool) -> str:
    if name in snapshot.broken:
        return f"{name} is written, and what is written has no value; see below"
    if known and name not in snapshot and (service is None or owner_of(name) in (None, service)):
        # Another name is no better guess for one that there is.
        return f"{name} is not set" + (f" for the {service} service" if service else "")
    return story_of(name, snapshot, service)


def _about(name: str) -> list[str]:
    for each in BOOTSTRAP:
        if each.name == name:
            told = f"default {each.default}" if each.default else "empty by default"
            return [each.meaning, f"decides what is read: given to the process alone; {told}"]
    for entry in entries():
        if name in _names(entry):
            facts = [f"setting {entry.path}", f"read by {', '.join(entry.services)}"]
            facts.append(
                "required" if entry.default is None else f"default {entry.default or '(empty)'}"
            )
            facts += ["secret"] * entry.secret + [entry.limits] * bool(entry.limits)
            return [entry.meaning, "; ".join(facts)]
    return []


def _readers(name: str) -> tuple[str, ...]:
    return next((entry.services for entry in entries() if name in _names(entry)), ())


def _known() -> set[str]:
    settings = {name for entry in entries() for name in _names(entry)}
    return settings | {each.name for each in BOOTSTRAP}


def _names(entry: Entry) -> set[str]:
    return {
        name
        for service in entry.services
        for field in fields(service)
        if field.path == entry.path
        for kind in KINDS
        for name in field.names(service, kind)
    }

"""The layers of an environment as they are written, and the snapshot that they make."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ssot.environment.commands import Commands
from ssot.environment.expansion import Definition, Expansion, expand
from ssot.environment.files import Contents, absence, read_env_file, read_secrets
from ssot.environment.redaction import (
    is_secret_name,
    passwords_of,
    printable,
    repeats_secret,
    user_of,
)
from ssot.environment.snapshot import Layer, Origin, Snapshot, Variable
from ssot.environment.sources import BOOTSTRAP, Kind, Sources, is_there
from ssot.environment.view import foreign_to, owner_of, secrets_of, unseen
from ssot.environment.weakness import weakness

__all__ = ["Layers", "Rules", "unfit"]

# Switches that exist for tests. Outside of them they are refused, not overlooked: whoever set one
# believes that it works.
_FOR_TESTS = "SSOT_TEST_"
_BY_OTHERS = "OTEL_"

# Of ``${NAME}`` too, where it is none: who asks what is unused must miss no use.
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")

# Overrides of one name that are remembered: who sets it every minute fills no memory.
_MOST_EARLIER = 8

# What a program of $(…) gets of the process; nothing of the platform's.
_FOR_COMMANDS = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")


@dataclass(frozen=True, slots=True)
class Rules:
    """By what the layers are judged: whose view it is, where, and what is secret in it.

    What is foreign to any of the ``services`` is not there; without one nothing is foreign.
    """

    kind: Kind
    services: tuple[str, ...] = ()
    secrecy: Mapping[str, bool] = field(default_factory=dict)

    @property
    def foreign(self) -> tuple[str, ...]:
        """What the names begin with that are not in this view."""
        return tuple(begin for service in self.services for begin in foreign_to(service))

    def unseen(self, name: str) -> str | None:
        """Why a name is never in this view; ``None`` when it would be, were it set."""
        reasons = (unseen(name, service) for service in self.services)
        return next((why for why in reasons if why is not None), None)

    def is_secret(self, name: str, origins: Iterable[Origin]) -> bool:
        """By type, by name, or because one of its places is a secret file."""
        if any(origin.layer == "secret file" for origin in origins):
            return True
        return self.secrecy.get(name, is_secret_name(name))


@dataclass(frozen=True, slots=True)
class _Written:
    """One value as it is written in a layer; its repr never shows it."""

    text: str
    origin: Origin
    literal: bool = True

    def __repr__(self) -> str:
        return f"<written in {self.origin}>"


_Layer = Mapping[str, _Written]


@dataclass(frozen=True, slots=True)
class Layers:
    """Every layer, as it was read. Immutable: a change makes another one."""

    below: tuple[_Layer, ...]
    process: _Layer
    files: tuple[_Layer, ...] = ()
    overrides: _Layer = field(default_factory=dict)
    earlier: Mapping[str, tuple[_Written, ...]] = field(default_factory=dict)
    deleted: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    commands: Commands = field(default_factory=lambda: Commands((), environment={}))

    @classmethod
    def of(
        cls,
        process: Mapping[str, str],
        *,
        defaults: Mapping[str, str] | None,
        test_defaults: Mapping[str, str] | None,
        overrides: Mapping[str, str] | None,
    ) -> Layers:
        """The layers without any file."""
        return cls(
            below=(_layer("default", defaults), _layer("test default", test_defaults)),
            process=_layer("process", process),
            overrides=_layer("override", overrides),
        )

    def read(self, sources: Sources, given_up: threading.Event | None = None) -> Layers:
        """The same with the files as they are now; what is wrong with them is in ``problems``.

        Once ``given_up`` is set, no program runs for them any more.
        """
        layers: list[_Layer] = []
        problems = list(sources.problems)

        def take(contents: Contents, layer: Layer) -> None:
            problems.extend(contents.problems)
            layers.append(
                {
                    entry.name: _Written(
                        entry.value, Origin(layer, entry.path, entry.line), entry.literal
                    )
                    for entry in contents.entries
                }
            )

        if sources.folder is not None and not os.path.isdir(sources.folder):
            missing = f"{printable(str(sources.folder))}: {absence('folder', sources.folder)}"
            problems.append(f"SSOT_ENV_DIRECTORY (process): {missing}")
        for path in sources.files:
            if sources.asked_for or is_there(path):
                named = "SSOT_ENV_FILES" if sources.asked_for else ""
                take(_with_consequences(read_env_file(path), named), "env file")
        if sources.secrets is not None:
            contents = read_secrets(sources.secrets)
            take(_with_consequences(contents, "SSOT_SECRETS_DIRECTORY"), "secret file")
        # Each program runs once for each reading, however often a snapshot is built of it.
        machine = {n: w.text for n, w in self.process.items() if n in _FOR_COMMANDS}
        commands = Commands(
            sources.commands, environment=machine, timeout=sources.timeout, given_up=given_up
        )
        return replace(self, files=tuple(layers), problems=tuple(problems), commands=commands)

    def with_files_of(self, other: Layers) -> Layers:
        """The same with the files of ``other``, and what its programs said or will say."""
        return replace(self, files=other.files, problems=other.problems, commands=other.commands)

    def changed(
        self, values: Mapping[str, str], deleted: Iterable[str] = (), *, label: str = ""
    ) -> Layers:
        """The same with these values on top, and without the names that are deleted.

        ``label`` says who made the change; of each name the values before are remembered.
        """
        gone = frozenset(deleted)
        kept = {name: each for name, each in self.overrides.items() if name not in gone}
        before = {
            name: (self.overrides[name], *self.earlier.get(name, ()))[:_MOST_EARLIER]
            for name in (*values, *gone)
            if name in self.overrides
        }
        return replace(
            self,
            overrides={**kept, **_layer("override", values, label)},
            earlier={**self.earlier, **before},
            deleted=(self.deleted | gone) - values.keys(),
        )

    def places(self) -> dict[str, Origin]:
        """Where each name is written, in its strongest layer; also where its text has no value."""
        return {name: written.origin for layer in self._rising() for name, written in layer.items()}

    def mentioned(self) -> frozenset[str]:
        """The names that any line of a file refers to, whether it comes to that or not."""
        texts = (each.text for file in self.files for each in file.values() if not each.literal)
        return frozenset(name for text in texts for name in _REFERENCE.findall(text))

    def build(self, rules: Rules) -> tuple[Snapshot, list[str]]:
        """The snapshot that these layers make, and everything that is wrong with it."""
        stories = self._stories(rules.foreign)
        misplaced = list(_misplaced(stories))
        for each in BOOTSTRAP:
            # Everything else is judged as what this really is, whatever a file pretends.
            given = [one for one in stories.pop(each.name, ()) if one.origin.path is None]
            stories |= {each.name: given} if given else {}
        expansion = self._expanded(stories, rules)
        variables = {
            name: _variable(name, story, expansion, rules)
            for name, story in stories.items()
            if name in expansion.values
        }
        variables = _with_copies(variables)
        snapshot = Snapshot(
            variables,
            broken=frozenset(stories.keys() - variables.keys()),
            deleted=frozenset(name for name in self.deleted if not name.startswith(rules.foreign)),
        )
        problems = [*self.problems, *expansion.problems, *misplaced]
        for name, variable in variables.items():
            if name.startswith("SSOT_") or owner_of(name):
                # A file beside secrets may hold a port or a client id as well: it is shown as
                # little as they are, and need not be hard to guess.
                guarded = variable.secret and rules.secrecy.get(name, True)
                problems += unfit(variable, rules.kind, guarded=guarded)
        return snapshot, problems

    def _rising(self) -> tuple[_Layer, ...]:
        """All layers, the weakest first."""
        return (*self.below, *self.files, self.process, self.overrides)

    def _stories(self, foreign: tuple[str, ...]) -> dict[str, list[_Written]]:
        """What is written for each name in this view, the strongest first."""
        stories: dict[str, list[_Written]] = {}
        for layer in self._rising():
            for name, written in layer.items():
                if name not in self.deleted and not name.startswith(foreign):
                    stories.setdefault(name, []).insert(0, written)
        for name, earlier in self.earlier.items():
            if name in stories and name in self.overrides:
                stories[name][1:1] = earlier
        return stories

    def _expanded(self, stories: Mapping[str, Sequence[_Written]], rules: Rules) -> Expansion:
        definitions: dict[str, Definition] = {}
        for name, story in stories.items():
            # Once a name is secret, every value of it is: also that which wins over a secret file.
            secret = rules.is_secret(name, (written.origin for written in story))
            below: Definition | None = None
            for written in reversed(story):
                below = Definition(
                    name=name,
                    text=written.text,
                    where=str(written.origin),
                    literal=written.literal,
                    secret=secret,
                    below=below,
                )
            assert below is not None
            definitions[name] = below
        return expand(definitions, commands=self.commands, unseen=rules.unseen)


def _with_consequences(contents: Contents, named_by: str) -> Contents:
    """The same; of what could not be read at all it is told who names it, and what comes of it.

    Else each name that it sets would look as if nobody had set it.
    """
    if not contents.unread:
        return contents
    who = f"{named_by} (process): " if named_by else ""
    after = "; whatever it sets counts as not set"
    told = tuple(f"{who}{problem}{after}" for problem in contents.problems)
    return replace(contents, problems=told)


def _layer(layer: Layer, values: Mapping[str, str] | None, label: str = "") -> _Layer:
    origin = Origin(layer, label=label)
    return {name: _Written(value, origin) for name, value in (values or {}).items()}


def _variable(name: str, story: Sequence[_Written], expansion: Expansion, rules: Rules) -> Variable:
    found = expansion.values[name]
    secret = found.secret or rules.is_secret(name, (written.origin for written in story))
    return Variable(
        name=name,
        value=found.value,
        origin=story[0].origin,
        secret=secret,
        over=tuple(Variable(name, each.text, each.origin, secret) for each in story[1:]),
        references=found.references,
        commands=found.commands,
    )


def _misplaced(stories: Mapping[str, Sequence[_Written]]) -> Iterable[str]:
    """What stands in a file and is read from the process alone: there it would have no effect."""
    deciding = {each.name for each in BOOTSTRAP}
    for name, story in stories.items():
        for written in story:
            if written.origin.path is None:
                continue
            if name in deciding:
                yield (
                    f"{written.origin}: {name} decides which files are read, so none can set it; "
                    "give it to the process"
                )
            elif name.startswith(_BY_OTHERS):
                yield (
                    f"{written.origin}: {name} is read by OpenTelemetry, from the process alone; "
                    "give it to the process"
                )


def _with_copies(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    """The same; what repeats one of their secrets is one itself."""
    known = secrets_of(variables.values())
    return {
        name: replace(each, secret=True, over=tuple(replace(o, secret=True) for o in each.over))
        if not each.secret and repeats_secret(each.value, known)
        else each
        for name, each in variables.items()
    }


def unfit(variable: Variable, kind: Kind, *, guarded: bool) -> Iterable[str]:
    """Why one of the platform's own variables cannot be used in this environment.

    What is ``guarded`` must be hard to guess.
    """
    told = f"{variable.name} ({variable.origin})"
    try:
        variable.value.encode()
    except UnicodeEncodeError:
        yield f"{told}: is not UTF-8"
    if kind == "test":
        return
    if variable.name.startswith(_FOR_TESTS):
        yield f"{told}: is for tests, and this is {kind}; unset it"
        # How good a secret it is, matters to nobody then.
        return
    is_url = "://" in variable.value
    # Of a password in a URL the written and the decoded form are known: one problem is enough.
    secrets = {variable.value} if guarded and not is_url else passwords_of(variable.value)
    user = user_of(variable.value)
    for weak in sorted(why for each in secrets if (why := weakness(each, user=user)))[:1]:
        yield (
            f"{told}: {'its password ' if is_url else ''}{weak}; make one with: "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )

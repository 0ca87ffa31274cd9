"""The environment of one process: built of its layers, checked whole, swapped in one step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssot.environment.layers import Layers, Rules
from ssot.environment.locks import ForkSafeLock
from ssot.environment.overlay import Overlay, protection_of
from ssot.environment.redaction import Redactor
from ssot.environment.snapshot import Change, Snapshot, Variable
from ssot.environment.sources import BOOTSTRAP, Kind, Sources, detect
from ssot.environment.subscribers import Subscribers, Subscription
from ssot.environment.view import View, foreign_to, problems_of, secrets_of
from ssot.errors import SettingsError
from ssot.tracing import Spans, current_trace, mark_failed, trace_of

__all__ = ["EnvironmentStatistics", "IsolatedEnvironment", "Validator", "examine", "read_files"]

Validator = Callable[[Snapshot], Iterable[str]]
"""Says what is wrong with a snapshot that is about to be used, each problem in a sentence."""

_spans = Spans("environment")
# A secret that is rotated every hour is known for ten days; each takes its time of every log line.
_MOST_OLD_SECRETS = 256
# Nobody reads more in one report: what has more is no file of variables.
_MOST_PROBLEMS = 300


@dataclass(frozen=True, slots=True)
class EnvironmentStatistics:
    """What is open and what has happened.

    ``revision`` counts the snapshots, from 1; ``refused`` the changes and reloads that were not
    valid. ``told`` and ``failed`` count calls of subscribers.
    """

    variables: int
    revision: int
    reloads: int
    refused: int
    subscribers: int
    told: int
    failed: int


class IsolatedEnvironment(View):
    """The environment variables as one service sees them.

    Precedence: override > process > secret files > ``.env.<environment>`` > ``.env`` > test
    defaults (in the environment ``test`` alone) > defaults. ``sources`` says which files there are;
    they are read here and by :meth:`reload`, at no other time. The process mapping is copied once,
    and ``os.environ`` is never written: C code may read it at the same time.

    Only what is written in a ``.env`` file is expanded (see :mod:`ssot.environment.expansion`);
    every other value is taken as it is. What is made of a secret is a secret.

    Reads take no lock: a change builds a new :class:`Snapshot`, has it checked, and swaps one
    reference. What does not pass is refused whole, by a :class:`SettingsError` that names every
    problem, and the snapshot before it goes on serving. An empty value is a value, and a deleted
    name is absent.

    ``service`` limits the view: names in another service's namespace are not there at all.
    ``secrecy`` decides for the names in it whether they are secret; others are judged by name.
    ``validate`` may add problems of its own. In every environment but ``test``, the platform's own
    secrets must be no placeholders.
    """

    def __init__(
        self,
        process: Mapping[str, str],
        *,
        service: str | None = None,
        defaults: Mapping[str, str] | None = None,
        test_defaults: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        sources: Sources | None = None,
        secrecy: Mapping[str, bool] | None = None,
        validate: Validator | None = None,
    ) -> None:
        foreign_to(service)
        self.service = service
        self.kind: Kind = detect(process)
        self._rules = Rules(self.kind, (service,) if service else (), dict(secrecy or {}))
        self._sources = sources or Sources()
        self._validate = validate
        self._protected = frozenset(each.name for each in BOOTSTRAP)
        self._writing = ForkSafeLock()
        self._learning = ForkSafeLock()
        self._given_up = threading.Event()
        self._subscribers = Subscribers()
        # The secrets of now, those that were rotated out, oldest first, and both together.
        self._held: frozenset[str] = frozenset()
        self._old: tuple[str, ...] = ()
        self._seen: frozenset[str] = frozenset()
        self._redactor: tuple[frozenset[str], Redactor] | None = None
        self._revision = self._reloads = self._refused = 0
        self._layers: Layers
        self._snapshot: Snapshot
        self._narrowed: _Narrowed
        with _spans.span("environment.load", service=service or "") as span:
            layers = Layers.of(
                process,
                defaults=defaults,
                test_defaults=test_defaults if self.kind == "test" else None,
                overrides=overrides,
            )
            given = [each for each in (defaults, test_defaults, overrides) if each]
            if ill := [problem for values in given for problem in _ill(values, self._protected)]:
                raise SettingsError(ill)
            self._swap(layers.read(self._sources, self._given_up), trace_of(span))
            span.set_attribute("ssot.variables", len(self._snapshot))

    @classmethod
    def load(cls, process: Mapping[str, str], **options: Any) -> IsolatedEnvironment:
        """The environment with the files that the process names (:meth:`Sources.of`)."""
        return cls(process, sources=Sources.of(process), **options)

    def __repr__(self) -> str:
        service = self.service or "all services"
        return f"<IsolatedEnvironment of {service}: {len(self._snapshot)} variables>"

    def snapshot(self) -> Snapshot:
        """The environment now. Read several names from one snapshot when they belong together."""
        return self._snapshot

    def seen_by(self, *services: str) -> tuple[Snapshot, tuple[str, ...]]:
        """The same for one who sees what every one of these services does as well; see there.

        Built when it is first asked for after a change.
        """
        others = tuple(service for service in services if service != self.service)
        return self._narrowed.to(others) if others else (self._snapshot, ())

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value, or ``default`` when the name is absent; an empty value is a value."""
        return self._snapshot.get(name, default)

    def overlay(
        self,
        values: Mapping[str, str] | None = None,
        *,
        label: str = "",
        service: str | None = None,
    ) -> Overlay:
        """This environment with some names changed, for one user, task or test; see there.

        ``label`` is told as the origin of its values. ``service`` narrows the view to one service:
        what is made of another's names is judged as it is where a service reads the files itself.
        """
        return Overlay(
            self,
            values or {},
            label=label,
            service=service,
            protected=lambda: self._protected,
            secrecy=self._rules.secrecy,
            kind=self.kind,
        )

    @property
    def reads_files(self) -> bool:
        """Whether it has files to read: ``.env`` files, or a folder of secrets."""
        return bool(self._sources.files or self._sources.secrets)

    # Changes

    def override(self, values: Mapping[str, str], *, label: str = "") -> None:
        """Set several names at once, above every other layer: readers see all of them or none.

        ``label`` is told as the origin of the values; :meth:`explain` tells the overrides before
        as well, the newest eight.

        :raises SettingsError: for what is no name or no value, a protected name, a name of another
            service, and whatever would make the whole of it invalid. Nothing is changed then.
        """
        values = dict(values)
        self._change(
            lambda layers: layers.changed(values, label=label),
            ill=lambda: _ill(values, self._protected, self.service),
        )

    def delete(self, *names: str) -> None:
        """Make the names absent, whatever the layers hold, until they are set by an override."""
        self._change(
            lambda layers: layers.changed({}, deleted=names),
            ill=lambda: protection_of(names, self._protected),
        )

    def protect(self, *names: str) -> None:
        """From now on refuse every override, deletion and reload that would change these names.

        Overlays refuse them as well, also those that are there already; what one has set stays.
        Those that decide what is read (:data:`BOOTSTRAP`) are protected from the start.
        """
        with self._writing:
            self._protected |= frozenset(names)

    def reload(self) -> tuple[Change, ...]:
        """Read all files again and, when everything is valid, swap; returns what changed, masked.

        Blocks while it reads, and while it runs commands. Subscribers are told before it returns,
        unless another thread is telling them at that moment.
        """
        # A signal carries no trace: what it leads to follows from what is read here once more.
        parent = None if current_trace() else self._snapshot.trace
        with _spans.span("environment.reload", parent=parent, service=self.service or "") as span:
            with self._writing:
                try:
                    layers = self._layers.read(self._sources, self._given_up)
                    changes = self._swap(layers, trace_of(span))
                except SettingsError as error:
                    self._refused += 1
                    mark_failed(span, error)
                    raise
                self._reloads += 1
            self._subscribers.tell()
        return tuple(change.masked() for change in changes)

    def give_up(self) -> None:
        """End the programs of ``$(…)`` that run now, and run none any more.

        For a process that is about to end: a :meth:`reload` in another thread is refused at once,
        and leaves no program behind.
        """
        self._given_up.set()

    def subscribe(
        self,
        callback: Callable[[Change], object],
        names: Collection[str] | None = None,
        *,
        secrets: bool = False,
    ) -> Subscription:
        """Call ``callback`` with every :class:`Change` of ``names`` (``None``: of all) from now on.

        After the swap, outside any lock, each change once and in order; the changes of one swap by
        name. Who calls is the thread that made the change, or one that was telling already: a
        callback must be quick, and safe in any thread. The values of secrets are masked unless
        ``secrets`` is granted. A callback that raises harms no other: it is logged and counted.
        """
        return self._subscribers.add(callback, names, secrets=secrets)

    # Looking

    def redactor(self) -> Redactor:
        """A redactor that knows the same secrets as :meth:`secrets`."""
        seen, cached = self._seen, self._redactor
        if cached is None or cached[0] is not seen:
            redactor = Redactor(seen, like=cached[1] if cached else None)
            cached = self._redactor = (seen, redactor)
        return cached[1]

    def secrets(self) -> frozenset[str]:
        """The values that must not be shown: all that this environment has, and those it had.

        Of those that were rotated out the newest 256 are known, and always all that were in force
        before the last change.
        """
        return self._seen

    def statistics(self) -> EnvironmentStatistics:
        """What is open and what has happened."""
        return EnvironmentStatistics(
            variables=len(self._snapshot),
            revision=self._revision,
            reloads=self._reloads,
            refused=self._refused,
            subscribers=len(self._subscribers),
            told=self._subscribers.told,
            failed=self._subscribers.failed,
        )

    # Inside

    def _change(self, change: Callable[[Layers], Layers], *, ill: Callable[[], list[str]]) -> None:
        with _spans.span("environment.change", service=self.service or "") as span:
            with self._writing:
                try:
                    if problems := ill():
                        raise SettingsError(problems)
                    self._swap(change(self._layers), trace_of(span))
                except SettingsError as error:
                    self._refused += 1
                    mark_failed(span, error)
                    raise
            self._subscribers.tell()

    def _swap(self, layers: Layers, trace: str) -> Sequence[Change]:
        """Make these the layers, or change nothing and raise :class:`SettingsError`."""
        built, problems = layers.build(self._rules)
        if self._revision:
            for name in sorted(self._protected):
                if built.get(name) != self._snapshot.get(name):
                    problems += protection_of([name], self._protected)
        if self._validate is not None:
            problems += self._validate(built)
        secrets = secrets_of(built.variables.values())
        if problems:
            clean = Redactor(self._seen | secrets, like=self.redactor())
            if (more := len(problems) - _MOST_PROBLEMS) > 0:
                problems[_MOST_PROBLEMS:] = [f"and {more} more: is every file the one you mean?"]
            raise SettingsError([clean(problem) for problem in problems])
        old = self._snapshot.variables if self._revision else built.variables
        # Before anybody can read it: what is logged of it from now on is clean.
        self._learn(secrets)
        self._layers = layers
        self._snapshot = Snapshot(built.variables, trace=trace, deleted=built.deleted)
        self._narrowed = _Narrowed(layers, self._rules, trace, self._learn_also)
        self._revision += 1
        changes = tuple(_changes(old, built.variables))
        self._subscribers.put(changes)
        return changes

    def _learn(self, secrets: Collection[str]) -> None:
        """From now on these are the secrets; those that no longer are begin to be forgotten."""
        with self._learning:
            out = self._held.difference(secrets)
            old = [each for each in self._old if each not in secrets and each not in out]
            # Who is reading the snapshot of before this change may log any of those.
            most = max(_MOST_OLD_SECRETS, len(out))
            self._old = tuple([*old, *sorted(out)][-most:])
            self._hold(frozenset(secrets))

    def _learn_also(self, secrets: Collection[str]) -> None:
        """These are secrets of now as well."""
        with self._learning:
            self._hold(self._held.union(secrets))

    def _hold(self, secrets: frozenset[str]) -> None:
        self._held = secrets
        seen = secrets.union(self._old)
        # A redactor is made for this very set: what is the same stays the same.
        if seen != self._seen:
            self._seen = seen


class _Narrowed:
    """What the services see of the layers of one snapshot, each built when it is first wanted."""

    def __init__(
        self,
        layers: Layers,
        rules: Rules,
        trace: str,
        learn: Callable[[Collection[str]], None],
    ) -> None:
        self._layers = layers
        self._rules = rules
        self._trace = trace
        self._learn = learn
        self._views: dict[tuple[str, ...], tuple[Snapshot, tuple[str, ...]]] = {}

    def to(self, services: tuple[str, ...]) -> tuple[Snapshot, tuple[str, ...]]:
        """What those see who see no more than any of these services, and what they lack for it."""
        found = self._views.get(services)
        if found is None:
            rules = replace(self._rules, services=(*self._rules.services, *services))
            built, problems = self._layers.build(rules)
            secrets = secrets_of(built.variables.values())
            # A default may have come into force that is a secret, and that nobody has seen yet.
            self._learn(secrets)
            clean = Redactor(secrets)
            view = Snapshot(built.variables, trace=self._trace, broken=built.broken)
            found = view, tuple(clean(problem) for problem in problems)
            # Of two threads at once both have the first: a view is known by its identity.
            found = self._views.setdefault(services, found)
        return found


def examine(
    process: Mapping[str, str], *, files: Layers | None = None, **options: Any
) -> tuple[Snapshot, tuple[str, ...]]:
    """What :meth:`IsolatedEnvironment.load` would make of these, and all that is wrong with it.

    For people who want to see how far it gets: only an unknown environment raises.
    Names whose text cannot be understood are ``broken`` in the snapshot. ``files`` are those of
    the process when they have been read already (:func:`read_files`): then nothing is read again,
    and no program runs twice.
    """
    kind, validate = detect(process), options.get("validate")
    layers = Layers.of(
        process,
        defaults=options.get("defaults"),
        test_defaults=options.get("test_defaults") if kind == "test" else None,
        overrides=options.get("overrides"),
    ).with_files_of(files or read_files(process))
    service = options.get("service")
    rules = Rules(kind, (service,) if service else (), options.get("secrecy") or {})
    snapshot, problems = layers.build(rules)
    problems += validate(snapshot) if validate else ()
    clean = Redactor(secrets_of(snapshot.variables.values()))
    return snapshot, tuple(clean(problem) for problem in problems)


def read_files(process: Mapping[str, str]) -> Layers:
    """The layers of this process and of the files that it names, and no other ones."""
    layers = Layers.of(process, defaults=None, test_defaults=None, overrides=None)
    return layers.read(Sources.of(process))


def _ill(
    values: Mapping[str, str], protected: Collection[str], service: str | None = None
) -> list[str]:
    return [*problems_of(values, service), *protection_of(values, protected)]


def _changes(old: Mapping[str, Variable], new: Mapping[str, Variable]) -> Iterable[Change]:
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        was = before.value if before else None
        now = after.value if after else None
        if was != now:
            secret = any(each.secret for each in (before, after) if each)
            yield Change(name, was, now, after.origin if after else None, secret)

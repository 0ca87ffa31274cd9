"""An overlay: an environment with a few names changed, for one service, user, task or test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from ssot.environment.layers import unfit
from ssot.environment.locks import ForkSafeLock
from ssot.environment.redaction import is_secret_name, passwords_of, repeats_secret
from ssot.environment.snapshot import Origin, Snapshot, Variable
from ssot.environment.sources import Kind
from ssot.environment.view import View, foreign_to, owner_of, problems_of, secrets_of
from ssot.errors import SettingsError

__all__ = ["Overlay"]


class Overlay(View):
    """What lies below, with some names set and others deleted.

    It is as current as what lies below, except for its own names, and it changes nothing there:
    neither the environment nor another overlay nor ``os.environ`` ever has a value of this one.
    Narrowed to one service, it is made only when every value can be made without the names of the
    others (:class:`SettingsError`); a name of which that is true no more is absent later on. It
    needs no closing.
    """

    def __init__(
        self,
        below: View,
        values: Mapping[str, str],
        *,
        label: str = "",
        service: str | None = None,
        protected: Callable[[], Collection[str]] = frozenset,
        secrecy: Mapping[str, bool] | None = None,
        kind: Kind = "test",
    ) -> None:
        if service is not None and below.service not in (None, service):
            raise SettingsError(
                [f"the view of the {below.service} service has nothing of the {service} service"]
            )
        self.service = service or below.service
        self._below = below
        self._label = label
        self._foreign = foreign_to(self.service)
        self._protected = protected
        self._secrecy = secrecy or {}
        self._kind = kind
        self._writing = ForkSafeLock()
        self._mine: Mapping[str, str | None] = {}
        self._seen: frozenset[str] = frozenset()
        self._merged: tuple[Snapshot, Mapping[str, str | None], Snapshot] | None = None
        self.override(values)
        if self.service != below.service and (problems := self.seen_by()[1]):
            raise SettingsError(problems)

    def __repr__(self) -> str:
        return f"<Overlay {self._label or 'without a name'} of {len(self._mine)} names>"

    def snapshot(self) -> Snapshot:
        """The variables now, of one moment of what lies below."""
        return self.seen_by()[0]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value, or ``default`` when the name is absent; an empty value is a value."""
        mine = self._mine
        if name in mine:
            own = mine[name]
            return default if own is None else own
        if self.service == self._below.service:
            return self._below.get(name, default)
        return self.snapshot().get(name, default)

    def seen_by(self, *services: str) -> tuple[Snapshot, tuple[str, ...]]:
        """The same for one who sees what every one of these services does as well; see there."""
        own = (self.service,) if self.service else ()
        others = tuple(service for service in services if service != self.service)
        (below, problems), mine = self._below.seen_by(*own, *others), self._mine
        problems = problems if below.broken - mine.keys() else ()
        if others:
            foreign = tuple(begin for each in others for begin in foreign_to(each))
            return self._merge(below, mine, (*self._foreign, *foreign)), problems
        merged = self._merged
        if merged is not None and merged[0] is below and merged[1] is mine:
            return merged[2], problems
        snapshot = self._merge(below, mine, self._foreign)
        self._merged = (below, mine, snapshot)
        return snapshot, problems

    @property
    def reads_files(self) -> bool:
        """Whether what lies below has values of files."""
        return self._below.reads_files

    def override(self, values: Mapping[str, str]) -> None:
        """Set several names at once in this overlay: readers see all of them or none.

        What lies below is not made anew of them: ``URL=http://${HOST}`` stays as it is.

        :raises SettingsError: for what is no name or no value, a protected name, a name of another
            service, and outside of tests for switches of tests and for secrets that are none.
        """
        values = dict(values)
        problems = problems_of(values, self.service)
        if problems := [*problems, *protection_of(values, self._protected())]:
            raise SettingsError(problems)
        if problems := [*self._unfit(values)]:
            raise SettingsError([self.redactor()(problem) for problem in problems])
        with self._writing:
            # Before anybody can read them.
            self._seen |= self._secrets_in(values)
            self._mine = {**self._mine, **values}

    def delete(self, *names: str) -> None:
        """Make the names absent in this overlay, whatever lies below."""
        if problems := protection_of(names, self._protected()):
            raise SettingsError(problems)
        with self._writing:
            self._mine = {**self._mine, **dict.fromkeys(names)}

    def secrets(self) -> frozenset[str]:
        """Those of what lies below, and those that this overlay has, or ever had."""
        return self._below.secrets() | self._seen | secrets_of(self.snapshot().variables.values())

    def overlay(
        self,
        values: Mapping[str, str] | None = None,
        *,
        label: str = "",
        service: str | None = None,
    ) -> Overlay:
        """An overlay of this one."""
        return Overlay(
            self,
            values or {},
            label=label,
            service=service,
            protected=self._protected,
            secrecy=self._secrecy,
            kind=self._kind,
        )

    def _unfit(self, values: Mapping[str, str]) -> Iterator[str]:
        for name, value in values.items():
            if name.startswith("SSOT_") or owner_of(name):
                secret = self._secrecy.get(name, is_secret_name(name))
                variable = Variable(name, value, Origin("overlay", label=self._label), secret)
                yield from unfit(variable, self._kind, guarded=secret)

    def _secrets_in(self, values: Mapping[str, str]) -> frozenset[str]:
        found: set[str] = set()
        for name, value in values.items():
            secret = self._secrecy.get(name, is_secret_name(name))
            found |= {value} if secret else passwords_of(value)
        return frozenset(found)

    def _merge(
        self, below: Snapshot, mine: Mapping[str, str | None], foreign: tuple[str, ...]
    ) -> Snapshot:
        variables = dict(below.variables)
        gone = below.deleted - mine.keys() | {n for n, value in mine.items() if value is None}
        known = self._below.secrets()
        for name, value in mine.items():
            before = variables.pop(name, None)
            if value is None or name.startswith(foreign):
                continue
            secret = self._secrecy.get(name, is_secret_name(name)) or repeats_secret(value, known)
            variables[name] = Variable(
                name=name,
                value=value,
                origin=Origin("overlay", label=self._label),
                # what replaces a secret is one
                secret=secret or bool(before and before.secret),
                over=(before, *before.over) if before else (),
            )
        broken = below.broken - mine.keys()
        return Snapshot(variables, trace=below.trace, broken=broken, deleted=gone)


def protection_of(names: Iterable[str], protected: Collection[str]) -> list[str]:
    """A problem for each of the names that is protected."""
    return [
        f"{name} is protected: it stays as it was when the process started"
        for name in sorted(set(names) & set(protected))
    ]

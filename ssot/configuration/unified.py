"""UnifiedConfiguration: one process's settings, built from its environment and checked whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from ssot.configuration.schema import SECTIONS, fields, readers, secrecy, test_defaults
from ssot.configuration.settings import Section, Settings
from ssot.environment import (
    MASK,
    IsolatedEnvironment,
    Snapshot,
    Subscription,
    View,
    detect,
    is_secret_name,
    mask_url,
    nearest,
)
from ssot.environment.locks import ForkSafeLock
from ssot.errors import SettingsError
from ssot.tracing import Spans, trace_of

__all__ = ["Revision", "UnifiedConfiguration", "environment_options"]

_OVERRIDE = "explicit override"

_log = logging.getLogger(__name__)
_spans = Spans("configuration")


class Revision(Section):
    """One consistent state of the settings: values taken from one revision belong together."""

    number: int
    settings: Settings
    trace: str = ""
    """The span that built it, as a W3C traceparent; empty when nobody traces."""


class _State(NamedTuple):
    """A revision, and where each of its settings was read: made together, swapped together."""

    revision: Revision
    origins: Mapping[str, str]


class UnifiedConfiguration:
    """The settings of one service.

    Precedence: default < environment < explicit override (``{"database.pool_size": 3}``). Building
    collects every problem into one :class:`SettingsError` that names the variable and where its
    value came from, and never the value of a secret.

    Reads take no lock and are safe in any thread: whatever one of them tells is of one revision.
    """

    def __init__(
        self,
        environment: View,
        service: str,
        *,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        if service not in SECTIONS:
            raise SettingsError(
                [f"no service {service!r}; there are {', '.join(sorted(SECTIONS))}"]
            )
        self.service = service
        self._environment = environment
        self._overrides = dict(overrides or {})
        self._following: Subscription | None = None
        self._subscribers: tuple[Callable[[Revision], object], ...] = ()
        self._refreshing = ForkSafeLock()
        self._state = self._next(1)

    @property
    def current(self) -> Revision:
        """The newest revision: frozen, so hold on to it while its values must fit each other."""
        return self._state.revision

    @property
    def settings(self) -> Settings:
        """The settings of the newest revision."""
        return self._state.revision.settings

    @property
    def trace(self) -> str:
        """The span that built the newest revision, as a W3C traceparent; empty when nobody traces.

        Whoever is opened with these settings can be made its child. Of a revision that was taken
        before, it is :attr:`Revision.trace`.
        """
        return self._state.revision.trace

    def follow(self, environment: IsolatedEnvironment) -> None:
        """Make a new revision of every change of the environment, until :meth:`close`.

        A change that would not make valid settings is logged and refused: the last good revision
        stays. (An environment that was given :func:`environment_options` refuses it by itself.)
        """
        if not isinstance(environment, IsolatedEnvironment):
            raise TypeError(
                f"an {type(environment).__name__} is read once, for the task that it is made for; "
                "what is followed is the environment below it"
            )
        self.close()
        self._following = environment.subscribe(lambda _: self._refresh())
        # What has changed since this was built.
        self._refresh()

    def close(self) -> None:
        """Follow the environment no longer. Idempotent."""
        if self._following is not None:
            self._following.close()

    def subscribe(self, callback: Callable[[Revision], object]) -> None:
        """Call ``callback`` with every new revision, in order, in the thread that made the change.

        One that raises harms no other, and is logged.
        """
        self._subscribers = (*self._subscribers, callback)

    def explain(self, path: str) -> str:
        """One redacted sentence on a setting: its value and the layer it came from.

        :class:`SettingsError` for what is no setting of this service, or a whole section.
        """
        if problem := _no_setting(path, self.service):
            raise SettingsError([problem])
        revision, origins = self._state
        node: Any = revision.settings
        for name in path.split("."):
            node = getattr(node, name)
        shown = MASK if is_secret_name(path.rpartition(".")[2]) else mask_url(str(node))
        return f"{path} = {shown} ({origins.get(path, 'default')})"

    def _refresh(self) -> None:
        with self._refreshing:
            before = self._state.revision
            try:
                state = self._next(before.number + 1)
            except SettingsError as error:
                _log.error("revision %d goes on serving: %s", before.number, error)
                return
            current = state.revision
            if current.settings == before.settings:
                return
            self._state = state
        for callback in self._subscribers:
            try:
                callback(current)
            except Exception as error:
                # Not its text: it may quote a value.
                name = getattr(callback, "__qualname__", type(callback).__qualname__)
                _log.error(
                    "subscriber %s failed at revision %d: %s",
                    name,
                    current.number,
                    type(error).__name__,
                )

    def _next(self, number: int) -> _State:
        snapshot, problems = self._environment.seen_by()
        if problems:
            # A view that was narrowed to one service, and has been made of another's names since.
            raise SettingsError(problems)
        links = [snapshot.trace]
        with _spans.span("configuration.build", links=links, service=self.service) as span:
            settings, origins = _build(snapshot, self.service, self._overrides)
            revision = Revision(number=number, settings=settings, trace=trace_of(span))
            return _State(revision, MappingProxyType(origins))


def environment_options(service: str) -> dict[str, Any]:
    """What the schema knows of a service's environment: options of :class:`IsolatedEnvironment`.

    With them its secrets are known by type, it has its defaults for tests, and a change that would
    not make valid settings is refused before it is made. Equal for the same service.
    """
    return {
        "service": service,
        "secrecy": secrecy(),
        "test_defaults": test_defaults(service),
        "validate": _Validator(service),
    }


@dataclass(frozen=True, slots=True)
class _Validator:
    """What keeps a snapshot from being the settings of a service."""

    service: str

    def __call__(self, snapshot: Snapshot) -> list[str]:
        try:
            with _spans.span("configuration.validate", service=self.service):
                _build(snapshot, self.service, {})
        except SettingsError as error:
            return list(error.problems)
        return []


def _build(
    snapshot: Snapshot, service: str, overrides: Mapping[str, Any]
) -> tuple[Settings, dict[str, str]]:
    """The settings of a service, and the origin of each; or :class:`SettingsError`."""
    kind = detect(snapshot)
    data: dict[str, Any] = {name: {} for name in SECTIONS[service]}
    origins: dict[str, str] = {}
    for field in fields(service):
        for name in field.names(service, kind):
            if name in snapshot:
                _put(data, field.path, snapshot[name])
                if field.own is not None:
                    _put(data, f"{field.path}_variable", name)
                origin = snapshot.variables[name].origin
                where = f"the {origin}" if origin.path is None else str(origin)
                origins[field.path] = f"{name}, {where}"
                break
    problems = []
    for path, value in overrides.items():
        if problem := _no_setting(path, service):
            problems.append(f"{_OVERRIDE}: {problem}")
        else:
            _put(data, path, value)
            origins[path] = _OVERRIDE
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        problems += _problems(error, origins, snapshot, service)
    else:
        if not problems:
            return settings, origins
    # Without any: what is missing is written somewhere, and what is wrong there has been told.
    raise SettingsError(problems)


def _problems(
    error: ValidationError, origins: Mapping[str, str], snapshot: Snapshot, service: str
) -> list[str]:
    # Here, since that module is also run by itself, after this package has been imported.
    from ssot.configuration.reference import number_of

    known = {field.path: field for field in fields(service)}
    kind = detect(snapshot)
    problems = []
    for item in error.errors(include_input=False, include_context=False):
        path = ".".join(str(part) for part in item["loc"])
        field = known.get(path)
        if item["type"] == "missing" and field is not None:
            names = field.names(service, kind)
            if snapshot.broken.isdisjoint(names):
                others = [each for each in readers(path) if each != service]
                also = f"; also needed by {', '.join(others)}" if others else ""
                problems.append(
                    f"{names[-1]} is not set for the {service} service: {field.meaning}{also}"
                )
        elif field is None and path not in origins and item["type"] == "value_error":
            # Of a whole section: the message itself names the variables that do not go together.
            problems.append(item["msg"].removeprefix("Value error, "))
        else:
            name, _, origin = origins.get(path, f"{path}, the default").partition(", ")
            if name == _OVERRIDE:
                name, origin = path, f"an {_OVERRIDE}"
            message = item["msg"].removeprefix("Value error, ")
            remedy = f"; it must be {number}" if (number := number_of(path)) else ""
            if number and (snapshot.get(name) or "").startswith("tcp://"):
                remedy += (
                    "; Kubernetes sets this for a Service of that name: "
                    "rename it or set enableServiceLinks: false"
                )
            problems.append(f"{name} (from {origin}): {message}{remedy}")
    return problems


def _no_setting(path: str, service: str) -> str:
    """What is wrong with the path of a setting; empty if nothing is."""
    known = [field.path for field in fields(service)]
    if path in known:
        return ""
    if below := [each for each in known if each.startswith(f"{path}.")]:
        return f"{path!r} is a whole section; its settings are {', '.join(below)}"
    return f"no setting {path!r} in the {service} service{nearest(path, known)}"


def _put(data: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        data = data.setdefault(section, {})
    data[name] = value

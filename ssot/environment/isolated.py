"""The environment of one process, read once: immutable snapshots behind one reference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ssot.environment.redaction import MASK, Redactor, is_secret_name, mask_url, passwords_of
from ssot.errors import SettingsError

__all__ = ["SERVICES", "IsolatedEnvironment", "Layer", "Snapshot", "Variable"]

Layer = Literal["default", "process", "override"]
"""Where a value came from, from the weakest to the strongest."""

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


@dataclass(frozen=True, slots=True)
class Variable:
    """One value with its story: the layer that won, and the layers that lost to it."""

    name: str
    value: str
    layer: Layer
    secret: bool
    overridden: tuple[Layer, ...] = ()

    def __str__(self) -> str:
        shown = MASK if self.secret else mask_url(self.value)
        return f"{self.name}={shown} ({self.layer})"


class Snapshot(Mapping[str, str]):
    """The environment at one moment: it never changes, so two reads of it never tear."""

    __slots__ = ("_values", "_variables")

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = MappingProxyType(dict(variables))
        self._values = {name: variable.value for name, variable in variables.items()}

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self)} variables>"

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Every variable with its origin, by name."""
        return self._variables


class IsolatedEnvironment:
    """The environment variables as one service sees them.

    Precedence: override > process > default. The process mapping is copied once; ``os.environ`` is
    never written, because C code may read it at the same time. Reads take no lock: a change
    builds a new :class:`Snapshot` and swaps one reference. An empty value is a value, and a
    deleted name is absent.

    ``service`` limits the view: names in another service's namespace are not there at all.
    """

    def __init__(
        self,
        process: Mapping[str, str],
        *,
        service: str | None = None,
        defaults: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> None:
        if service is not None and service not in SERVICES:
            raise SettingsError([f"no service {service!r}; there are {', '.join(SERVICES)}"])
        self.service = service
        others = (name for name in SERVICES if service is not None and name != service)
        self._foreign = tuple(f"{name.upper()}_" for name in others)
        self._layers: dict[Layer, dict[str, str]] = {
            "default": dict(defaults or {}),
            "process": dict(process),
            "override": dict(overrides or {}),
        }
        self._deleted: set[str] = set()
        self._writing = threading.Lock()
        self._snapshot = self._build()

    def __repr__(self) -> str:
        service = self.service or "all services"
        return f"<IsolatedEnvironment of {service}: {len(self._snapshot)} variables>"

    def __contains__(self, name: object) -> bool:
        return name in self._snapshot

    def snapshot(self) -> Snapshot:
        """The environment now. Read several names from one snapshot when they belong together."""
        return self._snapshot

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value, or ``default`` when the name is absent; an empty value is a value."""
        return self._snapshot.get(name, default)

    def require(self, *names: str) -> tuple[str, ...]:
        """The values, from one snapshot; :class:`SettingsError` names all that are absent."""
        snapshot = self._snapshot
        missing = [name for name in names if name not in snapshot]
        if missing:
            raise SettingsError([f"{name} is not set" for name in missing])
        return tuple(snapshot[name] for name in names)

    def override(self, values: Mapping[str, str]) -> None:
        """Set several names at once, above every other layer: readers see all of them or none."""

        def change() -> None:
            self._layers["override"].update(values)
            self._deleted.difference_update(values)

        self._change(change)

    def delete(self, name: str) -> None:
        """Make the name absent, whatever the layers hold."""

        def change() -> None:
            self._layers["override"].pop(name, None)
            self._deleted.add(name)

        self._change(change)

    def explain(self, name: str) -> str:
        """One redacted sentence on a name: its value, the layer that won and those that lost."""
        variable = self._snapshot.variables.get(name)
        if variable is None:
            return f"{name} is not set for {self.service or 'any service'}"
        over = f", over {', '.join(variable.overridden)}" if variable.overridden else ""
        return f"{variable}{over}"

    def child_env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Exactly what a child process should get: the machine's names and ``extra``, nothing else.

        Secrets of this process do not travel unless they are named in ``extra``.
        """
        snapshot = self._snapshot
        machine = {name: snapshot[name] for name in _MACHINE if name in snapshot}
        return {**machine, **(extra or {})}

    def redactor(self) -> Redactor:
        """A redactor that knows every secret of this environment."""
        secrets: set[str] = set()
        for variable in self._snapshot.variables.values():
            # Of a URL that is no secret only the password is: its host helps whoever reads a log.
            secrets |= {variable.value} if variable.secret else passwords_of(variable.value)
        return Redactor(secrets)

    def _change(self, change: Callable[[], None]) -> None:
        with self._writing:
            change()
            self._snapshot = self._build()

    def _build(self) -> Snapshot:
        variables: dict[str, Variable] = {}
        for layer, values in self._layers.items():
            for name, value in values.items():
                if name in self._deleted or name.startswith(self._foreign):
                    continue
                before = variables.get(name)
                variables[name] = Variable(
                    name=name,
                    value=value,
                    layer=layer,
                    secret=is_secret_name(name),
                    overridden=(*before.overridden, before.layer) if before else (),
                )
        return Snapshot(variables)

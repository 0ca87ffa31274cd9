"""UnifiedConfiguration: one process's settings, built from its environment and checked whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ssot.configuration.settings import Section, Settings
from ssot.environment import MASK, IsolatedEnvironment, is_secret_name, mask_url
from ssot.errors import SettingsError

__all__ = ["SECTIONS", "Revision", "UnifiedConfiguration", "variables"]

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "migrate": ("database",),
    "auth": ("database", "tokens", "auth"),
    "node": ("database", "redis", "tokens", "node"),
    "worker": ("database", "redis", "worker", "agents"),
}
"""The sections of :class:`Settings` that each service reads."""


class Revision(Section):
    """One consistent state of the settings: values taken from one revision belong together."""

    number: int
    settings: Settings


class UnifiedConfiguration:
    """The settings of one service.

    Precedence: default < environment < explicit override (``{"database.pool_size": 3}``). Building
    collects every problem into one :class:`SettingsError` that names the variable and where its
    value came from, and never the value of a secret.
    """

    def __init__(
        self,
        environment: IsolatedEnvironment,
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
        self._origins: dict[str, str] = {}
        self._current = Revision(number=1, settings=self._build())

    @property
    def current(self) -> Revision:
        """The newest revision: frozen, so hold on to it while its values must fit each other."""
        return self._current

    @property
    def settings(self) -> Settings:
        """The settings of the newest revision."""
        return self._current.settings

    def explain(self, path: str) -> str:
        """One redacted sentence on a setting: its value and the layer it came from."""
        node: Any = self.settings
        for name in path.split("."):
            if not isinstance(node, BaseModel) or name not in type(node).model_fields:
                raise SettingsError([f"no setting {path!r} in the {self.service} service"])
            node = getattr(node, name)
        shown = MASK if is_secret_name(path.rpartition(".")[2]) else mask_url(str(node))
        return f"{path} = {shown} ({self._origins.get(path, 'default')})"

    def _build(self) -> Settings:
        snapshot = self._environment.snapshot()
        data: dict[str, Any] = {name: {} for name in SECTIONS[self.service]}
        origins: dict[str, str] = {}
        for path, name, _ in variables(self.service):
            if name in snapshot:
                _put(data, path, snapshot[name])
                origins[path] = f"{name}, {snapshot.variables[name].layer}"
        for path, value in self._overrides.items():
            _put(data, path, value)
            origins[path] = "explicit override"
        try:
            settings = Settings.model_validate(data)
        except ValidationError as error:
            raise SettingsError(self._problems(error, origins)) from None
        self._origins = origins
        return settings

    def _problems(self, error: ValidationError, origins: Mapping[str, str]) -> list[str]:
        names = {path: name for path, name, _ in variables(self.service)}
        fields = {path: what for path, _, what in variables(self.service)}
        problems = []
        for item in error.errors(include_input=False, include_context=False):
            path = ".".join(str(part) for part in item["loc"])
            name = names.get(path, path)
            if item["type"] == "missing":
                problems.append(
                    f"{name} is not set for the {self.service} service: {fields.get(path, path)}"
                )
            else:
                message = item["msg"].removeprefix("Value error, ")
                origin = origins.get(path, "default").rpartition(", ")[2]
                problems.append(f"{name} (from the {origin}): {message}")
        return problems


def variables(service: str) -> Iterator[tuple[str, str, str]]:
    """``(path, variable, meaning)`` of every setting that a service reads, in schema order."""
    yield from _leaves(Settings, "", only=SECTIONS[service])


def _leaves(
    model: type[BaseModel], prefix: str, only: tuple[str, ...] | None = None
) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict):
            yield f"{prefix}{name}", str(extra["variable"]), field.description or ""
        elif only is None or name in only:
            kinds = [field.annotation, *get_args(field.annotation)]
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    yield from _leaves(kind, f"{prefix}{name}.")


def _put(data: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        data = data.setdefault(section, {})
    data[name] = value

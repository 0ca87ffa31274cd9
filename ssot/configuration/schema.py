"""The schema of the settings as data: which variable each is read from, and by which service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, SecretStr

from ssot.configuration.settings import Settings, name_in
from ssot.environment import KINDS, Kind

__all__ = ["SECTIONS", "Field", "fields", "readers", "secrecy", "test_defaults"]

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "migrate": ("database",),
    "auth": ("database", "tokens", "auth", "oauth"),
    "worker": ("database", "redis", "worker", "agents"),
    "node": ("database", "redis", "tokens", "node"),
}
"""The sections of :class:`Settings` that each service reads; services in the order of a start."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of the schema.

    ``own`` is what a service appends to its prefix for a name that wins over the shared one; which
    of them it was, is in the field ``<name>_variable`` beside it.
    ``by_environment`` appends the environment to the name, so that the credentials of two
    environments cannot collide. ``test`` is its default in the environment ``test``.
    """

    path: str
    variable: str
    meaning: str
    secret: bool
    own: str | None = None
    by_environment: bool = False
    test: str | None = None

    @property
    def shown(self) -> str:
        """The name of the variable as documentation tells it."""
        return f"{self.variable}_<ENVIRONMENT>" if self.by_environment else self.variable

    def names(self, service: str, kind: Kind) -> tuple[str, ...]:
        """The variables that a service reads it from in an environment; the first one set wins."""
        if self.by_environment:
            return (name_in(kind, self.variable),)
        if self.own is not None:
            return (f"{service.upper()}_{self.own}", self.variable)
        return (self.variable,)

    def all_names(self) -> Iterator[str]:
        """Every name that it may be read from, by any service in any environment."""
        for service in SECTIONS:
            for kind in KINDS:
                yield from self.names(service, kind)


def fields(service: str) -> Iterator[Field]:
    """Every setting that a service reads, in schema order."""
    yield from _leaves(Settings, "", only=SECTIONS[service])


def readers(path: str) -> tuple[str, ...]:
    """The services that read a setting."""
    return tuple(
        service for service in SECTIONS if any(field.path == path for field in fields(service))
    )


def secrecy() -> dict[str, bool]:
    """Of every variable of the schema whether it is secret: by its type, whatever its name is."""
    return {
        name: field.secret
        for service in SECTIONS
        for field in fields(service)
        for name in field.all_names()
    }


def test_defaults(service: str) -> dict[str, str]:
    """What a service's variables are in the environment ``test`` when nobody sets them."""
    return {
        field.names(service, "test")[0]: field.test
        for field in fields(service)
        if field.test is not None
    }


def _leaves(
    model: type[BaseModel], prefix: str, only: tuple[str, ...] | None = None
) -> Iterator[Field]:
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        kinds: list[Any] = [field.annotation, *get_args(field.annotation)]
        if isinstance(extra, dict):
            given: dict[str, Any] = dict(extra)
            yield Field(
                path=f"{prefix}{name}",
                meaning=field.description or "",
                secret=SecretStr in kinds,
                **given,
            )
        elif only is None or name in only:
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    yield from _leaves(kind, f"{prefix}{name}.")

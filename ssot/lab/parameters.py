"""The parameters of a notebook, checked before anything is started."""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ssot.environment import is_secret_name
from ssot.errors import SettingsError
from ssot.lab.syntax import parse

__all__ = ["COMMON", "PREFIX", "check_parameters", "injected_names", "overrides"]

PREFIX = "SSOT_LAB_"
"""``SSOT_LAB_USERS=32`` sets the parameter ``users`` where papermill does not, as under nbval."""

COMMON = ("users", "seed", "services", "latency_ms")
"""The parameters that every notebook has."""

_SERVICES = ("embedded", "compose", "url")
_LIMITS: Mapping[str, tuple[float, float]] = {
    "users": (2, 1000),
    "seed": (0, 2**63 - 1),
    "latency_ms": (0, 2000),
    # Two that race cannot always tell one that builds for both from two that build.
    "threads": (3, 256),
}


def injected_names(cells: Iterable[str]) -> set[str]:
    """The names that papermill's injected cells assign; ``cells`` are the sources run so far."""
    names: set[str] = set()
    for source in cells:
        if source.startswith("# Parameters\n"):
            for statement in parse(source).body:
                if isinstance(statement, ast.Assign):
                    names |= {t.id for t in statement.targets if isinstance(t, ast.Name)}
    return names


def overrides(given: Mapping[str, Any], injected: Iterable[str]) -> dict[str, Any]:
    """Values from ``SSOT_LAB_…`` for parameters that papermill did not set."""
    found: dict[str, Any] = {}
    kept = set(injected)
    for name, default in given.items():
        text = os.environ.get(f"{PREFIX}{name.upper()}")
        if text is not None and name not in kept:
            found[name] = _read(text, default)
    return found


def check_parameters(given: Mapping[str, Any], injected: Iterable[str]) -> None:
    """Raise :class:`SettingsError` with every unknown, ill-typed or impossible parameter."""
    problems = []
    for name in sorted(set(injected) - set(given)):
        near = difflib.get_close_matches(name, given, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(given)}"
        problems.append(f"unknown parameter {name}: {hint}")
    for name, value in given.items():
        if name == "services":
            if value not in _SERVICES:
                problems.append(f"services must be one of {', '.join(_SERVICES)}, not {value!r}")
        elif is_secret_name(name):
            if not isinstance(value, str):
                problems.append(f"{name} must be a text, not {type(value).__name__}")
        elif isinstance(value, bool) or not isinstance(value, int):
            problems.append(
                f"{name} must be a whole number, not {value!r} ({type(value).__name__})"
            )
        elif name in _LIMITS and not _LIMITS[name][0] <= value <= _LIMITS[name][1]:
            low, high = _LIMITS[name]
            problems.append(f"{name} must be from {low:g} to {high:g}, not {value}")
    if problems:
        raise SettingsError(problems)


def _read(text: str, default: Any) -> Any:
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            return text
    return text

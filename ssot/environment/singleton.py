"""The one environment of a process, whoever asks for it first."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ssot.environment.isolated import IsolatedEnvironment
from ssot.environment.locks import ForkSafeLock
from ssot.errors import SettingsError

__all__ = ["Singleton", "process_environment"]


class Singleton:
    """Builds one environment at the first call and hands out the same one ever after.

    Safe against racing first calls: one of them builds, the others wait for it. When building
    raises, that caller has the error, and the next call tries again. ``options`` belong to the
    first call; a later one may repeat them or leave them out, others are refused. A forked child
    has the environment of its parent as it was, and may change its own.
    """

    def __init__(self, build: Callable[..., IsolatedEnvironment]) -> None:
        self._build = build
        self._built: tuple[IsolatedEnvironment, dict[str, Any]] | None = None
        self._lock = ForkSafeLock()

    def __call__(self, **options: Any) -> IsolatedEnvironment:
        """The environment; built by this call when there is none yet."""
        built = self._built
        if built is None:
            with self._lock:
                if self._built is None:
                    self._built = (self._build(**options), options)
                built = self._built
        environment, first = built
        if different := [name for name, value in options.items() if first.get(name) != value]:
            raise SettingsError(
                [
                    f"the environment of this process has been built with another "
                    f"{', '.join(different)}; use an overlay for a view of your own"
                ]
            )
        return environment


process_environment = Singleton(lambda **options: IsolatedEnvironment.load(os.environ, **options))
"""The environment of this process: ``process_environment(service="node")``."""

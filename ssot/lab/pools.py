"""A pool of connections in the notebook's process, wired to its environment as a worker's is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ssot.configuration import UnifiedConfiguration
from ssot.database import DatabaseManager
from ssot.environment import IsolatedEnvironment, Overlay
from ssot.live import LiveChanges
from ssot.tracing import continuing

__all__ = ["live_pool"]


@asynccontextmanager
async def live_pool(
    environment: IsolatedEnvironment | Overlay, service: str, name: str
) -> AsyncIterator[tuple[DatabaseManager, LiveChanges]]:
    """The pool that ``service`` would have with this environment, and what brings it changes.

    PostgreSQL knows its sessions by ``name``. A change of the environment that is valid for the
    service is applied to the pool; await ``changes.applied()`` to be sure of it. An overlay is read
    once, for the task that it is made for. The spans of the pool continue those of its settings.

    :raises SettingsError: when the service could not start with this environment.
    """
    configuration = UnifiedConfiguration(environment, service)
    with continuing(configuration.trace):
        pool = DatabaseManager(configuration.settings.database, name=name)
        async with pool, LiveChanges(configuration) as changes:
            changes.on(lambda settings: pool.reconfigure(settings.database), "database")
            if isinstance(environment, IsolatedEnvironment):
                configuration.follow(environment)
            yield pool, changes

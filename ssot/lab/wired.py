"""What a process of the platform wires to its environment, in the notebook's process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ssot.auth.jwks import TokenVerifier
from ssot.configuration import UnifiedConfiguration
from ssot.database import DatabaseManager
from ssot.environment import IsolatedEnvironment, Overlay
from ssot.live import LiveChanges
from ssot.tracing import continuing

__all__ = ["live_pool", "token_verifier"]


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


@asynccontextmanager
async def token_verifier(
    environment: IsolatedEnvironment | Overlay,
) -> AsyncIterator[TokenVerifier]:
    """What a node checks tokens with, made of this environment as it is at this moment.

    Its spans continue those of its settings.

    :raises SettingsError: when a node could not start with this environment.
    """
    configuration = UnifiedConfiguration(environment, "node")
    node, tokens = configuration.settings.node, configuration.settings.tokens
    # A node without these is refused.
    assert node is not None
    assert tokens is not None
    with continuing(configuration.trace):
        async with TokenVerifier(node.auth_url, tokens) as verifier:
            yield verifier

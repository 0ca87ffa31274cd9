"""Building a role: the one module that knows all components and hands each what it needs.

Start-up, step by step, the same for every role; shutdown is the exact reverse:

1. environment: one snapshot of the process's variables, limited to the service's namespace
2. configuration: the typed settings, checked whole; every problem is told at once
3. database: the pool, and the schema version that this code needs (waited for, if it is older)
4. streams: Redis, with the epoch of this boot of the server verified
5. the role itself: the auth service, a WebSocket node, or a worker
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from ssot.configuration import UnifiedConfiguration
from ssot.database import DatabaseManager, RunRecords
from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError
from ssot.health import Health, merge
from ssot.streams import CommandStream, EventLog, EventWriter, Leases, RedisClient, Subscriber

__all__ = ["ROLES", "Role", "open_role"]

_log = logging.getLogger(__name__)

_SCHEMA_DEADLINE = 60.0

ROLES = ("migrate", "auth", "worker", "node")
"""The roles, in the order in which they start."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role that is up.

    ``address`` is where it listens (``None`` for a worker). ``failed`` waits until it cannot go on
    and raises why; for ever while it goes well.
    """

    name: str
    address: str | None
    health: Callable[[], Awaitable[Health]]
    failed: Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_role(name: str, environment: IsolatedEnvironment) -> AsyncIterator[Role]:
    """Bring a role up and yield it; leaving stops it, in the reverse order.

    Raises :class:`SettingsError` before anything is opened when the environment is wrong.
    """
    variables = len(environment.snapshot())
    _log.info("1/5 environment: %d variables in the view of %s", variables, name)
    configuration = UnifiedConfiguration(environment, name)
    _log.info("2/5 configuration: revision %d", configuration.current.number)
    builders = {"auth": _auth, "node": _node, "worker": _worker}
    if name not in builders:
        raise SettingsError([f"no role {name!r}; there are {', '.join(ROLES)}"])
    async with AsyncExitStack() as stack:
        stack.callback(_log.info, "%s: stopped", name)
        database = DatabaseManager(
            configuration.settings.database, name=f"ssot-{configuration.service}"
        )
        await stack.enter_async_context(database)
        await database.wait_for_schema(deadline=_SCHEMA_DEADLINE)
        _log.info("3/5 database: connected, the schema fits")
        role = await builders[name](configuration, database, stack)
        _log.info("5/5 %s: up%s", name, f" at {role.address}" if role.address else "")
        try:
            yield role
        finally:
            _log.info("%s: stopping", name)


async def _auth(
    configuration: UnifiedConfiguration, database: DatabaseManager, stack: AsyncExitStack
) -> Role:
    # Imported here: a node or a worker does not pay for an HTTP server.
    from ssot.auth.accounts import Accounts
    from ssot.auth.keys import SigningKey
    from ssot.auth.service import auth_app

    settings = configuration.settings
    assert settings.auth is not None
    assert settings.tokens is not None
    _log.info("4/5 streams: not used by the auth service")
    app = auth_app(
        database=database,
        accounts=Accounts(database, scrypt_log_n=settings.auth.scrypt_log_n),
        key=SigningKey(settings.auth.signing_key.get_secret_value()),
        tokens=settings.tokens,
        access_ttl=settings.auth.access_ttl,
    )
    address, failed = await stack.enter_async_context(
        _http(app, settings.auth.host, settings.auth.port, "AUTH_PORT")
    )
    return Role("auth", address, database.health, failed)


async def _node(
    configuration: UnifiedConfiguration, database: DatabaseManager, stack: AsyncExitStack
) -> Role:
    from ssot.auth.jwks import TokenVerifier
    from ssot.websocket.node import Node

    settings = configuration.settings
    assert settings.node is not None
    assert settings.tokens is not None
    client = await _streams(configuration, stack)
    log = EventLog(client)
    subscriber = await stack.enter_async_context(
        Subscriber(client, log, ping_interval=settings.node.ping_interval)
    )
    verifier = await stack.enter_async_context(
        TokenVerifier(settings.node.auth_url, settings.tokens)
    )
    node = Node(
        settings.node,
        source=_EventSource(log, subscriber),
        commands=CommandStream(client),
        runs=RunRecords(database),
        verifier=verifier,
        health=lambda: _health("node", database, client),
    )
    with _naming_port(settings.node.host, settings.node.port, "NODE_PORT"):
        await stack.enter_async_context(node)
    return Role("node", node.address, lambda: _health("node", database, client), _for_ever)


async def _worker(
    configuration: UnifiedConfiguration, database: DatabaseManager, stack: AsyncExitStack
) -> Role:
    from ssot.agents.engine import ExecutionEngine
    from ssot.agents.registry import AgentRegistry
    from ssot.agents.usage import UsageAnalysis
    from ssot.agents.worker import Worker

    settings = configuration.settings
    assert settings.worker is not None
    assert settings.agents is not None
    client = await _streams(configuration, stack)
    writer = await stack.enter_async_context(EventWriter(EventLog(client)))
    registry = AgentRegistry()
    registry.register("usage_analysis", UsageAnalysis)
    worker = Worker(
        commands=CommandStream(client),
        leases=Leases(client, ttl=settings.worker.lease_ttl),
        sinks=writer,
        engine=ExecutionEngine(
            registry,
            runs=RunRecords(database),
            transactions=database,
            settings=settings.agents,
        ),
        settings=settings.worker,
    )
    await stack.enter_async_context(worker)
    return Role("worker", None, lambda: _health("worker", database, client), worker.failed)


async def _streams(configuration: UnifiedConfiguration, stack: AsyncExitStack) -> RedisClient:
    settings = configuration.settings.redis
    assert settings is not None
    client = RedisClient(settings, name=f"ssot-{configuration.service}")
    stack.push_async_callback(client.aclose)
    await client.open()
    _log.info("4/5 streams: connected, epoch %d", client.epoch)
    return client


async def _health(name: str, database: DatabaseManager, client: RedisClient) -> Health:
    return merge(name, await asyncio.gather(database.health(), client.health()))


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


class _EventSource:
    """The log and its live channel as one thing, which is what a node follows."""

    def __init__(self, log: EventLog, subscriber: Subscriber) -> None:
        self.bounds = log.bounds
        self.read = log.read
        self.subscribe = subscriber.subscribe
        self.unsubscribe = subscriber.unsubscribe


@asynccontextmanager
async def _http(
    app: object, host: str, port: int, variable: str
) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """Serve an ASGI application; yields its address."""
    import uvicorn

    class Server(uvicorn.Server):
        # Signals belong to `ssot.serve`; uvicorn would take them over and raise them again.
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    with _naming_port(host, port, variable):
        listener = socket.create_server((host, port))
    address = f"http://{host}:{listener.getsockname()[1]}"
    server = Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")

    async def failed() -> None:
        await asyncio.shield(serving)

    try:
        yield address, failed
    finally:
        server.should_exit = True
        await serving
        listener.close()


@contextlib.contextmanager
def _naming_port(host: str, port: int, variable: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(
            [
                f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0).lower()}; "
                f"choose another {variable}, or 0 for any free one"
            ]
        ) from None

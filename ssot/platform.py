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
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from ssot.configuration import SECTIONS, AgentSettings, UnifiedConfiguration, WorkerSettings
from ssot.database import DatabaseManager, RunRecords
from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError
from ssot.health import Health, merge
from ssot.live import LiveChanges
from ssot.streams import CommandStream, EventLog, EventWriter, Leases, RedisClient, Subscriber
from ssot.tracing import Spans, apart, continuing, trace_of

__all__ = ["ROLES", "Role", "open_role"]

_log = logging.getLogger(__name__)
_spans = Spans("platform")

_SCHEMA_DEADLINE = 60.0

ROLES = tuple(SECTIONS)
"""The roles, in the order in which they start."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role that is up.

    ``address`` is where it listens (``None`` for a worker). ``failed`` waits until it cannot go on
    and raises why; for ever while it goes well. ``changes`` bring changed settings to what runs.
    """

    name: str
    address: str | None
    health: Callable[[], Awaitable[Health]]
    failed: Callable[[], Awaitable[None]]
    changes: LiveChanges


@asynccontextmanager
async def open_role(name: str, environment: IsolatedEnvironment) -> AsyncIterator[Role]:
    """Bring a role up and yield it; leaving stops it, in the reverse order.

    Raises :class:`SettingsError` before anything is opened when the environment is wrong.
    """
    async with AsyncExitStack() as stack:
        # Not current: what is opened stays open long after the start.
        with _spans.span(
            "platform.start", parent=environment.snapshot().trace or None, current=False, role=name
        ) as span:
            role = await _start(name, environment, stack, trace_of(span))
        try:
            yield role
        finally:
            _log.info("%s: stopping", name)


async def _start(
    name: str, environment: IsolatedEnvironment, stack: AsyncExitStack, trace: str
) -> Role:
    variables = len(environment.snapshot())
    _log.info("1/5 environment: %d variables in the view of %s", variables, name)
    with continuing(trace):
        configuration = UnifiedConfiguration(environment, name)
    _log.info("2/5 configuration: revision %d", configuration.current.number)
    builders = {"auth": _auth, "node": _node, "worker": _worker}
    if name not in builders:
        raise SettingsError([f"no role {name!r}; there are {', '.join(ROLES)}"])
    stack.callback(_log.info, "%s: stopped", name)
    # Everything below is opened because of these settings.
    with continuing(configuration.trace):
        database = DatabaseManager(
            configuration.settings.database, name=f"ssot-{configuration.service}"
        )
        await stack.enter_async_context(database)
        await database.wait_for_schema(deadline=_SCHEMA_DEADLINE)
        _log.info("3/5 database: connected, the schema fits")
        changes = await stack.enter_async_context(LiveChanges(configuration))
        changes.on(lambda settings: database.reconfigure(settings.database), "database")
        role = await builders[name](configuration, database, stack, changes)
    configuration.follow(environment)
    _log.info("5/5 %s: up%s", name, f" at {role.address}" if role.address else "")
    return role


async def _auth(
    configuration: UnifiedConfiguration,
    database: DatabaseManager,
    stack: AsyncExitStack,
    changes: LiveChanges,
) -> Role:
    # Imported here: a node or a worker does not pay for an HTTP server.
    from ssot.auth.service import AuthService

    settings = configuration.settings
    assert settings.auth is not None
    _log.info("4/5 streams: not used by the auth service")
    service = await stack.enter_async_context(AuthService(database=database, settings=settings))
    changes.on(service.apply, "auth.signing_key", "auth.access_ttl", "oauth")
    address, failed = await stack.enter_async_context(
        _http(service.app, settings.auth.host, settings.auth.port, prefix="AUTH")
    )
    return Role("auth", address, database.health, failed, changes)


async def _node(
    configuration: UnifiedConfiguration,
    database: DatabaseManager,
    stack: AsyncExitStack,
    changes: LiveChanges,
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
    with _naming_what_to_change(settings.node.host, settings.node.port, prefix="NODE"):
        await stack.enter_async_context(node)
    return Role("node", node.address, lambda: _health("node", database, client), _for_ever, changes)


async def _worker(
    configuration: UnifiedConfiguration,
    database: DatabaseManager,
    stack: AsyncExitStack,
    changes: LiveChanges,
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
    engine = ExecutionEngine(
        registry, runs=RunRecords(database), transactions=database, settings=settings.agents
    )
    worker = Worker(
        commands=CommandStream(client),
        leases=Leases(client, ttl=settings.worker.lease_ttl),
        sinks=writer,
        engine=engine,
        settings=settings.worker,
    )
    changes.on(lambda new: engine.apply(new.agents or AgentSettings()), "agents")
    changes.on(
        lambda new: worker.apply(new.worker or WorkerSettings()),
        "worker.max_claims",
        "worker.drain_timeout",
    )
    await stack.enter_async_context(worker)
    return Role("worker", None, lambda: _health("worker", database, client), worker.failed, changes)


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
    app: object, host: str, port: int, *, prefix: str
) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """Serve an ASGI application; yields its address."""
    import uvicorn

    class Server(uvicorn.Server):
        # Signals belong to `ssot.serve`; uvicorn would take them over and raise them again.
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    with _naming_what_to_change(host, port, prefix=prefix):
        listener = socket.create_server((host, port), family=_family(host))
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    server = Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
    )
    with apart():
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")

    async def failed() -> None:
        await asyncio.shield(serving)

    try:
        yield address, failed
    finally:
        server.should_exit = True
        await serving
        listener.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextlib.contextmanager
def _naming_what_to_change(host: str, port: int, *, prefix: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number == errno.EADDRNOTAVAIL:
            why = f"this machine has no such address; choose another {prefix}_HOST"
        elif isinstance(error, socket.gaierror) or number < 0:  # a resolver's own numbers
            why = f"the name is that of no address here; choose another {prefix}_HOST"
        else:
            why = os.strerror(number).lower()
            why += f"; choose another {prefix}_PORT, or 0 for any free one"
        raise SettingsError([f"cannot listen on {host}:{port}: {why}"]) from None

"""The lab: the platform's real processes on real servers, and everything a check calls.

It sets scenes and watches; it never asserts what a check claims.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import secrets
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from ssot.auth.client import AuthClient
from ssot.configuration import DatabaseSettings
from ssot.database import DatabaseManager, LlmUsage
from ssot.environment import Redactor
from ssot.events import Position
from ssot.lab.asserts import RewriteAsserts, Seen
from ssot.lab.checks import Check, Unexpected, Unknown
from ssot.lab.parameters import check_parameters, injected_names, overrides
from ssot.lab.processes import Process
from ssot.lab.services import PostgresServer, RedisServer, ServiceError, Services, Workspace
from ssot.lab.site import Site
from ssot.lab.tables import Table
from ssot.lab.timeline import Timeline
from ssot.lab.users import LabClient, User, usage_rows
from ssot.websocket.client import Client
from ssot.websocket.protocol import BEARER, SUBPROTOCOL

__all__ = ["Lab", "Raised", "open_lab"]

E = TypeVar("E", bound=Exception)

DEADLINE = 30.0
"""Seconds that a check may take; most take less than one."""

_USAGE_ROWS = 40
_LOG_LINES = 25


async def open_lab(
    notebook: str, *, users: int, seed: int, services: str, latency_ms: int, **own: Any
) -> Lab:
    """Start everything that the checks of a notebook need, and return it. The setup cell calls it.

    ``users``, ``seed``, ``services``, ``latency_ms`` and the notebook's ``own`` parameters are
    checked first: :class:`~ssot.errors.SettingsError` names every bad one before anything is
    started. A lab that an earlier run of the cell opened is closed. When the kernel ends, however
    it ends, nothing of the lab stays behind.
    """
    global _open
    shell = _shell()
    given = {"users": users, "seed": seed, "services": services, "latency_ms": latency_ms, **own}
    injected = injected_names(shell.user_ns.get("In", ())) if shell else set()
    changed = overrides(given, injected)
    given.update(changed)
    check_parameters(given, injected)
    if shell is not None:
        # The cells below read the parameters by their own names.
        shell.user_ns.update(changed)
    if _open is not None:
        await _open.aclose()
    lab = Lab(notebook, parameters=given)
    _open = lab
    try:
        await lab.open()
    except BaseException:
        await lab.aclose()
        raise
    if shell is not None:
        lab.attach(shell)
    sys.stdout.write("PostgreSQL, Redis, auth, worker a and node a are up\n")
    return lab


_open: Lab | None = None


class Raised(Generic[E]):
    """What :meth:`Lab.raises` caught."""

    value: E


class Lab:
    """One notebook's lab. See the sections of this class for what a check may call.

    ``postgres`` and ``redis`` are the servers, ``auth``, ``workers`` and ``nodes`` the processes of
    the platform (``lab.nodes["a"]``), ``database`` is the lab's own access as an application role.
    """

    auth: Process
    database: DatabaseManager

    def __init__(self, notebook: str, *, parameters: Mapping[str, Any]) -> None:
        self.notebook = notebook
        self.parameters = dict(parameters)
        self.seed = int(parameters["seed"])
        self.workers: dict[str, Process] = {}
        self.nodes: dict[str, Process] = {}
        self._verdicts: dict[str, str] = {}
        self._stack = AsyncExitStack()
        self._scope = AsyncExitStack()
        self._timeline = Timeline()
        self._unexpected = _Unexpected()
        self._clients: list[LabClient] = []
        self._secrets: set[str] = set()
        self._site: Site | None = None
        self._began = time.monotonic()
        self._marks: dict[str, int] = {}

    def __repr__(self) -> str:
        processes = ", ".join(p.name for p in self._processes() if p.running)
        return f"<lab of {self.notebook}: PostgreSQL, Redis, {processes or 'no process'}>"

    # Opening and closing

    async def open(self) -> None:
        """Start the servers, then the platform: migration, auth, worker and node at once."""
        workspace = await self._stack.enter_async_context(Workspace.open(self.notebook))
        _remove_connection_file(workspace)
        self._site = site = await Site.open(
            workspace,
            services=self.parameters["services"],
            latency=self.parameters["latency_ms"] / 1000,
            stack=self._stack,
        )
        self._secrets = set(site.secrets)
        self.database = await self._stack.enter_async_context(
            DatabaseManager(
                DatabaseSettings.model_validate({"url": site.direct_urls["app_b"], "pool_size": 4}),
                name="ssot-lab",
            )
        )
        self._stack.push_async_callback(self._close_scope)
        self.auth = self.process("auth", "auth", self.environment("auth"))
        self.workers["a"] = self.process("worker", "worker a", self.environment("worker"))
        self.nodes["a"] = self.process("node", "node a", self.environment("node"))
        # All at once: each waits until the schema is there, and none needs another to come up.
        await _all_of(
            site.migrate(),
            *(process.start() for process in self._processes()),
        )

    def attach(self, shell: Any) -> None:
        """Make the notebook's assertions show their values, and watch its logs and warnings."""
        shell.ast_transformers[:] = [
            t for t in shell.ast_transformers if not isinstance(t, RewriteAsserts)
        ] + [RewriteAsserts()]
        shell.user_ns[RewriteAsserts.name] = Seen
        self._unexpected.attach()

    async def aclose(self) -> None:
        """Stop everything and remove everything. Idempotent."""
        self._unexpected.detach()
        await self._stack.aclose()

    # The servers and processes

    @property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL server; :class:`Unknown` when it was not started by the lab."""
        return self._controllable().postgres

    @property
    def redis(self) -> RedisServer:
        """The Redis or Valkey server; :class:`Unknown` when it was not started by the lab."""
        return self._controllable().redis

    @property
    def database_urls(self) -> Mapping[str, str]:
        """A URL for each login role: ``owner``, ``app_a``, ``app_b``, ``auth``, ``relay``."""
        return self._at.urls

    @property
    def redis_url(self) -> str:
        """The URL of Redis as the platform uses it."""
        return self._at.redis_url

    @property
    def signing_key(self) -> str:
        """The private key that the auth service signs with."""
        return self._at.signing_key

    def process(self, role: str, name: str, environment: Mapping[str, str]) -> Process:
        """A process that is not started yet, with exactly this environment."""
        return Process(
            role,
            name,
            workspace=self._at.workspace,
            environment=environment,
            timeline=self._timeline,
        )

    async def start_worker(self, name: str) -> Process:
        """Another worker, ended with the check."""
        return await self._start_in_scope("worker", name, self.workers)

    async def start_node(self, name: str) -> Process:
        """Another node, ended with the check."""
        return await self._start_in_scope("node", name, self.nodes)

    def environment(self, role: str) -> dict[str, str]:
        """Exactly the environment variables that a process of this role is given."""
        return self._at.environment(role)

    # Users

    async def user(self, name: str, *, rows: int = _USAGE_ROWS) -> User:
        """A fresh account, logged in, with ``rows`` of usage drawn from the seed.

        The login name is unique, so that a check can be run any number of times.
        """
        login = f"{name}-{secrets.token_hex(4)}"
        password = secrets.token_urlsafe(16)
        self._secrets.add(password)
        async with self.auth_client() as auth:
            user_id = await auth.create_account(login, password)
            token = (await auth.login(login, password)).access_token
        self._secrets.add(token)
        randomness = random.Random(f"{self.seed} {name}")  # noqa: S311
        usage = usage_rows(user_id, count=rows, randomness=randomness)
        user = User(name, login, user_id, password, token, usage)

        async def body(session: AsyncSession) -> None:
            await session.execute(insert(LlmUsage), list(usage))

        if usage:
            await self.database.run_transaction(user.context, body, key="usage")
        return user

    async def client(
        self,
        who: str | User,
        *,
        node: str = "a",
        after: Position | None = None,
        token: str | None = None,
    ) -> LabClient:
        """A connected client of a user: a fresh one by name, or one that exists.

        Closed when the next check begins, or with this one when it passes.
        """
        user = who if isinstance(who, User) else await self.user(who)
        address = await self._at.slowed(str(self.nodes[node].address))
        client = LabClient(
            user, Client([address], token=token or user.token, after=after), self._timeline
        )
        await client.open()
        self._scope.push_async_callback(client.aclose)
        self._clients.append(client)
        return client

    async def clients(self, count: int) -> list[LabClient]:
        """``count`` fresh users at once, each with a client."""
        names = [f"user-{number}" for number in range(1, count + 1)]
        return list(await asyncio.gather(*(self.client(name) for name in names)))

    def auth_client(self) -> AuthClient:
        """HTTP to the auth service."""
        return AuthClient(str(self.auth.address))

    @asynccontextmanager
    async def socket(self, user: User, *, node: str = "a") -> AsyncIterator[ClientConnection]:
        """A bare WebSocket of a user, welcomed already: the protocol without our client."""
        address = await self._at.slowed(str(self.nodes[node].address))
        protocols = [Subprotocol(SUBPROTOCOL), Subprotocol(f"{BEARER}{user.token}")]
        async with connect(f"{address}/events", subprotocols=protocols, proxy=None) as socket:
            await socket.recv()
            yield socket

    # Looking and holding

    @contextlib.contextmanager
    def raises(self, kind: type[E]) -> Iterator[Raised[E]]:
        """Expect an error of this kind; ``value`` holds it afterwards. None is a failure."""
        raised: Raised[E] = Raised()
        try:
            yield raised
        except kind as error:
            raised.value = error
            self._timeline.record("lab", f"expected: {error}")
        else:
            raise AssertionError(f"no {kind.__name__} was raised")

    def wrong_password(self, url: str) -> str:
        """The URL with another password; :class:`Unknown` when the server asks for none."""
        parts = urlsplit(url)
        if not parts.password:
            raise Unknown(f"this {parts.scheme} server asks for no password")
        who = parts.netloc.replace(f":{parts.password}@", ":wrong-password@")
        return urlunsplit(parts._replace(netloc=who))

    async def rows(
        self, query: str, *, user: User | None = None, role: str = "app_b", **parameters: Any
    ) -> list[dict[str, Any]]:
        """Rows of a query as the server shows them to this login role and user."""
        if role == "app_b":
            return await self._rows(self.database, query, user, parameters)
        async with DatabaseManager(
            DatabaseSettings.model_validate({"url": self._at.urls[role], "pool_size": 1}),
            name="ssot-lab",
        ) as database:
            return await self._rows(database, query, user, parameters)

    @asynccontextmanager
    async def locked(self, table: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Hold a table locked, so that whoever reads it waits: a run stands still at its tool.

        Yields a function that lets go early. The lock also ends with the server.
        """
        held = AsyncExitStack()
        manager = DatabaseManager(
            DatabaseSettings.model_validate({"url": self._at.urls["owner"], "pool_size": 1}),
            name="ssot-lab-lock",
        )
        async with manager:
            session = await held.enter_async_context(manager.session(None))
            await session.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            self._timeline.record("lab", f"locks {table}")

            async def release() -> None:
                # The server may have been killed meanwhile, and the lock with it.
                with contextlib.suppress(Exception):
                    await held.aclose()

            try:
                yield release
            finally:
                await release()

    def timeline(self) -> None:
        """Print what has happened since the last check began."""
        sys.stdout.write(self.redact(self._timeline.text(self._began)) + "\n")

    def logs(self) -> None:
        """Print what servers and processes have logged since the last check began."""
        sys.stdout.write(self._logs() + "\n")

    async def statistics(self) -> Table:
        """What is open now: clients, and the servers' own view of their connections."""
        rows: list[tuple[str, str, str]] = []
        for client in self._clients:
            values = dataclasses.asdict(client.statistics())
            rows.append(("client", client.user.name, _pairs(values)))
        rows += [
            (process.role, process.name, "running" if process.running else "not running")
            for process in self._processes()
        ]
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2):
                found = await self.rows(
                    "SELECT application_name AS name, count(*) AS connections, "
                    "count(*) FILTER (WHERE state = 'active') AS active FROM pg_stat_activity "
                    "WHERE datname = current_database() GROUP BY 1 ORDER BY 1"
                )
                rows += [("postgresql", row.pop("name"), _pairs(row)) for row in found]
        return Table(("what", "name", "state"), rows)

    # Checks

    def check(self, check_id: str, title: str, *, deadline: float = DEADLINE) -> Check:
        """The scope of one check; see :class:`ssot.lab.checks.Check`."""

        async def begin() -> None:
            self._verdicts[check_id] = "FAIL"
            await self._close_scope()
            await self._heal()
            self._began = time.monotonic()
            self._marks = {name: source.log_position() for name, source in self._logged().items()}
            self._unexpected.clear()
            self._timeline.record("lab", f"{check_id} begins")

        async def end() -> None:
            await self._close_scope()
            await self._heal()
            found = self._unexpected.take()
            if found:
                raise Unexpected(self.redact("\n".join(found)))
            self._verdicts[check_id] = "PASS"

        async def report(error: BaseException) -> str:
            return self.redact(await self._report(check_id, error))

        return Check(
            check_id,
            title,
            deadline=deadline,
            begin=begin,
            end=end,
            report=report,
            display=_display,
        )

    def summary(
        self,
        areas: Mapping[str, Sequence[str]],
        *,
        incidents: Mapping[str, Sequence[int]] | None = None,
        not_shown: Sequence[str] = (),
    ) -> None:
        """Show the last table of a notebook: area, incidents, checks and their verdicts."""
        rows = []
        for area, check_ids in areas.items():
            for check_id in check_ids:
                told = ", ".join(str(number) for number in (incidents or {}).get(check_id, ()))
                rows.append((area, check_id, told, self._verdicts.get(check_id, "not run")))
        _display(Table(("area", "check", "incident", "verdict"), rows))
        if not_shown:
            sys.stdout.write("Not shown here:\n" + "".join(f"  - {item}\n" for item in not_shown))

    def redact(self, text: str) -> str:
        """The text without any secret of this lab."""
        return Redactor(self._secrets)(text)

    # Inside

    @property
    def _at(self) -> Site:
        if self._site is None:
            raise ServiceError("the lab is not open; run the setup cell")
        return self._site

    def _controllable(self) -> Services:
        if "kill" not in self._at.services.capabilities:
            raise Unknown(f"servers of kind {self._at.services.kind!r} cannot be killed by the lab")
        return self._at.services

    async def _start_in_scope(self, role: str, name: str, group: dict[str, Process]) -> Process:
        process = self.process(role, f"{role} {name}", self.environment(role))
        group[name] = process

        async def end() -> None:
            del group[name]
            await process.kill()

        self._scope.push_async_callback(end)
        await process.start()
        return process

    def _processes(self) -> list[Process]:
        auth = [self.auth] if hasattr(self, "auth") else []
        return [*auth, *self.workers.values(), *self.nodes.values()]

    async def _close_scope(self) -> None:
        self._clients.clear()
        scope, self._scope = self._scope, AsyncExitStack()
        await scope.aclose()

    async def _heal(self) -> None:
        """Bring back what a check has killed, and wait until it works."""
        if "kill" in self._at.services.capabilities:
            for server in (self._at.services.postgres, self._at.services.redis):
                if not server.running:
                    await server.restart()
        for process in self._processes():
            if not process.running:
                await process.start()

    async def _rows(
        self,
        database: DatabaseManager,
        query: str,
        user: User | None,
        parameters: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        async def body(session: AsyncSession) -> list[dict[str, Any]]:
            rows = await session.execute(text(query), dict(parameters))
            return [dict(row) for row in rows.mappings()]

        return await database.run_transaction(user.context if user else None, body)

    def _logged(self) -> dict[str, Any]:
        servers = {"postgresql": self._at.services.postgres, "redis": self._at.services.redis}
        return {**servers, **{process.name: process for process in self._processes()}}

    def _logs(self) -> str:
        lines = [
            f"{name:<11} | {line}"
            for name, source in self._logged().items()
            for line in source.log_lines(self._marks.get(name, 0))[-_LOG_LINES:]
        ]
        return self.redact("\n".join(lines) or "nothing was logged")

    async def _report(self, check_id: str, error: BaseException) -> str:
        kind = type(error).__name__
        command = " ".join(
            [f"ssot run {self.notebook} --only {check_id}"]
            + [f"-p {name} {value}" for name, value in self.parameters.items()]
        )
        sections = {
            kind: str(error),
            "timeline, in seconds since the check began": self._timeline.text(self._began),
            "statistics": repr(await self.statistics()),
            "logs since the check began": self._logs(),
            "run just this check again": command,
        }
        return "\n\n".join(f"── {title} ──\n{body}" for title, body in sections.items())


class _Unexpected(logging.Handler):
    """What is logged as a warning or worse in the kernel, and what Python warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        self._filters: Any = None

    def attach(self) -> None:
        root = logging.getLogger()
        if self not in root.handlers:
            root.addHandler(self)
            logging.captureWarnings(True)
            warnings.simplefilter("always", ResourceWarning)

    def detach(self) -> None:
        logging.getLogger().removeHandler(self)
        logging.captureWarnings(False)

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + logging.Formatter().formatException(record.exc_info)
        self._lines.append(line)

    def clear(self) -> None:
        self._lines.clear()

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


async def _all_of(*work: Awaitable[Any]) -> None:
    """Wait for all; the first error ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _shell() -> Any:
    """The running IPython, or ``None`` in a plain process."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _remove_connection_file(workspace: Workspace) -> None:
    """Have a temporary connection file of the kernel removed with the workspace.

    Who started the kernel removes it, unless killed; it holds the kernel's key. JupyterLab's files
    are in its runtime folder and are used again when a kernel is restarted: they are left alone.
    """
    if not hasattr(_shell(), "kernel"):
        return
    from ipykernel.connect import get_connection_file

    path = Path(get_connection_file())
    if path.is_file() and path.parent == Path(tempfile.gettempdir()):
        workspace.at_end({"remove": str(path)})


def _display(table: Table) -> None:
    if _shell() is None:
        sys.stdout.write(f"{table!r}\n")
        return
    from IPython.display import display

    sys.stdout.flush()
    display(table)  # type: ignore[no-untyped-call]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())

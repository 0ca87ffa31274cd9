"""The lab: the platform's real processes on real servers, and everything a check calls.

It sets scenes and watches; it never asserts what a check claims.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from ssot.auth.client import AuthClient, Login
from ssot.configuration import DatabaseSettings
from ssot.configuration.schema import secrecy
from ssot.database import DatabaseManager, LlmUsage
from ssot.environment import secrets_among
from ssot.events import Position
from ssot.lab import expectations
from ssot.lab.asserts import RewriteAsserts, Seen
from ssot.lab.bare_socket import BareSocket, bare_socket
from ssot.lab.checks import Check, Leaked, Unexpected, Unknown
from ssot.lab.evidence import Failure
from ssot.lab.expectations import Raised
from ssot.lab.faults.fault import NotRecovered
from ssot.lab.faults.faults import Faults
from ssot.lab.faults.link import Link
from ssot.lab.faults.log import FaultLog
from ssot.lab.figure import Picture
from ssot.lab.folders import Folders, secrets_in
from ssot.lab.inspection import LOG_LINES, Inspection
from ssot.lab.kernel_log import KernelLog, Told
from ssot.lab.parameters import check_parameters, injected_names, overrides
from ssot.lab.processes import COMPONENT_OF, Process
from ssot.lab.provider_client import Provider
from ssot.lab.reloading import reload
from ssot.lab.roster import Roster
from ssot.lab.secrecy import Secrets, clean_messages, masked
from ssot.lab.services import PostgresServer, RedisServer, ServiceError, Services, Workspace
from ssot.lab.sessions import SESSIONS, Session, sessions_among
from ssot.lab.shell import display, remove_connection_file, running_shell
from ssot.lab.site import Site
from ssot.lab.tables import Table
from ssot.lab.timeline import Timeline
from ssot.lab.users import LabClient, User, usage_rows
from ssot.lab.watch import Watch
from ssot.websocket.client import Client

__all__ = ["Lab", "Raised", "open_lab"]

E = TypeVar("E", bound=Exception)

DEADLINE = 30.0
"""Seconds that a check may take; most take less than one."""

_USAGE_ROWS = 40
_PATIENCE = 12.0
_POLL = 0.02
_SERVERS = ("postgresql", "redis")


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
    shell = running_shell()
    given = {"users": users, "seed": seed, "services": services, "latency_ms": latency_ms, **own}
    injected = injected_names(shell.user_ns.get("In", ())) if shell else set()
    changed = overrides(given, injected)
    given.update(changed)
    check_parameters(given, injected)
    if shell is not None:
        # The cells below read the parameters by their own names.
        shell.user_ns.update(changed)
    lab = Lab(notebook, parameters=given)
    if _open is not None:
        await _open.aclose()
        lab.keep_secrets_of(_open)
    _open = lab
    if shell is not None:
        # Before anything is started: what cannot be may be told with the URL of a server.
        lab.guard(shell)
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


class Lab:
    """One notebook's lab. See the sections of this class for what a check may call.

    ``postgres`` and ``redis`` are the servers, ``auth``, ``workers`` and ``nodes`` the processes of
    the platform (``lab.nodes["a"]``), ``database`` is the lab's own access as an application role.
    """

    database: DatabaseManager

    def __init__(self, notebook: str, *, parameters: Mapping[str, Any]) -> None:
        self.notebook = notebook
        self.parameters = dict(parameters)
        self.seed = int(parameters["seed"])
        self._roster = Roster()
        self.workers = self._roster.workers
        self.nodes = self._roster.nodes
        self._verdicts: dict[str, str] = {}
        self._stack = AsyncExitStack()
        self._scope = AsyncExitStack()
        self._started: list[Process] = []
        self._timeline = Timeline()
        self._fault_log = FaultLog(self._timeline)
        self._watch = Watch(
            notebook, timeline=self._timeline, faults=self._fault_log, redact=self.redact
        )
        self._unexpected = KernelLog()
        self._clients: list[LabClient] = []
        self._secrets = Secrets(secrets_among({**os.environ, **parameters}))
        self._site: Site | None = None
        self._inspection = Inspection(
            watch=self._watch,
            timeline=self._timeline,
            redact=self.redact,
            logs=self._logged,
            processes=self._roster.__iter__,
            clients=lambda: self._clients,
            rows=self.rows,
        )

    def __repr__(self) -> str:
        processes = ", ".join(p.name for p in self._roster if p.running)
        return f"<lab of {self.notebook}: PostgreSQL, Redis, {processes or 'no process'}>"

    # Opening and closing

    async def open(self) -> None:
        """Start the servers, then the platform: migration, auth, worker and node at once."""
        workspace = await self._stack.enter_async_context(Workspace.open(self.notebook))
        remove_connection_file(workspace)
        self._watch.open(workspace.root / "tmp", self._stack)
        self._site = site = await Site.open(
            workspace,
            services=self.parameters["services"],
            latency=self.parameters["latency_ms"] / 1000,
            stack=self._stack,
            seed=self.seed,
            log=self._fault_log,
            processes=self._roster.__iter__,
        )
        site.extra = lambda _, name: self._watch.variables(name)
        self._secrets.add(*site.secrets)
        await self._watch.connect(
            site.services,
            site.name,
            self._stack,
            traffic=self._traffic,
            own_ports=self._own_ports,
            own_children=lambda: [workspace.watchdog_pid, *workspace.pids],
        )
        self.database = await self._stack.enter_async_context(
            DatabaseManager(
                DatabaseSettings.model_validate({"url": site.direct_urls["lab"], "pool_size": 4}),
                name="ssot-lab",
            )
        )
        self._stack.push_async_callback(self._close_scope)
        self._folders = Folders(workspace.root / "folders")
        for role, name in (("auth", "auth"), ("worker", "worker a"), ("node", "node a")):
            self._roster.add(self.process(role, name, self.environment(role, name)))
        # All at once: each waits until the schema is there, and none needs another to come up.
        await _all_of(
            site.migrate(),
            *(process.start() for process in self._roster),
        )

    def guard(self, shell: Any) -> None:
        """Keep the secrets of this lab out of everything that the kernel shows."""
        if hasattr(shell, "kernel"):
            clean_messages(shell.kernel.session, self._secrets.clean)

    def keep_secrets_of(self, other: Lab) -> None:
        """Also keep those of a lab that was open before, which variables may still hold."""
        self._secrets.add(*other._secrets.values)

    def attach(self, shell: Any) -> None:
        """Make the notebook's assertions show their values, and watch its logs and warnings."""
        shell.ast_transformers[:] = [
            t for t in shell.ast_transformers if not isinstance(t, RewriteAsserts)
        ] + [RewriteAsserts()]
        shell.user_ns[RewriteAsserts.name] = lambda: Seen(self._watch.observations.held)
        self._unexpected.attach()

    async def aclose(self) -> None:
        """Stop everything and remove everything; what is written of it stays. Idempotent."""
        self._unexpected.detach()
        with contextlib.suppress(OSError):
            self._watch.evidence.write()
        await self._stack.aclose()
        for process in self._roster:
            process.release()

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
        """A URL for each login role: ``owner``, ``app_a``, ``app_b``, ``auth``, ``relay``.

        Also ``lab`` and ``lab_owner``, which are the lab's own.
        """
        return self._at.urls

    @property
    def redis_url(self) -> str:
        """The URL of Redis as the platform uses it."""
        return self._at.redis_url

    @property
    def signing_key(self) -> str:
        """The private key that the auth service signs with."""
        return self._at.signing_key

    @property
    def auth(self) -> Process:
        """The auth service of the lab."""
        return self._roster["auth"]

    def process(self, role: str, name: str, environment: Mapping[str, str]) -> Process:
        """A process that is not started yet, with exactly this environment.

        The lab knows nothing of it but its secrets: no client reaches it, and nothing is told of
        it. See :meth:`start`.
        """
        self._secrets.add(*secrets_among(environment, secrecy()))
        return Process(
            role,
            name,
            workspace=self._at.workspace,
            environment=environment,
            timeline=self._timeline,
        )

    async def start(self, role: str, name: str, environment: Mapping[str, str]) -> Process:
        """One process more, with exactly this environment, ended with the check.

        ``name`` is the role and a word, like ``node b`` or ``auth b``: the name by which
        :meth:`client`, :meth:`auth_client`, :meth:`link`, ``faults`` and :meth:`logged` know it.
        One of this name that has ended is replaced. The role ``all`` starts a process for each
        role; these are its parts, with names like ``all/node``.

        :raises ProcessFailed: when it does not come up; its log stays to be looked at.
        """
        return await self._start(self.process(role, name, environment))

    async def start_worker(
        self, name: str, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Another worker, ended with the check; ``worker b`` is called ``b``."""
        full = f"worker {name}"
        return await self.start("worker", full, environment or self.environment("worker", full))

    async def start_node(self, name: str, environment: Mapping[str, str] | None = None) -> Process:
        """Another node, ended with the check; ``node b`` is called ``b``."""
        full = f"node {name}"
        return await self.start("node", full, environment or self.environment("node", full))

    async def provider(
        self, clients: Mapping[str, str], name: str = "provider", *, issuer: str = ""
    ) -> Provider:
        """An OAuth provider that knows these clients and their secrets, ended with the check.

        With an ``issuer`` it is an impostor: it says that it is that one.
        """
        self._secrets.add(*clients.values())
        own = {"PROVIDER_CLIENTS": json.dumps(dict(clients)), "PROVIDER_ISSUER": issuer}
        environment = self._at.child(own, "", name)
        process = Process(
            "provider",
            name,
            workspace=self._at.workspace,
            environment=environment,
            timeline=self._timeline,
            module="ssot.lab.provider",
        )
        await self._start(process)
        return Provider(process, self._at.reach, self._secrets.add)

    def folder(self, files: Mapping[str, str | bytes]) -> Path:
        """A fresh folder with these files, removed with the check; only its owner can enter it.

        ``/`` in a name makes sub-folders. What is secret by its name, in a ``.env`` file or as the
        name of a file, is a secret of the lab.
        """
        self._secrets.add(*secrets_in(files))
        folder = self._folders.make(files)
        self._scope.callback(self._folders.remove, folder)
        return folder

    def environment(
        self, role: str, name: str | None = None, *, auth: str = "auth"
    ) -> dict[str, str]:
        """Exactly the environment variables that a process of this role and name is given.

        Without a name it is that of ``node a``, ``worker a``, or ``auth``. ``auth`` is the name of
        the auth service that a node trusts, which need not be up. ``all`` has those of every role.
        """
        return self._at.environment(role, name, auth=auth)

    def environ_of(self, name: str) -> dict[str, str]:
        """The variables that a process runs with, as the operating system says.

        ``all/worker`` is the worker that ``all`` has started. :meth:`start` and
        :attr:`Process.environment` say what it was given.
        """
        process, role = self._roster.part(name)
        return self._watch.observations.saw(_components_of(role), process.environ(role))

    async def reload(self, name: str) -> str:
        """Tell a process to read its environment again (SIGHUP); returns what it says of that.

        The message ``environment reloaded: …`` or ``environment not reloaded, …`` with all of its
        lines, redacted. Of ``all`` one for each of its processes that serve. After 12 s without one
        an :class:`AssertionError` shows what was logged instead.

        :raises ProcessFailed: when it ends instead.
        """
        process, role = self._roster.part(name)
        said = await reload(process, role, patience=_PATIENCE, redact=self.redact)
        self._timeline.record(name, said.partition("\n")[0])
        return self._watch.observations.saw(_components_of(role), said)

    async def health(self, name: str) -> dict[str, Any]:
        """What a node or the auth service says of itself at ``/health``, and of its servers."""
        address = self._at.reach(name).replace("ws://", "http://")
        async with httpx.AsyncClient(trust_env=False, timeout=_PATIENCE) as http:
            found: dict[str, Any] = (await http.get(f"{address}/health")).json()
        return self._watch.observations.saw(self._components(name), found)

    async def logged(self, name: str, text: str) -> str:
        """Wait until a process has logged a line with ``text`` since the check began; returns it.

        After 12 s an :class:`AssertionError` shows what it logged instead.
        """
        found: list[str] = []

        async def there() -> bool:
            found[:] = [line for line in self._inspection.lines_of(name) if text in line]
            return bool(found)

        def otherwise() -> str:
            logged = "\n".join(self._inspection.lines_of(name)[-LOG_LINES:]) or "nothing"
            said = f"{name} did not log {text!r} within {_PATIENCE:g} s; it logged:\n"
            return said + self.redact(logged)

        await _until(there, otherwise)
        self._timeline.record(name, f"logged: {found[0].partition(': ')[2] or found[0]}")
        line: str = self._watch.observations.saw(self._components(name), found[0])
        return line

    # Faults

    @property
    def faults(self) -> Faults:
        """What can be broken here: ``frozen``, ``killed``, ``restarted``, ``latency`` and more.

        Each is a context manager that heals and waits for recovery, also when the check fails.
        """
        return self._at.faults

    def link(self, near: str, far: str) -> Link:
        """The link between two ends, such as ``worker a`` and ``redis``, to be slowed or cut."""
        return self._at.link(near, far)

    # Users

    async def user(
        self, name: str, *, rows: int = _USAGE_ROWS, auth: str = "auth", login: Login | None = None
    ) -> User:
        """A fresh account, logged in at ``auth``, with ``rows`` of usage drawn from the seed.

        The login name is unique, so that a check can be run any number of times. With a ``login``,
        as a check has made it by other means than a password, it is this account and token.
        """
        with self._watch.scene():
            return await self._user(name, rows, auth, login)

    async def _user(self, name: str, rows: int, at: str, known: Login | None) -> User:
        login = password = ""
        if known is None:
            login = f"{name}-{secrets.token_hex(4)}"
            password = secrets.token_urlsafe(16)
            self._secrets.add(password)
            async with self.auth_client(at) as auth:
                await auth.create_account(login, password)
                known = await auth.login(login, password)
        user_id, token = known.user_id, known.access_token
        self._secrets.add(token)
        self._watch.names[user_id] = name
        randomness = random.Random(f"{self.seed} {name}")  # noqa: S311
        usage = usage_rows(user_id, count=rows, randomness=randomness)
        user = User(name, login, user_id, password, token, usage)

        async def body(session: AsyncSession) -> None:
            await session.execute(insert(LlmUsage), list(usage))

        if usage:
            await self.database.run_transaction(user.context, body, key="usage")
        return user

    async def login_role(self, password: str) -> str:
        """The URL of a fresh login role with this password and the rights of ``app_b``.

        The password is percent-encoded in it, whatever characters it has. The role is dropped with
        the check.
        """
        self._secrets.add(password)
        url = await self._scope.enter_async_context(self._at.login_role(password))
        self._secrets.add(url)
        return url

    async def client(
        self,
        who: str | User,
        *,
        node: str = "a",
        after: Position | None = None,
        token: str | None = None,
    ) -> LabClient:
        """A connected client of a user: a fresh one by name, or one that exists.

        ``node`` is ``b`` for ``node b``, or a part like ``all/node``. Closed when the next check
        begins, or with this one when it passes.
        """
        user = who if isinstance(who, User) else await self.user(who)
        address = self._at.reach(self._roster.node(node))
        client = LabClient(
            user,
            Client([address], token=token or user.token, after=after),
            self._timeline,
            self._watch.observations,
        )
        await client.open()
        self._scope.push_async_callback(client.aclose)
        self._clients.append(client)
        return client

    async def clients(self, count: int) -> list[LabClient]:
        """``count`` fresh users at once, each with a client."""
        names = [f"user-{number}" for number in range(1, count + 1)]
        return list(await asyncio.gather(*(self.client(name) for name in names)))

    def auth_client(self, name: str = "auth") -> AuthClient:
        """HTTP to an auth service."""
        return AuthClient(self._at.reach(name))

    def socket(
        self, user: User, *, node: str = "a", origin: str | None = None
    ) -> AbstractAsyncContextManager[BareSocket]:
        """A bare WebSocket of a user, welcomed already: the protocol without our client.

        With an ``origin``, like ``https://shop.example``, it is that of a browser on such a page.

        :raises HandshakeRefused: on entering, when the node does not let it in.
        """
        address = self._at.reach(self._roster.node(node))
        return bare_socket(address, user, self._watch.heard, origin=origin)

    # Looking and holding

    def raises(self, kind: type[E]) -> AbstractContextManager[Raised[E]]:
        """Expect an error of this kind; ``value`` holds it afterwards. None, or another, fails."""
        return expectations.raises(kind, self._watch.expected)

    def warned(self, text: str) -> AbstractContextManager[Told]:
        """Expect a warning or an error in the kernel's own log that contains ``text``.

        ``told.text`` is what was logged, and fails the check no longer. None is an error.
        """
        return self._unexpected.expecting(text, self._watch.warned)

    def wrong_password(self, url: str) -> str:
        """The URL with another password; :class:`Unknown` when the server asks for none."""
        parts = urlsplit(url)
        if not parts.password:
            raise Unknown(f"this {parts.scheme} server asks for no password")
        who = parts.netloc.replace(f":{parts.password}@", ":wrong-password@")
        return urlunsplit(parts._replace(netloc=who))

    async def rows(
        self, query: str, *, user: User | None = None, role: str = "lab", **parameters: Any
    ) -> list[dict[str, Any]]:
        """Rows of a query as the server shows them to this login role and user.

        ``lab`` has the rights of ``app_b``. What is asked as another role is counted as if the
        platform had asked it.
        """
        if role == "lab":
            return await self._rows(self.database, query, user, parameters)
        async with DatabaseManager(
            DatabaseSettings.model_validate({"url": self._at.urls[role], "pool_size": 1}),
            name="ssot-lab",
        ) as database:
            return await self._rows(database, query, user, parameters)

    async def sessions(self, service: str | None = None) -> list[Session]:
        """Who is connected to the database now, the lab aside; of one ``service``, or all."""
        return self._watch.observations.saw(
            {"database", "postgresql"}, sessions_among(await self.rows(SESSIONS), service)
        )

    async def appears(self, query: str, *, user: User | None = None, **parameters: Any) -> None:
        """Wait until a query finds a row; :class:`AssertionError` when none is there after 12 s."""

        async def found() -> bool:
            return bool(await self.rows(query, user=user, **parameters))

        await _until(found, lambda: f"no row within {_PATIENCE:g} s of: {query}")

    async def disconnected(self, service: str, login: str, *, but: Sequence[Session] = ()) -> None:
        """Wait until a service has no session as this login role, ``but`` those of others.

        After 12 s an :class:`AssertionError` names those that are left.
        """
        left: list[Session] = []

        async def gone() -> bool:
            found = await self.sessions(service)
            left[:] = [each for each in found if each.login == login and each not in but]
            return not left

        await _until(gone, lambda: f"after {_PATIENCE:g} s there are still {left}")

    @asynccontextmanager
    async def locked(self, table: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Hold a table locked, so that whoever reads it waits: a run stands still at its tool.

        Yields a function that lets go early. The lock also ends with the server.
        """
        held = AsyncExitStack()
        manager = DatabaseManager(
            DatabaseSettings.model_validate(
                {
                    "url": self._at.direct_urls["lab_owner"],
                    "pool_size": 1,
                    "idle_transaction_timeout": 2 * DEADLINE,
                }
            ),
            name="ssot-lab-lock",
        )
        async with manager:
            session = await held.enter_async_context(manager.session(None))
            await session.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            fault = self._fault_log.begin("locked", "postgresql", detail=table)

            async def release() -> None:
                self._fault_log.end(fault)
                # The server may have been killed meanwhile, and the lock with it.
                with contextlib.suppress(Exception):
                    await held.aclose()

            try:
                yield release
            finally:
                await release()

    def figure(self, check_id: str) -> Picture | str:
        """What happened in a check that has run here, drawn: who did what, and what was broken.

        Lanes are users, processes and servers; bars are spans, dots what a client received, shaded
        is what was broken.
        """
        return self._inspection.figure(check_id)

    def timeline(self) -> None:
        """Show what has happened since the last check began, and print it line by line."""
        if self._watch.current is not None:
            display(self.figure(self._watch.current.id))
        sys.stdout.write(self._inspection.timeline() + "\n")

    def logs(self) -> None:
        """Print what servers and processes have logged since the last check began."""
        sys.stdout.write(self._inspection.logs() + "\n")

    async def statistics(self) -> Table:
        """What is open now: clients, and the servers' own view of their connections."""
        return await self._inspection.statistics()

    # Checks

    def check(self, check_id: str, title: str, *, deadline: float = DEADLINE) -> Check:
        """The scope of one check; see :class:`ssot.lab.checks.Check`."""

        async def begin() -> None:
            self._verdicts[check_id] = "FAIL"
            await self._close_scope()
            await self._heal()
            await self._watch.begin(check_id, title)
            self._inspection.begin()
            self._unexpected.clear()

        async def end() -> None:
            self._watch.body_ended()
            self._note_events()
            await self._at.faults.heal()
            await self._close_scope()
            await self._heal()
            if left := await self._watch.left_behind():
                raise Leaked(left)
            if found := self._unexpected.take():
                raise Unexpected(self.redact("\n".join(found)))

        async def passed() -> None:
            self._verdicts[check_id] = "PASS"
            try:
                await self._watch.ended("pass", failure=None)
            except OSError as error:
                why = f"its evidence cannot be written: {error.strerror or error}"
                self._verdicts[check_id] = "UNKNOWN"
                raise Unknown(why) from error

        async def failed(error: BaseException) -> tuple[str, object | None]:
            self._watch.body_ended()
            self._note_events()
            unknown = isinstance(error, Unknown)
            self._verdicts[check_id] = "UNKNOWN" if unknown else "FAIL"
            failure, report = await self._explain(check_id, error)
            with contextlib.suppress(OSError):
                # Not even a full disk may hide why the check failed.
                await self._watch.ended("unknown" if unknown else "fail", failure=failure)
            with contextlib.suppress(NotRecovered):
                # What was opened stays open; what was broken does not stay broken.
                await self._at.faults.heal()
            return report, self.figure(check_id) if report else None

        return Check(
            check_id,
            title,
            deadline=deadline,
            begin=begin,
            end=end,
            passed=passed,
            failed=failed,
            display=display,
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
        display(Table(("area", "check", "incident", "verdict"), rows))
        if not_shown:
            sys.stdout.write("Not shown here:\n" + "".join(f"  - {item}\n" for item in not_shown))

    def redact(self, text: str) -> str:
        """The text without any secret of this lab."""
        return self._secrets(text)

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

    async def _start(self, process: Process) -> Process:
        if process.name in self._roster and self._roster[process.name].running:
            raise ServiceError(f"{process.name} is there already, and running")
        self._roster.add(process)
        self._inspection.joins(process.name)
        if not self._started:
            # After what uses them, such as clients; all at once, for each takes its time.
            self._scope.push_async_callback(self._stop_started)
        self._started.append(process)
        await process.start()
        return process

    async def _stop_started(self) -> None:
        started, self._started = self._started, []
        for process in started:
            self._roster.remove(process)
        # In order and not killed, so that they tell their last spans.
        await asyncio.gather(*(process.stop() for process in started))

    def _components(self, name: str) -> frozenset[str]:
        if name in _SERVERS:
            return frozenset({name})
        return _components_of(self._roster.part(name)[1])

    async def _close_scope(self) -> None:
        self._clients.clear()
        scope, self._scope = self._scope, AsyncExitStack()
        await scope.aclose()

    async def _heal(self) -> None:
        """End the faults of a check, bring back what it has killed, and wait until it works."""
        await self._at.faults.heal()
        if "kill" in self._at.services.capabilities:
            for server in (self._at.services.postgres, self._at.services.redis):
                if not server.running:
                    await server.restart()
        for process in self._roster:
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

        rows = await database.run_transaction(user.context if user else None, body)
        return self._watch.observations.saw({"database", "postgresql"}, rows)

    def _logged(self) -> dict[str, Any]:
        servers = {"postgresql": self._at.services.postgres, "redis": self._at.services.redis}
        return {**servers, **{process.name: process for process in self._roster}}

    def _traffic(self) -> list[dict[str, Any]]:
        return [
            {
                "from": link.near,
                "to": link.far,
                "bytes": traffic.bytes_to + traffic.bytes_from,
                "frames": traffic.frames_to + traffic.frames_from,
            }
            for link in self._at.faults.links
            for traffic in [link.traffic()]
        ]

    def _own_ports(self) -> tuple[set[int], set[int]]:
        services = self._at.services
        addresses = [one for each in self._roster for one in each.addresses.values()]
        collector = urlsplit(self._watch.collector.endpoint).port or 0
        listening = {link.port for link in self._at.faults.links if link.port} | {collector}
        behind = {urlsplit(address).port or 0 for address in addresses}
        return listening, behind | {services.postgres.port, services.redis.port}

    async def _explain(self, check_id: str, error: BaseException) -> tuple[Failure, str]:
        """Why a check did not pass: for the evidence, and as the text below its verdict line."""
        again = " ".join(
            [f"ssot run {self.notebook} --only {check_id}"]
            + [f"-p {name} {value}" for name, value in masked(self.parameters).items()]
        )
        return await self._inspection.explain(error, again=again)

    def _note_events(self) -> None:
        for client in self._clients:
            self._watch.received(client.user.name, len(client.received_events))


def _components_of(role: str) -> frozenset[str]:
    if role == "all":
        return frozenset(COMPONENT_OF.values())
    return frozenset({COMPONENT_OF[role]} if role in COMPONENT_OF else ())


async def _until(there: Callable[[], Awaitable[bool]], otherwise: Callable[[], str]) -> None:
    """Ask again and again; after 12 s an :class:`AssertionError` with what ``otherwise`` says."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE
    while not await there():
        if loop.time() > until:
            raise AssertionError(otherwise())
        await asyncio.sleep(_POLL)


async def _all_of(*work: Awaitable[Any]) -> None:
    """Wait for all; the first error ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

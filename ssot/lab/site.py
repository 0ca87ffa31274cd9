"""Where a platform stands: the servers, one database with its roles, and what each role is told."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import asyncpg

from ssot.auth.keys import new_signing_key
from ssot.configuration import DatabaseSettings
from ssot.database import provision
from ssot.database.migrate import migrate
from ssot.environment import IsolatedEnvironment
from ssot.lab.faults.faults import Faults
from ssot.lab.faults.link import Link
from ssot.lab.faults.log import FaultLog
from ssot.lab.processes import Process
from ssot.lab.services import Kind, Services, Workspace, open_services
from ssot.lab.services.ports import ReservedPort
from ssot.platform import ROLES

__all__ = ["Site", "address_of"]

_LEASE_TTL = 1.0


class Site:
    """Servers and a fresh database; the ground that the processes of a platform are put on.

    ``name`` is the database's and the prefix of every key. ``direct_urls`` reach PostgreSQL itself,
    ``urls`` through the link that a notebook has to it; both by login role: ``owner``, ``app_a``,
    ``app_b``, ``auth``, ``relay``, and two that only the lab uses, so that what it asks is never
    counted as the platform's: ``lab`` has the rights of ``app_b``, ``lab_owner`` those of
    ``owner``. ``secrets`` are all that must never be shown. ``faults`` break what stands here.
    ``extra`` says which variables a process of this role and name gets besides.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        services: Services,
        name: str,
        direct_urls: Mapping[str, str],
        latency: float = 0.0,
        seed: int = 0,
        log: FaultLog | None = None,
        processes: Callable[[], Iterable[Process]] = tuple,
    ) -> None:
        self.workspace = workspace
        self.services = services
        self.name = name
        self.direct_urls = dict(direct_urls)
        self.signing_key = new_signing_key()
        # Nodes must know where the auth service will be before it is there.
        self._auth_port = ReservedPort()
        self.extra: Callable[[str, str], Mapping[str, str]] = lambda *_: {}
        self.secrets = {
            self.signing_key,
            services.postgres.admin_url,
            services.redis.url,
            *direct_urls.values(),
        }
        self._latency = latency
        self._processes = processes
        self._temporary = workspace.root / "tmp"
        self._temporary.mkdir(mode=0o700, exist_ok=True)
        # The platform reads `.env` files where it is started, unless it is told where to.
        self._no_files = workspace.root / "no-files"
        self._no_files.mkdir(mode=0o700, exist_ok=True)
        # That of `all` is known only to itself, and to those who are told of it.
        self._ports_of_all: dict[str, ReservedPort] = {}
        self.faults = Faults(
            services=services,
            database=name,
            processes=lambda: {process.name: process for process in processes()},
            seed=seed,
            log=log or FaultLog(),
        )

    @classmethod
    async def open(
        cls,
        workspace: Workspace,
        *,
        services: Kind,
        latency: float,
        stack: AsyncExitStack,
        seed: int = 0,
        log: FaultLog | None = None,
        processes: Callable[[], Iterable[Process]] = tuple,
    ) -> Site:
        """Start or find the servers and create the database; the workspace's end removes it all.

        ``latency`` is in seconds, for a round trip to either server or from a client to a node;
        ``stack`` ends its links. ``seed`` decides what faults draw, ``log`` is told of each, and
        ``processes`` are those that stand here now.
        """
        servers = await open_services(services, workspace)
        name = f"ssot_{secrets.token_hex(4)}"
        admin = servers.postgres.admin_url
        if servers.kind != "embedded":
            # Ordered before they exist, so that an owner killed at any moment leaves nothing there.
            workspace.at_end({"drop_database": admin, "database": name})
            workspace.at_end({"delete_keys": servers.redis.url, "prefix": f"{name}:"})
        site = cls(
            workspace=workspace,
            services=servers,
            name=name,
            direct_urls=await provision(admin, name),
            latency=latency,
            seed=seed,
            log=log,
            processes=processes,
        )
        stack.push_async_callback(site.aclose)
        for role, group in (("lab", "app"), ("lab_owner", "owner")):
            password = secrets.token_urlsafe(24)
            await site._create_login(f"{name}_{role}", f"{name}_{group}", password)
            url = _as(f"{name}_{role}", password, site.direct_urls["owner"])
            site.direct_urls[role] = url
            site.secrets.add(url)
        return site

    async def aclose(self) -> None:
        """Heal all faults, end all links, and give up the ports that were kept for processes."""
        try:
            await self.faults.aclose()
        finally:
            for port in (self._auth_port, *self._ports_of_all.values()):
                port.close()

    async def migrate(self) -> None:
        """Bring the database to the newest schema, as its owner."""
        await migrate(DatabaseSettings.model_validate({"url": self.direct_urls["owner"]}))

    @property
    def urls(self) -> dict[str, str]:
        """A URL for each login role, through the link from ``kernel`` to PostgreSQL."""
        link = self._to_server("kernel", "postgresql")
        return {role: _through(link, url) for role, url in self.direct_urls.items()}

    @asynccontextmanager
    async def login_role(self, password: str) -> AsyncIterator[str]:
        """A login role of its own with the rights of ``app_b``, and its URL, as in :attr:`urls`.

        The role is dropped in the end; its sessions must be closed by then.
        """
        role = f"{self.name}_login_{secrets.token_hex(4)}"
        await self._create_login(role, f"{self.name}_app", password)
        try:
            yield _as(role, password, self.urls["app_b"])
        finally:
            names = role, self.name
            await self._as_administrator("REVOKE ALL ON DATABASE %2$I FROM %1$I", *names)
            await self._as_administrator("DROP ROLE %1$I", *names)

    @property
    def redis_url(self) -> str:
        """The URL of Redis, through the link from ``kernel`` to it."""
        return _through(self._to_server("kernel", "redis"), self.services.redis.url)

    def link(self, near: str, far: str) -> Link:
        """The link between two ends; :class:`LookupError` with the nearest when there is none."""
        return self.faults.link(near, far)

    def reach(self, name: str, near: str = "client") -> str:
        """The address at which clients, or ``near``, reach a process, through their link to it.

        A name like ``all/node`` is that of a role of ``all``.

        :raises LookupError: when there is no such process, or it listens nowhere.
        """
        address = self._address(name)
        if address is None:
            raise LookupError(f"{name} listens nowhere, or has not been up")
        return _through(self._to_process(near, name), address)

    def variables(
        self, role: str, name: str | None = None, *, auth: str = "auth"
    ) -> dict[str, str]:
        """The platform's own variables for a process of this role, and no other's.

        With the ``name`` of a process of the lab it reaches everything through links of its own.
        ``auth`` is the auth service that a node trusts. ``all`` has the variables of every role,
        and an auth service of its own.
        """
        if role == "all":
            return self._variables_of_all(name)
        own = self._variables(role, name)
        if name is not None and role == "node":
            own["SSOT_AUTH_URL"] = _through(self._to_process(name, auth), own["SSOT_AUTH_URL"])
        if name is not None and role in ("auth", "node"):
            self._to_process("client", name)
        return own

    def environment(
        self, role: str, name: str | None = None, *, auth: str = "auth"
    ) -> dict[str, str]:
        """Exactly the environment that a process of this role and name is given.

        Without a name it is that of ``node a``, ``worker a``, ``auth``, …; ``auth`` is the auth
        service that a node trusts. It reads no ``.env`` file of the folder it is started in.
        """
        if name is None:
            name = f"{role} a" if role in ("node", "worker") else role
        own = self.variables(role, name, auth=auth)
        return self.child({"SSOT_ENV_DIRECTORY": str(self._no_files), **own}, role, name)

    def child(self, own: Mapping[str, str], role: str, name: str) -> dict[str, str]:
        """The environment of any process of this role and name: the machine's names and ``own``."""
        more = dict(self.extra(role, name))  # noqa: S610 - no query of Django
        if role == "all":
            # Each of its processes tells its spans under a name of its own.
            more.pop("OTEL_SERVICE_NAME", None)
        everything = {**own, "TMPDIR": str(self._temporary), **more}
        # Of ours it gets the machine's names alone: how good the secrets beside them are, which may
        # be those of somebody's own server, is not judged here.
        machine = IsolatedEnvironment({**os.environ, "SSOT_ENVIRONMENT": "test"})
        return machine.child_env(everything)

    async def _create_login(self, role: str, group: str, password: str) -> None:
        """A login role with the rights of a group, which may connect to the database: or none."""
        names = role, group, self.name
        await self._as_administrator(
            "CREATE ROLE %1$I LOGIN NOBYPASSRLS IN ROLE %2$I PASSWORD %4$L", *names, password
        )
        try:
            await self._as_administrator("GRANT CONNECT ON DATABASE %3$I TO %1$I", *names)
        except BaseException:
            await self._as_administrator("DROP ROLE %1$I", *names)
            raise

    async def _as_administrator(self, statement: str, *words: str) -> None:
        """A statement that takes no parameters: the server itself quotes the ``words`` in it."""
        connection = await asyncpg.connect(self.services.postgres.admin_url)
        try:
            texts = ", ".join(f"${number}::text" for number in range(2, len(words) + 2))
            await connection.execute(
                await connection.fetchval(f"SELECT format($1::text, {texts})", statement, *words)
            )
        finally:
            await connection.close()

    def _variables(self, role: str, name: str | None) -> dict[str, str]:
        """All but what leads to other processes."""
        login = {"auth": "auth", "migrate": "owner"}.get(role, "app_a")
        database_url, redis_url = self.direct_urls[login], self.services.redis.url
        if name is not None:
            database_url = _through(self._to_server(name, "postgresql"), database_url)
        own = {
            "SSOT_ENVIRONMENT": "test",
            "SSOT_DATABASE_URL": database_url,
            "SSOT_DATABASE_IDLE_TRANSACTION_TIMEOUT": f"{_LEASE_TTL:g}",
        }
        if role in ("node", "worker"):
            if name is not None:
                redis_url = _through(self._to_server(name, "redis"), redis_url)
            own |= {"SSOT_REDIS_URL": redis_url, "SSOT_REDIS_PREFIX": self.name}
        if role == "auth":
            own |= {
                "AUTH_SIGNING_KEY": self.signing_key,
                # Whom only its own link leads to may listen anywhere.
                "AUTH_PORT": str(self._auth_port.number) if name in (None, "auth") else "0",
                # A lab logs in hundreds of times; the cost of one login is not what it looks at.
                "AUTH_SCRYPT_LOG_N": "11",
            }
        if role == "node":
            own |= {"NODE_PORT": "0", "SSOT_AUTH_URL": f"http://127.0.0.1:{self._auth_port.number}"}
        if role == "worker":
            own["WORKER_LEASE_TTL"] = f"{_LEASE_TTL:g}"
        return own

    def _variables_of_all(self, name: str | None) -> dict[str, str]:
        if (name or "") not in self._ports_of_all:
            self._ports_of_all[name or ""] = ReservedPort()
        port = self._ports_of_all[name or ""].number
        own: dict[str, str] = {}
        for role in ROLES:
            # Whatever they share is the same for all, but for the login role in the database.
            more = self._variables(role, name)
            own |= more | {f"{role.upper()}_DATABASE_URL": more["SSOT_DATABASE_URL"]}
        return own | {"AUTH_PORT": str(port), "SSOT_AUTH_URL": f"http://127.0.0.1:{port}"}

    def _to_server(self, near: str, far: Literal["postgresql", "redis"]) -> Link:
        services = self.services
        url = services.postgres.admin_url if far == "postgresql" else services.redis.url
        return self.faults.links.open(
            near,
            far,
            lambda: address_of(url),
            kind=far,
            round_trip=self._latency,
            direct=_no_proxy(url),
        )

    def _to_process(self, near: str, far: str) -> Link:
        def target() -> tuple[str, int]:
            if far == "auth":
                return "127.0.0.1", self._auth_port.number
            try:
                address = self._address(far)
            except LookupError:
                address = None
            if address is None:
                raise ConnectionRefusedError(f"{far} is not up")
            return address_of(address)

        latency = self._latency if "node" in far else 0.0
        return self.faults.links.open(near, far, target, kind="http", round_trip=latency)

    def _address(self, name: str) -> str | None:
        whole, _, role = name.partition("/")
        for process in self._processes():
            if process.name == whole:
                return process.addresses.get(role or process.role)
        raise LookupError(f"no process is called {whole!r}")


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL, with the port that its scheme has when none is written."""
    parts = urlsplit(url)
    default = {"postgresql": 5432, "redis": 6379}.get(parts.scheme, 80)
    return parts.hostname or "127.0.0.1", parts.port or default


def _as(role: str, password: str, url: str) -> str:
    """The URL, for another login."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{where}"))


def _no_proxy(url: str) -> str:
    """Why nothing can stand between a server and whoever reaches it by this URL; mostly nothing."""
    parts = urlsplit(url)
    if parts.scheme == "rediss":
        return "its TLS demands the server's own host name (rediss://)"
    options = parse_qs(parts.query)
    if "verify-full" in {value for name in ("sslmode", "ssl") for value in options.get(name, ())}:
        return "its TLS demands the server's own host name (sslmode=verify-full)"
    return ""


def _through(link: Link, url: str) -> str:
    """The URL, over this link; as it is when the link has no proxy."""
    if link.port is None:
        return url
    parts = urlsplit(url)
    who, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{who}{at}127.0.0.1:{link.port}"))

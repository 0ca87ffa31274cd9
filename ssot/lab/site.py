"""Where a platform stands: the servers, one database with its roles, and what each role is told."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from urllib.parse import urlsplit, urlunsplit

from ssot.auth.keys import new_signing_key
from ssot.configuration import DatabaseSettings
from ssot.database import provision
from ssot.database.migrate import migrate
from ssot.environment import IsolatedEnvironment
from ssot.lab.faults.proxy import Proxies
from ssot.lab.services import Kind, Services, Workspace, open_services
from ssot.lab.services.ports import pick_port

__all__ = ["Site", "address_of"]

_LEASE_TTL = 1.0


class Site:
    """Servers and a fresh database; the ground that the processes of a platform are put on.

    ``name`` is the database's and the prefix of every key. ``direct_urls`` reach PostgreSQL without
    the added latency, ``urls`` with it; both by login role: ``owner``, ``app_a``, ``app_b``,
    ``auth``, ``relay``. ``secrets`` are all that must never be shown.
    """

    def __init__(
        self, *, workspace: Workspace, services: Services, name: str, direct_urls: Mapping[str, str]
    ) -> None:
        self.workspace = workspace
        self.services = services
        self.name = name
        self.direct_urls = dict(direct_urls)
        self.urls = dict(direct_urls)
        self.redis_url = services.redis.url
        self.signing_key = new_signing_key()
        # Nodes must know where the auth service will be before it is there.
        self.auth_port = pick_port()
        self.secrets = {
            self.signing_key,
            services.postgres.admin_url,
            services.redis.url,
            *direct_urls.values(),
        }
        self._proxies: Proxies | None = None
        self._slowed: dict[str, str] = {}

    @classmethod
    async def open(
        cls, workspace: Workspace, *, services: Kind, latency: float, stack: AsyncExitStack
    ) -> Site:
        """Start or find the servers and create the database; the workspace's end removes it all.

        ``latency`` is in seconds, for a round trip to either server; ``stack`` ends its proxies.
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
        )
        if latency:
            site._proxies = proxies = Proxies(round_trip=latency)
            stack.push_async_callback(proxies.aclose)
            port = await proxies.open(*address_of(admin))
            site.urls = {role: _at_port(url, port) for role, url in site.direct_urls.items()}
            redis_port = await proxies.open(*address_of(servers.redis.url))
            site.redis_url = _at_port(servers.redis.url, redis_port)
        return site

    async def migrate(self) -> None:
        """Bring the database to the newest schema, as its owner."""
        await migrate(DatabaseSettings.model_validate({"url": self.direct_urls["owner"]}))

    def variables(self, role: str) -> dict[str, str]:
        """The platform's own variables for a process of this role, and no other's."""
        login = {"auth": "auth", "migrate": "owner"}.get(role, "app_a")
        own = {"SSOT_ENVIRONMENT": "test", "SSOT_DATABASE_URL": self.urls[login]}
        if role in ("node", "worker"):
            own |= {"SSOT_REDIS_URL": self.redis_url, "SSOT_REDIS_PREFIX": self.name}
        if role == "auth":
            own |= {
                "AUTH_SIGNING_KEY": self.signing_key,
                "AUTH_PORT": str(self.auth_port),
                # A lab logs in hundreds of times; the cost of one login is not what it looks at.
                "AUTH_SCRYPT_LOG_N": "11",
            }
        if role == "node":
            own |= {"NODE_PORT": "0", "SSOT_AUTH_URL": f"http://127.0.0.1:{self.auth_port}"}
        if role == "worker":
            own["WORKER_LEASE_TTL"] = f"{_LEASE_TTL:g}"
        return own

    def environment(self, role: str) -> dict[str, str]:
        """Exactly the environment that a process of this role is given."""
        return IsolatedEnvironment(os.environ).child_env(self.variables(role))

    async def slowed(self, url: str) -> str:
        """The URL behind a proxy that adds the latency, if there is any to add."""
        if self._proxies is None:
            return url
        if url not in self._slowed:
            self._slowed[url] = _at_port(url, await self._proxies.open(*address_of(url)))
        return self._slowed[url]


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL, with the port that its scheme has when none is written."""
    parts = urlsplit(url)
    default = {"postgresql": 5432, "redis": 6379}.get(parts.scheme, 80)
    return parts.hostname or "127.0.0.1", parts.port or default


def _at_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    who, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{who}{at}127.0.0.1:{port}"))

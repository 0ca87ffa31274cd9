"""A site tells each process where its own links begin, whichever servers there are."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from lab.faults.platform import platform_of
from ssot.lab.checks import Unknown
from ssot.lab.services import ExternalPostgres, ExternalRedis, Services, Workspace
from ssot.lab.site import Site


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with Workspace.open("site") as workspace:
        yield workspace


def elsewhere(workspace: Workspace, postgres: str, cache: str) -> Site:
    """A site on servers of others that nobody has asked yet."""
    services = Services(
        "url",
        ExternalPostgres(postgres, source="a test"),
        ExternalRedis(cache, source="a test"),
        frozenset(),
    )
    urls = dict.fromkeys(("owner", "app_a", "app_b", "auth", "relay"), postgres)
    return Site(workspace=workspace, services=services, name="t", direct_urls=urls)


POSTGRES = "postgresql://someone:secret@db.internal:5432/postgres"
REDIS = "redis://:secret@cache.internal:6379/0"


async def test_each_process_has_ways_of_its_own(workspace: Workspace) -> None:
    """No two of them share a port, all keep their user and password, and each stays the same."""
    site = elsewhere(workspace, POSTGRES, REDIS)
    try:
        environments = {
            name: site.environment(name.split()[0], name)
            for name in ("auth", "node a", "worker a", "worker b")
        }
        variables = ("SSOT_DATABASE_URL", "SSOT_REDIS_URL", "SSOT_AUTH_URL")
        urls = [
            environment[variable]
            for environment in environments.values()
            for variable in variables
            if variable in environment
        ]
        assert len(urls) == 8
        assert {urlsplit(url).hostname for url in urls} == {"127.0.0.1"}
        assert len({urlsplit(url).port for url in urls}) == 8
        assert {urlsplit(url).password for url in urls} == {"secret", None}
        assert site.environment("worker", "worker b") == environments["worker b"]
        assert site.environment("worker") == environments["worker a"]
        assert urlsplit(site.urls["app_b"]).port not in {urlsplit(url).port for url in urls}
        assert {link.name for link in site.faults.links} == {
            "auth → postgresql",
            "client → auth",
            "client → node a",
            "kernel → postgresql",
            "node a → auth",
            "node a → postgresql",
            "node a → redis",
            "worker a → postgresql",
            "worker a → redis",
            "worker b → postgresql",
            "worker b → redis",
        }
    finally:
        await site.aclose()


async def test_variables_without_a_name_lead_straight_to_the_servers(workspace: Workspace) -> None:
    """Processes that are started by hand need nothing of the lab."""
    site = elsewhere(workspace, POSTGRES, REDIS)
    try:
        assert site.variables("worker")["SSOT_DATABASE_URL"] == POSTGRES
        assert site.variables("worker")["SSOT_REDIS_URL"] == REDIS
        assert list(site.faults.links) == []
    finally:
        await site.aclose()


async def test_temporary_files_and_more_variables(workspace: Workspace) -> None:
    """They go where only their owner looks, and with the workspace; a lab may add variables."""
    site = elsewhere(workspace, POSTGRES, REDIS)
    try:
        site.extra = lambda role, name: {"OTEL_SERVICE_NAME": f"{role}/{name}"}
        environment = site.environment("node", "node b")
        assert environment["OTEL_SERVICE_NAME"] == "node/node b"
        folder = Path(environment["TMPDIR"])
        assert folder.parent == workspace.root
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    finally:
        await site.aclose()


async def test_a_link_whose_tls_demands_the_servers_name_has_no_proxy(workspace: Workspace) -> None:
    """The URL is left alone, and a fault on it is unknown, with the reason."""
    site = elsewhere(
        workspace, f"{POSTGRES}?sslmode=verify-full", "rediss://:secret@cache.internal:6379/0"
    )
    try:
        environment = site.environment("worker", "worker a")
        assert environment["SSOT_DATABASE_URL"].endswith(
            "db.internal:5432/postgres?sslmode=verify-full"
        )
        assert environment["SSOT_REDIS_URL"] == "rediss://:secret@cache.internal:6379/0"
        with pytest.raises(Unknown, match=r"worker a → postgresql cannot be broken.*verify-full"):
            site.link("worker a", "postgresql").latency(1)
        with pytest.raises(Unknown, match=r"worker a → redis cannot be broken.*rediss"):
            site.link("worker a", "redis").cut()
    finally:
        await site.aclose()


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "prefer"])
async def test_other_tls_goes_through(workspace: Workspace, sslmode: str) -> None:
    """Only the name would not fit; what stands in the URL stays."""
    site = elsewhere(workspace, f"{POSTGRES}?sslmode={sslmode}", REDIS)
    try:
        url = site.environment("worker", "worker a")["SSOT_DATABASE_URL"]
        assert site.link("worker a", "postgresql").proxied
        assert url.endswith(f"/postgres?sslmode={sslmode}")
    finally:
        await site.aclose()


@pytest.mark.long
async def test_servers_of_others_can_be_cut_off_and_not_be_harmed(
    servers: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By URL too, each link can be broken and only our connections are ended."""
    monkeypatch.setitem(os.environ, "SSOT_DATABASE_URL", servers.postgres.admin_url)
    monkeypatch.setitem(
        os.environ, "SSOT_REDIS_URL", servers.redis.url.replace("127.0.0.1", "localhost")
    )
    async with (
        platform_of("url") as platform,
        redis.asyncio.Redis.from_url(servers.redis.url) as stranger,
    ):
        await stranger.ping()
        user = await platform.user()
        for link in list(platform.faults.links):
            async with link.cut():
                pass
        await platform.answers(user)
        own = await stranger.client_id()
        assert await platform.faults.redis_clients_killed() >= 3
        assert await stranger.client_id() == own
        assert await platform.faults.terminated_backends("ssot-worker") >= 1
        await platform.answers(user)
        for name in ("postgresql", "redis"):
            with pytest.raises(Unknown, match=f"{name} cannot be frozen: it was not started by"):
                platform.faults.frozen(name)
            with pytest.raises(Unknown, match=f"{name} cannot be killed"):
                platform.faults.killed(name)
            with pytest.raises(Unknown, match=f"{name} cannot be restarted"):
                await platform.faults.restarted(name)
        with pytest.raises(Unknown, match="a pause would stop others too"):
            platform.faults.redis_paused()
        async with platform.faults.frozen("worker a"), platform.faults.killed("node a"):
            pass
        await platform.answers(user)


async def test_the_added_latency_is_on_the_ways_to_servers_and_nodes() -> None:
    """A round trip to either server, and from a client to a node, takes it at least."""
    async with platform_of("embedded", latency=0.02) as platform:
        for ends in (("worker a", "postgresql"), ("worker a", "redis"), ("client", "node a")):
            began = time.monotonic()
            assert await platform.site.link(*ends).answers() == ""
            assert time.monotonic() - began >= 0.02
        await platform.answers()


async def test_whose_server_has_a_weak_password_can_use_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the server of a developer, and no process of the platform's is given that URL."""
    weak = "postgresql://postgres:postgres@127.0.0.1:5432/postgres"
    monkeypatch.setenv("SSOT_DATABASE_URL", weak)
    monkeypatch.delenv("SSOT_ENVIRONMENT", raising=False)
    site = elsewhere(workspace, POSTGRES, REDIS)
    try:
        assert weak not in site.child({"A": "1"}, "provider", "provider").values()
    finally:
        await site.aclose()

"""The embedded servers: they answer, refuse wrong passwords, and come back as they were."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.support import alive, marked, until
from ssot.lab.services import (
    EmbeddedPostgres,
    EmbeddedValkey,
    ServiceError,
    Services,
    Workspace,
    open_services,
)
from ssot.lab.services.binaries import Installation

AS_ROOT = os.geteuid() == 0


async def query(url: str, text: str, **options: object) -> object:
    connection = await asyncpg.connect(url, timeout=5, **options)
    try:
        return await connection.fetchval(text)
    finally:
        await connection.close()


def client(url: str, **options: object) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(url, decode_responses=True, socket_timeout=5, **options)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_both_answer_with_their_passwords(services: Services):
    """The URLs of the services are all that a client needs."""
    assert await query(services.postgres.admin_url, "select 40 + 2") == 42
    async with client(services.redis.url) as valkey:
        assert await valkey.ping()
    assert services.capabilities == {"kill", "freeze", "restart"}
    assert services.kind == "embedded"


@pytest.mark.parametrize("way", ["tcp", "unix socket"])
async def test_postgres_refuses_a_wrong_password(services: Services, way: str):
    """Passwords are checked on both ways in, and the right one opens both."""
    postgres = services.postgres
    assert isinstance(postgres, EmbeddedPostgres)
    assert postgres.socket_directory is not None
    host = str(postgres.socket_directory) if way == "unix socket" else postgres.host
    where = {"host": host, "port": postgres.port, "user": "postgres", "database": "postgres"}
    password = urlsplit(postgres.admin_url).password
    connection = await asyncpg.connect(**where, password=password)
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**where, password="wrong")


@pytest.mark.parametrize("password", [None, "wrong"])
async def test_valkey_refuses_a_wrong_password_and_none(services: Services, password: str | None):
    """Nothing is answered without the password."""
    # redis-py would try a refused password again for seconds.
    where = {
        "host": services.redis.host,
        "port": services.redis.port,
        "retry": Retry(NoBackoff(), 0),
    }
    async with redis.asyncio.Redis(**where, password=urlsplit(services.redis.url).password) as one:
        assert await one.ping()
    async with redis.asyncio.Redis(**where, password=password) as other:
        with pytest.raises(redis.exceptions.AuthenticationError):
            await other.ping()


async def test_no_password_is_on_a_command_line_or_in_a_readable_file(services: Services):
    """Another user of the machine cannot learn a password of the servers."""
    secrets = {urlsplit(url).password for url in (services.postgres.admin_url, services.redis.url)}
    for process in psutil.process_iter(["cmdline", "environ"]):
        text = repr((process.info["cmdline"], process.info["environ"]))
        assert not any(secret in text for secret in secrets)
    root = services.postgres.log_path.parent
    for path in root.rglob("*"):
        readable = path.is_file() and path.stat().st_mode & 0o044
        if readable and not any(parent.stat().st_mode & 0o011 == 0 for parent in path.parents):
            assert not any(secret in path.read_text(errors="replace") for secret in secrets)
    assert not any(secret in repr(services) for secret in secrets)


async def test_the_settings_are_those_of_a_lab(services: Services):
    """What the checks rely on: commits are synchronous, statements are counted, 200 connections."""
    connection = await asyncpg.connect(services.postgres.admin_url)
    try:
        for name, value in {
            "synchronous_commit": "on",
            "fsync": "off",
            "max_connections": "200",
            "listen_addresses": "127.0.0.1",
            "password_encryption": "scram-sha-256",
            "shared_preload_libraries": "pg_stat_statements,auto_explain",
            "TimeZone": "UTC",
        }.items():
            assert await connection.fetchval("select current_setting($1)", name) == value
        await connection.execute("create extension if not exists pg_stat_statements")
        assert await connection.fetchval("select count(*) from pg_stat_statements") > 0
    finally:
        await connection.close()
    async with client(services.redis.url) as valkey:
        assert (await valkey.config_get("append*"))["appendonly"] == "yes"


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user's servers run as that user")
async def test_as_root_the_servers_run_as_nobody(services: Services):
    """Neither server has root's rights."""
    for pid in (services.postgres.pid, services.redis.pid):
        assert psutil.Process(pid).username() == "nobody"


async def test_two_labs_at_once_have_ports_and_data_of_their_own(
    services: Services, workspace: Workspace
):
    """What is written in one is not in the other."""
    other = await open_services("embedded", workspace)
    ports = {server.port for lab in (services, other) for server in (lab.postgres, lab.redis)}
    assert len(ports) == 4
    await query(services.postgres.admin_url, "create table here (id int)")
    assert await query(other.postgres.admin_url, "select to_regclass('here')::text") is None
    async with client(services.redis.url) as one, client(other.redis.url) as two:
        await one.set("here", "1")
        assert await two.get("here") is None


async def test_killed_servers_come_back_on_their_ports_with_their_data(workspace: Workspace):
    """After SIGKILL, a restart keeps everything that was acknowledged, twice over."""
    lab = await open_services("embedded", workspace)
    await query(lab.postgres.admin_url, "create table kept as select 1 as id")
    busy = await asyncpg.connect(lab.postgres.admin_url)
    working = asyncio.create_task(busy.execute("select count(*) from generate_series(1, 1e12)"))
    async with client(lab.redis.url) as valkey:
        await valkey.set("kept", "1")
    ports = lab.postgres.port, lab.redis.port
    for count in (1, 2):
        children = psutil.Process(lab.postgres.pid).children(recursive=True)
        pids = [lab.postgres.pid, lab.redis.pid, *(child.pid for child in children)]
        await asyncio.gather(lab.postgres.kill(), lab.redis.kill())
        assert not any(alive(pid) for pid in pids)
        assert not lab.postgres.running
        with pytest.raises(ServiceError, match="PostgreSQL is not running"):
            _ = lab.postgres.pid
        with pytest.raises(ConnectionRefusedError):
            await query(lab.postgres.admin_url, "select 1")

        await asyncio.gather(lab.postgres.restart(), lab.redis.restart())

        assert (lab.postgres.port, lab.redis.port) == ports
        assert await query(lab.postgres.admin_url, "select count(*) from kept") == 1
        async with client(lab.redis.url) as valkey:
            assert await valkey.get("kept") == "1"
            assert await valkey.incr("restarts") == count
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await working
    busy.terminate()


async def test_a_stop_is_in_order_and_cuts_clients_off(workspace: Workspace):
    """Stopping waits for no client, and the data are there after the next start."""
    lab = await open_services("embedded", workspace)
    connection = await asyncpg.connect(lab.postgres.admin_url)
    await connection.execute("create table kept as select 1 as id")
    position = lab.postgres.log_position()
    await lab.postgres.stop()
    await lab.redis.stop()
    assert not lab.postgres.running
    assert not lab.redis.running
    said = "\n".join(lab.postgres.log_lines(position))
    assert "received fast shutdown request" in said
    assert "database system is shut down" in said
    assert "starting PostgreSQL" not in said
    connection.terminate()
    await lab.postgres.start()
    await lab.redis.start()
    assert "not properly shut down" not in "\n".join(lab.postgres.log_lines(position))
    assert await query(lab.postgres.admin_url, "select count(*) from kept") == 1


async def test_a_frozen_server_answers_nobody_until_it_is_thawed(workspace: Workspace):
    """Open connections hang, also those that a backend of their own serves, and then go on."""
    lab = await open_services("embedded", workspace)
    connection = await asyncpg.connect(lab.postgres.admin_url)
    async with client(lab.redis.url, single_connection_client=True) as valkey:
        await valkey.ping()
        lab.postgres.freeze()
        lab.redis.freeze()
        assert lab.postgres.running
        slow = asyncio.create_task(connection.fetchval("select 7"))
        ping = asyncio.create_task(valkey.ping())
        done, _ = await asyncio.wait({slow, ping}, timeout=0.2)
        assert not done
        lab.postgres.thaw()
        lab.redis.thaw()
        assert await asyncio.wait_for(slow, 5) == 7
        assert await asyncio.wait_for(ping, 5)
    await connection.close()
    lab.postgres.freeze()
    await lab.postgres.restart()
    assert await query(lab.postgres.admin_url, "select 1") == 1


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
async def test_a_port_that_was_asked_for_and_is_taken_is_one_clear_line(
    workspace: Workspace, taken: int, kind: type[EmbeddedPostgres | EmbeddedValkey]
):
    """Another port is not what the caller wants; no process is left."""
    server = kind(workspace, port=taken)
    with pytest.raises(ServiceError, match=rf"^port {taken} is taken: .+$"):
        await server.start()
    assert not server.running


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
async def test_a_port_that_was_lost_while_the_server_was_down_is_one_clear_line(
    workspace: Workspace, kind: type[EmbeddedPostgres | EmbeddedValkey]
):
    """A restart does not move to another port, and comes up once the port is free again."""
    server = kind(workspace)
    await server.start()
    await server.kill()
    with (
        socket.create_server(("127.0.0.1", server.port)),
        pytest.raises(ServiceError, match=rf"^port {server.port} is taken: .+$"),
    ):
        await server.restart()
    await server.restart()
    assert server.running


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
async def test_a_server_that_ends_at_once_says_why(
    workspace: Workspace, kind: type[EmbeddedPostgres | EmbeddedValkey]
):
    """The error is one line, with what the program said and without the password."""
    server = kind(workspace)
    await server.start()
    url = server.admin_url if isinstance(server, EmbeddedPostgres) else server.url
    await server.stop()
    if isinstance(server, EmbeddedPostgres):
        (server.data_directory / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
        reason = "no_such_setting"
    else:
        manifest = workspace.root / "valkey/appendonlydir/appendonly.aof.manifest"
        manifest.write_text("broken\n")
        reason = "AOF"
    with pytest.raises(ServiceError, match=f"ended with code .*{reason}") as caught:
        await server.start()
    assert "\n" not in str(caught.value)
    assert str(urlsplit(url).password) not in str(caught.value)


async def test_an_initdb_that_fails_says_why(workspace: Workspace, tmp_path, monkeypatch):
    """What initdb printed is in the error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = workspace.root / "bin"
    folder.mkdir()
    for name, text in {
        "postgres": "exit 1",
        "initdb": "echo 'initdb: error: broken' >&2; exit 3",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    server = EmbeddedPostgres(
        workspace, installation=Installation(folder / "postgres", "18.0", "a test")
    )
    with pytest.raises(ServiceError, match=r"^initdb ended with code 3: initdb: error: broken$"):
        await server.start()


async def test_the_log_can_be_read_from_a_position(services: Services):
    """A check shows what the server said since it began, with the client's name and user."""
    position = services.postgres.log_position()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await query(
            services.postgres.admin_url,
            "select 1 / 0",
            server_settings={"application_name": "the check"},
        )
    lines = services.postgres.log_lines(position)
    assert any("the check postgres@postgres ERROR:  division by zero" in line for line in lines)
    assert not any("starting PostgreSQL" in line for line in lines)
    assert any("Ready to accept connections" in line for line in services.redis.log_lines())


async def test_a_cancelled_start_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    """Cancelled at any moment, cold or warm: closing removes all, another start succeeds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for moment in (0.01, 0.2, 0.6):
        async with Workspace.open("cancelled") as workspace:
            server = EmbeddedPostgres(workspace)
            starting = asyncio.create_task(server.start())
            await asyncio.wait({starting}, timeout=moment)
            starting.cancel()
            await asyncio.wait({starting})
            await server.start()
            assert await query(server.admin_url, "select 1") == 1
        assert not marked(workspace.root)
        assert not workspace.root.exists()


@pytest.mark.skipif(not Path("/proc/sysvipc/shm").exists(), reason="only Linux lists the segments")
async def test_a_killed_cluster_leaves_no_shared_memory():
    """The kernel has a few thousand segments only, and no process's end frees them."""

    def segments() -> set[str]:
        return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}

    async with Workspace.open("shared memory") as workspace:
        server = EmbeddedPostgres(workspace)
        await server.start()
        line = (server.data_directory / "postmaster.pid").read_text().splitlines()[6]
        segment = line.split()[1]
        assert segment in segments()
    assert segment not in segments()


async def test_a_lab_whose_orphaned_backend_lives_on_is_cleaned_up():
    """A backend that lost its postmaster, its parent and its environment is still found."""
    async with Workspace.open("orphan") as workspace:
        server = EmbeddedPostgres(workspace)
        await server.start()
        connection = await asyncpg.connect(server.admin_url)
        backend = connection.get_server_pid()
        # A stopped backend cannot notice that its postmaster is gone.
        os.kill(backend, signal.SIGSTOP)
        os.kill(server.pid, signal.SIGKILL)
        assert until(lambda: psutil.Process(backend).ppid() != server._process.pid)
        connection.terminate()
        assert alive(backend)
    assert not alive(backend)
    assert not workspace.root.exists()


async def test_an_unknown_kind_of_services_is_named(workspace: Workspace):
    """A misspelt kind lists those that exist."""
    with pytest.raises(ServiceError, match="embedded, compose, url, not 'docker'"):
        await open_services("docker", workspace)  # type: ignore[arg-type]

"""Servers that were there before: verified with real connections, each problem one clear line."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ssot.lab.services import (
    EmbeddedPostgres,
    ExternalPostgres,
    ExternalRedis,
    ServiceError,
    Services,
    Workspace,
    open_services,
)
from ssot.lab.services.binaries import find_postgres, postgres_places, server_user
from ssot.lab.services.external import compose_urls

PASSWORD = "p/a:s@s#w%o?r d"


def one_line(caught: pytest.ExceptionInfo[ServiceError], *passwords: str) -> str:
    message = str(caught.value)
    assert "\n" not in message
    for password in passwords:
        assert password not in message
        assert quote(password, safe="") not in message
    return message


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that nobody listens on and nobody gets."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are accepted by the kernel and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (
        "SSOT_DATABASE_URL",
        "SSOT_REDIS_URL",
        "POSTGRES_PASSWORD",
        "POSTGRES_PORT",
        "REDIS_PASSWORD",
        "REDIS_PORT",
    ):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


async def test_servers_given_by_url_are_used_and_left_as_they_are(
    services: Services, variables: pytest.MonkeyPatch
):
    """The URLs come from the environment; closing the workspace ends nothing there."""
    variables.setenv(
        "SSOT_DATABASE_URL", services.postgres.admin_url.replace("://", "+asyncpg://", 1)
    )
    variables.setenv("SSOT_REDIS_URL", services.redis.url)
    async with Workspace.open("guest") as workspace:
        guest = await open_services("url", workspace)
        assert guest.kind == "url"
        assert guest.capabilities == frozenset()
        assert guest.postgres.admin_url == services.postgres.admin_url
        assert guest.redis.url == services.redis.url
        assert (guest.postgres.host, guest.postgres.port) == ("127.0.0.1", services.postgres.port)
        assert (guest.redis.host, guest.redis.port) == ("127.0.0.1", services.redis.port)
        assert guest.postgres.log_lines(guest.postgres.log_position()) == []
        assert urlsplit(services.postgres.admin_url).password not in repr(guest)
    assert services.postgres.running
    assert services.redis.running


@pytest.mark.parametrize("name", ["kill", "restart", "stop", "freeze", "thaw", "pid"])
@pytest.mark.parametrize("which", ["PostgreSQL", "Redis"])
async def test_what_the_lab_did_not_start_it_does_not_control(
    services: Services, name: str, which: str
):
    """Nobody's server is killed or frozen by accident."""
    server: ExternalPostgres | ExternalRedis
    if which == "PostgreSQL":
        server = ExternalPostgres(services.postgres.admin_url, source="a test")
    else:
        server = ExternalRedis(services.redis.url, source="a test")
    await server.start()

    async def control() -> None:
        member = getattr(server, name)
        if coroutine := member():
            await coroutine

    with pytest.raises(ServiceError, match=f"this {which} was not started by the lab and "):
        await control()
    assert services.postgres.running


async def test_servers_of_compose_are_found_by_its_variables(
    services: Services, variables: pytest.MonkeyPatch
):
    """The environment is asked first; what it lacks has a default."""
    for name, server, url in (
        ("POSTGRES", services.postgres, services.postgres.admin_url),
        ("REDIS", services.redis, services.redis.url),
    ):
        variables.setenv(f"{name}_PASSWORD", urlsplit(url).password or "")
        variables.setenv(f"{name}_PORT", str(server.port))
    async with Workspace.open("guest") as workspace:
        guest = await open_services("compose", workspace)
    assert guest.postgres.admin_url == services.postgres.admin_url
    assert guest.redis.url == services.redis.url


def test_compose_reads_the_file_beside_it_literally(tmp_path, variables: pytest.MonkeyPatch):
    """A password with special signs survives the file and the URL; the environment wins."""
    (tmp_path / ".env").write_text(
        f"POSTGRES_PASSWORD='{PASSWORD}$HOME'\nREDIS_PASSWORD=from-file\nREDIS_PORT=1234\n"
    )
    variables.setenv("REDIS_PASSWORD", "from-environment")
    postgres, valkey = compose_urls(tmp_path)
    assert postgres.admin_url == (
        f"postgresql://postgres:{quote(PASSWORD + '$HOME', safe='')}@127.0.0.1:55432/postgres"
    )
    assert valkey.url == "redis://:from-environment@127.0.0.1:1234/0"


@pytest.mark.usefixtures("variables")
async def test_unset_variables_are_all_named(workspace: Workspace, tmp_path: Path):
    """One start is enough to learn every variable that is missing."""
    with pytest.raises(ServiceError, match=r"^not set: SSOT_DATABASE_URL and SSOT_REDIS_URL; "):
        await open_services("url", workspace)
    with pytest.raises(ServiceError, match=r"^not set: POSTGRES_PASSWORD and REDIS_PASSWORD, "):
        compose_urls(tmp_path)


def test_a_compose_port_that_is_no_number_is_named(tmp_path, variables):
    """The name of the variable is enough to correct it."""
    variables.setenv("POSTGRES_PASSWORD", PASSWORD)
    variables.setenv("REDIS_PASSWORD", PASSWORD)
    variables.setenv("REDIS_PORT", "six")
    with pytest.raises(ServiceError, match=r"^REDIS_PORT is not a port number$"):
        compose_urls(tmp_path)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "has no scheme"),
        ("localhost:5432/postgres", "has no scheme"),
        ("mysql://u:the-secret@h/d", "scheme is not one of"),
        ("{scheme}://:the-secret@/0", "has no host"),
        ("{scheme}://u:the-secret@h:port/0", "host or port cannot be read"),
        ("{scheme}://u:the-secret@h:0/0", "port is 0"),
        ("{scheme}://u:the-secret@h:99999/0", "host or port cannot be read"),
        ("{scheme}://u:the/-secret@h/0", "host or port cannot be read"),
        ("{scheme}://u:1#the-secret@h/0", "has a '#'"),
        ("{scheme}://u:x@the-secret/w@h/0", "has an '@' behind the host"),
        ("{scheme}://u:the-secret@[::1/0", "host or port cannot be read"),
    ],
)
@pytest.mark.parametrize("kind", [ExternalPostgres, ExternalRedis])
def test_a_malformed_url_says_what_is_wrong(kind, url, problem):
    """The error names the variable, the problem and an example, and quotes nothing of the URL."""
    scheme = "postgresql" if kind is ExternalPostgres else "redis"
    with pytest.raises(ServiceError) as caught:
        kind(url.format(scheme=scheme), source="SSOT_SOMETHING")
    message = one_line(caught, "the-secret", "-secret")
    assert "of SSOT_SOMETHING: the URL is malformed: " in message
    assert problem in message
    assert f"it should look like {scheme}://" in message


@pytest.mark.parametrize("kind", [ExternalPostgres, ExternalRedis])
async def test_a_server_that_is_down_is_named(kind, closed: int):
    """Host, port, and what to do."""
    scheme = "postgresql" if kind is ExternalPostgres else "redis"
    server = kind(
        f"{scheme}://u:the-secret@127.0.0.1:{closed}/0", source="a test", advice="start it"
    )
    with pytest.raises(ServiceError) as caught:
        await server.start()
    message = one_line(caught, "the-secret")
    assert f"127.0.0.1:{closed} refused the connection; start it" in message


@pytest.mark.parametrize("kind", [ExternalPostgres, ExternalRedis])
async def test_a_host_that_does_not_exist_is_named(kind):
    """A name that cannot be resolved is told apart from a server that is down."""
    scheme = "postgresql" if kind is ExternalPostgres else "redis"
    server = kind(f"{scheme}://u:the-secret@no-such-host.invalid/0", source="a test")
    with pytest.raises(ServiceError) as caught:
        await server.start()
    assert "no-such-host.invalid:" in one_line(caught, "the-secret")
    assert "no such host" in str(caught.value)


@pytest.mark.parametrize("kind", [ExternalPostgres, ExternalRedis])
async def test_a_server_that_is_silent_is_not_waited_for_without_end(
    kind, silent: int, monkeypatch
):
    """A black hole is an error after a deadline."""
    monkeypatch.setattr("ssot.lab.services.external._PATIENCE", 0.3)
    scheme = "postgresql" if kind is ExternalPostgres else "redis"
    server = kind(f"{scheme}://u:the-secret@127.0.0.1:{silent}/0", source="a test")
    with pytest.raises(ServiceError) as caught:
        await server.start()
    assert f"127.0.0.1:{silent} did not answer within 0.3 s" in one_line(caught, "the-secret")


async def test_a_refused_password_is_told(services: Services):
    """Each server refuses a wrong password and none; the right one is accepted."""
    port, redis_port = services.postgres.port, services.redis.port
    for server, text in (
        (f"postgresql://postgres:the-secret@127.0.0.1:{port}/postgres", "refused the password"),
        (f"postgresql://nobody:the-secret@127.0.0.1:{port}/postgres", "refused the password"),
        (f"redis://:the-secret@127.0.0.1:{redis_port}/0", "it refused the password"),
        (f"redis://127.0.0.1:{redis_port}/0", "it wants a password"),
    ):
        kind = ExternalPostgres if server.startswith("postgresql") else ExternalRedis
        with pytest.raises(ServiceError) as caught:
            await kind(server, source="a test").start()
        assert text in one_line(caught, "the-secret")
    await ExternalPostgres(services.postgres.admin_url, source="a test").start()
    await ExternalRedis(services.redis.url, source="a test").start()


async def test_a_user_who_may_not_create_databases_is_told_what_to_do(services: Services):
    """Both rights are needed, and having them is enough."""
    connection = await asyncpg.connect(services.postgres.admin_url)
    where = f"127.0.0.1:{services.postgres.port}/postgres"
    try:
        for name, rights, able in (
            ("no_right", "", False),
            ("half_the_rights", "createdb", False),
            ("both_rights", "createdb createrole", True),
        ):
            await connection.execute(f"create role {name} login password 'the-secret' {rights}")
            server = ExternalPostgres(f"postgres://{name}:the-secret@{where}", source="a test")
            if able:
                await server.start()
                continue
            with pytest.raises(ServiceError) as caught:
                await server.start()
            assert f'ALTER ROLE "{name}" CREATEDB CREATEROLE' in one_line(caught, "the-secret")
    finally:
        await connection.close()


async def test_a_database_that_is_not_there_is_told(services: Services):
    """For PostgreSQL by name, for Redis by number."""
    missing = services.postgres.admin_url.replace("/postgres", "/missing").replace(
        "//missing", "//postgres"
    )
    with pytest.raises(ServiceError, match='database "missing" does not exist'):
        await ExternalPostgres(missing, source="a test").start()
    for database, problem in (("99", "out of range"), ("one", "not a database number")):
        url = services.redis.url.removesuffix("0") + database
        with pytest.raises(ServiceError, match=problem):
            await ExternalRedis(url, source="a test").start()


async def test_a_postgres_that_speaks_tls_says_so(workspace: Workspace, tmp_path: Path, variables):
    """`ssl` is a capability of a server that has it on; embedded PostgreSQL is built without."""
    places = [
        place for place in postgres_places() if place.label.startswith("/usr/lib/postgresql/")
    ]
    if not any(place.program for place in places):
        pytest.skip("no PostgreSQL of the distribution is installed in /usr/lib/postgresql")
    variables.setenv("XDG_CACHE_HOME", str(tmp_path))
    server = EmbeddedPostgres(workspace, installation=find_postgres(places, user=server_user()))
    await server.start()
    _certify(server)
    connection = await asyncpg.connect(server.admin_url)
    await connection.execute("alter system set ssl = on")
    await connection.close()
    await server.restart()
    external = ExternalPostgres(server.admin_url + "?sslmode=require", source="a test")
    await external.start()
    assert external.ssl


def _certify(server: EmbeddedPostgres) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    for file, content in {
        "server.crt": certificate.public_bytes(serialization.Encoding.PEM),
        "server.key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    }.items():
        path = server.data_directory / file
        path.write_bytes(content)
        path.chmod(0o600)
        owner = server.data_directory.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

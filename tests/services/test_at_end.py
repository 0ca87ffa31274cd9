"""On somebody else's servers the watchdog removes exactly what it was told to, and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio

from services.support import alive, environment, until
from ssot.lab.services import Services, Workspace


async def names(url: str, table: str, column: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        return {row[0] for row in await connection.fetch(f"select {column} from {table}")}
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def url_as(url: str, user: str, password: str, database: str) -> str:
    parts = urlsplit(url)
    return f"postgresql://{user}:{password}@{parts.hostname}:{parts.port}/{database}"


@pytest.mark.parametrize("administrator", ["superuser", "ordinary"])
async def test_a_database_is_dropped_with_its_connections_and_roles(
    services: Services, administrator: str
):
    """The database and the roles named after it go, also when they are in use and own things."""
    root = services.postgres.admin_url
    ours = f"lab_{administrator}"
    if administrator == "superuser":
        admin = root
    else:
        await execute(root, "create role ordinary login password 'pw' createdb createrole")
        admin = url_as(root, "ordinary", "pw", "postgres")
    # A `_` in a name must not stand for any character.
    neighbour = f"labX{administrator}"
    await execute(
        admin,
        *(f'create database "{name}"' for name in (ours, neighbour)),
        f"create role \"{ours}_app\" login password 'pw'",
        f"create role \"{ours}_owner\" login password 'pw'",
        f'create role "{neighbour}_app"',
        f'create role "{ours}"',
    )
    if administrator == "superuser":
        # What a role owns in another database would keep it from being dropped.
        await execute(root, f'grant create on schema public to "{ours}_owner"')
        await execute(url_as(root, f"{ours}_owner", "pw", "postgres"), f"create table {ours}_t ()")
    else:
        await execute(admin, f'grant "{ours}_owner" to ordinary')
        await execute(admin, f'alter database {ours} owner to "{ours}_owner"')
        await execute(admin, f'revoke "{ours}_owner" from ordinary')
    user = await asyncpg.connect(url_as(root, f"{ours}_app", "pw", ours))
    try:
        async with Workspace.open("guest") as workspace:
            workspace.at_end({"drop_database": admin, "database": ours})
        assert user.is_closed() or await _is_cut_off(user)
    finally:
        user.terminate()
    databases = await names(root, "pg_database", "datname")
    roles = await names(root, "pg_roles", "rolname")
    assert ours not in databases
    assert {neighbour, "postgres", "template1"} <= databases
    assert not {f"{ours}_app", f"{ours}_owner"} & roles
    assert {f"{neighbour}_app", ours, "postgres"} <= roles


async def _is_cut_off(connection: asyncpg.Connection) -> bool:
    try:
        await connection.fetchval("select 1")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return True
    return False


async def test_a_database_that_was_never_made_is_no_problem(
    services: Services, caplog: pytest.LogCaptureFixture
):
    """The order is given before the database exists, which may then never happen."""
    async with Workspace.open("guest") as workspace:
        workspace.at_end({"drop_database": services.postgres.admin_url, "database": "never"})
        workspace.at_end({"delete_keys": services.redis.url, "prefix": "never:"})
    assert caplog.text == ""


@pytest.mark.parametrize("prefix", ["lab:1:", "lab[1]*?:", "läb\\:"])
async def test_exactly_the_keys_with_the_prefix_are_deleted(services: Services, prefix: str):
    """Signs that a pattern would read otherwise are taken as they are; other keys stay."""
    others = {"lab:10", "lab:2:x", f"x{prefix}", "lab1anything:", prefix[:-1], "LAB:1:x"}
    async with redis.asyncio.Redis.from_url(services.redis.url, decode_responses=True) as valkey:
        await valkey.flushall()
        await valkey.mset({f"{prefix}{number}": "1" for number in range(1200)})
        await valkey.mset(dict.fromkeys(others, "1"))
        async with Workspace.open("guest") as workspace:
            workspace.at_end({"delete_keys": services.redis.url, "prefix": prefix})
        assert set(await valkey.keys("*")) == others


async def test_a_killed_guest_leaves_nothing_on_the_servers(services: Services):
    """SIGKILL of the owner ends its processes and then removes its database and keys."""
    script = (
        "import json, signal, sys\nfrom ssot.lab.services import Workspace\n"
        "postgres, valkey = sys.stdin.readline().split()\n"
        "workspace = Workspace.open('guest')\n"
        "workspace.at_end({'drop_database': postgres, 'database': 'guest_db'})\n"
        "workspace.at_end({'delete_keys': valkey, 'prefix': 'guest:'})\n"
        "child = workspace.spawn(['/bin/sleep', '60'], environment={})\n"
        "print(json.dumps([str(workspace.root), child.pid, workspace.watchdog_pid]), flush=True)\n"
        "signal.pause()"
    )
    admin = services.postgres.admin_url
    await execute(admin, "create database guest_db", "create role guest_db_app")
    async with redis.asyncio.Redis.from_url(services.redis.url, decode_responses=True) as valkey:
        await valkey.mset({"guest:1": "1", "host:1": "1"})
        owner = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", script],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert owner.stdin is not None
        assert owner.stdout is not None
        owner.stdin.write(f"{admin} {services.redis.url}\n".encode())
        owner.stdin.flush()
        root, child, watchdog = json.loads(owner.stdout.readline())
        owner.kill()
        owner.communicate()
        assert until(lambda: not Path(root).exists() and not alive(child) and not alive(watchdog))
        assert await valkey.get("guest:1") is None
        assert await valkey.get("host:1") == "1"
    assert "guest_db" not in await names(admin, "pg_database", "datname")
    assert "guest_db_app" not in await names(admin, "pg_roles", "rolname")


async def test_what_the_watchdog_could_not_do_is_logged(
    services: Services, caplog: pytest.LogCaptureFixture, public_folder: Path
):
    """A step that is refused is one warning, without the URL, and keeps no other from being done.

    The database that the administrator is connected to is never dropped.
    """
    admin = services.postgres.admin_url
    (public_folder / "more").mkdir()
    async with Workspace.open("troubled") as workspace:
        workspace.at_end({"drop_database": admin, "database": "postgres"})
        workspace.at_end({"remove": str(public_folder / "more")})
    (record,) = caplog.records
    assert "could not drop database postgres: ValueError" in record.getMessage()
    assert str(urlsplit(admin).password) not in caplog.text
    assert not (public_folder / "more").exists()
    assert "postgres" in await names(admin, "pg_database", "datname")

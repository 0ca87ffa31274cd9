"""Each role as a real process: what it needs, what it says, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import psutil
import pytest
from streams.support import migrated, until

from ssot.auth.client import AuthClient
from ssot.auth.keys import new_signing_key
from ssot.configuration import RedisSettings
from ssot.context import new_id
from ssot.environment import IsolatedEnvironment
from ssot.lab.services import Services
from ssot.websocket.client import Client

KEY = new_signing_key()


def environment(
    role: str, urls: Mapping[str, str], redis: RedisSettings, **more: str
) -> dict[str, str]:
    """What a process of this role needs."""
    own = {
        "SSOT_DATABASE_URL": urls[
            "owner" if role == "migrate" else "auth" if role == "auth" else "app_a"
        ]
    }
    if role == "auth":
        own |= {"AUTH_SIGNING_KEY": KEY, "AUTH_PORT": "0", "AUTH_SCRYPT_LOG_N": "10"}
    if role in ("node", "worker"):
        own |= {"SSOT_REDIS_URL": redis.url.get_secret_value(), "SSOT_REDIS_PREFIX": redis.prefix}
    if role == "node":
        own |= {"SSOT_AUTH_URL": "http://127.0.0.1:1", "NODE_PORT": "0"}
    return own | more


@asynccontextmanager
async def serve(*arguments: str, **values: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``python -m ssot.serve``, killed at the end if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ssot.serve", *arguments,
        env=IsolatedEnvironment(os.environ).child_env(values),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def end(
    process: asyncio.subprocess.Process, *, seconds: float = 20
) -> tuple[int | None, str]:
    """Its exit code and what it logged."""
    async with asyncio.timeout(seconds):
        _, log = await process.communicate()
    return process.returncode, log.decode()


async def ready(process: asyncio.subprocess.Process) -> dict[str, str]:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = await process.stdout.readline()
    assert line, (await end(process))[1]
    return json.loads(line)  # type: ignore[no-any-return]


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("auth", "node")])
async def test_wrong_arguments_are_told(arguments: tuple[str, ...]) -> None:
    """The usage is one line, and the exit code 2."""
    async with serve(*arguments) as process:
        code, log = await end(process)
    assert code == 2
    assert log.startswith("usage:")
    assert len(log.splitlines()) == 1


async def test_a_wrong_environment_is_told_whole(servers: Services) -> None:
    """With nothing set, and with a wrong value, every problem of each role is listed; exit code 2."""
    expected = {
        "auth": ["SSOT_DATABASE_URL", "AUTH_SIGNING_KEY", "AUTH_PORT"],
        "node": ["SSOT_DATABASE_URL", "SSOT_REDIS_URL", "SSOT_AUTH_URL", "NODE_PORT"],
        "worker": ["SSOT_DATABASE_URL", "SSOT_REDIS_URL", "WORKER_MAX_RUNS"],
        "migrate": ["SSOT_DATABASE_URL"],
    }
    wrong = {"AUTH_PORT": "x", "NODE_PORT": "x", "WORKER_MAX_RUNS": "0"}

    async def check(role: str, names: list[str]) -> None:
        async with serve(role, **wrong) as process:
            code, log = await end(process)
        assert code == 2, log
        assert "Traceback" not in log
        assert [name for name in names if name not in log] == []
        assert f"{len(names)} problem" in log

    await asyncio.gather(*(check(*pair) for pair in expected.items()))


async def test_a_malformed_signing_key_is_told_before_anything_is_opened(
    database_urls: Mapping[str, str], redis_settings: RedisSettings
) -> None:
    """The auth service does not wait for a database to say that its key is wrong."""
    values = environment("auth", database_urls, redis_settings)
    values |= {
        "AUTH_SIGNING_KEY": "not-a-key-at-all",
        "SSOT_DATABASE_URL": "postgresql://a:closed-door-4@127.0.0.1:1/d",
    }
    async with serve("auth", **values) as process:
        code, log = await end(process, seconds=5)
    assert code == 2
    assert "AUTH_SIGNING_KEY" in log
    assert "not-a-key-at-all" not in log


async def test_a_log_masks_what_is_secret_by_its_type_and_not_by_its_name_alone(
    database_urls: Mapping[str, str], redis_settings: RedisSettings
) -> None:
    """The issuer of a token is no secret: who looks for one that differs must be able to read it."""
    values = environment("auth", database_urls, redis_settings)
    # An address that no machine has.
    values |= {"SSOT_TOKEN_ISSUER": "203.0.113.77", "AUTH_HOST": "203.0.113.77"}
    async with serve("auth", **values) as process:
        code, log = await end(process)
    assert code == 2
    assert "cannot listen on 203.0.113.77:0" in log


@pytest.mark.parametrize(("role", "variable"), [("auth", "AUTH_PORT"), ("node", "NODE_PORT")])
async def test_a_port_that_is_taken_is_one_clear_line(
    database_urls: Mapping[str, str], redis_settings: RedisSettings, role: str, variable: str
) -> None:
    """The message names the address and the variable to change; no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        values = environment(role, database_urls, redis_settings, **{variable: port})
        async with serve(role, **values) as process:
            code, log = await end(process)
    assert code == 2, log
    assert "Traceback" not in log
    (line,) = [line for line in log.splitlines() if "cannot listen" in line]
    assert f"127.0.0.1:{port}" in line
    assert variable in line


@pytest.mark.parametrize(
    ("host", "why"),
    [
        # An address that no machine has, and a name that nobody may have.
        ("203.0.113.77", "this machine has no such address"),
        ("nowhere.invalid", "the name is that of no address here"),
    ],
)
@pytest.mark.parametrize("role", ["auth", "node"])
async def test_an_address_that_cannot_be_had_is_told_with_its_variable(
    database_urls: Mapping[str, str], redis_settings: RedisSettings, role: str, host: str, why: str
) -> None:
    """No other port would help: the message names the host's variable alone."""
    name = role.upper()
    values = environment(role, database_urls, redis_settings, **{f"{name}_HOST": host})
    async with serve(role, **values) as process:
        code, log = await end(process)
    assert code == 2, log
    assert "Traceback" not in log
    (line,) = [line for line in log.splitlines() if "cannot listen" in line]
    assert f"cannot listen on {host}:0: {why}; choose another {name}_HOST" in line
    assert f"{name}_PORT" not in line


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("role", ["auth", "node"])
async def test_a_role_listens_at_an_address_of_ipv6(
    database_urls: Mapping[str, str], redis_settings: RedisSettings, role: str
) -> None:
    """Its address is told as a URL has it, in brackets, and can be connected to as it is."""
    values = environment(role, database_urls, redis_settings, **{f"{role.upper()}_HOST": "::1"})
    async with serve(role, **values) as process:
        told = urlsplit((await ready(process))["address"])
        assert told.netloc == f"[::1]:{told.port}"
        _, writer = await asyncio.open_connection(told.hostname, told.port)
        writer.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_role_that_is_asked_to_stop_ends_with_0(
    database_urls: Mapping[str, str], redis_settings: RedisSettings, number: signal.Signals
) -> None:
    """Each role says that it is ready and stops in order when told to, with no secret in its log."""

    async def check(role: str) -> None:
        values = environment(role, database_urls, redis_settings)
        async with serve(role, **values) as process:
            assert (await ready(process))["ready"] == role
            process.send_signal(number)
            code, log = await end(process)
        assert code == 0, log
        assert "Traceback" not in log
        assert f"{role}: stopped" in log
        for secret in (KEY, values["SSOT_DATABASE_URL"].split(":")[2].split("@")[0]):
            assert secret not in log

    await asyncio.gather(*map(check, ("auth", "node", "worker")))


async def test_a_role_that_still_waits_for_its_database_can_be_stopped(
    database_urls: Mapping[str, str], redis_settings: RedisSettings
) -> None:
    """A stop during the start is obeyed, and not after the start's deadline."""

    async def check(role: str) -> None:
        values = environment(role, database_urls, redis_settings)
        values |= {"SSOT_DATABASE_URL": "postgresql://a:closed-door-4@127.0.0.1:1/d"}
        async with serve(role, **values) as process:
            assert process.stderr is not None
            async with asyncio.timeout(20):
                while b"2/5" not in await process.stderr.readline():
                    pass
            process.terminate()
            code, log = await end(process, seconds=4)
        assert code == 0, log

    await asyncio.gather(*map(check, ("auth", "worker")))


async def test_a_refused_password_is_one_line_and_exit_code_1(
    database_urls: Mapping[str, str], redis_settings: RedisSettings
) -> None:
    """What the server refuses is told in our words, at once."""
    head, _, tail = database_urls["app_a"].rpartition("@")
    wrong = f"{head.rpartition(':')[0]}:not-the-password@{tail}"
    values = environment("worker", database_urls, redis_settings, SSOT_DATABASE_URL=wrong)
    async with serve("worker", **values) as process:
        code, log = await end(process)
    assert code == 1, log
    assert "SSOT_DATABASE_URL" in log
    assert "Traceback" not in log
    assert "not-the-password" not in log


@pytest.mark.long
async def test_all_brings_the_platform_up_and_takes_it_down(
    servers: Services, redis_settings: RedisSettings
) -> None:
    """One command from an empty database to a finished run, one signal to nothing left."""
    urls = await migrated(servers)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = {
        "MIGRATE_DATABASE_URL": urls["owner"], "AUTH_DATABASE_URL": urls["auth"],
        "WORKER_DATABASE_URL": urls["app_a"], "NODE_DATABASE_URL": urls["app_b"],
        "AUTH_SIGNING_KEY": KEY, "AUTH_PORT": str(port), "AUTH_SCRYPT_LOG_N": "10", "NODE_PORT": "0",
        "SSOT_REDIS_URL": servers.redis.url, "SSOT_REDIS_PREFIX": redis_settings.prefix,
        "SSOT_AUTH_URL": f"http://127.0.0.1:{port}",
    }  # fmt: skip
    async with serve("all", **values) as process:
        up = [await ready(process) for _ in range(4)]
        assert [one["ready"] for one in up] == ["migrate", "auth", "worker", "node"]
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 3
        async with AuthClient(up[1]["address"]) as auth:
            name = new_id("alice")
            await auth.create_account(name, "correct horse")
            login = await auth.login(name, "correct horse")
        async with (
            Client([up[3]["address"]], token=login.access_token) as client,
            asyncio.timeout(20),
        ):
            run = await client.send("what did I spend?", thread_id="t1", agent="usage_analysis")
            types = []
            async for received in client:
                assert received.event.run_id == run
                types.append(received.event.type)
                if received.event.type == "agent_completed":
                    break
        assert types[0] == "agent_started"
        process.terminate()
        code, log = await end(process)
    assert code == 0, log
    assert not any(child.is_running() for child in children)


@pytest.mark.long
async def test_all_stops_the_others_when_one_ends(
    servers: Services, redis_settings: RedisSettings
) -> None:
    """A role that dies takes the others with it, and the exit code says so."""
    urls = await migrated(servers)
    values = {
        "MIGRATE_DATABASE_URL": urls["owner"], "AUTH_DATABASE_URL": urls["auth"],
        "SSOT_DATABASE_URL": urls["app_a"], "AUTH_SIGNING_KEY": KEY, "AUTH_PORT": "0",
        "NODE_PORT": "0", "SSOT_REDIS_URL": servers.redis.url, "SSOT_REDIS_PREFIX": redis_settings.prefix,
        "SSOT_AUTH_URL": "http://127.0.0.1:1",
    }  # fmt: skip
    async with serve("all", **values) as process:
        for _ in range(4):
            await ready(process)
        children = psutil.Process(process.pid).children(recursive=True)
        (worker,) = [child for child in children if "worker" in child.cmdline()]
        worker.kill()
        code, log = await end(process)
    assert code == 1, log
    assert not any(child.is_running() for child in children)


async def test_all_starts_nothing_unless_every_role_could_start(
    servers: Services, database_urls: Mapping[str, str]
) -> None:
    """What any role lacks is told at once, with who needs it, and no role is started."""
    values = {
        "MIGRATE_DATABASE_URL": database_urls["owner"],
        "AUTH_DATABASE_URL": database_urls["auth"],
    }
    async with serve("all", **values) as process:
        code, log = await end(process)
    assert code == 2, log
    head, *problems = log.splitlines()
    assert head.endswith("4 problems in the settings:")
    told = [problem.partition(" is not set")[0] for problem in problems]
    assert told == [
        "  - [auth] AUTH_SIGNING_KEY",
        "  - [worker, node] SSOT_DATABASE_URL",
        "  - [worker, node] SSOT_REDIS_URL",
        "  - [node] SSOT_AUTH_URL",
    ]


@pytest.mark.long
async def test_all_ends_with_the_code_of_the_role_that_cannot_start(
    servers: Services, redis_settings: RedisSettings
) -> None:
    """What only the start can find, like a port that is taken, ends them all with its code."""
    urls = await migrated(servers)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = environment("node", urls, redis_settings) | {
            "MIGRATE_DATABASE_URL": urls["owner"], "AUTH_DATABASE_URL": urls["auth"],
            "AUTH_SIGNING_KEY": KEY, "AUTH_PORT": str(taken.getsockname()[1]),
        }  # fmt: skip
        async with serve("all", **values) as process:
            code, log = await end(process)
    assert code == 2, log
    assert "choose another AUTH_PORT" in log


async def test_all_can_be_stopped_while_it_starts(
    servers: Services, database_urls: Mapping[str, str]
) -> None:
    """A stop is obeyed before the next role is started, and leaves no process."""
    values = {
        "SSOT_DATABASE_URL": "postgresql://a:closed-door-4@127.0.0.1:1/d",
        "SSOT_REDIS_URL": "redis://127.0.0.1:1", "SSOT_AUTH_URL": "http://127.0.0.1:1",
        "AUTH_SIGNING_KEY": KEY,
    }  # fmt: skip
    async with serve("all", **values) as process:
        tree = psutil.Process(process.pid)
        await until(lambda: bool(tree.children()), what="the migration to start")
        (migration,) = tree.children()
        process.terminate()
        code, log = await end(process, seconds=8)
    assert code == 0, log
    assert not migration.is_running()

"""SIGHUP: a real role reads its files again, applies what it can, and goes on whatever they hold."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import stat
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from streams.support import migrated, until
from test_platform import end, environment, ready, serve

from ssot.auth.client import AuthClient
from ssot.auth.keys import new_signing_key
from ssot.configuration import RedisSettings
from ssot.context import new_id
from ssot.lab.services import Services

OLD, NEW = new_signing_key(), new_signing_key()


def of_files(values: Mapping[str, str], folder: Path, *names: str) -> dict[str, str]:
    """Without those names, and with a folder of files that may set them."""
    kept = {name: value for name, value in values.items() if name not in names}
    return {**kept, "SSOT_ENV_DIRECTORY": str(folder)}


async def logged(process: asyncio.subprocess.Process, pattern: str) -> list[str]:
    """What it logs until a line matches, that one last."""
    assert process.stderr is not None
    lines: list[str] = []
    async with asyncio.timeout(15):
        while not (lines and re.search(pattern, lines[-1])):
            line = (await process.stderr.readline()).decode()
            assert line, f"ended before it logged {pattern}:\n{''.join(lines)}"
            lines.append(line.rstrip("\n"))
    return lines


def key_and_lifetime(token: str) -> tuple[str, float]:
    """Which key signed the token, and how long it lives in whole tens of seconds, as it says itself.

    It is given up to a second more than was promised.
    """
    header, claims = (
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        for part in token.split(".")[:2]
    )
    return header["kid"], (claims["exp"] - claims["iat"]) // 10 * 10


async def test_a_role_takes_over_what_is_valid_and_refuses_what_is_not(
    tmp_path: Path, database_urls: Mapping[str, str], redis_settings: RedisSettings
) -> None:
    """Key, lifetime and pool change at once; a bad file changes nothing, and mended it works again."""
    file = tmp_path / ".env"
    before = f"AUTH_SIGNING_KEY={OLD}\nAUTH_ACCESS_TTL=600\n"
    file.write_text(before)
    values = of_files(
        environment("auth", database_urls, redis_settings), tmp_path, "AUTH_SIGNING_KEY"
    )
    text: list[str] = []
    async with serve("auth", **values) as process:
        address = (await ready(process))["address"]

        async def reloaded() -> str:
            process.send_signal(signal.SIGHUP)
            text.extend(await logged(process, r"environment (not )?reloaded"))
            return text[-1]

        async with AuthClient(address) as auth:
            name = new_id("alice")
            await auth.create_account(name, "correct horse")

            async def signed() -> tuple[str, float]:
                return key_and_lifetime((await auth.login(name, "correct horse")).access_token)

            old, seconds = await signed()
            assert seconds == 600

            file.write_text(
                f"AUTH_SIGNING_KEY={NEW}\nAUTH_ACCESS_TTL=60\nSSOT_DATABASE_POOL_SIZE=3\n"
            )
            told = await reloaded()
            assert told.endswith(
                "INFO ssot.serve: environment reloaded, 3 changed: "
                "AUTH_ACCESS_TTL, AUTH_SIGNING_KEY, SSOT_DATABASE_POOL_SIZE"
            )
            # Told when it is applied, so the next request has it.
            new, seconds = await signed()
            assert seconds == 60
            assert new != old
            applied = "\n".join(text)
            assert "auth.access_ttl, auth.signing_key: applied" in applied
            assert "database.pool_size: applied" in applied

            file.write_text(
                f"AUTH_SIGNING_KEY={OLD[:-1]}\nAUTH_ACCESS_TTL=soon\n"
                "no assignment\nSSOT_ENVIRONMENT=production\nX=${NOBODY}\n"
            )
            told = await reloaded()
            assert told.endswith(
                "ERROR ssot.serve: environment not reloaded, the one before goes on serving: "
                "5 problems in the settings:"
            )
            text += await logged(process, "AUTH_ACCESS_TTL")
            problems = "\n".join(text[text.index(told) + 1 :])
            for each in (
                f"{file}, line 3: is no assignment",
                f"{file}, line 4: SSOT_ENVIRONMENT decides which files are read",
                f"NOBODY is not set; X ({file}, line 5) refers to it",
                f"AUTH_SIGNING_KEY (from {file}, line 1): must be 32 bytes",
                f"AUTH_ACCESS_TTL (from {file}, line 2)",
            ):
                assert each in problems
            assert await signed() == (new, 60)

            file.write_text(
                f"AUTH_SIGNING_KEY={NEW}\nAUTH_ACCESS_TTL=30\nSSOT_DATABASE_POOL_SIZE=3\n"
                "AUTH_HOST=127.0.0.2\n"
            )
            told = await reloaded()
            assert told.endswith("environment reloaded, 2 changed: AUTH_ACCESS_TTL, AUTH_HOST")
            assert any("auth.host: takes effect at the next start" in line for line in text)
            assert await signed() == (new, 30)

            told = await reloaded()
            assert told.endswith("environment reloaded, 0 changed")
        process.terminate()
        code, log = await end(process)
    assert code == 0, log
    everything = "\n".join(text) + log
    for secret in (OLD, OLD[:-1], NEW):
        assert secret not in everything


async def test_a_credential_that_is_refused_is_told_and_the_pool_goes_on(
    tmp_path: Path, database_urls: Mapping[str, str], redis_settings: RedisSettings
) -> None:
    """A valid file may hold a wrong password: not all is applied, and the role serves as before."""
    file = tmp_path / ".env"
    url = database_urls["auth"]
    file.write_text(f"SSOT_DATABASE_URL={url}\n")
    values = of_files(
        environment("auth", database_urls, redis_settings), tmp_path, "SSOT_DATABASE_URL"
    )
    async with serve("auth", **values) as process:
        address = (await ready(process))["address"]
        wrong = re.sub(r"(://[^:]+:)[^@]+@", r"\1another-Pq7-word@", url)
        file.write_text(f"SSOT_DATABASE_URL={wrong}\nAUTH_ACCESS_TTL=60\n")
        process.send_signal(signal.SIGHUP)
        text = await logged(process, "environment reloaded")
        assert text[-1].endswith(
            "environment reloaded, not all is applied: AUTH_ACCESS_TTL, SSOT_DATABASE_URL"
        )
        text += await logged(process, "  - database: ")
        async with AuthClient(address) as auth:
            name = new_id("alice")
            await auth.create_account(name, "correct horse")
            token = (await auth.login(name, "correct horse")).access_token
            assert key_and_lifetime(token)[1] == 60
        process.terminate()
        code, log = await end(process)
    assert code == 0, log
    assert "another-Pq7-word" not in "\n".join(text) + log


async def test_a_hang_up_while_it_starts_is_done_when_it_is_up(
    tmp_path: Path, database_urls: Mapping[str, str], redis_settings: RedisSettings
) -> None:
    """In the middle of a command of a file: the start goes on, and the files are read again."""
    program = tmp_path / "lifetime"
    program.write_text(
        f"#!/bin/sh\necho >> {tmp_path}/begun\n"
        f"until test -e {tmp_path}/go; do sleep 0.02; done\ncat {tmp_path}/go\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / ".env").write_text(f"AUTH_ACCESS_TTL=$({program})\n")
    values = of_files(environment("auth", database_urls, redis_settings), tmp_path)
    async with serve("auth", **values, SSOT_ENV_COMMANDS=str(program)) as process:
        await until((tmp_path / "begun").exists, what="the start to run the command")
        process.send_signal(signal.SIGHUP)
        (tmp_path / "go").write_text("60\n")
        assert (await ready(process))["ready"] == "auth"
        told = (await logged(process, "environment reloaded"))[-1]
        assert told.endswith("environment reloaded, 0 changed")
        assert (tmp_path / "begun").read_text() == "\n\n"
        process.terminate()
        code, log = await end(process)
    assert code == 0, log


@pytest.mark.long
async def test_all_passes_it_on_to_every_role(
    tmp_path: Path, servers: Services, redis_settings: RedisSettings
) -> None:
    """Also while a role is only starting, which then does it as soon as it is up; none is ended."""
    urls = await migrated(servers)
    values = {
        "MIGRATE_DATABASE_URL": urls["owner"], "AUTH_DATABASE_URL": urls["auth"],
        "SSOT_DATABASE_URL": urls["app_a"], "AUTH_SIGNING_KEY": OLD, "AUTH_PORT": "0",
        "NODE_PORT": "0", "SSOT_REDIS_URL": servers.redis.url, "SSOT_AUTH_URL": "http://127.0.0.1:1",
        "SSOT_REDIS_PREFIX": redis_settings.prefix, "SSOT_ENV_DIRECTORY": str(tmp_path),
    }  # fmt: skip
    async with serve("all", **values) as process:
        assert (await ready(process))["ready"] == "migrate"
        tree = psutil.Process(process.pid)

        def auth_begun() -> bool:
            # The migration ends meanwhile, also between the look at it and the question.
            with contextlib.suppress(psutil.NoSuchProcess):
                return any("auth" in each.cmdline() for each in tree.children())
            return False

        await until(auth_begun, what="the auth service to begin")
        # It is no more than an interpreter by now.
        process.send_signal(signal.SIGHUP)
        for role in ("auth", "worker", "node"):
            assert (await ready(process))["ready"] == role
        await logged(process, "environment reloaded, 0 changed")
        (tmp_path / ".env").write_text("SSOT_DATABASE_POOL_SIZE=3\n")
        process.send_signal(signal.SIGHUP)
        for _ in ("auth", "worker", "node"):
            told = (await logged(process, "environment reloaded"))[-1]
            assert told.endswith("1 changed: SSOT_DATABASE_POOL_SIZE")
        process.terminate()
        code, log = await end(process)
    assert code == 0, log


async def test_a_migration_is_not_ended_by_it() -> None:
    """Its default would end the process in the middle of its work."""
    url = "postgresql://a:closed-door-4@127.0.0.1:1/d"
    async with serve(
        "migrate", SSOT_DATABASE_URL=url, SSOT_DATABASE_RETRY_DEADLINE="60"
    ) as process:
        status = Path(f"/proc/{process.pid}/status")

        def caught() -> bool:
            mask = re.search(r"^SigCgt:\s*(\w+)", status.read_text(), re.MULTILINE)
            return mask is not None and bool(int(mask[1], 16) >> (signal.SIGTERM - 1) & 1)

        await until(caught, what="the process to wait for PostgreSQL")
        os.kill(process.pid, signal.SIGHUP)
        process.terminate()
        code, log = await end(process)
    assert code == 0, log

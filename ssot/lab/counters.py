"""The servers' own counters: what PostgreSQL and Redis themselves say that was asked of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis.asyncio
import redis.exceptions

from ssot.lab.services import Services

__all__ = ["Counters", "Reading", "Served"]

_PATIENCE = 2.0
# What a client library, an idle worker and this very module ask, whatever a check does.
_NOT_COUNTED = frozenset(
    {"auth", "client", "command", "config", "hello", "info", "ping", "select"}
    | {"xautoclaim", "xreadgroup"}
)

# The lab's servers speak English (LC_ALL=C), as what this is read from is always theirs.
_WRONG_PASSWORD = b"FATAL:  password authentication failed"

_BY_STATEMENTS = """
SELECT coalesce(sum(s.calls), 0)::bigint,
       coalesce(sum(s.calls) FILTER (WHERE r.rolname IN ($1 || '_lab', $1 || '_lab_owner')), 0)
           ::bigint,
       pg_postmaster_start_time()
FROM pg_stat_statements s
JOIN pg_roles r ON r.oid = s.userid
WHERE starts_with(r.rolname, $1 || '_')
"""
# Where the extension is not to be had: flushed late, and reset by a crash.
_BY_DATABASE = """
SELECT xact_commit + xact_rollback, 0::bigint, pg_postmaster_start_time()
FROM pg_stat_database WHERE datname = $1
"""
_SESSIONS = """
SELECT application_name, count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%')
FROM pg_stat_activity
WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid()
GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """Both servers at one moment; ``None`` where a server did not answer.

    ``statements``, ``commands`` and ``redis_refused`` count since the server's start;
    ``postgresql_refused`` are the wrong passwords in its log since the lab's start. ``sessions``
    are connections by the name that they gave (``postgresql ssot-worker``), ``open_transactions``
    those of PostgreSQL that stand in a transaction and do nothing.
    """

    statements: int | None = None
    by_lab: int = 0
    commands: int | None = None
    postgresql_refused: int | None = None
    redis_refused: int | None = None
    postgresql_started: str = ""
    redis_started: str = ""
    sessions: dict[str, int] = field(default_factory=dict)
    open_transactions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """What one server did between two readings; ``count`` is ``None`` when it cannot be known.

    ``by_lab`` of the count were asked by the lab itself, to set a scene or to look. ``refused`` are
    logins that it refused, none of which is counted otherwise: 0 also when that cannot be known.
    """

    count: int | None
    started: str
    restarts: int
    by_lab: int = 0
    refused: int = 0


class Counters:
    """Reads the counters over connections of its own, which are no part of what is counted.

    ``database`` is the lab's, and the prefix of its roles: what an administrator asks is not
    counted, nor what workers ask of Redis while there is nothing to do.
    """

    def __init__(self, services: Services, database: str) -> None:
        self._services = services
        self._database = database
        self._url = services.postgres.admin_url
        if services.kind != "embedded":
            # The extension goes with the lab's database; in the administrator's it would stay.
            self._url = urlunsplit(urlsplit(self._url)._replace(path=f"/{database}"))
        self._postgres: asyncpg.Connection | None = None
        self._redis = redis.asyncio.Redis.from_url(
            services.redis.url, client_name="ssot-lab-counters", socket_timeout=None
        )
        self._by_statements: bool | None = None
        self._boots: dict[str, str] = {}
        # Each line of the log is read once; what has no end yet waits for the next reading.
        self._log_end = services.postgres.log_position()
        self._refused_logins = 0

    async def aclose(self) -> None:
        """Close both connections. Idempotent."""
        connection, self._postgres = self._postgres, None
        if connection is not None:
            connection.terminate()
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            await self._redis.aclose()

    async def read(self) -> Reading:
        """Both servers now; bounded, and without an error when one of them is down."""
        postgres, valkey = await asyncio.gather(self._read_postgres(), self._read_redis())
        return Reading(**postgres, **valkey, postgresql_refused=self._read_log())

    async def versions(self) -> dict[str, str]:
        """What the servers are."""
        postgres = await self._connected()
        found = {"postgresql": str(await postgres.fetchval("SHOW server_version"))}
        info = await self._redis.info("server")
        valkey = info.get("valkey_version")
        found["redis"] = f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
        return found

    def served(self, before: Reading, after: Reading) -> dict[str, Served]:
        """What each server did between two readings, by its own account."""
        return {
            "postgresql": dataclasses.replace(
                _served(
                    before.statements,
                    after.statements,
                    before.postgresql_started,
                    after.postgresql_started,
                ),
                by_lab=_served(
                    before.by_lab, after.by_lab, before.postgresql_started, after.postgresql_started
                ).count
                or 0,
                refused=max((after.postgresql_refused or 0) - (before.postgresql_refused or 0), 0),
            ),
            "redis": dataclasses.replace(
                _served(before.commands, after.commands, before.redis_started, after.redis_started),
                refused=_served(
                    before.redis_refused,
                    after.redis_refused,
                    before.redis_started,
                    after.redis_started,
                ).count
                or 0,
            ),
        }

    async def _connected(self) -> asyncpg.Connection:
        if self._postgres is None or self._postgres.is_closed():
            self._postgres = await asyncpg.connect(
                self._url,
                timeout=_PATIENCE,
                server_settings={"application_name": "ssot-lab-counters"},
            )
        if self._by_statements is None:
            try:
                await self._postgres.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
                await self._postgres.execute("SELECT 1 FROM pg_stat_statements LIMIT 1")
                self._by_statements = True
            except asyncpg.PostgresError:
                self._by_statements = False
        return self._postgres

    def _read_log(self) -> int | None:
        """How many wrong passwords are in PostgreSQL's log; ``None`` when that is out of reach."""
        path = self._services.postgres.log_path
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                file.seek(self._log_end)
                whole = file.read().rpartition(b"\n")
        except OSError:
            return None
        self._log_end += len(whole[0]) + len(whole[1])
        self._refused_logins += whole[0].count(_WRONG_PASSWORD)
        return self._refused_logins

    async def _read_postgres(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_PATIENCE):
                connection = await self._connected()
                query = _BY_STATEMENTS if self._by_statements else _BY_DATABASE
                count, by_lab, started = await connection.fetchrow(query, self._database)
                rows = await connection.fetch(_SESSIONS, self._database)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection, self._postgres = self._postgres, None
            if connection is not None:
                connection.terminate()
            return {}
        return {
            "statements": count,
            "by_lab": by_lab,
            "postgresql_started": _iso(started),
            "sessions": {f"postgresql {name}": number for name, number, _ in rows},
            "open_transactions": {name: idle for name, _, idle in rows if idle},
        }

    async def _read_redis(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_PATIENCE):
                statistics = await self._redis.info("commandstats")
                refused = (await self._redis.info("stats")).get("acl_access_denied_auth")
                server = await self._redis.info("server")
        except (OSError, TimeoutError, redis.exceptions.RedisError):
            await self._redis.connection_pool.disconnect()
            return {}
        counted = {
            name.removeprefix("cmdstat_").partition("|")[0]: values["calls"]
            for name, values in statistics.items()
        }
        # The server tells whole seconds only: the first answer of each boot is kept.
        boot = str(server["run_id"])
        if boot not in self._boots:
            up = dt.timedelta(seconds=int(server["uptime_in_seconds"]))
            self._boots[boot] = _iso(dt.datetime.now(dt.UTC) - up)
        return {
            "commands": sum(v for name, v in counted.items() if name not in _NOT_COUNTED),
            "redis_refused": refused,
            "redis_started": f"{self._boots[boot]} {boot[:8]}",
        }


def _served(before: int | None, after: int | None, was: str, is_: str) -> Served:
    """Counters of a server that was started again begin at nothing."""
    again = bool(was and is_) and was.rpartition(" ")[2] != is_.rpartition(" ")[2]
    if after is None:
        return Served(None, is_.partition(" ")[0], 0)
    lost = again or before is None
    count = after if lost else max(after - (before or 0), 0)
    return Served(count, is_.partition(" ")[0], int(again))


def _iso(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

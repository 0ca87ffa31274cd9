"""The PostgreSQL and the Redis of a lab, whichever way they were come by."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, get_args

from ssot.lab.services.errors import ServiceError
from ssot.lab.services.external import compose_urls, environment_urls
from ssot.lab.services.postgres import EmbeddedPostgres
from ssot.lab.services.server import PostgresServer, RedisServer
from ssot.lab.services.valkey import EmbeddedValkey
from ssot.lab.services.workspace import Workspace

__all__ = ["Kind", "Services", "open_services"]

Kind = Literal["embedded", "compose", "url"]


@dataclass(frozen=True, slots=True)
class Services:
    """Both servers, and what can be done to them.

    ``capabilities`` are some of ``kill``, ``freeze``, ``restart`` (the lab started the servers) and
    ``ssl`` (PostgreSQL speaks TLS).
    """

    kind: Kind
    postgres: PostgresServer
    redis: RedisServer
    capabilities: frozenset[str]


async def open_services(kind: Kind, workspace: Workspace) -> Services:
    """Start, or for ``compose`` and ``url`` verify, both servers at the same time.

    Closing the workspace ends the servers that were started; those that were there before are left
    as they are. Cancelled, it leaves nothing that closing the workspace does not remove.

    :raises ServiceError: the first problem, in one line.
    """
    if kind == "embedded":
        embedded = EmbeddedPostgres(workspace), EmbeddedValkey(workspace)
        await _start(*embedded)
        return Services(kind, *embedded, frozenset({"kill", "freeze", "restart"}))
    if kind not in get_args(Kind):
        raise ServiceError(f"services is one of {', '.join(get_args(Kind))}, not {kind!r}")
    external = compose_urls() if kind == "compose" else environment_urls()
    await _start(*external)
    postgres, redis = external
    return Services(kind, postgres, redis, frozenset({"ssl"} if postgres.ssl else ()))


async def _start(postgres: PostgresServer, redis: RedisServer) -> None:
    # Not a TaskGroup: the caller gets the one error, not a group.
    starts = [asyncio.create_task(server.start()) for server in (redis, postgres)]
    try:
        await asyncio.gather(*starts)
    finally:
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)

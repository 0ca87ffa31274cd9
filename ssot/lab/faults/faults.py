"""Everything that can be broken in a lab, by name, and what it takes until it works again."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal
from urllib.parse import urlsplit

from ssot.lab.checks import Unknown
from ssot.lab.faults.fault import RECOVERY, Fault, until
from ssot.lab.faults.link import Link
from ssot.lab.faults.links import Links
from ssot.lab.faults.log import FaultLog
from ssot.lab.faults.probes import Kind, ask, health
from ssot.lab.faults.process import Frozen, Killed, Restarted
from ssot.lab.faults.sessions import RedisPaused, kill_clients, terminate_backends
from ssot.lab.processes import Process
from ssot.lab.services import Server, Services
from ssot.lab.services.signals import is_frozen

__all__ = ["Faults"]

_PARTS = {"postgresql": "database", "redis": "redis"}
"""What ``/health`` of a platform process calls the servers."""


class Faults:
    """The faults of one lab.

    Ends and targets are named ``auth``, ``node a``, ``worker a``, …, ``postgresql``, ``redis``;
    links begin also at ``client`` and, for what a notebook itself opens, at ``kernel``. A target
    may be given as the process or server, too. ``processes`` are those that there are now, by
    name; ``database`` is the lab's. What a server cannot do raises
    :class:`~ssot.lab.checks.Unknown`.
    """

    def __init__(
        self,
        *,
        services: Services,
        database: str,
        processes: Callable[[], Mapping[str, Process]],
        seed: int,
        log: FaultLog,
    ) -> None:
        self.log = log
        self._services = services
        self._database = database
        self._processes = processes
        self._open: dict[Fault, None] = {}
        self.links = Links(
            seed=seed, log=log, open_faults=self._open, recovered=self._link_recovered
        )

    @property
    def open(self) -> tuple[Fault, ...]:
        """The faults that were made and have not been recovered from."""
        return tuple(self._open)

    # Links

    def link(self, near: str, far: str) -> Link:
        """The link between two ends; :class:`LookupError` with the nearest when there is none."""
        return self.links.find(near, far)

    @asynccontextmanager
    async def latency(self, round_trip: float) -> AsyncIterator[None]:
        """Every link of the platform and of its clients takes ``round_trip`` seconds more.

        Of the links that there are by now: one that is opened later has none of it.
        """
        async with AsyncExitStack() as stack:
            there = {"client", *self._things()}
            for link in self.links:
                if link.proxied and {link.near, link.far} <= there:
                    await stack.enter_async_context(link.latency(round_trip / 2))
            yield

    # Processes and servers

    def frozen(self, target: str | Process | Server) -> Frozen:
        """Entered, it stands still with all its children; left, it goes on and answers again."""
        name, thing = self._controlled(target, "freeze")
        return Frozen(
            name, thing, log=self.log, open_faults=self._open, recovered=self._target_recovered
        )

    def killed(self, target: str | Process | Server) -> Killed:
        """Entered, it is dead (SIGKILL); left, it is up again, started if nobody has done so."""
        name, thing = self._controlled(target, "kill")
        return Killed(
            name,
            thing,
            log=self.log,
            open_faults=self._open,
            recovered=self._target_recovered,
            wanted=lambda: self._is_there(name),
        )

    async def restarted(self, target: str | Process | Server) -> None:
        """Stop it in order and start it again; returns when it works again."""
        name, thing = self._controlled(target, "restart")
        async with Restarted(
            name,
            thing,
            log=self.log,
            open_faults=self._open,
            recovered=self._target_recovered,
            wanted=lambda: self._is_there(name),
        ):
            pass

    # Sessions of the servers

    async def terminated_backends(self, application_name: str | None = None) -> int:
        """End the sessions in PostgreSQL of an application such as ``ssot-worker``.

        Without a name those of the whole platform, but not the lab's own. Returns how many there
        were, once they are gone.
        """
        record = self.log.begin("terminated", "postgresql", detail=application_name or "")
        try:
            return await terminate_backends(
                self._services.postgres.admin_url, self._database, application_name
            )
        finally:
            self.log.end(record)

    async def redis_clients_killed(
        self,
        name: str | None = None,
        type: Literal["normal", "pubsub"] | None = None,  # noqa: A002 - as Redis calls it
    ) -> int:
        """End the connections to Redis of a client such as ``ssot-node``, or of one kind, or all.

        Of a Redis that others use too, only those of this lab's links. Returns how many there were,
        once they are gone.
        """
        addresses = None
        if self._services.kind != "embedded":
            addresses = {a for link in self.links if link.far == "redis" for a in link.addresses()}
            if any(not link.proxied for link in self.links if link.far == "redis"):
                raise Unknown(
                    "this lab's connections cannot be told from others: no proxy to Redis"
                )
        record = self.log.begin("terminated", "redis", detail=name or type or "")
        try:
            return await kill_clients(
                self._services.redis.url, name=name, kind=type, addresses=addresses
            )
        finally:
            self.log.end(record)

    def redis_paused(self, mode: Literal["ALL", "WRITE"] = "ALL") -> RedisPaused:
        """Entered, Redis answers no command, or none that writes; left, it answers them all."""
        if self._services.kind != "embedded":
            raise Unknown("Redis was not started by the lab: a pause would stop others too")
        return RedisPaused(
            self._services.redis.url,
            mode,
            log=self.log,
            open_faults=self._open,
            recovered=self._target_recovered,
        )

    # The end of a check

    async def heal(self, *, patience: float = RECOVERY) -> None:
        """End every fault that is still open, the last one first, and wait for recovery.

        All are ended before the first is waited for; servers are waited for first, because
        processes need them. Afterwards none is open, whatever happened.

        :raises NotRecovered: of the first that did not recover.
        """
        open_faults = list(reversed(self._open))
        first: Exception | None = None
        for fault in open_faults:
            await fault.end()
        for fault in sorted(open_faults, key=lambda fault: fault.target not in self._servers()):
            try:
                await fault.heal(patience=patience)
            except Exception as error:
                first = first or error
            finally:
                fault.give_up()
        if first is not None:
            raise first

    async def aclose(self) -> None:
        """Close the links. Idempotent."""
        await self.links.aclose()

    # Inside: who is who

    def _servers(self) -> dict[str, Server]:
        return {"postgresql": self._services.postgres, "redis": self._services.redis}

    def _things(self) -> dict[str, Process | Server]:
        return {**self._processes(), **self._servers()}

    def _is_there(self, name: str) -> bool:
        return name in self._things()

    def _controlled(
        self, target: str | Process | Server, capability: Literal["kill", "freeze", "restart"]
    ) -> tuple[str, Process | Server]:
        things = self._things()
        if isinstance(target, str):
            name = target
            if name not in things:
                close = difflib.get_close_matches(name, things, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(things)}"
                raise LookupError(f"nothing is called {name!r} here: {hint}")
        else:
            names = [name for name, thing in things.items() if thing is target]
            if not names:
                raise LookupError(f"{target!r} is no process or server of this lab")
            (name,) = names
        if name in self._servers() and capability not in self._services.capabilities:
            verb = {"kill": "killed", "freeze": "frozen", "restart": "restarted"}[capability]
            raise Unknown(
                f"{name} cannot be {verb}: it was not started by the lab "
                f"(services={self._services.kind})"
            )
        return name, things[name]

    # Inside: recovery

    def _is_up(self, name: str) -> bool:
        """Whether it could answer; what no longer belongs to the lab does not."""
        thing = self._things().get(name)
        if isinstance(thing, Process):
            return thing.running and not thing.frozen and thing.is_ready
        if name == "redis" and any(isinstance(f, RedisPaused) and f.acting for f in self._open):
            return False
        if thing is None or not thing.running:
            return False
        return "freeze" not in self._services.capabilities or not is_frozen(thing.pid)

    def _works(self, near: str, far: str) -> bool:
        """Whether nothing is known that would keep these two apart."""
        try:
            link = self.links.find(near, far)
        except LookupError:
            return False
        return not link.suffering and self._is_up(far)

    async def _link_recovered(self, link: Link, say: Callable[[str], None]) -> None:
        """A fresh connection is answered, and the process at the near end has seen it heal.

        ``/health`` of auth and nodes makes a real round trip to the server in question. Of a worker
        the traffic is seen: it asks Redis for commands all the time, PostgreSQL only in a run. What
        is down because of another fault is left to the recovery from that one.
        """
        if link.suffering or not self._is_up(link.far):
            return
        if link.proxied:
            await until(link.answers, say)
        process = self._processes().get(link.near)
        if process is None or not self._is_up(link.near):
            return
        if process.has_health:
            if link.far in _PARTS:
                await self._healthy(process, {_PARTS[link.far]}, say)
        elif link.far == "redis" and link.proxied:
            await link.carries(say)
        if process.role == "node" and link.far == "redis" and link.proxied:
            # One for questions, and the one on which it hears of events.
            await until(
                lambda: _result(
                    "" if link.traffic().open > 1 else f"{link.near} is not subscribed"
                ),
                say,
            )

    async def _target_recovered(self, name: str, say: Callable[[str], None]) -> None:
        """It answers, and so do those who depend on it."""
        thing = self._things().get(name)
        if thing is None or not self._is_up(name):
            return
        if isinstance(thing, Process):
            parts = {_PARTS[far] for far in _PARTS if self._works(name, far)}
            if thing.has_health:
                await self._healthy(thing, parts, say)
            elif "redis" in parts:
                await self.links.find(name, "redis").carries(say)
            return
        kinds: Mapping[str, Kind] = {"postgresql": "postgresql", "redis": "redis"}
        await until(lambda: ask(kinds[name], thing.host, thing.port), say)
        for link in self.links:
            if link.far == name and link.near in self._processes():
                await self._link_recovered(link, say)

    async def _healthy(self, process: Process, parts: set[str], say: Callable[[str], None]) -> None:
        where = urlsplit(str(process.address))

        async def probe() -> str:
            wrong = await health(where.hostname or "", where.port or 0, parts)
            return f"{process.name}: {wrong}" if wrong else ""

        await until(probe, say)


async def _result(wrong: str) -> str:
    return wrong

"""The platform that the tests of faults break: a site with its processes, and a client of it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from ssot.auth.client import AuthClient
from ssot.lab.faults.faults import Faults
from ssot.lab.faults.log import FaultLog
from ssot.lab.processes import Process
from ssot.lab.services import Kind, Workspace
from ssot.lab.site import Site
from ssot.lab.timeline import Timeline
from ssot.lab.users import LabClient, User
from ssot.websocket.client import Client

FIVE = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]


class Platform:
    """A site with ``auth``, ``worker a`` and ``node a``."""

    site: Site

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.processes: dict[str, Process] = {}
        self.log = FaultLog(self.timeline)

    @property
    def faults(self) -> Faults:
        return self.site.faults

    def process(self, role: str, name: str) -> Process:
        process = self.processes[name] = Process(
            role,
            name,
            workspace=self.site.workspace,
            environment=self.site.environment(role, name),
            timeline=self.timeline,
        )
        return process

    async def user(self, name: str = "alice") -> User:
        login, password = f"{name}-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        async with AuthClient(self.site.reach("auth")) as auth:
            user_id = await auth.create_account(login, password)
            token = (await auth.login(login, password)).access_token
        return User(name, login, user_id, password, token, ())

    @asynccontextmanager
    async def client(self, user: User | None = None) -> AsyncIterator[LabClient]:
        user = user or await self.user()
        client = LabClient(
            user, Client([self.site.reach("node a")], token=user.token), self.timeline
        )
        await client.open()
        try:
            yield client
        finally:
            await client.aclose()

    async def answers(self, user: User | None = None) -> None:
        """A question gets its five events in order."""
        async with self.client(user) as client:
            run = await client.ask("What did I spend?")
            await client.finished(run)
            assert client.types(run) == FIVE


@asynccontextmanager
async def platform_of(kind: Kind, *, latency: float = 0.0) -> AsyncIterator[Platform]:
    """A platform on servers of this kind; nothing of it is left at the end."""
    platform = Platform()
    async with AsyncExitStack() as stack:
        workspace = await stack.enter_async_context(Workspace.open("platform"))
        platform.site = site = await Site.open(
            workspace,
            services=kind,
            latency=latency,
            stack=stack,
            seed=7,
            log=platform.log,
            processes=lambda: platform.processes.values(),
        )
        started = [
            platform.process("auth", "auth"),
            platform.process("worker", "worker a"),
            platform.process("node", "node a"),
        ]
        await asyncio.gather(site.migrate(), *(process.start() for process in started))
        yield platform
        for process in started:
            await process.kill()

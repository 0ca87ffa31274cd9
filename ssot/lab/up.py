"""Servers for processes that are started by hand: up until they are no longer wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ssot.lab.services import Kind, Workspace
from ssot.lab.site import Site
from ssot.platform import ROLES

__all__ = ["up"]


@asynccontextmanager
async def up(services: Kind) -> AsyncIterator[Path]:
    """Bring up servers and a database, and yield a folder with ``<role>.env`` for each role.

    The files hold passwords, are readable by their owner only, and go with everything else on
    leaving, however that comes about. The schema is left to ``python -m ssot.serve migrate``.
    """
    async with AsyncExitStack() as stack:
        workspace = await stack.enter_async_context(Workspace.open("up"))
        site = await Site.open(workspace, services=services, latency=0, stack=stack)
        folder = workspace.root / "env"
        folder.mkdir(mode=0o700)
        for role in ROLES:
            lines = [f"{name}={value}\n" for name, value in site.variables(role).items()]
            await asyncio.to_thread(_write, folder / f"{role}.env", "".join(lines))
        yield folder


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)

"""AgentRegistry: factories by name; a fresh agent for every run, never a shared one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from ssot.agents.tools import Tool
from ssot.context import UserContext
from ssot.errors import AgentFailed, SsotError, UnknownAgent

__all__ = ["Agent", "AgentRegistry", "AgentSession", "Factory"]


class AgentSession(Protocol):
    """What a running agent may do."""

    @property
    def context(self) -> UserContext:
        """Whose run this is."""

    def think(self, text: str) -> None:
        """Tell the user what the agent is considering: ``agent_thinking``."""

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool as the user; see :meth:`ssot.agents.tools.ToolDispatcher.call`."""


class Agent(Protocol):
    """An agent: made for one run."""

    @property
    def tools(self) -> Iterable[Tool[Any]]:
        """The tools that it may call."""

    async def run(self, text: str, session: AgentSession) -> dict[str, Any]:
        """Work on the user's text; the result is JSON."""


Factory = Callable[[UserContext], Agent | Awaitable[Agent]]


class AgentRegistry:
    """Which agents there are, and one instance for each run."""

    def __init__(self) -> None:
        self._factories: dict[str, Factory] = {}

    def __repr__(self) -> str:
        return f"<AgentRegistry of {', '.join(sorted(self._factories)) or 'nothing'}>"

    @property
    def names(self) -> tuple[str, ...]:
        """The registered names, sorted."""
        return tuple(sorted(self._factories))

    def register(self, name: str, factory: Factory) -> None:
        """Register a factory; :class:`ValueError` when the name is taken by another."""
        if self._factories.get(name, factory) is not factory:
            raise ValueError(f"an agent {name!r} is registered already; unregister it first")
        self._factories[name] = factory

    async def create(self, name: str, context: UserContext) -> Agent:
        """A fresh agent for ``context``.

        Raises :class:`UnknownAgent` only when nothing is registered; an error of the factory
        itself is :class:`AgentFailed`, with the cause. No lock is held while a factory runs.
        """
        factory = self._factories.get(name)
        if factory is None:
            raise UnknownAgent(name, self.names)
        try:
            made = factory(context)
            return await made if inspect.isawaitable(made) else made
        except asyncio.CancelledError:
            raise
        except SsotError:
            raise
        except Exception as error:
            raise AgentFailed(f"the factory of agent {name!r} raised {error!r}") from error

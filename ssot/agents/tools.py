"""Tools, and the dispatcher that one run calls them through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from ssot.agents.abc import Transactions
from ssot.agents.emitter import Emitter
from ssot.context import UserContext
from ssot.errors import (
    AgentFailed,
    Fenced,
    PermissionDenied,
    ProtocolError,
    SsotError,
    Unavailable,
)
from ssot.tracing import Spans

__all__ = ["Tool", "ToolDispatcher"]

A = TypeVar("A", bound=msgspec.Struct)

_spans = Spans("agents")


@dataclass(frozen=True, slots=True)
class Tool(Generic[A]):
    """A named piece of SQL work on behalf of a user.

    ``body`` gets a session in a transaction that is the user's, and arguments that were checked
    against ``arguments``. It returns JSON, and may be run again if the database restarts.
    """

    name: str
    arguments: type[A]
    body: Callable[[AsyncSession, A], Awaitable[Any]]


class ToolDispatcher:
    """The tools of one run: made for it, used by it alone.

    Each call is one transaction as the run's user, between its ``tool_executing`` and
    ``tool_completed`` events. A run never holds a transaction open between calls.
    """

    def __init__(
        self,
        tools: Iterable[Tool[Any]],
        *,
        context: UserContext,
        transactions: Transactions,
        emitter: Emitter,
        timeout: float,
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._context = context
        self._transactions = transactions
        self._emitter = emitter
        self._timeout = timeout

    async def call(self, name: str, **arguments: Any) -> Any:
        """The tool's result.

        Raises :class:`PermissionDenied` for a tool that this run has not, :class:`ProtocolError`
        for arguments that it does not take, and :class:`AgentFailed` when it fails or exceeds
        its timeout. :class:`~ssot.errors.Unavailable` should be let pass: the run is then made
        again as a whole, when its server is back.
        """
        with _spans.span(
            "agents.tool", user=self._context.user_id, tool=name, run_id=self._context.run_id
        ):
            return await self._call(name, arguments)

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        tool = self._tools.get(name)
        if tool is None:
            have = ", ".join(sorted(self._tools)) or "none"
            raise PermissionDenied(f"this run may not call the tool {name!r}; it has: {have}")
        try:
            checked = msgspec.convert(arguments, tool.arguments)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"the tool {name!r} refused its arguments: {error}") from None
        timer = asyncio.timeout(self._timeout)
        index = self._emitter.emit("tool_executing", tool=name, data=dict(arguments))
        try:
            async with timer:
                result = await self._transactions.run_transaction(
                    self._context,
                    lambda session: tool.body(session, checked),
                    # The same call of a replayed run returns what it returned the first time.
                    key=f"{self._context.run_id}:{index}",
                )
        except (Fenced, Unavailable):
            # Nothing is known of the call yet: it is made again with the run.
            raise
        except Exception as error:
            failure = self._failure(name, error, timed_out=timer.expired())
            # The pair is closed, so that an agent may catch the failure and go on.
            self._emitter.emit("tool_completed", tool=name, data={"error": str(failure)})
            if failure is error:
                raise
            raise failure from error
        self._emitter.emit("tool_completed", tool=name, data={"result": result})
        return result

    def _failure(self, name: str, error: Exception, *, timed_out: bool) -> SsotError:
        if timed_out:
            return AgentFailed(f"the tool {name!r} took longer than {self._timeout:g} s")
        if isinstance(error, SsotError):
            return error
        # The message goes to the user; what a tool raised may hold anything.
        return AgentFailed(f"the tool {name!r} raised {type(error).__name__}")

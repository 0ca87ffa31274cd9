"""The execution engine: takes one command through one run, from its first event to its last."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Span

from ssot.agents.abc import EventSink, Runs, Transactions
from ssot.agents.contexts import context_of
from ssot.agents.emitter import Emitter
from ssot.agents.registry import AgentRegistry
from ssot.agents.tools import ToolDispatcher
from ssot.commands import RunCommand
from ssot.configuration import AgentSettings
from ssot.context import UserContext
from ssot.errors import Fenced, SsotError, Unavailable
from ssot.events import check_json
from ssot.limit import Limit
from ssot.tracing import Spans, mark_failed

__all__ = ["EngineStatistics", "ExecutionEngine"]

_log = logging.getLogger(__name__)
_spans = Spans("agents")


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Runs under way and ended."""

    running: int
    completed: int
    failed: int


class ExecutionEngine:
    """Runs agents within limits: so many at a time, so many of one user, each so long.

    The record of a run is written before its last event, so that a user who sees the end can read
    the result. A run that was recorded as ended is not run again: its last event is only repeated.
    """

    def __init__(
        self,
        registry: AgentRegistry,
        *,
        runs: Runs,
        transactions: Transactions,
        settings: AgentSettings,
    ) -> None:
        self._registry = registry
        self._runs = runs
        self._transactions = transactions
        self._settings = settings
        self._all = Limit(settings.max_runs)
        self._by_user: dict[str, _Places] = {}
        self._running = self._completed = self._failed = 0

    def apply(self, settings: AgentSettings) -> None:
        """Take other limits from now on.

        Runs under way keep their place and their timeouts; those that wait begin at once where
        the new limits have room. With less room than runs, none begins until enough have ended.
        """
        self._settings = settings
        for places in self._by_user.values():
            places.limit.resize(settings.max_runs_per_user)
        self._all.resize(settings.max_runs)

    def statistics(self) -> EngineStatistics:
        """Runs under way and ended."""
        return EngineStatistics(self._running, self._completed, self._failed)

    async def execute(self, command: RunCommand, sink: EventSink) -> None:
        """Run a command to its end; returns when its last event is durable.

        An agent that fails ends its run with ``agent_failed``; that is no error here. Raises
        :class:`Fenced` when another worker has taken the run, and
        :class:`~ssot.errors.Unavailable` when a server stayed away past its deadline: then the
        command must be given again.
        """
        with _spans.span(
            "agents.run",
            user=command.user_id,
            parent=command.trace or None,
            run_id=command.run_id,
            agent=command.agent[:100],
        ) as span:
            context = context_of(command)
            places = self._by_user.setdefault(
                command.user_id, _Places(self._settings.max_runs_per_user)
            )
            places.interested += 1
            try:
                async with places.limit, self._all:
                    self._running += 1
                    try:
                        await self._run(command, context, sink, span)
                    finally:
                        self._running -= 1
            finally:
                places.interested -= 1
                if not places.interested:
                    self._by_user.pop(command.user_id, None)

    async def _run(
        self, command: RunCommand, context: UserContext, sink: EventSink, span: Span
    ) -> None:
        emitter = Emitter(sink, context=context, agent=command.agent)
        record, begun_before = await self._runs.begin(context, agent=command.agent)
        if begun_before:
            sink.replaying()
        emitter.emit("agent_started", text=command.text)
        if record["state"] == "running":
            record = await self._work(command, context, emitter, sink)
        if record["state"] == "completed":
            self._completed += 1
            emitter.emit("agent_completed", data={"result": record["result"]})
        else:
            self._failed += 1
            mark_failed(span, record["error"] or "")
            emitter.emit("agent_failed", text=record["error"] or "")
        await sink.barrier()
        _log.info("run %s of user %s: %s", context.run_id, context.user_id, record["state"])

    async def _work(
        self, command: RunCommand, context: UserContext, emitter: Emitter, sink: EventSink
    ) -> dict[str, Any]:
        """Run the agent and record how it ended, once everything before its end is durable.

        A run that is recorded as ended is never run again: what was not in the log by then would be
        missing for ever.
        """
        end: dict[str, Any]
        settings = self._settings
        timer = asyncio.timeout(settings.run_timeout)
        try:
            async with timer:
                agent = await self._registry.create(command.agent, context)
                tools = ToolDispatcher(
                    agent.tools,
                    context=context,
                    transactions=self._transactions,
                    emitter=emitter,
                    timeout=settings.tool_timeout,
                )
                result = await agent.run(command.text, _Session(context, tools, emitter))
            check_json(result, f"the result of agent {command.agent!r}")
            end = {"state": "completed", "result": result, "error": None}
        except (Fenced, Unavailable):
            raise
        except SsotError as error:
            end = _failed(str(error))
        except Exception as error:
            if timer.expired():
                end = _failed(f"the run took longer than {settings.run_timeout:g} s")
            else:
                # The user is told that it failed; what an agent raised may hold anything.
                _log.exception("agent %s failed in run %s", command.agent, context.run_id)
                end = _failed(f"the agent {command.agent!r} raised {type(error).__name__}")
        await sink.barrier()
        try:
            await self._runs.finish(context, **end)
        except SsotError:
            raise
        except Exception:
            # Tried again, it would be refused again, and the user would wait for ever.
            _log.exception("the end of run %s was refused", context.run_id)
            end = _failed("the result of the run could not be recorded")
            await self._runs.finish(context, **end)
        return end


def _failed(error: str) -> dict[str, Any]:
    return {"state": "failed", "result": None, "error": error}


class _Session:
    """An agent's hands: what one run may do."""

    def __init__(self, context: UserContext, tools: ToolDispatcher, emitter: Emitter) -> None:
        self.context = context
        self._tools = tools
        self._emitter = emitter

    def think(self, text: str) -> None:
        self._emitter.emit("agent_thinking", text=text)

    async def call(self, tool: str, **arguments: Any) -> Any:
        return await self._tools.call(tool, **arguments)


class _Places:
    """One user's places in this worker, forgotten when nobody of theirs runs or waits."""

    def __init__(self, limit: int) -> None:
        self.limit = Limit(limit)
        self.interested = 0

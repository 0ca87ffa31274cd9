"""The events of one run: numbered, in the order that the grammar allows, in one shape."""

from __future__ import annotations

import time
from typing import Any

from ssot.agents.abc import EventSink
from ssot.context import UserContext
from ssot.errors import ProtocolError
from ssot.events import TERMINAL, AgentEvent, EventType, Payload, follows
from ssot.tracing import current_trace

__all__ = ["Emitter"]


class Emitter:
    """Makes the events of one run and hands them to its sink."""

    def __init__(self, sink: EventSink, *, context: UserContext, agent: str) -> None:
        self._sink = sink
        self._context = context
        self._agent = agent
        self._index = 0
        self._last: EventType | None = None

    def emit(
        self,
        event: EventType,
        *,
        text: str = "",
        tool: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> int:
        """Emit the next event and return its index within the run, from 1.

        Raises :class:`ProtocolError` when the grammar of a run does not allow it here, and what
        the sink raises.
        """
        if not follows(self._last, event):
            raise ProtocolError(f"{event} cannot follow {self._last or 'nothing'} in a run")
        index = self._index + 1
        self._sink.emit(
            AgentEvent(
                # A run ends once, however many workers it took and whatever its last index is.
                id=f"{self._context.run_id}:{'end' if event in TERMINAL else index}",
                type=event,
                user_id=self._context.user_id,
                thread_id=self._context.thread_id,
                run_id=self._context.run_id,
                agent=self._agent,
                at=time.time(),
                payload=Payload(text=text, tool=tool, data=data or {}),
                trace=current_trace(),
            )
        )
        self._index, self._last = index, event
        return index

"""What the WebSocket Core needs of others; `ssot.platform` hands it over."""

from __future__ import annotations

from typing import Any, Protocol

from ssot.commands import RunCommand
from ssot.context import UserContext
from ssot.events import Bounds, LogEntry, Position

__all__ = ["Commands", "EventSource", "Identity", "Listener", "Runs", "Verifier"]


class Identity(Protocol):
    """Whom a token proves, and until when (Unix seconds)."""

    @property
    def user_id(self) -> str: ...  # noqa: D102
    @property
    def expires_at(self) -> float: ...  # noqa: D102


class Verifier(Protocol):
    """Checks tokens."""

    async def verify(self, token: str) -> Identity:
        """Whom the token proves; raises AuthenticationError or Unavailable."""


class Listener(Protocol):
    """Who is told of one user's events. Called on the event loop; must not block."""

    def on_event(self, position: Position, body: bytes) -> None:
        """An event was published."""

    def on_link(self) -> None:
        """The link was lost and is up again: events may have been missed."""


class EventSource(Protocol):
    """The event logs, as a node reads them. Each call waits through a restart of the server."""

    async def bounds(self, user_id: str) -> Bounds:
        """What a user's log holds, in the epoch that this call verified."""

    async def read(self, user_id: str, after: Position, *, limit: int = 500) -> list[LogEntry]:
        """The oldest entries after a position, in order."""

    async def subscribe(self, user_id: str, listener: Listener) -> None:
        """Return once whatever is published from now on will be heard."""

    async def unsubscribe(self, user_id: str, listener: Listener) -> None:
        """Hear no more of a user, unless another listener has taken this one's place."""


class Commands(Protocol):
    """Where user messages go."""

    async def submit(self, command: RunCommand) -> str:
        """Queue a command; the id of its run, the first one's if the message was sent before."""


class Runs(Protocol):
    """The records of runs."""

    async def get(self, user: UserContext) -> dict[str, Any] | None:
        """The record of ``user.run_id``, if it is this user's."""

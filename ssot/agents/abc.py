"""What agents and the execution engine need of others; `ssot.platform` hands it over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from ssot.context import UserContext
from ssot.events import AgentEvent

__all__ = [
    "Claim",
    "CommandSource",
    "EventSink",
    "Lease",
    "Leases",
    "Runs",
    "Sinks",
    "Transactions",
]

T = TypeVar("T")


class EventSink(Protocol):
    """Where one run's events go: the bridge to the user's sockets."""

    def emit(self, event: AgentEvent) -> None:
        """Queue an event, in order; raises when it has no JSON or an earlier one was refused."""

    def replaying(self) -> None:
        """From now on look for each event in the log before appending it."""

    async def barrier(self) -> None:
        """Return when everything emitted is durable; raises when one was refused."""


class Transactions(Protocol):
    """Transactions as a user."""

    async def run_transaction(
        self,
        user: UserContext | None,
        body: Callable[[AsyncSession], Awaitable[T]],
        *,
        key: str | None = None,
        deadline: float | None = None,
    ) -> T:
        """Run ``body`` in one transaction as ``user``; with a ``key``, at most once."""


class Runs(Protocol):
    """The durable records of runs."""

    async def begin(self, user: UserContext, *, agent: str) -> tuple[dict[str, Any], bool]:
        """The record of the run, and whether it was there before; made if it was not."""

    async def finish(
        self, user: UserContext, *, state: str, result: dict[str, Any] | None, error: str | None
    ) -> None:
        """Record the end of a run."""


class Claim(Protocol):
    """A command that this worker may run."""

    @property
    def entry(self) -> str: ...  # noqa: D102
    @property
    def body(self) -> bytes: ...  # noqa: D102
    @property
    def again(self) -> bool: ...  # noqa: D102
    @property
    def trace(self) -> str: ...  # noqa: D102


class CommandSource(Protocol):
    """Where commands come from."""

    def claims(self, worker: str, *, abandoned_after: float) -> AsyncIterator[Any]:
        """Commands for this worker, for ever."""

    async def finish(self, claim: Any) -> None:
        """Forget a command: what it asked for is durable."""

    async def leave(self, worker: str) -> None:
        """Forget a worker that claims no more."""


class Lease(Protocol):
    """The right to run a run."""

    @property
    def token(self) -> int: ...  # noqa: D102


class Leases(Protocol):
    """Grants leases."""

    ttl: float

    async def acquire(self, name: str, holder: str) -> Any:
        """A lease, or ``None`` while another holds it."""

    async def renew(self, lease: Any) -> bool:
        """Prolong it; ``False`` when it was taken."""

    async def release(self, lease: Any) -> None:
        """Give it back."""


class Sinks(Protocol):
    """Makes the sink of each run."""

    def sink(self, *, user_id: str, run_id: str, token: int) -> EventSink:
        """The sink of one run, under its fencing token."""

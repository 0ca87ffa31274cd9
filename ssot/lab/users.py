"""Users of a lab: real accounts with rows of their own, and real clients of theirs."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ssot.context import UserContext, new_id
from ssot.errors import SsotError
from ssot.events import TERMINAL, Position
from ssot.lab.observations import Observations
from ssot.lab.timeline import Timeline
from ssot.websocket.client import Client, ClientStatistics, Received

__all__ = ["LabClient", "User", "usage_rows"]

_PATIENCE = 12.0

# What stands in the log was ordered there, came from an agent and through a node.
_LOG = frozenset({"streams", "websocket"})
_EVENTS = _LOG | {"agents"}

_MODELS = {"atlas-large": (9.0, 27.0), "atlas-small": (0.6, 1.8), "meridian": (2.5, 10.0)}
"""Prices in micro-dollars for an input and an output token."""


@dataclass(frozen=True, slots=True)
class User:
    """An account that exists, with its access token and the rows that are this user's.

    ``login`` and ``password`` are empty for who logs in by other means.
    """

    name: str
    login: str
    user_id: str
    password: str
    token: str
    usage: tuple[dict[str, Any], ...]

    @property
    def total_microusd(self) -> int:
        """What this user's rows add up to, computed here and not by the database."""
        return sum(row["cost_microusd"] for row in self.usage)

    @property
    def context(self) -> UserContext:
        """A context of this user, for a transaction of the lab's own."""
        return UserContext(self.user_id, thread_id="thread-lab", run_id=new_id("run"))


def usage_rows(
    user_id: str, *, count: int, randomness: random.Random
) -> tuple[dict[str, Any], ...]:
    """Calls of language models in the last twenty days, drawn from ``randomness``."""
    now = dt.datetime.now(dt.UTC)
    rows = []
    for _ in range(count):
        model = randomness.choice(sorted(_MODELS))
        tokens_in, tokens_out = randomness.randint(50, 8000), randomness.randint(10, 2000)
        price_in, price_out = _MODELS[model]
        rows.append(
            {
                "user_id": user_id,
                "at": now - dt.timedelta(days=randomness.uniform(0.1, 20)),
                "model": model,
                "input_tokens": tokens_in,
                "output_tokens": tokens_out,
                "cost_microusd": round(tokens_in * price_in + tokens_out * price_out),
            }
        )
    return tuple(rows)


class LabClient:
    """One client of one user, with everything that it has received."""

    watches: ClassVar[frozenset[str]] = frozenset({"websocket"})

    def __init__(
        self,
        user: User,
        client: Client,
        timeline: Timeline,
        observations: Observations | None = None,
    ) -> None:
        self.user = user
        self.received_events: list[Received] = []
        self._client = client
        self._timeline = timeline
        self._saw = (observations or Observations(dict)).saw
        self._changed = asyncio.Condition()
        self._failure: SsotError | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<client of {self.user.name}, {len(self.received_events)} events>"

    async def open(self) -> None:
        """Connect; raises what the node refuses with."""
        await self._client.__aenter__()
        self._timeline.record(self.user.name, "connected")
        self._task = asyncio.create_task(self._listen(), name=f"client of {self.user.name}")

    async def aclose(self) -> None:
        """Disconnect; what was received stays here. Idempotent."""
        await self._client.aclose()
        if self._task is not None:
            task, self._task = self._task, None
            await asyncio.gather(task, return_exceptions=True)
            self._timeline.record(self.user.name, "disconnected")

    @property
    def user_id(self) -> str:
        """Whom the node took this client for."""
        return self._saw({"auth", "websocket"}, self._client.user_id)

    @property
    def position(self) -> Position | None:
        """The position of the last event: where to resume from."""
        return self._saw(_LOG, self._client.position)

    @property
    def sequence(self) -> list[int]:
        """The sequence numbers, as they came."""
        return self._saw(_LOG, [received.position.seq for received in self.received_events])

    def statistics(self) -> ClientStatistics:
        """What has happened to this client."""
        return self._client.statistics()

    async def ask(
        self, text: str, *, thread: str = "thread-1", message_id: str | None = None
    ) -> str:
        """Ask the agent ``usage_analysis``; returns the run's id once the question is queued.

        After 12 s without that an :class:`AssertionError` says so.
        """
        self._timeline.record(self.user.name, f"asks {text!r}")
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._client.send(
                    text, thread_id=thread, agent="usage_analysis", message_id=message_id
                )
        except TimeoutError:
            raise AssertionError(
                f"{self.user.name} waited {_PATIENCE:g} s in vain for the node to take the question"
            ) from None

    async def answer(self, text: str) -> Any:
        """Ask, wait for the last event of the run, and return its ``result``."""
        return await self.finished(await self.ask(text))

    async def record(self, run_id: str) -> dict[str, Any] | None:
        """The durable record of a run, over the socket."""
        return self._saw({"database", "websocket"}, await self._client.run(run_id))

    def events(self, run_id: str) -> list[Received]:
        """What has come of one run, in the order in which it came."""
        events = [each for each in self.received_events if each.event.run_id == run_id]
        return self._saw(_EVENTS, events)

    def types(self, run_id: str) -> list[str]:
        """The types of one run's events, in the order in which they came."""
        return self._saw(_EVENTS, [received.event.type for received in self.events(run_id)])

    async def received(self, count: int) -> None:
        """Wait until this many events have come."""
        await self.until(lambda: len(self.received_events) >= count, what=f"{count} events")

    async def saw(self, event: str, run_id: str) -> None:
        """Wait until an event of this type has come of a run."""
        await self.until(lambda: event in self.types(run_id), what=f"{event} of {run_id}")

    async def finished(self, run_id: str) -> Any:
        """Wait for the last event of a run; returns the ``result`` that it carries, if any."""
        await self.until(
            lambda: bool(TERMINAL.intersection(self.types(run_id))), what=f"the end of {run_id}"
        )
        # What an agent answers is what its tools have read.
        result = self.events(run_id)[-1].event.payload.data.get("result")
        return self._saw(_EVENTS | {"database"}, result)

    async def until(self, condition: Callable[[], bool], *, what: str) -> None:
        """Wait until ``condition`` holds, looking at each event.

        Raises what the client failed with, and after 12 s an :class:`AssertionError` that names
        ``what`` was waited for and what has come instead.
        """
        if condition():
            return
        self._timeline.record(self.user.name, f"waits for {what}")
        try:
            async with asyncio.timeout(_PATIENCE), self._changed:
                await self._changed.wait_for(lambda: condition() or self._failure is not None)
        except TimeoutError:
            came = ", ".join(received.event.type for received in self.received_events) or "nothing"
            raise AssertionError(
                f"{self.user.name} waited {_PATIENCE:g} s in vain for {what}; received: {came}"
            ) from None
        if not condition() and self._failure is not None:
            raise self._failure

    async def _listen(self) -> None:
        try:
            async for received in self._client:
                self.received_events.append(received)
                event = received.event
                whose = "" if event.user_id == self.user_id else f" of ANOTHER USER {event.user_id}"
                self._timeline.record(
                    self.user.name, f"{event.type} at {received.position} of {event.run_id}{whose}"
                )
                async with self._changed:
                    self._changed.notify_all()
        except SsotError as error:
            self._failure = error
            self._timeline.record(self.user.name, f"failed: {error}")
            async with self._changed:
                self._changed.notify_all()

"""Each user's event log: one Redis stream, whose entry ids are ``<epoch>-<seq>``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from ssot.errors import Fenced
from ssot.events import Bounds, LogEntry, Position
from ssot.streams.client import RedisClient, StaleEpoch
from ssot.tracing import Spans, mark_failed

__all__ = ["Append", "EventLog"]

_spans = Spans("streams")

_APPEND = files("ssot.streams").joinpath("append.lua").read_text()

_BOUNDS = """
local epoch = redis.call('HGET', KEYS[2], 'epoch') or '0'
if redis.call('EXISTS', KEYS[1]) == 0 then return {epoch, '', '0-0'} end
local info, last = redis.call('XINFO', 'STREAM', KEYS[1]), '0-0'
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
return {epoch, first[1] and first[1][1] or '', last}
"""


class Append(NamedTuple):
    """One event to append: its id, its encoded body, and the fencing token of its run.

    ``again``: an earlier worker of the run may have appended it already. ``trace`` is the W3C
    traceparent of the span that emitted it.
    """

    event_id: str
    run_id: str
    token: int
    body: bytes
    again: bool = False
    trace: str = ""


class EventLog:
    """The event logs of all users.

    Sequence and epoch are issued here and nowhere else, in the atomic append. The same call checks
    each run's fencing token and publishes on the user's channel.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._append = client.redis.register_script(_APPEND)
        self._bounds = client.redis.register_script(_BOUNDS)

    def stream(self, user_id: str) -> str:
        """The key of a user's log."""
        return self._client.key("events", user_id)

    def channel(self, user_id: str) -> str:
        """The channel on which a user's new events are published."""
        return self._client.key("live", user_id)

    def fence(self, run_id: str) -> str:
        """The key that holds the newest fencing token of a run."""
        return self._client.key("fence", run_id)

    async def append(self, user_id: str, events: Sequence[Append]) -> list[Position | Fenced]:
        """Append events in order; for each its position, or :class:`Fenced` if it was refused.

        Waits through a restart of the server. An event whose first try was applied though its
        answer was lost is found by its id in the newest 1000 entries and not appended twice.
        """
        keys = [
            self.stream(user_id),
            self._client.epoch_key,
            *(self.fence(e.run_id) for e in events),
        ]
        rows = [part for e in events for part in (e.token, e.event_id, e.body)]

        async def attempt(number: int) -> list[bytes]:
            if not self._client.epoch:
                await self._client.ping()
            look = number > 1 or any(e.again for e in events)
            keep = self._client.settings.keep_events
            head = (self._client.epoch, keep, self.channel(user_id), int(look))
            try:
                placed: list[bytes] = await self._append(keys=keys, args=[*head, *rows])
            except ResponseError as error:
                if "STALEEPOCH" in str(error):
                    await self._client.refresh_epoch()
                    raise StaleEpoch(str(error)) from None
                raise
            return placed

        # The events of several runs may go in one call: the first one's is the trace of it.
        causes = list(dict.fromkeys(event.trace for event in events if event.trace))
        with _spans.span(
            "streams.append",
            user=user_id,
            parent=causes[0] if causes else None,
            links=causes[1:],
            server="redis",
            events=len(events),
        ) as span:
            answers = await self._client.call(attempt)
            placed = [_placed(answer, event) for answer, event in zip(answers, events, strict=True)]
            fenced = next((each for each in placed if isinstance(each, Fenced)), None)
            if fenced is not None:
                mark_failed(span, fenced)
        return placed

    async def read(self, user_id: str, after: Position, *, limit: int = 500) -> list[LogEntry]:
        """The oldest entries after a position, at most ``limit``, in order, over all epochs."""
        key = self.stream(user_id)
        with _spans.span("streams.read", user=user_id, server="redis") as span:
            rows: Any = await self._client.call(
                lambda _: self._client.redis.xrange(key, f"({after}", "+", count=limit)
            )
            span.set_attribute("ssot.events", len(rows))
        return [LogEntry(Position.parse(entry.decode()), fields[b"e"]) for entry, fields in rows]

    async def bounds(self, user_id: str) -> Bounds:
        """What the log holds now, in the epoch that is verified by the same call."""
        keys = [self.stream(user_id), self._client.epoch_key]

        async def attempt(_: int) -> list[bytes]:
            answer: list[bytes] = await self._bounds(keys=keys)
            if int(answer[0]) != self._client.epoch:
                await self._client.refresh_epoch()
                raise StaleEpoch("the server's epoch changed")
            return answer

        epoch, first, last = await self._client.call(attempt)
        newest = Position.parse(last.decode())
        return Bounds(
            first=Position.parse(first.decode()) if first else None,
            last=newest if newest.epoch == int(epoch) else Position(int(epoch), 0),
        )


def _placed(answer: bytes, event: Append) -> Position | Fenced:
    text = answer.decode()
    if text.startswith("FENCED "):
        return Fenced(event.run_id, token=event.token, current=int(text.removeprefix("FENCED ")))
    return Position.parse(text)

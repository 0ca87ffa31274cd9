"""The stream of commands: from any node to whichever worker takes it, and to another if it dies."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from ssot.commands import RunCommand, decode_command, encode_command
from ssot.errors import SsotError
from ssot.streams.client import RedisClient, is_transient
from ssot.tracing import Spans, installed, trace_of

__all__ = ["Claim", "CommandStream"]

_spans = Spans("streams")

_GROUP = "workers"
_REMEMBERED = 86_400
_LEAVING = 2.0

# One message id of one user is one run, however often it is submitted.
_SUBMIT = """
local known = redis.call('GET', KEYS[2])
if known then return known end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[3])
redis.call('XADD', KEYS[1], '*', 'c', ARGV[2])
return ARGV[1]
"""


# A consumer that is removed takes its unfinished commands along, so only one that has none may go.
_LEAVE = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local at = {}
  for i = 1, #consumer, 2 do at[consumer[i]] = consumer[i + 1] end
  if at.pending == 0 and (at.name == ARGV[2] or at.idle > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], at.name)
  end
end
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A command that this worker may run. ``again``: another worker had it before.

    ``trace`` is the W3C traceparent of the claim, empty when nobody traces.
    """

    entry: str
    body: bytes
    again: bool
    trace: str = ""


class CommandStream:
    """Commands, delivered at least once to one worker of the group."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._key = client.key("commands")
        self._submit = client.redis.register_script(_SUBMIT)
        self._leave = client.redis.register_script(_LEAVE)

    async def submit(self, command: RunCommand) -> str:
        """Queue a command and return the id of its run.

        A repeated ``message_id`` of the same user returns the first run's id and queues nothing.
        Waits through a restart of the server.
        """
        with _spans.span("streams.submit", user=command.user_id, server="redis") as span:
            # Whoever claims it goes on from here.
            sent = msgspec.structs.replace(command, trace=trace_of(span) or command.trace)
            keys = [self._key, self._message(sent)]
            args: list[str | bytes | int] = [sent.run_id, encode_command(sent), _REMEMBERED]
            answer: bytes = await self._client.call(lambda _: self._submit(keys=keys, args=args))
            run_id = answer.decode()
            span.set_attribute("ssot.run_id", run_id)
            return run_id

    def _message(self, command: RunCommand) -> str:
        # A user's id has no slash, so that no two pairs make one key.
        return self._client.key("message", f"{command.user_id}/{command.message_id}")

    async def claims(self, worker: str, *, abandoned_after: float) -> AsyncIterator[Claim]:
        """Commands for this worker, for ever: new ones, and those whose worker fell silent.

        A command is given again when it was not finished ``abandoned_after`` seconds after it was
        last given; whoever still works on it is told apart by the run's lease. Lost connections
        are survived; cancel to stop.
        """
        idle = int(abandoned_after * 1000)
        # Short enough to look for abandoned commands often, and never to outlast a socket timeout.
        block = max(int(min(abandoned_after / 2, self._client.settings.timeout / 2) * 1000), 1)
        while True:
            try:
                # A server that is gone without a word must not hold this loop for ever.
                async with asyncio.timeout(self._client.settings.timeout):
                    claims = await self._abandoned(worker, idle)
                    claims += await self._new(worker, block)
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._client.call(lambda _: self._make_group())
            except Exception as error:
                if not is_transient(error):
                    raise
                await self._client.call(lambda _: self._client.ping(), deadline=float("inf"))
            else:
                for claim in claims:
                    yield _traced(claim) if installed() else claim

    async def finish(self, claim: Claim) -> None:
        """Forget a command: what it asked for is durable. Waits through a restart."""

        async def attempt(_: int) -> None:
            async with self._client.redis.pipeline(transaction=True) as pipe:
                pipe.xack(self._key, _GROUP, claim.entry)
                pipe.xdel(self._key, claim.entry)
                await pipe.execute()

        await self._client.call(attempt)

    async def leave(self, worker: str) -> None:
        """Forget a worker that claims no more, and others that were silent for a day.

        Commands that it has not finished stay, for others to take over. A server that is down is
        not waited for: the next worker that leaves tidies up as well.
        """
        args: list[str | int] = [_GROUP, worker, _REMEMBERED * 1000]
        try:
            await self._client.call(
                lambda _: self._leave(keys=[self._key], args=args), deadline=_LEAVING
            )
        except ResponseError as error:
            # No group or no stream: nobody has claimed anything yet.
            if "NOGROUP" not in str(error) and "no such key" not in str(error):
                raise

    async def _make_group(self) -> None:
        try:
            await self._client.redis.xgroup_create(self._key, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _abandoned(self, worker: str, idle: int) -> list[Claim]:
        claims: list[Claim] = []
        cursor = b"0-0"
        while True:
            answer: Any = await self._client.redis.xautoclaim(
                self._key, _GROUP, worker, idle, cursor, count=100
            )
            claims += [
                Claim(entry.decode(), fields[b"c"], again=True) for entry, fields in answer[1]
            ]
            cursor = answer[0]
            if cursor == b"0-0":
                return claims

    async def _new(self, worker: str, block: int) -> list[Claim]:
        answer: Any = await self._client.redis.xreadgroup(
            _GROUP, worker, {self._key: ">"}, count=16, block=block
        )
        return [
            Claim(entry.decode(), fields[b"c"], again=False)
            for _, entries in answer or ()
            for entry, fields in entries
        ]


def _traced(claim: Claim) -> Claim:
    """The claim with a span of its own, a child of whoever submitted the command."""
    try:
        command = decode_command(claim.body)
    except SsotError:
        # The worker says so.
        return claim
    with _spans.span(
        "streams.claim",
        user=command.user_id,
        parent=command.trace,
        server="redis",
        again=claim.again,
        run_id=command.run_id,
    ) as span:
        return dataclasses.replace(claim, trace=trace_of(span))

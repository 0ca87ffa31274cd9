"""The events that a run sends to its user, their order, and their place in the user's log."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec

from ssot.errors import NotSerializable, ProtocolError
from ssot.tracing import Traceparent
from ssot.wire import read_versioned

__all__ = [
    "EVENT_VERSION",
    "TERMINAL",
    "AgentEvent",
    "Bounds",
    "EventType",
    "LogEntry",
    "Origin",
    "Payload",
    "Position",
    "check_json",
    "decode_event",
    "encode_event",
    "event_types",
    "follows",
    "origin",
]

EVENT_VERSION = 1
"""Version of :class:`AgentEvent`; a reader refuses any other, naming both."""

EventType = Literal[
    "agent_started",
    "agent_thinking",
    "tool_executing",
    "tool_completed",
    "agent_completed",
    "agent_failed",
    "agent_cancelled",
]

TERMINAL: frozenset[EventType] = frozenset({"agent_completed", "agent_failed", "agent_cancelled"})
"""The events that end a run; nothing follows them."""

# The grammar of a run: started (thinking | executing completed)* terminal. A run may fail or be
# cancelled at any point, also inside a tool.
_WORK: frozenset[EventType] = frozenset({"agent_thinking", "tool_executing"})
_NEXT: dict[EventType | None, frozenset[EventType]] = {
    None: frozenset({"agent_started"}),
    "agent_started": _WORK | TERMINAL,
    "agent_thinking": _WORK | TERMINAL,
    "tool_executing": frozenset({"tool_completed", "agent_failed", "agent_cancelled"}),
    "tool_completed": _WORK | TERMINAL,
    "agent_completed": frozenset(),
    "agent_failed": frozenset(),
    "agent_cancelled": frozenset(),
}


# An escape of NUL, not the six characters behind an escaped backslash.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_POSITION = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


def event_types() -> tuple[EventType, ...]:
    """Every event type, in the order in which a run may send them."""
    return get_args(EventType)


def follows(previous: EventType | None, event: EventType) -> bool:
    """Whether ``event`` may come after ``previous`` (``None``: nothing yet) in one run."""
    return event in _NEXT[previous]


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What an event says: the same shape for every type.

    ``text`` is for people, ``tool`` names the tool of the tool events, ``data`` is for programs.
    """

    text: str = ""
    tool: str | None = None
    data: dict[str, Any] = {}


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of one run.

    ``id`` is ``<run>:<index>``, and ``<run>:end`` for the last: the same when a run is replayed, so
    that an event appended twice is recognised. ``at`` is Unix time in seconds on the worker's
    clock; order comes from the log's sequence, never from it. ``trace`` is left out when it is
    empty; nothing but the causes that are shown depends on it.
    """

    id: str
    type: EventType
    user_id: str
    thread_id: str
    run_id: str
    agent: str
    at: float
    payload: Payload
    # Made, so that it is no default that could be left out.
    v: Annotated[int, msgspec.Meta(extra_json_schema={"default": EVENT_VERSION})] = msgspec.field(
        default_factory=lambda: EVENT_VERSION
    )
    trace: Traceparent = ""


class Origin(msgspec.Struct, frozen=True):
    """Of an encoded event only whose it is and what caused it, which is quick to read."""

    user_id: str = ""
    trace: Traceparent = ""


class Position(NamedTuple):
    """A place in a user's event log: ordered, and gap-free within one epoch (1, 2, 3, …).

    ``seq`` 0 stands before the first event of its epoch.
    """

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read ``<epoch>-<seq>``; raises :class:`ProtocolError` when it is anything else."""
        match = _POSITION.fullmatch(text)
        if match is None or max(numbers := (int(match[1]), int(match[2]))) >= 1 << 64:
            raise ProtocolError(
                f"a position is <epoch>-<seq>, two whole numbers below 2^64, not {text[:60]!r}"
            )
        return cls(*numbers)

    def precedes(self, other: Position) -> bool:
        """Whether ``other`` is the very next event of the same epoch."""
        return other.epoch == self.epoch and other.seq == self.seq + 1


class LogEntry(NamedTuple):
    """One event as the log keeps it: ``body`` is the encoded :class:`AgentEvent`."""

    position: Position
    body: bytes


class Bounds(NamedTuple):
    """What a user's log holds now.

    ``last`` is the newest position of the current epoch, ``first`` the oldest entry that is still
    kept (``None``: nothing is).
    """

    first: Position | None
    last: Position


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AgentEvent)
_origins = msgspec.json.Decoder(Origin)


def encode_event(event: AgentEvent) -> bytes:
    """JSON of an event; raises :class:`NotSerializable`, naming the event, when it has none."""
    try:
        body = _encoder.encode(event)
        # msgspec writes NaN and infinity as null; a null that was none is rare enough to look at.
        if body.count(b"null") > (event.payload.tool is None) and not _is_finite(
            event.payload.data
        ):
            raise ValueError("NaN and infinity are no JSON")
        return body
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotSerializable(
            f"{event.type} of run {event.run_id}: its payload cannot be sent as JSON: {error}"
        ) from error


def check_json(value: Any, what: str) -> None:
    """Raise :class:`NotSerializable`, naming ``what``, unless PostgreSQL and clients can hold it.

    Stricter than what an event may carry: no set, no NaN, no infinity, and neither NUL nor half a
    surrogate pair in a text.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializable(f"{what} has no JSON: {error}") from error
    if _NUL.search(text):
        raise NotSerializable(f"{what} holds a NUL character, which PostgreSQL's JSON cannot")


def decode_event(body: bytes) -> AgentEvent:
    """The event of a log entry or frame; raises on another version and on malformed JSON."""
    return read_versioned(
        _decoder,
        body,
        version=EVENT_VERSION,
        what="an agent event",
        advice="deploy readers before writers",
    )


def origin(body: bytes) -> Origin:
    """The origin of an encoded event; an empty one for what cannot be read."""
    try:
        return _origins.decode(body)
    except (ValueError, RecursionError):
        return Origin()


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_finite, value))
    return True

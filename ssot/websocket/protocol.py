"""The wire protocol between a client and a node: frames, versions, close codes. Pure.

A client connects to ``/events`` with its token, as ``Authorization: Bearer …`` or as the
subprotocol ``bearer.<token>``, and offers the subprotocol ``ssot.v1``. To resume, it adds
``?after=<epoch>-<seq>``: the position of the last event that it has.

The node's first frame is ``welcome``. Every ``event`` carries its position; ``seq`` counts 1, 2, 3
within an ``epoch``. Where the node cannot say that nothing is missing (the server of the log was
rebooted, or the log was trimmed), it sends ``reset`` before it goes on: never silently less.

Whoever traces may add the header ``traceparent`` (W3C Trace Context) to the handshake and a field
``trace`` with a traceparent to each frame; the ``trace`` of an event is the span that emitted it.
What is malformed there is ignored.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

import msgspec

from ssot.events import Position
from ssot.tracing import Traceparent
from ssot.wire import read_json

__all__ = [
    "BEARER",
    "PROTOCOL_VERSION",
    "SUBPROTOCOL",
    "Accepted",
    "ClientFrame",
    "CloseCode",
    "Error",
    "Event",
    "GetRun",
    "Reset",
    "RunRecord",
    "ServerFrame",
    "UserMessage",
    "Welcome",
    "decode_client",
    "decode_server",
    "encode",
    "event_frame",
    "id_of",
]

PROTOCOL_VERSION = 1
SUBPROTOCOL = f"ssot.v{PROTOCOL_VERSION}"
BEARER = "bearer."


class CloseCode(IntEnum):
    """Why a node closes a connection; 4000 and above are this protocol's own."""

    GOING_AWAY = 1001
    TOO_BIG = 1009
    TRY_AGAIN_LATER = 1013
    TOKEN_EXPIRED = 4401
    TOO_SLOW = 4408
    TOO_MANY = 4429


_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class UserMessage(
    msgspec.Struct, tag="user_message", forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """Run an agent on a text. The same ``id`` sent again, on any connection, is the same run."""

    id: _Id
    thread_id: str
    text: str
    agent: str
    trace: Traceparent = ""


class GetRun(
    msgspec.Struct, tag="get_run", forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """Ask for the record of a run, which outlives its events."""

    id: _Id
    run_id: str
    trace: Traceparent = ""


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """The connection is open. Events after ``epoch``-``seq`` follow.

    ``recovered`` is false when events between the client's position and now may be missing; a
    ``reset`` then tells where they resume.
    """

    v: int
    connection_id: str
    user_id: str
    epoch: int
    seq: int
    recovered: bool


class Event(msgspec.Struct, tag="event", frozen=True):
    """One event of the user's log, at its position."""

    epoch: int
    seq: int
    event: msgspec.Raw


class Reset(msgspec.Struct, tag="reset", frozen=True):
    """Events before ``epoch``-``seq`` may be missing; the next event is the one after it."""

    epoch: int
    seq: int
    reason: str


class Accepted(msgspec.Struct, tag="accepted", frozen=True):
    """The message with this ``id`` is queued; its events will carry ``run_id``."""

    id: str
    run_id: str


class RunRecord(msgspec.Struct, tag="run", frozen=True):
    """The answer to ``get_run``; ``record`` is null when this user has no such run."""

    id: str
    record: dict[str, Any] | None


class Error(msgspec.Struct, tag="error", frozen=True):
    """A frame was refused, and nothing of it was done. ``retry``: it may succeed later.

    ``id`` is the frame's own, wherever one can be read in it.
    """

    reason: str
    id: str | None = None
    retry: bool = False


ClientFrame = UserMessage | GetRun
ServerFrame = Welcome | Event | Reset | Accepted | RunRecord | Error

_client: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_server: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)
_encoder = msgspec.json.Encoder()


def encode(frame: ClientFrame | ServerFrame) -> bytes:
    """The JSON of a frame."""
    return _encoder.encode(frame)


def event_frame(position: Position, body: bytes) -> bytes:
    """The JSON of an ``event`` frame around an encoded event, which is not parsed again."""
    return encode(Event(position.epoch, position.seq, msgspec.Raw(body)))


def decode_client(message: str | bytes) -> ClientFrame:
    """A client's frame; :class:`~ssot.errors.ProtocolError` names the field at fault."""
    return read_json(_client, message, what=f"a frame of {SUBPROTOCOL}")


class _Named(msgspec.Struct):
    id: str | None = None


def id_of(message: str | bytes) -> str | None:
    """The ``id`` that a frame bears, whatever else is wrong with it; ``None`` where it has none."""
    try:
        return msgspec.json.decode(message, type=_Named).id
    except (msgspec.DecodeError, UnicodeError):
        return None


def decode_server(message: str | bytes) -> ServerFrame:
    """A node's frame; :class:`~ssot.errors.ProtocolError` names the field at fault."""
    return read_json(_server, message, what=f"a frame of {SUBPROTOCOL}")

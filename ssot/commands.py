"""What a user asks of the workers: the command that travels from a node to whoever runs it."""

from __future__ import annotations

import msgspec

from ssot.wire import read_versioned

__all__ = ["COMMAND_VERSION", "RunCommand", "decode_command", "encode_command"]

COMMAND_VERSION = 1


class RunCommand(msgspec.Struct, frozen=True, kw_only=True):
    """Run ``agent`` on ``text`` for one user.

    ``message_id`` is the client's idempotency key: the same key of the same user is one run,
    however often it is sent. ``trace`` is a W3C ``traceparent``, empty when nobody traces.
    """

    message_id: str
    user_id: str
    thread_id: str
    run_id: str
    agent: str
    text: str
    trace: str = ""
    v: int = COMMAND_VERSION


_decoder = msgspec.json.Decoder(RunCommand)


def encode_command(command: RunCommand) -> bytes:
    """JSON of a command."""
    return msgspec.json.encode(command)


def decode_command(body: bytes) -> RunCommand:
    """The command of a stream entry; raises on another version and on malformed JSON."""
    return read_versioned(
        _decoder,
        body,
        version=COMMAND_VERSION,
        what="a run command",
        advice="deploy workers before nodes",
    )

"""What a user asks of the workers: the command that travels from a node to whoever runs it."""

from __future__ import annotations

import msgspec

from ssot.errors import ProtocolError, VersionMismatch

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
    try:
        command = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not a run command: {error}") from error
    if command.v != COMMAND_VERSION:
        raise VersionMismatch(
            "run commands",
            ours=COMMAND_VERSION,
            theirs=command.v,
            advice="deploy workers before nodes",
        )
    return command

"""The user context factory: from a command to the identity under which everything of it works."""

from __future__ import annotations

from ssot.commands import RunCommand
from ssot.context import UserContext

__all__ = ["context_of"]


def context_of(command: RunCommand) -> UserContext:
    """The context of a command's user; raises :class:`~ssot.errors.ProtocolError` for bad ids."""
    return UserContext(
        user_id=command.user_id,
        thread_id=command.thread_id,
        run_id=command.run_id,
        metadata={"message_id": command.message_id, "agent": command.agent},
    )

"""What an execution reports while it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from ssot.errors import SsotError
from ssot.lab.notebook import Check, Outcome

__all__ = ["Finished", "Started", "Stopped"]


class Stopped(SsotError):
    """The run was asked to stop; its kernel is gone, and what had finished is in the output."""


@dataclass(frozen=True, slots=True)
class Started:
    """A code cell has begun; ``check`` is None unless it is the cell of a check."""

    cell_id: str
    check: Check | None


@dataclass(frozen=True, slots=True)
class Finished:
    """A code cell has ended, after ``seconds``; ``printed`` is its standard output."""

    cell_id: str
    check: Check | None
    outcome: Outcome
    seconds: float
    printed: str

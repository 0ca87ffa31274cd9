"""The exit codes, and the end of a command that cannot be run."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

__all__ = ["COULD_NOT_RUN", "FAILED", "give_up"]

FAILED, COULD_NOT_RUN = 1, 2


def give_up(problems: tuple[str, ...]) -> NoReturn:
    """Tell the problems on standard error and exit with :data:`COULD_NOT_RUN`."""
    for problem in problems:
        print(f"ssot: {problem}", file=sys.stderr)
    raise typer.Exit(COULD_NOT_RUN)

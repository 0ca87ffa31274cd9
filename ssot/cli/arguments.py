"""What commands are given: notebooks, ids, and the values of parameters."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

__all__ = ["Notebooks", "WithPairs", "ids", "value"]

Notebooks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NOTEBOOK]...",
        help="Paths, names or numbers, like 00; all of notebooks/ if none is given.",
        show_default=False,
    ),
]


class WithPairs(TyperCommand):
    """Gives ``-p`` two values, which typer cannot: it reads the pair as one, ``NAME=VALUE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the name and the value behind each ``-p`` before typer reads them."""
        rest = iter(args)
        joined: list[str] = []
        for arg in rest:
            joined.append(arg)
            if arg == "--":
                break
            if arg in ("-p", "--parameter"):
                pair = [next(rest, None), next(rest, None)]
                if None in pair or not str(pair[0]).isidentifier():
                    ctx.fail("-p takes a name and a value, like: -p users 8")
                joined.append("=".join(map(str, pair)))
        return super().parse_args(ctx, [*joined, *rest])


def ids(given: list[str] | None) -> list[str]:
    """Split at commas what an option was given; an id that is missing there is told."""
    found = []
    for text in given or []:
        parts = [part.strip() for part in text.split(",")]
        if "" in parts:
            # Left out, it would select all: an option of a shell variable that is not set.
            raise typer.BadParameter(f"an id is missing in {text!r}; several are given as A,B")
        found += parts
    return found


def value(text: str) -> object:
    """Read a value of the command line as papermill does, with YAML's true, false and null."""
    match text:
        case "true" | "True":
            return True
        case "false" | "False":
            return False
        case "null" | "None":
            return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text

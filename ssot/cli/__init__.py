"""The command ``ssot``: the only place that prints and exits."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from ssot.cli import audit, author, environment, explore, new_check, prove, run, up
from ssot.cli.arguments import WithPairs
from ssot.cli.exits import COULD_NOT_RUN

__all__ = ["app", "main"]

app = typer.Typer(
    help="Prove what must hold where two single sources of truth meet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# In the order in which the help lists them.
app.command(cls=WithPairs)(run.run)
app.command()(author.author)
app.command()(prove.prove)
app.command()(audit.audit)
app.command("new-check")(new_check.new_check)
app.command()(explore.explore)
app.command()(up.up)
app.add_typer(environment.commands, name="env")


def main() -> None:
    """Run the command line."""
    if sys.stdout is None:
        # Closed by the caller, who does not want to read it.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        app()
    except OSError as error:
        # Of the system and not of ours, such as a full disk behind the standard output.
        with contextlib.suppress(OSError):
            print(f"ssot: {error}", file=sys.stderr)
        os._exit(COULD_NOT_RUN)


@app.callback(invoke_without_command=True)
def _ssot(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"ssot-interplay {installed('ssot-interplay')}")
        raise typer.Exit

"""``ssot env``: what the platform's processes would read here."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ssot.cli.exits import COULD_NOT_RUN, give_up

__all__ = ["commands"]

_OF_THE_LAB = ("SSOT_LAB_", "SSOT_WATCHDOG", "SSOT_WORKSPACE")

commands = typer.Typer(
    help="What the platform's processes would read here. Nothing is started.", no_args_is_help=True
)


@commands.command("explain")
def _explain(
    name: Annotated[str, typer.Argument(help="A variable, such as SSOT_DATABASE_URL.")],
    service: Annotated[
        str | None, typer.Option(help="As this service sees it.", show_default=False)
    ] = None,
) -> None:
    """Tell where a variable comes from, what it won over and what it is for; no secret is shown."""
    from ssot.configuration.inspection import explain
    from ssot.errors import SettingsError

    try:
        print(explain(name, os.environ, service=service))
    except SettingsError as error:
        give_up(error.problems)


@commands.command("check")
def _check(
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE]...", help="All, if none is given.", show_default=False),
    ] = None,
) -> None:
    """Tell what would keep the services from starting here, and names that nobody reads."""
    from ssot.configuration.inspection import check
    from ssot.errors import SettingsError

    try:
        # What the lab reads is no mistake of whoever runs the platform beside it.
        text, good = check(os.environ, services or (), others=_OF_THE_LAB)
    except SettingsError as error:
        give_up(error.problems)
    print(text)
    if not good:
        raise typer.Exit(COULD_NOT_RUN)

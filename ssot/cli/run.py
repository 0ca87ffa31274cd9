"""``ssot run``: notebooks run, a verdict for each check."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ssot.cli.arguments import Notebooks, ids, value
from ssot.cli.exits import COULD_NOT_RUN, FAILED, give_up
from ssot.cli.places import NOTEBOOKS, OUTPUTS
from ssot.cli.progress import display
from ssot.cli.signals import stop_on_signals
from ssot.cli.summary import summarise

__all__ = ["run"]


def run(
    notebooks: Notebooks = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="A parameter; repeatable."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Notebooks at a time.", show_default="one a processor"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK",
            help="Just this check, after setup; several with commas, or repeated.",
            callback=ids,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same as -p seed SEED.")] = None,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Checks in an order drawn from the seed.")
    ] = False,
    repeat: Annotated[
        int, typer.Option(min=1, max=999, help="Run so many times, each with the next seed.")
    ] = 1,
) -> None:
    """Run notebooks and tell the verdict of every check.

    Exit code: 0 all passed, 1 a check failed or is unknown, 2 it could not be run, 129, 130 or 143
    interrupted. What had finished is in outputs/latest in any case.
    """
    from ssot.lab import runner
    from ssot.lab.notebook import CannotRun, Verdict, find
    from ssot.lab.secrecy import masked

    parameters: dict[str, object] = {}
    for pair in parameter or []:
        name, _, text = pair.partition("=")
        parameters[name] = value(text)
    if seed is not None:
        parameters["seed"] = seed
    with stop_on_signals() as (stop, received):
        try:
            paths = find(notebooks or [], NOTEBOOKS)
            with display() as show:
                result = runner.run(
                    paths,
                    parameters=parameters,
                    outputs=OUTPUTS,
                    jobs=jobs or len(os.sched_getaffinity(0)),
                    only=[name.upper() for name in only or []],
                    repeat=repeat,
                    shuffle=shuffle,
                    on_event=show,
                    stop=stop,
                )
        except CannotRun as error:
            give_up(error.problems)
    summarise(result, masked(parameters))
    if received:
        raise typer.Exit(128 + received[0])
    if any(notebook.cut_off for notebook in result.notebooks):
        raise typer.Exit(COULD_NOT_RUN)
    raise typer.Exit(0 if result.verdict is Verdict.PASS else FAILED)

"""``ssot prove``: defects put into copies of the package, and noticed by the checks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ssot.cli.arguments import Notebooks, ids
from ssot.cli.exits import COULD_NOT_RUN, FAILED, give_up
from ssot.cli.places import NOTEBOOKS, OUTPUTS
from ssot.cli.proof import show_defects, show_trial, summarise
from ssot.cli.signals import stop_on_signals

__all__ = ["prove"]


def prove(
    notebooks: Notebooks = None,
    defect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Just this defect; several with commas, or repeated.",
            callback=ids,
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK",
            help="Just the defects of this check; several with commas, or repeated.",
            callback=ids,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Defects at a time.", show_default="one a processor"),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Run all checks with each defect, not those it names."),
    ] = False,
    defects: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Your own: a .py with DEFECTS, a .patch, or a folder."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the defects and run none.")] = False,
) -> None:
    """Break the code on purpose, one way at a time, and see that the checks notice.

    Each defect is an edit of a copy of the package; your files stay as they are. It is caught when
    the checks that it names fail by their own assertions, and its control passes.

    Exit code: 0 all were caught and no check is unproven, 1 otherwise, 2 it could not be run or a
    defect no longer applies, 129, 130 or 143 interrupted. What was proven is in outputs/proven
    anyway.
    """
    from ssot.lab import prove as proving
    from ssot.lab.defects import catalogue
    from ssot.lab.notebook import CannotRun, Verdict, find, read

    with stop_on_signals() as (stop, received):
        try:
            paths = find(notebooks or [], NOTEBOOKS)
            checks = {each.id for path in paths for each in read(path.absolute()).checks}
            known = catalogue.load(defects) if defects else catalogue.builtin()
            if defects is None:
                known = tuple(each for each in known if checks & {*each.caught_by})
            wanted = catalogue.select(
                known, ids=defect or [], checks=[name.upper() for name in check or []]
            )
            if list_:
                show_defects(wanted)
                raise typer.Exit
            result = proving.prove(
                wanted,
                notebooks=paths,
                outputs=OUTPUTS,
                jobs=jobs or len(os.sched_getaffinity(0)),
                whole=whole,
                complete=not (defect or check or defects),
                on_event=show_trial,
                stop=stop,
            )
        except CannotRun as error:
            give_up(error.problems)
    summarise(result)
    if received:
        raise typer.Exit(128 + received[0])
    if any(trial.outcome == "not applicable" for trial in result.trials):
        raise typer.Exit(COULD_NOT_RUN)
    raise typer.Exit(0 if result.verdict is Verdict.PASS else FAILED)

"""``ssot author``: outputs of notebooks written to their files."""

from __future__ import annotations

from typing import Annotated

import typer

from ssot.cli.arguments import Notebooks
from ssot.cli.exits import FAILED, give_up
from ssot.cli.places import NOTEBOOKS
from ssot.cli.signals import stop_on_signals

__all__ = ["author"]


def author(
    notebooks: Notebooks = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if it would change a file.")
    ] = False,
) -> None:
    """Run notebooks and commit their outputs to their files, the same bytes every time.

    Exit code: 0 done, 1 a check did not pass or an output is not fit to be committed (nothing was
    written), 2 it could not be run.
    """
    from ssot.lab import author as authoring
    from ssot.lab.notebook import CannotRun, find
    from ssot.lab.progress import Stopped

    failed = False
    with stop_on_signals() as (stop, received):
        try:
            for path in find(notebooks or [], NOTEBOOKS):
                authored = authoring.author(path, check=check, stop=stop)
                for problem in authored.problems:
                    print(f"{path}: {problem}", flush=True)
                if authored.problems:
                    told = "not written"
                elif authored.changed:
                    told = "would change; run: ssot author" if check else "written"
                else:
                    told = "unchanged"
                failed |= bool(authored.problems) or (check and authored.changed)
                print(f"{path}: {told}", flush=True)
        except CannotRun as error:
            give_up(error.problems)
        except Stopped:
            raise typer.Exit(128 + received[0]) from None
    raise typer.Exit(FAILED if failed else 0)

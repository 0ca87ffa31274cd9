"""``ssot new-check``: the two cells of a new check."""

from __future__ import annotations

from typing import Annotated

import typer

from ssot.cli.exits import give_up
from ssot.cli.places import NOTEBOOKS, short

__all__ = ["new_check"]


def new_check(
    notebook: Annotated[str, typer.Argument(help="Its path, name or number, like 00.")],
    title: Annotated[str, typer.Argument(help="The behaviour, in one line.")],
    between: Annotated[
        tuple[str, str],
        typer.Option(metavar="COMPONENT COMPONENT", help="The one that acts, the one it meets."),
    ],
    after: Annotated[
        str | None, typer.Option(metavar="CHECK", help="Behind this check, not the last one.")
    ] = None,
) -> None:
    """Add the two cells of a new check to a notebook; docs/writing-checks.md says how to go on."""
    from ssot.lab.new_check import add_check
    from ssot.lab.notebook import CannotRun, find

    try:
        (path,) = find([notebook], NOTEBOOKS)
        added = add_check(path, title, between=between, after=after.upper() if after else None)
    except CannotRun as error:
        give_up(error.problems)
    name = path.stem
    print(f"{added.check_id} is in {short(path)}, cells {added.markdown_cell}, {added.code_cell}")
    print("1. write the cells, and add the id to the areas of the last cell: make lab")
    print(f"2. run it until it passes: ssot run {name} --only {added.check_id}")
    print(f"3. record it: ssot author {name}")
    print("4. write the defect that it must see into ssot/lab/defects/, and see it fail:")
    print(f"   ssot prove {name} --check {added.check_id}")
    print(f"5. ask what it is worth: ssot audit {name}")

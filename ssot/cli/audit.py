"""``ssot audit``: what each check is worth, with the evidence made that lacks."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssot.cli.arguments import Notebooks
from ssot.cli.exits import FAILED, give_up
from ssot.cli.places import NOTEBOOKS, OUTPUTS, short
from ssot.cli.progress import display
from ssot.cli.proof import show_trial
from ssot.cli.signals import stop_on_signals

if TYPE_CHECKING:
    from ssot.lab.audit import Audit, Status

__all__ = ["audit"]


def audit(
    notebooks: Notebooks = None,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="PATH", help="Write the audit here as well.")
    ] = None,
    no_run: Annotated[
        bool, typer.Option("--no-run", help="Run nothing; exit 2 where there is no evidence.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Tell also what the items that hold rest on.")
    ] = False,
) -> None:
    """Ask of every check what it is worth: nine items, each with what was measured.

    Reads the newest complete run and proof of the code as it is now, and makes those that are
    missing. Exit code: 0 every item holds or is excused, 1 one does not, 2 it could not be run.
    """
    import json

    import ssot
    from ssot.lab import audit as auditing
    from ssot.lab.notebook import CannotRun, find

    package = Path(ssot.__file__).parent
    with stop_on_signals() as (stop, received):
        try:
            paths = find(notebooks or [], NOTEBOOKS)
            if not no_run:
                _make_evidence(auditing.missing(paths, outputs=OUTPUTS, package=package), stop)
            if received:
                raise typer.Exit(128 + received[0])
            result = auditing.audit(paths, outputs=OUTPUTS, package=package)
            if json_ is not None:
                text = json.dumps(result.as_json(), indent=1, ensure_ascii=False) + "\n"
                json_.write_text(text, encoding="utf-8")
        except CannotRun as error:
            give_up(error.problems)
        except OSError as error:
            give_up((f"{json_}: cannot be written: {error.strerror}",))
    _show(result, verbose=verbose)
    raise typer.Exit(0 if result.passed else FAILED)


def _make_evidence(lacking: Sequence[tuple[Path, str]], stop: threading.Event) -> None:
    from ssot.lab import prove as proving
    from ssot.lab import runner
    from ssot.lab.defects import catalogue
    from ssot.lab.notebook import read

    for path, what in lacking:
        if stop.is_set():
            return
        told = f"{path.stem}: no complete {what} of today's code; making one"
        if what == "run":
            print(told, flush=True)
            with display() as show:
                runner.run([path], parameters={}, outputs=OUTPUTS, jobs=1, on_event=show, stop=stop)
            continue
        checks = {each.id for each in read(path.absolute()).checks}
        defects = [each for each in catalogue.builtin() if checks & {*each.caught_by}]
        print(f"{told}, with {len(defects)} defects, which takes minutes", flush=True)
        proving.prove(
            defects,
            notebooks=[path],
            outputs=OUTPUTS,
            jobs=len(os.sched_getaffinity(0)),
            complete=True,
            on_event=show_trial,
            stop=stop,
        )


def _show(result: Audit, *, verbose: bool) -> None:
    """Print the table of checks by items, and below it what is excused, what does not hold and why.

    Of what holds each check has one line; ``verbose`` says instead what each such item rests on.
    """
    from ssot.lab.tables import Table

    marks = {"yes": "yes", "excused": "(excused)", "no": "NO"}
    for check_ids in result.notebooks.values():
        rows = [
            (check_id, *(marks[result.checks[check_id][item].status] for item in result.items))
            for check_id in check_ids
        ]
        print(Table(("check", *result.items), rows))
        print()
    if not verbose:
        for check_id, row in result.checks.items():
            hold = sum(1 for finding in row.values() if finding.status == "yes")
            rest = f" of {len(row)}" if hold < len(row) else ""
            print(f"{check_id}: {hold}{rest} items hold")
    for status in ("yes", "excused", "no") if verbose else ("excused", "no"):
        for check_id, row in result.checks.items():
            for item, finding in row.items():
                if finding.status == status:
                    print(f"{check_id} {item}: {marks[status]}: {finding.evidence}")
    print()
    for problem in result.problems:
        print(f"PROBLEM {problem}")
    for name, source in result.sources.items():
        print(f"{name}: {short(Path(source))}")
    found = [finding.status for row in result.checks.values() for finding in row.values()]
    told: dict[Status, str] = {"yes": "hold", "excused": "excused", "no": "do not hold"}
    counts = ", ".join(f"{found.count(status)} {words}" for status, words in told.items())
    print(f"{len(result.checks)} checks x {len(result.items)} items: {counts}", flush=True)

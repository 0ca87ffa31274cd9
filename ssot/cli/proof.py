"""A proof: the defects to be tried, each as it ends, and what was caught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssot.cli.places import short

if TYPE_CHECKING:
    from ssot.lab.defects.model import Defect
    from ssot.lab.prove import Event, Proof, Trial

__all__ = ["show_defects", "show_trial", "summarise"]


def show_defects(defects: Sequence[Defect]) -> None:
    """Print a line for each defect: its id, the checks that catch it, and its title."""
    width = max((len(each.id) for each in defects), default=0)
    for each in defects:
        print(f"{each.id:<{width}}  {', '.join(each.caught_by):<6}  {each.title}")


def show_trial(event: Event) -> None:
    """Print a line for each defect as it ends, and what its checks said, or why it is no catch."""
    if event.trial is None:
        what = "all checks run first" if event.begun else "all checks pass"
        print(f"without any defect: {what}", flush=True)
        return
    if event.begun:
        return
    trial = event.trial
    print(_trial_line(trial), flush=True)
    if not trial.caught:
        print("\n".join(f"  {line}" for line in trial.reason.splitlines()), flush=True)
        return
    for seen in trial.checks:
        if seen.role == "caught_by":
            print(f"  {seen.id} {seen.error.splitlines()[0]}", flush=True)


def _trial_line(trial: Trial) -> str:
    defect = trial.defect
    names = ", ".join(defect.caught_by)
    return f"{trial.outcome.upper()} {defect.id} ({names}): {defect.title} {trial.seconds:.1f} s"


def summarise(result: Proof) -> None:
    """Print the table of outcomes, which checks are unproven, and how many defects were caught."""
    from ssot.lab.tables import Table

    print()
    rows = [
        (", ".join(each.defect.caught_by), each.defect.id, each.outcome, f"{each.seconds:.1f} s")
        for each in result.trials
    ]
    print(Table(("check", "defect", "outcome", "time"), rows))
    caught = sum(each.caught for each in result.trials)
    print()
    if result.unproven and not result.stopped:
        print(f"no defect was caught by {', '.join(result.unproven)}: unproven")
    print(f"{caught} of {len(result.trials)} defects caught", end="")
    print(f" in {result.seconds:.0f} s{', stopped' if result.stopped else ''}")
    print(f"outputs: {short(result.folder)}", flush=True)

"""A run that is over: what did not pass, how to run that again, and where the outputs are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ssot.cli.places import NOTEBOOKS, short

if TYPE_CHECKING:
    from ssot.lab.runner import CheckResult, NotebookResult, Run

__all__ = ["summarise"]


def summarise(result: Run, parameters: Mapping[str, object]) -> None:
    """Print what did not pass with the commands to go on, the counts, and where the outputs are.

    ``parameters`` are those that were given, without their secrets: the command to run again shows
    them.
    """
    counts = result.counts
    print()
    told: set[str] = set()
    for notebook in result.notebooks:
        wrong = [each.check.id for each in notebook.checks.values() if _wrong(each, result)]
        if not wrong or notebook.name in told:
            continue
        told.add(notebook.name)
        rounds = [each for each in result.notebooks if each.name == notebook.name]
        if len(rounds) > 1:
            for line in _flaky(rounds, result):
                print(line)
        else:
            print(f"{notebook.name}: {', '.join(wrong)} did not pass")
        print("to run that again, or to look at it:")
        print(f"  {_again(notebook, wrong[0], parameters)}")
        print(f"  ssot explore {short(notebook.output)} {wrong[0]}")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), end="")
    print(f" of {sum(counts.values())} checks{', stopped' if result.stopped else ''}")
    print(f"outputs: {short(result.folder)}")
    print(f"report: {short(result.folder / 'index.html')}", flush=True)


def _wrong(check: CheckResult, result: Run) -> bool:
    """Whether it did not pass; of a run that was stopped, what it did not come to is not wrong."""
    stopped_before = result.stopped and check.message.startswith("it was not run")
    return bool(check.verdict) and not stopped_before


def _flaky(rounds: list[NotebookResult], result: Run) -> Iterator[str]:
    """Say of each check in which rounds it did not pass."""
    for check_id in rounds[0].checks:
        wrong = [each for each in rounds if _wrong(each.checks[check_id], result)]
        if wrong:
            numbers = ", ".join(str(each.round) for each in wrong[:10])
            yield f"{check_id} did not pass in {len(wrong)} of {len(rounds)} rounds: {numbers}"


def _again(notebook: NotebookResult, check_id: str, parameters: Mapping[str, object]) -> str:
    path = notebook.notebook.path
    usual = path.parent == NOTEBOOKS.absolute()
    words = ["ssot", "run", path.stem if usual else str(path), "--only", check_id]
    if notebook.shuffle is not None:
        # What failed may depend on what ran before it.
        ran = [*notebook.checks]
        chosen = ["--only", ",".join(ran)] if len(ran) < len(notebook.notebook.checks) else []
        words = [*words[:3], *chosen, "--shuffle"]
    for name, value in notebook.parameters.items():
        words += ["-p", name, str(parameters.get(name, value) if name != "seed" else value)]
    return shlex.join(words)

"""A run while it goes on: a line for each check, and in a terminal a live table."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssot.lab.runner import CheckResult, Event, NotebookResult

__all__ = ["display"]

_STYLES = {"PASS": "green", "UNKNOWN": "yellow", "FAIL": "bold red"}


@contextlib.contextmanager
def display() -> Generator[Callable[[Event], None]]:
    """Yield what shows an event: a line for each check, in a terminal above a live table."""
    if not sys.stdout.isatty():

        def show_plainly(event: Event) -> None:
            for line, _ in _told(event):
                print(line, flush=True)

        yield show_plainly
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    running: dict[Path, tuple[NotebookResult, str]] = {}
    console = Console()
    with Live(console=console, transient=True, refresh_per_second=8) as live:

        def show(event: Event) -> None:
            for line, style in _told(event):
                console.print(Text(line, style=style), soft_wrap=True)
            now = event.check.check.id if event.begun and event.check else ""
            if event.check is None:
                running.pop(event.notebook.output, None)
            else:
                running[event.notebook.output] = (event.notebook, now)
            live.update(_table([*running.values()]))

        yield show


def _told(event: Event) -> list[tuple[str, str]]:
    """Return what there is to say of an event, in lines, each with its style."""
    if event.begun:
        return []
    if event.check is None:
        notebook = event.notebook
        if not notebook.error:
            return []
        left = sum(1 for each in notebook.checks.values() if each.message.startswith("it was not"))
        what = "1 check was not run" if left == 1 else f"{left} checks were not run"
        told = f"{notebook.name}{_round(notebook)}: {notebook.error}\n  {what}"
        return [(told, _STYLES["FAIL"])]
    style = _STYLES[event.check.verdict.name]
    return [
        (_line(event.notebook, event.check), style),
        *((f"  {line}", "") for line in event.check.message.splitlines()),
    ]


def _line(notebook: NotebookResult, result: CheckResult) -> str:
    name = f"{result.check.id} {result.verdict.name} {result.check.title}"
    return f"{name} {result.seconds:.1f} s{_round(notebook)}"


def _round(notebook: NotebookResult) -> str:
    """Which repetition it was; nothing where there is but one."""
    number = notebook.output.stem.removeprefix(notebook.name)
    return f" (round {notebook.round}, seed {notebook.parameters['seed']})" if number else ""


def _table(running: list[tuple[NotebookResult, str]]) -> Any:
    from rich.table import Table

    table = Table("notebook", "running", "done", box=None)
    for notebook, now in running:
        done = sum(1 for each in notebook.checks.values() if each.seconds)
        table.add_row(notebook.output.stem, now, f"{done} of {len(notebook.checks)}")
    return table

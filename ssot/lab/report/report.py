"""Writing the report of a run into its folder."""

from __future__ import annotations

from pathlib import Path

from ssot.lab.files import write_atomically
from ssot.lab.report.page import page
from ssot.lab.report.reading import read_run

__all__ = ["write_report"]


def write_report(folder: Path) -> Path:
    """Write ``index.html`` of the run in ``folder``, and return its path.

    It is made of ``results.json`` and the evidence beside each executed notebook; where evidence
    is missing, so it is in the report. The file is replaced at once or not at all.

    Raises :class:`~ssot.lab.notebook.CannotRun` with what is wrong with which file, and
    :class:`OSError` when the report cannot be written.
    """
    run = read_run(folder)
    path = folder / "index.html"
    write_atomically(path, page(run).encode())
    return path

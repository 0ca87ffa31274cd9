"""What is said of a run that is over."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebooks.samples import PASS, notebook, write

from ssot.cli.progress import display
from ssot.cli.summary import summarise
from ssot.lab.notebook import Verdict, read
from ssot.lab.runner import CheckResult, Event, NotebookResult, Run


def _run_of(folder: Path, *messages: str, stopped: bool) -> Run:
    path = write(notebook(*[PASS] * len(messages)), folder / "00_a.ipynb")
    known = read(path)
    checks = {
        check.id: CheckResult(check, Verdict.FAIL if message else Verdict.PASS, message=message)
        for check, message in zip(known.checks, messages, strict=True)
    }
    result = NotebookResult(known, folder / "outputs" / "00_a.ipynb", {}, checks)
    return Run("id", folder / "outputs", {}, [result], stopped=stopped)


def test_a_check_that_never_ran_is_not_offered_after_ctrl_c(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing of it to look at; one that failed before is still told."""
    summarise(_run_of(tmp_path, "", "it was not run", stopped=True), {})
    said = capsys.readouterr().out
    assert "ssot explore" not in said
    assert "did not pass" not in said
    assert "stopped" in said
    summarise(_run_of(tmp_path, "it was not run", "sum is 2", stopped=True), {})
    said = capsys.readouterr().out
    assert "00_a: GP-02 did not pass" in said
    assert "ssot explore" in said
    summarise(_run_of(tmp_path, "it was not run: the kernel died", stopped=False), {})
    assert "GP-01 did not pass" in capsys.readouterr().out


@pytest.mark.parametrize(("left", "said"), [(1, "1 check was"), (2, "2 checks were")])
def test_how_many_checks_were_not_run_is_told_in_english(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: int, said: str
) -> None:
    """One check is singular."""
    run = _run_of(tmp_path, *["it was not run"] * left, stopped=False)
    run.notebooks[0].error = "the kernel died"
    with display() as show:
        show(Event(run.notebooks[0], None, begun=False))
    assert f"{said} not run" in capsys.readouterr().out

"""Adding a check to a notebook."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from notebooks.samples import PASS, recorded

from ssot.lab.new_check import add_check
from ssot.lab.notebook import CannotRun, read, validate_form


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "09_sample.ipynb"
    path.write_text(nbformat.writes(recorded(PASS, PASS)), encoding="utf-8")
    return path


def test_a_check_is_added_behind_the_last_one(path: Path):
    """With the next number, and in the form: nothing is missing but a run and a true assertion."""
    added = add_check(path, "A name is taken once", between=("auth", "database"))
    assert added.check_id == "GP-03"
    notebook = read(path)
    assert [check.id for check in notebook.checks] == ["GP-01", "GP-02", "GP-03"]
    assert notebook.checks[-1].between == ("auth", "database")
    own = [problem for problem in validate_form(notebook.node) if added.code_cell in problem]
    assert own == [f"cell {added.code_cell}: never run: no record of a run; run ssot author"]
    assert notebook.node.cells[-1].id == "summary"


def test_a_check_is_added_behind_the_one_that_is_named(path: Path):
    """The number is still the next one: ids never move."""
    add_check(path, "A name is taken once", between=("auth", "database"), after="GP-01")
    assert [check.id for check in read(path).checks] == ["GP-01", "GP-03", "GP-02"]


@pytest.mark.parametrize(
    ("title", "between", "after", "said"),
    [
        ("", ("auth", "database"), None, "a title is one line"),
        ("x" * 71, ("auth", "database"), None, "a title is one line"),
        ('say "no"', ("auth", "database"), None, "no double quotes"),
        ("fine", ("auth", "databse"), None, "no component databse; did you mean database?"),
        ("fine", ("auth", "auth"), None, "two different components"),
        ("fine", ("auth", "database"), "GP-20", "no check GP-20; did you mean GP-02?"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(
    path: Path, title: str, between: tuple[str, str], after: str | None, said: str
):
    """The file stays as it was, byte for byte."""
    before = path.read_bytes()
    with pytest.raises(CannotRun, match=said.replace("?", r"\?")):
        add_check(path, title, between=between, after=after)
    assert path.read_bytes() == before


def test_a_notebook_that_cannot_be_written_stays_as_it_is(path: Path):
    """The problem is told in a line, whatever the reason; here another's draft is in the way."""
    before = path.read_bytes()
    (path.parent / f".{path.name}.draft").mkdir()
    with pytest.raises(CannotRun, match=r"09_sample\.ipynb: cannot be written: Is a directory"):
        add_check(path, "A name is taken once", between=("auth", "database"))
    assert path.read_bytes() == before

"""Edits of a copy: exactly once, strictly, all or nothing."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.lab.defects.model import Defect, DoesNotApply, Edit, apply, problems_of

SOURCE = """\
def total(rows):
    found = 0
    for row in rows:
        found += row
    return found
"""


def defect(*edits: Edit, **more) -> Defect:
    given = {"id": "a-defect", "title": "wrong", "symptom": "bad", "caught_by": ("GP-01",)} | more
    return Defect(edits=edits, **given)


def edit(before: str, after: str, file: str = "ssot/sums.py") -> Edit:
    return Edit(file, before, after)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ssot").mkdir()
    (tmp_path / "ssot/sums.py").write_text(SOURCE)
    (tmp_path / "ssot/call.lua").write_text("return 1\n")
    return tmp_path


def test_an_edit_changes_its_one_place(folder: Path) -> None:
    """The file is edited, and what was changed is told as a diff."""
    diff = apply(defect(edit("found += row", "found -= row")), folder)
    assert (folder / "ssot/sums.py").read_text() == SOURCE.replace("+=", "-=")
    assert "-        found += row\n+        found -= row\n" in diff
    assert diff.startswith("--- a/ssot/sums.py\n+++ b/ssot/sums.py\n")


def test_edits_of_one_file_follow_each_other(folder: Path) -> None:
    """The second edit sees what the first has made; other files than Python are edited as well."""
    apply(
        defect(
            edit("found = 0", "found = 1"),
            edit("found = 1\n", "found = 2\n"),
            edit("return 1", "return 2", "ssot/call.lua"),
        ),
        folder,
    )
    assert "found = 2" in (folder / "ssot/sums.py").read_text()
    assert (folder / "ssot/call.lua").read_text() == "return 2\n"


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        (
            [edit("found += rows", "x")],
            ["a-defect no longer applies", "ssot/sums.py", "| found += rows",
             "the nearest is line 4, 'found += row'"],
        ),
        ([edit("entirely different", "x")], ["is not there, and nothing like it"]),
        ([edit("found", "x")], ["stands there 3 times, in lines 2, 4, 5"]),
        ([edit("a", "b", "ssot/gone.py")], ["there is no ssot/gone.py"]),
        (
            [edit("for row in rows:", "for row in rows")],
            ["makes ssot/sums.py no Python any more, line 3"],
        ),
        ([edit("a", "b", "ssot/lab/lab.py")], ["ssot/lab/lab.py is no file of the product"]),
        ([edit("a", "b", "ssot/cli/run.py")], ["is no file of the product"]),
        ([edit("a", "b", "../ssot/sums.py")], ["is no file of the product"]),
        ([edit("a", "b", "ssot/../tests/x.py")], ["is no file of the product"]),
        ([edit("  ", "b")], ["must say what stood there"]),
        ([edit("found = 0", "found = 0")], ["changes nothing"]),
        ([], ["it edits nothing"]),
    ],
)  # fmt: skip
def test_an_edit_that_does_not_fit_is_told(
    folder: Path, edits: list[Edit], told: list[str]
) -> None:
    """The error names the defect, the file, what was looked for and the nearest; nothing changes."""
    good = edit("found = 0", "found = 1")
    with pytest.raises(DoesNotApply) as refused:
        apply(defect(*([good] * bool(edits)), *edits), folder)
    assert [part for part in told if part not in str(refused.value)] == []
    assert (folder / "ssot/sums.py").read_text() == SOURCE


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"id": "A defect"}, "small letters"),
        ({"title": " "}, "no title"),
        ({"caught_by": ()}, "names no check"),
        ({"control": ("GP-02", "GP-01")}, "GP-01 cannot both catch it and be its control"),
        ({"title": None}, "its title is no text"),
        ({"caught_by": "GP-01"}, "its caught_by are not a tuple of str"),
        ({"edits": ("x",)}, "its edits are not a tuple of Edit"),
        ({"edits": (Edit("ssot/sums.py", "a", None),)}, "an edit is not of three texts"),
    ],
)
def test_a_defect_that_is_badly_written_is_told(wrong: dict, told: str) -> None:
    """What a defect says of itself is checked as well."""
    good = defect(edit("a", "b"))
    (problem,) = problems_of(dataclasses.replace(good, **wrong))
    assert told in problem
    assert problem.startswith("defect ")


@given(st.text("ab\n", max_size=12), st.text("ab\n", min_size=1, max_size=3), st.text("cd"))
def test_an_edit_applies_exactly_when_it_is_unique(
    tmp_path_factory: pytest.TempPathFactory, text: str, before: str, after: str
) -> None:
    """Places that overlap are two; one place is edited, or none is."""
    folder = tmp_path_factory.mktemp("copy")
    (folder / "ssot").mkdir()
    (folder / "ssot/x.txt").write_text(text)
    one = defect(edit(before, after, "ssot/x.txt"))
    places = [i for i in range(len(text)) if text.startswith(before, i)]
    if before.strip() and len(places) == 1:
        apply(one, folder)
        assert (folder / "ssot/x.txt").read_text() == text.replace(before, after)
    else:
        with pytest.raises(DoesNotApply):
            apply(one, folder)
        assert (folder / "ssot/x.txt").read_text() == text


def test_the_diff_is_one_that_others_can_apply(folder: Path) -> None:
    """What is kept with the outputs of a defect makes the same change by `git apply`."""
    edits = (edit("found = 0", "found = 1"), edit("    return found\n", ""))
    diff = apply(defect(*edits), folder)
    made = (folder / "ssot/sums.py").read_text()
    (folder / "ssot/sums.py").write_text(SOURCE)
    done = subprocess.run(["git", "apply", "-"], cwd=folder, input=diff, text=True)
    assert done.returncode == 0
    assert (folder / "ssot/sums.py").read_text() == made

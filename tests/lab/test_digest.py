"""The digest tells code from other code, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from notebooks.samples import PASS, notebook, recorded, write

from ssot.lab.digest import digest


def tree(folder: Path, **files: str) -> Path:
    for name, text in {"a.py": "a = 1", "sub/b.lua": "return 1", **files}.items():
        path = folder / "ssot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "ssot"


def test_the_same_code_has_the_same_digest_anywhere(tmp_path: Path) -> None:
    """Neither the place of a tree counts, nor the order, nor what was compiled or hidden in it."""
    one = tree(tmp_path / "one")
    two = tree(tmp_path / "two", **{"__pycache__/a.pyc": "x", ".draft": "x", ".git/c": "x"})
    other = tmp_path / "other.py"
    other.write_text("x")
    assert digest([one, other]) == digest([other, two])
    assert len(digest([one])) == 64


@pytest.mark.parametrize(
    "change", [{"a.py": "a = 2"}, {"sub/b.lua": "return 2"}, {"c.py": ""}, {"sub/a.py": "a = 1"}]
)
def test_other_code_has_another_digest(tmp_path: Path, change: dict[str, str]) -> None:
    """Each file counts, with its name."""
    assert digest([tree(tmp_path / "one")]) != digest([tree(tmp_path / "two", **change)])


def test_of_a_notebook_the_code_counts_and_not_its_outputs(tmp_path: Path) -> None:
    """A run or an editor does not change the digest; a word in a cell or a tag does."""
    before = digest([write(notebook(PASS), tmp_path / "a" / "00.ipynb")])
    run = recorded(PASS)
    run.metadata["signature"] = nbformat.from_dict({"by": "an editor"})
    assert digest([write(run, tmp_path / "b" / "00.ipynb")]) == before
    run.cells[-1].source += "\n"
    assert digest([write(run, tmp_path / "c" / "00.ipynb")]) != before
    other = notebook(PASS)
    other.cells[2].metadata["tags"].append("slow")
    assert digest([write(other, tmp_path / "d" / "00.ipynb")]) != before

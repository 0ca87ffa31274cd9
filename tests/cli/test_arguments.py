"""What commands are given: several ids in one option, and none by accident."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from notebooks.samples import FAIL, PASS, ROOT, load, notebook, ssot, write

from ssot.cli.arguments import ids, value


@pytest.mark.parametrize(
    "given", [["--only", "GP-01,gp-03"], ["--only", "GP-01", "--only", "gp-03"]]
)
def test_several_checks_are_run_and_no_other(tmp_path: Path, given: list[str]) -> None:
    """With commas or with the option again, in capitals or not."""
    write(notebook(PASS, FAIL, PASS), tmp_path / "notebooks" / "00_a.ipynb")
    code, output = ssot("run", *given, cwd=tmp_path)
    assert code == 0, output
    (run,) = load(tmp_path / "outputs/latest/results.json")["notebooks"]
    assert [each["id"] for each in run["checks"]] == ["GP-01", "GP-03"]


def test_several_defects_are_selected() -> None:
    """By the checks that catch them, and by their own ids."""
    code, output = ssot("prove", "00", "--list", "--check", "GP-03,gp-05", cwd=ROOT)
    assert code == 0
    assert {line.split()[1].strip(",") for line in output.splitlines()} == {"GP-03", "GP-05"}
    wanted = "any-password,replayed-events-doubled"
    code, output = ssot("prove", "00", "--list", "--defect", wanted, cwd=ROOT)
    assert (code, {line.split()[0] for line in output.splitlines()}) == (0, {*wanted.split(",")})


@pytest.mark.parametrize("text", ["", "GP-01,", ",GP-01", "GP-01,,GP-02"])
def test_an_id_that_is_missing_selects_nothing(tmp_path: Path, text: str) -> None:
    """An option of a shell variable that is not set never means all checks."""
    write(notebook(PASS), tmp_path / "notebooks" / "00_a.ipynb")
    code, output = ssot("run", "--only", text, cwd=tmp_path)
    words = " ".join(re.sub(r"[│╭╰─╮╯]", "", output).split())
    assert f"'--only': an id is missing in {text!r}; several are given as A,B" in words
    assert code == 2
    assert not (tmp_path / "outputs").exists()


def test_spaces_around_a_comma_are_no_part_of_an_id() -> None:
    """In one argument they do no harm; no option at all selects nothing in particular."""
    assert ids(["GP-01, GP-02", "GP-03"]) == ["GP-01", "GP-02", "GP-03"]
    assert ids(None) == []


@pytest.mark.parametrize(
    ("text", "read"),
    [("8", 8), ("0.5", 0.5), ("true", True), ("False", False), ("null", None), ("url", "url")],
)
def test_a_value_is_read_as_papermill_reads_it(text: str, read: object) -> None:
    """Numbers, YAML's words for true, false and nothing, and text."""
    assert value(text) == read
    assert type(value(text)) is type(read)

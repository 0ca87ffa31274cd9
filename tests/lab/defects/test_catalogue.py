"""The catalogue: what is in it still fits the source, and covers every check."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ssot.lab.defects.catalogue import builtin, load, select
from ssot.lab.defects.model import Defect, apply
from ssot.lab.defects.reference import PAGE, page
from ssot.lab.notebook import CannotRun, read

REPOSITORY = Path(__file__).parents[3]
NOTEBOOKS = [read(path) for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))]
INCIDENTS = (REPOSITORY / "docs/incidents.md").read_text()

ONE = """
from ssot.lab.defects.model import Defect, Edit
DEFECTS = [Defect("mine", "wrong", "bad", (Edit("ssot/a.py", "a", "b"),), ("GP-03",))]
"""
PATCH = """\
# title: It forgets
# caught-by: GP-05
# control: GP-01
--- a/ssot/a.py
+++ b/ssot/a.py
@@ -1 +1 @@
-a
+b
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, to be copied for each defect."""
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "lab")
    shutil.copytree(REPOSITORY / "ssot", folder / "ssot", ignore=ignored)
    return folder


@pytest.mark.parametrize("defect", builtin(), ids=lambda each: each.id)
def test_a_defect_fits_the_source(defect: Defect, source: Path, tmp_path: Path) -> None:
    """Each edit finds its place in today's code, and what it makes compiles."""
    shutil.copytree(source, tmp_path / "copy")
    assert apply(defect, tmp_path / "copy")


def test_every_check_is_named_by_a_defect() -> None:
    """A check that no defect makes fail is not known to be able to fail."""
    named = {check for defect in builtin() for check in defect.caught_by}
    checks = {check.id for notebook in NOTEBOOKS for check in notebook.checks}
    assert sorted(checks - named) == []
    assert sorted(named - checks) == []


def test_incidents_are_those_of_the_list() -> None:
    """A number that a defect gives stands in the table of incidents."""
    numbers = {int(each) for each in re.findall(r"^\| (\d+) \|", INCIDENTS, re.MULTILINE)}
    assert {number for defect in builtin() for number in defect.incidents} - numbers == set()


def test_the_page_is_current() -> None:
    """If not: python -m ssot.lab.defects.reference."""
    assert (REPOSITORY / PAGE).read_text() == page()


def test_the_example_of_the_page_fits_the_source(source: Path, tmp_path: Path) -> None:
    """Whoever copies it has a defect that applies."""
    (tmp_path / "own.py").write_text(re.search(r"```python\n(.*?)```", page(), re.DOTALL)[1])
    (tmp_path / "own-patch.patch").write_text(re.search(r"```diff\n(.*?)```", page(), re.DOTALL)[1])
    own = load(tmp_path)
    assert [each.id for each in own] == ["own-patch", "a-name-is-enough"]
    for each in own:
        shutil.copytree(source, tmp_path / each.id)
        assert apply(each, tmp_path / each.id)


def test_own_defects_are_of_a_file_or_a_folder(tmp_path: Path) -> None:
    """Files are read in the order of their names; without a control they get the usual one."""
    (tmp_path / "b.py").write_text(ONE)
    (tmp_path / "a.patch").write_text(PATCH)
    found = load(tmp_path)
    assert [(each.id, each.caught_by, each.control) for each in found] == [
        ("a", ("GP-05",), ("GP-01",)),
        ("mine", ("GP-03",), ("GP-05",)),
    ]
    assert load(tmp_path / "b.py") == found[1:]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.py", "DEFECTS = 1", "there is no DEFECTS = (Defect(…), …) in it"),
        ("a.py", "DEFECTS = ('x',)", "'x' is no Defect"),
        ("a.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("a.py", "raise SystemExit(3)", "SystemExit: 3"),
        ("a.py", ONE.replace('"GP-03",', "3,"), "its caught_by are not a tuple of str"),
        ("a.py", ONE.replace("GP-03", "XY-01"), "defect mine: it names no control"),
        ("a.py", ONE.replace("GP-03", "GP-05"), "GP-05 cannot both catch it and be its control"),
        ("a.py", ONE + "DEFECTS *= 2", "there is another of this id"),
        ("a.patch", "x", "a: there is no line '# title: …'"),
        ("a.txt", "x", "no .py and no .patch in it"),
        ("", "", "no defects at"),
    ],
)
def test_what_cannot_be_loaded_is_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    """A mistake in a file of one's own is a sentence, and no traceback."""
    if name:
        (tmp_path / name).write_text(text)
    with pytest.raises(CannotRun) as refused:
        load(tmp_path if name else tmp_path / "gone")
    assert told in str(refused.value)


def test_defects_are_selected_by_id_and_by_check() -> None:
    """Either selects, in the order of the catalogue; what selects nothing is told with the nearest."""
    known = builtin()
    chosen = select(known, ids=["any-password"], checks=["GP-12", "GP-01"])
    assert [each for each in known if each in chosen] == list(chosen)
    assert {check for each in chosen for check in each.caught_by} == {"GP-01", "GP-03", "GP-12"}
    assert "any-password" in {each.id for each in chosen}
    assert select(known) == known
    with pytest.raises(CannotRun) as refused:
        select(known, ids=["any-pasword"], checks=["GP-99"])
    assert "no defect any-pasword; did you mean any-password?" in refused.value.problems
    assert "no defect is caught by GP-99" in str(refused.value)

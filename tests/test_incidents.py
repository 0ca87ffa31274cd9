"""The incidents that the checks guard against are the same wherever they are named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from ssot.lab.defects import catalogue
from ssot.lab.notebook import read

REPOSITORY = Path(__file__).parents[1]


def of_the_notebooks() -> dict[str, set[int]]:
    """What each check says, in the call that makes its notebook's last table."""
    found: dict[str, set[int]] = {}
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        source = next(cell.source for cell in read(path).node.cells if cell.id == "summary")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.keyword) and node.arg == "incidents":
                told = ast.literal_eval(node.value)
                found |= {check: set(numbers) for check, numbers in told.items()}
    return found


def of_the_page() -> dict[str, set[int]]:
    """What docs/incidents.md says, by check."""
    found: dict[str, set[int]] = {}
    text = (REPOSITORY / "docs/incidents.md").read_text(encoding="utf-8")
    for number, checks in re.findall(r"^\| (\d+) \|.*\|([^|]*)\|$", text, re.MULTILINE):
        for check in re.findall(r"[A-Z]+-\d+", checks):
            found.setdefault(check, set()).add(int(number))
    return found


def test_the_page_and_the_notebooks_agree():
    """Whoever looks up an incident finds the checks that name it, and no others."""
    assert of_the_page() == of_the_notebooks()


def test_a_defect_is_of_an_incident_that_its_checks_name():
    """What puts an incident back is caught by a check that claims to guard against it."""
    told = of_the_notebooks()
    for defect in catalogue.builtin():
        claimed = set().union(*(told.get(check, set()) for check in defect.caught_by))
        assert set(defect.incidents) <= claimed, defect.id

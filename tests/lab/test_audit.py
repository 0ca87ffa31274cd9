"""The audit: what counts as evidence, what excuses, and which run it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.audited import House
from ssot.lab.audit import EXCUSES, ITEMS
from ssot.lab.notebook import CannotRun, read

ONLY_THE_LAB = {"postgresql": {"statements": 3, "by_lab": 3, "refused": 0, "started": "2026"}}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_notebook_with_all_its_evidence_passes(house: House):
    """Every item of every check holds, and says what it saw."""
    house.write()
    result = house.audit()
    assert result.passed, result.as_json()
    row = result.checks["GP-01"]
    assert list(row) == list(ITEMS)
    assert row["services"].evidence.startswith("postgresql 3 statements (up since 2026")
    assert row["interplay"].evidence == (
        "auth.login → database.transaction; of database asserted: rows"
    )
    assert row["failure mode"].evidence == "some-defect"


@pytest.mark.parametrize(
    ("item", "change", "said"),
    [
        ("services", {"servers": {}}, "WebSocket frames"),
        ("services", {"servers": ONLY_THE_LAB}, "postgresql 3 statements, 3 of them the lab's"),
        ("services", {"mocks": ["unittest.mock"]}, "imported: unittest.mock"),
        ("interplay", {"chains": {}}, "no causal chain from auth to database"),
        ("interplay", {"asserted": []}, "nothing of database asserted"),
        ("isolation", {"leaks": ["thread x"]}, "thread x"),
        ("multi-user", {"users": ["alice"]}, "in the spans: alice"),
        ("events", {"events": {}}, "none"),
        ("error", {"errors": []}, "no error was raised"),
    ],
)
def test_missing_evidence_is_missing(house: House, item: str, change: dict[str, Any], said: str):
    """One thing less in the evidence, and exactly that item does not hold."""
    house.evidence["GP-02"].update(change)
    house.write()
    result = house.audit()
    assert not result.passed
    wrong = {
        (check_id, name): finding
        for check_id, row in result.checks.items()
        for name, finding in row.items()
        if finding.status != "yes"
    }
    assert list(wrong) == [("GP-02", item)]
    assert said in wrong["GP-02", item].evidence


def test_a_login_that_a_server_refused_is_something_that_it_did(house: House):
    """No statement of the platform was counted, but the server itself says whom it refused."""
    servers = {"postgresql": {**ONLY_THE_LAB["postgresql"], "refused": 1}}
    house.evidence["GP-01"]["servers"] = servers
    house.write()
    finding = house.audit().checks["GP-01"]["services"]
    assert finding.status == "yes"
    assert "3 of them the lab's, 1 login refused" in finding.evidence


def test_a_check_that_no_defect_makes_fail_does_not_pass(house: House):
    """A check is good when it was seen to fail."""
    house.caught.pop("GP-03")
    house.write()
    assert house.audit().checks["GP-03"]["failure mode"].status == "no"


def test_an_error_that_a_component_handled_counts(house: House):
    """A transaction that failed and was replayed is an error condition, measured in its span."""
    house.evidence["GP-01"]["errors"] = []
    house.evidence["GP-01"]["spans"] = [{"name": "database.attempt", "error": "Lost: link"}]
    house.write()
    finding = house.audit().checks["GP-01"]["error"]
    assert finding.status == "yes"
    assert finding.evidence == "Lost in database.attempt, handled ×1"


def test_a_known_excuse_counts_and_an_invented_one_does_not(house: House):
    """Reasons come from a closed list, each for its item."""
    for check_id in ("GP-01", "GP-02"):
        house.evidence[check_id]["users"] = []
    house.excuse("GP-01", "multi-user", "no user yet")
    house.excuse("GP-02", "multi-user", "no time")
    house.write()
    result = house.audit()
    assert result.checks["GP-01"]["multi-user"].status == "excused"
    assert result.checks["GP-02"]["multi-user"].status == "no"
    assert "'no time' is no excuse from 'multi-user': there is no user yet" in (
        result.checks["GP-02"]["multi-user"].evidence
    )


def test_at_most_a_quarter_is_excused(house: House):
    """The second excuse among four checks is one too many."""
    for check_id in ("GP-01", "GP-02"):
        house.evidence[check_id]["events"] = {}
        house.excuse(check_id, "events", "no socket")
    house.write()
    result = house.audit()
    assert not result.passed
    assert result.problems == [
        "09_sample: 2 checks are excused from 'events' (GP-01, GP-02); 1 of 4 may be"
    ]


def test_an_excuse_is_not_used_where_the_item_holds(house: House):
    """What holds is evidence, whatever was excused."""
    house.excuse("GP-01", "multi-user", "no user yet")
    house.write()
    assert house.audit().checks["GP-01"]["multi-user"].status == "yes"


@pytest.mark.parametrize("changed", ["package", "notebook"])
def test_evidence_of_other_code_says_nothing(house: House, changed: str):
    """After a change of the code or of a check, run and proof are to be made again."""
    house.write()
    if changed == "package":
        (house.package / "a.py").write_text("x = 2\n")
    else:
        source = house.path.read_text().replace("1 + 1 == 2", "2 == 2", 1)
        house.path.write_text(source)
    with pytest.raises(CannotRun) as missing:
        house.audit()
    assert [each.partition(";")[0] for each in missing.value.problems] == [
        "09_sample: no complete run of today's code",
        "09_sample: no complete proof of today's code",
    ]


def test_a_run_of_some_checks_is_passed_over(house: House):
    """The newest complete one counts."""
    house.write("20260101T000000000Z-aaaa")
    whole = house.evidence
    house.evidence = {"GP-01": whole["GP-01"]}
    house.write("20260102T000000000Z-bbbb")
    result = house.audit()
    assert result.passed
    assert "20260101T000000000Z-aaaa" in result.sources["09_sample: run"]


def test_every_excuse_is_for_an_item(house: House):
    """The closed list names items that there are."""
    assert set(EXCUSES) <= set(ITEMS)
    house.write()
    assert json.loads(json.dumps(house.audit().as_json()))["passed"] is True
    assert read(house.path).checks[0].excused == ()

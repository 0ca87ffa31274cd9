"""`ssot audit`: what is shown of the findings."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.audited import House
from notebooks.samples import load, ssot

import ssot as package


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Of the code as it is: the command audits no other."""
    return House(tmp_path, package=Path(package.__file__).parent)


def below_the_table(output: str) -> list[str]:
    """The lines that tell findings, and those that sum them up."""
    return output.split("\n\n", 1)[1].splitlines()


def test_only_what_does_not_hold_is_told_in_words(house: House) -> None:
    """A check whose items hold is one line; what is wrong comes last."""
    house.evidence["GP-02"]["leaks"] = ["thread x"]
    house.evidence["GP-03"]["users"] = []
    house.excuse("GP-03", "multi-user", "no user yet")
    house.write()
    code, output = ssot("audit", "--no-run", house.path.name, cwd=house.path.parent)
    assert code == 1
    run = "outputs/20260101T000000000Z-aaaa"
    assert below_the_table(output) == [
        "GP-01: 9 items hold",
        "GP-02: 8 of 9 items hold",
        "GP-03: 8 of 9 items hold",
        "GP-04: 9 items hold",
        "GP-03 multi-user: (excused): no user yet: the check is over before a user could exist",
        "GP-02 isolation: NO: thread x",
        "",
        f"09_sample: run: {run}/09_sample.evidence.json",
        f"09_sample: proof: {run}/proof.json",
        "4 checks x 9 items: 34 hold, 1 excused, 1 do not hold",
    ]


def test_everything_can_be_told(house: House) -> None:
    """Each item of each check with what it rests on: in lines with --verbose, as data with --json."""
    house.write()
    folder = house.path.parent
    words = ("audit", "--no-run", "--verbose", "--json", "audit.json", house.path.name)
    code, output = ssot(*words, cwd=folder)
    assert code == 0, output
    told = [
        f"{check['id']} {item}: yes: {finding['evidence']}"
        for check in load(folder / "audit.json")["notebooks"]["09_sample"]
        for item, finding in check["items"].items()
    ]
    assert len(told) == 36
    assert below_the_table(output)[: len(told) + 1] == [*told, ""]


def test_without_evidence_there_is_no_audit(house: House) -> None:
    """What lacks is told with the command that makes it, and nothing is run."""
    house.write()
    house.path.write_text(house.path.read_text().replace("1 + 1 == 2", "2 == 2", 1))
    code, output = ssot("audit", "--no-run", house.path.name, cwd=house.path.parent)
    assert (code, output.splitlines()) == (
        2,
        [
            "ssot: 09_sample: no complete run of today's code; run: ssot run 09_sample",
            "ssot: 09_sample: no complete proof of today's code; run: ssot prove 09_sample",
        ],
    )

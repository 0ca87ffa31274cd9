"""Proofs: what counts as caught, on small notebooks with real kernels, and on the golden path."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebooks.samples import (
    ROOT,
    SETUP,
    SSOT,
    begun,
    finish,
    gone,
    load,
    notebook,
    ssot,
    start,
    until,
    write,
)

from ssot.lab.defects.model import Defect, Edit
from ssot.lab.notebook import CannotRun, Verdict
from ssot.lab.prove import Event, Proof, Seen, is_own_assertion, judge, prove

pytestmark = pytest.mark.long

EVENTS, RETRY = "ssot/events.py", "ssot/retry.py"

USING = SETUP + "from ssot.events import Bounds, Position, follows\nfrom ssot.retry import retry\n"
PARSES = 'assert Position.parse("1-2") == (1, 2), Position.parse("1-2")'
PRECEDES = "assert Position(1, 2).precedes(Position(1, 3))"
FOLLOWS = 'assert follows(None, "agent_started")'
RETRIES = """\
assert True
    import asyncio

    async def one(attempt):
        return attempt

    async with asyncio.timeout(1):
        assert await retry(one, what="it", deadline=9, on=lambda error: True) == 1"""
# hangs, and tells its pid, unless the package is as it should be
HANGS = """\
assert True
    if Position.parse("1-2") != (1, 2):
        import asyncio, os, pathlib
        pathlib.Path("draft").write_text(str(os.getpid()))
        os.replace("draft", "begun")
        await asyncio.Event().wait()"""

REVERSED = Edit(EVENTS, "return cls(*numbers)", "return cls(*reversed(numbers))")


def defect(name: str, *edits: Edit, caught_by: str = "GP-01", control: str = "GP-02") -> Defect:
    return Defect(
        id=name, title="It is wrong", symptom="users suffer", edits=edits,
        caught_by=tuple(caught_by.split()), control=tuple(control.split()), incidents=(7,),
    )  # fmt: skip


DEFECTS = (
    defect("swapped", REVERSED),
    defect("harmless", Edit(EVENTS, "_NUL = re.compile", "# nothing\n_NUL = re.compile")),
    defect("half-missed", REVERSED, caught_by="GP-01 GP-03"),
    defect("breaks-setup", Edit(EVENTS, "EVENT_VERSION = 1\n", "EVENT_VERSION = int('one')\n")),
    defect("breaks-control", REVERSED, control="GP-02 GP-05"),
    defect("hangs", Edit(RETRY, "return await call(attempt)", "await asyncio.Event().wait()"),
           caught_by="GP-04"),
    defect("asserts-inside", Edit(EVENTS, "return cls(*numbers)", "assert False, numbers"), control="GP-03"),
    defect("dies", Edit(EVENTS, "return cls(*numbers)", "import os; os._exit(9)"), control="GP-03"),
    defect("of-yesterday", Edit(EVENTS, "return cls(*number)", "return cls(1, 2)")),
    defect("in-code-that-nobody-runs", Edit("ssot/serve.py", "Exit codes: 0", "Codes: 0")),
)  # fmt: skip

SAMPLE = (PARSES, PRECEDES, FOLLOWS, RETRIES, PARSES)


def _prove(folder: Path, defects: Any, path: Path, **options: Any) -> Proof:
    options = {"outputs": folder / "outputs", "jobs": 2} | options
    return prove(defects, notebooks=[path], **options)


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Proof, list[Event]]:
    """One proof with defects that end in every way, and the events it told."""
    folder = tmp_path_factory.mktemp("proof")
    path = write(notebook(*SAMPLE, setup=USING), folder / "00_sample.ipynb")
    events: list[Event] = []
    return _prove(folder, DEFECTS, path, complete=True, on_event=events.append), events


def outcome(proof: Proof, name: str) -> tuple[str, str]:
    (trial,) = (each for each in proof.trials if each.defect.id == name)
    return trial.outcome, trial.reason


@pytest.mark.parametrize(
    ("name", "expected", "reason"),
    [
        ("swapped", "caught", ""),
        ("harmless", "missed", "GP-01 passed"),
        ("half-missed", "missed", "GP-03 passed"),
        ("breaks-setup", "broken", "setup failed: ValueError"),
        ("breaks-control", "broken", "control GP-05: AssertionError"),
        ("hangs", "other", "not by an assertion of the check: GP-04: TimeoutError"),
        ("asserts-inside", "other", "not by an assertion of the check: GP-01: AssertionError: (1, 2)"),
        ("dies", "other", "GP-01: the kernel died"),
        ("of-yesterday", "not applicable", "the nearest is line 128, 'return cls(*numbers)'"),
        ("in-code-that-nobody-runs", "not applicable", "no process ran ssot/serve.py"),
    ],
)  # fmt: skip
def test_each_defect_has_its_outcome(
    proven: tuple[Proof, list[Event]], name: str, expected: str, reason: str
) -> None:
    """Only an assertion of each named check counts, with the setup and the control green."""
    found, told = outcome(proven[0], name)
    assert found == expected, told
    assert reason.partition(" line ")[0] in told
    assert bool(told) is (found != "caught")


def test_what_a_check_said_is_kept(proven: tuple[Proof, list[Event]]) -> None:
    """The assertion with its values is what a reader sees of a defect."""
    trial = proven[0].trials[0]
    assert [(each.id, each.role, each.verdict.name, each.asserted) for each in trial.checks] == [
        ("GP-01", "caught_by", "FAIL", True),
        ("GP-02", "control", "PASS", False),
    ]
    assert trial.checks[0].error.startswith("AssertionError: ")
    assert trial.seconds > trial.checks[0].seconds > 0


def test_unproven_are_the_checks_that_no_defect_made_fail(
    proven: tuple[Proof, list[Event]],
) -> None:
    """A check that is named only by defects that do not count is unproven, like one without any."""
    assert proven[0].unproven == ["GP-02", "GP-03", "GP-04", "GP-05"]
    assert proven[0].verdict is Verdict.FAIL


def test_the_proof_is_on_disk(proven: tuple[Proof, list[Event]]) -> None:
    """proof.json has it all, in the order of the catalogue; `proven` leads to it, `latest` is not moved."""
    proof, _ = proven
    outputs = proof.folder.parent
    content = load(outputs / "proven" / "proof.json")
    assert (outputs / "proven").readlink().name == proof.id == content["run"]
    assert not (outputs / "latest").is_symlink()
    assert content["version"] == 1
    assert len(content["package"]) == 64
    assert content["notebooks"]["00_sample"]["undamaged"] == "pass"
    assert [each["id"] for each in content["defects"]] == [each.id for each in DEFECTS]
    first = content["defects"][0]
    assert (first["outcome"], first["notebook"], first["incidents"]) == ("caught", "00_sample", [7])
    assert first["checks"][0]["verdict"] == "fail"
    assert (content["verdict"], content["unproven"]) == ("fail", proof.unproven)


def test_each_defect_leaves_its_notebook_and_its_patch(
    proven: tuple[Proof, list[Event]],
) -> None:
    """One can read what was changed, and what the checks made of it."""
    folder = proven[0].folder
    assert {path.name for path in (folder / "swapped").iterdir()} == {
        "00_sample.ipynb", "defect.patch", "index.html", "results.json", "junit.xml",
    }  # fmt: skip
    assert (
        "+        return cls(*reversed(numbers))" in (folder / "swapped/defect.patch").read_text()
    )


def test_events_tell_of_each_defect(proven: tuple[Proof, list[Event]]) -> None:
    """First the undamaged package, then each defect begins and ends."""
    _, events = proven
    assert [event.begun for event in events[:2]] == [True, False]
    assert [event.trial for event in events[:2]] == [None, None]
    told = [(event.trial.defect.id, event.begun) for event in events[2:] if event.trial]
    assert sorted(told) == sorted((each.id, begun) for each in DEFECTS for begun in (True, False))


def test_a_defect_that_fails_too_much_does_not_count(tmp_path: Path) -> None:
    """On the whole notebook, more than a third of its checks may not fail."""
    path = write(notebook(*SAMPLE, setup=USING), tmp_path / "00_sample.ipynb")
    defects = (defect("swapped", REVERSED), defect("backwards", Edit(
        EVENTS, "other.seq == self.seq + 1", "other.seq == self.seq - 1"), caught_by="GP-02", control="GP-03"))  # fmt: skip
    proof = _prove(tmp_path, defects, path, whole=True)
    assert outcome(proof, "swapped") == ("too coarse", "2 of 5 checks failed: GP-01, GP-05")
    assert outcome(proof, "backwards") == ("caught", "")
    assert len(proof.trials[0].checks) == 5
    assert proof.unproven == []


@pytest.mark.parametrize(
    ("bodies", "defects", "told"),
    [
        (["assert False, 'red'", PRECEDES], [defect("swapped", REVERSED)], "without any defect, GP-01: AssertionError: red"),
        ([PARSES, PRECEDES], [defect("swapped", REVERSED, caught_by="GP-09")], "no check GP-09; did you mean GP-0"),
        ([PARSES, PRECEDES], [], "no defect of these notebooks"),
    ],
)  # fmt: skip
def test_what_cannot_be_proven_is_told(
    tmp_path: Path, bodies: list[str], defects: list[Defect], told: str
) -> None:
    """Nothing is proven where a check fails without a defect, or is not there."""
    path = write(notebook(*bodies, setup=USING), tmp_path / "00_sample.ipynb")
    with pytest.raises(CannotRun, match=told):
        _prove(tmp_path, defects, path)
    assert not (tmp_path / "outputs/proven").is_symlink()


def test_a_notebook_that_does_not_run_the_copy_proves_nothing(tmp_path: Path) -> None:
    """A kernel that loads other code than the copy is an error, not a catch."""
    setup = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + USING
    path = write(notebook(PARSES, PRECEDES, setup=setup), tmp_path / "00_sample.ipynb")
    with pytest.raises(CannotRun, match="no kernel ran this copy"):
        _prove(tmp_path, [defect("swapped", REVERSED)], path)


def test_a_stop_keeps_what_was_proven(tmp_path: Path) -> None:
    """Once asked to stop, no kernel goes on, and the results so far are on disk."""
    path = write(notebook(PARSES, HANGS, FOLLOWS, setup=USING), tmp_path / "00_sample.ipynb")
    stop = threading.Event()
    control = {"control": "GP-03"}
    defects = (
        defect("swapped", REVERSED, **control),
        defect("hangs", REVERSED, caught_by="GP-02", **control),
        defect("never", REVERSED, **control),
    )

    def ask() -> None:
        begun(tmp_path)
        stop.set()

    asking = threading.Thread(target=ask)
    asking.start()
    proof = _prove(tmp_path, defects, path, jobs=1, stop=stop)
    asking.join()
    assert not psutil.pid_exists(int((tmp_path / "begun").read_text()))
    assert proof.stopped
    content = load(tmp_path / "outputs/proven/proof.json")
    assert [each["outcome"] for each in content["defects"]] == ["caught", "not run", "not run"]
    assert (content["stopped"], content["verdict"]) == (True, "fail")


# Judging


@st.composite
def seen(draw: st.DrawFn) -> Seen:
    verdict = draw(st.sampled_from(Verdict))
    asserted = verdict is Verdict.FAIL and draw(st.booleans())
    role = draw(st.sampled_from(["caught_by", "control", "other"]))
    return Seen(f"GP-{draw(st.integers(1, 99)):02}", role, verdict, "said", asserted)


@given(st.lists(seen(), max_size=8), st.booleans(), st.booleans(), st.booleans())
def test_caught_is_what_nothing_speaks_against(
    checks: list[Seen], error: bool, doubt: bool, whole: bool
) -> None:
    """Every named check failed by its assertion, every control passed, nothing else went wrong."""
    checks.append(Seen("GP-00", "caught_by", Verdict.FAIL, "said", True))
    found, reason = judge(
        checks, error="setup failed" * error, doubts=["other code"] * doubt, whole=whole
    )
    failed = sum(1 for each in checks if each.verdict)
    good = (
        not error
        and not doubt
        and all(each.asserted for each in checks if each.role == "caught_by")
        and not any(each.verdict for each in checks if each.role == "control")
        and not (whole and failed * 3 > len(checks))
    )
    assert (found == "caught") is good
    assert bool(reason) is not good


def error(*frames: str, ename: str = "AssertionError", evalue: str = "a == b") -> Any:
    traceback = ["-" * 20, f"{ename}  Traceback (most recent call last)", *frames, f"{ename}: x"]
    output = nbformat.v4.new_output("error", ename=ename, evalue=evalue, traceback=traceback)
    return nbformat.from_dict(output)


CELL = "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[7]\x1b[39m\x1b[32m, line 3\x1b[39m\n      1 code"
LAB = "\x1b[36mFile \x1b[39m\x1b[32m/dev/shm/ssot-1/x/ssot/lab/users.py:160\x1b[39m, in LabClient.until(self)"
PRODUCT = "\x1b[36mFile \x1b[39m\x1b[32m/dev/shm/ssot-1/x/ssot/events.py:16\x1b[39m, in f(a)"


@pytest.mark.parametrize(
    ("found", "own"),
    [
        (error(CELL), True),
        (error(CELL, LAB), True),
        (error(CELL, PRODUCT), False),
        (error(PRODUCT, CELL), True),
        (error(CELL, evalue=""), True),
        (error(CELL, LAB, evalue=""), False),
        (error(CELL, ename="TimeoutError"), False),
        (error(CELL, ename="Unexpected"), False),
        (error(), False),
        (None, False),
    ],
)
def test_an_assertion_is_the_checks_own_where_it_was_raised(found: Any, own: bool) -> None:
    """In the cell, or where the lab looked or waited for it; not inside the product."""
    assert is_own_assertion(found) is own


# The command

OWN = """
from ssot.lab.defects.model import Defect, Edit

def defect(name, after):
    edit = Edit("ssot/events.py", "return cls(*numbers)", after)
    return Defect(name, "It is wrong", "users suffer", (edit,), ("GP-01",), ("GP-02",))

DEFECTS = (
    defect("swapped", "return cls(*reversed(numbers))"),
    defect("harmless", "return cls(*tuple(numbers))"),
)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a notebook and defects of one's own."""
    write(notebook(HANGS, FOLLOWS, PARSES, setup=USING), tmp_path / "notebooks/00_a.ipynb")
    (tmp_path / "own.py").write_text(OWN.replace("GP-01", "GP-03"))
    (tmp_path / "hang.py").write_text(OWN)
    return tmp_path


def test_a_defect_that_was_caught_exits_with_0(here: Path) -> None:
    """A line says what the check said; the summary counts."""
    code, output = ssot("prove", "--defects", "own.py", "--defect", "swapped", cwd=here)
    assert code == 0, output
    assert "CAUGHT swapped (GP-03): It is wrong" in output
    assert "\n  GP-03 AssertionError: " in output
    assert "1 of 1 defects caught in " in output
    assert load(here / "outputs/proven/proof.json")["verdict"] == "pass"


def test_a_defect_that_no_longer_applies_exits_with_2(here: Path) -> None:
    """The proof could not be made; it is no verdict on a check."""
    stale = OWN.replace("GP-01", "GP-03").replace(
        '"return cls(*numbers)", after', '"nowhere", after'
    )
    (here / "stale.py").write_text(stale)
    code, output = ssot("prove", "--defects", "stale.py", "--defect", "swapped", cwd=here)
    assert "NOT APPLICABLE swapped" in output
    assert code == 2


def test_a_defect_that_was_missed_exits_with_1(here: Path) -> None:
    """And says which check passed though the code was wrong."""
    code, output = ssot("prove", "--defects", "own.py", cwd=here)
    assert code == 1
    assert "MISSED harmless (GP-03): It is wrong" in output
    assert "\n  GP-03 passed\n" in output
    assert "1 of 2 defects caught" in output


def test_defects_are_listed_without_running_any(here: Path) -> None:
    """One can see what there is; a name that is none is told with the nearest."""
    code, output = ssot("prove", "--defects", "own.py", "--list", cwd=here)
    assert code == 0
    assert output.splitlines()[1:] == ["harmless  GP-03   It is wrong"]
    code, output = ssot("prove", "--defects", "own.py", "--defect", "swaped", cwd=here)
    assert (code, output) == (2, "ssot: no defect swaped; did you mean swapped?\n")
    assert not (here / "outputs").exists()


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_leaves_no_kernel_and_no_copy(here: Path, number: int, expected: int) -> None:
    """However the command ends, SIGKILL included; what was proven is on disk."""
    command = ("prove", "--defects", "hang.py", "--defect", "swapped")
    process = start(*SSOT, *command, cwd=here)
    kernel = begun(here / "notebooks")
    workspace = Path(psutil.Process(kernel).environ()["SSOT_WORKSPACE"])
    assert (workspace / "swapped/ssot").is_dir()
    process.send_signal(number)
    code, output = finish(process, within=10)
    assert code == expected, output
    gone(kernel, within=5)
    until(lambda: not os.path.lexists(workspace), within=10, what="the copies are removed")
    proof = json.loads((here / "outputs/proven/proof.json").read_text())
    assert proof["defects"][0]["outcome"] == "not run"
    assert proof["stopped"] is (number != signal.SIGKILL)


def _of(path: Path, *checks: str) -> nbformat.NotebookNode:
    """The notebook with these checks alone, word for word."""
    node: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    names = tuple(check.lower() for check in checks)
    node.cells = [
        each
        for each in node.cells
        if not each.id.startswith(("gp-", "figure")) or each.id.startswith(names)
    ]
    node.cells[-1].source = f"lab.summary({{'shown': {list(checks)}}})"
    return node


def test_the_golden_path_catches_what_it_says(tmp_path: Path) -> None:
    """On real servers: a defect of the auth service, and one of a worker that takes over."""
    # Its other checks would only cost time here: each of them is an item of this run already.
    path = ROOT / "notebooks/00_golden_path.ipynb"
    write(_of(path, "GP-03", "GP-05", "GP-12"), tmp_path / "notebooks" / path.name)
    wanted = ("any-password", "replayed-events-doubled")
    process = start(*SSOT, "prove", "00", *(word for each in wanted for word in ("--defect", each)), cwd=tmp_path)  # fmt: skip
    code, output = finish(process, within=110)
    assert code == 0, output
    assert "without any defect: all checks pass" in output
    assert "GP-03 AssertionError: no AuthenticationError was raised" in output
    assert "GP-12 AssertionError: alice.types(run) == FIVE" in output
    content = load(tmp_path / "outputs/proven/proof.json")
    assert [each["outcome"] for each in content["defects"]] == ["caught", "caught"]
    control = [each["checks"][0] for each in content["defects"]]
    assert {(each["id"], each["role"], each["verdict"]) for each in control} >= {("GP-05", "control", "pass")}  # fmt: skip

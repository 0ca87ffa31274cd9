"""What is explored of an executed notebook, and the copy of it that is focused on one cell."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_output
from notebooks.samples import FAIL, PASS, cell, notebook, recorded, stream, write

from ssot.lab.focus import Failure, Focus, Replay, compare, find_focus, focused, told
from ssot.lab.notebook import CannotRun, parameters, read

AGAIN = "── run just this check again ──\nssot run 00_a --only GP-02 -p users 32 -p services url\n"


def error(name: str = "AssertionError", value: str = "sum is 2"):
    return new_output(
        "error", ename=name, evalue=value, traceback=[f"\x1b[31m{name}\x1b[0m: {value}"]
    )


def executed(*bodies: str, injected: str = ""):
    """A notebook as papermill leaves it when GP-02 failed."""
    node = recorded(*bodies)
    node.metadata["papermill"] = {"parameters": {}}
    if injected:
        made = new_code_cell(
            f"# Parameters\n{injected}", metadata={"tags": ["injected-parameters"]}
        )
        made.execution_count = 2
        node.cells.insert(2, made)
    if len(bodies) > 1:
        cell(node, "gp-02-claim").outputs = [stream("GP-02 FAIL claim 2 holds\n\nwhy\n"), error()]
    return node


def find(path, check=None, outputs=None):
    return find_focus(path, check, outputs=outputs or path.parent / "outputs")


def ids(node):
    return [each.id for each in node.cells]


def values(node):
    return {each.name: each.default for each in parameters(node)}


# What is found


def test_the_first_check_that_did_not_pass_is_taken(tmp_path):
    """Without a name it is the first in the notebook's order."""
    path = write(executed(PASS, FAIL, PASS), tmp_path / "00_a.ipynb")
    focus = find(path)
    assert (focus.name, focus.cell_id) == ("GP-02", "gp-02-claim")
    assert focus.recorded == Failure("gp-02-claim", "AssertionError", "sum is 2")


def test_a_check_that_passed_may_be_explored_by_its_name(tmp_path):
    """Whoever names a check gets it, in any case of its letters."""
    path = write(executed(PASS, FAIL, PASS), tmp_path / "00_a.ipynb")
    focus = find(path, "gp-03")
    assert (focus.name, focus.recorded, focus.never_run) == ("GP-03", None, False)


def test_a_setup_that_failed_is_what_is_explored(tmp_path):
    """No check can be reached over a setup that failed, also not by name."""
    node = notebook(PASS, FAIL)
    cell(node, "setup").outputs = [error("OSError", "no server")]
    cell(node, "setup").execution_count = 2
    path = write(node, tmp_path / "00_a.ipynb")
    for name in (None, "GP-02"):
        focus = find(path, name)
        assert (focus.name, focus.check) == ("setup", None)
        assert str(focus.recorded) == "OSError: no server"


def test_the_record_of_the_run_knows_how_a_kernel_died(tmp_path):
    """The output of a kernel that died says nothing; the results beside it do."""
    node = executed(PASS, FAIL, PASS)
    for name in ("gp-02-claim", "gp-03-claim"):
        cell(node, name).update(outputs=[], execution_count=None)
    path = write(node, tmp_path / "run" / "00_a.ipynb")
    results(path, {"GP-01": "", "GP-02": "the kernel died", "GP-03": "it was not run: it died"})
    assert str(find(path).recorded) == "the kernel died"
    assert (find(path).run, find(path).folder) == ("the-run", tmp_path)
    last = find(path, "GP-03")
    assert (last.recorded, last.never_run) == (None, True)


def results(path, messages, *, others=()):
    checks = [{"id": name, "message": message} for name, message in messages.items()]
    listed = [
        {"output": each.name, "path": str(path.parents[1] / each.name), "checks": checks}
        for each in (*others, path)
    ]
    content = {"run": "the-run", "notebooks": listed}
    (path.parent / "results.json").write_text(json.dumps(content))


def test_what_may_have_been_meant_is_a_run_or_a_notebook(tmp_path, monkeypatch):
    """Whatever else lies there is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nosuch.txt").touch()
    (tmp_path / ".nosuch").mkdir()
    path = write(executed(PASS), tmp_path / "outputs" / "20260101T000000000Z-aaaa" / "00_a.ipynb")
    results(path, {"GP-01": ""})
    for name, hint in (("nosuch", "there is"), ("20260101T000000000Z-aaab", "did you mean")):
        with pytest.raises(CannotRun, match=f"run {name}; {hint} 20260101T000000000Z-aaaa"):
            find(Path(name), outputs=Path("outputs"))


def test_a_run_is_given_by_its_folder_its_name_or_not_at_all(tmp_path):
    """The latest run is the default; of several notebooks the one that failed is taken."""
    run = tmp_path / "outputs" / "2026"
    good = write(executed(PASS), run / "00_a.ipynb")
    path = write(executed(PASS, FAIL), run / "01_b.ipynb")
    (run.parent / "latest").symlink_to("2026")
    for given_ in (None, run, run.parent / "latest", run.relative_to(run.parent)):
        assert find_focus(given_, None, outputs=run.parent).notebook.path == path
    results(path, {}, others=[good])
    assert find_focus(None, None, outputs=run.parent).notebook.path == path
    assert find_focus(None, "GP-02", outputs=run.parent).notebook.path == path
    with pytest.raises(CannotRun, match=r"GP-01 is in .*00_a.ipynb, .*01_b.ipynb; give the noteb"):
        find_focus(None, "GP-01", outputs=run.parent)


def test_what_cannot_be_explored_is_told(tmp_path):
    """Each mistake has a sentence with what exists instead."""

    def problem(path, check=None, outputs=tmp_path / "outputs"):
        with pytest.raises(CannotRun) as caught:
            find_focus(path, check, outputs=outputs)
        (one,) = caught.value.problems
        return one.replace(str(tmp_path), "…")

    assert problem(None).startswith("there is no run in …/outputs/latest: run ssot run")
    passed = write(executed(PASS), tmp_path / "00_passed.ipynb")
    failed = write(executed(PASS, FAIL), tmp_path / "00_failed.ipynb")
    assert problem(tmp_path / "00_fialed.ipynb").endswith("; did you mean 00_failed.ipynb?")
    assert problem(passed) == (
        "every check of …/00_passed.ipynb passed; name one to explore it anyway: GP-01"
    )
    assert problem(failed, "GP-20") == "no check GP-20 in …/00_failed.ipynb; did you mean GP-02?"
    fresh = write(notebook(PASS), tmp_path / "00_fresh.ipynb")
    assert problem(fresh).startswith("…/00_fresh.ipynb: was never run; give the output of a run")
    (tmp_path / "text.ipynb").write_text("text")
    assert "is not JSON" in problem(tmp_path / "text.ipynb")
    foreign = write(recorded(), tmp_path / "foreign.ipynb")
    assert problem(foreign) == "…/foreign.ipynb: has no check; it is not a notebook of ours"
    (tmp_path / "empty").mkdir()
    assert problem(tmp_path / "empty") == "no executed notebook in …/empty"
    copy = write(focused(find(failed)), tmp_path / "copy.ipynb")
    assert problem(copy).endswith("is a copy made to explore …/00_failed.ipynb; give that")


# The copy


def test_the_copy_has_what_leads_to_the_failure_and_nothing_else(tmp_path):
    """Title, parameters, setup, the one check with its record, and cells to look around."""
    path = write(executed(PASS, FAIL, PASS, injected="users = 8"), tmp_path / "00_a.ipynb")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    copy = focused(find(path))
    assert ids(copy) == [
        "explore-title",
        "parameters",
        "setup",
        "gp-02-claim-why",
        "gp-02-claim",
        "explore-record",
        "explore-look",
        "explore-timeline",
        "explore-statistics",
        "explore-logs",
        "explore-rows",
        "explore-try",
    ]
    assert cell(copy, "gp-02-claim").outputs[1].evalue == "sum is 2"
    assert cell(copy, "gp-02-claim-why").source.startswith("### GP-02 · claim 2 holds")
    assert "raises-exception" in cell(copy, "gp-02-claim").metadata.tags
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    written = read(write(copy, tmp_path / "copy.ipynb"))
    assert [check.id for check in written.checks] == ["GP-02"]


def test_the_copy_has_the_parameters_of_the_batch(tmp_path):
    """What was injected stands in the parameters cell, beside the comments that explain it."""
    node = executed(PASS, FAIL, injected='users = 8\nseed = 11\nservices = "ur#l"')
    copy = focused(find(write(node, tmp_path / "00_a.ipynb")))
    lines = cell(copy, "parameters").source.splitlines()
    assert lines[0] == "users: int = 8  # how many users take part"
    assert values(copy) == {"users": 8, "seed": 11, "services": "ur#l", "latency_ms": 0.0}


def test_parameters_that_came_from_the_environment_are_known_from_the_report(tmp_path):
    """A failed check tells the command with all of them; what papermill injected goes first."""
    node = executed(PASS, FAIL, injected="users = 8")
    cell(node, "gp-02-claim").outputs.insert(0, stream(AGAIN))
    copy = focused(find(write(node, tmp_path / "00_a.ipynb")))
    assert values(copy) == {"users": 8, "seed": 7, "services": "url", "latency_ms": 0.0}


def test_what_was_injected_without_being_a_parameter_is_injected_again(tmp_path):
    """The setup must refuse it as it did in the batch."""
    node = executed(PASS, FAIL, injected="usres = 8")
    copy = focused(find(write(node, tmp_path / "00_a.ipynb")))
    assert cell(copy, "explore-strange").source == "# Parameters\nusres = 8"
    assert values(copy)["users"] == 2


@given(
    users=st.integers(),
    services=st.text(st.characters(codec="utf-8", exclude_characters="\r\x00")),
    latency=st.floats(0, 2000),
)
def test_any_value_comes_back_from_the_copy(tmp_path, users, services, latency):
    """Whatever papermill injected, the parameters cell of the copy has that value."""
    injected = f"users = {users}\nservices = {services!r}\nlatency_ms = {latency!r}"
    copy = focused(find(write(executed(PASS, FAIL, injected=injected), tmp_path / "00_a.ipynb")))
    assert values(copy) == {
        "users": users,
        "seed": 7,
        "services": services,
        "latency_ms": latency,
    }


def test_the_example_query_asks_as_the_first_user_of_the_check(tmp_path):
    """It can be run as it stands."""
    bodies = {
        'laptop = await lab.client("alice")': 'FROM runs", user=laptop.user)',
        'alice, bob = await lab.user("alice"), await lab.user("bob")': 'FROM runs", user=alice)',
        "assert 1 == 2": 'FROM pg_stat_activity WHERE datname = current_database()")',
    }
    for body, end in bodies.items():
        copy = focused(find(write(executed(PASS, body), tmp_path / "00_a.ipynb")))
        assert cell(copy, "explore-rows").source.endswith(end)
    names = "`lab`, `alice`, `bob`, whatever"
    copy = focused(find(write(executed(PASS, [*bodies][1]), tmp_path / "00_a.ipynb")))
    assert names in cell(copy, "explore-look").source


# The comparison


def test_a_failure_is_the_same_but_for_what_is_drawn_anew():
    """Names, ports, paths, times and durations differ from run to run; all else counts."""

    def same(one: str, other: str) -> bool:
        return Failure("c", "OSError", one).same(Failure("c", "OSError", other))

    assert same("connect to 127.0.0.1:45321 failed", "connect to 127.0.0.1:39999 failed")
    assert same("/dev/shm/ssot-1a2b3c4d/x.sock is gone", "/tmp/ssot-99887766/x.sock is gone")
    assert same("alice-1a2b3c4d took 31.02 s", "alice-99aa77bb took 30 s")
    assert same(
        "at 2026-11-22T21:36:02Z: <object at 0x7f12>", "at 2027-01-01 00:00: <object at 0xdead>"
    )
    assert same("alice.sequence == [1]\n  = [1, 2]", "alice.sequence == [1]\n  = [7]")
    assert not same("alice.sequence == [1, 2]", "alice.sequence == [1, 3]")
    assert not same("a is down", "b is down")
    one = Failure("c", "OSError", "x")
    assert not one.same(Failure("c", "ValueError", "x"))
    assert not one.same(Failure("setup", "OSError", "x"))


@given(st.uuids(), st.uuids(), st.integers(1024, 65535), st.integers(1024, 65535))
def test_drawn_identifiers_never_make_a_difference(one: uuid.UUID, other: uuid.UUID, a, b):
    """Whatever is drawn, the failure is the same."""

    def failure(drawn: uuid.UUID, port: int) -> Failure:
        return Failure("c", "E", f"run-{drawn.hex} of {drawn} at 127.0.0.1:{port}")

    assert failure(one, a).same(failure(other, b))


def test_each_outcome_of_a_replay_is_told_with_both_failures(tmp_path):
    """The title says how the replay compares; the record stands under the check."""
    path = write(executed(PASS, FAIL), tmp_path / "00_a.ipynb")
    focus = find(path)
    recorded_, other = focus.recorded, Failure("setup", "OSError", "no `server`")
    assert recorded_ is not None
    passed = Focus(focus.notebook, "gp-01-claim", focus.notebook.checks[0], None)
    seen = [
        (focus, recorded_, "**Reproduced.**", "AssertionError: sum is 2"),
        (focus, other, "**Failed differently.**", "```text\nOSError: no `server`\n```"),
        (focus, None, "**Passed now.**", "AssertionError: sum is 2"),
        (passed, recorded_, "**Failed now**", "in the batch it passed"),
        (passed, None, "**Passed now**", "in the batch it passed"),
    ]
    outcomes = []
    for each, replayed, *texts in seen:
        copy = focused(each)
        outcomes.append(compare(each, replayed))
        told(copy, each, outcomes[-1], replayed)
        for text in texts:
            assert text in cell(copy, "explore-title").source
    assert outcomes == [
        Replay.REPRODUCED,
        Replay.DIFFERENT,
        Replay.PASSED,
        Replay.FAILED,
        Replay.PASSED,
    ]
    copy = focused(focus)
    told(copy, focus, Replay.REPRODUCED, recorded_)
    record = cell(copy, "explore-record").source
    assert record.startswith("<details><summary>What the batch")
    assert "GP-02 FAIL claim 2 holds" in record
    assert "\x1b" not in record

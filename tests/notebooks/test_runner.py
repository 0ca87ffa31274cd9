"""The runner and the command ``ssot run``, on small notebooks with real kernels."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from xml.etree import ElementTree as ET

import nbclient.exceptions
import papermill
import psutil
import pytest
from papermill.engines import papermill_engines

from ssot.lab import runner
from ssot.lab.engine import Engine
from ssot.lab.execution import execute
from ssot.lab.notebook import CannotRun, Verdict, error_of, read
from ssot.lab.progress import Finished

from .samples import (
    DIE,
    FAIL,
    HANG,
    PASS,
    ROOT,
    SSOT,
    UNKNOWN,
    begun,
    cell,
    finish,
    gone,
    load,
    notebook,
    ssot,
    start,
    write,
)


def _run(paths, outputs, **options):
    options = {"parameters": {}, "jobs": 2} | options
    return runner.run(paths, outputs=outputs, **options)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """One run of notebooks that end in every way, and the events it told."""
    folder = tmp_path_factory.mktemp("batch")
    paths = [
        write(notebook(PASS, FAIL, UNKNOWN, PASS), folder / "00_mixed.ipynb"),
        write(notebook(PASS, DIE, PASS), folder / "01_dies.ipynb"),
        write(notebook(PASS, setup="raise OSError('no server')"), folder / "02_setup.ipynb"),
        write(
            notebook(
                f"assert (users, db_password) == (8, 'hunter2')\n    import os; {_HERE}",
                summary="1 / 0",
                parameters="users: int = 2  # how many\ndb_password: str = ''  # of the database",
            ),
            folder / "03_summary{x}.ipynb",
        ),
    ]
    events = []
    result = _run(
        paths,
        folder / "outputs",
        parameters={"users": 8, "db_password": "hunter2"},
        on_event=events.append,
    )
    return result, events


_HERE = "assert os.path.exists('03_summary{x}.ipynb')"


def _verdicts(notebook_result):
    return [(each.verdict.name, each.message) for each in notebook_result.checks.values()]


def test_each_check_has_its_verdict(batch):
    """A failed or unknown check ends neither its notebook nor the run."""
    assert _verdicts(batch[0].notebooks[0]) == [
        ("PASS", ""),
        ("FAIL", "AssertionError: sum is 2"),
        ("UNKNOWN", "no ssl here"),
        ("PASS", ""),
    ]


def test_a_dead_kernel_fails_its_check_and_leaves_the_rest_unknown(batch):
    """What had passed before the kernel died has passed."""
    assert _verdicts(batch[0].notebooks[1]) == [
        ("PASS", ""),
        ("FAIL", "the kernel died"),
        ("UNKNOWN", "it was not run: the kernel died"),
    ]


def test_after_a_failed_setup_all_is_unknown(batch):
    """Nothing is known of a check whose setup failed, and the notebook has failed."""
    failed = batch[0].notebooks[2]
    assert failed.error == "setup failed: OSError: no server"
    assert _verdicts(failed) == [("UNKNOWN", f"it was not run: {failed.error}")]
    assert failed.verdict is Verdict.FAIL


def test_a_notebook_fails_with_any_of_its_cells(batch):
    """A summary that raises fails its notebook though all checks passed."""
    failed = batch[0].notebooks[3]
    assert _verdicts(failed) == [("PASS", "")]
    assert failed.error == "summary failed: ZeroDivisionError: division by zero"


def test_a_wrong_type_hides_no_wrong_range(tmp_path):
    """All that is wrong is told at once, each once."""
    parameters = "users: int = 2  # how many\nlatency_ms: int = 0  # on every link"
    path = write(notebook(PASS, parameters=parameters), tmp_path / "00_a.ipynb")
    with pytest.raises(CannotRun) as caught:
        _run([path], tmp_path / "outputs", parameters={"users": "many", "latency_ms": -3})
    problems = caught.value.problems
    assert len(problems) == 2
    assert "parameter users: int expected" in problems[0]
    assert "latency_ms must be from 0" in problems[1]


def test_outputs_that_cannot_be_written_are_told_once(tmp_path):
    """Why, in words, and where: no number of an error, no path twice."""
    path = write(notebook(PASS), tmp_path / "00_a.ipynb")
    (tmp_path / "file").touch()
    with pytest.raises(CannotRun) as caught:
        _run([path], tmp_path / "file")
    assert [*caught.value.problems] == [
        f"outputs cannot be written to {tmp_path / 'file'}: Not a directory"
    ]


def test_parameters_go_to_the_notebooks_that_have_them(batch):
    """One notebook's own parameter is no error for the others."""
    assert [dict(each.parameters) for each in batch[0].notebooks] == [
        *[{"users": 8}] * 3,
        {"users": 8, "db_password": "hunter2"},
    ]


def test_events_tell_of_each_check_as_it_happens(batch):
    """A check begins, ends, and its notebook ends after it; one that was not run does neither."""
    told = [
        (event.check.check.id if event.check else None, event.begun)
        for event in batch[1]
        if event.notebook.name == "01_dies"
    ]
    assert told == [
        ("GP-01", True),
        ("GP-01", False),
        ("GP-02", True),
        ("GP-02", False),
        (None, False),
    ]


def test_executed_notebooks_are_kept(batch):
    """The outputs of each notebook hold what ran, the failure included."""
    executed = read(batch[0].notebooks[0].output)
    assert error_of(cell(executed.node, "gp-02-claim").outputs).evalue == "sum is 2"
    died = read(batch[0].notebooks[1].output)
    assert cell(died.node, "gp-01-claim").outputs[0].text == "GP-01 PASS claim 1 holds\n"
    assert {path.name for path in batch[0].folder.iterdir() if path.suffix != ".log"} == {
        *(each.output.name for each in batch[0].notebooks),
        "results.json",
        "index.html",
        "junit.xml",
    }


def test_results_are_on_disk(batch):
    """results.json has every check, what it ran with, and no secret in clear."""
    result, _ = batch
    content = load(result.folder.parent / "latest" / "results.json")
    assert content["run"] == result.id == (result.folder.parent / "latest").readlink().name
    assert re.fullmatch(r"\d{8}T\d{9}Z-[0-9a-f]{4}", result.id)
    assert content["verdict"] == "fail"
    assert content["parameters"] == {"users": 8, "db_password": "********"}
    assert content["notebooks"][3]["parameters"] == {"users": 8, "db_password": "********"}
    mixed = content["notebooks"][0]
    assert [each["verdict"] for each in mixed["checks"]] == ["pass", "fail", "unknown", "pass"]
    assert mixed["checks"][1]["message"] == "AssertionError: sum is 2"
    assert mixed["checks"][1]["seconds"] > 0


def test_junit_is_by_check(batch):
    """A consumer of JUnit sees each check by its id; unknown is not passed there either."""
    suites = ET.parse(batch[0].folder / "junit.xml").getroot()
    mixed = suites.find("testsuite[@name='00_mixed']")
    assert mixed.attrib["tests"] == "4"
    assert {case.attrib["name"]: [child.tag for child in case][1:] for case in mixed} == {
        "GP-01": [],
        "GP-02": ["failure"],
        "GP-03": ["error"],
        "GP-04": [],
    }
    assert "timeline: a, b" in mixed.find("testcase[@name='GP-02']/failure").text
    setup = suites.find("testsuite[@name='02_setup']")
    assert [case.attrib["name"] for case in setup] == ["notebook", "GP-01"]


def test_only_runs_setup_and_those_checks(tmp_path):
    """A chosen check runs without the others, also without those of other notebooks."""
    paths = [
        write(notebook(FAIL, "assert users == 3", FAIL), tmp_path / "00_a.ipynb"),
        write(notebook(FAIL), tmp_path / "01_b.ipynb"),
    ]
    result = _run(paths, tmp_path / "outputs", only=["GP-02"], parameters={"users": 3})
    assert [each.name for each in result.notebooks] == ["00_a"]
    assert list(result.notebooks[0].checks) == ["GP-02"]
    assert result.verdict is Verdict.PASS
    executed = read(result.notebooks[0].output)
    assert [check.id for check in executed.checks] == ["GP-02"]


def test_everything_wrong_is_told_before_anything_starts(tmp_path):
    """A mistake in a parameter, a check or a notebook costs no run."""
    path = write(notebook(PASS), tmp_path / "00_a.ipynb")
    with pytest.raises(CannotRun) as caught:
        _run([path], tmp_path / "o", parameters={"usres": 1, "seed": "x"}, only=["GP-09"])
    assert caught.value.problems == (
        "no parameter usres; did you mean users?",
        "00_a.ipynb: parameter seed: int expected, given 'x' (str)",
        "no check GP-09; did you mean GP-01?",
    )
    other = write(notebook(PASS), tmp_path / "b" / "00_a.ipynb")
    with pytest.raises(CannotRun, match="two notebooks are named 00_a"):
        _run([path, other], tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    """Outputs that cannot be kept are known before the first kernel."""
    path = write(notebook(PASS), tmp_path / "00_a.ipynb")
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(CannotRun, match="outputs cannot be written to"):
        _run([path], tmp_path / "outputs")


def test_a_stop_from_another_thread_keeps_what_finished(tmp_path):
    """Once asked to stop, the kernel is gone at once and the output is written."""
    path = write(notebook(PASS, HANG, PASS), tmp_path / "00_a.ipynb")
    stop = threading.Event()
    kernels = []

    def ask():
        kernels.append(begun(tmp_path))
        stop.set()

    asking = threading.Thread(target=ask)
    asking.start()
    result = _run([path], tmp_path / "outputs", stop=stop)
    asking.join()
    assert not psutil.pid_exists(kernels[0])
    assert result.stopped
    assert [each.verdict.name for each in result.notebooks[0].checks.values()] == [
        "PASS",
        "UNKNOWN",
        "UNKNOWN",
    ]
    executed = read(result.notebooks[0].output)
    assert cell(executed.node, "gp-01-claim").outputs
    assert not cell(executed.node, "gp-03-claim").outputs


def test_an_error_of_the_listener_stops_the_run(tmp_path):
    """When the caller fails, no kernel goes on behind its back, and results are kept."""
    path = write(notebook(PASS, HANG), tmp_path / "00_a.ipynb")

    def listen(event):
        if event.begun and event.check.check.id == "GP-02":
            begun(tmp_path)
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        _run([path], tmp_path / "outputs", on_event=listen)
    gone(int((tmp_path / "begun").read_text()))
    content = load(tmp_path / "outputs" / "latest" / "results.json")
    assert content["notebooks"][0]["checks"][0]["verdict"] == "pass"


def test_the_engine_works_under_papermill_itself(tmp_path, caplog):
    """Without our options the engine is papermill's own, with a line for each check."""
    papermill_engines.register("ssot", Engine)
    path = write(notebook(PASS, FAIL, PASS), tmp_path / "00_a.ipynb")
    caplog.set_level("INFO", logger="papermill")
    with pytest.raises(papermill.PapermillExecutionError, match="sum is 2"):
        papermill.execute_notebook(
            str(path), str(tmp_path / "out.ipynb"), engine_name="ssot", progress_bar=False
        )
    lines = [line for line in caplog.messages if line.startswith("GP-")]
    assert [re.sub(r"[\d.]+ s", "… s", line) for line in lines] == [
        "GP-01 PASS claim 1 holds … s",
        "GP-02 FAIL claim 2 holds … s: AssertionError: sum is 2",
        "GP-03 PASS claim 3 holds … s",
    ]


# The command


def test_run_of_passing_notebooks(tmp_path):
    """The command tells a line for each check, counts them, and exits with 0."""
    write(notebook("assert (users, seed) == (8, 5)"), tmp_path / "notebooks" / "00_a.ipynb")
    code, output = ssot("run", "-p", "users", "8", "0", "--seed", "5", cwd=tmp_path)
    assert re.search(r"^GP-01 PASS claim 1 holds \d\.\d s$", output, re.MULTILINE), output
    assert re.search(r"^1 pass, 0 unknown, 0 fail of 1 checks$", output, re.MULTILINE)
    assert re.search(r"^outputs: outputs/\w+-\w+$", output, re.MULTILINE)
    assert code == 0
    assert load(tmp_path / "outputs/latest/results.json")["seed"] == 5


def test_run_with_a_failure_tells_how_to_run_it_again(tmp_path):
    """A failed check exits with 1, and the command to repeat just that is printed."""
    write(notebook(PASS, FAIL), tmp_path / "notebooks" / "00_a.ipynb")
    code, output = ssot("run", "-p", "services", "url", cwd=tmp_path)
    assert "\n  AssertionError: sum is 2\n" in output
    assert "\n  ssot run 00_a --only GP-02 -p services url\n" in output
    assert code == 1


def test_run_of_a_kernel_that_dies_exits_with_2(tmp_path):
    """The notebook could not be run to its end; what had passed is kept."""
    write(notebook(PASS, "import os; os._exit(3)"), tmp_path / "notebooks" / "00_a.ipynb")
    code, output = ssot("run", cwd=tmp_path)
    assert "the kernel died" in output
    assert "1 pass" in output
    assert code == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-p", "usres", "8"], "no parameter usres; did you mean users?"),
        (["-p", "users", "many"], "parameter users: int expected, given 'many' (str)"),
        (["-p", "users", "1"], "users must be from 2 to 1000, not 1"),
        (["--only", "GP-04"], "no check GP-04; did you mean GP-01?"),
        (["00_b"], "no notebook 00_b; did you mean 00_a?"),
        (["-p", "users"], "-p takes a name and a value"),
        (["-p", "users=8", "00"], "-p takes a name and a value"),
        ([], "outputs cannot be written to"),
    ],
)
def test_what_cannot_be_run_exits_with_2(tmp_path, args, message):
    """A mistake is told in a sentence with the nearest that exists, and nothing is started."""
    write(notebook(PASS), tmp_path / "notebooks" / "00_a.ipynb")
    if not args:
        (tmp_path / "outputs").write_text("a file")
    code, output = ssot("run", *args, cwd=tmp_path)
    assert message in " ".join(re.sub(r"[│╭╰─╮╯]", "", output).split())
    assert "Traceback" not in output
    assert code == 2
    assert not (tmp_path / "outputs").is_dir()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_keeps_results_and_leaves_no_kernel(tmp_path, number, expected):
    """Ctrl-C, SIGTERM and a closed terminal end kernels; what had finished is in the results."""
    write(notebook(PASS, HANG), tmp_path / "notebooks" / "00_a.ipynb")
    process = start(*SSOT, "run", cwd=tmp_path)
    kernel = begun(tmp_path / "notebooks")
    process.send_signal(number)
    code, output = finish(process, within=5)
    gone(kernel, within=0.5)
    assert code == expected, output
    assert "stopped" in output
    content = load(tmp_path / "outputs/latest/results.json")
    assert content["stopped"]
    checks = content["notebooks"][0]["checks"]
    assert [each["verdict"] for each in checks] == ["pass", "unknown"]
    assert (tmp_path / "outputs/latest/junit.xml").exists()


def test_a_killed_run_leaves_results_and_no_kernel(tmp_path):
    """Even SIGKILL loses nothing that had finished, and the kernel notices."""
    write(notebook(PASS, HANG), tmp_path / "notebooks" / "00_a.ipynb")
    process = start(*SSOT, "run", cwd=tmp_path)
    kernel = begun(tmp_path / "notebooks")
    process.kill()
    finish(process)
    gone(kernel)
    checks = load(tmp_path / "outputs/latest/results.json")["notebooks"][0]["checks"]
    assert [each["verdict"] for each in checks] == ["pass", "unknown"]
    assert checks[1]["message"] == "it did not come to an end"


def test_help_is_fast_to_come_by(tmp_path):
    """Nothing of the lab is imported to show help."""
    script = "import sys, ssot.cli; assert not {'papermill', 'ssot.lab'} & set(sys.modules)"
    assert finish(start("-c", script, cwd=tmp_path)) == (0, "")
    code, output = ssot("--help", cwd=tmp_path)
    assert code == 0
    assert "author" in output


@pytest.mark.long
def test_output_that_nobody_takes_costs_no_result(tmp_path):
    """A full disk behind it is told in a line; a closed one is nothing to tell."""
    write(notebook(PASS, PASS), tmp_path / "notebooks" / "00_a.ipynb")
    full = f"{sys.executable} -c 'from ssot.cli import main; main()' run"
    command = f"{full} > /dev/full; echo $?; {full} >&-; echo $?"
    process = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert process.stdout.split() == ["2", "0"]
    assert process.stderr.strip() == "ssot: [Errno 28] No space left on device"
    assert load(tmp_path / "outputs" / "latest" / "results.json")["verdict"] == "pass"


def test_a_place_for_workspaces_that_cannot_be_used_is_told_before(tmp_path, monkeypatch):
    """What every lab would trip over is told once, and no kernel is started."""
    path = write(notebook(PASS), tmp_path / "00_a.ipynb")
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    monkeypatch.setenv("TMPDIR", "/proc")
    with pytest.raises(CannotRun, match=r"no disk: /proc has 0 MB free, a workspace needs 200 MB"):
        _run([path], tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.long
def test_a_cell_that_nothing_can_interrupt_is_given_up(tmp_path):
    """A call in C that holds everything ends with its kernel; the others are kept."""
    stuck = "assert True\n    import re\n    re.match(r'(a+)+$', 'a' * 60 + 'b')"
    path = write(notebook(PASS, stuck, PASS), tmp_path / "00_a.ipynb")
    seen = []
    with pytest.raises(nbclient.exceptions.CellTimeoutError):
        execute(path, tmp_path / "out.ipynb", progress=seen.append, execution_timeout=3)
    ended = {e.check.id: e.outcome.verdict for e in seen if isinstance(e, Finished) and e.check}
    assert ended == {"GP-01": Verdict.PASS, "GP-02": Verdict.FAIL}
    kernels = [p for p in psutil.Process().children() if "ipykernel" in " ".join(p.cmdline())]
    assert kernels == []

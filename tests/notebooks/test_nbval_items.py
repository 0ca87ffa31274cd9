"""What ``pytest --nbval`` makes of our notebooks, in processes of its own."""

from __future__ import annotations

import re
import shutil
import signal
from xml.etree import ElementTree as ET

import nbformat
import pytest

from .samples import (
    DIE,
    FAIL,
    HANG,
    PASS,
    ROOT,
    begun,
    cell,
    finish,
    gone,
    notebook,
    recorded,
    start,
    stream,
    write,
)

pytestmark = pytest.mark.long


def _project(folder):
    """A folder with this repository's pytest configuration and notebooks/conftest.py."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "conftest.py", folder / "notebooks")
    return folder / "notebooks"


def _nbval(folder, *args):
    # without hypothesis, whose import is half of the start
    options = ("-p", "no:hypothesispytest", "--nbval", "--junitxml=junit.xml", "--color=yes")
    return start("-m", "pytest", *options, *args, cwd=folder)


def _items(folder):
    """Return what became of each item by its name, and the text of each that did not pass."""
    cases = ET.parse(folder / "junit.xml").iter("testcase")
    found = {}
    for case in cases:
        stem = case.attrib["classname"].split(".")[-2]
        reason = next(iter(case), None)
        found[stem, case.attrib["name"]] = (
            ("passed", "") if reason is None else (reason.tag, reason.attrib["message"])
        )
    return found


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """The items of a run over notebooks that end in every way, shuffled by pytest-randomly."""
    folder = tmp_path_factory.mktemp("nbval")
    notebooks = _project(folder)
    write(recorded(PASS, PASS), notebooks / "00_good.ipynb")
    write(recorded(PASS, FAIL, PASS), notebooks / "01_fails.ipynb")
    broken = recorded(PASS)
    cell(broken, "setup").source = "raise OSError('no server')"
    write(broken, notebooks / "02_setup.ipynb")
    never = recorded(PASS)
    cell(never, "gp-01-claim").execution_count = None
    cell(never, "gp-01-claim").outputs = []
    write(never, notebooks / "03_never.ipynb")
    write(recorded(PASS, DIE, PASS), notebooks / "04_dies.ipynb")
    other = recorded(PASS)
    cell(other, "gp-01-claim").source += "\nprint('| a | table |')"
    write(other, notebooks / "05_prints.ipynb")
    code, output = finish(_nbval(folder, "notebooks"), within=60)
    assert code == 1, output
    return _items(folder), output


def test_items_are_named_by_cell_id(items):
    """An item is its cell's id, and a notebook in order passes though items are shuffled."""
    names = ["parameters", "setup", "gp-01-claim", "gp-02-claim", "summary"]
    good = {name: result for (stem, name), result in items[0].items() if stem == "00_good"}
    assert good == dict.fromkeys(names, ("passed", ""))


def test_a_failed_check_shows_what_it_printed(items):
    """The report of a failure is the cell's own, without colour codes; the next check goes on."""
    kind, message = items[0]["01_fails", "gp-02-claim"]
    assert kind == "failure"
    assert message == (
        "GP-02 FAIL claim 2 holds\nseed 7\ntimeline: a, b\n\nAssertionError: sum is 2"
    )
    assert items[0]["01_fails", "gp-03-claim"] == ("passed", "")
    assert items[0]["01_fails", "summary"][0] == "skipped"


def test_after_a_failed_setup_the_rest_is_unknown(items):
    """A check whose setup failed is skipped as unknown, with the reason."""
    kind, message = items[0]["02_setup", "setup"]
    assert kind == "failure"
    assert "OSError: no server" in message
    assert "\x1b" not in message
    assert "#x1B" not in message
    assert items[0]["02_setup", "gp-01-claim"] == ("skipped", "unknown: setup failed")


def test_a_check_that_was_never_run_fails(items):
    """nbval alone would pass a cell without a record unseen."""
    kind, message = items[0]["03_never", "gp-01-claim"]
    assert kind == "failure"
    assert message.startswith("never run: ")
    assert "ssot author notebooks/03_never.ipynb" in message


def test_a_dead_kernel_is_noticed(items):
    """A check that kills its kernel fails at once, and the rest is unknown."""
    assert items[0]["04_dies", "gp-02-claim"] == ("failure", "the kernel died in gp-02-claim")
    assert items[0]["04_dies", "gp-03-claim"][1] == "unknown: the kernel died in gp-02-claim"


def test_another_output_is_shown_as_a_difference(items):
    """A check that passes but prints something else than on record is a difference of lines."""
    kind, message = items[0]["05_prints", "gp-01-claim"]
    assert kind == "failure"
    assert message.endswith(" GP-01 PASS claim 1 holds\n+| a | table |")


def test_nothing_is_warned_of(items):
    """With warnings as errors, nbval's own break nothing."""
    assert "Warning" not in items[1]


def test_xdist_keeps_a_notebook_together(tmp_path):
    """Spread over two workers, each notebook is run by one of them, in order."""
    notebooks = _project(tmp_path)
    write(recorded(PASS, PASS), notebooks / "00_a.ipynb")
    write(recorded(PASS, PASS), notebooks / "01_b.ipynb")
    code, output = finish(_nbval(tmp_path, "-n", "2", "-v", "notebooks"))
    assert code == 0, output
    plain = re.sub(r"\x1b\[[\d;]*m", "", output)
    ran = re.findall(r"^\[(gw\d)\].* PASSED notebooks/(\w+)\.ipynb", plain, re.MULTILINE)
    assert len(ran) == 10
    assert len(set(ran)) == 2


def test_one_check_alone_runs_after_its_setup(tmp_path):
    """A check chosen by node id finds its setup done."""
    write(recorded(PASS, PASS), _project(tmp_path) / "00_a.ipynb")
    code, output = finish(_nbval(tmp_path, "notebooks/00_a.ipynb::gp-02-claim"))
    assert code == 0, output
    assert _items(tmp_path) == {("00_a", "gp-02-claim"): ("passed", "")}


def test_a_record_of_a_failure_is_no_pass(tmp_path):
    """A failing check fails though its failure is just as it is on record."""
    node = recorded("assert False")
    failed = cell(node, "gp-01-claim")
    failed.outputs = [
        stream("GP-01 FAIL claim 1 holds\nseed 7\ntimeline: a, b\n"),
        nbformat.v4.new_output("error", ename="AssertionError", evalue="", traceback=[]),
    ]
    write(node, _project(tmp_path) / "00_a.ipynb")
    code, _ = finish(_nbval(tmp_path, "notebooks"))
    assert code == 1
    assert _items(tmp_path)["00_a", "gp-01-claim"][0] == "failure"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{hello", "00_a.ipynb: is not JSON"),
        ('{"cells": [], "nbformat": 4, "nbformat_minor": 4}', "00_a.ipynb: is nbformat 4.4"),
    ],
)
def test_what_is_no_notebook_of_ours_is_told(tmp_path, content, told):
    """One line says what is wrong with the file, in place of a traceback."""
    folder = _project(tmp_path)
    (folder / "00_a.ipynb").write_text(content)
    code, output = finish(_nbval(tmp_path, "notebooks"))
    assert code == 2
    assert told in output
    assert "Traceback" not in output and "notebook.py" not in output


def test_without_nbval_notebooks_are_left_alone(tmp_path):
    """Plain pytest neither collects notebooks nor trips over their conftest."""
    write(notebook(FAIL), _project(tmp_path) / "00_a.ipynb")
    code, output = finish(start("-m", "pytest", "notebooks", cwd=tmp_path))
    assert code == 5, output
    assert re.search("no tests ran", output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_kernel_outlives_pytest(tmp_path, number):
    """However pytest is ended, the kernel is gone within three seconds."""
    notebooks = _project(tmp_path)
    write(recorded(HANG), notebooks / "00_a.ipynb")
    process = _nbval(tmp_path, "notebooks")
    kernel = begun(notebooks)
    process.send_signal(number)
    gone(kernel)
    finish(process, within=10)

"""Authoring: the same bytes every time, and nothing written that did not pass."""

from __future__ import annotations

import signal

import pytest

from ssot.lab.author import author
from ssot.lab.notebook import read, validate_form

from .samples import (
    FAIL,
    HANG,
    PASS,
    SETUP,
    SSOT,
    UNKNOWN,
    begun,
    cell,
    finish,
    gone,
    notebook,
    ssot,
    start,
    write,
)

# an image of random bytes, as a figure's are never quite the same
FIGURE = """\
import os
from IPython.display import Image, display
display(Image(b"\\x89PNG" + os.urandom(16), format="png"))"""


def _with_figure(source=FIGURE):
    node = notebook(f"{PASS}\nprint('a')\nprint('b')")
    figure = cell(notebook(summary=source), "summary")
    figure.id = "figure"
    figure.metadata.tags = ["nbval-ignore-output"]
    node.cells.insert(-1, figure)
    return node


@pytest.mark.long
def test_twice_gives_the_same_bytes(tmp_path):
    """Authored once, a notebook has its form; twice, it has not changed, figures included."""
    path = write(_with_figure(), tmp_path / "00_a.ipynb")
    cell(node := read(path).node, "setup").metadata["execution"] = {"iopub.status.busy": "now"}
    write(node, path)
    first = author(path)
    assert (first.problems, first.changed) == ((), True)
    written = path.read_bytes()
    node = read(path).node
    assert validate_form(node) == []
    assert [each.execution_count for each in node.cells if each.cell_type == "code"] == [
        *range(1, 6)
    ]
    outputs = cell(node, "gp-01-claim").outputs
    assert [each.text for each in outputs] == ["GP-01 PASS claim 1 holds\na\nb\n"]
    assert "execution" not in cell(node, "setup").metadata
    assert not author(path, check=True).changed
    assert not author(path).changed
    assert path.read_bytes() == written
    # other code above the figure: the figure is drawn anew
    cell(node, "setup").source += "\n"
    write(node, path)
    figure = cell(node, "figure").outputs[0].data["image/png"]
    assert author(path, check=True).changed
    assert path.read_bytes() != written
    assert cell(read(path).node, "figure").outputs[0].data["image/png"] == figure
    assert author(path).changed
    assert cell(read(path).node, "figure").outputs[0].data["image/png"] != figure


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (notebook(PASS, FAIL), "GP-02 FAIL: AssertionError: sum is 2"),
        (notebook(UNKNOWN), "GP-01 UNKNOWN: no ssl here"),
        (notebook(PASS, setup="1 / 0"), "cell setup FAIL: ZeroDivisionError: division by zero"),
        (notebook(PASS, summary="print(*lab.verdicts, '/tmp/a1')"), "a temporary path"),
        (
            notebook(PASS, setup=f"{SETUP}\nimport sys; print('careful', file=sys.stderr)"),
            "cell setup: wrote to stderr: careful",
        ),
    ],
    ids=["fail", "unknown", "setup", "path", "stderr"],
)
def test_what_is_not_fit_is_not_written(tmp_path, node, problem):
    """A failure, an unknown, a changing output: the file stays as it is, and the cell is named."""
    path = write(node, tmp_path / "00_a.ipynb")
    before = path.read_bytes()
    authored = author(path)
    assert any(problem in each for each in authored.problems), authored.problems
    assert not authored.changed
    assert path.read_bytes() == before


def test_each_kind_of_changing_output_is_told(tmp_path):
    """Everything that changes from run to run is found, not silently rewritten."""
    lines = [
        "/tmp/ssot-1/socket",
        "ws://127.0.0.1:45123/",
        "2026-11-22T18:34:05",
        "<object at 0x7f2a3b4c5d>",
        "pid 4711",
        "0d6c2bfe-0f2c-4a43-8c62-0f2d6a4d5c1e",
    ]
    path = write(
        notebook(PASS, setup=f"{SETUP}\nprint({chr(10).join(lines)!r})"), tmp_path / "a.ipynb"
    )
    assert len(author(path).problems) == len(lines)


def test_what_papermill_left_is_refused(tmp_path):
    """An output of papermill copied over its source is not authored."""
    node = notebook(PASS)
    cell(node, "setup").metadata.tags.append("injected-parameters")
    path = write(node, tmp_path / "00_a.ipynb")
    assert author(path).problems == ("cell setup: was left by a papermill run; delete it",)


@pytest.mark.long
def test_the_command(tmp_path):
    """The command writes, tells what it did, and with --check exits with 1 for a change."""
    path = write(notebook(PASS), tmp_path / "notebooks" / "00_a.ipynb")
    before = path.read_bytes()
    code, output = ssot("author", "--check", cwd=tmp_path)
    assert (code, output) == (1, "notebooks/00_a.ipynb: would change; run: ssot author\n")
    assert path.read_bytes() == before
    assert ssot("author", cwd=tmp_path) == (0, "notebooks/00_a.ipynb: written\n")
    assert ssot("author", "7", cwd=tmp_path) == (2, "ssot: no notebook 7; there is 00_a\n")


def test_a_kernel_that_is_shut_down_is_not_interrupted(tmp_path):
    """Its stderr is ours, so an interrupt in the wrong moment would stand between our lines."""
    node = notebook(PASS)
    # the handler that the kernel puts in place after each cell
    cell(node, "setup").source += """
import pathlib
def note(*signal): pathlib.Path("interrupted").touch()
get_ipython().kernel.saved_sigint_handler = note"""
    assert author(write(node, tmp_path / "00_a.ipynb")).changed
    assert not (tmp_path / "interrupted").exists()


def test_ctrl_c_leaves_the_file_and_no_kernel(tmp_path):
    """An interrupted authoring has written nothing."""
    path = write(notebook(HANG), tmp_path / "notebooks" / "00_a.ipynb")
    before = path.read_bytes()
    process = start(*SSOT, "author", cwd=tmp_path)
    kernel = begun(tmp_path / "notebooks")
    process.send_signal(signal.SIGINT)
    code, output = finish(process, within=5)
    gone(kernel, within=0.5)
    assert (code, path.read_bytes()) == (130, before), output

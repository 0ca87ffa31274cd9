"""The form of a notebook: reading it, its parameters, its verdicts, and every violation."""

from __future__ import annotations

import json

import nbformat
import pytest

from ssot.lab.notebook import (
    nearest,
    CannotRun,
    Outcome,
    Verdict,
    checks,
    find,
    outcome,
    parameters,
    read,
    validate_form,
    validate_parameters,
)

from .samples import PARAMETERS, PASS, cell, notebook, recorded, stream, write

GP_01 = "gp-01-claim"


# Reading


def test_read_gives_checks_and_parameters(tmp_path):
    """A notebook is its checks, in order, and its typed parameters."""
    found = read(write(notebook(PASS, PASS), tmp_path / "00_a.ipynb"))
    assert [(check.id, check.title, check.cell_id) for check in found.checks] == [
        ("GP-01", "claim 1 holds", "gp-01-claim"),
        ("GP-02", "claim 2 holds", "gp-02-claim"),
    ]
    assert found.checks[0].bvj == ("Platform", "Stability", "reason 1", "trust")
    users = found.parameters[0]
    assert (users.name, users.annotation, users.default) == ("users", "int", 2)
    assert users.comment == "how many users take part"


def test_missing_notebook_is_named_with_the_nearest(tmp_path):
    """A mistyped path says which notebook is meant."""
    write(notebook(PASS), tmp_path / "00_golden_path.ipynb")
    with pytest.raises(CannotRun, match=r"did you mean 00_golden_path\.ipynb\?"):
        read(tmp_path / "00_golden_pth.ipynb")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "is not JSON"),
        ("[]", "is not"),
        ('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}', "nbformat 4.4"),
        ('{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "is not a notebook"),
        ('{"cells": [1], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "is no object"),
        ('{"cells": [], "metadata": 3, "nbformat": 4, "nbformat_minor": 5}', "not valid"),
        ('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "'parameters'"),
    ],
)
def test_what_is_no_notebook_of_ours_is_refused(tmp_path, content, message):
    """A file that cannot be run says what is wrong with it."""
    path = tmp_path / "00_a.ipynb"
    path.write_text(content)
    with pytest.raises(CannotRun) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_cell_ids_are_the_files_own(tmp_path):
    """A missing or doubled cell id is told, where nbformat would make one up on every read."""
    node = notebook(PASS)
    cell(node, "gp-01-text").id = "setup"
    del cell(node, "summary")["id"]
    path = tmp_path / "00_a.ipynb"
    path.write_text(json.dumps(node))
    with pytest.raises(CannotRun) as caught:
        read(path)
    assert caught.value.problems == (
        f"{path}: a cell has no id",
        f"{path}: two cells have the id setup",
    )


def test_a_check_without_heading_cannot_be_run():
    """The heading names the check; without one there is nothing to call it."""
    node = notebook(PASS)
    cell(node, "gp-01-text").source = "just text"
    with pytest.raises(CannotRun, match="no heading"):
        checks(node)


def test_two_checks_of_one_id_cannot_be_run():
    """Results are kept by id, so an id is one check's."""
    node = notebook(PASS, PASS)
    cell(node, "gp-02-text").source = cell(node, "gp-01-text").source
    with pytest.raises(CannotRun, match="another check GP-01"):
        checks(node)


def test_find_by_path_name_and_number(tmp_path):
    """A notebook is meant by its path, its stem, its file name or its number."""
    first = write(notebook(PASS), tmp_path / "00_first.ipynb")
    second = write(notebook(PASS), tmp_path / "01_second.ipynb")
    assert find([], tmp_path) == [first, second]
    assert find(["1", "00_first", str(second), "00_first.ipynb"], tmp_path) == [second, first]
    with pytest.raises(CannotRun) as caught:
        find(["00_frist", "7"], tmp_path)
    assert caught.value.problems == (
        "no notebook 00_frist; did you mean 00_first?",
        "no notebook 7; there is 00_first, 01_second",
    )


def test_find_in_an_empty_folder(tmp_path):
    """No notebooks at all is an error, not a run of nothing."""
    with pytest.raises(CannotRun, match="no notebooks in"):
        find([], tmp_path)


# Parameters


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"users": 8, "seed": 1, "services": "url", "latency_ms": 3}, None),
        ({"usres": 8}, "no parameter usres; did you mean users?"),
        ({"users": "many"}, "parameter users: int expected, given 'many' (str)"),
        ({"users": True}, "parameter users: int expected, given True (bool)"),
        ({"services": 8}, "parameter services: str expected, given 8 (int)"),
        ({"latency_ms": "slow"}, "parameter latency_ms: float expected, given 'slow' (str)"),
    ],
)
def test_given_parameters_are_checked(given, problem):
    """A wrong parameter is told by name, with what was expected and what was given."""
    known = parameters(notebook(PASS))
    assert validate_parameters(known, given) == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int | None", "None", "'x'"),
        ("Literal['a', 'b']", "'a'", "'c'"),
        ("list[int]", "[1, 2]", "[1, 'x']"),
        ("bool", "False", "0"),
        ("'float'", "1", "'x'"),
    ],
)
def test_annotations(annotation, good, bad):
    """A default has to be of its annotated type."""
    assert parameters(notebook(parameters=f"a: {annotation} = {good}  # a"))
    with pytest.raises(CannotRun, match="expected, its default is"):
        parameters(notebook(parameters=f"a: {annotation} = {bad}  # a"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("users = 2  # untyped", "line 1: not of the form"),
        ("import os\nusers: int = 2  # how many", "line 1: not of the form"),
        ("users: int = len('ab')  # how many", "users: its default is not a literal"),
        ("users: complex = 2  # how many", "unsupported type complex"),
        ("users: int =", "line 1: invalid syntax"),
    ],
)
def test_a_malformed_parameters_cell_is_refused(source, message):
    """The parameters cell holds typed literals and nothing else."""
    with pytest.raises(CannotRun) as caught:
        parameters(notebook(parameters=source))
    assert message in str(caught.value)


def test_two_parameters_cells_are_refused():
    """papermill would take the first and leave the other to win."""
    node = notebook(PASS)
    cell(node, "setup").metadata.tags.append("parameters")
    with pytest.raises(CannotRun, match="2 code cells tagged"):
        parameters(node)


# Verdicts


def _executed(*outputs):
    node = notebook(PASS)
    executed = cell(node, GP_01)
    executed.outputs = list(outputs)
    executed.execution_count = 1
    return outcome(executed, checks(node)[0])


def _error(name, value):
    return nbformat.v4.new_output("error", ename=name, evalue=value, traceback=[])


def test_verdicts_are_ordered():
    """The worst of several verdicts is their maximum."""
    assert max(Verdict.PASS, Verdict.UNKNOWN) is Verdict.UNKNOWN
    assert max(Verdict.FAIL, Verdict.UNKNOWN) is Verdict.FAIL


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([stream("GP-01 PASS claim 1 holds\n| a |\n")], Outcome(Verdict.PASS)),
        (
            [stream("GP-01 UNKNOWN claim 1 holds: no ssl\n"), _error("Unknown", "no ssl")],
            Outcome(Verdict.UNKNOWN, "no ssl"),
        ),
        (
            [
                stream("GP-01 FAIL claim 1 holds\n"),
                _error("AssertionError", "\x1b[31m1 == 2\x1b[0m"),
            ],
            Outcome(Verdict.FAIL, "AssertionError: 1 == 2"),
        ),
        (
            [stream("GP-01 PASS claim 1 holds\n"), _error("KeyError", "'a'")],
            Outcome(Verdict.FAIL, "KeyError: 'a'"),
        ),
        (
            [stream("GP-01 FAIL claim 1 holds\n")],
            Outcome(Verdict.FAIL, "it printed FAIL and raised nothing"),
        ),
        ([stream("GP-01 UNKNOWN claim 1 holds: why\n")], Outcome(Verdict.UNKNOWN, "why")),
        ([stream("hello\n")], Outcome(Verdict.UNKNOWN, "it printed no verdict line")),
        (
            [stream("GP-02 PASS claim 2 holds\n")],
            Outcome(Verdict.UNKNOWN, "its verdict line names GP-02"),
        ),
    ],
)
def test_outcome_of_an_executed_check(outputs, expected):
    """A check's outcome is that of its verdict line and its error, the worse of the two."""
    assert _executed(*outputs) == expected


# The form


def test_a_good_notebook_violates_nothing():
    """The sample, as authored, has the form."""
    assert validate_form(recorded(PASS, PASS)) == []


def _change(cell_id, /, **fields):
    def change(node):
        for name, value in fields.items():
            setattr(cell(node, cell_id), name, value)

    return change


def _source(old, new, cell_id=GP_01):
    def change(node):
        assert old in cell(node, cell_id).source
        cell(node, cell_id).source = cell(node, cell_id).source.replace(old, new)

    return change


def _body(body):
    return _source(PASS, f"assert True\n    {body}")


def _without_tag(tag, cell_id=GP_01):
    return lambda node: cell(node, cell_id).metadata.tags.remove(tag)


def _without(cell_id):
    def change(node):
        node.cells = [each for each in node.cells if each.id != cell_id]

    return change


VIOLATIONS = {
    "no title": (_without("title"), "the first cell is not a markdown title"),
    "no parameters": (_without("parameters"), "no code cell tagged 'parameters'"),
    "no comment": (
        _source("  # how many users take part", "", "parameters"),
        "parameter users: no comment",
    ),
    "untyped parameter": (
        _source("users: int", "users", "parameters"),
        "parameters cell, line 1: not of the form",
    ),
    "no setup": (_without("setup"), "no setup cell"),
    "setup goes on": (
        lambda node: cell(node, "setup").metadata.tags.append("raises-exception"),
        "cell setup: tagged raises-exception",
    ),
    "setup untagged": (_without_tag("setup", "setup"), "id and tag 'setup' are not on one cell"),
    "no summary": (_without("summary"), "no summary cell"),
    "summary too early": (
        lambda node: node.cells.insert(3, node.cells.pop()),
        "cell summary: is not the last code cell",
    ),
    "summary does not list": (
        _change("summary", outputs=[stream("GP-02 PASS claim 2 holds\n")]),
        "cell summary: its output does not list GP-01",
    ),
    "stderr": (
        lambda node: cell(node, "setup").outputs.append(stream("careful", "stderr")),
        "cell setup: wrote to stderr",
    ),
    "same cell id": (
        lambda node: setattr(cell(node, "gp-02-text"), "id", "gp-01-text"),
        "cell gp-01-text: another cell has this id",
    ),
    "same check id": (
        _source("GP-02 · claim 2", "GP-01 · claim 2", "gp-02-text"),
        "cell gp-02-claim: another check is GP-01",
    ),
    "no markdown": (_without("gp-01-text"), "no markdown cell above it"),
    "no heading": (
        _source("### GP-01 · ", "", "gp-01-text"),
        "no heading like '### GP-01 · Title' above it",
    ),
    "no BVJ": (_source("BVJ: ", "", "gp-01-text"), "no BVJ line above it"),
    "two BVJ": (
        _source("BVJ: ", "BVJ: a | b | c | d\nBVJ: ", "gp-01-text"),
        "2 BVJ lines above it",
    ),
    "short BVJ": (_source(" | trust", "", "gp-01-text"), "its BVJ does not have four parts"),
    "empty BVJ": (_source("| trust", "| ", "gp-01-text"), "its BVJ does not have four parts"),
    "no interplay": (
        _source("Interplay: auth → database", "", "gp-01-text"),
        "no line like 'Interplay: auth → database' above it",
    ),
    "interplay of one": (
        _source("auth → database", "auth → auth", "gp-01-text"),
        "its interplay is not between two components (auth → auth)",
    ),
    "interplay of nobody": (
        _source("auth → database", "auth → databse", "gp-01-text"),
        "its interplay names no component 'databse'; did you mean database?",
    ),
    "same BVJ": (
        _source("reason 2", "reason 1", "gp-02-text"),
        "the BVJ of GP-02 is that of GP-01",
    ),
    "not compared": (_without_tag("nbval-check-output"), "is not tagged nbval-check-output"),
    "stops the run": (_without_tag("raises-exception"), "is not tagged raises-exception"),
    "cell id": (_change(GP_01, id="gp-07-claim"), "its id is not gp-01-…"),
    "no lab.check": (_source("lab.check", "lab.scene"), "no 'async with lab.check(…)' in it"),
    "other id": (_source('"GP-01"', '"GP-03"'), "is not what its heading says"),
    "other title": (
        _source("claim 1 holds", "claim one holds"),
        "lab.check('GP-01', 'claim one holds') is not what its heading says",
    ),
    "asserts nothing": (_source(PASS, "pass"), "it asserts nothing"),
    "sleeps": (_body("await asyncio.sleep(1)"), "line 3 calls sleep"),
    "bare sleep": (_body("sleep(1)"), "line 3 calls sleep"),
    "port in a URL": (_body("connect('redis://cache:6379/0')"), "literal port ://cache:6379"),
    "port in an f-string": (_body("connect(f'ws://localhost:8080/{user}')"), "literal port"),
    "port by name": (_body("connect(port=5432)"), "literal port 5432"),
    "port assigned": (_body("node_port = 8001"), "literal port 8001"),
    "port in a pair": (_body("connect(('127.0.0.1', 5432))"), "literal port 5432"),
    "no Python": (_body("!ls"), "line 3 is not plain Python"),
    "never run": (_change(GP_01, execution_count=None), "never run"),
    "no outputs": (_change(GP_01, outputs=[]), "never run"),
    "no verdict": (_change(GP_01, outputs=[stream("hello\n")]), "no verdict line on record"),
    "verdict is not first": (
        _change(GP_01, outputs=[stream("hello\nGP-01 PASS claim 1 holds\n")]),
        "its verdict line is not the first thing it printed",
    ),
    "two verdicts": (
        _change(GP_01, outputs=[stream("GP-01 PASS claim 1 holds\n" * 2)]),
        "2 verdict lines on record",
    ),
    "verdict is not PASS": (
        _change(GP_01, outputs=[stream("GP-01 UNKNOWN claim 1 holds: why\n")]),
        "the verdict on record is UNKNOWN, not PASS",
    ),
    "verdict of another": (
        _change(GP_01, outputs=[stream("GP-01 PASS claim 9 holds\n")]),
        "the verdict on record, 'GP-01 PASS claim 9 holds', is not what its heading says",
    ),
    "error on record": (
        lambda node: cell(node, GP_01).outputs.append(_error("KeyError", "'a'")),
        "its record is of an error: KeyError: 'a'",
    ),
}


@pytest.mark.parametrize(("change", "expected"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_violation_is_told(change, expected):
    """Each violation of the form is told, with the cell that it is in."""
    node = recorded(PASS, PASS)
    change(node)
    assert any(expected in problem for problem in validate_form(node)), validate_form(node)


def test_harmless_numbers_are_no_ports():
    """Counts, rates and unnamed zeros are not taken for ports."""
    node = recorded(PASS)
    _body("publish(events=1000, rate=5432, port=0, at='12:30', pair=('a', 5432))")(node)
    assert validate_form(node) == []


def test_an_empty_notebook_is_told_everything():
    """A notebook of nothing does not end the validation."""
    assert len(validate_form(nbformat.v4.new_notebook())) == 4


def test_the_sample_parameters_are_what_the_design_wants():
    """The sample has the parameters of every notebook."""
    assert [each.name for each in parameters(notebook(parameters=PARAMETERS))] == [
        "users",
        "seed",
        "services",
        "latency_ms",
    ]


def test_a_number_without_its_nought_is_known():
    """GP-01, GP-10 and GP-11 all differ from it by one sign, and the first is meant."""
    known = [f"GP-{number:02}" for number in range(1, 15)]
    assert nearest("gp-1", known) == "; did you mean GP-01?"
    assert nearest("GP-011", known) == "; did you mean GP-11?"

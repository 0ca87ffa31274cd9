"""A new check in a notebook: its two cells, in the right form, at the right place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ssot.lab.notebook import CannotRun, is_check, nearest, read, write
from ssot.lab.observations import COMPONENTS

__all__ = ["Added", "add_check"]

_WORD = re.compile(r"[a-z0-9]+")
_TAGS = ["check", "raises-exception", "nbval-check-output"]
_LONGEST_TITLE = 70
_LONGEST_ID = 30


@dataclass(frozen=True, slots=True)
class Added:
    """What was added: the check's id, and the ids of its two cells."""

    path: Path
    check_id: str
    markdown_cell: str
    code_cell: str


def add_check(path: Path, title: str, *, between: Sequence[str], after: str | None = None) -> Added:
    """Add a check to the notebook at ``path``, behind the check ``after`` or behind the last one.

    Its id is the next number of the notebook's prefix. The code cell fails until it is written.
    Raises :class:`CannotRun`, and changes nothing, when the notebook, the title, a component or
    ``after`` is not what it must be, or the notebook cannot be written.
    """
    notebook = read(path.absolute())
    problems = _problems(title, between, after, [check.id for check in notebook.checks])
    if not notebook.checks:
        problems.append(f"{path}: has no check yet whose id could be continued")
    if problems:
        raise CannotRun(problems)
    prefix = notebook.checks[-1].id.partition("-")[0]
    number = max(int(check.id.rpartition("-")[2]) for check in notebook.checks) + 1
    check_id = f"{prefix}-{number:02}"
    words = "-".join(_WORD.findall(title.lower()))[:_LONGEST_ID].strip("-")
    cells = [
        _cell("markdown", f"{check_id.lower()}-why", _markdown(check_id, title, between)),
        _cell("code", f"{check_id.lower()}-{words}", _code(check_id, title)),
    ]
    behind = after or notebook.checks[-1].id
    cell_id = next(check.cell_id for check in notebook.checks if check.id == behind)
    node = notebook.node
    place = 1 + next(i for i, cell in enumerate(node.cells) if cell.id == cell_id)
    assert is_check(node.cells[place - 1])
    node.cells[place:place] = cells
    text = nbformat.writes(node).rstrip("\n") + "\n"  # type: ignore[no-untyped-call]
    write(path, text)
    return Added(path, check_id, cells[0].id, cells[1].id)


def _problems(
    title: str, between: Sequence[str], after: str | None, known: Sequence[str]
) -> list[str]:
    problems = []
    if not title.strip() or "\n" in title or len(title) > _LONGEST_TITLE:
        problems.append(f"a title is one line of 1 to {_LONGEST_TITLE} characters: the behaviour")
    if '"' in title or "\\" in title:
        problems.append("a title stands in the code as well: no double quotes, no backslashes")
    problems += [
        f"no component {each}{nearest(each, COMPONENTS)}"
        for each in between
        if each not in COMPONENTS
    ]
    if len(between) == 2 and between[0] == between[1]:
        problems.append("an interplay is between two different components")
    if after is not None and after not in known:
        problems.append(f"no check {after}{nearest(after, known)}")
    return problems


def _cell(kind: str, cell_id: str, source: str) -> NotebookNode:
    make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
    cell: NotebookNode = make(source, id=cell_id)  # type: ignore[no-untyped-call]
    if kind == "code":
        cell.metadata["tags"] = list(_TAGS)
    return cell


def _markdown(check_id: str, title: str, between: Sequence[str]) -> str:
    return f"""### {check_id} · {title}

What would break, and for whom, in one to three sentences.

Interplay: {between[0]} → {between[1]}

BVJ: segment | business goal | value impact | strategic impact"""


def _code(check_id: str, title: str) -> str:
    return f"""async with lab.check("{check_id}", "{title}"):
    alice, bob = await lab.client("alice"), await lab.client("bob")
    run = await alice.ask("What did my models cost?")
    await alice.finished(run)

    assert alice.types(run) == "what must hold, and what a seeded defect makes fail"
    assert bob.received_events == []"""

"""Authoring: runs a notebook and commits what it printed to its file, the same bytes every time."""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbclient.exceptions
import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbformat import NotebookNode

from ssot.lab.execution import execute
from ssot.lab.notebook import CannotRun, Notebook, Verdict, printed, read, tags, write
from ssot.lab.progress import Finished, Started

__all__ = ["Authored", "author"]

_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_LEFT_BY_A_RUN = ("ExecuteTime", "collapsed", "execution", "papermill", "scrolled", "trusted")
_LEFT_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}
_OURS = "ssot"  # metadata of a cell whose output is ignored: the code that its output is of

_CHANGING = {
    "a temporary path": re.compile(
        rf"(?:{re.escape(tempfile.gettempdir())}|/tmp|/var/tmp|/var/folders|/dev/shm)/[\w.-]+"
    ),
    "a port": re.compile(r"(?:127\.0\.0\.1|localhost|0\.0\.0\.0|\[::1?\]):\d{2,5}\b"),
    "a time": re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d"),
    "an address": re.compile(r"\b0x[0-9a-fA-F]{6,}\b"),
    "a process id": re.compile(r"\bpid\W{1,3}\d+", re.IGNORECASE),
    "a UUID": re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Authored:
    """What came of authoring ``path``: with ``problems`` nothing was written."""

    path: Path
    problems: tuple[str, ...] = ()
    changed: bool = False


def author(path: Path, *, check: bool = False, stop: threading.Event | None = None) -> Authored:
    """Run the notebook at ``path`` in a fresh kernel and write its outputs into it.

    Nothing is written when a cell failed, wrote to stderr or printed what changes from run to run,
    and, with ``check``, never. The outputs of cells tagged ``nbval-ignore-output`` (figures) are
    replaced only when there is other code up to and including their cell than when they were made.

    Raises :class:`~ssot.lab.notebook.CannotRun` when ``path`` is no notebook of ours, and
    :class:`~ssot.lab.engine.Stopped` once ``stop`` is set.
    """
    notebook = read(path)
    problems = [
        f"cell {cell.id}: was left by a papermill run; delete it"
        for cell in notebook.node.cells
        if _LEFT_BY_PAPERMILL & tags(cell)
    ]
    if problems:
        return Authored(path, tuple(problems))
    executed, problems = _execute(notebook, stop or threading.Event())
    if executed is None:
        return Authored(path, tuple(problems))
    content = _normalised(notebook.node, executed)
    problems = [problem for cell in content.cells for problem in _unfit(cell)]
    if problems:
        return Authored(path, tuple(problems))
    text = nbformat.writes(content).rstrip("\n") + "\n"  # type: ignore[no-untyped-call]
    changed = text.encode() != path.read_bytes()
    if changed and not check:
        write(path, text)
    return Authored(path, changed=changed)


def _execute(notebook: Notebook, stop: threading.Event) -> tuple[NotebookNode | None, list[str]]:
    """Return the executed notebook, or None and what failed in it."""
    problems: list[str] = []

    def note(event: Started | Finished) -> None:
        if isinstance(event, Finished) and event.outcome.verdict is not Verdict.PASS:
            name = event.check.id if event.check else f"cell {event.cell_id}"
            problems.append(f"{name} {event.outcome.verdict.name}: {event.outcome.message}")

    with ThreadPoolExecutor(1) as thread:
        execution = thread.submit(execute, notebook.path.absolute(), None, progress=note, stop=stop)
        try:
            executed = execution.result()
        except (papermill.PapermillExecutionError, nbclient.exceptions.DeadKernelError):
            return None, problems
        except (NoSuchKernel, OSError) as error:
            raise CannotRun([f"{notebook.path}: {type(error).__name__}: {error}"]) from error
        except BaseException:
            stop.set()
            raise
    return (None, problems) if problems else (executed, [])


def _normalised(before: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Return the notebook as it is to be written: the cells of ``before``, the new outputs."""
    after = {cell.id: cell for cell in executed.cells}
    result = nbformat.from_dict(before)  # type: ignore[no-untyped-call]
    kernel = _KERNEL | dict(before.metadata.get("kernelspec", {}))
    result.metadata = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {
            "kernelspec": {name: kernel[name] for name in _KERNEL},
            "language_info": {"name": "python"},
        }
    )
    count = 0
    code = hashlib.sha256()
    for cell in result.cells:
        for name in _LEFT_BY_A_RUN:
            cell.metadata.pop(name, None)
        if cell.cell_type != "code":
            continue
        code.update(cell.source.encode() + b"\0")
        made_of = {"code": code.hexdigest()[:16]}
        ours = cell.metadata.pop(_OURS, None)
        ignored = "nbval-ignore-output" in tags(cell)
        if not (ignored and cell.outputs and ours == made_of):
            cell.outputs = list(_merged(after[cell.id].outputs))
        if ignored:
            cell.metadata[_OURS] = made_of
        count += bool(cell.source.strip())
        cell.execution_count = count if cell.source.strip() else None
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return result  # type: ignore[no-any-return]


def _merged(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Yield ``outputs`` with consecutive pieces of one stream in one."""
    last: NotebookNode | None = None
    for output in outputs:
        if (
            last is not None
            and last.output_type == output.output_type == "stream"
            and last.name == output.name
        ):
            last.text += output.text
            continue
        if last is not None:
            yield last
        last = output
    if last is not None:
        yield last


def _unfit(cell: NotebookNode) -> Iterator[str]:
    """Yield why the outputs of a cell cannot be committed."""
    if cell.cell_type != "code":
        return
    if wrote := printed(cell.outputs, "stderr"):
        yield f"cell {cell.id}: wrote to stderr: {wrote.strip().splitlines()[0]}"
    if "nbval-ignore-output" in tags(cell):
        return
    texts = [printed(cell.outputs)]
    for output in cell.outputs:
        texts += [each for each in output.get("data", {}).values() if isinstance(each, str)]
    for what, pattern in _CHANGING.items():
        if found := pattern.search("\n".join(texts)):
            yield f"cell {cell.id}: printed {what}, which changes from run to run: {found[0]!r}"

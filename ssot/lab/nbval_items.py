"""nbval's items as a reader of its report wants them: named by cell id, in order, in plain words.

``notebooks/conftest.py`` imports the hooks. Any selection of items works, in any order, also under
pytest-xdist: before a cell runs, the cells before it that are no checks have run in its kernel.
"""

from __future__ import annotations

import difflib
import os
import subprocess
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager, RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from ssot.lab.notebook import (
    CannotRun,
    Check,
    Outcome,
    Verdict,
    error_of,
    is_check,
    outcome,
    plain,
    printed,
    read,
    tags,
)

__all__ = [
    "CellItem",
    "NotebookFile",
    "pytest_collect_file",
    "pytest_collection_modifyitems",
    "pytest_xdist_make_scheduler",
]

_POLL = 0.25  # seconds between two looks at whether the kernel is alive


class _KernelDied(Exception):
    pass


class _Failed(Exception):
    """A cell did not do what its record says; the message is the whole report."""


class _Kernel(RunningKernel):  # type: ignore[misc]
    """nbval's kernel, which notices that it died instead of waiting for the cell's timeout."""

    def __init__(self, kernel_name: str, *, cwd: str, startup_timeout: float) -> None:
        # nbval leaves a kernel alone that is interrupted while it starts; here it ends at once.
        self.km = KernelManager(
            kernel_name=kernel_name, kernel_spec_manager=NbvalKernelspecManager()
        )
        self.km.start_kernel(stderr=subprocess.DEVNULL, cwd=cwd)
        self.kc = self.km.client()
        self.kc.start_channels()
        try:
            self.kc.wait_for_ready(timeout=startup_timeout)
            self._ensure_iopub_up()
        except BaseException:
            self.stop()
            raise

    def get_message(self, stream: str, timeout: float | None = None) -> dict[str, Any]:
        end = None if timeout is None else monotonic() + timeout
        while True:
            left = _POLL if end is None else min(_POLL, max(0.0, end - monotonic()))
            try:
                message: dict[str, Any] = super().get_message(stream, timeout=left)
            except Empty:
                if not self.is_alive():
                    raise _KernelDied from None
                if end is not None and monotonic() >= end:
                    raise
            else:
                return message


class NotebookFile(IPyNbFile):  # type: ignore[misc]
    """A notebook: one kernel, and the cells that have run in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ran: set[str] = set()
        self.passed: set[str] = set()
        self.lost = ""  # why nothing more can be known of this notebook
        self.checks: dict[str, Check] = {}

    def setup(self) -> None:
        """Start the kernel, as nbval does, in the notebook's folder."""
        option = self.config.option
        name = option.nbval_kernel_name or self.nb.metadata.get("kernelspec", {}).get("name")
        if option.nbval_current_env:
            name = CURRENT_ENV_KERNEL_NAME
        self.kernel = _Kernel(
            name or "python",
            cwd=str(self.path.parent),
            startup_timeout=option.nbval_kernel_startup_timeout,
        )
        self.setup_sanitize_files()

    def collect(self) -> Iterator[CellItem]:
        """Yield an item for each code cell, named by the cell's id."""
        try:
            self.checks = {check.cell_id: check for check in read(self.path).checks}
        except CannotRun as error:
            raise self.CollectError("\n".join(error.problems)) from None
        for item in super().collect():
            yield CellItem.from_parent(
                self,
                name=item.cell.get("id", item.name),
                cell_num=item.cell_num,
                cell=item.cell,
                options=item.options,
            )

    def before(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        """Yield the code cells above ``cell``."""
        for each in self.nb.cells:
            if each is cell:
                return
            if each.cell_type == "code":
                yield each


class CellItem(IPyNbCell):  # type: ignore[misc]
    """One code cell: runs it after what it needs, and reports a failure as the cell printed it."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the item is, for the report's headline."""
        return self.path, 0, f"{self.path.stem} {self.name}"

    def runtest(self) -> None:
        """Run the cell; an item passes if its output is that on record and its verdict is pass."""
        if self.parent.lost:
            pytest.skip(f"unknown: {self.parent.lost}")
        check = self.parent.checks.get(self.cell.id)
        if is_check(self.cell) and self.cell.execution_count is None:
            raise _Failed(
                f"never run: {self.name} has no record of a run to compare with; "
                f"run: ssot author {os.path.relpath(self.path)}"
            )
        self._run_what_it_needs()
        self.parent.ran.add(self.cell.id)
        try:
            super().runtest()
        except _KernelDied:
            self.parent.lost = f"the kernel died in {self.name}"
            raise _Failed(f"the kernel died in {self.name}") from None
        except pytest.fail.Exception:  # pytest-timeout: whatever hangs in the kernel still does
            self.parent.lost = f"{self.name} ran into the timeout"
            raise
        except NbCellError as error:
            if check is None and error_of(self.test_outputs or ()) is not None:
                self.parent.lost = f"{self.name} failed"
            raise _Failed(self._report(check, error)) from None
        if self._outcome(check).verdict is not Verdict.PASS:
            raise _Failed(self._report(check, None))
        self.parent.passed.add(self.cell.id)

    def _run_what_it_needs(self) -> None:
        """Run the cells above that are no checks and have not run; a summary needs the checks."""
        for cell in self.parent.before(self.cell):
            if is_check(cell):
                if "summary" in tags(self.cell) and cell.id not in self.parent.passed:
                    pytest.skip(f"unknown: {cell.id}, which it sums up, did not pass here")
                continue
            if cell.id in self.parent.ran:
                continue
            self.parent.ran.add(cell.id)
            options = defaultdict(bool, check_exception=True)
            other = CellItem.from_parent(
                self.parent, name=cell.id, cell_num=-1, cell=cell, options=options
            )
            try:
                IPyNbCell.runtest(other)
            except _KernelDied:
                self.parent.lost = f"the kernel died in {cell.id}"
            except NbCellError as error:
                self.parent.lost = f"{cell.id} failed: {error}"
            if error_of(other.test_outputs or ()) is not None:
                self.parent.lost = f"{cell.id} failed"
            if self.parent.lost:
                raise _Failed(f"{self.parent.lost}\n{_traceback(other.test_outputs or ())}".strip())

    def _outcome(self, check: Check | None) -> Outcome:
        outputs = self.test_outputs or []
        executed = NotebookNode(outputs=outputs, execution_count=1)  # type: ignore[no-untyped-call]
        return outcome(executed, check)

    def _report(self, check: Check | None, error: NbCellError | None) -> str:
        outputs = self.test_outputs or []
        result = self._outcome(check)
        if result.verdict is Verdict.PASS:
            wanted, given = _shown(self.cell.outputs), _shown(outputs)
            if wanted == given:
                return plain(f"{error}\n{error.inner_traceback or ''}" if error else "")
            difference = difflib.unified_diff(
                wanted, given, "on record", "printed now", lineterm=""
            )
            return "\n".join((f"{self.name} printed something else than on record", *difference))
        if check is not None:
            return f"{printed(outputs)}\n{result.message}".strip()
        return _traceback(outputs) or plain(str(error))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
        """Return the report of a failure, without colours."""
        if isinstance(excinfo.value, _Failed | pytest.fail.Exception):
            return plain(str(excinfo.value))
        return plain(str(super().repr_failure(excinfo)))


def _shown(outputs: list[NotebookNode]) -> list[str]:
    """Return all text of ``outputs``, in lines."""
    lines: list[str] = []
    for output in outputs:
        if output.output_type == "stream":
            prefix = "" if output.name == "stdout" else f"{output.name}: "
            lines += [prefix + line for line in plain(output.text).splitlines()]
        elif output.output_type == "error":
            lines.append(plain(f"{output.ename}: {output.evalue}"))
        else:
            lines += str(output.data.get("text/plain", sorted(output.data))).splitlines()
    return lines


def _traceback(outputs: list[NotebookNode] | tuple[()]) -> str:
    error = error_of(outputs)
    return plain("\n".join(error.traceback)) if error is not None else ""


# Hooks


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Put :class:`NotebookFile` in the place of nbval's own collector."""
    found = yield
    return [
        NotebookFile.from_parent(parent, path=file_path) if type(each) is IPyNbFile else each
        for each in found
    ]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put notebooks last and their cells in order, whatever pytest-randomly made of them."""
    cells = [item for item in items if isinstance(item, CellItem)]
    cells.sort(key=lambda cell: (str(cell.path), cell.cell_num))
    items[:] = [*(item for item in items if not isinstance(item, CellItem)), *cells]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Keep a notebook on one worker, where pytest-xdist would by default spread its cells."""
    if not (config.option.nbval or config.option.nbval_lax):
        return None
    if config.option.dist not in ("load", "worksteal"):
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByNotebook(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if path.endswith(".ipynb") else nodeid

    return ByNotebook(config, log)

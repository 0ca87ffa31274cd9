"""The execution of one notebook: papermill's own, with progress, a stop, and a choice of checks."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import nbformat
import papermill
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.iorw import LocalHandler, papermill_io
from papermill.log import logger as papermill_logger

from ssot.environment import secrets_among
from ssot.lab.evidence import PATH_VARIABLE
from ssot.lab.files import write_atomically
from ssot.lab.kernel import KernelManager
from ssot.lab.notebook import Check, Outcome, Verdict, checks, is_check, outcome, printed, tags
from ssot.lab.progress import Finished, Started, Stopped
from ssot.lab.secrecy import Secrets, masked

__all__ = ["LONGEST", "Execution", "execute", "register"]

LONGEST = 180.0
"""Seconds after which a cell is given up and its kernel ended, whatever holds it.

A check ends itself long before, unless it hangs in a call in C that no signal reaches.
"""

_POLL = 0.1  # seconds between two looks at the kernel and at the request to stop

Progress = Callable[[Started | Finished], None]

_quiet = logging.getLogger(__name__)
_quiet.addHandler(logging.NullHandler())


def execute(path: Path, output: Path | None, **options: Any) -> NotebookNode:
    """Execute the notebook at ``path`` by papermill with the engine ``ssot``, in its own folder.

    ``options`` are those of :func:`papermill.execute_notebook` and of the engine. It belongs into a
    thread of its own: the event loop that jupyter makes for a thread is closed afterwards.
    """
    register()
    try:
        executed: NotebookNode = papermill.execute_notebook(
            _literally(path),
            output and _literally(output.absolute()),
            engine_name="ssot",
            progress_bar=False,
            # not papermill's cwd, which changes that of the process, for all threads
            resources={"metadata": {"path": str(path.parent)}},
            **options,
        )
        return executed
    finally:
        ensure_event_loop().close()


class _WholeFiles(LocalHandler):  # type: ignore[misc]
    """papermill's files with absolute paths: on a full disk the last good save stays, whole.

    papermill writes in place, after each cell.
    """

    def write(self, buf: str, path: str) -> None:
        write_atomically(Path(path), buf.encode())


@functools.cache
def register() -> None:
    """Have papermill know the engine ``ssot``, and write files with absolute paths whole."""
    papermill_engines.register("ssot", Execution)  # also where the package is not installed
    papermill_io.register(os.sep, _WholeFiles())


def _literally(path: Path) -> str:
    """Return ``path`` so that papermill, which formats paths, leaves it as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


class Execution(NBClientEngine):  # type: ignore[misc]
    """papermill's engine with the options of :class:`ssot.lab.engine.Engine`."""

    @classmethod
    def execute_notebook(cls, nb: NotebookNode, kernel_name: str, **options: Any) -> NotebookNode:
        """Execute ``nb`` and return it; secret parameters are masked before anything is written."""
        given = nb.metadata.get("papermill", {}).get("parameters", {})
        variables = {**os.environ, **(options.get("environment") or {}), **given}
        executed: NotebookNode = super().execute_notebook(
            nb,
            kernel_name,
            secrets=Secrets(secrets_among(variables)),
            sources=_mask_parameters(nb),
            **options,
        )
        return executed

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        log_output: bool = False,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        *,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        only: Collection[str] = (),
        shuffle: int | None = None,
        environment: Mapping[str, str] | None = None,
        kernel_log: IO[bytes] | None = None,
        secrets: Secrets,
        sources: Mapping[str, str],
        **options: Any,
    ) -> NotebookNode:
        """Execute the notebook of ``nb_man`` in a kernel of its own, which is gone afterwards."""
        found = {check.cell_id: check for check in checks(nb_man.nb)}
        if only:
            nb_man.nb.cells = _only(nb_man.nb.cells, found, only)
        if shuffle is not None:
            nb_man.nb.cells = _shuffled(nb_man.nb.cells, random.Random(shuffle))  # noqa: S311
        options.pop("input_path", None)
        client = _Client(
            nb_man,
            checks=found,
            progress=progress or _Lines(nb_man),
            stop=stop or threading.Event(),
            secrets=secrets,
            sources=sources,
            timeout=execution_timeout or LONGEST,
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            kernel_manager_class=KernelManager,
            log=_quiet if progress else papermill_logger,
            log_output=log_output,
            **options,
        )
        streams = {"stdout": kernel_log, "stderr": kernel_log} if kernel_log else {}
        output = nb_man.nb.metadata.get("papermill", {}).get("output_path")
        variables = {**os.environ, **(environment or {})}
        if output and PATH_VARIABLE not in (environment or {}):
            variables[PATH_VARIABLE] = str(Path(output).with_suffix(".evidence.json").absolute())
        executed: NotebookNode = client.execute(env=variables, **streams)
        return executed


def _only(
    cells: list[NotebookNode], found: dict[str, Check], only: Collection[str]
) -> list[NotebookNode]:
    """Return ``cells`` without the two cells of each check that is not in ``only``."""
    kept: list[NotebookNode] = []
    for cell in cells:
        if is_check(cell) and found[cell.id].id not in only:
            kept.pop()
        else:
            kept.append(cell)
    return kept


def _shuffled(cells: list[NotebookNode], order: random.Random) -> list[NotebookNode]:
    """Return ``cells`` with the checks in another order, each with the markdown above it."""
    places = [index for index, cell in enumerate(cells) if is_check(cell)]
    drawn = [(cells[index - 1], cells[index]) for index in places]
    order.shuffle(drawn)
    result = list(cells)
    for index, pair in zip(places, drawn, strict=True):
        result[index - 1 : index + 1] = pair
    return result


def _mask_parameters(node: NotebookNode) -> dict[str, str]:
    """Mask the secret parameters that papermill put into ``node``; the cells as they were, by id.

    Whoever replays it sees by the mask that a value is to be given again.
    """
    given = node.metadata.get("papermill", {}).get("parameters", {})
    if masked(given) == given:
        return {}
    node.metadata["papermill"]["parameters"] = masked(given)
    sources: dict[str, str] = {}
    for cell in node.cells:
        if cell.cell_type == "code" and "injected-parameters" in tags(cell):
            sources[cell.id] = cell.source
            lines = [f"{name} = {value!r}" for name, value in masked(given).items()]
            cell.source = "\n".join(["# Parameters", *lines])
    return sources


class _Lines:
    """Reports each check, and each other cell that failed, as one line."""

    def __init__(self, nb_man: NotebookExecutionManager) -> None:
        self._nb_man = nb_man

    def __call__(self, event: Started | Finished) -> None:
        if isinstance(event, Started):
            return
        verdict = event.outcome.verdict
        if event.check is not None:
            line = f"{event.check.id} {verdict.name} {event.check.title} {event.seconds:.1f} s"
        elif verdict is not Verdict.PASS:
            line = f"{event.cell_id} {verdict.name} {event.seconds:.1f} s"
        else:
            return
        if event.outcome.message:
            line = f"{line}: {event.outcome.message}"
        if self._nb_man.pbar is not None:
            self._nb_man.pbar.write(line, file=sys.stderr)
        else:
            papermill_logger.info(line)


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    def __init__(
        self,
        nb_man: NotebookExecutionManager,
        *,
        checks: dict[str, Check],
        progress: Progress,
        stop: threading.Event,
        secrets: Secrets,
        sources: Mapping[str, str],
        **options: Any,
    ) -> None:
        super().__init__(nb_man, **options)
        self._checks = checks
        self._progress = progress
        self._stop = stop
        self._secrets = secrets
        self._sources = sources

    def papermill_execute_cells(self) -> None:
        """Execute the code cells, up to the first that fails and is no check."""
        for index, cell in enumerate(self.nb.cells):
            if self._stop.is_set():
                raise Stopped("stopped before the next cell")
            if cell.cell_type == "code" and not self._execute(cell, index):
                break

    def _execute(self, cell: NotebookNode, index: int) -> bool:
        """Execute one code cell; return whether the next may be run."""
        check = self._checks.get(cell.id)
        self._progress(Started(cell.id, check))
        result = Outcome(Verdict.FAIL, "it did not come to an end")
        begin = perf_counter()
        try:
            self.nb_man.cell_start(cell, index)
            if cell.id in self._sources:
                self._execute_unmasked(cell, index)
            else:
                self.execute_cell(cell, index)
        except DeadKernelError:
            self.nb_man.cell_exception(cell, cell_index=index)
            if self._stop.is_set():
                result = Outcome(Verdict.UNKNOWN, "it was stopped")
                raise Stopped(f"stopped in cell {cell.id}") from None
            result = Outcome(Verdict.FAIL, "the kernel died")
            raise
        except CellExecutionError as error:
            self.nb_man.cell_exception(cell, cell_index=index)
            told = self._secrets(f"{error.ename}: {error.evalue}")
            result = Outcome(Verdict.FAIL, told)
        else:
            result = outcome(cell, check)
        finally:
            self.nb_man.cell_complete(cell, cell_index=index)
            seconds = perf_counter() - begin
            self._progress(Finished(cell.id, check, result, seconds, printed(cell.outputs)))
        return check is not None or result.verdict is Verdict.PASS

    def _execute_unmasked(self, cell: NotebookNode, index: int) -> None:
        """Execute a cell as it was, while in the notebook it stays masked."""
        unmasked = nbformat.from_dict({**cell, "source": self._sources[cell.id]})  # type: ignore[no-untyped-call]
        try:
            self.execute_cell(unmasked, index)
        finally:
            cell.outputs, cell.execution_count = unmasked.outputs, unmasked.execution_count
            self.nb.cells[index] = cell

    def process_message(self, msg: dict[str, Any], *rest: Any, **more: Any) -> Any:
        """Take a message of the kernel into the notebook, without any secret that is known here."""
        msg = {**msg, "content": self._secrets.clean(msg["content"])}
        return super().process_message(msg, *rest, **more)

    async def _async_poll_kernel_alive(self) -> None:
        # nbclient's own looks once a second, and knows of no stop. It ends a cell by cancelling the
        # wait for its reply, which the cell takes for a dead kernel: by then it is dead.
        while not self._stop.is_set() and await self.km.is_alive():  # noqa: ASYNC110  # no event
            await asyncio.sleep(_POLL)
        if await self.km.is_alive():
            self.shutdown_kernel = "immediate"
            await self.km.signal_kernel(signal.SIGKILL)
        self.task_poll_for_reply.cancel()

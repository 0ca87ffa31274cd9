"""From a failed batch to the live failure: replayed in a JupyterLab that is bound to its kernel."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import shlex
import shutil
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary

from ssot.lab.focus import (
    KERNEL_DIED,
    Failure,
    Focus,
    Replay,
    compare,
    failure_of,
    find_focus,
    focused,
    hidden,
    told,
)
from ssot.lab.jupyter import Jupyter, is_alive
from ssot.lab.notebook import CannotRun
from ssot.lab.parameters import PREFIX
from ssot.lab.progress import Stopped
from ssot.lab.services import Workspace

__all__ = ["IDLE", "Exploration", "explore", "open_browser"]

IDLE = 3600.0
"""Seconds without a browser and without a cell at work, after which an exploration ends."""

_POLL = 0.1
_LOOK = 2.0  # seconds between two looks at whether anybody is there

T = TypeVar("T")

_quiet = logging.getLogger(__name__)
_quiet.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Exploration:
    """A failure that is open to be looked at.

    ``notebook`` is the focused copy and ``url`` where a browser finds it, with the token that lets
    in; ``connection_file`` attaches other clients to its kernel. ``recorded`` is the failure that
    the batch has on record and ``replayed`` the one that happened here, None where there was none;
    ``outcome`` compares them.
    """

    focus: Focus
    notebook: Path
    url: str
    connection_file: Path
    outcome: Replay
    recorded: Failure | None
    replayed: Failure | None
    workspace: Workspace
    _jupyter: Jupyter = field(repr=False)
    _stop: threading.Event = field(repr=False)
    _idle: float = field(repr=False)

    async def ended(self) -> str:
        """Wait for the end, and return in words what it was.

        It ends when ``stop`` is set, when JupyterLab is shut down, and when for ``idle`` seconds no
        browser was there and no cell at work.
        """
        used = looked = monotonic()
        while not self._stop.is_set():
            if not self._jupyter.running:
                return "JupyterLab was shut down"
            if monotonic() - looked >= _LOOK:
                if await self._jupyter.in_use():
                    used = monotonic()
                looked = monotonic()
            if monotonic() - used >= self._idle:
                return f"nobody was there for {self._idle / 60:g} minutes"
            await asyncio.sleep(_POLL)
        return "stopped"


@asynccontextmanager
async def explore(
    output: Path | None,
    check: str | None,
    *,
    outputs: Path,
    tell: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
    idle: float = IDLE,
) -> AsyncIterator[Exploration]:
    """Replay a failure of a batch in a JupyterLab of its own, and hold it open.

    ``output`` and ``check`` are as in :func:`~ssot.lab.focus.find_focus`. The copy is written into
    ``explore/`` beside the output; a notebook that is no output of a run keeps its folder clean,
    and its copy goes into ``outputs/explore/``. The original is only read. Servers, database and
    processes are new; the environment is the caller's, without ``SSOT_LAB_…``, which may not
    change the parameters of the batch; but a secret parameter, which no output holds, must be
    given again as ``SSOT_LAB_<NAME>``. ``tell`` is called with each step.

    On leaving, however that comes about, JupyterLab, its kernels, and all that they started are
    gone; the copy stays.

    Raises :class:`~ssot.lab.notebook.CannotRun` before anything is started, with what is wrong;
    :class:`~ssot.lab.jupyter.JupyterFailed`; and :class:`~ssot.lab.progress.Stopped` once ``stop``
    is set before the failure is there.
    """
    stop = stop or threading.Event()
    focus = find_focus(output, check, outputs=outputs)
    if importlib.util.find_spec("jupyterlab") is None:
        given = {"RUN": output and shlex.quote(str(output)), "CHECK": check}
        words = ["make explore", *(f"{name}={value}" for name, value in given.items() if value)]
        raise CannotRun(
            [
                f"JupyterLab is not installed beside ssot: type {' '.join(words)}, "
                "or install it here with pip install -e '.[lab]'"
            ]
        )
    given_again = {f"{PREFIX}{name.upper()}": name for name in hidden(focus)}
    if lacking := [each for each in given_again if each not in os.environ]:
        raise CannotRun(
            [
                f"parameter {given_again[each]} is secret and not in the output; "
                f"give it again as {each}"
                for each in lacking
            ]
        )
    copy = focused(focus)
    path = _place(focus, copy, outputs)
    tell(f"{focus.name} of {focus.notebook.path.name}: {focus.recorded or _no_record(focus)}")
    async with Workspace.open("explore") as workspace:
        jupyter = await _unless(
            stop,
            Jupyter.start(
                workspace,
                root=path.parent.parent,
                folder=focus.folder or Path.cwd(),
                environment=_environment(os.environ, given_again),
            ),
        )
        try:
            connection, process = await _unless(stop, jupyter.open_session(path))
            tell(f"replaying {focus.name} in a fresh kernel")
            replayed = await _unless(stop, _replay(copy, focus, connection, process))
            outcome = compare(focus, replayed)
            told(copy, focus, outcome, replayed)
            await asyncio.to_thread(_write, path, copy, focus)
            await asyncio.to_thread(_sign, copy, jupyter.data)
            yield Exploration(
                focus,
                path,
                jupyter.url(path),
                connection,
                outcome,
                focus.recorded,
                replayed,
                workspace,
                jupyter,
                stop,
                idle,
            )
        finally:
            await jupyter.aclose()


def open_browser(url: str) -> bool:
    """Open the user's browser; whether there is one. One that runs in the terminal is left alone.

    The variable ``BROWSER`` names one that is always taken.
    """
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    if type(browser) is webbrowser.GenericBrowser and "BROWSER" not in os.environ:
        return False
    return browser.open(url)


def _no_record(focus: Focus) -> str:
    return "the batch did not come to it" if focus.never_run else "it passed"


def _environment(variables: Mapping[str, str], kept: Collection[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in variables.items()
        if name in kept or not name.startswith(PREFIX)
    }


# The copy


def _place(focus: Focus, copy: NotebookNode, outputs: Path) -> Path:
    """Write the copy, and return where; one that its user has changed is not written over."""
    original = focus.notebook.path
    is_output = "papermill" in focus.notebook.node.metadata
    folder = (original.parent if is_output else outputs.absolute()) / "explore"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        path = folder / f"{original.stem}-{focus.name}.ipynb"
        number = 1
        while path.exists() and not _untouched(path, copy):
            number += 1
            path = folder / f"{original.stem}-{focus.name}-{number}.ipynb"
        _write(path, copy, focus)
    except OSError as error:
        raise CannotRun([f"the copy cannot be written to {folder}: {error}"]) from error
    return path


def _untouched(path: Path, copy: NotebookNode) -> bool:
    """Whether the code of an earlier copy is still what we wrote."""
    try:
        before = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except Exception:  # nbformat raises what the content makes it raise
        return False
    code = [
        [cell.source for cell in node.cells if cell.cell_type == "code"] for node in (before, copy)
    ]
    return code[0] == code[1]


def _write(path: Path, copy: NotebookNode, focus: Focus) -> None:
    draft = path.with_name(f".{path.name}.draft")
    text = nbformat.writes(copy).rstrip("\n") + "\n"  # type: ignore[no-untyped-call]
    draft.write_text(text, encoding="utf-8")
    # A parameter may be a secret: no more people may read it here than there.
    shutil.copymode(focus.notebook.path, draft)
    draft.chmod(draft.stat().st_mode | 0o600)
    os.replace(draft, path)


def _sign(copy: NotebookNode, data: Path) -> None:
    """Make the copy trusted, so that its tables and figures are shown at once."""
    notary = NotebookNotary(data_dir=str(data))  # type: ignore[no-untyped-call]
    try:
        notary.sign(copy)  # type: ignore[no-untyped-call]
    finally:
        notary.store.close()


# The replay


class _Client(NotebookClient):
    """Executes in a kernel that somebody else started, whose process is known."""

    def __init__(self, copy: NotebookNode, connection_file: Path, process: psutil.Process) -> None:
        manager = AsyncKernelManager(connection_file=str(connection_file), owns_kernel=False)
        manager.load_connection_file()
        super().__init__(copy, km=manager, allow_errors=True, timeout=None, log=_quiet)
        self.coalesce_streams = True
        self.record_timing = False
        self._process = process

    async def _async_poll_kernel_alive(self) -> None:
        # nbclient's own takes every kernel that it does not own for alive. A cell takes the
        # cancelling of the wait for its reply for a dead kernel.
        while is_alive(self._process):  # noqa: ASYNC110  # no event
            await asyncio.sleep(_POLL)
        assert self.task_poll_for_reply is not None
        self.task_poll_for_reply.cancel()


async def _replay(
    copy: NotebookNode, focus: Focus, connection_file: Path, process: psutil.Process
) -> Failure | None:
    """Run the cells of ``copy`` up to the one in focus; how it failed, or one before it.

    The outputs go into ``copy``.
    """
    client = _Client(copy, connection_file, process)
    channels = await client.async_start_new_kernel_client()
    try:
        client.reset_execution_trackers()
        # As JupyterLab will write it: a page that nobody has changed must not look changed.
        info = await client.async_wait_for_reply(channels.kernel_info())
        copy.metadata["language_info"] = (info or {})["content"]["language_info"]
        for index, cell in enumerate(copy.cells):
            if cell.cell_type != "code":
                continue
            check = focus.check if cell.id == focus.cell_id else None
            cell.outputs = []
            try:
                await client.async_execute_cell(cell, index)
            except DeadKernelError:
                return Failure(cell.id, "", KERNEL_DIED)
            failure = failure_of(cell, check)
            if failure is not None or cell.id == focus.cell_id:
                return failure
    finally:
        channels.stop_channels()
    return None


async def _unless(stop: threading.Event, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; once ``stop`` is set, cancel it and raise :class:`Stopped`."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            if stop.is_set():
                raise Stopped("stopped before the failure was there")
            await asyncio.wait({task}, timeout=_POLL)
        return task.result()
    finally:
        while not task.done():
            # More than once: asyncio.wait_for of Python 3.11 can lose a cancellation.
            task.cancel()
            await asyncio.wait({task}, timeout=_POLL)

"""What the tests of an exploration share: a failure on real servers, and looks into its kernel."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from nbformat import NotebookNode
from nbformat.v4 import new_output
from notebooks.samples import cell, notebook, stream, until, write

needs_jupyterlab = pytest.mark.skipif(
    importlib.util.find_spec("jupyterlab") is None,
    reason="JupyterLab is not installed; it is in the extra lab",
)

REAL_SETUP = """\
from ssot.lab.lab import open_lab

lab = await open_lab(
    "00_real", users=users, seed=seed, services=services, latency_ms=int(latency_ms)
)
"""

REAL_FAILURE = """\
alice = await lab.client("alice")
    run = await alice.ask("What did my models cost?")
    await alice.finished(run)
    assert alice.sequence == [1, 2, 3]"""


def failed(*bodies: str, name: str = "AssertionError", value: str = "sum is 2") -> NotebookNode:
    """A notebook as papermill leaves it when its last check failed with this error."""
    return _failed(notebook(*bodies), len(bodies), name, value)


def failed_on_servers(path: Path) -> Path:
    """A batch's output: a check on a real lab that found five events where it wants three."""
    node = notebook(REAL_FAILURE, setup=REAL_SETUP, summary="")
    node = _failed(node, 1, "AssertionError", "alice.sequence == [1, 2, 3]\n  = [1, 2]")
    return write(node, path)


def _failed(node: NotebookNode, count: int, name: str, value: str) -> NotebookNode:
    node.metadata["papermill"] = {"parameters": {}}
    for number, each in enumerate((c for c in node.cells if c.cell_type == "code"), 1):
        each.execution_count = number
        if each.id.startswith("gp-"):
            each.outputs = [stream(f"{each.id[:5].upper()} PASS claim\n")]
    last = cell(node, f"gp-{count:02}-claim")
    last.outputs = [
        stream(f"GP-{count:02} FAIL claim\n"),
        new_output("error", ename=name, evalue=value, traceback=[f"{name}: {value}"]),
    ]
    return node


async def look(connection_file: Path, expression: str) -> str:
    """What an expression is in a kernel, as somebody sees it who attaches to it."""
    client = AsyncKernelClient(connection_file=str(connection_file))
    client.load_connection_file()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
        reply = await client.execute(
            "", user_expressions={"it": expression}, silent=True, reply=True, timeout=30
        )
        found = reply["content"]["user_expressions"]["it"]
        return str(found["data"]["text/plain"] if found["status"] == "ok" else found["evalue"])
    finally:
        client.stop_channels()


def below(pid: int) -> list[psutil.Process]:
    """All that a process has started, and what those have."""
    return psutil.Process(pid).children(recursive=True)


def roots(processes: Sequence[psutil.Process]) -> set[Path]:
    """The folders of the workspaces that processes are of, or watch."""
    found = set()
    for process in processes:
        try:
            variables = process.environ()
        except psutil.Error:
            continue
        found |= {
            variables[name] for name in ("SSOT_WORKSPACE", "SSOT_WATCHDOG") if name in variables
        }
    return {Path(each) for each in found}


def nothing_left(processes: Sequence[psutil.Process], folders: set[Path], *, within: float) -> None:
    """Wait until the processes and the folders are gone."""

    def left() -> list[object]:
        return [each for each in processes if _alive(each)] + [
            each for each in folders if os.path.lexists(each)
        ]

    until(lambda: not left(), within=within, what=f"nothing is left of {left()}")


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

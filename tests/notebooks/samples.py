"""Sample notebooks of our form, whose setup brings a small stand-in of its own for ``lab``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import nbformat
import psutil
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[2]
T = TypeVar("T")

PARAMETERS = """\
users: int = 2  # how many users take part
seed: int = 7  # all randomness comes from it
services: str = "embedded"  # embedded, compose or url
latency_ms: float = 0.0  # added to every packet
"""

SETUP = """\
class Unknown(Exception):
    pass

class Check:
    def __init__(self, id, title):
        self.id, self.title = id, title
    async def __aenter__(self):
        return self
    async def __aexit__(self, kind, error, _):
        if kind is None:
            verdict = f"{self.id} PASS {self.title}"
        elif kind is Unknown:
            verdict = f"{self.id} UNKNOWN {self.title}: {error}"
        else:
            verdict = f"{self.id} FAIL {self.title}\\nseed 7\\ntimeline: a, b"
        lab.verdicts[self.id] = verdict
        print(verdict)

class Lab:
    verdicts = {}
    check = Check

lab = Lab()
"""

SUMMARY = "print(*lab.verdicts.values(), sep='\\n')"

PASS = "assert 1 + 1 == 2"
FAIL = "assert 1 + 1 == 3, 'sum is 2'"
UNKNOWN = "assert True\n    raise Unknown('no ssl here')"
DIE = "assert True\n    import os; os._exit(9)"
# tells its pid, then waits for what never comes
HANG = """\
assert True
    import asyncio, os, pathlib
    pathlib.Path("draft").write_text(str(os.getpid()))
    os.replace("draft", "begun")
    await asyncio.Event().wait()"""


def check_source(name: str, title: str, body: str) -> str:
    return f'async with lab.check("{name}", "{title}"):\n    {body}'


def notebook(
    *bodies: str, setup: str = SETUP, parameters: str = PARAMETERS, summary: str = SUMMARY
) -> NotebookNode:
    """A notebook with a check GP-01, GP-02, … for each body."""
    cells = [
        new_markdown_cell("# A sample\n\nIt claims little.", id="title"),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell(setup, id="setup", metadata={"tags": ["setup"]}),
    ]
    for number, body in enumerate(bodies, 1):
        name, title = f"GP-{number:02}", f"claim {number} holds"
        cells += [
            new_markdown_cell(
                f"### {name} · {title}\n\nOtherwise users suffer.\n\n"
                "Interplay: auth → database\n\n"
                f"BVJ: Platform | Stability | reason {number} | trust",
                id=f"gp-{number:02}-text",
            ),
            new_code_cell(
                check_source(name, title, body),
                id=f"gp-{number:02}-claim",
                metadata={"tags": ["check", "raises-exception", "nbval-check-output"]},
            ),
        ]
    cells.append(new_code_cell(summary, id="summary", metadata={"tags": ["summary"]}))
    node = new_notebook(cells=cells)
    node.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return node


def recorded(*bodies: str) -> NotebookNode:
    """A notebook as authored: every check has passed, and the record says so."""
    node = notebook(*bodies)
    verdicts = []
    count = 0
    for cell in node.cells:
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        if cell.id.startswith("gp-"):
            number = int(cell.id[3:5])
            verdicts.append(f"GP-{number:02} PASS claim {number} holds\n")
            cell.outputs = [stream(verdicts[-1])]
        elif cell.id == "summary":
            cell.outputs = [stream("".join(verdicts))]
    return node


def stream(text: str, name: str = "stdout") -> NotebookNode:
    return nbformat.v4.new_output("stream", name=name, text=text)


def write(node: NotebookNode, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(node).rstrip("\n") + "\n", encoding="utf-8")
    return path


def cell(node: NotebookNode, cell_id: str) -> NotebookNode:
    return next(each for each in node.cells if each.id == cell_id)


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def until(condition: Callable[[], T | None], *, within: float, what: str) -> T:
    """Return what ``condition`` returns once it is true; fail after ``within`` seconds."""
    deadline = monotonic() + within
    while not (found := condition()):
        assert monotonic() < deadline, f"not within {within} s: {what}"
        sleep(0.02)
    return found


def begun(folder: Path) -> int:
    """Wait for a hanging check of ``folder`` to have begun; return the pid of its kernel."""
    marker = folder / "begun"
    until(marker.exists, within=20, what="the hanging check began")
    return int(marker.read_text())


def gone(pid: int, *, within: float = 3) -> None:
    """Wait for a process to be gone, or a zombie that its reaper has not seen yet."""

    def check() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    until(check, within=within, what=f"process {pid} is gone")


def start(*command: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a Python process that sees this checkout, and Ctrl-C as in a terminal."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **options,
    )


def finish(process: subprocess.Popen[str], *, within: float = 30) -> tuple[int, str]:
    """Return exit code and output of a process."""
    output, _ = process.communicate(timeout=within)
    return process.returncode, output


SSOT = ("-c", "from ssot.cli import main; main()")


def ssot(*args: str, cwd: Path) -> tuple[int, str]:
    return finish(start(*SSOT, *args, cwd=cwd))

"""Copies of the package that kernels and their processes run, and the proof that they did.

A copy stands first on ``PYTHONPATH``. Its modules are made to tell, in a file beside the package,
which process has run them; meanwhile the processes of the kernel are looked at from outside.
"""

from __future__ import annotations

import ast
import compileall
import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from py_compile import PycInvalidationMode
from types import TracebackType
from typing import Any

import psutil

from ssot.lab.syntax import parse

__all__ = ["Copy", "Observer"]

_LOOK = 0.25  # seconds between two looks at the processes of a kernel

# What a module of a copy does first. A process must not fail because nobody listens any more.
_PROBE = """
import json, os, sys
words = {{"pid": os.getpid(), "file": {file!r}, "command": sys.orig_argv}}
try:
    with open({witness!r}, "a", encoding="utf-8") as witness:
        witness.write(json.dumps(words) + "\\n")
except OSError:
    pass
"""


class Copy:
    """A copy of the package ``ssot`` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._witness = folder / "witness"
        self._told: set[str] = set()

    @classmethod
    def of_package(cls, package: Path, folder: Path) -> Copy:
        """Copy the source at ``package`` into the new ``folder``, and compile it once for all."""
        shutil.copytree(
            package, folder / "ssot", ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
        # By content, not by time: an edit within the same second must never run as compiled before.
        compileall.compile_dir(folder, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
        return cls(folder)

    def again(self, folder: Path) -> Copy:
        """Another copy of the same source, in the new ``folder``; made before :meth:`watch`."""
        shutil.copytree(self.folder, folder)
        return Copy(folder)

    def watch(self, edited: Iterable[str] = ()) -> Observer:
        """Have the package, and each of the ``edited`` modules, tell who runs it."""
        self._told = {"ssot/__init__.py", *(file for file in edited if file.endswith(".py"))}
        for file in sorted(self._told):
            probe = _PROBE.format(file=file, witness=str(self._witness))
            module = self.folder / file
            module.write_bytes(_with_probe(module.read_bytes(), probe))
        return Observer(self)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The variables that make a Python process run this copy; so do its children."""
        before = inherited.get("PYTHONPATH", "")
        return {"PYTHONPATH": os.pathsep.join(filter(None, (str(self.folder), before)))}

    def remove(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def witnesses(self) -> list[dict[str, Any]]:
        """Who has run which module: ``pid``, ``file`` and ``command``, in order."""
        try:
            lines = self._witness.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            # A process may be killed while it writes.
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def never_run(self) -> list[str]:
        """The modules that should have told, and did not."""
        return sorted(self._told - {each["file"] for each in self.witnesses()})


class Observer:
    """Looks at the processes of a copy's kernels while they run. A context manager."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy
        self._seen: dict[str, set[int]] = {}
        self._foreign: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def doubts(self, *, finished: bool) -> list[str]:
        """Why it is not certain that this copy was what ran; nothing, when it is.

        Of a run that has not ``finished`` its setup, only the kernel is asked for.
        """
        if not self._kernels():
            return ["no kernel ran this copy"]
        if not finished:
            return []
        told = {_role(each["command"]) for each in self._copy.witnesses()}
        return [
            *(f"{role} ran with another PYTHONPATH" for role in sorted(self._foreign)),
            *(f"{role} did not run this copy" for role in sorted(self._seen.keys() - told)),
            *(f"no process ran {file}, which was edited" for file in self._copy.never_run()),
        ]

    def _kernels(self) -> set[int]:
        return {
            each["pid"]
            for each in self._copy.witnesses()
            if any("ipykernel" in word for word in each["command"])
        }

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK):
            for kernel in self._kernels():
                for process in _descendants(kernel):
                    self._look_at(process)

    def _look_at(self, process: psutil.Process) -> None:
        # It may end, or run another program, at any moment of looking at it.
        with contextlib.suppress(psutil.Error, OSError):
            role = _role(process.cmdline())
            path = process.environ().get("PYTHONPATH", "")
            if role:
                self._seen.setdefault(role, set()).add(process.pid)
                if path.split(os.pathsep)[0] != str(self._copy.folder):
                    self._foreign.add(role)


def _with_probe(source: bytes, probe: str) -> bytes:
    """A module that runs ``probe`` first, in a line that is there: tracebacks keep their numbers.

    Not at its end, which a module that is run as a program may never reach.
    """
    statement = f"exec({probe!r}, {{}})".encode()
    last: ast.stmt | None = None
    for node in parse(source).body:
        # Only a docstring and these may, and must, come before anything else.
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not future and not (last is None and _is_text(node)):
            break
        last = node
    if last is None:
        return statement + b"\n" + source
    assert last.end_lineno is not None
    assert last.end_col_offset is not None
    lines = source.splitlines(keepends=True)
    line, column = lines[last.end_lineno - 1], last.end_col_offset
    lines[last.end_lineno - 1] = line[:column] + b"; " + statement + line[column:]
    return b"".join(lines)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _descendants(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        yield from psutil.Process(pid).children(recursive=True)


def _role(command: list[str]) -> str:
    """``ssot.serve worker`` of a command that runs a module of ours, else nothing."""
    for flag, module, *rest in (command[i:] for i in range(len(command) - 1)):
        if flag == "-m" and module.partition(".")[0] == "ssot":
            return " ".join((module, *rest[:1]))
    return ""

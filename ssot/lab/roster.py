"""The processes of a lab by their names, and the parts of those that are several roles at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from ssot.lab.processes import Process

__all__ = ["Roster"]


class Roster:
    """Which processes there are now, in the order in which they came.

    A name is that of a process, such as ``node a``, or of a part of ``all``: ``all/node``.
    ``nodes`` and ``workers`` have the names of theirs without the role: ``nodes["a"]``.
    """

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}
        self.nodes: dict[str, Process] = {}
        self.workers: dict[str, Process] = {}

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._processes.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._processes

    def __getitem__(self, name: str) -> Process:
        found = self._processes.get(name)
        if found is None:
            close = difflib.get_close_matches(name, self._processes, n=1)
            known = ", ".join(self._processes) or "none yet"
            hint = f"did you mean {close[0]}?" if close else f"there are {known}"
            raise LookupError(f"no process is called {name!r}: {hint}")
        return found

    def part(self, name: str) -> tuple[Process, str]:
        """The process of this name and its role; of ``all/node`` the launcher, and ``node``."""
        whole, _, role = name.partition("/")
        process = self[whole]
        return process, role or process.role

    def node(self, name: str) -> str:
        """The name of a node, which may be given without its role."""
        return self.nodes[name].name if name in self.nodes else name

    def add(self, process: Process) -> None:
        """It is there from now on; it takes the place of one of its name."""
        self._processes[process.name] = process
        group = self._group(process)
        if group is not None:
            group[_short(process)] = process

    def remove(self, process: Process) -> None:
        """It is there no longer. Does nothing when another has taken its place."""
        if self._processes.get(process.name) is not process:
            return
        del self._processes[process.name]
        group = self._group(process)
        if group is not None:
            del group[_short(process)]

    def _group(self, process: Process) -> dict[str, Process] | None:
        return {"node": self.nodes, "worker": self.workers}.get(process.role)


def _short(process: Process) -> str:
    return process.name.removeprefix(f"{process.role} ")

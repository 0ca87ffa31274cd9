"""The kernel that a lab lives in: its shell, what it displays, and its connection file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from ssot.lab.services import Workspace

__all__ = ["display", "remove_connection_file", "running_shell"]


def running_shell() -> Any:
    """The running IPython, or ``None`` in a plain process."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()


def display(thing: object) -> None:
    """Show a thing as a notebook does, or print it in a plain process."""
    if running_shell() is None:
        sys.stdout.write(f"{thing!r}\n")
        return
    from IPython.display import display

    sys.stdout.flush()
    display(thing)  # type: ignore[no-untyped-call]


def remove_connection_file(workspace: Workspace) -> None:
    """Have a temporary connection file of the kernel removed with the workspace, and its sockets.

    Who started the kernel removes it, unless killed; it holds the kernel's key. JupyterLab's files
    are in its runtime folder and are used again when a kernel is restarted: they are left alone.
    """
    if not hasattr(running_shell(), "kernel"):
        return
    from ipykernel.connect import get_connection_file, get_connection_info

    path = Path(get_connection_file())
    if not path.is_file() or path.parent != Path(tempfile.gettempdir()):
        return
    workspace.at_end({"remove": str(path)})
    found = get_connection_info(unpack=True)
    if isinstance(found, dict) and found.get("transport") == "ipc":
        for name, port in found.items():
            if name.endswith("_port"):
                workspace.at_end({"remove": f"{found['ip']}-{port}"})

"""The kernel of a notebook: started over unix sockets where their paths are short enough."""

from __future__ import annotations

import os
import uuid
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir

__all__ = ["KernelManager"]

_LONGEST_SOCKET_PATH = 107


class KernelManager(AsyncKernelManager):
    """Starts a kernel over unix sockets: no port to collide on, no warning about plain TCP."""

    def __init__(self, **options: Any) -> None:
        # an absolute path: by default it is one relative to the working directory, not the kernel's
        socket = os.path.join(jupyter_runtime_dir(), f"kernel-{uuid.uuid4()}-ipc")
        if os.name == "posix" and len(os.fsencode(f"{socket}-10")) <= _LONGEST_SOCKET_PATH:
            os.makedirs(os.path.dirname(socket), mode=0o700, exist_ok=True)
            options = {"transport": "ipc", "ip": socket} | options
        super().__init__(**options)

    async def _async_interrupt_kernel(self) -> None:
        # Jupyter interrupts a kernel before it shuts it down. One that has just answered, and not
        # yet gone back to ignoring the signal, says so on stderr: "KeyboardInterrupt caught in
        # kernel". Ours is idle by then, or killed; there is nothing to interrupt.
        if not self.shutting_down:
            await super()._async_interrupt_kernel()

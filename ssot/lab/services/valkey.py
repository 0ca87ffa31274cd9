"""A Valkey (or Redis) that the lab starts, with a password and an append-only file."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

from ssot.lab.services.binaries import find_valkey
from ssot.lab.services.server import EmbeddedServer

__all__ = ["EmbeddedValkey"]


class EmbeddedValkey(EmbeddedServer):
    """A Valkey of the lab's own. What it acknowledged survives :meth:`kill` and :meth:`restart`.

    Every write is in the append-only file before it is acknowledged, flushed to disk once a
    second: a killed process loses nothing, a power failure may.
    """

    what: ClassVar[str] = "Valkey"
    _stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    _taken: ClassVar[str] = "Address already in use"

    @property
    def url(self) -> str:
        """``redis://:password@127.0.0.1:port/0``."""
        return f"redis://:{self._password}@{self.host}:{self.port}/0"

    async def _prepare(self) -> None:
        if self._installation is None:
            self._installation = await asyncio.to_thread(find_valkey, user=self._user)
        self._make_directory(self._directory, 0o700)

    def _command(self, port: int) -> list[str | Path]:
        assert self._installation is not None
        configuration = self._directory / "valkey.conf"
        # A file, because everybody can read a command line.
        self._write(
            configuration,
            f"""\
bind {self.host}
port {port}
protected-mode yes
requirepass {self._password}
daemonize no
dir "{self._directory}"
save ""
appendonly yes
appendfsync everysec
tcp-backlog 128
# A title would overwrite the environment, by which the watchdog knows it.
set-proc-title no
""",
        )
        return [self._installation.program, configuration]

    async def _answers(self, process: subprocess.Popen[bytes], port: int) -> bool:
        # Before it says so, whoever listens on the port may be a stranger, who gets no password.
        del process
        if not any("Ready to accept" in line for line in self.log_lines(self._started_at)):
            return False
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection(self.host, port)
                try:
                    writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
                    answers = [await reader.readline() for _ in range(2)]
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        return answers == [b"+OK\r\n", b"+PONG\r\n"]

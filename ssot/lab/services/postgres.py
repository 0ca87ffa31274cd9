"""A PostgreSQL that the lab starts, on a cluster copied from a template."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import asyncpg

from ssot.lab.services import cache
from ssot.lab.services.binaries import Installation, find_postgres
from ssot.lab.services.errors import ServiceError
from ssot.lab.services.server import EmbeddedServer

__all__ = ["EmbeddedPostgres"]

_INITDB = (
    "--username=postgres",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--wal-segsize=1",
    "--no-sync",
    "--no-instructions",
)
_SETTINGS = """
# ssot-interplay: a cluster for one run. A killed process loses nothing, a power failure may.
listen_addresses = '127.0.0.1'
max_connections = 200
fsync = off
synchronous_commit = on
full_page_writes = off
min_wal_size = 2MB
max_wal_size = 128MB
max_logical_replication_workers = 0
# Files in the cluster, removed with it: a killed server would leave POSIX segments for ever.
dynamic_shared_memory_type = mmap
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%a %u@%d '
update_process_title = off
include 'lab.conf'
"""
_SETTINGS_18 = """
# No workers for input and output: three processes less in every lab.
io_method = sync
"""
# Without it a fresh cluster has six megabytes of empty segments, to be copied every time.
_INITDB_16 = ("--set=min_wal_size=2MB", "--set=max_wal_size=2MB")
_LIBRARIES = ("pg_stat_statements", "auto_explain")
_BUILDING = 120.0
_COPYING = 60.0
_SOCKET_PATH = 107


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL of the lab's own; passwords are checked (scram-sha-256) on every way in.

    ``pg_stat_statements`` and ``auto_explain`` are loaded where the installation has them; the
    latter logs nothing until ``auto_explain.log_min_duration`` is set.
    """

    what: ClassVar[str] = "PostgreSQL"
    # Fast: clients are cut off. SIGTERM would wait for them.
    _stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    _taken: ClassVar[str] = "Address already in use"
    _passing: ClassVar[tuple[str, ...]] = (
        "pre-existing shared memory block",
        'lock file "postmaster.pid" already exists',
    )

    @property
    def admin_url(self) -> str:
        """``postgresql://postgres:password@127.0.0.1:port/postgres``, a superuser."""
        return f"postgresql://postgres:{self._password}@{self.host}:{self.port}/postgres"

    @property
    def socket_directory(self) -> Path | None:
        """Where its unix socket is; ``None`` when the path would be too long for one."""
        longest = self._directory / ".s.PGSQL.65535"
        return self._directory if len(os.fsencode(longest)) < _SOCKET_PATH else None

    @property
    def data_directory(self) -> Path:
        """The cluster."""
        return self._directory / "data"

    async def _prepare(self) -> None:
        if self._installation is None:
            self._installation = await asyncio.to_thread(find_postgres, user=self._user)
        self._make_directory(self._directory, 0o711)
        self._workspace.at_end({"release_memory": str(self.data_directory / "postmaster.pid")})
        template = cache.user_cache() / self._template_name(self._installation)
        if not _complete(template):
            await self._build_or_wait(template, self._installation)
        if not self.data_directory.exists():
            await self._copy(template / "data", self.data_directory)
        self._password = (template / "password").read_text()

    def _command(self, port: int) -> list[str | Path]:
        assert self._installation is not None
        sockets = self.socket_directory or ""
        self._write(
            self.data_directory / "lab.conf",
            f"port = {port}\nunix_socket_directories = '{sockets}'\n",
        )
        return [self._installation.program, "-D", self.data_directory]

    async def _answers(self, process: subprocess.Popen[bytes], port: int) -> bool:
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        if len(lines) < 8 or lines[0] != str(process.pid) or lines[7].strip() != "ready":
            return False
        try:
            connection = await asyncpg.connect(
                host=self.host,
                port=port,
                user="postgres",
                password=self._password,
                database="postgres",
                ssl=False,
                timeout=5,
            )
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError):
            return False
        try:
            return bool(await connection.fetchval("select 1", timeout=5) == 1)
        finally:
            connection.terminate()

    def _template_name(self, installation: Installation) -> str:
        """The template's folder: another one for each version, build and set of parameters."""
        size = installation.program.stat().st_size
        text = repr((size, _INITDB, _INITDB_16, _SETTINGS, _SETTINGS_18, _LIBRARIES, self._user))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return f"postgres-{installation.version}-{digest}"

    async def _build_or_wait(self, template: Path, installation: Installation) -> None:
        """Build the template, or wait for who is building it."""
        until = time.monotonic() + _BUILDING
        while (lock := cache.try_lock(template)) is None:
            if time.monotonic() > until:
                raise ServiceError(f"somebody has been building {template} for {_BUILDING:g} s")
            await asyncio.sleep(0.01)
        try:
            if not _complete(template):
                await self._build(template, installation)
        finally:
            os.close(lock)

    async def _build(self, template: Path, installation: Installation) -> None:
        """Make a cluster here, as the user of the server, and keep a copy of it as the template.

        The template is a private folder, which that user could not write to.
        """
        await self._initialise(installation)
        staging = cache.new_staging(
            template, lambda path: self._workspace.at_end({"remove": str(path)})
        )
        await self._copy(self.data_directory, staging / "data")
        password = staging / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        cache.publish(staging, template)

    async def _initialise(self, installation: Installation) -> None:
        password = self._directory / "password"
        self._write(password, self._password)
        log = self._directory.with_name("initdb.log")
        more = _INITDB_16 if installation.major >= 16 else ()
        initdb = installation.directory / "initdb"
        try:
            code = await self._workspace.run(
                [initdb, "-D", self.data_directory, f"--pwfile={password}", *_INITDB, *more],
                environment=self._environment(),
                output=log,
                deadline=_BUILDING,
                user=self._user,
            )
        finally:
            password.unlink()
        if code:
            said = " | ".join(log.read_text(errors="replace").split("\n")[-6:]).strip(" |")
            raise ServiceError(f"initdb ended with code {code}: {said}")
        settings = _SETTINGS + (_SETTINGS_18 if installation.major >= 18 else "")
        if libraries := _libraries(installation):
            settings += f"shared_preload_libraries = '{','.join(libraries)}'\n"
        if "auto_explain" in libraries:
            settings += "auto_explain.log_min_duration = -1\n"
        with (self.data_directory / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(settings)

    async def _copy(self, source: Path, target: Path) -> None:
        """Copy a cluster with its owners and modes; `cp` takes a quarter of the time of Python."""
        log = self._directory.with_name("copy.log")
        code = await self._workspace.run(
            ["cp", "-a", source, target],
            environment=self._environment(),
            output=log,
            deadline=_COPYING,
        )
        if code:
            said = log.read_text(errors="replace").strip().splitlines()
            raise ServiceError(
                f"cannot copy {source} to {target}: {said[-1] if said else f'code {code}'}"
            )


def _complete(template: Path) -> bool:
    return (template / "data" / "global" / "pg_control").exists() and (
        template / "password"
    ).exists()


def _libraries(installation: Installation) -> list[str]:
    """Those of the libraries that this installation has."""
    lib = installation.directory.parent / "lib"
    files = [
        folder / f"{name}{suffix}"
        for name in _LIBRARIES
        for folder in (lib, lib / "postgresql", lib.with_name("lib64"))
        for suffix in (".so", ".dylib")
    ]
    return [name for name in _LIBRARIES if any(f.stem == name and f.exists() for f in files)]

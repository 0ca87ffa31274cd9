"""A private JupyterLab: a server of our own, with nothing of the user's and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil

from ssot.errors import SsotError
from ssot.lab.services import Workspace

__all__ = ["Jupyter", "JupyterFailed", "is_alive"]

_READY = 60.0
_CLOSING = 15.0
_ANSWER = 10.0
_POLL = 0.05
_WORKSPACE = "ssot"
_FOREIGN = re.compile(r"JUPYTER|JPY_")


class JupyterFailed(SsotError):
    """The Jupyter server did not come up, or refused what it was asked for; carries its log."""


class Jupyter:
    """A JupyterLab server on 127.0.0.1 with a token, whose every process is the workspace's own.

    It shows the files below ``root``; its kernels work in ``folder`` with ``environment``, apart
    from the variables that tell Jupyter where its files are. Use :meth:`start`.
    """

    def __init__(self, workspace: Workspace, *, root: Path, folder: Path) -> None:
        self.root = root
        self.data = workspace.root / "jupyter" / "data"
        self._workspace = workspace
        self._folder = folder
        self._token = secrets.token_urlsafe(24)
        self._home = workspace.root / "jupyter"
        self._log = workspace.root / "jupyter.log"
        self._popen: subprocess.Popen[bytes] | None = None
        self._http: httpx.AsyncClient | None = None
        self._base = ""
        self._seen: dict[int, psutil.Process] = {}

    @classmethod
    async def start(
        cls, workspace: Workspace, *, root: Path, folder: Path, environment: Mapping[str, str]
    ) -> Jupyter:
        """Start it, and return when it answers; :class:`JupyterFailed` otherwise."""
        self = cls(workspace, root=root, folder=folder)
        await asyncio.to_thread(self._write_settings)
        own = {name: value for name, value in environment.items() if not _FOREIGN.match(name)}
        self._popen = workspace.spawn(
            [sys.executable, "-m", "jupyterlab"],
            environment={
                **own,
                "JUPYTER_CONFIG_DIR": str(self._home / "config"),
                "JUPYTER_DATA_DIR": str(self.data),
                "JUPYTER_RUNTIME_DIR": str(self._home / "runtime"),
                "JUPYTERLAB_SETTINGS_DIR": str(self._home / "settings"),
                "JUPYTERLAB_WORKSPACES_DIR": str(self._home / "workspaces"),
            },
            stdout=self._log,
            stderr=self._log,
        )
        try:
            async with asyncio.timeout(_READY):
                await self._wait_until_ready()
        except TimeoutError:
            await self.aclose()
            raise JupyterFailed(
                f"JupyterLab is not ready after {_READY:g} s{self._said()}"
            ) from None
        except BaseException:
            await self.aclose()
            raise
        return self

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._popen is not None and self._popen.poll() is None

    def url(self, path: Path) -> str:
        """Where a browser finds the notebook at ``path``, alone on its page. Holds the token."""
        page = f"lab/workspaces/{_WORKSPACE}/tree/{quote(self._api_path(path))}"
        return f"{self._base}{page}?token={self._token}"

    async def open_session(self, path: Path) -> tuple[Path, psutil.Process]:
        """Bind a new kernel to the notebook at ``path``; its connection file and its process.

        Whoever opens :meth:`url` then finds that kernel: there is nothing to choose.
        """
        name = self._api_path(path)
        body = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
        session = await self._ask("POST", "api/sessions", body)
        connection = self._home / "runtime" / f"kernel-{session['kernel']['id']}.json"
        for process in self._descendants():
            with contextlib.suppress(psutil.Error):
                if str(connection) in process.cmdline():
                    return connection, process
        raise JupyterFailed(f"the kernel ended as soon as it was started{self._said()}")

    async def in_use(self) -> bool:
        """Whether a browser looks at a kernel, or one is at work."""
        with contextlib.suppress(psutil.Error):
            self._seen |= {each.pid: each for each in self._descendants()}
        try:
            kernels = await self._ask("GET", "api/kernels?no_track_activity=1")
        except (httpx.HTTPError, JupyterFailed):
            return self.running  # too busy to answer, so somebody is at work
        return any(each["connections"] or each["execution_state"] == "busy" for each in kernels)

    async def aclose(self) -> None:
        """End kernels and server, and return when all that they started is gone. Idempotent.

        A kernel is asked first, so that it can close what it has open.
        """
        if self._popen is None:
            return
        with contextlib.suppress(psutil.Error):
            self._seen |= {each.pid: each for each in self._descendants()}
        if self._http is not None:
            with contextlib.suppress(httpx.HTTPError, JupyterFailed, TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    kernels = await self._ask("GET", "api/kernels")
                    await asyncio.gather(
                        *(self._ask("DELETE", f"api/kernels/{each['id']}") for each in kernels)
                    )
            await self._http.aclose()
            self._http = None
        if self.running:
            self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._popen.wait, _ANSWER)
        # With the workspace go all that are left, but for the watchdogs of what the kernels had
        # open: those end by themselves once they have cleaned up.
        await self._workspace.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                while any(map(is_alive, self._seen.values())):  # noqa: ASYNC110  # no event
                    await asyncio.sleep(_POLL)
        self._popen = None

    def _write_settings(self) -> None:
        for name in ("config", "data", "runtime", "settings", "workspaces"):
            (self._home / name).mkdir(mode=0o700, parents=True)
        config = {
            "ServerApp": {
                "ip": "127.0.0.1",
                "port": 0,
                "open_browser": False,
                "root_dir": str(self.root),
                "allow_root": os.geteuid() == 0,
                "terminals_enabled": False,
                # Looks for language servers with npm, which leaves logs in the user's home.
                "jpserver_extensions": {"jupyter_lsp": False},
            },
            # Not on the command line, where every user of the machine could read it.
            "IdentityProvider": {"token": self._token},
            "MappingKernelManager": {"root_dir": str(self._folder)},
            "FileCheckpoints": {"checkpoint_dir": str(self._home / "checkpoints")},
            "AsyncFileCheckpoints": {"checkpoint_dir": str(self._home / "checkpoints")},
        }
        _write(self._home / "config" / "jupyter_server_config.json", config)
        settings = {
            "apputils-extension/notification": {
                "checkForUpdates": False,
                "fetchNews": "false",
            },
            # The copy is short: all of it is there, wherever one looks.
            "notebook-extension/tracker": {"windowingMode": "none"},
        }
        for name, values in settings.items():
            _write(self._home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings", values)

    async def _wait_until_ready(self) -> None:
        assert self._popen is not None
        told = self._home / "runtime" / f"jpserver-{self._popen.pid}.json"
        while not (told.exists() and told.stat().st_size):
            if not self.running:
                raise JupyterFailed(f"JupyterLab ended at its start{self._said()}")
            await asyncio.sleep(_POLL)
        self._base = str(json.loads(told.read_text(encoding="utf-8"))["url"])
        self._http = httpx.AsyncClient(
            base_url=self._base,
            headers={"Authorization": f"token {self._token}"},
            timeout=_READY,
            trust_env=False,
        )
        while True:
            try:
                await self._ask("GET", "api")
                break
            except httpx.TransportError:
                if not self.running:
                    raise JupyterFailed(f"JupyterLab ended at its start{self._said()}") from None
            await asyncio.sleep(_POLL)
        # The page is the notebook's: the side bars are folded.
        side = {"collapsed": True, "visible": True}
        layout = {"main": {"dock": None}, "left": side, "right": side, "relativeSizes": [0, 1, 0]}
        page = {"data": {"layout-restorer:data": layout}, "metadata": {"id": _WORKSPACE}}
        await self._ask("PUT", f"lab/api/workspaces/{_WORKSPACE}", page)

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        if self._http is None:
            raise JupyterFailed("JupyterLab is not running")
        answer = await self._http.request(method, path, json=body)
        if answer.is_error:
            raise JupyterFailed(
                f"JupyterLab answered {method} {path}: {answer.status_code} {answer.text[:300]}"
            )
        return answer.json() if answer.content else None

    def _api_path(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _descendants(self) -> Iterable[psutil.Process]:
        assert self._popen is not None
        return psutil.Process(self._popen.pid).children(recursive=True)

    def _said(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        text = "\n".join(lines[-15:]).replace(self._token, "***")
        return f"; it said:\n{text}" if text else ""


def is_alive(process: psutil.Process) -> bool:
    """Whether a process is there, and not only waiting to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(content), encoding="utf-8")

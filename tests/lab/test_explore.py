"""Exploring: the failure happens again in a kernel that one can look into, and nothing stays."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import threading

import httpx
import nbformat
import psutil
import pytest
from nbformat.sign import NotebookNotary
from notebooks.samples import FAIL, HANG, PASS, SSOT, begun, cell, finish, load, start, write

from lab.exploring import (
    below,
    failed,
    failed_on_servers,
    look,
    needs_jupyterlab,
    nothing_left,
    roots,
)
from ssot.lab.explore import explore
from ssot.lab.focus import Replay
from ssot.lab.notebook import CannotRun, error_of
from ssot.lab.progress import Stopped


def _children():
    return [each for each in below(os.getpid()) if "SSOT_WORKSPACE" in each.environ()]


@pytest.mark.skipif(
    importlib.util.find_spec("jupyterlab") is not None, reason="JupyterLab is installed"
)
async def test_without_jupyterlab_it_says_what_to_type(tmp_path):
    """The lean installation has no JupyterLab, and says where there is one."""
    path = write(failed(PASS, FAIL), tmp_path / "00_a.ipynb")
    with pytest.raises(CannotRun, match=r"make explore RUN=.*/00_a\.ipynb, or install it"):
        async with explore(path, None, outputs=tmp_path / "outputs"):
            pass
    assert not (tmp_path / "explore").exists()


@needs_jupyterlab
async def test_a_failure_is_reproduced_and_alive(tmp_path, monkeypatch):
    """The copy shows what happened here, its kernel still has it, and the original is as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSOT_LAB_USERS", "3")
    body = "import os; drawn = os.urandom(8).hex()\n    here = (users, os.getcwd())\n    assert 0, drawn"
    node = failed(PASS, body, value="0123456789abcdef")
    path = write(node, tmp_path / "run {1}" / "00_a b.ipynb")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    said: list[str] = []
    async with explore(path, None, outputs=tmp_path, tell=said.append) as exploration:
        processes = _children()
        folders = roots(processes)
        assert exploration.outcome is Replay.REPRODUCED
        assert exploration.notebook == path.parent / "explore" / "00_a b-GP-02.ipynb"
        copy = nbformat.read(exploration.notebook, as_version=4)
        error = error_of(cell(copy, "gp-02-claim").outputs)
        assert await look(exploration.connection_file, "drawn") == repr(error.evalue)
        assert await look(exploration.connection_file, "here") == repr((2, str(tmp_path)))
        assert await look(exploration.connection_file, "'SSOT_LAB_USERS' in os.environ") == "False"
        assert "**Reproduced.**" in cell(copy, "explore-title").source
        notary = NotebookNotary(data_dir=str(exploration.workspace.root / "jupyter" / "data"))
        assert notary.check_signature(copy)
        notary.store.close()
        # What a browser is shown: the notebook's session is there already, with this kernel.
        async with httpx.AsyncClient(trust_env=False) as http:
            page, _, token = exploration.url.partition("?token=")
            assert page.endswith("/lab/workspaces/ssot/tree/explore/00_a%20b-GP-02.ipynb")
            assert (await http.get(page)).status_code in (302, 403)
            answer = await http.get(f"{page.partition('lab/')[0]}api/sessions?token={token}")
            (session,) = answer.json()
        assert session["path"] == "explore/00_a b-GP-02.ipynb"
        assert session["kernel"]["id"] in str(exploration.connection_file)
    assert processes
    nothing_left(processes, folders, within=0.5)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [*(tmp_path / "run {1}" / "explore").iterdir()] == [exploration.notebook]
    assert said == [
        "GP-02 of 00_a b.ipynb: AssertionError: 0123456789abcdef",
        "replaying GP-02 in a fresh kernel",
    ]


@needs_jupyterlab
@pytest.mark.parametrize(
    ("now", "setup", "outcome", "told"),
    [
        ("assert 1 + 1 == 3, 'sum is 4'", None, Replay.DIFFERENT, "AssertionError: sum is 4"),
        (PASS, None, Replay.PASSED, "None"),
        (PASS, "raise OSError('no disk')", Replay.DIFFERENT, "OSError: no disk"),
        ("import os; os._exit(9)", None, Replay.DIFFERENT, "the kernel died"),
    ],
)
async def test_what_happens_differently_is_told_with_both(tmp_path, now, setup, outcome, told):
    """Another error, none, one before the check, a kernel that dies: the record stands beside it."""
    node = failed(PASS, now)
    if setup:
        cell(node, "setup").source = setup
    path = write(node, tmp_path / "run" / "00_a.ipynb")
    async with explore(path, "gp-02", outputs=tmp_path) as exploration:
        assert (exploration.outcome, str(exploration.replayed)) == (outcome, told)
        assert str(exploration.recorded) == "AssertionError: sum is 2"
    copy = nbformat.read(exploration.notebook, as_version=4)
    assert "AssertionError: sum is 2" in cell(copy, "explore-title").source
    assert "<details open>" in cell(copy, "explore-record").source


@needs_jupyterlab
async def test_a_copy_that_was_changed_is_kept(tmp_path):
    """Somebody's notes are not written over; a copy that nobody changed is."""
    path = write(failed(PASS, FAIL), tmp_path / "run" / "00_a.ipynb")
    names = []
    for change in (False, True, False):
        async with explore(path, None, outputs=tmp_path) as exploration:
            names.append(exploration.notebook.name)
        if change:
            node = nbformat.read(exploration.notebook, as_version=4)
            cell(node, "explore-try").source = "1 + 1  # a note"
            write(node, exploration.notebook)
    assert names == ["00_a-GP-02.ipynb", "00_a-GP-02.ipynb", "00_a-GP-02-2.ipynb"]


@needs_jupyterlab
async def test_a_notebook_that_no_run_wrote_keeps_its_folder_clean(tmp_path):
    """A notebook saved in JupyterLab lies among sources; its copy goes to the outputs."""
    node = failed(PASS, FAIL)
    del node.metadata["papermill"]
    path = write(node, tmp_path / "notebooks" / "00_a.ipynb")
    async with explore(path, None, outputs=tmp_path / "outputs") as exploration:
        assert exploration.notebook == tmp_path / "outputs" / "explore" / "00_a-GP-02.ipynb"
    assert [*path.parent.iterdir()] == [path]


@needs_jupyterlab
async def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    """Before anything is started."""
    path = write(failed(PASS, FAIL), tmp_path / "run" / "00_a.ipynb")
    (path.parent / "explore").write_text("a file")
    with pytest.raises(CannotRun, match="the copy cannot be written to"):
        async with explore(path, None, outputs=tmp_path):
            pass
    assert _children() == []


@needs_jupyterlab
async def test_it_can_be_stopped_while_the_check_runs(tmp_path, monkeypatch):
    """A stop ends a replay that would never end, and leaves nothing."""
    monkeypatch.chdir(tmp_path)
    path = write(failed(PASS, HANG), tmp_path / "run" / "00_a.ipynb")
    stop = threading.Event()
    processes: list[psutil.Process] = []

    def ask():
        begun(tmp_path)
        processes.extend(_children())
        stop.set()

    asking = asyncio.create_task(asyncio.to_thread(ask))
    with pytest.raises(Stopped):
        async with explore(path, None, outputs=tmp_path, stop=stop):
            pass
    await asking
    assert processes
    nothing_left(processes, roots(processes), within=0.5)


@needs_jupyterlab
async def test_it_ends_when_jupyterlab_is_shut_down_or_nobody_is_there(tmp_path):
    """File, Shut Down of JupyterLab ends it; so does a time without a browser and without work."""
    path = write(failed(PASS, FAIL), tmp_path / "run" / "00_a.ipynb")
    async with explore(path, None, outputs=tmp_path, idle=0.2) as exploration:
        assert (await exploration.ended()).startswith("nobody was there for")
    async with explore(path, None, outputs=tmp_path) as exploration:
        page, _, token = exploration.url.partition("?token=")
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"{page.partition('lab/')[0]}api/shutdown"
            await http.post(url, headers={"Authorization": f"token {token}"})
        async with asyncio.timeout(20):
            assert await exploration.ended() == "JupyterLab was shut down"


@needs_jupyterlab
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_command_ends_nothing_is_left(tmp_path, number):
    """With real servers and processes below the kernel: all are gone, and all their folders."""
    path = failed_on_servers(tmp_path / "outputs" / "run" / "00_real.ipynb")
    before = path.read_bytes()
    command = start(*SSOT, "explore", "--no-browser", str(path), cwd=tmp_path)
    assert command.stdout is not None
    lines = []
    for line in command.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    assert "GP-01 reproduced\n" in lines, "".join(lines)
    processes = below(command.pid)
    names = {each.name() for each in processes}
    assert {"postgres", "valkey-server"} <= names, names
    folders = roots(processes)
    assert len(folders) == 2
    command.send_signal(number)
    code, output = finish(command)
    assert code == (-number if number is signal.SIGKILL else 0), output
    nothing_left(processes, folders, within=3)
    assert path.read_bytes() == before
    copy = load(path.parent / "explore" / "00_real-GP-01.ipynb")
    assert "alice.sequence = [1, 2, 3, 4, 5]" in json.dumps(copy)


@needs_jupyterlab
def test_when_the_jupyter_server_is_killed_the_command_ends_and_nothing_is_left(tmp_path):
    """Kernel and servers do not outlive the server that started them."""
    path = failed_on_servers(tmp_path / "outputs" / "run" / "00_real.ipynb")
    command = start(*SSOT, "explore", "--no-browser", str(path), cwd=tmp_path)
    assert command.stdout is not None
    assert any("Ctrl-C" in line for line in command.stdout)
    processes = below(command.pid)
    folders = roots(processes)
    (server,) = (each for each in processes if "jupyterlab" in each.cmdline())
    server.kill()
    code, output = finish(command)
    assert (code, output) == (0, "JupyterLab was shut down; removing everything but the copy\n")
    nothing_left(processes, folders, within=5)

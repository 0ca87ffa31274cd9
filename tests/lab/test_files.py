"""Writing a file whole or not at all."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from nbformat.v4 import new_markdown_cell, new_notebook
from papermill.iorw import write_ipynb

from ssot.lab.execution import register
from ssot.lab.files import write_atomically


def test_a_file_is_replaced_with_its_permissions(tmp_path: Path) -> None:
    """Nothing stays beside it."""
    path = tmp_path / "a"
    write_atomically(path, b"one")
    write_atomically(path, b"two", mode=0o640)
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o640)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Neither half a file nor a draft; here a folder stands in its place."""
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_atomically(tmp_path / "a", b"one")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_papermill_leaves_the_last_good_save_of_a_run(tmp_path: Path) -> None:
    """It saves after each cell, in place; a disk that is full must not cut what was there."""
    register()
    output = tmp_path / "out.ipynb"
    write_ipynb(new_notebook(), str(output))
    saved = output.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Written past this limit, a file is cut as on a full disk.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_ipynb(new_notebook(cells=[new_markdown_cell("x" * 10_000)]), str(output))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert output.read_bytes() == saved
    assert [each.name for each in tmp_path.iterdir()] == ["out.ipynb"]

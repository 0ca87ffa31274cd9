"""Writing a file whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

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

"""Folders of a check: only their owner can enter them, and nothing lies outside of them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ssot.lab.folders import Folders, secrets_in


def test_a_folder_has_these_files_and_no_one_else_can_enter(tmp_path: Path) -> None:
    """Text and bytes, sub-folders by a slash, modes 0700 and 0600; each folder is another one."""
    folders = Folders(tmp_path / "folders")
    folder = folders.make({".env": "A=ü\n", "secrets/deep/KEY": b"\xff", "secrets/OTHER": "b"})
    assert (folder / ".env").read_text(encoding="utf-8") == "A=ü\n"
    assert (folder / "secrets/deep/KEY").read_bytes() == b"\xff"
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path).rglob("*")
    }
    assert modes == {
        "folders": 0o700,
        "folders/1": 0o700,
        "folders/1/.env": 0o600,
        "folders/1/secrets": 0o700,
        "folders/1/secrets/OTHER": 0o600,
        "folders/1/secrets/deep": 0o700,
        "folders/1/secrets/deep/KEY": 0o600,
    }
    assert folders.make({}) != folder
    folders.remove(folder)
    folders.remove(folder)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "."])
def test_a_name_that_leads_out_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    """With the name, and without a folder."""
    with pytest.raises(ValueError, match="no name of a file in a folder"):
        Folders(tmp_path / "folders").make({"good": "", name: ""})
    assert list(tmp_path.iterdir()) == []


def test_what_is_secret_in_files_is_known_by_its_type_or_name() -> None:
    """Variables of a file of variables, also where a line is wrong, and files named like secrets."""
    files: dict[str, str | bytes] = {
        ".env": "PLAIN=open\nSSOT_TOKEN_ISSUER=north\nAUTH_SIGNING_KEY='in one line'\n???\nURL=postgresql://a:p%40ss@h/d\n",
        ".env.test": b"export API_TOKEN=tok\xff\n",
        "secrets/DB_PASSWORD": "a file\n",
        "secrets/NAME": "nobody",
    }
    assert secrets_in(files) == {"in one line", "p%40ss", "p@ss", "tok\ufffd", "a file"}

"""Folders with files that a check needs: what a process reads its settings and secrets from."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path, PurePosixPath

from dotenv.parser import parse_stream

from ssot.configuration.schema import secrecy
from ssot.environment import secrets_among

__all__ = ["Folders", "secrets_in"]


class Folders:
    """Makes folders below ``root`` that only their owner can enter."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._numbers = count(1)

    def make(self, files: Mapping[str, str | bytes]) -> Path:
        """A fresh folder with these files: modes 0700 and 0600; ``/`` in a name makes sub-folders.

        :raises ValueError: for a name that would lie outside of the folder.
        """
        for name in files:
            parts = PurePosixPath(name)
            if parts.is_absolute() or ".." in parts.parts or not parts.name:
                raise ValueError(f"{name!r} is no name of a file in a folder")
        self._root.mkdir(mode=0o700, exist_ok=True)
        folder = self._root / str(next(self._numbers))
        folder.mkdir(mode=0o700)
        for name, content in files.items():
            path = folder / name
            for parent in reversed([each for each in path.parents if folder in each.parents]):
                parent.mkdir(mode=0o700, exist_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    def remove(self, folder: Path) -> None:
        """Remove a folder with all that is in it. Does nothing when it is gone already."""
        shutil.rmtree(folder, ignore_errors=True)


def secrets_in(files: Mapping[str, str | bytes]) -> set[str]:
    """What is secret in `.env` files and among files that are named like variables.

    A setting is judged by its type, everything else by its name.
    """
    found: set[str] = set()
    known = secrecy()
    for name, content in files.items():
        text = content if isinstance(content, str) else content.decode(errors="replace")
        base = PurePosixPath(name).name
        for key, value in _assignments(text) if ".env" in base else [(base, text.strip())]:
            found |= secrets_among({key: value}, known)
    return found


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is not None and binding.value is not None:
            yield binding.key, binding.value

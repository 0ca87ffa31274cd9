"""The digest of code: whether a result of yesterday is of the code of today."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["digest"]


def digest(paths: Iterable[Path]) -> str:
    """SHA-256, in hexadecimal, of files and folders, the same wherever they are and in any order.

    Of a folder every file counts but hidden and compiled ones, by its path inside; of a notebook
    the code, the text and the tags of its cells, not what a run or an editor left in it.
    """
    found = sorted(
        (name, hashlib.sha256(_content(file)).hexdigest())
        for path in paths
        for name, file in _files(path.absolute())
    )
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if not path.is_dir():
        yield path.name, path
        return
    for file in path.rglob("*"):
        parts = file.relative_to(path).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if file.is_file():
            yield file.relative_to(path.parent).as_posix(), file


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix != ".ipynb":
        return content
    cells = [
        [cell.get("id"), cell["cell_type"], "".join(cell["source"]), _tags(cell)]
        for cell in json.loads(content)["cells"]
    ]
    return json.dumps(cells).encode()


def _tags(cell: dict[str, dict[str, list[str]]]) -> list[str]:
    return sorted(cell.get("metadata", {}).get("tags", []))

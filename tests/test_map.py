"""The map is true: it names every module, and every place that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
MAP = (REPOSITORY / "docs/map.md").read_text()


def named() -> set[str]:
    """Every path in the first column; a bare name stands beside the path before it."""
    found: set[str] = set()
    folder = ""
    for row in re.findall(r"^\| (`.*?) \|", MAP, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            if "/" in name.rstrip("/"):
                folder = name.rpartition("/")[0]
            plain = "/" in name.rstrip("/") or (REPOSITORY / name).exists() or not folder
            found.add(name if plain else f"{folder}/{name}")
    return found


def test_every_module_is_on_the_map() -> None:
    """Whoever adds a module says there what it is for."""
    modules = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "ssot").rglob("*.py")
        if path.name != "__init__.py" and "migrations" not in path.parts
    }
    assert modules - named() == set()


def test_every_place_on_the_map_is_there() -> None:
    """Whoever moves a module corrects the map."""
    assert [name for name in sorted(named()) if not (REPOSITORY / name).exists()] == []

"""Where notebooks and outputs are, and how a path is told."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["NOTEBOOKS", "OUTPUTS", "short"]

NOTEBOOKS = Path("notebooks")
OUTPUTS = Path("outputs")


def short(path: Path) -> Path:
    """Return a path as it is from here, or as it is when it lies elsewhere."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path

"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Put ``content`` in the place of ``path`` at once, with these permissions where given.

    When it cannot be written, :class:`OSError` tells why, and what was there before stays.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(content)
        if mode is not None:
            draft.chmod(mode)
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise

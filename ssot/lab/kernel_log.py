"""What is logged as a warning or worse in the kernel, and what Python warns of."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator

__all__ = ["KernelLog", "Told"]


class Told:
    """The records that were expected, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        """All of them, each with its level and the name of its logger."""
        return "\n".join(self.lines)


class KernelLog(logging.Handler):
    """Keeps each such record as text; one that a check did not expect fails it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        self._expected: list[tuple[str, Told]] = []

    def attach(self) -> None:
        """Begin to listen, to Python's warnings as well. Idempotent."""
        root = logging.getLogger()
        if self not in root.handlers:
            root.addHandler(self)
            logging.captureWarnings(True)
            warnings.simplefilter("always", ResourceWarning)

    def detach(self) -> None:
        """Stop listening. Idempotent."""
        logging.getLogger().removeHandler(self)
        logging.captureWarnings(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, for whoever expects it or as one that nobody does."""
        line = f"{record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + logging.Formatter().formatException(record.exc_info)
        for text, told in reversed(self._expected):
            if text in line:
                told.lines.append(line)
                return
        self._lines.append(line)

    @contextlib.contextmanager
    def expecting(self, text: str, done: Callable[[Told], None]) -> Iterator[Told]:
        """Expect a record that contains ``text``; ``done`` hears of those that came.

        None by the end is an :class:`AssertionError` that tells what was logged instead. Others are
        kept as ever.
        """
        root = logging.getLogger()
        ours = self not in root.handlers
        if ours:
            root.addHandler(self)
        told, before = Told(), len(self._lines)
        self._expected.append((text, told))
        try:
            yield told
        finally:
            self._expected.remove((text, told))
            if ours:
                root.removeHandler(self)
        if not told.lines:
            instead = "\n".join(self._lines[before:]) or "nothing"
            raise AssertionError(
                f"no warning or error with {text!r} was logged here; logged was:\n{instead}"
            )
        done(told)

    def clear(self) -> None:
        """Forget what was kept."""
        self._lines.clear()

    def take(self) -> list[str]:
        """What was kept, in order; it is kept no longer."""
        lines, self._lines = self._lines, []
        return lines

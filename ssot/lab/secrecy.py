"""What a lab or a run knows to be secret, and keeping it out of all that they show and write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ssot.environment import MASK, Redactor, is_secret_name

__all__ = ["Secrets", "clean_messages", "masked"]

# What people see of a kernel. What they typed themselves goes the other way.
_SHOWN = frozenset(
    {"display_data", "error", "execute_reply", "execute_result", "stream", "update_display_data"}
)


class Secrets:
    """Cleans text of secrets, of which there can be more at any time. Thread-safe."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._new: set[str] = set()
        self._known: frozenset[str] = frozenset()
        # One for all that came between two texts: to make one anew for each user would take long.
        self._redactors: tuple[Redactor, ...] = ()
        self.add(*values)

    def add(self, *values: str) -> None:
        """From now on these are secret too."""
        with self._lock:
            new = {*values} - self._known - {""}
            self._new |= new
            self._known |= new

    @property
    def values(self) -> frozenset[str]:
        """All that is secret by now."""
        return self._known

    def __call__(self, text: str) -> str:
        """The text without any secret."""
        with self._lock:
            if self._new or not self._redactors:
                self._redactors = (*self._redactors, Redactor(self._new))
                self._new = set()
            redactors = self._redactors
        for redactor in redactors:
            text = redactor(text)
        return text

    def clean(self, value: Any) -> Any:
        """The same of every text in ``value``, of mappings, lists and what else JSON has."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {name: self.clean(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(each) for each in value]
        return value


def masked(parameters: Mapping[str, object]) -> dict[str, object]:
    """The parameters, with a mask in the place of each that is secret by its name."""
    return {
        name: MASK if is_secret_name(name) and value else value
        for name, value in parameters.items()
    }


def clean_messages(session: Any, clean: Callable[[Any], Any]) -> None:
    """Have a kernel's ``session`` clean everything that it sends to be shown.

    There and not in each stream: printed text, displays, results and tracebacks all pass it, for
    every front end. ``clean`` takes the place of that of an earlier call.
    """
    original = getattr(session.send, "original", session.send)

    def send(stream: Any, message: Any, content: Any = None, *rest: Any, **more: Any) -> Any:
        if isinstance(message, dict):
            if message.get("msg_type") in _SHOWN:
                message = {**message, "content": clean(message["content"])}
        elif message in _SHOWN:
            content = clean(content)
        return original(stream, message, content, *rest, **more)

    send.original = original  # type: ignore[attr-defined]
    session.send = send

"""Who a piece of work is done for: the user's identity, frozen and passed explicitly.

Nothing reads the user from a context variable: tasks inherit those, and that is how one user's
work comes to run as another.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ssot.errors import LimitExceeded, PermissionDenied, ProtocolError

__all__ = ["MAX_DEPTH", "UserContext", "new_id"]

MAX_DEPTH = 8
"""How many generations of child contexts a run may have."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}")

# What a forgotten variable or an unfilled template leaves behind. Accepting one of these makes all
# the forgetful share one identity.
_PLACEHOLDERS = frozenset(
    {"anonymous", "default", "false", "nan", "none", "null", "placeholder", "system", "temp",
     "todo", "true", "undefined", "unknown", "user", "user_id", "xxx", "0", "-1"}
)  # fmt: skip


def new_id(kind: str) -> str:
    """A fresh identifier ``<kind>-<32 hex digits>``, unique across processes."""
    return f"{kind}-{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class UserContext:
    """The identity under which a run, its tools and its transactions work.

    Deeply immutable: ``metadata`` is copied and frozen, so that a child or a caller that keeps the
    original cannot change it. Raises :class:`ProtocolError` for an identifier that is malformed
    or a placeholder, and :class:`LimitExceeded` for a generation too many.
    """

    user_id: str
    thread_id: str
    run_id: str
    depth: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("user_id", "thread_id", "run_id"):
            value: object = getattr(self, name)
            if not isinstance(value, str) or not _ID.fullmatch(value):
                raise ProtocolError(
                    f"{name} must be 1 to 128 letters, digits or _.:@- and begin with a letter "
                    f"or digit, not {value!r}"
                )
            if value.lower() in _PLACEHOLDERS:
                raise ProtocolError(f"{name} is the placeholder {value!r}; a real one is needed")
        if not 0 <= self.depth <= MAX_DEPTH:
            raise LimitExceeded(
                f"child contexts of run {self.run_id}", limit=MAX_DEPTH, observed=self.depth
            )
        object.__setattr__(self, "metadata", _frozen(self.metadata))

    def child(self, **metadata: Any) -> UserContext:
        """A context one generation below, with ``metadata`` added; same user, thread and run."""
        return replace(self, depth=self.depth + 1, metadata={**self.metadata, **metadata})

    def require_user(self, user_id: str) -> None:
        """Raise :class:`PermissionDenied` unless this context is ``user_id``'s."""
        if self.user_id != user_id:
            raise PermissionDenied(
                f"the context of user {self.user_id} was given where user {user_id}'s is needed"
            )


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, set | frozenset):
        return frozenset(_frozen(item) for item in value)
    return value

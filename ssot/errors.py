"""The errors of the platform: one class for each thing that a caller would handle differently.

* :class:`SsotError`

  * :class:`SettingsError`: what the process was given is wrong; every problem at once
  * :class:`AuthenticationError`: this token or password proves nothing, and why
  * :class:`PermissionDenied`: known, but not allowed: another user's context, another's tool
  * :class:`Unavailable`: no answer within the deadline; the same call may succeed later
  * :class:`VersionMismatch`: two processes speak different versions; carries both numbers
  * :class:`ProtocolError`: a peer sent what is not allowed; nothing of it was done
  * :class:`Fenced`: somebody else runs this run by now; stop and write nothing more
  * :class:`NotSerializable`: a payload that cannot be sent, refused at the emitter
  * :class:`UnknownAgent`: no factory is registered under this name
  * :class:`AgentFailed`: a factory, an agent or a tool raised; the cause is chained
  * :class:`LimitExceeded`: a configured limit was reached; carries the limit
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AgentFailed",
    "AuthenticationError",
    "Fenced",
    "LimitExceeded",
    "NotSerializable",
    "PermissionDenied",
    "ProtocolError",
    "SettingsError",
    "SsotError",
    "Unavailable",
    "UnknownAgent",
    "VersionMismatch",
]


class SsotError(Exception):
    """Base of all errors that the platform raises on purpose."""


class SettingsError(SsotError):
    """What the process was given to start with is wrong.

    ``problems`` names every problem, so that one start is enough to see them all. No value of a
    secret is in it.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the settings:\n{lines}")


class AuthenticationError(SsotError):
    """The token or password proves nothing. ``reason`` is safe to show to the client."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class PermissionDenied(SsotError):
    """The caller is known, and not allowed to do this."""


class Unavailable(SsotError):
    """A server did not answer within ``deadline`` seconds; the same call may succeed later."""

    def __init__(self, what: str, *, deadline: float, cause: str) -> None:
        self.what = what
        self.deadline = deadline
        self.cause = cause
        super().__init__(f"{what} is unavailable: no answer within {deadline:g} s ({cause})")


class VersionMismatch(SsotError):
    """Two processes speak different versions of ``what``."""

    def __init__(
        self, what: str, *, ours: int | str | None, theirs: int | str | None, advice: str
    ) -> None:
        self.what = what
        self.ours = ours
        self.theirs = theirs
        super().__init__(
            f"{what}: this process speaks version {ours}, the other side {theirs}; {advice}"
        )


class ProtocolError(SsotError):
    """A peer sent what the wire protocol does not allow; nothing of it was done."""


class Fenced(SsotError):
    """Another worker holds this run by now: ``token`` is ours, ``current`` is the newest."""

    def __init__(self, run_id: str, *, token: int, current: int) -> None:
        self.run_id = run_id
        self.token = token
        self.current = current
        super().__init__(
            f"run {run_id} belongs to fencing token {current} by now, ours is {token}; "
            "nothing was written"
        )


class NotSerializable(SsotError):
    """A payload that JSON cannot carry, refused where it was emitted."""


class UnknownAgent(SsotError):
    """No factory is registered under ``name``."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(
            f"no agent {name!r} is registered; registered: {', '.join(known) or 'none'}"
        )


class AgentFailed(SsotError):
    """A factory, an agent or a tool raised; the cause is chained and named in the message."""


class LimitExceeded(SsotError):
    """A configured limit was reached."""

    def __init__(self, what: str, *, limit: float, observed: float) -> None:
        self.what = what
        self.limit = limit
        self.observed = observed
        super().__init__(f"{what}: the limit is {limit:g}, this would be {observed:g}")

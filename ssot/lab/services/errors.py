"""The one error of the lab's servers.

* :class:`~ssot.errors.SsotError`

  * :class:`ServiceError`: a server cannot be had, reached or controlled
"""

from __future__ import annotations

from ssot.errors import SsotError

__all__ = ["ServiceError"]


class ServiceError(SsotError):
    """A server cannot be had, reached or controlled: one line that says what to do, no password."""

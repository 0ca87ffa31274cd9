"""Which errors of PostgreSQL pass, so that a whole transaction is worth running again."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError

__all__ = ["is_refused", "is_transient", "refused_option", "sqlstate"]

_TRANSIENT = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "53300",  # too_many_connections
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now: starting up or shutting down
        "57P05",  # idle_session_timeout
        "25P03",  # idle_in_transaction_session_timeout: we stood still, and others went on
    }
)
_REFUSED = frozenset({"28000", "28P01", "3D000"})
_OPTION = frozenset(
    {
        "22023",  # invalid_parameter_value
        "42704",  # undefined_object: no such parameter
    }
)


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of an error of asyncpg, or of SQLAlchemy's wrapping of it."""
    original: object = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else None


def is_transient(error: Exception) -> bool:
    """Whether the whole transaction may succeed when it is run again."""
    state = sqlstate(error)
    if state is not None:
        return state in _TRANSIENT or state.startswith("08")
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _is_transport(error.__cause__)
    return _is_transport(error)


def is_refused(error: Exception) -> bool:
    """Whether the server answered and refused this role, password or database."""
    return sqlstate(error) in _REFUSED


def refused_option(error: Exception) -> str | None:
    """Why no connection was made, when an option behind the ``?`` of the URL is to blame."""
    if not isinstance(error, DBAPIError) or is_transient(error):
        return None
    # What asyncpg does not take is refused before the server is asked.
    ours = sqlstate(error) in _OPTION or isinstance(error, InterfaceError)
    return str(error.orig) if ours else None


def _is_transport(error: BaseException | None) -> bool:
    # asyncpg raises the operating system's error for a connection that cannot be made or that
    # breaks, and ConnectionDoesNotExistError (class 08) for one that was closed under it.
    seen = 0
    while error is not None and seen < 5:
        if isinstance(error, OSError | EOFError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False

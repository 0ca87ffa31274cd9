"""Connection URLs: from what people write to what SQLAlchemy's asyncpg dialect takes."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ssot.errors import SettingsError

__all__ = ["asyncpg_url"]


def asyncpg_url(text: str) -> URL:
    """The URL for SQLAlchemy's asyncpg dialect; a :class:`SettingsError` never repeats it."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SettingsError(
            ["the database URL is malformed; it is postgresql://role:password@host:port/database"]
        ) from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise SettingsError([f"the database URL is for {url.get_backend_name()}, not postgresql"])
    return url.set(drivername="postgresql+asyncpg")

"""Connection URLs: from what people write to what SQLAlchemy's asyncpg dialect takes."""

from __future__ import annotations

from urllib.parse import urlencode

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ssot.errors import SettingsError

__all__ = ["asyncpg_url"]

_OF_ASYNCPG = ("ssl",)


def asyncpg_url(text: str) -> URL:
    """The URL for SQLAlchemy's asyncpg dialect; a :class:`SettingsError` never repeats it.

    Options behind the ``?`` are libpq's (``sslmode=require``), or settings of the session.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SettingsError(
            ["the database URL is malformed; it is postgresql://role:password@host:port/database"]
        ) from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise SettingsError([f"the database URL is for {url.get_backend_name()}, not postgresql"])
    options = dict(url.query)
    query = {name: options.pop(name) for name in _OF_ASYNCPG if name in options}
    if options:
        # SQLAlchemy hands each to asyncpg as an argument; only in a DSN are they what libpq means.
        query["dsn"] = f"postgresql://?{urlencode(options, doseq=True)}"
    return url.set(drivername="postgresql+asyncpg", query=query)

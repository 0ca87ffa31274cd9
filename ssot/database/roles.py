"""A database and its roles, made by an administrator before the first migration.

For a database ``shop`` these roles exist, and nobody connects as anything else:

* ``shop_owner`` owns the tables and migrates; row-level security binds it too
* ``shop_app`` holds the rights of nodes and workers, and cannot log in
* ``shop_app_a`` and ``shop_app_b`` log in and are in ``shop_app``; they alternate in rotations
* ``shop_auth`` logs in for the auth service: the accounts, and nothing else
* ``shop_relay`` logs in for the outbox relay, and nothing else
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from ssot.database.urls import asyncpg_url
from ssot.errors import SettingsError

__all__ = ["LOGIN_ROLES", "provision"]

LOGIN_ROLES = ("owner", "app_a", "app_b", "auth", "relay")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


async def provision(admin_url: str, database: str) -> Mapping[str, str]:
    """Create the database and its roles with fresh passwords; returns a URL for each login role.

    ``admin_url`` must be allowed to create databases and roles. The names must be free.
    """
    if not _NAME.fullmatch(database):
        raise SettingsError([f"a database name is 1 to 40 of a-z, 0-9 and _, not {database!r}"])
    admin = asyncpg_url(admin_url)
    passwords = {role: secrets.token_urlsafe(24) for role in LOGIN_ROLES}
    engine = create_async_engine(admin, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await _create(connection, database, passwords)
    except ProgrammingError as error:
        # Not the statement itself: it holds a password.
        raise SettingsError([f"the administrator may not create roles: {error.orig}"]) from None
    finally:
        await engine.dispose()
    given = make_url(admin_url)
    return {role: _url(given, database, role, password) for role, password in passwords.items()}


async def _create(connection: AsyncConnection, database: str, passwords: Mapping[str, str]) -> None:
    # Utility statements take no parameters; every part is made here, of safe letters only.
    await connection.execute(text("SET password_encryption = 'scram-sha-256'"))
    await connection.execute(text(f"CREATE ROLE {database}_app NOLOGIN NOBYPASSRLS"))
    for role, password in passwords.items():
        groups = f"IN ROLE {database}_app" if role.startswith("app_") else ""
        await connection.execute(
            text(f"CREATE ROLE {database}_{role} LOGIN NOBYPASSRLS PASSWORD '{password}' {groups}")
        )
    # An administrator who is no superuser may give a database only to a role it is a member of.
    await connection.execute(text(f"GRANT {database}_owner TO CURRENT_USER"))
    await connection.execute(text(f"CREATE DATABASE {database} OWNER {database}_owner"))
    await connection.execute(text(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC"))
    for role in LOGIN_ROLES:
        await connection.execute(text(f"GRANT CONNECT ON DATABASE {database} TO {database}_{role}"))


def _url(admin: URL, database: str, role: str, password: str) -> str:
    url = admin.set(
        drivername="postgresql", username=f"{database}_{role}", password=password, database=database
    )
    return url.render_as_string(hide_password=False)

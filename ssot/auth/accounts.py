"""Accounts: who may log in, kept in PostgreSQL under the auth service's own role."""

from __future__ import annotations

import asyncio
import re

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ssot.auth.passwords import hash_password, matches
from ssot.context import new_id
from ssot.database import Account, DatabaseManager, OAuthIdentity
from ssot.errors import AuthenticationError, ProtocolError

__all__ = ["Accounts"]

_REFUSED = "wrong name or password"
_SURROGATES = re.compile("[\ud800-\udfff]")


class Accounts:
    """Creates accounts and checks passwords. Hashing runs in threads: it would stall the loop."""

    def __init__(self, database: DatabaseManager, *, scrypt_log_n: int) -> None:
        self._database = database
        self._log_n = scrypt_log_n
        # An unknown name costs the same time as a wrong password, so that it tells nothing.
        self._nobody = hash_password("", log_n=scrypt_log_n)

    async def create(self, name: str, password: str) -> str:
        """Create an account; returns its user id. :class:`ProtocolError` when the name is taken."""
        if not 1 <= len(name) <= 200 or not name.isprintable():
            raise ProtocolError("a name has 1 to 200 printable characters")
        if not 8 <= len(password) <= 1000 or _SURROGATES.search(password):
            raise ProtocolError("a password has 8 to 1000 characters")
        hashed = await asyncio.to_thread(hash_password, password, log_n=self._log_n)
        user_id = new_id("user")

        async def body(session: AsyncSession) -> str | None:
            # A replay after a lost commit finds its own row, by the id made above.
            await session.execute(
                insert(Account)
                .values(user_id=user_id, name=name, password_hash=hashed)
                .on_conflict_do_nothing()
            )
            return await session.scalar(select(Account.user_id).where(Account.name == name))

        if await self._database.run_transaction(None, body) != user_id:
            raise ProtocolError(f"the name {name!r} is taken")
        return user_id

    async def login(self, name: str, password: str) -> str:
        """The user id; :class:`AuthenticationError` in the same words for either mistake."""

        async def body(session: AsyncSession) -> tuple[str, str] | None:
            columns = select(Account.user_id, Account.password_hash).where(Account.name == name)
            row = (await session.execute(columns)).one_or_none()
            return (row.user_id, row.password_hash) if row else None

        # Nobody has a name that could not be created, and PostgreSQL would refuse some of them.
        found = await self._database.run_transaction(None, body) if name.isprintable() else None
        user_id, stored = found or ("", self._nobody)
        if not await asyncio.to_thread(matches, password, stored) or not found:
            raise AuthenticationError(_REFUSED)
        return user_id

    async def of_subject(self, provider: str, subject: str) -> str:
        """The user id of a subject of an OAuth provider; their first log-in makes the account.

        It has no name and no password, so nobody logs into it by one, or takes its name before.
        """
        user_id = new_id("user")
        mine = (OAuthIdentity.provider == provider) & (OAuthIdentity.subject == subject)

        async def body(session: AsyncSession) -> str:
            # One of many first log-ins inserts; the others wait for its commit, and then find it.
            # A replay after a lost commit finds its own row.
            taken = await session.scalar(
                insert(OAuthIdentity)
                .values(provider=provider, subject=subject, user_id=user_id)
                .on_conflict_do_nothing()
                .returning(OAuthIdentity.user_id)
            )
            if taken is not None:
                await session.execute(insert(Account).values(user_id=user_id))
                return user_id
            return (await session.scalars(select(OAuthIdentity.user_id).where(mine))).one()

        return await self._database.run_transaction(None, body)

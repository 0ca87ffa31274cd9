"""The record of each run: what was asked, and how it ended. Written and read as the run's user."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ssot.context import UserContext
from ssot.database.manager import DatabaseManager
from ssot.database.models import Run

__all__ = ["RunRecords"]

FINISHED = frozenset({"completed", "failed", "cancelled"})


class RunRecords:
    """The runs of all users, each visible to its own user only."""

    def __init__(self, database: DatabaseManager) -> None:
        self._database = database

    async def begin(self, user: UserContext, *, agent: str) -> tuple[dict[str, Any], bool]:
        """The record of the run, and whether it was there before; made if it was not.

        Whoever is told that it was there may not be the first to work on the run. So may the
        first one, when its commit was replayed; then it takes itself for a second, which is safe.
        """

        async def body(session: AsyncSession) -> tuple[dict[str, Any], bool]:
            made = await session.scalar(
                insert(Run)
                .values(
                    run_id=user.run_id,
                    user_id=user.user_id,
                    thread_id=user.thread_id,
                    agent=_storable(agent),
                    state="running",
                )
                .on_conflict_do_nothing()
                .returning(Run.run_id)
            )
            return _record(await session.get_one(Run, user.run_id)), made is None

        return await self._database.run_transaction(user, body)

    async def finish(
        self, user: UserContext, *, state: str, result: dict[str, Any] | None, error: str | None
    ) -> None:
        """Record the end of a run. The first end counts: a finished run is left as it is."""

        async def body(session: AsyncSession) -> None:
            await session.execute(
                update(Run)
                .where(Run.run_id == user.run_id, Run.state.not_in(FINISHED))
                .values(
                    state=state,
                    result=result,
                    error=_storable(error) if error else error,
                    finished_at=dt.datetime.now(dt.UTC),
                )
            )

        await self._database.run_transaction(user, body)

    async def get(self, user: UserContext) -> dict[str, Any] | None:
        """The record of ``user.run_id``, or ``None``: there is none, or it is another user's."""

        async def body(session: AsyncSession) -> dict[str, Any] | None:
            run = await session.scalar(select(Run).where(Run.run_id == user.run_id))
            return _record(run) if run else None

        return await self._database.run_transaction(user, body)


def _storable(text: str) -> str:
    """PostgreSQL's text holds every character but NUL."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _record(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "agent": run.agent,
        "state": run.state,
        "result": run.result,
        "error": run.error,
    }

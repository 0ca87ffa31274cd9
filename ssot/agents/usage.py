"""The agent ``usage_analysis``: what a user's language models cost, from their own rows."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from ssot.agents.registry import AgentSession
from ssot.agents.tools import Tool
from ssot.context import UserContext

__all__ = ["UsageAnalysis", "usage_by_model"]


class UsageArguments(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The last ``days`` days, up to now."""

    days: int = 30

    def __post_init__(self) -> None:
        if not 1 <= self.days <= 3660:
            raise ValueError("days must be from 1 to 3660")


async def usage_by_model(session: AsyncSession, arguments: UsageArguments) -> list[dict[str, Any]]:
    """Calls, tokens and cost of each model, the dearest first.

    There is no user in the query: the server shows this transaction its user's rows only.
    """
    rows = await session.execute(
        text(
            """
            SELECT model,
                   count(*) AS calls,
                   sum(input_tokens) AS input_tokens,
                   sum(output_tokens) AS output_tokens,
                   sum(cost_microusd)::bigint AS cost_microusd
            FROM llm_usage
            WHERE at > now() - make_interval(days => :days)
            GROUP BY model
            ORDER BY cost_microusd DESC, model
            """
        ),
        {"days": arguments.days},
    )
    return [dict(row) for row in rows.mappings()]


class UsageAnalysis:
    """Adds up what the user's models cost and names the dearest."""

    tools = (Tool("usage_by_model", UsageArguments, usage_by_model),)

    def __init__(self, context: UserContext) -> None:
        self.context = context

    async def run(self, text: str, session: AgentSession) -> dict[str, Any]:
        """The result: ``total_microusd``, ``calls``, and the rows of each model."""
        session.think(f"To answer {text!r}, I need what each model cost.")
        models = await session.call("usage_by_model", days=30)
        return {
            "total_microusd": sum(row["cost_microusd"] for row in models),
            "calls": sum(row["calls"] for row in models),
            "models": models,
        }

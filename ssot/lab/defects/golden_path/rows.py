"""Whose row it is, read or written."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="writes-unchecked",
        title="What is written is not checked, only what is read",
        symptom="any user writes costs into another user's account",
        caught_by=("GP-06", "GP-17"),
        incidents=(22,),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                "WITH CHECK ({own})",
                "WITH CHECK (true)",
            ),
        ),
    ),
    Defect(
        id="update-gives-away",
        title="The policy checks what is inserted, not what an update makes",
        symptom="bob makes his rows alice's: her costs are what he wants",
        caught_by=("GP-17",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '        op.execute(f"CREATE POLICY own_rows ON {table} USING '
                '({own}) WITH CHECK ({own})")\n',
                '        op.execute(f"CREATE POLICY own_read ON {table} FOR SELECT '
                'USING ({own})")\n'
                '        op.execute(f"CREATE POLICY own_insert ON {table} FOR '
                'INSERT WITH CHECK ({own})")\n'
                '        op.execute(f"CREATE POLICY own_update ON {table} FOR '
                'UPDATE USING ({own}) WITH CHECK (true)")\n'
                '        op.execute(f"CREATE POLICY own_delete ON {table} FOR '
                'DELETE USING ({own})")\n',
            ),
        ),
    ),
    Defect(
        id="anybody-deletes",
        title="Anybody may delete rows, for a clean-up job",
        symptom="a forgotten filter in a DELETE empties the table of all users",
        caught_by=("GP-17",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '        op.execute(f"CREATE POLICY own_rows ON {table} USING '
                '({own}) WITH CHECK ({own})")\n',
                '        op.execute(f"CREATE POLICY own_rows ON {table} USING '
                '({own}) WITH CHECK ({own})")\n'
                '        op.execute(f"CREATE POLICY old_rows ON {table} FOR DELETE '
                'USING (true)")\n',
            ),
        ),
    ),
    Defect(
        id="runs-written-for-others",
        title="Rows of runs and keys are checked when read, not when written",
        symptom="bob writes a run into alice's records",
        caught_by=("GP-17",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '        op.execute(f"CREATE POLICY own_rows ON {table} USING '
                '({own}) WITH CHECK ({own})")\n',
                '        check = own if table == "llm_usage" else "true"\n'
                '        op.execute(f"CREATE POLICY own_rows ON {table} USING '
                '({own}) WITH CHECK ({check})")\n',
            ),
        ),
    ),
    Defect(
        id="applied-without-policy",
        title="Row-level security is left off the idempotency keys",
        symptom="the recorded tool results of all users are readable in any transaction",
        caught_by=("GP-17",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '    for table in OF_USERS:\n        op.execute(f"ALTER',
                '    for table in ("llm_usage", "runs"):\n        op.execute(f"ALTER',
            ),
        ),
    ),
    Defect(
        id="forced-on-usage-alone",
        title="Row-level security binds the owner on the table of usage alone",
        symptom="the migration's credential reads every user's runs",
        caught_by=("GP-17",),
        edits=(
            Edit(
                "ssot/database/migrations/versions/0001_initial.py",
                '        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")\n',
                '        if table == "llm_usage":\n'
                '            op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")\n',
            ),
        ),
    ),
    Defect(
        id="user-stays-on-connection",
        title="The user is set for the connection, and only when there is one",
        symptom="a transaction without a user runs as whoever had the connection before",
        caught_by=("GP-17",),
        edits=(
            Edit(
                "ssot/database/manager.py",
                "set_config('ssot.user_id', :user, true)",
                "set_config('ssot.user_id', :user, false)",
            ),
            Edit(
                "ssot/database/manager.py",
                '                await session.execute(_SET_USER, {"user": user_id})\n',
                "                if user_id:\n"
                '                    await session.execute(_SET_USER, {"user": user_id})\n',
            ),
        ),
    ),
    Defect(
        id="tool-key-of-thread",
        title="The idempotency key of a tool is of the thread, not of the run",
        symptom="the second question in a conversation is answered with the figures of the first",
        caught_by=("GP-17",),
        edits=(
            Edit(
                "ssot/agents/tools.py",
                'key=f"{self._context.run_id}:{index}"',
                'key=f"{self._context.thread_id}:{index}"',
            ),
        ),
    ),
    Defect(
        id="answers-cached-by-arguments",
        title="A tool's results are cached by its arguments",
        symptom="the second user gets the first one's costs",
        caught_by=("GP-07",),
        edits=(
            Edit(
                "ssot/agents/usage.py",
                "    rows = await session.execute(\n",
                "    if arguments.days in _CACHE:\n"
                "        return _CACHE[arguments.days]\n"
                "    rows = await session.execute(\n",
            ),
            Edit(
                "ssot/agents/usage.py",
                "    return [dict(row) for row in rows.mappings()]\n",
                "    _CACHE[arguments.days] = [dict(row) for row in rows.mappings()]\n"
                "    return _CACHE[arguments.days]\n",
            ),
            Edit(
                "ssot/agents/usage.py",
                "class UsageArguments(",
                "_CACHE: dict[int, Any] = {}\n\n\nclass UsageArguments(",
            ),
        ),
    ),
)

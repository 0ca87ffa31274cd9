"""Runs that end in other hands than they began."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="abandoned-looked-for-once",
        title="Abandoned commands are looked for when a worker starts, and never again",
        symptom="what a crashed worker held waits until another one is restarted",
        caught_by=("GP-22",),
        incidents=(46,),
        edits=(
            Edit(
                "ssot/streams/commands.py",
                "                    claims = await self._abandoned(worker, idle)\n",
                '                    looked, self._looked = getattr(self, "_looked", False), True\n'
                "                    claims = [] if looked else "
                "await self._abandoned(worker, idle)\n",
            ),
        ),
    ),
    Defect(
        id="finish-not-replayed",
        title="The end of a run is recorded without replay",
        symptom="PostgreSQL restarts just then: the run is told as failed",
        caught_by=("GP-20",),
        edits=(
            Edit(
                "ssot/database/runs.py",
                "                    finished_at=dt.datetime.now(dt.UTC),\n"
                "                )\n"
                "            )\n"
                "\n"
                "        await self._database.run_transaction(user, body)\n",
                "                    finished_at=dt.datetime.now(dt.UTC),\n"
                "                )\n"
                "            )\n"
                "\n"
                "        async with self._database.session(user) as session:\n"
                "            await body(session)\n",
            ),
        ),
    ),
    Defect(
        id="looks-at-the-newest-ten",
        title="A replay looks for its events among the newest ten",
        symptom="a taken-over run of a busy user begins twice",
        caught_by=("GP-22",),
        edits=(
            Edit(
                "ssot/streams/append.lua",
                "'COUNT', 1000",
                "'COUNT', 10",
            ),
        ),
    ),
    Defect(
        id="leaves-with-commands",
        title="A worker that signs off takes its unfinished commands along",
        symptom="a worker that is replaced in the middle of a run loses the question",
        caught_by=("GP-21",),
        edits=(
            Edit(
                "ssot/streams/commands.py",
                "  if at.pending == 0 and (at.name == ARGV[2] or at.idle > "
                "tonumber(ARGV[3])) then\n",
                "  if at.name == ARGV[2] or at.idle > tonumber(ARGV[3]) then\n",
            ),
        ),
    ),
    Defect(
        id="forgotten-when-it-fails",
        title="A command is forgotten whatever came of its run",
        symptom="a drained or fenced worker's question is lost",
        caught_by=("GP-21",),
        edits=(
            Edit(
                "ssot/agents/worker.py",
                "            await asyncio.shield(run)\n"
                "            await self._commands.finish(claim)\n"
                "            self._finished += 1\n"
                "        finally:\n",
                "            await asyncio.shield(run)\n"
                "            self._finished += 1\n"
                "        finally:\n"
                "            await self._commands.finish(claim)\n",
            ),
        ),
    ),
)

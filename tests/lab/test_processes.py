"""A process of the lab: what is its own in a log that others of its name have written to."""

from __future__ import annotations

from ssot.lab.processes import Process
from ssot.lab.services.workspace import Workspace
from ssot.lab.timeline import Timeline


async def test_a_process_has_no_lines_of_an_earlier_one_of_its_name() -> None:
    """In any order of the checks, each sees what its own process logged."""
    async with Workspace.open("processes") as workspace:

        def process() -> Process:
            timeline = Timeline()
            return Process("auth", "auth b", workspace=workspace, environment={}, timeline=timeline)

        first = process()
        first.log_path.write_text("of the first\n")
        second = process()
        with second.log_path.open("a") as log:
            log.write("of the second\n")
        assert first.log_lines() == ["of the first", "of the second"]
        assert second.log_lines() == ["of the second"]

"""The log of faults, as the timeline tells it."""

from __future__ import annotations

from typing import get_args

import pytest

from ssot.lab.faults.log import FaultLog, What
from ssot.lab.timeline import Timeline


@pytest.mark.parametrize("what", get_args(What))
def test_the_end_of_each_fault_has_a_word_of_its_own(what: What) -> None:
    """Told once, of the near end of a link."""
    timeline = Timeline()
    log = FaultLog(timeline)
    record = log.begin(what, "worker a → redis")
    log.end(record)
    log.end(record)
    begun, ended = timeline.since(0)
    assert (begun.who, begun.what) == ("worker a", f"{what} (link to redis)")
    assert ended.who == "worker a"
    assert "no longer" not in ended.what

"""Warnings in the kernel's log fail a check, unless it expects them; then there must be one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest

from ssot.lab.kernel_log import KernelLog, Told

log = logging.getLogger("ssot.environment")


@pytest.fixture
def heard() -> Iterator[KernelLog]:
    heard = KernelLog()
    heard.attach()
    yield heard
    heard.detach()


def test_what_nobody_expects_is_kept(heard: KernelLog) -> None:
    """Warnings and worse with their level, logger and traceback, and those of Python; in order."""
    log.info("all is well")
    log.warning("a subscriber failed: %s", 7)
    try:
        raise ValueError("seven")
    except ValueError:
        log.exception("it failed")
    warnings.warn("never closed", ResourceWarning, stacklevel=1)
    first, second, third = heard.take()
    assert first == "WARNING ssot.environment: a subscriber failed: 7"
    assert second.startswith("ERROR ssot.environment: it failed\nTraceback")
    assert "ResourceWarning: never closed" in third
    assert heard.take() == []


def test_what_is_expected_is_held_and_no_longer_kept(heard: KernelLog) -> None:
    """By its text, of any level; what else is logged meanwhile is kept as ever."""
    done: list[Told] = []
    with heard.expecting("subscriber", done.append) as told:
        log.warning("a subscriber failed")
        log.warning("something else")
        log.error("another subscriber failed")
    log.warning("a subscriber failed")
    assert told.text.splitlines() == [
        "WARNING ssot.environment: a subscriber failed",
        "ERROR ssot.environment: another subscriber failed",
    ]
    assert done == [told]
    assert heard.take() == [
        "WARNING ssot.environment: something else",
        "WARNING ssot.environment: a subscriber failed",
    ]


def test_none_is_an_error_that_tells_what_was_logged_instead(heard: KernelLog) -> None:
    """Nobody hears of an expectation that was not met."""
    done: list[Told] = []
    with (
        pytest.raises(AssertionError, match=r"'subscriber'.*\nWARNING .*: other"),
        heard.expecting("subscriber", done.append),
    ):
        log.warning("other")
    assert done == []


def test_an_error_of_the_body_passes_through(heard: KernelLog) -> None:
    """It is the error that matters, not the warning that did not come."""
    with pytest.raises(KeyError), heard.expecting("subscriber", lambda _: None):
        raise KeyError("x")


def test_in_a_plain_process_it_listens_while_it_expects() -> None:
    """Nothing of it stays in the root logger."""
    heard, handlers = KernelLog(), list(logging.getLogger().handlers)
    with heard.expecting("one", lambda _: None) as told:
        log.warning("this one")
    assert told.lines == ["WARNING ssot.environment: this one"]
    assert logging.getLogger().handlers == handlers

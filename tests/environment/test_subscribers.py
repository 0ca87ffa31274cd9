"""Subscribers: each change once and in order, whoever makes it, and one's failure is its own."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams.support import threads

from ssot.environment import MASK, Change, IsolatedEnvironment, Subscription
from ssot.errors import SettingsError


def pairs(changes: list[Change], name: str) -> list[tuple[str | None, str | None]]:
    """Before and after of each change of a name."""
    return [(each.old, each.new) for each in changes if each.name == name]


def chained(changes: list[Change], first: str | None) -> bool:
    """Whether each change begins where the one before it ended."""
    for old, new in pairs(changes, "SAME"):
        if old != first:
            return False
        first = new
    return True


def test_every_subscriber_sees_one_order_without_a_gap() -> None:
    """Eight threads change one name and names of their own; three subscribers see the same story."""
    environment = IsolatedEnvironment({"SAME": "start"})
    seen: list[list[Change]] = [[], [], []]
    for each in seen:
        environment.subscribe(each.append)

    def work(number: int) -> None:
        for turn in range(40):
            environment.override({"SAME": f"{number}-{turn}", f"OWN_{number}": str(turn)})
            if turn % 10 == 9:
                environment.delete(f"OWN_{number}")

    threads(work, 8)
    assert seen[0] == seen[1] == seen[2]
    assert len(pairs(seen[0], "SAME")) == 8 * 40
    assert chained(seen[0], "start")
    assert pairs(seen[0], "SAME")[-1][1] == environment.get("SAME")
    for number in range(8):
        values = [new for _, new in pairs(seen[0], f"OWN_{number}")]
        expected = [
            turn for turn in range(40) for turn in ([turn, None] if turn % 10 == 9 else [turn])
        ]
        assert values == [None if each is None else str(each) for each in expected]
    assert environment.statistics().told == 3 * len(seen[0])
    assert environment.statistics().failed == 0


STEPS = st.tuples(st.sampled_from("ABC"), st.sampled_from([None, "0", "1", "2"]))
PLANS = st.lists(st.lists(STEPS, max_size=8), min_size=2, max_size=4)
WANTED = st.lists(st.none() | st.sets(st.sampled_from("ABCD")), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(PLANS, WANTED)
def test_each_change_once_and_in_order_whatever_threads_do(
    plans: list[list[tuple[str, str | None]]], wanted: list[set[str] | None]
) -> None:
    """Each hears the one story of all changes, of the names it asked for: no more, and no less."""
    environment = IsolatedEnvironment({"A": "0", "B": "0"})
    whole: list[Change] = []
    environment.subscribe(whole.append)
    # Something follows from a change, and is told behind it to those before and after this one.
    environment.subscribe(lambda change: environment.override({"D": change.new or ""}), ["A"])
    heard: list[list[Change]] = [[] for _ in wanted]
    for names, changes in zip(wanted, heard, strict=True):
        environment.subscribe(changes.append, names)

    def work(number: int) -> None:
        for name, value in plans[number]:
            if value is None:
                environment.delete(name)
            else:
                environment.override({name: value})

    threads(work, len(plans))
    values: dict[str, str | None] = {"A": "0", "B": "0"}
    for change in whole:
        # Each begins where the last one of its name ended: none is lost, none is told twice.
        assert change.old == values.get(change.name) != change.new
        values[change.name] = change.new
    assert {n: v for n, v in values.items() if v is not None} == dict(environment.snapshot())
    for names, changes in zip(wanted, heard, strict=True):
        assert changes == [each for each in whole if names is None or each.name in names]
    assert environment.statistics().failed == 0


def test_the_new_value_is_there_when_it_is_told() -> None:
    """After the swap, outside any lock: a callback may read, and another thread may write meanwhile."""
    environment = IsolatedEnvironment({})
    read: list[str | None] = []

    def look(change: Change) -> None:
        read.append(environment.get("A"))
        writer = threading.Thread(target=environment.override, args=({"B": "1"},))
        writer.start()
        writer.join(5)
        assert not writer.is_alive()

    environment.subscribe(look, ["A"])
    environment.override({"A": "1"})
    assert read == ["1"]
    assert environment.statistics().failed == 0


def test_the_changes_of_one_swap_are_told_by_name() -> None:
    """And only those that are changes: the same value again is none."""
    environment = IsolatedEnvironment({"B": "1", "C": "same"})
    told: list[str] = []
    environment.subscribe(lambda change: told.append(str(change)))
    environment.override({"C": "same", "B": "2", "A": ""})
    environment.delete("B", "NOBODY")
    assert told == ["A: None ->  (override)", "B: 1 -> 2 (override)", "B: 2 -> None (deleted)"]


def test_a_callback_that_changes_something_itself() -> None:
    """What it changes is told after what it is being told, to all, and nothing waits for itself."""
    environment = IsolatedEnvironment({})
    seen: list[list[str]] = [[], []]

    def answer(change: Change) -> None:
        seen[0].append(str(change.new))
        if change.name == "QUESTION":
            environment.override({"ANSWER": f"to {change.new}"})
            seen[0].append("asked")

    environment.subscribe(answer)
    environment.subscribe(lambda change: seen[1].append(str(change.new)))
    environment.override({"QUESTION": "1"})
    assert seen[0] == ["1", "asked", "to 1"]
    assert seen[1] == ["1", "to 1"]


def test_one_that_raises_harms_no_other_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Name, kind and place are logged; what the error says is not, for it may quote the value."""
    environment = IsolatedEnvironment({})
    told: list[str] = []

    def careless(change: Change) -> None:
        raise ValueError(f"cannot use {change.new}")

    environment.subscribe(careless, secrets=True)
    environment.subscribe(lambda change: told.append(change.name))
    with caplog.at_level(logging.ERROR):
        environment.override({"API_TOKEN": "s3cret-value"})
    assert told == ["API_TOKEN"]
    assert (environment.statistics().told, environment.statistics().failed) == (1, 1)
    (record,) = caplog.records
    assert "careless failed at the change of API_TOKEN: ValueError" in record.getMessage()
    assert __file__ in record.getMessage()
    assert "s3cret-value" not in caplog.text


def test_the_arguments_of_a_callback_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """A partial is told by what it is, and not by what it carries."""
    environment = IsolatedEnvironment({})
    environment.subscribe(functools.partial(int, "s3cret-value"))
    with caplog.at_level(logging.ERROR):
        environment.override({"A": "1"})
    assert "partial failed at the change of A" in caplog.text
    assert "s3cret-value" not in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_raised_when_all_are_told(error: type[BaseException]) -> None:
    """It reaches the one who made the change; nobody behind it loses anything, now or later."""
    environment = IsolatedEnvironment({})
    told: list[str | None] = []

    def interrupt(change: Change) -> None:
        if change.new == "1":
            raise error

    environment.subscribe(interrupt)
    environment.subscribe(lambda change: told.append(change.new))
    with pytest.raises(error):
        environment.override({"A": "1", "B": "1"})
    environment.override({"A": "2"})
    assert told == ["1", "1", "2"]


def test_one_that_closes_itself_hears_nothing_more() -> None:
    """Not even the rest of the same swap; the others hear all of it."""
    environment = IsolatedEnvironment({})
    seen: list[list[str]] = [[], []]
    subscriptions: list[Subscription] = []

    def once(change: Change) -> None:
        seen[0].append(change.name)
        subscriptions[0].close()
        subscriptions[0].close()

    subscriptions.append(environment.subscribe(once))
    environment.subscribe(lambda change: seen[1].append(change.name))
    environment.override({"A": "1", "B": "1"})
    environment.override({"A": "2"})
    assert seen == [["A"], ["A", "B", "A"]]
    assert environment.statistics().subscribers == 1


def test_one_that_subscribes_another() -> None:
    """The new one hears of what changes from then on, and not of what is being told."""
    environment = IsolatedEnvironment({})
    heard: list[str | None] = []

    def invite(change: Change) -> None:
        if change.new == "1":
            environment.subscribe(lambda later: heard.append(later.new))

    environment.subscribe(invite)
    environment.override({"A": "1"})
    environment.override({"A": "2"})
    assert heard == ["2"]


def test_only_the_names_that_were_asked_for() -> None:
    """And those may be set or not."""
    environment = IsolatedEnvironment({"A": "0"})
    told: list[str] = []
    environment.subscribe(lambda change: told.append(change.name), ["A", "LATER"])
    environment.override({"A": "1", "B": "1"})
    environment.override({"LATER": "1"})
    assert told == ["A", "LATER"]


def test_secrets_are_masked_unless_they_are_granted() -> None:
    """Old and new; of a URL the password; and always in the text of a change."""
    environment = IsolatedEnvironment(
        {"API_TOKEN": "s3cret-old", "SOME_URL": "http://u:s3cret-old@h"}
    )
    masked: list[Change] = []
    granted: list[Change] = []
    environment.subscribe(masked.append)
    environment.subscribe(granted.append, secrets=True)
    environment.override({"API_TOKEN": "s3cret-new", "SOME_URL": "http://u:s3cret new@h"})
    environment.delete("API_TOKEN")
    assert [(each.old, each.new) for each in masked] == [
        (MASK, MASK), (f"http://u:{MASK}@h", f"http://u:{MASK}@h"), (MASK, None),
    ]  # fmt: skip
    assert granted[0].new == "s3cret-new"
    assert granted[2].old == "s3cret-new"
    assert "s3cret" not in f"{masked} {granted} {[*map(str, granted)]}"


def test_what_becomes_a_secret_is_one_before_and_after() -> None:
    """The value that it had is not told either."""
    environment = IsolatedEnvironment({"CARD": "plain-card"}, secrecy={"CARD": True})
    told: list[Change] = []
    environment.subscribe(told.append)
    environment.delete("CARD")
    assert told[0].old == MASK


def test_a_change_that_is_refused_is_told_to_nobody() -> None:
    """Neither by a wrong name, nor by protection, nor by what validates."""
    environment = IsolatedEnvironment(
        {}, validate=lambda snapshot: ["A is bad"] if snapshot.get("A") == "bad" else []
    )
    environment.protect("LOCKED")
    told: list[Change] = []
    environment.subscribe(told.append)
    for values in ({"B": "1", "A": "bad"}, {"B": "1", "LOCKED": "1"}, {"B": "1", "no name": "1"}):
        with pytest.raises(SettingsError):
            environment.override(values)
    assert told == []
    assert "B" not in environment
    assert environment.statistics().refused == 3


async def _never_awaited(change: Change) -> None:
    """A mistake."""


class _NeverAwaited:
    async def __call__(self, change: Change) -> None:
        """The same mistake."""


@pytest.mark.parametrize(
    "callback", [_never_awaited, functools.partial(_never_awaited), _NeverAwaited()]
)
def test_a_callback_that_nobody_would_await_is_refused(
    callback: Callable[[Change], object],
) -> None:
    """It would be called, and never run."""
    with pytest.raises(TypeError, match="called, not awaited"):
        IsolatedEnvironment({}).subscribe(callback)


@pytest.mark.parametrize(("callback", "told"), [(None, "NoneType"), (5, "int"), ("print", "str")])
def test_what_cannot_be_called_is_no_subscriber(callback: Any, told: str) -> None:
    """Every change would fail at it, and only the log would say so."""
    environment = IsolatedEnvironment({})
    with pytest.raises(TypeError, match=f"a function that takes the change, and no {told}"):
        environment.subscribe(callback)
    assert environment.statistics().subscribers == 0


def test_a_text_in_place_of_names_is_refused() -> None:
    """It would be the names of its letters."""
    with pytest.raises(TypeError, match="not the text 'API_TOKEN'"):
        IsolatedEnvironment({}).subscribe(print, "API_TOKEN")

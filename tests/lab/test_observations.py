"""Where an asserted value came from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.configuration import DatabaseSettings
from ssot.errors import AuthenticationError
from ssot.lab.evidence import without_scenes
from ssot.lab.observations import COMPONENTS, Observations
from ssot.lab.spans import Span


def observations(**names: Any) -> Observations:
    return Observations(lambda: names)


def components(seen: Observations) -> set[str]:
    return {each.component for each in seen.asserted()}


def test_a_value_that_was_handed_out_is_known_again():
    """The very list that a watcher returned, or a long word inside it, names its component."""
    seen = observations()
    rows = seen.saw({"database"}, [{"state": "completed", "n": 1}])
    seen.held("rows", rows)
    assert components(seen) == {"database"}
    seen.clear()
    seen.saw({"database"}, [{"state": "completed", "n": 1}])
    seen.held("x", "completed")
    assert components(seen) == {"database"}


@pytest.mark.parametrize("value", [0, 1, True, None, "ok", 5, 1.0, float("nan"), float("inf")])
def test_a_value_that_could_be_anybodys_is_nobodys(value: Any):
    """A zero that was asserted is no proof that it was this component's zero."""
    seen = observations()
    seen.saw({"database"}, [value])
    seen.held("x", value)
    assert components(seen) == set()


def test_a_name_in_the_assertion_leads_to_its_object():
    """`len(rows) == 2` looks at the rows, though 2 is anybody's."""
    rows = [{"n": 1}, {"n": 2}]
    seen = observations(rows=rows)
    seen.saw({"database"}, rows)
    seen.held("len(rows)", 2)
    assert components(seen) == {"database"}
    assert seen.asserted()[0].expression == "len(rows)"


def test_an_object_of_a_component_speaks_for_it():
    """Settings are the configuration's, without anybody handing them out."""
    settings = DatabaseSettings.model_validate({"url": "postgresql://a:b@127.0.0.1/c"})
    seen = observations(settings=settings)
    seen.held("settings.pool_size", settings.pool_size)
    assert components(seen) == {"configuration"}


def test_a_message_is_known_by_what_stands_in_its_json():
    """A frame is text; the reason that is read out of it came from the same place."""
    seen = observations()
    seen.saw({"websocket"}, '{"type": "error", "reason": "no field content"}')
    seen.held("refused['reason']", "no field content")
    assert components(seen) == {"websocket"}


def test_an_expected_error_is_of_the_components_that_it_passed():
    """Its traceback says so, and what is asserted of it counts as theirs."""
    holder = object()
    seen = observations(refused=holder)
    try:
        DatabaseSettings.model_validate({"url": "postgresql://a:b@127.0.0.1/c"}).nothing  # type: ignore[attr-defined] # noqa: B018
    except AttributeError as error:
        seen.caught(error, holder)
    seen.held("refused.value", 0)
    assert components(seen) == set()
    seen.caught(AuthenticationError("wrong name or password"), holder)
    seen.held("refused.value", 0)
    assert components(seen) == {"auth"}


def test_the_next_check_begins_with_nothing():
    """What the last one asserted is not credited to it."""
    seen = observations()
    seen.held("x", seen.saw({"database"}, ["completed"]))
    assert seen.asserted()
    seen.clear()
    assert seen.asserted() == []
    seen.held("x", "completed")
    assert seen.asserted() == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=30,
    ),
    st.sampled_from(COMPONENTS),
)
def test_any_value_can_be_seen_and_asserted(value: Any, component: str):
    """Nothing that JSON can hold breaks the watcher, and only what was seen is credited."""
    seen = observations(value=value)
    assert seen.saw({component}, value) is value
    seen.held("value", value)
    seen.held("not ( python", value)
    assert components(seen) <= {component}


def test_what_holds_itself_ends():
    """A list inside itself is walked once."""
    seen = observations()
    ring: list[Any] = []
    ring.append(ring)
    seen.saw({"database"}, ring)
    seen.held("ring", ring)
    assert components(seen) == {"database"}


def test_what_was_there_before_the_check_is_no_value_of_it():
    """A constant of the set-up cell with equal words in it shows nothing of the far side."""
    five = ["agent_started", "agent_completed"]
    names: dict[str, Any] = {"FIVE": five}
    seen = Observations(lambda: names)
    seen.clear()
    seen.saw({"agents"}, ["agent_started", "agent_completed"])
    seen.held("FIVE", five)
    seen.held("'agent_started'", "agent_started")
    assert components(seen) == set()
    names["types"] = seen.saw({"agents"}, ["agent_started"])
    seen.held("types", names["types"])
    assert components(seen) == {"agents"}


def test_a_scene_is_no_interplay():
    """What led to a user that the check needs is left out; what the check does with it is not."""

    def span(id_: str, name: str, component: str, parent: str = "") -> Span:
        return Span(id_, "t", name, component, "kernel", 0.0, 1.0, parent=parent)

    spans = [
        span("1", "check", "lab"),
        span("2", "scene", "lab", "1"),
        span("3", "auth.create_account", "auth", "2"),
        span("4", "database.transaction", "database", "3"),
        span("5", "auth.login", "auth", "1"),
    ]
    assert [each.id for each in without_scenes(spans)] == ["1", "5"]

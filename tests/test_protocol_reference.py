"""The protocol page and the JSON Schema are current, and the schema fits what is really sent."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from ssot.events import AgentEvent, Payload, Position, encode_event
from ssot.websocket.protocol import (
    Accepted,
    Error,
    Reset,
    UserMessage,
    Welcome,
    encode,
    event_frame,
)
from ssot.websocket.reference import json_schema, protocol_page

DOCS = Path(__file__).parents[1] / "docs"
EVENT = AgentEvent(
    id="run-1:1",
    type="agent_started",
    user_id="user-1",
    thread_id="main",
    run_id="run-1",
    agent="usage_analysis",
    at=1.5,
    payload=Payload(text="hello"),
)


def test_the_page_is_current() -> None:
    """Whoever changes a frame runs the generator again."""
    assert (DOCS / "protocol.md").read_text() == protocol_page()


def test_the_schema_is_current() -> None:
    """Whoever changes a field runs the generator again."""
    assert (DOCS / "protocol.schema.json").read_text() == json_schema()


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("UserMessage", encode(UserMessage("1", "main", "hello", "usage_analysis"))),
        ("Welcome", encode(Welcome(1, "c-1", "user-1", 5, 0, True))),
        ("Reset", encode(Reset(6, 0, "rebooted"))),
        ("Accepted", encode(Accepted("1", "run-1"))),
        ("Error", encode(Error("no", "1"))),
        ("Event", event_frame(Position(5, 1), encode_event(EVENT))),
        ("AgentEvent", encode_event(EVENT)),
    ],
)
def test_what_is_sent_fits_the_schema(name: str, sent: bytes) -> None:
    """A client generated from the schema can read every frame."""
    schema = json.loads(json_schema())
    jsonschema.validate(json.loads(sent), {"$ref": f"#/$defs/{name}", **schema})

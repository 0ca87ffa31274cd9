"""Spans and their traceparents: what is read, what is ignored, what never leaks into a task."""

from __future__ import annotations

import asyncio
import json
import string
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from streams.support import event, someone

from ssot.errors import LimitExceeded
from ssot.events import AgentEvent, Origin, decode_event, encode_event, origin
from ssot.lab.spans import Span, SpanCollector, kernel_tracing
from ssot.tracing import (
    Spans,
    apart,
    continuing,
    current_trace,
    mark_failed,
    span_context,
    trace_of,
)
from ssot.websocket.protocol import GetRun, UserMessage, decode_client, encode

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


spans = Spans("test")


class Recorded:
    """What this process has recorded since the test began."""

    def __init__(self, collector: SpanCollector) -> None:
        self._collector = collector

    def __getitem__(self, name: str) -> Span:
        (found,) = [span for span in self._collector.spans() if span.name == name]
        return found


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with SpanCollector() as collector:
        kernel_tracing(collector)
        yield Recorded(collector)
        kernel_tracing(None)


def test_a_traceparent_is_read() -> None:
    """Trace, span and flags; a later version may have more behind a dash."""
    for text in (PARENT, f"01-{TRACE}-{SPAN}-01-more"):
        found = span_context(text)
        assert found is not None
        assert f"{found.trace_id:032x}" == TRACE
        assert f"{found.span_id:016x}" == SPAN
        assert found.trace_flags.sampled
        assert found.is_remote


@pytest.mark.parametrize(
    "wrong",
    [
        "", "00", PARENT[:-1], PARENT + "0", PARENT + "-more", f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", PARENT.upper(), f" {PARENT}",
        PARENT.replace("-", "_"), "x" * 1_000_000, None, 5, 1.5, True, [PARENT], {"a": PARENT},
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_ignored(wrong: object) -> None:
    """However wrong it is, of whatever type: there is no parent then, and no error."""
    assert span_context(wrong) is None
    with continuing(wrong):
        assert current_trace() == ""


@given(st.one_of(st.text(max_size=80), st.text("0123456789abcdef-", min_size=50, max_size=60)))
def test_any_text_is_read_or_ignored(text: str) -> None:
    """What is accepted is written again as it was."""
    found = span_context(text)
    if found is not None:
        with continuing(text):
            assert current_trace()[3:] == text[3:55]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(string.printable, max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
)


@given(json_values)
def test_no_trace_makes_a_frame_or_an_event_unreadable(value: Any) -> None:
    """The field may hold any JSON: frame and event are taken all the same."""
    asked = {"type": "get_run", "id": "1", "run_id": "r", "trace": value}
    frame = decode_client(json.dumps(asked))
    assert isinstance(frame, GetRun)
    made = json.loads(encode_event(event(someone(), 1)))
    body = json.dumps({**made, "trace": value}).encode()
    assert decode_event(body).id == made["id"]
    assert origin(body).trace == value
    span_context(frame.trace)


def test_nothing_is_sent_when_nobody_traces() -> None:
    """The field is left out, and every other field is there as it was."""
    asked = json.loads(encode(UserMessage("1", "t", "hello", "a")))
    assert asked == {
        "type": "user_message",
        "id": "1",
        "thread_id": "t",
        "text": "hello",
        "agent": "a",
    }
    made = json.loads(encode_event(event(someone(), 1)))
    assert set(made) == set(AgentEvent.__struct_fields__) - {"trace"}
    assert made["v"] == 1
    assert made["payload"] == {"text": "1", "tool": None, "data": {}}


def test_what_was_written_before_there_were_traces_is_read() -> None:
    """Frames and events of older processes lack the field."""
    old = {
        "id": "run-1:1", "type": "agent_started", "user_id": "u", "thread_id": "t", "run_id": "run-1",
        "agent": "a", "at": 0.0, "payload": {"text": "", "tool": None, "data": {}}, "v": 1,
    }  # fmt: skip
    assert decode_event(json.dumps(old).encode()).trace == ""
    assert origin(json.dumps(old).encode()) == Origin(user_id="u")
    assert origin(b"\xff not JSON") == Origin()


def test_without_a_provider_a_span_passes_on_what_was_given() -> None:
    """A process that exports nothing does not break the trace of the others."""
    code = f"""
from ssot.tracing import Spans, current_trace, installed, trace_of
spans = Spans("test")
with spans.span("outer", user="u") as span:
    print(installed(), span.is_recording(), repr(current_trace()))
with spans.span("outer", parent="{PARENT}"), spans.span("inner") as inner:
    print(trace_of(inner) == current_trace() == "{PARENT}")
    with spans.span("root", parent=""):
        print(repr(current_trace()))
print(repr(current_trace()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False ''", "True", "''", "''"]


def test_a_parent_is_given_current_or_none(recorded: Recorded) -> None:
    """Given: that one. Not given: the current one. Empty or malformed: the root of a new trace."""
    with spans.span("outer", parent=PARENT):
        with spans.span("inner"):
            pass
        with spans.span("root", parent=""):
            pass
    assert (recorded["outer"].parent, recorded["outer"].trace) == (SPAN, TRACE)
    assert (recorded["inner"].parent, recorded["inner"].trace) == (recorded["outer"].id, TRACE)
    assert recorded["root"].parent == ""
    assert recorded["root"].trace != TRACE


def test_a_span_that_is_not_current_has_no_children(recorded: Recorded) -> None:
    """What a caller does meanwhile is the caller's."""
    with spans.span("outer"), spans.span("aside", current=False), spans.span("inner"):
        pass
    assert recorded["aside"].parent == recorded["inner"].parent == recorded["outer"].id


def test_links_that_are_malformed_are_left_out(recorded: Recorded) -> None:
    """A span has the links that can be read."""
    with spans.span("linked", links=["", PARENT, "nonsense"]):
        pass
    assert recorded["linked"].links == (SPAN,)


def test_the_call_of_a_server_is_a_client_span(recorded: Recorded) -> None:
    """It names the server and the user; other attributes are the platform's own."""
    with spans.span("call", server="redis", user="u", events=3):
        pass
    assert (recorded["call"].kind, recorded["call"].server) == ("client", "redis")
    assert recorded["call"].attributes == {
        "db.system.name": "redis", "ssot.user_id": "u", "ssot.events": 3,
    }  # fmt: skip


def test_only_our_own_errors_say_what_they_say(recorded: Recorded) -> None:
    """Of a foreign error only the class is recorded; its message may hold anything."""
    for name, error in {
        "ours": LimitExceeded("connections", limit=1, observed=2),
        "foreign": ValueError("hunter2hunter2"),
        "cancelled": asyncio.CancelledError("hunter2hunter2"),
    }.items():
        with pytest.raises(type(error)), spans.span(name):
            raise error
    assert recorded["ours"].error == "LimitExceeded: connections: the limit is 1, this would be 2"
    assert recorded["foreign"].error == "ValueError"
    assert recorded["cancelled"].error == "CancelledError"
    assert recorded["foreign"].attributes["error.type"] == "ValueError"


def test_a_long_error_is_cut(recorded: Recorded) -> None:
    """A span is no place for a page."""
    with spans.span("failed") as span:
        mark_failed(span, "x" * 10_000)
    assert len(recorded["failed"].error) == 500


async def test_what_is_started_apart_is_nobodys_child(recorded: Recorded) -> None:
    """A task inherits the current span of its creator, unless it is started apart."""

    async def later(name: str) -> None:
        with spans.span(name):
            pass

    with spans.span("start"):
        inherits = asyncio.create_task(later("inherits"))
        with apart():
            background = asyncio.create_task(later("background"))
        assert current_trace() == trace_of(trace.get_current_span())
    await asyncio.gather(inherits, background)
    assert recorded["inherits"].parent == recorded["start"].id
    assert recorded["background"].parent == ""


async def test_a_coroutine_that_is_thrown_away_leaves_no_complaint(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """Closed by somebody else, it ends in a context that is not its own."""

    async def waits() -> None:
        with spans.span("abandoned"):
            await asyncio.get_running_loop().create_future()

    coroutine = waits()
    task = asyncio.get_running_loop().create_task(_step(coroutine))
    await task
    coroutine.close()
    assert caplog.records == []
    assert recorded["abandoned"].error == "GeneratorExit"


async def _step(coroutine: Any) -> None:
    coroutine.send(None)


def test_importing_the_platform_loads_no_exporter() -> None:
    """What exports nothing does not pay for it."""
    code = (
        "import sys, ssot.platform, ssot.serve, ssot.websocket.node, ssot.agents.worker\n"
        "print(*(n for n in sys.modules if n.startswith(('opentelemetry.sdk.trace', "
        "'opentelemetry.exporter', 'requests'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

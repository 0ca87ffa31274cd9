"""Spans of a lab: received from processes, and what led to what in them."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import http.client
import itertools
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from streams.support import threads, until

from ssot.lab.spans import Edge, Span, SpanCollector, chains, edges, kernel_tracing, reaches
from ssot.tracing import Spans


@pytest.fixture
def collector() -> Iterator[SpanCollector]:
    with SpanCollector() as collector:
        yield collector


def span(
    id_: str,
    component: str = "a",
    *causes: str,
    start: float = 0.0,
    server: str = "",
    trace: str = "t",
) -> Span:
    """A span whose first cause is its parent; the others are links."""
    return Span(
        id=id_,
        trace=trace,
        name=f"{component}.work",
        component=component,
        process="p",
        start=start,
        end=start + 1,
        parent=causes[0] if causes else "",
        links=tuple(causes[1:]),
        kind="client" if server else "internal",
        attributes={"db.system.name": server} if server else {},
    )


def request(*names: str, trace: bytes = b"t" * 16) -> bytes:
    """What a process sends."""
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    named = resource.resource.attributes.add(key="service.name")
    named.value.string_value = "worker a"
    scope = resource.scope_spans.add()
    scope.scope.name = "ssot.agents"
    for number, name in enumerate(names):
        one = scope.spans.add(name=name, trace_id=trace, span_id=bytes([number + 1]) * 8)
        one.start_time_unix_nano, one.end_time_unix_nano = 2_000_000_000, 3_500_000_000
        one.kind = one.SPAN_KIND_CLIENT
        one.parent_span_id = b"p" * 8
        one.links.add(trace_id=b"u" * 16, span_id=b"l" * 8)
        one.attributes.add(key="ssot.user_id").value.string_value = "alice"
        one.attributes.add(key="ssot.events").value.int_value = 5
        one.status.code = one.status.STATUS_CODE_ERROR
        one.status.message = "Fenced"
    return made.SerializeToString()


def post(
    collector: SpanCollector, body: bytes, *, path: str = "/v1/traces", **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(collector.endpoint).netloc, timeout=5)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# Receiving


def test_a_span_is_received_as_it_was_sent(collector: SpanCollector) -> None:
    """Component, process, user, times in seconds, causes and error."""
    assert post(collector, request("agents.run"))[0] == 200
    (found,) = collector.spans()
    assert found == Span(
        id="01" * 8, trace="74" * 16, name="agents.run", component="agents", process="worker a",
        start=2.0, end=3.5, parent="70" * 8, links=("6c" * 8,), kind="client", user="alice",
        error="Fenced", attributes={"ssot.user_id": "alice", "ssot.events": 5},
    )  # fmt: skip
    assert found.causes == ("70" * 8, "6c" * 8)


def test_a_packed_body_is_unpacked(collector: SpanCollector) -> None:
    """gzip, as OTLP exporters send it when they are told to compress."""
    assert post(collector, gzip.compress(request("a", "b")), Content_Encoding="gzip")[0] == 200
    assert [span.name for span in collector.spans()] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xff\xff\xff", {}),
        (b"not packed", {"Content_Encoding": "gzip"}),
        (gzip.compress(request("a"))[:-9], {"Content_Encoding": "gzip"}),
        (request("a"), {"Content_Encoding": "br"}),
        (b"", {"Content_Length": "many"}),
        (b"", {"Content_Length": "-1"}),
        (b"", {"Content_Length": str(10**12)}),
    ],
)
def test_what_cannot_be_read_is_refused_and_counted(
    collector: SpanCollector, body: bytes, headers: dict[str, str]
) -> None:
    """The sender is answered 400, nothing of it is kept, and the next request is served."""
    assert post(collector, body, **headers)[0] == 400
    assert collector.malformed == 1
    assert collector.spans() == []
    assert post(collector, request("a"))[0] == 200


def test_spans_have_one_address(collector: SpanCollector) -> None:
    """Metrics and logs are not taken."""
    assert post(collector, request("a"), path="/v1/metrics")[0] == 404
    assert collector.spans() == []


def test_a_sender_that_breaks_off_is_nothing_to_speak_of(
    collector: SpanCollector, capfd: pytest.CaptureFixture[str]
) -> None:
    """A process that is killed in the middle of a request is neither counted nor told of."""
    address = urlsplit(collector.endpoint)
    with socket.create_connection((address.hostname, address.port)) as broken:
        broken.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc")
    assert post(collector, request("a"))[0] == 200
    assert collector.malformed == 0
    collector.close()
    assert capfd.readouterr() == ("", "")


def test_spans_are_found_by_trace_and_by_start(collector: SpanCollector) -> None:
    """In the order of their start, whatever order they came in."""
    collector.add([span("3", start=3), span("1", start=1, trace="u"), span("2", start=2)])
    assert [s.id for s in collector.spans()] == ["1", "2", "3"]
    assert [s.id for s in collector.spans(trace="t")] == ["2", "3"]
    assert [s.id for s in collector.spans(since=2)] == ["2", "3"]
    assert [s.id for s in collector.spans(trace="u", since=2)] == []


def test_the_newest_spans_are_kept(collector: SpanCollector) -> None:
    """A lab that stands for days does not grow."""
    for first in range(0, 60_000, 10_000):
        collector.add(span(str(n), start=n, trace=str(n)) for n in range(first, first + 10_000))
    kept = collector.spans()
    assert len(kept) == 50_000
    assert kept[0].id == "10000"


def test_many_senders_at_once(collector: SpanCollector) -> None:
    """Every span of every thread is kept, while others read."""

    def send(number: int) -> None:
        for turn in range(20):
            assert post(collector, request("a", trace=bytes([number + 1, turn]) * 8))[0] == 200
            collector.spans()

    threads(send, 8)
    assert len(collector.spans()) == 160


def test_closing_ends_its_threads_and_keeps_what_came() -> None:
    """Also those of connections that a sender holds open; closing twice is once."""
    before = set(threading.enumerate())
    collector = SpanCollector()
    held = http.client.HTTPConnection(urlsplit(collector.endpoint).netloc, timeout=5)
    held.request("POST", "/v1/traces", request("a"))
    assert held.getresponse().read() == b""
    collector.close()
    collector.close()
    assert set(threading.enumerate()) - before == set()
    assert len(collector.spans()) == 1
    collector.add([span("late")])
    assert len(collector.spans()) == 1
    held.close()


async def test_a_trace_is_settled_when_nothing_more_comes(collector: SpanCollector) -> None:
    """Spans of another trace do not delay it; one that never rests is given up in time."""
    collector.add([span("1")])
    loop = asyncio.get_running_loop()

    async def keep_coming(trace: str) -> None:
        while True:
            collector.add([span("x", trace=trace)])
            await asyncio.sleep(0.01)

    other = asyncio.create_task(keep_coming("other"))
    begin = loop.time()
    assert await collector.settled("t", quiet=0.1, limit=5)
    assert 0.09 < loop.time() - begin < 2
    begin = loop.time()
    assert not await collector.settled("other", quiet=0.1, limit=0.3)
    assert 0.25 < loop.time() - begin < 2
    assert await collector.settled("unknown", quiet=0.05, limit=5)
    other.cancel()


async def test_a_process_sends_what_it_did(collector: SpanCollector) -> None:
    """With the variables of the collector a child exports under its name, in the given trace."""
    parent = f"00-{'4' * 32}-{'5' * 16}-01"
    code = (
        "import os\n"
        "from ssot.environment import IsolatedEnvironment\n"
        "from ssot.telemetry import open_telemetry\n"
        "from ssot.tracing import Spans, continuing\n"
        "environment = IsolatedEnvironment(os.environ)\n"
        "told = open_telemetry(os.environ, 'worker', redact=environment.redact)\n"
        "with told, continuing(environment.get('TRACEPARENT')):\n"
        "    with Spans('agents').span('work', user='alice', server='redis'): pass\n"
    )
    variables = collector.variables("worker b", traceparent=parent)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], env=variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    await until(lambda: len(collector.spans()) == 1, what="the span")
    (found,) = collector.spans(trace="4" * 32)
    assert (found.process, found.component, found.name) == ("worker b", "agents", "work")
    assert (found.parent, found.user, found.server) == ("5" * 16, "alice", "redis")


# The kernel


def test_the_kernel_hands_its_spans_to_the_newest_collector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Labs come and go in one kernel; the provider stays, and nothing is logged."""
    spans = Spans("test")
    began = time.time()
    with SpanCollector() as first, SpanCollector() as second:
        for collector, name in ((first, "one"), (second, "two"), (first, "three")):
            kernel_tracing(collector)
            with spans.span(name, user="alice"):
                pass
        kernel_tracing(None)
        with spans.span("nobody listens"):
            pass
        assert [s.name for s in first.spans()] == ["one", "three"]
        (found,) = second.spans(since=began)
        assert (found.process, found.component, found.user) == ("kernel", "test", "alice")
        assert began <= found.start <= found.end <= time.time()
    assert caplog.records == []


# What led to what


def test_edges_join_components_by_parent_and_link() -> None:
    """Not within a component; a server is joined to whoever called it."""
    spans = [
        span("1", "websocket"),
        span("2", "websocket", "1"),
        span("3", "streams", "2", server="redis"),
        span("4", "agents", "3"),
        span("5", "agents", "3", "1"),
        span("6", "agents", "unknown"),
    ]
    assert edges(spans) == [
        Edge("streams", "agents", 2),
        Edge("streams", "redis", 1),
        Edge("websocket", "agents", 1),
        Edge("websocket", "streams", 1),
    ]


def test_a_chain_is_the_shortest_and_the_earliest() -> None:
    """From a component or server to another; empty when nothing led there."""
    spans = [
        span("1", "auth"),
        span("2", "websocket", "1", start=1),
        span("3", "streams", "2", start=2),
        span("4", "agents", "3", start=3),
        span("5", "database", "4", start=4, server="postgresql"),
        span("6", "agents", "2", "9", start=5),
    ]
    assert [s.id for s in reaches(spans, "auth", "agents")] == ["1", "2", "6"]
    assert [s.id for s in reaches(spans, "streams", "postgresql")] == ["3", "4", "5"]
    assert [s.id for s in reaches(spans, "database", "postgresql")] == ["5"]
    assert reaches(spans, "agents", "auth") == []
    assert reaches([], "a", "b") == []


names = st.sampled_from(["a", "b", "c"])
ids = st.sampled_from([str(n) for n in range(8)])
anything = st.lists(
    st.builds(
        span, ids, names, ids, ids, start=st.integers(0, 3), server=st.sampled_from(["", "redis"])
    ),
    max_size=14,
)


@given(
    anything, names, st.sampled_from(["a", "b", "c", "redis"]), st.randoms(use_true_random=False)
)
def test_bad_data_ends_and_order_does_not_matter(
    spans: list[Span], a: str, b: str, randomness: random.Random
) -> None:
    """Circles, spans that cause themselves and ids that repeat: an answer, and always the same."""
    chain, found = reaches(spans, a, b), edges(spans)
    shuffled = list(spans)
    randomness.shuffle(shuffled)
    assert reaches(shuffled, a, b) == chain
    assert edges(shuffled) == found
    assert len({s.id for s in chain}) == len(chain)
    for before, after in itertools.pairwise(chain):
        assert before.id in after.causes
    if chain:
        assert a in (chain[0].component, chain[0].server)
        assert b in (chain[-1].component, chain[-1].server)
    assert all(edge.count > 0 and edge.from_ != edge.to for edge in found)


@given(anything)
def test_an_edge_between_components_is_a_chain(spans: list[Span]) -> None:
    """Whatever has an edge is reached."""
    for edge in edges(spans):
        assert reaches(spans, edge.from_, edge.to)


@given(anything)
def test_all_chains_at_once_are_the_single_ones(spans: list[Span]) -> None:
    """From each component to every other one and to every server that it reaches."""
    found = chains(spans)
    components = {s.component for s in spans}
    ends = components | {s.server for s in spans if s.server}
    wanted = {(a, b): reaches(spans, a, b) for a in components for b in ends if a != b}
    assert found == {pair: chain for pair, chain in wanted.items() if chain}


def test_a_span_cannot_be_changed() -> None:
    """It is a record."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        span("1").name = "other"  # type: ignore[misc]

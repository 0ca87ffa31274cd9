"""Every span of a lab in one place: received from its processes, and what led to what in them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry import trace as api
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import StatusCode

__all__ = [
    "KERNEL",
    "Edge",
    "Span",
    "SpanCollector",
    "chains",
    "edges",
    "kernel_tracing",
    "reaches",
]

KERNEL = "kernel"
"""The process that the checks run in."""

_KEPT = 50_000
_TRACES = 10_000
_LARGEST = 64 * 1024 * 1024
_KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
_SCOPE = "ssot."
_SERVER = "db.system.name"
_USER = "ssot.user_id"


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work of one component in one process.

    ``id``, ``parent``, ``links`` and ``trace`` are hexadecimal. ``parent`` is empty at the root of
    a trace; the spans of ``parent`` and ``links`` may be in any process. ``start`` and ``end`` are
    Unix seconds. ``error`` is empty when it went well.
    """

    id: str
    trace: str
    name: str
    component: str
    process: str
    start: float
    end: float
    parent: str = ""
    links: tuple[str, ...] = ()
    kind: str = "internal"
    user: str = ""
    error: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def server(self) -> str:
        """The server that this span is a call of, ``postgresql`` or ``redis``; empty for none."""
        return str(self.attributes.get(_SERVER, "")) if self.kind == "client" else ""

    @property
    def causes(self) -> tuple[str, ...]:
        """The ids of the spans that led to this one."""
        return tuple(dict.fromkeys(id_ for id_ in (self.parent, *self.links) if id_))


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """``count`` times a span of ``from_`` led to one of ``to``."""

    from_: str
    to: str
    count: int


class SpanCollector:
    """Receives spans by OTLP/HTTP on 127.0.0.1, in threads of its own; keeps the newest 50,000.

    Safe to use from any thread. A process that is killed takes along the spans that it has not sent
    yet (at most the last 50 ms, with :meth:`variables`), and those that had not ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: deque[Span] = deque(maxlen=_KEPT)
        self._heard: OrderedDict[str, float] = OrderedDict()
        self._malformed = 0
        self._closed = False
        self._server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="span collector",
            daemon=True,
        )
        self._thread.start()

    def __repr__(self) -> str:
        return f"<SpanCollector at {self.endpoint}, {len(self._spans)} spans>"

    def __enter__(self) -> SpanCollector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def malformed(self) -> int:
        """How many requests were refused because they could not be read."""
        return self._malformed

    def close(self) -> None:
        """Stop receiving; what was received can still be read. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def variables(self, process: str, *, traceparent: str = "") -> dict[str, str]:
        """The environment variables that make a child process send its spans here.

        ``process`` is its name in every span. With ``traceparent`` its start is part of that trace.
        """
        found = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": process,
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BSP_MAX_QUEUE_SIZE": "20000",
        }
        return found | ({"TRACEPARENT": traceparent} if traceparent else {})

    def add(self, spans: Iterable[Span]) -> None:
        """Take spans that have ended; nothing once the collector is closed."""
        now = time.monotonic()
        with self._lock:
            if self._closed:
                return
            for span in spans:
                self._spans.append(span)
                self._heard[span.trace] = now
                self._heard.move_to_end(span.trace)
            while len(self._heard) > _TRACES:
                self._heard.popitem(last=False)

    def spans(self, trace: str | None = None, since: float | None = None) -> list[Span]:
        """What has come: of one trace, or begun at ``since`` (Unix seconds) or later; by start."""
        with self._lock:
            kept = list(self._spans)
        found = [
            span
            for span in kept
            if (trace is None or span.trace == trace) and (since is None or span.start >= since)
        ]
        return sorted(found, key=_order)

    def heard(self, trace: str) -> float:
        """When the newest span of this trace came (monotonic seconds); 0 when none has."""
        with self._lock:
            return self._heard.get(trace, 0.0)

    async def settled(self, trace: str, *, quiet: float = 0.15, limit: float = 2.0) -> bool:
        """Wait until no span of this trace has come for ``quiet`` seconds, at most ``limit``.

        Whether it became quiet. A trace that nothing comes of is quiet after ``quiet`` seconds.
        """
        begin = time.monotonic()
        while True:
            with self._lock:
                heard = max(self._heard.get(trace, begin), begin)
            now = time.monotonic()
            if now >= heard + quiet:
                return True
            if now >= begin + limit:
                return False
            await asyncio.sleep(min(heard + quiet, begin + limit) - now)

    def refuse(self) -> None:
        """Count a request that could not be read."""
        with self._lock:
            self._malformed += 1


def kernel_tracing(collector: SpanCollector | None) -> None:
    """Hand the spans of this process to ``collector`` from now on, as process ``kernel``.

    May be called any number of times, for a lab after another: the provider that OpenTelemetry
    allows once in a process is installed by the first call. ``None`` drops them.
    """
    global _current, _handing
    with _installing:
        _current = collector
        if _handing is not None or collector is None:
            return
        _handing = _ToCurrent()
        provider = api.get_tracer_provider()
        if not isinstance(provider, TracerProvider):
            provider = TracerProvider(
                resource=Resource({SERVICE_NAME: KERNEL}), sampler=ALWAYS_ON, shutdown_on_exit=False
            )
            api.set_tracer_provider(provider)
        # Somebody else's provider, if there is one, serves us as well.
        provider.add_span_processor(_handing)


_installing = threading.Lock()
_current: SpanCollector | None = None
_handing: _ToCurrent | None = None


class _ToCurrent(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        collector = _current
        if collector is not None:
            collector.add([_of_this_process(span)])


# What led to what


def edges(spans: Iterable[Span]) -> list[Edge]:
    """How often a span of one component led to a span of another, by parent or link, sorted.

    Across processes too. The call of a server is an edge to that server. Causes that are not among
    the spans do not count.
    """
    known = _by_id(spans)
    found: Counter[tuple[str, str]] = Counter()
    for span in known.values():
        for cause in span.causes:
            before = known.get(cause)
            if before is not None and before.component != span.component:
                found[before.component, span.component] += 1
        if span.server:
            found[span.component, span.server] += 1
    return [Edge(*pair, count) for pair, count in sorted(found.items())]


def reaches(spans: Iterable[Span], a: str, b: str) -> list[Span]:
    """The shortest chain of spans, each led to by the one before it, from ``a`` to ``b``.

    ``a`` and ``b`` are components or servers. Among chains of one length it is the earliest. Empty
    when nothing of ``a`` led to anything of ``b``.
    """
    known = _by_id(spans)
    return _chains(known, _following(known), a).get(b, [])


def chains(spans: Iterable[Span]) -> dict[tuple[str, str], list[Span]]:
    """:func:`reaches`, from every component to every other one and to every server."""
    known = _by_id(spans)
    following = _following(known)
    # A server only answers; what follows from its answer its caller has done.
    starts = {span.component for span in known.values()}
    return {
        (a, b): chain
        for a in sorted(starts)
        for b, chain in sorted(_chains(known, following, a).items())
        if a != b
    }


def _following(known: Mapping[str, Span]) -> dict[str, list[Span]]:
    following: dict[str, list[Span]] = {}
    for span in known.values():
        for cause in span.causes:
            following.setdefault(cause, []).append(span)
    return following


def _chains(
    known: Mapping[str, Span], following: Mapping[str, list[Span]], a: str
) -> dict[str, list[Span]]:
    """The shortest chain from ``a`` to each component and server that it leads to."""
    before: dict[str, Span | None] = {
        span.id: None for span in known.values() if a in (span.component, span.server)
    }
    waiting = deque(known[id_] for id_ in before)
    found: dict[str, list[Span]] = {}
    while waiting:
        span = waiting.popleft()
        for end in (span.component, span.server):
            if end and end not in found:
                found[end] = list(_back(span, before))[::-1]
        for later in following.get(span.id, ()):
            if later.id not in before:
                before[later.id] = span
                waiting.append(later)
    return found


def _back(span: Span | None, before: Mapping[str, Span | None]) -> Iterator[Span]:
    while span is not None:
        yield span
        span = before[span.id]


def _by_id(spans: Iterable[Span]) -> dict[str, Span]:
    """One span for each id, in an order that does not depend on the one they came in."""
    found: dict[str, Span] = {}
    for span in sorted(spans, key=_order):
        found.setdefault(span.id, span)
    return found


def _order(span: Span) -> tuple[object, ...]:
    return (
        span.start, span.end, span.id, span.trace, span.parent, span.links, span.component,
        span.process, span.name, span.kind, span.server,
    )  # fmt: skip


# Reading spans


def _of_this_process(span: ReadableSpan) -> Span:
    context = span.context
    assert context is not None
    status = span.status
    return _span(
        id_=f"{context.span_id:016x}",
        trace=f"{context.trace_id:032x}",
        name=span.name,
        scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
        process=KERNEL,
        start=span.start_time or 0,
        end=span.end_time or 0,
        parent=f"{span.parent.span_id:016x}" if span.parent else "",
        links=tuple(f"{link.context.span_id:016x}" for link in span.links),
        kind=span.kind.name.lower(),
        failed=status.status_code is StatusCode.ERROR,
        error=status.description or "",
        attributes=dict(span.attributes or {}),
    )


def _of_request(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        process = str(_attributes(resource.resource.attributes).get(SERVICE_NAME, ""))
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield _span(
                    id_=span.span_id.hex(),
                    trace=span.trace_id.hex(),
                    name=span.name,
                    scope=scope.scope.name,
                    process=process,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    parent=span.parent_span_id.hex(),
                    links=tuple(link.span_id.hex() for link in span.links),
                    kind=_KINDS[span.kind] if span.kind < len(_KINDS) else "internal",
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    error=span.status.message,
                    attributes=_attributes(span.attributes),
                )


def _span(
    *,
    id_: str,
    trace: str,
    name: str,
    scope: str,
    process: str,
    start: int,
    end: int,
    parent: str,
    links: tuple[str, ...],
    kind: str,
    failed: bool,
    error: str,
    attributes: dict[str, Any],
) -> Span:
    return Span(
        id=id_,
        trace=trace,
        name=name,
        component=scope.removeprefix(_SCOPE),
        process=process,
        start=start / 1e9,
        end=end / 1e9,
        parent=parent,
        links=links,
        kind=kind,
        user=str(attributes.get(_USER, "")),
        error=(error or "failed") if failed else "",
        attributes=attributes,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bool_value", "int_value", "double_value"):
        return getattr(value, kind)
    return str(value).strip() if kind else None


# Receiving


class _Server(ThreadingHTTPServer):
    """Threads of connections that stay open; closing ends them too."""

    daemon_threads = True

    def __init__(self, collector: SpanCollector) -> None:
        self.collector = collector
        self._open: set[socket.socket] = set()
        self._threads_of: list[threading.Thread] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="span collector, connection",
            daemon=True,
        )
        self._threads_of = [t for t in self._threads_of if t.is_alive()] + [thread]
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._open):
            # It may have ended by itself at this very moment.
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads_of:
            thread.join(1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A process that is killed breaks its connection; nobody needs to read of it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        if self.path != "/v1/traces":
            self._answer(HTTPStatus.NOT_FOUND, b"spans are taken at /v1/traces\n")
            return
        try:
            request = ExportTraceServiceRequest.FromString(self._body())
            spans = list(_of_request(request))
        except (DecodeError, ValueError, zlib.error) as error:
            self.server.collector.refuse()
            # What is left of the body cannot be told from another request.
            self.close_connection = True
            self._answer(HTTPStatus.BAD_REQUEST, f"no spans in protobuf: {error}\n".encode())
            return
        self.server.collector.add(spans)
        self._answer(HTTPStatus.OK, ExportTraceServiceResponse().SerializeToString())

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length", ""))
        if not 0 <= length <= _LARGEST:
            raise ValueError(f"a body of {length} bytes; at most {_LARGEST} are taken")
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError("the sender was killed while it sent")
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if encoding == "identity":
            return body
        if encoding not in ("gzip", "deflate"):
            raise ValueError(f"encoding {encoding!r}; gzip is taken")
        # 32: whichever of the two headers it has.
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        plain = unpacking.decompress(body, _LARGEST)
        if not unpacking.eof:
            raise ValueError("a packed body that is cut off or too large")
        return plain

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        kind = "application/x-protobuf" if status is HTTPStatus.OK else "text/plain"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Standard error belongs to the notebook."""

"""Spans at the boundaries of the components; they cost next to nothing until somebody exports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Token
from types import TracebackType
from typing import Annotated, Any

import msgspec
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from ssot.errors import SsotError

__all__ = [
    "Spans",
    "Traceparent",
    "apart",
    "continuing",
    "current_trace",
    "installed",
    "mark_failed",
    "span_context",
    "trace_of",
]

Traceparent = Annotated[
    # Not `str`: whatever else a peer writes there is ignored, and never a reason to refuse a frame.
    Any,
    msgspec.Meta(
        description="W3C traceparent of the span that sent this; left out when nobody traces.",
        extra_json_schema={"type": "string", "default": ""},
    ),
]
"""The type of a field that carries a trace."""

_LENGTH = 55
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_LONGEST_ERROR = 500


class Spans:
    """The spans of one component, under the scope ``ssot.<component>``."""

    def __init__(self, component: str) -> None:
        self._tracer = trace.get_tracer(f"ssot.{component}")

    def span(
        self,
        name: str,
        *,
        user: str = "",
        parent: object = None,
        links: Iterable[str] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        server: str = "",
        current: bool = True,
        began: int | None = None,
        **attributes: str | int | bool,
    ) -> AbstractContextManager[Span]:
        """A span, to be entered with ``with``; an error that passes through it is recorded.

        ``parent`` is a W3C traceparent; ``None`` stands for the span that is current here, and
        anything malformed or empty for none at all. ``links`` are traceparents too. ``server``
        makes it the call of a server, ``postgresql`` or ``redis``. Attributes are given without
        their ``ssot.``. ``began`` is Unix time in nanoseconds, if not now. With ``current=False``
        no other span becomes its child by itself: needed where a body is not ours.

        Only the class of a foreign error is recorded: its message may hold anything.
        """
        if parent is None and not installed():
            return _IDLE
        named: dict[str, str | int | bool] = {f"ssot.{key}": v for key, v in attributes.items()}
        if user:
            named["ssot.user_id"] = user
        if server:
            named["db.system.name"] = server
            kind = SpanKind.CLIENT
        return _Opening(self._tracer, name, parent, links, kind, named, current, began)


class _Idle:
    """What a span is while nobody records: nothing, so that one does for all."""

    __slots__ = ()

    def __enter__(self) -> Span:
        return trace.get_current_span()

    def __exit__(self, *_: object) -> None:
        pass


_IDLE = _Idle()


class _Opening:
    """A span before, while and after it is open."""

    __slots__ = (
        "_attributes",
        "_began",
        "_current",
        "_kind",
        "_links",
        "_name",
        "_parent",
        "_span",
        "_token",
        "_tracer",
    )

    def __init__(
        self,
        tracer: trace.Tracer,
        name: str,
        parent: object,
        links: Iterable[str],
        kind: SpanKind,
        attributes: dict[str, str | int | bool],
        current: bool,
        began: int | None,
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._parent = parent
        self._links = links
        self._kind = kind
        self._attributes = attributes
        self._current = current
        self._began = began
        self._span: Span = INVALID_SPAN
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        parent = None if self._parent is None else _context(self._parent)
        links = [Link(found) for link in self._links if (found := span_context(link))]
        self._span = span = self._tracer.start_span(
            self._name,
            context=parent,
            kind=self._kind,
            attributes=self._attributes,
            links=links,
            start_time=self._began,
            record_exception=False,
            set_status_on_exception=False,
        )
        # Without a provider the span is its own parent, which is current already.
        if self._current and (parent is not None or span is not INVALID_SPAN):
            self._token = contexts.attach(trace.set_span_in_context(span))
        return span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A coroutine that is closed by the garbage collector ends in a context that is not its own.
        if self._token is not None and kind is not GeneratorExit:
            contexts.detach(self._token)
        if error is not None:
            mark_failed(self._span, error)
        self._span.end()


def mark_failed(span: Span, error: BaseException | str) -> None:
    """Record an error: its class, and its message only where the message is this platform's own."""
    if not span.is_recording():
        return
    if isinstance(error, str):
        text = error
    else:
        # `_PoolExhausted` is known to callers as LimitExceeded.
        kind = next(c.__name__ for c in type(error).__mro__ if not c.__name__.startswith("_"))
        span.set_attribute("error.type", kind)
        text = f"{kind}: {error}" if isinstance(error, SsotError) else kind
    span.set_status(Status(StatusCode.ERROR, text[:_LONGEST_ERROR]))


@contextmanager
def continuing(traceparent: object) -> Iterator[None]:
    """Within it, spans are children of this one, which may be another process's or ended already.

    Nothing changes when it is empty or malformed.
    """
    found = span_context(traceparent)
    if found is None:
        yield
        return
    token = contexts.attach(trace.set_span_in_context(NonRecordingSpan(found)))
    try:
        yield
    finally:
        contexts.detach(token)


@contextmanager
def apart() -> Iterator[None]:
    """Within it, no span is current: for starting what outlives the span that started it.

    A task inherits the current span of its creator; a server or a background task would give it
    to everything that it does for others later.
    """
    token = contexts.attach(Context())
    try:
        yield
    finally:
        contexts.detach(token)


def current_trace() -> str:
    """The current span as a W3C traceparent; empty when there is none."""
    return trace_of(trace.get_current_span())


def trace_of(span: Span) -> str:
    """A span as a W3C traceparent; empty when nobody traces."""
    found = span.get_span_context()
    if not found.is_valid:
        return ""
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def span_context(traceparent: object) -> SpanContext | None:
    """The span that a W3C traceparent names; ``None`` for whatever is none, however it is wrong."""
    if not isinstance(traceparent, str) or len(traceparent) < _LENGTH:
        return None
    match = _TRACEPARENT.match(traceparent)
    if match is None or match[1] == "ff":
        return None
    # Version 00 ends here; a later one may go on behind a dash.
    if len(traceparent) > _LENGTH and (match[1] == "00" or traceparent[_LENGTH] != "-"):
        return None
    found = SpanContext(
        trace_id=int(match[2], 16),
        span_id=int(match[3], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(match[4], 16)),
    )
    return found if found.is_valid else None


def installed() -> bool:
    """Whether a tracer provider is installed; for where even an idle span costs too much."""
    global _installed
    if not _installed:
        # A provider cannot be taken away again.
        _installed = type(trace.get_tracer_provider()) is not ProxyTracerProvider
    return _installed


_installed = False


def _context(traceparent: object) -> Context:
    found = span_context(traceparent)
    return trace.set_span_in_context(NonRecordingSpan(found), Context()) if found else Context()

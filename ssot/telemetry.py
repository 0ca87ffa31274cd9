"""Export of a process's spans, by the standard OTLP variables; nothing is loaded without them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from opentelemetry import trace

from ssot.environment import mask_url
from ssot.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

__all__ = ["FLUSH", "open_telemetry"]

_log = logging.getLogger(__name__)

FLUSH = 1.0
"""Seconds that the end of a process waits for its last spans to be taken."""

_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_ALL = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_BATCH = {
    "OTEL_BSP_MAX_QUEUE_SIZE": "max_queue_size",
    "OTEL_BSP_SCHEDULE_DELAY": "schedule_delay_millis",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "max_export_batch_size",
}

# What they say of a receiver that does not answer, they say for every batch; we say it once.
_TALKATIVE = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")


@contextmanager
def open_telemetry(
    process: Mapping[str, str], service: str, *, redact: Callable[[str], str]
) -> Iterator[None]:
    """Export the spans of this process until the block is left.

    Does nothing unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` is
    set (and neither ``OTEL_SDK_DISABLED=true`` nor ``OTEL_TRACES_EXPORTER=none``). The process is
    named ``ssot-<service>``, unless ``OTEL_SERVICE_NAME`` names it. Every text passes ``redact``
    before it is sent. The variables are those of the process: the SDK reads some of them itself.
    Raises :class:`SettingsError` for variables that cannot be used.

    Leaving waits at most :data:`FLUSH` seconds for the last spans, whatever ended the block. A
    receiver that is away, slow or refuses costs the process nothing and its log one warning;
    spans are dropped meanwhile. What was not exported before a SIGKILL is lost.
    """
    endpoint = _endpoint(process)
    if endpoint is None:
        yield
        return
    # Imported here: a process that exports nothing does not pay for it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ours = Resource.create({SERVICE_NAME: f"ssot-{service}"})
    provider = TracerProvider(
        # What the variables say of the process is stronger than our name for it.
        resource=ours.merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    exporter = _Exporter(OTLPSpanExporter(endpoint=endpoint), redact=redact, endpoint=endpoint)
    try:
        processor = BatchSpanProcessor(cast("SpanExporter", exporter), **_batch(process))
    except ValueError as error:
        raise SettingsError([f"the OTEL_BSP_ variables: {error}"]) from None
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # In a thread, because the SDK itself waits without a bound that we could give it.
        flushing = threading.Thread(target=provider.shutdown, name="flush spans", daemon=True)
        flushing.start()
        flushing.join(FLUSH)


class _Exporter:
    """An exporter that masks secrets, and complains once of a receiver that takes nothing."""

    def __init__(
        self, exporter: SpanExporter, *, redact: Callable[[str], str], endpoint: str
    ) -> None:
        self._exporter = exporter
        self._redact = redact
        self._endpoint = endpoint
        self._complained = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called by the SDK's own thread."""
        result = self._exporter.export([self._clean(span) for span in spans])
        if result.name != "SUCCESS" and not self._complained:
            self._complained = True
            _log.warning(
                "spans are not taken at %s and are dropped while it lasts; this is said once",
                mask_url(self._endpoint),
            )
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()

    def _clean(self, span: ReadableSpan) -> ReadableSpan:
        status, attributes = span.status, dict(span.attributes or {})
        texts = [value for value in attributes.values() if isinstance(value, str)]
        everything = "\n".join((*texts, status.description or ""))
        # One look at all of it: hardly any span holds a secret, and making another costs more.
        if self._redact(everything) == everything:
            return span
        from opentelemetry.sdk.trace import ReadableSpan

        for key, value in attributes.items():
            if isinstance(value, str):
                attributes[key] = self._redact(value)
        return ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=attributes,
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=trace.Status(status.status_code, self._redact(status.description or "") or None),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )


def _endpoint(settings: Mapping[str, str]) -> str | None:
    """Where spans go; ``None``: nowhere."""
    name = next((name for name in (_TRACES, _ALL) if settings.get(name)), None)
    if (
        name is None
        or settings.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or settings.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    ):
        return None
    url = settings[name].strip()
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        # The value may hold a password, and what is malformed cannot be masked for certain.
        raise SettingsError(
            [f"{name} must be http://host:port or https://host:port, to send spans to; unset: none"]
        )
    protocol = next((settings[n] for n in _PROTOCOLS if settings.get(n)), _PROTOCOL).strip()
    if protocol != _PROTOCOL:
        raise SettingsError(
            [f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; spans are sent by {_PROTOCOL} only"]
        )
    # Of the two variables, the general one holds a base and the other the very address.
    return url if name == _TRACES else f"{url.rstrip('/')}/v1/traces"


def _batch(settings: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    problems = []
    for name, argument in _BATCH.items():
        if value := settings.get(name):
            if value.isascii() and value.isdigit() and int(value) > 0:
                found[argument] = int(value)
            else:
                problems.append(f"{name} must be a whole number above 0, not {value[:20]!r}")
    if problems:
        raise SettingsError(problems)
    return found

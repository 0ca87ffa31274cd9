"""What is measured while a check runs: from the first reading of the counters to its evidence."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from contextvars import Token
from pathlib import Path
from typing import Any

from opentelemetry import context, propagate, trace

from ssot.lab.counters import Counters, Reading
from ssot.lab.evidence import SCENE, CheckEvidence, Evidence, Failure
from ssot.lab.faults.log import FaultLog
from ssot.lab.kernel_log import Told
from ssot.lab.leaks import LeakGuard, Mark
from ssot.lab.observations import COMPONENTS, Observations
from ssot.lab.services import Services
from ssot.lab.spans import SpanCollector, kernel_tracing
from ssot.lab.timeline import Timeline

__all__ = ["Watch"]

_tracer = trace.get_tracer("ssot.lab")

_MOCKS = ("unittest.mock", "fakeredis", "pytest_mock")

Traffic = Callable[[], list[dict[str, Any]]]


class Watch:
    """Watches one check after another, from the outside, and keeps the evidence of each.

    A check is the root of a trace: whatever it causes, in any process, carries that trace's id.
    """

    def __init__(
        self, notebook: str, *, timeline: Timeline, faults: FaultLog, redact: Callable[[str], str]
    ) -> None:
        self.names: dict[str, str] = {}
        self.collector = SpanCollector()
        self.observations = Observations(_namespace)
        self.evidence = Evidence(
            notebook, collector=self.collector, redact=redact, names=self.names
        )
        self.began = time.monotonic()
        self.current: CheckEvidence | None = None
        self._timeline = timeline
        self._faults = faults
        self._traffic: Traffic = list
        self._traffic_before: Mapping[tuple[str, str], dict[str, Any]] = {}
        self._counters: Counters | None = None
        self._guard: LeakGuard | None = None
        self._mark: Mark | None = None
        self._reading = Reading()
        self._token: Token[context.Context] | None = None
        self._span: trace.Span = trace.INVALID_SPAN

    def open(self, folder: Path, stack: AsyncExitStack) -> None:
        """Begin to receive spans, and make temporary files in ``folder``; ``stack`` undoes it."""
        stack.callback(self.collector.close)
        kernel_tracing(self.collector)
        stack.enter_context(_temporary_files(folder))
        self._folder = folder

    def variables(self, process: str) -> dict[str, str]:
        """What makes a process of this name tell its spans, the first as part of this check."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return self.collector.variables(process, traceparent=carrier.get("traceparent", ""))

    async def connect(
        self,
        services: Services,
        database: str,
        stack: AsyncExitStack,
        *,
        traffic: Traffic,
        own_ports: Callable[[], tuple[set[int], set[int]]],
        own_children: Callable[[], Iterable[int]],
    ) -> None:
        """Begin to read the servers' counters.

        ``traffic`` tells what has passed each link; ports and children of the lab's own are no
        leaks.
        """
        self._traffic = traffic
        self._counters = counters = Counters(services, database)
        stack.push_async_callback(counters.aclose)
        self._guard = LeakGuard(
            temporary=self._folder,
            own_ports=own_ports,
            own_children=own_children,
            read=counters.read,
        )
        self.evidence.servers = {**await counters.versions(), "kind": services.kind}

    async def begin(self, check_id: str, title: str) -> None:
        """A check begins: everything from here on is its own."""
        assert self._counters is not None
        assert self._guard is not None
        self._leave_span()
        self.observations.clear()
        self._reading = await self._counters.read()
        self._traffic_before = _by_link(self._traffic())
        self._mark = await self._guard.mark(self._reading)
        self._span = _tracer.start_span("check", context=context.Context())
        self._token = context.attach(trace.set_span_in_context(self._span))
        self.began = time.monotonic()
        self.current = CheckEvidence(
            id=check_id,
            title=title,
            began=time.time(),
            start=self.began,
            trace=f"{self._span.get_span_context().trace_id:032x}",
        )
        self.evidence.begin(self.current)
        self._timeline.record("lab", f"{check_id} begins")

    def body_ended(self) -> None:
        """The act and its assertions are over; what follows is clean-up."""
        if self.current is not None and not self.current.ended:
            self.current.seconds = time.monotonic() - self.began
            self.current.ended = True

    async def left_behind(self) -> list[str]:
        """What the check left, now that everything of the lab's is closed; settles first."""
        assert self._guard is not None
        assert self._mark is not None
        self._leave_span()
        left = await self._guard.left(self._mark)
        if self.current is not None:
            self.current.leaks = left
        return left

    async def settled(self) -> None:
        """Return when the spans of a failed check have come, or after a moment."""
        if self.current is not None:
            await self.collector.settled(self.current.trace, limit=0.6)

    @contextlib.contextmanager
    def scene(self) -> Iterator[None]:
        """What is done here sets the scene of a check: its spans are no interplay of the check."""
        with _tracer.start_as_current_span(SCENE):
            yield

    def expected(self, error: Exception, holder: object) -> None:
        """An error was expected, and was raised and caught."""
        self.observations.caught(error, holder)
        self._timeline.record("lab", f"expected: {error}")
        if self.current is not None:
            self.current.errors.append((type(error).__name__, str(error)))

    def warned(self, told: Told) -> None:
        """Warnings or errors were expected in the kernel's log, and were logged."""
        for line in told.lines:
            head, _, text = line.partition(": ")
            level, _, logger = head.partition(" ")
            component = logger.removeprefix("ssot.").partition(".")[0]
            self.observations.saw({component} & {*COMPONENTS}, [told, told.lines, line, text])
            self._timeline.record("lab", f"expected in the log: {line}")
            if self.current is not None:
                self.current.errors.append((f"logged {level.lower()}", text))

    def heard(self, user: str, message: str | bytes) -> None:
        """A message came over a bare connection: an event, an error, or something else."""
        frame = json.loads(message)
        is_event = frame.get("type") == "event"
        # Only an event comes from behind the node.
        came_from = {"websocket", "agents", "streams"} if is_event else {"websocket"}
        self.observations.saw(came_from, message)
        if is_event:
            self.received(user, 1)
        elif frame.get("type") == "error" and self.current is not None:
            self.current.errors.append(("error frame", str(frame.get("reason"))))

    def received(self, user: str, events: int) -> None:
        """A real client of this user has received so many events over its socket."""
        if self.current is not None and events:
            self.current.events[user] += events

    async def ended(self, verdict: str, *, failure: Failure | None) -> None:
        """The check has its verdict: read everything again, and write the evidence."""
        check = self.current
        if check is None:
            return
        assert self._counters is not None
        self.body_ended()
        self._leave_span()
        check.verdict = verdict
        check.failure = failure
        check.asserted = self.observations.asserted()
        check.served = self._counters.served(self._reading, await self._counters.read())
        check.links = [
            {**link, **{name: link[name] - before.get(name, 0) for name in ("bytes", "frames")}}
            for link in self._traffic()
            for before in [self._traffic_before.get((link["from"], link["to"]), {})]
        ]
        check.links = [link for link in check.links if link["bytes"]]
        check.mocks = sorted(name for name in sys.modules if name.startswith(_MOCKS))
        check.timeline = self._timeline.since(self.began)
        check.faults = [
            {
                "what": fault.what,
                "target": fault.target,
                "begin": round(fault.begin - check.start, 4),
                "end": None if fault.end is None else round(fault.end - check.start, 4),
            }
            for fault in self._faults.since(check.start)
        ]
        self.evidence.write()

    def _leave_span(self) -> None:
        token, self._token = self._token, None
        # In another context (of a cell that was interrupted) there is nothing to be undone.
        if token is not None and trace.get_current_span() is self._span:
            context.detach(token)
        self._span.end()
        self._span = trace.INVALID_SPAN


def _by_link(traffic: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(link["from"], link["to"]): link for link in traffic}


def _namespace() -> Mapping[str, Any]:
    """The names of the notebook."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return shell.user_ns if shell is not None else {}


@contextlib.contextmanager
def _temporary_files(folder: Path) -> Iterator[None]:
    """Make temporary files in ``folder``, so that one left behind has an owner."""
    folder.mkdir(mode=0o700, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before

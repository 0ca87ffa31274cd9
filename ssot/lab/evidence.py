"""The evidence of each check: what it really touched, measured while it ran.

Written beside the executed notebook, never into it: the notebook's output is compared.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ssot.lab.counters import Served
from ssot.lab.files import write_atomically
from ssot.lab.observations import COMPONENTS, Asserted
from ssot.lab.spans import Span, SpanCollector, chains, edges
from ssot.lab.timeline import Entry

__all__ = [
    "EVIDENCE_VERSION",
    "PATH_VARIABLE",
    "SCENE",
    "CheckEvidence",
    "Evidence",
    "Failure",
    "values_of",
    "without_scenes",
]

EVIDENCE_VERSION = 1
"""Version of the file; readers refuse any other."""

PATH_VARIABLE = "SSOT_LAB_EVIDENCE"
"""The variable that tells the kernel where to write the evidence; without it, it is not written."""

SCENE = "scene"
"""The name of a span below which the scene of a check is set, such as a user that it needs."""

_SPANS = 3000
_ENTRIES = 2000
# Made by us, many, and never of what somebody typed.
_NEVER_SECRET = frozenset({"id", "parent", "links", "trace", "component", "process"})


@dataclass(slots=True)
class Failure:
    """What an engineer needs of a check that did not pass."""

    kind: str
    text: str
    values: list[tuple[str, str]]
    traceback: str
    statistics: list[tuple[str, str, str]]
    logs: list[tuple[str, str]]
    again: str


@dataclass(slots=True)
class CheckEvidence:
    """One run of one check. ``began`` is Unix time, ``start`` the same moment's monotonic time."""

    id: str
    title: str
    began: float
    start: float
    trace: str
    verdict: str = "fail"
    seconds: float = 0.0
    ended: bool = False
    events: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[str, str]] = field(default_factory=list)
    asserted: list[Asserted] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    mocks: list[str] = field(default_factory=list)
    served: dict[str, Served] = field(default_factory=dict)
    links: list[dict[str, Any]] = field(default_factory=list)
    timeline: list[Entry] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    failure: Failure | None = None


class Evidence:
    """The evidence of one notebook's checks, the newest run of each.

    Spans come late, over the network and in batches, so they are joined with a check whenever the
    evidence is asked for: by the trace that began with the check. ``redact`` is applied to
    everything that is written; ``names`` gives each user id the name that the check knows it by.
    """

    def __init__(
        self,
        notebook: str,
        *,
        collector: SpanCollector,
        redact: Callable[[str], str],
        names: Mapping[str, str],
    ) -> None:
        self.notebook = notebook
        self.servers: dict[str, str] = {}
        self._collector = collector
        self._redact = redact
        self._names = names
        self._checks: dict[str, CheckEvidence] = {}
        # Made again only when more spans have come.
        self._made: dict[str, tuple[float | None, dict[str, Any]]] = {}
        path = os.environ.get(PATH_VARIABLE)
        self._path = Path(path) if path else None

    def knows(self, check_id: str) -> bool:
        """Whether a check has run."""
        return check_id in self._checks

    def begin(self, check: CheckEvidence) -> None:
        """A check begins; what is known of an earlier run of it is forgotten."""
        self._checks[check.id] = check
        self._made.pop(check.id, None)

    def spans(self, check: CheckEvidence) -> list[Span]:
        """The spans that the check caused, in any process: those of its trace."""
        return self._collector.spans(trace=check.trace)

    def of(self, check_id: str) -> dict[str, Any]:
        """The evidence of one check as it is written to the file."""
        check = self._checks[check_id]
        heard = self._collector.heard(check.trace)
        made_at, made = self._made.get(check_id, (None, {}))
        if made_at == heard and check.ended:
            return made
        made = {name: self._redacted(each) for name, each in self._describe(check).items()}
        self._made[check_id] = (heard if check.ended else None, made)
        return made

    def _describe(self, check: CheckEvidence) -> dict[str, Any]:
        spans = self.spans(check)
        users = sorted({self._name(span.user) for span in spans if span.user})
        return {
            "title": check.title,
            "verdict": check.verdict,
            "began": check.began,
            "seconds": round(check.seconds, 4),
            "users": users,
            "components": dict(sorted(Counter(span.component for span in spans).items())),
            "processes": dict(sorted(Counter(span.process for span in spans).items())),
            "edges": [
                {"from": edge.from_, "to": edge.to, "count": edge.count} for edge in edges(spans)
            ],
            "chains": {
                f"{a} → {b}": [span.name for span in chain]
                for (a, b), chain in chains(without_scenes(spans)).items()
                if a in COMPONENTS and b in COMPONENTS
            },
            "servers": {
                name: {
                    ("statements" if name == "postgresql" else "commands"): served.count,
                    "by_lab": served.by_lab,
                    "refused": served.refused,
                    "started": served.started,
                    "restarts": served.restarts,
                }
                for name, served in check.served.items()
            },
            "links": check.links,
            "events": dict(check.events),
            "errors": [{"kind": kind, "text": text} for kind, text in check.errors],
            "asserted": [asdict(each) for each in check.asserted],
            "leaks": check.leaks,
            "mocks": check.mocks,
            "spans": [self._span(span, check) for span in spans[:_SPANS]],
            "spans_left_out": max(len(spans) - _SPANS, 0),
            "timeline": [
                {"at": round(entry.at - check.start, 4), "who": entry.who, "what": entry.what}
                for entry in check.timeline[-_ENTRIES:]
            ],
            "faults": check.faults,
            "failure": asdict(check.failure) if check.failure else None,
        }

    def write(self) -> None:
        """Write the file, whole and at once, if a place is given; may raise :class:`OSError`."""
        if self._path is None:
            return
        content = {
            "version": EVIDENCE_VERSION,
            "notebook": self.notebook,
            "servers": self.servers,
            "checks": {check_id: self.of(check_id) for check_id in self._checks},
        }
        write_atomically(self._path, msgspec.json.encode(content))

    def _redacted(self, value: Any) -> Any:
        """Every text by itself: in the whole, what looks like a URL would have no end."""
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, dict):
            return {
                name: each if name in _NEVER_SECRET else self._redacted(each)
                for name, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._redacted(each) for each in value]
        return value

    def _name(self, user_id: str) -> str:
        return self._names.get(user_id, user_id)

    def _span(self, span: Span, check: CheckEvidence) -> dict[str, Any]:
        return {
            "id": span.id,
            "parent": span.parent,
            "links": list(span.links),
            "trace": span.trace,
            "name": span.name,
            "component": span.component,
            "process": span.process,
            "user": self._name(span.user) if span.user else "",
            "server": span.server,
            "start": round(span.start - check.began, 5),
            "end": round(span.end - check.began, 5),
            "error": span.error,
        }


def without_scenes(spans: list[Span]) -> list[Span]:
    """The spans that the check itself caused, not the setting of its scene."""
    below: set[str] = {span.id for span in spans if span.name == SCENE}
    known = {span.id for span in spans}
    while more := {
        span.id for span in spans if span.id not in below and below.intersection(span.causes)
    }:
        below |= more
    return [span for span in spans if span.id in known - below]


def values_of(text: str) -> list[tuple[str, str]]:
    """The operands and values that an assertion's message lists below its expression."""
    found = []
    for line in text.splitlines()[1:]:
        name, equals, value = line.strip().partition(" = ")
        if equals and line.startswith("  "):
            found.append((name.rstrip(), value))
    return found

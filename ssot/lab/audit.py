"""The audit: check by item, each with the evidence that was measured; what is claimed is not asked.

It reads the evidence of a run, the outcomes of a proof and the notebooks themselves.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ssot.lab.digest import digest
from ssot.lab.evidence import EVIDENCE_VERSION
from ssot.lab.notebook import CannotRun, Check, Notebook, Verdict, read, validate_form

__all__ = [
    "EXCUSES",
    "ITEMS",
    "Audit",
    "Finding",
    "Status",
    "audit",
    "find_evidence",
    "find_proof",
    "missing",
]

Status = Literal["yes", "excused", "no"]

EXCUSES: Mapping[str, Mapping[str, str]] = {
    "multi-user": {
        "no user yet": "the check is over before a user could exist",
    },
    "events": {
        "no user yet": "the check is over before a user could exist",
        "no socket": "what it is about is finished before a client connects",
    },
    "error": {
        "nothing may fail": "that nothing fails is what it claims",
        "a death is silent": "the fault is a process that dies; nobody is left to raise",
    },
}
"""The only reasons for which an item does not apply to a check, by item."""

_EXCUSED_AT_MOST = 4  # one check in so many, for each item


@dataclass(frozen=True, slots=True)
class Finding:
    """One item of one check: whether it holds, and what says so."""

    status: Status
    evidence: str


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that is known of one check."""

    check: Check
    problems: Sequence[str]
    evidence: Mapping[str, Any]
    caught: Sequence[str]
    bvj_of_another: bool


@dataclass(slots=True)
class Audit:
    """Every check with its findings by item; ``problems`` are those of a notebook as a whole."""

    items: tuple[str, ...]
    checks: dict[str, dict[str, Finding]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    notebooks: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every item of every check holds or is excused, within what may be excused."""
        found = [finding for row in self.checks.values() for finding in row.values()]
        return bool(found) and not self.problems and all(each.status != "no" for each in found)

    def as_json(self) -> dict[str, Any]:
        """The audit as data."""
        return {
            "version": 1,
            "passed": self.passed,
            "sources": self.sources,
            "problems": self.problems,
            "excuses": EXCUSES,
            "notebooks": {
                name: [
                    {
                        "id": check_id,
                        "title": self.titles[check_id],
                        "items": {
                            item: {"status": finding.status, "evidence": finding.evidence}
                            for item, finding in self.checks[check_id].items()
                        },
                    }
                    for check_id in check_ids
                ]
                for name, check_ids in self.notebooks.items()
            },
        }


def audit(paths: Sequence[Path], *, outputs: Path, package: Path) -> Audit:
    """Audit the notebooks at ``paths`` with the newest evidence of today's code in ``outputs``.

    Raises :class:`CannotRun` with what is :func:`missing`.
    """
    if lacking := missing(paths, outputs=outputs, package=package):
        raise CannotRun(
            [
                f"{path.stem}: no complete {what} of today's code; run: ssot {command} {path.stem}"
                for path, what in lacking
                for command in ["run" if what == "run" else "prove"]
            ]
        )
    result = Audit(tuple(ITEMS))
    for path in paths:
        notebook = read(path.absolute())
        now = digest([package, notebook.path])
        run, proof = find_evidence(notebook, outputs, now), find_proof(notebook, outputs, now)
        if run is not None and proof is not None:
            result.sources[f"{notebook.path.stem}: run"] = str(run[0])
            result.sources[f"{notebook.path.stem}: proof"] = str(proof[0])
            _audit_one(result, notebook, run[1], proof[1])
    return result


def missing(
    paths: Sequence[Path], *, outputs: Path, package: Path
) -> list[tuple[Path, Literal["run", "proof"]]]:
    """Of which notebooks there is no complete run or proof of the code as it is now.

    Evidence of other code says nothing.
    """
    found: list[tuple[Path, Literal["run", "proof"]]] = []
    for path in paths:
        notebook = read(path.absolute())
        now = digest([package, notebook.path])
        if find_evidence(notebook, outputs, now) is None:
            found.append((path, "run"))
        if find_proof(notebook, outputs, now) is None:
            found.append((path, "proof"))
    return found


def _audit_one(
    result: Audit, notebook: Notebook, evidence: Mapping[str, Any], proof: Mapping[str, Any]
) -> None:
    name = notebook.path.stem
    form = validate_form(notebook.node)
    caught: dict[str, list[str]] = {check.id: [] for check in notebook.checks}
    for defect in proof["defects"]:
        for each in defect["checks"]:
            if defect["outcome"] == "caught" and each["role"] == "caught_by":
                caught.setdefault(each["id"], []).append(defect["id"])
    result.notebooks[name] = [check.id for check in notebook.checks]
    for check in notebook.checks:
        facts = _Facts(
            check,
            [each for each in form if each.startswith(f"cell {check.cell_id}:")],
            evidence["checks"].get(check.id, {}),
            caught[check.id],
            any(other.bvj == check.bvj for other in notebook.checks if other is not check),
        )
        result.titles[check.id] = check.title
        result.checks[check.id] = {item: _judged(item, facts) for item in ITEMS}
    result.problems += [
        f"{name}: {each}" for each in form if not each.startswith(tuple(_cells(notebook)))
    ]
    allowed = len(notebook.checks) // _EXCUSED_AT_MOST
    for item in ITEMS:
        excused = [
            check.id
            for check in notebook.checks
            if result.checks[check.id][item].status == "excused"
        ]
        if len(excused) > allowed:
            result.problems.append(
                f"{name}: {len(excused)} checks are excused from {item!r} "
                f"({', '.join(excused)}); {allowed} of {len(notebook.checks)} may be"
            )


def _cells(notebook: Notebook) -> list[str]:
    return [f"cell {check.cell_id}:" for check in notebook.checks]


def _judged(item: str, facts: _Facts) -> Finding:
    """The finding of one item; an excuse counts only where the item does not hold."""
    holds, text = ITEMS[item](facts)
    if holds:
        return Finding("yes", text)
    reason = dict(facts.check.excused).get(item)
    if reason is None:
        return Finding("no", text)
    known = EXCUSES.get(item, {})
    if reason not in known:
        told = f"there is {', '.join(known)}" if known else "nothing excuses from it"
        return Finding("no", f"{text}; {reason!r} is no excuse from {item!r}: {told}")
    return Finding("excused", f"{reason}: {known[reason]}")


# The items


def _services(facts: _Facts) -> tuple[bool, str]:
    told, moved = [], False
    for name, what in (("postgresql", "statements"), ("redis", "commands")):
        served = facts.evidence.get("servers", {}).get(name, {})
        count, by_lab = served.get(what) or 0, served.get("by_lab") or 0
        refused = served.get("refused") or 0
        # What the lab asked, to set the scene or to look, says nothing of the platform.
        moved = moved or count > by_lab or refused > 0
        if count or refused:
            lab = f", {by_lab} of them the lab's" if by_lab else ""
            logins = f", {refused} login{'s' * (refused != 1)} refused" if refused else ""
            told.append(f"{name} {count} {what}{lab}{logins} (up since {served['started']})")
    frames = sum(link.get("frames", 0) for link in facts.evidence.get("links", ()))
    if frames:
        told.append(f"{frames} WebSocket frames at the proxy")
    if facts.evidence.get("mocks"):
        return False, f"imported: {', '.join(facts.evidence['mocks'])}"
    return moved, "; ".join(told) or "no counter of a server moved"


def _interplay(facts: _Facts) -> tuple[bool, str]:
    if len(facts.check.between) != 2:
        return False, "no line 'Interplay: … → …' names the two components"
    near, far = facts.check.between
    chain = facts.evidence.get("chains", {}).get(f"{near} → {far}")
    asserted = [
        each["expression"]
        for each in facts.evidence.get("asserted", ())
        if each["component"] == far
    ]
    told = " → ".join(chain) if chain else f"no causal chain from {near} to {far}"
    told += f"; of {far} asserted: {asserted[0]}" if asserted else f"; nothing of {far} asserted"
    return bool(chain and asserted), told


def _bvj(facts: _Facts) -> tuple[bool, str]:
    if len(facts.check.bvj) != 4 or not all(facts.check.bvj):
        return False, "its BVJ does not have four parts"
    if facts.bvj_of_another:
        return False, "another check has the same BVJ"
    return True, " | ".join(facts.check.bvj[:2])


def _patterns(facts: _Facts) -> tuple[bool, str]:
    return not facts.problems, "; ".join(facts.problems) or "form, no sleep, no literal port"


def _isolation(facts: _Facts) -> tuple[bool, str]:
    if "leaks" not in facts.evidence:
        return False, "not measured"
    left = facts.evidence["leaks"]
    return not left, "; ".join(left) or (
        "the kernel left no thread, task, process, socket, session, file or variable, "
        "and no process an open transaction"
    )


def _users(facts: _Facts) -> tuple[bool, str]:
    users = facts.evidence.get("users", [])
    shown = ", ".join(users[:3]) + (f" and {len(users) - 3} more" if len(users) > 3 else "")
    return len(users) >= 2, f"in the spans: {shown or 'nobody'}"


def _events(facts: _Facts) -> tuple[bool, str]:
    events = facts.evidence.get("events", {})
    total = sum(events.values())
    return total > 0, f"{total} received by {len(events)} client user(s)" if total else "none"


def _errors(facts: _Facts) -> tuple[bool, str]:
    raised = Counter(each["kind"] for each in facts.evidence.get("errors", ()))
    inside = Counter(
        f"{span['error'].partition(':')[0]} in {span['name']}"
        for span in facts.evidence.get("spans", ())
        if span["error"]
    )
    told = [f"{kind} raised and caught ×{count}" for kind, count in raised.items()]
    told += [f"{kind}, handled ×{count}" for kind, count in inside.most_common(2)]
    return bool(told), "; ".join(told) or "no error was raised"


def _failure(facts: _Facts) -> tuple[bool, str]:
    return bool(facts.caught), ", ".join(facts.caught) or "no defect makes it fail"


ITEMS: Mapping[str, Callable[[_Facts], tuple[bool, str]]] = {
    "services": _services,
    "interplay": _interplay,
    "business": _bvj,
    "patterns": _patterns,
    "isolation": _isolation,
    "multi-user": _users,
    "events": _events,
    "error": _errors,
    "failure mode": _failure,
}
"""What makes a check good; each judges the facts, and says what it saw."""


# Where the evidence is


def find_evidence(
    notebook: Notebook, outputs: Path, now: str
) -> tuple[Path, Mapping[str, Any]] | None:
    """The newest evidence of every check of a notebook, of code with the digest ``now``."""
    name = notebook.path.stem
    for folder in _newest(outputs):
        results = _json(folder / "results.json")
        if results is None or results.get("digests", {}).get(name) != now:
            continue
        evidence = _json(folder / f"{name}.evidence.json")
        if evidence is None or evidence.get("version") != EVIDENCE_VERSION:
            continue
        found = evidence.get("checks", {})
        passed = [
            check.id
            for check in notebook.checks
            if found.get(check.id, {}).get("verdict") == str(Verdict.PASS)
        ]
        if len(passed) == len(notebook.checks):
            return folder / f"{name}.evidence.json", evidence
    return None


def find_proof(
    notebook: Notebook, outputs: Path, now: str
) -> tuple[Path, Mapping[str, Any]] | None:
    """The newest proof with all defects of a notebook, of code with the digest ``now``."""
    name = notebook.path.stem
    for folder in _newest(outputs):
        proof = _json(folder / "proof.json")
        if proof is None or not proof.get("complete") or proof.get("stopped"):
            continue
        if proof.get("notebooks", {}).get(name, {}).get("digest") == now:
            return folder / "proof.json", proof
    return None


def _newest(outputs: Path) -> list[Path]:
    if not outputs.is_dir():
        return []
    folders = [each for each in outputs.iterdir() if each.is_dir() and not each.is_symlink()]
    return sorted(folders, key=lambda each: each.name, reverse=True)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None

"""What a run left behind, read leniently where it may be missing and strictly where it is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ssot.lab.notebook import CannotRun, Verdict

__all__ = ["CheckOfRun", "NotebookOfRun", "Round", "RunOfReport", "State", "read_run"]

State = Literal["pass", "flaky", "unknown", "fail"]
"""A verdict, or flaky: it passed in one round and did not in another."""

_EVIDENCE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Round:
    """One check as it went once; ``evidence`` is empty where none was written."""

    number: int
    verdict: Verdict
    seconds: float
    message: str
    printed: str
    output: str
    parameters: Mapping[str, Any]
    evidence: Mapping[str, Any]
    stale: bool
    """The evidence is of another verdict: it was written before the kernel died."""


@dataclass(slots=True)
class CheckOfRun:
    """One check, and how it went in every round."""

    id: str
    title: str
    bvj: tuple[str, ...]
    why: str
    anchor: str
    rounds: list[Round] = field(default_factory=list)

    @property
    def state(self) -> State:
        """The worst verdict, or flaky."""
        verdicts = {each.verdict for each in self.rounds}
        if Verdict.PASS in verdicts and len(verdicts) > 1:
            return "flaky"
        return _STATES[max(verdicts)]

    @property
    def telling(self) -> Round:
        """The round to look at first: the first of the worst verdict."""
        return max(self.rounds, key=lambda each: (each.verdict, -each.number))


@dataclass(slots=True)
class NotebookOfRun:
    """One notebook with its checks in their order; ``errors`` are failures outside of them."""

    name: str
    rounds: list[int]
    outputs: list[str]
    parameters: Mapping[str, Any]
    seconds: float
    verdict: Verdict
    errors: list[str]
    checks: list[CheckOfRun]
    servers: Mapping[str, Any]


@dataclass(slots=True)
class RunOfReport:
    """A run as the report tells it."""

    id: str
    folder: Path
    stopped: bool
    began: datetime | None
    seconds: float | None
    seed: Any
    seeds: Sequence[Any]
    parameters: Mapping[str, Any]
    notebooks: list[NotebookOfRun]

    @property
    def checks(self) -> Iterator[CheckOfRun]:
        """Every check, in order."""
        return (check for notebook in self.notebooks for check in notebook.checks)

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return max((notebook.verdict for notebook in self.notebooks), default=Verdict.UNKNOWN)

    @property
    def counts(self) -> dict[State, int]:
        """How many checks are in which state."""
        states = [check.state for check in self.checks]
        return {state: states.count(state) for state in ("fail", "flaky", "unknown", "pass")}


_STATES: Mapping[Verdict, State] = {
    Verdict.PASS: "pass",
    Verdict.UNKNOWN: "unknown",
    Verdict.FAIL: "fail",
}


def read_run(folder: Path) -> RunOfReport:
    """Read ``results.json`` of ``folder``, and the evidence beside each executed notebook.

    Missing evidence is none. Raises :class:`CannotRun` with every file that is there and is not
    what it must be.
    """
    problems: list[str] = []
    results = _load(folder / "results.json", problems)
    if results is None and not problems:
        problems.append(f"{folder / 'results.json'} is not there: no run was written to {folder}")
    if results is None:
        raise CannotRun(problems)
    try:
        run = _run(folder, results, problems)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(
            f"{folder / 'results.json'} is not a run's results: {type(error).__name__}: {error}"
        )
        raise CannotRun(problems) from error
    if problems:
        raise CannotRun(problems)
    return run


def _load(path: Path, problems: list[str]) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return None
    if not isinstance(content, dict):
        problems.append(f"{path} is not a JSON object")
        return None
    return content


def _run(folder: Path, results: Mapping[str, Any], problems: list[str]) -> RunOfReport:
    found: dict[str, NotebookOfRun] = {}
    anchors: set[str] = set()
    for source in results["notebooks"]:
        name, number = str(source["name"]), int(source.get("round") or 1)
        evidence, servers = _evidence(folder, str(source["output"]), problems)
        notebook = found.get(name)
        if notebook is None:
            notebook = found[name] = NotebookOfRun(
                name, [], [], source.get("parameters") or {}, 0.0, Verdict.PASS, [], [], servers
            )
        notebook.rounds.append(number)
        notebook.outputs.append(str(source["output"]))
        notebook.seconds += _seconds(source.get("seconds"))
        notebook.verdict = max(notebook.verdict, _verdict(source["verdict"]))
        if source.get("error"):
            prefix = f"round {number}: " if "round" in source else ""
            notebook.errors.append(f"{prefix}{source['error']}")
        known = {check.id: check for check in notebook.checks}
        for given in source["checks"]:
            check_id = str(given["id"])
            check = known.get(check_id)
            if check is None:
                check = known[check_id] = CheckOfRun(
                    check_id,
                    str(given["title"]),
                    tuple(map(str, given.get("bvj") or ())),
                    str(given.get("why") or ""),
                    _anchor(check_id, name, anchors),
                )
                notebook.checks.append(check)
            verdict = _verdict(given["verdict"])
            its = evidence.get(check_id)
            its = its if isinstance(its, dict) else {}
            check.rounds.append(
                Round(
                    number,
                    verdict,
                    _seconds(given.get("seconds")),
                    str(given.get("message") or ""),
                    str(given.get("printed") or ""),
                    str(source["output"]),
                    source.get("parameters") or {},
                    its,
                    bool(its) and its.get("verdict") != str(verdict),
                )
            )
    began = results.get("began")
    return RunOfReport(
        id=str(results["run"]),
        folder=folder,
        stopped=bool(results.get("stopped")),
        began=_when(began) or _when_of_id(str(results["run"])),
        seconds=_seconds(results["seconds"]) if "seconds" in results else None,
        seed=results.get("seed"),
        seeds=results.get("seeds") or (),
        parameters=results.get("parameters") or {},
        notebooks=[*found.values()],
    )


def _evidence(
    folder: Path, output: str, problems: list[str]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the checks and the servers of an evidence file, both empty where there is none."""
    path = folder / f"{Path(output).stem}.evidence.json"
    content = _load(path, problems)
    if content is None:
        return {}, {}
    if content.get("version") != _EVIDENCE_VERSION:
        problems.append(
            f"{path} has version {content.get('version')}, this report reads {_EVIDENCE_VERSION}"
        )
        return {}, {}
    checks, servers = content.get("checks"), content.get("servers")
    if not isinstance(checks, dict):
        problems.append(f"{path} has no object 'checks'")
        checks = {}
    return checks, servers if isinstance(servers, dict) else {}


def _verdict(name: object) -> Verdict:
    return Verdict[str(name).upper()]


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and math.isfinite(value) and value > 0:
        return float(value)
    return 0.0


def _when(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def _when_of_id(run: str) -> datetime | None:
    """A run's id begins with the time when it was made."""
    try:
        return datetime.strptime(run.partition("Z")[0] + "000+0000", "%Y%m%dT%H%M%S%f%z")
    except ValueError:
        return None


def _anchor(check_id: str, notebook: str, taken: set[str]) -> str:
    """A name for links: the check's id, made longer where another check has it."""

    def plain(text: str) -> str:
        return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)

    name = plain(check_id) or "check"
    if name in taken:
        name = plain(f"{notebook}-{check_id}")
    number = 2
    whole = name
    while whole in taken:
        whole = f"{name}-{number}"
        number += 1
    taken.add(whole)
    return whole

"""Proving the checks: each seeded defect, in a copy of the package, must make its checks fail.

A check that cannot fail is worth nothing. A defect is *caught* when every check that it names
fails by an assertion in its own cell, its control passes, and the copy certainly was what ran.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from nbformat import NotebookNode

import ssot
from ssot.lab import runner
from ssot.lab.defects.copies import Copy
from ssot.lab.defects.model import Defect, DoesNotApply, apply
from ssot.lab.digest import digest
from ssot.lab.files import write_atomically
from ssot.lab.notebook import CannotRun, Notebook, Verdict, error_of, nearest, plain, read
from ssot.lab.services import ServiceError, Workspace

__all__ = ["Event", "Outcome", "Proof", "Seen", "Trial", "is_own_assertion", "judge", "prove"]

Outcome = Literal["caught", "missed", "other", "broken", "too coarse", "not applicable", "not run"]
"""What came of a defect. Only ``caught`` counts.

* ``missed``: a check that it names passed
* ``other``: a check that it names did not pass, but not by an assertion of its own
* ``broken``: setup or control did not pass: the defect breaks more than it says
* ``too coarse``: caught, but more than a third of the notebook's checks failed
* ``not applicable``: it does not fit the source, or the copy was not what ran
* ``not run``: the proof was stopped before
"""

Role = Literal["caught_by", "control", "other"]

_LINES, _LENGTH = 8, 1000  # of an error that is kept
_COARSE = 1 / 3
# The frames of a traceback of IPython, without colours; the last one raised.
_FRAME = re.compile(r"^(?:Cell (?P<cell>In\[\d+\])|File (?P<file>.+?):\d+, in )", re.MULTILINE)


@dataclass(slots=True)
class Seen:
    """What was seen of one check with a defect; ``asserted``: it failed by its own assertion."""

    id: str
    role: Role
    verdict: Verdict = Verdict.UNKNOWN
    error: str = "it was not run"
    asserted: bool = False
    seconds: float = 0.0


@dataclass(slots=True)
class Trial:
    """One defect on trial: what came of it by now, and ``reason`` unless it was caught."""

    defect: Defect
    notebook: Notebook
    output: Path
    checks: list[Seen]
    outcome: Outcome = "not run"
    reason: str = ""
    seconds: float = 0.0

    @property
    def caught(self) -> bool:
        """Whether it counts."""
        return self.outcome == "caught"


@dataclass(slots=True)
class Proof:
    """A proof: where its outputs are, and the trials, which fill up while it goes on.

    ``complete``: these are all defects of the notebooks, so that a check which none of them made
    fail is unproven, and the proof has failed. ``package`` is the digest of the package and all
    notebooks, ``digests`` those of the package and one notebook.
    """

    id: str
    folder: Path
    began: datetime
    complete: bool
    notebooks: list[Notebook]
    package: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    undamaged: runner.Run | None = None
    stopped: bool = False
    seconds: float = 0.0

    @property
    def unproven(self) -> list[str]:
        """The checks, in order, that no defect has made fail; none unless ``complete``."""
        if not self.complete:
            return []
        proven = {each.id for trial in self.trials for each in trial.checks if _proves(trial, each)}
        return [
            check.id
            for notebook in self.notebooks
            for check in notebook.checks
            if check.id not in proven
        ]

    @property
    def verdict(self) -> Verdict:
        """Pass when every defect was caught and nothing is unproven."""
        good = all(trial.caught for trial in self.trials) and not self.unproven
        return Verdict.PASS if good and not self.stopped else Verdict.FAIL


@dataclass(frozen=True, slots=True)
class Event:
    """The undamaged package, or one defect (``trial``), began (``begun``) or ended."""

    trial: Trial | None
    begun: bool


def prove(
    defects: Sequence[Defect],
    *,
    notebooks: Sequence[Path],
    outputs: Path,
    jobs: int,
    whole: bool = False,
    complete: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Proof:
    """Try ``defects``, at most ``jobs`` at a time, and return what came of them, in their order.

    First the checks that are named run on an undamaged copy, and must pass; all checks, when it is
    to be ``complete``. With ``whole`` each defect
    is tried on its whole notebook, and not only on the checks it names. The results are in a new
    folder of ``outputs``, to which ``proven`` then points; ``proof.json`` is written whole after
    every defect. ``on_event`` is called in the calling thread. Once ``stop`` is set, or when
    ``on_event`` raises, the kernels are killed and what was proven is kept.

    Raises :class:`~ssot.lab.notebook.CannotRun` when a defect names no check of the notebooks,
    nothing can be written, or a check fails without any defect.
    """
    stop = stop or threading.Event()
    found = [read(path.absolute()) for path in notebooks]
    planned = _plan(defects, found)
    used = [each for each in found if complete or any(each is other for _, other in planned)]
    proof = _prepare(outputs, used, complete)
    began = perf_counter()
    try:
        with Workspace.open("proof") as workspace:
            source = Copy.of_package(Path(ssot.__file__).parent, workspace.root / "source")
            code = source.folder / "ssot"
            proof.package = digest([code, *(each.path for each in used)])
            proof.digests = {each.path.stem: digest([code, each.path]) for each in used}
            proof.trials = [_trial(proof, each, notebook, whole) for each, notebook in planned]
            on_event(Event(None, begun=True))
            proof.undamaged = _run_undamaged(proof, source, workspace, jobs, stop)
            if not stop.is_set():
                on_event(Event(None, begun=False))
                runner.point_to(proof.folder, outputs.absolute() / "proven")
            _write(proof)
            for event in _events(proof, source, workspace, jobs, whole, stop):
                proof.seconds = perf_counter() - began
                _write(proof)
                on_event(event)
    except ServiceError as error:
        raise CannotRun([str(error)]) from error
    except OSError as error:
        raise CannotRun([f"outputs can no longer be written: {error}"]) from error
    finally:
        proof.stopped = stop.is_set()
        proof.seconds = perf_counter() - began
        _write(proof)
    return proof


def judge(
    checks: Sequence[Seen], *, error: str, doubts: Sequence[str], whole: bool = False
) -> tuple[Outcome, str]:
    """Return what came of a defect, and why unless it was caught.

    ``error`` is what failed outside of the checks, the setup first of all; ``doubts`` are reasons
    to think that the copy was not what ran.
    """
    named = [each for each in checks if each.role == "caught_by"]
    controls = [each for each in checks if each.role == "control"]
    died = any(each.verdict is Verdict.FAIL and not each.asserted for each in named)
    if doubts:
        return "not applicable", "; ".join(doubts)
    if error and not died:
        return "broken", error
    # A control may not have been run because a named check ended the kernel before.
    wrong = [] if error else [each for each in controls if each.verdict]
    if wrong:
        return "broken", "; ".join(f"control {each.id}: {each.error}" for each in wrong)
    if passed := [each.id for each in named if each.verdict is Verdict.PASS]:
        return "missed", f"{', '.join(passed)} passed"
    if wrong := [each for each in named if not each.asserted]:
        told = "; ".join(f"{each.id}: {each.error}" for each in wrong)
        return "other", f"not by an assertion of the check: {told}"
    failed = [each.id for each in checks if each.verdict]
    if whole and len(failed) > len(checks) * _COARSE:
        return "too coarse", f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
    return "caught", ""


def is_own_assertion(error: NotebookNode | None) -> bool:
    """Whether a cell's error is an assertion of the cell, or of what it waited or looked with.

    An assertion inside the product is none, nor is a deadline, a warning, or a kernel that died.
    """
    if error is None or error.ename != "AssertionError":
        return False
    frames = [*_FRAME.finditer(plain("\n".join(error.traceback)))]
    if not frames:
        return False
    raised = frames[-1]
    if raised["cell"]:
        return True
    # What the lab says of the product has words; an invariant of its own has none.
    return "/ssot/lab/" in Path(raised["file"]).as_posix() and bool(error.evalue.strip())


def _proves(trial: Trial, seen: Seen) -> bool:
    return trial.caught and seen.role == "caught_by" and seen.asserted


# Preparing


def _plan(
    defects: Sequence[Defect], notebooks: Sequence[Notebook]
) -> list[tuple[Defect, Notebook]]:
    """Return each defect with the notebook of its checks."""
    problems = []
    planned: list[tuple[Defect, Notebook]] = []
    if not defects:
        problems.append("no defect of these notebooks")
    known = {check.id for notebook in notebooks for check in notebook.checks}
    for defect in defects:
        wanted = (*defect.caught_by, *defect.control)
        lost = [name for name in wanted if name not in known]
        problems += [f"defect {defect.id}: no check {each}{nearest(each, known)}" for each in lost]
        for notebook in notebooks:
            if {*wanted} <= {check.id for check in notebook.checks}:
                planned.append((defect, notebook))
                break
        else:
            if not lost:
                problems.append(f"defect {defect.id}: its checks are in several notebooks")
    if problems:
        raise CannotRun(problems)
    return planned


def _prepare(outputs: Path, notebooks: list[Notebook], complete: bool) -> Proof:
    name = runner.new_run_id()
    proof = Proof(name, outputs.absolute() / name, datetime.now(UTC), complete, notebooks)
    try:
        proof.folder.mkdir(parents=True)
        _write(proof)
    except OSError as error:
        raise CannotRun([f"outputs cannot be written to {outputs}: {error}"]) from error
    return proof


def _trial(proof: Proof, defect: Defect, notebook: Notebook, whole: bool) -> Trial:
    seen = []
    for check in notebook.checks:
        role: Role = "other"
        if check.id in defect.caught_by:
            role = "caught_by"
        elif check.id in defect.control:
            role = "control"
        if whole or role != "other":
            seen.append(Seen(check.id, role))
    return Trial(defect, notebook, proof.folder / defect.id, seen)


# Running


def _run_undamaged(
    proof: Proof, source: Copy, workspace: Workspace, jobs: int, stop: threading.Event
) -> runner.Run:
    """Run the notebooks as they are; whatever does not pass is no work of a defect.

    Whole when all is to be proven; for some of the defects, only the checks that they name.
    """
    named = {seen.id for trial in proof.trials for seen in trial.checks}
    copy = source.again(workspace.root / "undamaged")
    with copy.watch() as observer:
        run = runner.run(
            [notebook.path for notebook in proof.notebooks],
            parameters={},
            outputs=proof.folder,
            folder=proof.folder / "undamaged",
            jobs=jobs,
            only=() if proof.complete else named,
            environment=_environment(copy, workspace),
            stop=stop,
        )
    if run.stopped:
        return run
    problems = [
        f"{notebook.name}: without any defect, {what}"
        for notebook in run.notebooks
        for what in (
            *filter(None, [notebook.error]),
            *(f"{c.check.id}: {_brief(c.message)}" for c in notebook.checks.values() if c.verdict),
        )
    ]
    problems += observer.doubts(finished=not problems)
    copy.remove()
    if problems:
        raise CannotRun([*problems, f"nothing can be proven; outputs: {run.folder}"])
    return run


def _environment(copy: Copy, workspace: Workspace) -> dict[str, str]:
    # The mark: a kernel ends with the workspace, however this process ends.
    return {**copy.environment(os.environ), **workspace.mark}


def _events(
    proof: Proof,
    source: Copy,
    workspace: Workspace,
    jobs: int,
    whole: bool,
    stop: threading.Event,
) -> Iterable[Event]:
    """Try the defects side by side; yield what happened, for the calling thread to tell."""
    events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()

    def work(trial: Trial) -> None:
        try:
            if stop.is_set():
                return
            events.put(Event(trial, begun=True))
            _try(trial, source, workspace, whole, stop)
        except BaseException as error:  # told by the thread that waits
            events.put(error)
        finally:
            events.put(Event(trial, begun=False))

    left = len(proof.trials)
    with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="defect") as pool:
        try:
            for trial in proof.trials:
                pool.submit(work, trial)
            while left:
                event = events.get()
                if isinstance(event, BaseException):
                    raise event
                left -= not event.begun
                if event.begun or not stop.is_set():
                    yield event
        except BaseException:
            stop.set()
            raise


def _try(
    trial: Trial, source: Copy, workspace: Workspace, whole: bool, stop: threading.Event
) -> None:
    """Run the checks of one defect on a copy that has it, and judge what came of it."""
    begin = perf_counter()
    defect = trial.defect
    copy = source.again(workspace.root / defect.id)
    try:
        diff = apply(defect, copy.folder)
        edited = [edit.file for edit in defect.edits]
        with copy.watch(edited) as observer:
            run = runner.run(
                [trial.notebook.path],
                parameters={},
                outputs=trial.output.parent,
                folder=trial.output,
                jobs=1,
                only=() if whole else [each.id for each in trial.checks],
                environment=_environment(copy, workspace),
                stop=stop,
            )
        (trial.output / "defect.patch").write_text(diff, encoding="utf-8")
        if run.stopped:
            return
        (result,) = run.notebooks
        _see(trial, result)
        doubts = observer.doubts(finished=not result.error)
        trial.outcome, trial.reason = judge(
            trial.checks, error=result.error, doubts=doubts, whole=whole
        )
    except DoesNotApply as error:
        trial.outcome, trial.reason = "not applicable", str(error)
    finally:
        copy.remove()
        trial.seconds = perf_counter() - begin


def _see(trial: Trial, result: runner.NotebookResult) -> None:
    """Put what the executed notebook shows into the trial."""
    cells: Mapping[str, NotebookNode] = {}
    with contextlib.suppress(CannotRun):
        cells = {cell.id: cell for cell in read(result.output).node.cells}
    for seen in trial.checks:
        found = result.checks[seen.id]
        cell = cells.get(found.check.cell_id)
        seen.verdict, seen.seconds = found.verdict, found.seconds
        seen.error = _brief(found.message)
        seen.asserted = found.verdict is Verdict.FAIL and is_own_assertion(
            error_of(cell.outputs) if cell else None
        )


def _brief(message: str) -> str:
    lines = message.strip().splitlines()
    text = "\n".join(lines[:_LINES] + ["…"] * (len(lines) > _LINES))
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"


# What is written


def _write(proof: Proof) -> None:
    text = json.dumps(_content(proof), indent=1, ensure_ascii=False) + "\n"
    try:
        write_atomically(proof.folder / "proof.json", text.encode())
    except OSError as error:
        why = error.strerror or str(error)
        raise CannotRun([f"outputs cannot be written to {proof.folder}: {why}"]) from error


def _content(proof: Proof) -> dict[str, Any]:
    undamaged = {each.name: each for each in proof.undamaged.notebooks} if proof.undamaged else {}
    return {
        "version": 1,
        "run": proof.id,
        "began": proof.began.isoformat(timespec="milliseconds"),
        "package": proof.package,
        "complete": proof.complete,
        "stopped": proof.stopped,
        "seconds": round(proof.seconds, 3),
        "notebooks": {
            notebook.path.stem: {
                "path": str(notebook.path),
                "digest": proof.digests.get(notebook.path.stem, ""),
                "checks": [check.id for check in notebook.checks],
                "undamaged": str(undamaged[notebook.path.stem].verdict) if undamaged else "unknown",
                "output": "undamaged",
            }
            for notebook in proof.notebooks
        },
        "defects": [
            {
                "id": trial.defect.id,
                "title": trial.defect.title,
                "symptom": trial.defect.symptom,
                "notebook": trial.notebook.path.stem,
                "outcome": trial.outcome,
                "reason": trial.reason,
                "incidents": [*trial.defect.incidents],
                "checks": [
                    {
                        "id": seen.id,
                        "role": seen.role,
                        "verdict": str(seen.verdict),
                        "error": seen.error,
                        "asserted": seen.asserted,
                        "seconds": round(seen.seconds, 3),
                    }
                    for seen in trial.checks
                ],
                "seconds": round(trial.seconds, 3),
                "output": trial.output.name,
            }
            for trial in proof.trials
        ],
        "unproven": proof.unproven,
        "verdict": str(proof.verdict),
    }

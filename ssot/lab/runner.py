"""The runner: executes notebooks side by side and keeps the result of every check as it ends.

A run writes into a folder of its own, ``outputs/<run>/``: the executed notebooks, ``results.json``
(complete from the start, rewritten whole after every check) and ``junit.xml``; ``outputs/latest``
points to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import secrets
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from xml.etree import ElementTree as ET

import nbclient.exceptions
import papermill

from ssot.errors import SettingsError
from ssot.lab.execution import execute
from ssot.lab.notebook import (
    CannotRun,
    Check,
    Notebook,
    Outcome,
    Verdict,
    nearest,
    read,
    validate_parameters,
)
from ssot.lab.parameters import COMMON, check_parameters
from ssot.lab.progress import Finished, Started, Stopped

__all__ = ["CheckResult", "Event", "NotebookResult", "Run", "run"]

_NOT_RUN = "it was not run"
_SECRET = re.compile(r"password|secret|token|key", re.IGNORECASE)
# what XML 1.0 cannot hold
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True)
class CheckResult:
    """What is known of one check by now: unknown until it has run."""

    check: Check
    verdict: Verdict = Verdict.UNKNOWN
    seconds: float = 0.0
    message: str = _NOT_RUN
    printed: str = ""


@dataclass(slots=True)
class NotebookResult:
    """What is known of one notebook by now; ``error`` is a failure outside of its checks."""

    notebook: Notebook
    output: Path
    parameters: Mapping[str, object]
    checks: dict[str, CheckResult]
    seconds: float = 0.0
    error: str = ""

    @property
    def name(self) -> str:
        """The stem of the notebook's file."""
        return self.notebook.path.stem

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of its checks, or fail when it failed outside of them."""
        own = Verdict.FAIL if self.error else Verdict.PASS
        return max((own, *(check.verdict for check in self.checks.values())))


@dataclass(slots=True)
class Run:
    """A run: where its outputs are, and its results, which fill up while it goes on."""

    id: str
    folder: Path
    parameters: Mapping[str, object]
    notebooks: list[NotebookResult] = field(default_factory=list)
    stopped: bool = False

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all."""
        return max((notebook.verdict for notebook in self.notebooks), default=Verdict.UNKNOWN)

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many checks have which verdict."""
        found = [check.verdict for notebook in self.notebooks for check in notebook.checks.values()]
        return {verdict: found.count(verdict) for verdict in Verdict}


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened: a notebook or a check began (``begun``) or ended.

    ``check`` is None for the notebook itself, whose end comes after that of all its checks.
    """

    notebook: NotebookResult
    check: CheckResult | None
    begun: bool


@dataclass(frozen=True, slots=True)
class _Ended:
    seconds: float
    error: str


_Message = tuple[NotebookResult, Started | Finished | _Ended]


def run(
    notebooks: Sequence[Path],
    *,
    parameters: Mapping[str, object],
    outputs: Path,
    jobs: int,
    only: Collection[str] = (),
    on_event: Callable[[Event], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Run:
    """Execute ``notebooks``, at most ``jobs`` at a time, and return what came of them.

    A parameter goes to the notebooks that have it. ``only`` names the checks to run, each after
    its notebook's setup; notebooks that have none of them are left out. ``on_event`` is called in
    the calling thread. Once ``stop`` is set, or when ``on_event`` raises, the kernels are killed
    and what had finished is kept.

    Raises :class:`CannotRun`, before anything is started, with everything that is wrong with the
    notebooks, the parameters, ``only`` or the folder ``outputs``.
    """
    stop = stop or threading.Event()
    plan = _plan([*notebooks], parameters, only)
    result = _prepare(outputs, parameters, plan, only)
    try:
        with contextlib.closing(_execute(result, jobs, only, stop)) as events:
            for event in events:
                _write_results(result)
                on_event(event)
    finally:
        result.stopped = stop.is_set()
        _write_results(result)
        _write_atomically(result.folder / "junit.xml", _junit(result))
    return result


def _plan(
    paths: Sequence[Path], parameters: Mapping[str, object], only: Collection[str]
) -> list[Notebook]:
    """Return the notebooks to run, each known to be fit to run with what was given."""
    problems: list[str] = []
    found: list[Notebook] = []
    for path in paths:
        try:
            found.append(read(path.absolute()))
        except CannotRun as error:
            problems += error.problems
    stems = [notebook.path.stem for notebook in found]
    problems += [
        f"two notebooks are named {stem}; their outputs would be one file"
        for stem in sorted({stem for stem in stems if stems.count(stem) > 1})
    ]
    if found and not problems:
        names = {each.name for notebook in found for each in notebook.parameters}
        problems += [
            f"no parameter {name}{nearest(name, names)}" for name in parameters if name not in names
        ]
        for notebook in found:
            wrong = validate_parameters(notebook.parameters, _known_to(notebook, parameters))
            wrong = wrong or _out_of_range(_known_to(notebook, parameters))
            problems += [f"{notebook.path.name}: {problem}" for problem in wrong]
        ids = {check.id for notebook in found for check in notebook.checks}
        problems += [f"no check {name}{nearest(name, ids)}" for name in only if name not in ids]
    if problems:
        raise CannotRun(problems)
    if not only:
        return found
    return [each for each in found if any(check.id in only for check in each.checks)]


def _out_of_range(given: Mapping[str, object]) -> list[str]:
    try:
        check_parameters({name: given[name] for name in COMMON if name in given}, ())
    except SettingsError as error:
        return list(error.problems)
    return []


def _known_to(notebook: Notebook, parameters: Mapping[str, object]) -> dict[str, object]:
    names = {parameter.name for parameter in notebook.parameters}
    return {name: value for name, value in parameters.items() if name in names}


def _prepare(
    outputs: Path,
    parameters: Mapping[str, object],
    plan: Sequence[Notebook],
    only: Collection[str],
) -> Run:
    """Make the folder of a new run, with results that are all unknown, and point latest to it."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"[:-3] + f"Z-{secrets.token_hex(2)}"
    outputs = outputs.absolute()
    result = Run(name, outputs / name, dict(parameters))
    for notebook in plan:
        wanted = [check for check in notebook.checks if not only or check.id in only]
        result.notebooks.append(
            NotebookResult(
                notebook,
                result.folder / notebook.path.name,
                _known_to(notebook, parameters),
                {check.id: CheckResult(check) for check in wanted},
            )
        )
    try:
        result.folder.mkdir(parents=True)
        _write_results(result)
        link = outputs / f".latest-{name}"
        link.symlink_to(name)
        os.replace(link, outputs / "latest")
    except OSError as error:
        raise CannotRun([f"outputs cannot be written to {outputs}: {error}"]) from error
    return result


def _execute(
    result: Run, jobs: int, only: Collection[str], stop: threading.Event
) -> Generator[Event]:
    """Execute the notebooks and put what they tell into ``result``; yield what happened.

    The results belong to the thread that iterates; the others only send.
    """
    messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    left = len(result.notebooks)
    with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="notebook") as pool:
        try:
            for notebook in result.notebooks:
                pool.submit(_execute_one, notebook, only, stop, messages.put)
            while left:
                notebook, message = messages.get()
                left -= isinstance(message, _Ended)
                yield from _apply(notebook, message)
        except BaseException:
            stop.set()
            raise


def _execute_one(
    notebook: NotebookResult,
    only: Collection[str],
    stop: threading.Event,
    send: Callable[[_Message], None],
) -> None:
    """Execute one notebook, in a thread of its own; whatever happens is sent, nothing raised."""
    begin = perf_counter()
    error = ""
    log = notebook.output.with_suffix(".kernel.log")
    try:
        if stop.is_set():
            return
        with log.open("wb") as kernel_log:
            execute(
                notebook.notebook.path,
                notebook.output,
                parameters=notebook.parameters,
                progress=lambda event: send((notebook, event)),
                stop=stop,
                only=only,
                kernel_log=kernel_log,
            )
    except Stopped:
        pass
    except papermill.PapermillExecutionError:
        pass  # told by the event of the cell that raised
    except nbclient.exceptions.DeadKernelError:
        error = f"the kernel died{_last_words(log)}"
    except Exception as exception:  # the other notebooks go on
        error = f"{type(exception).__name__}: {exception}{_last_words(log)}"
    finally:
        with contextlib.suppress(OSError):
            # jupyter interrupts a kernel that it shuts down, and the kernel says so
            if not error or not log.stat().st_size:
                log.unlink()
        send((notebook, _Ended(perf_counter() - begin, error)))


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f"; its last words: {lines[-1]}" if lines else ""


def _apply(notebook: NotebookResult, message: Started | Finished | _Ended) -> Iterator[Event]:
    """Put ``message`` into the results, and yield what there is to tell."""
    match message:
        case Started(check=None) | Finished(check=None, outcome=Outcome(verdict=Verdict.PASS)):
            return
        case Started(check=Check() as check):
            result = notebook.checks[check.id]
            result.message = "it did not come to an end"
            yield Event(notebook, result, begun=True)
        case Finished(check=Check() as check):
            result = notebook.checks[check.id]
            result.verdict = message.outcome.verdict
            result.message = message.outcome.message
            result.seconds = message.seconds
            result.printed = message.printed
            yield Event(notebook, result, begun=False)
        case Finished():
            notebook.error = f"{message.cell_id} failed: {message.outcome.message}"
        case _Ended():
            notebook.seconds = message.seconds
            if message.error:
                notebook.error = "\n".join(filter(None, (notebook.error, message.error)))
            for result in notebook.checks.values():
                if result.message == _NOT_RUN and notebook.error:
                    result.message = f"{_NOT_RUN}: {notebook.error.splitlines()[0]}"
            yield Event(notebook, None, begun=False)


# What is written


def _write_results(result: Run) -> None:
    content = {
        "run": result.id,
        "stopped": result.stopped,
        "verdict": str(result.verdict),
        "seed": result.parameters.get("seed"),
        "parameters": _redacted(result.parameters),
        "notebooks": [
            {
                "name": notebook.name,
                "path": str(notebook.notebook.path),
                "output": notebook.output.name,
                "parameters": _redacted(
                    {each.name: each.default for each in notebook.notebook.parameters}
                    | dict(notebook.parameters)
                ),
                "verdict": str(notebook.verdict),
                "seconds": round(notebook.seconds, 3),
                "error": notebook.error,
                "checks": [
                    {
                        "id": each.check.id,
                        "title": each.check.title,
                        "cell": each.check.cell_id,
                        "verdict": str(each.verdict),
                        "seconds": round(each.seconds, 3),
                        "message": each.message,
                    }
                    for each in notebook.checks.values()
                ],
            }
            for notebook in result.notebooks
        ],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    _write_atomically(result.folder / "results.json", text.encode())


def _redacted(parameters: Mapping[str, object]) -> dict[str, object]:
    return {name: "***" if _SECRET.search(name) else value for name, value in parameters.items()}


def _write_atomically(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    os.replace(draft, path)


def _junit(result: Run) -> bytes:
    """Return the results as JUnit: a test suite is a notebook, a test case is a check by its id.

    Unknown is an error: a consumer of JUnit takes what is skipped for passed.
    """
    suites = ET.Element("testsuites", name="ssot")
    for notebook in result.notebooks:
        cases = [*notebook.checks.values()]
        counts = [case.verdict for case in cases]
        suite = ET.SubElement(
            suites,
            "testsuite",
            name=notebook.name,
            tests=str(len(cases) + bool(notebook.error)),
            failures=str(counts.count(Verdict.FAIL) + bool(notebook.error)),
            errors=str(counts.count(Verdict.UNKNOWN)),
            time=f"{notebook.seconds:.3f}",
        )
        if notebook.error:
            case = ET.SubElement(suite, "testcase", classname=notebook.name, name="notebook")
            ET.SubElement(case, "failure", message=_xml(notebook.error))
        for each in cases:
            case = ET.SubElement(
                suite,
                "testcase",
                classname=notebook.name,
                name=each.check.id,
                time=f"{each.seconds:.3f}",
            )
            properties = ET.SubElement(case, "properties")
            ET.SubElement(properties, "property", name="title", value=_xml(each.check.title))
            if each.verdict is not Verdict.PASS:
                kind = "failure" if each.verdict is Verdict.FAIL else "error"
                reason = ET.SubElement(case, kind, message=_xml(each.message))
                reason.text = _xml(each.printed)
    content: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)

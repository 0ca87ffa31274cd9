"""The runner: executes notebooks side by side and keeps the result of every check as it ends.

A run writes into a folder of its own, ``outputs/<run>/``: the executed notebooks, beside each its
evidence, ``results.json`` (complete from the start, rewritten whole after every check),
``junit.xml`` and ``index.html``; ``outputs/latest`` points to it.
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

from ssot.environment import secrets_among
from ssot.errors import SettingsError
from ssot.lab.digest import digest
from ssot.lab.evidence import PATH_VARIABLE
from ssot.lab.execution import execute
from ssot.lab.files import write_atomically
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
from ssot.lab.report import write_report
from ssot.lab.secrecy import Secrets, masked
from ssot.lab.services import ServiceError
from ssot.lab.services.workspace import place_for_workspaces

__all__ = [
    "CheckResult",
    "Event",
    "NotebookResult",
    "Run",
    "new_run_id",
    "point_to",
    "run",
]

_NOT_RUN = "it was not run"
_PACKAGE = Path(__file__).parents[1]
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
    """What is known of one execution of a notebook by now.

    ``round`` counts from 1 when it is repeated. ``shuffle`` draws the order of its checks; ``None``
    leaves it. ``error`` is a failure outside of its checks; ``cut_off`` says that it was one of the
    kernel, which died, so that the notebook was not run to its end.
    """

    notebook: Notebook
    output: Path
    parameters: Mapping[str, object]
    checks: dict[str, CheckResult]
    round: int = 1
    shuffle: int | None = None
    seconds: float = 0.0
    error: str = ""
    cut_off: bool = False

    @property
    def name(self) -> str:
        """The stem of the notebook's file."""
        return self.notebook.path.stem

    @property
    def evidence(self) -> Path:
        """Where its kernel writes the evidence of its checks."""
        return self.output.with_suffix(".evidence.json")

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
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)

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
    repeat: int = 1,
    shuffle: bool = False,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Run:
    """Execute ``notebooks``, at most ``jobs`` at a time, and return what came of them.

    A parameter goes to the notebooks that have it. ``only`` names the checks to run, each after
    its notebook's setup; notebooks that have none of them are left out. With ``repeat``, every
    notebook runs so many times, each round with the next seed; with ``shuffle``, its checks run in
    an order drawn from that seed. ``environment`` are variables for the kernels, over those of this
    process. ``folder`` is a new one for the outputs, instead of one in ``outputs`` that ``latest``
    then points to. ``on_event`` is called in the calling thread. Once ``stop`` is set, or when
    ``on_event`` raises, the kernels are killed and what had finished is kept.

    Raises :class:`CannotRun`, before anything is started, with everything that is wrong with the
    notebooks, the parameters, ``only``, the folder ``outputs`` or the place of workspaces; and when
    that folder can no longer be written: what was written before stays.
    """
    stop = stop or threading.Event()
    begin = perf_counter()
    plan = _plan([*notebooks], parameters, only)
    try:
        # Every lab would find it out by itself, and none of the checks would be run.
        place_for_workspaces()
    except ServiceError as error:
        raise CannotRun([str(error)]) from error
    result = _prepare(outputs, parameters, plan, only, folder, repeat, shuffle=shuffle)
    try:
        with contextlib.closing(_execute(result, jobs, only, environment, stop)) as events:
            for event in events:
                result.seconds = perf_counter() - begin
                _keep(result)
                on_event(event)
    finally:
        result.stopped = stop.is_set()
        _keep(result, ended=True)
    return result


def _keep(result: Run, *, ended: bool = False) -> None:
    """Write what is known by now; at the end, all that is made of it."""
    try:
        _write_results(result)
        if ended:
            write_atomically(result.folder / "junit.xml", _junit(result))
            with contextlib.suppress(CannotRun):
                # Evidence that cannot be read fails no run; the audit says that it is missing.
                write_report(result.folder)
    except OSError as error:
        why = error.strerror or str(error)
        raise CannotRun([f"outputs can no longer be written to {result.folder}: {why}"]) from error


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
            known = _known_to(notebook, parameters)
            wrong = validate_parameters(notebook.parameters, known)
            # Of what is of another type the range says nothing.
            fit = {
                name: value
                for name, value in known.items()
                if not validate_parameters(notebook.parameters, {name: value})
            }
            wrong += _out_of_range(fit)
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
    folder: Path | None,
    repeat: int,
    *,
    shuffle: bool,
) -> Run:
    """Make the folder of a new run, with results that are all unknown, and point latest to it."""
    outputs = outputs.absolute()
    own = (folder or outputs / new_run_id()).absolute()
    result = Run(own.name, own, dict(parameters))
    result.digests = {each.path.stem: digest([_PACKAGE, each.path]) for each in plan}
    for number in range(1, repeat + 1):
        for notebook in plan:
            wanted = [check for check in notebook.checks if not only or check.id in only]
            given = _known_to(notebook, parameters)
            seed = _seed(notebook, given) + number - 1
            suffix = f"-{number:03}" if repeat > 1 else ""
            result.notebooks.append(
                NotebookResult(
                    notebook,
                    result.folder / f"{notebook.path.stem}{suffix}.ipynb",
                    {**given, "seed": seed} if repeat > 1 else given,
                    {check.id: CheckResult(check) for check in wanted},
                    round=number,
                    shuffle=seed if shuffle else None,
                )
            )
    try:
        result.folder.mkdir(parents=True)
        _write_results(result)
        if folder is None:
            point_to(result.folder, outputs / "latest")
    except OSError as error:
        where = folder or outputs
        why = error.strerror or str(error)
        raise CannotRun([f"outputs cannot be written to {where}: {why}"]) from error
    return result


def new_run_id() -> str:
    """Return a fresh name of a run: the time in UTC, and a few digits that make it unique."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"[:-3] + f"Z-{secrets.token_hex(2)}"


def point_to(folder: Path, link: Path) -> None:
    """Make ``link``, a name beside ``folder``, point to it: at once, whatever it pointed to."""
    draft = link.with_name(f".{link.name}-{folder.name}")
    draft.symlink_to(folder.name)
    os.replace(draft, link)


def _seed(notebook: Notebook, given: Mapping[str, object]) -> int:
    known = {each.name: each.default for each in notebook.parameters} | dict(given)
    seed = known.get("seed", 0)
    return seed if isinstance(seed, int) else 0


def _execute(
    result: Run,
    jobs: int,
    only: Collection[str],
    environment: Mapping[str, str] | None,
    stop: threading.Event,
) -> Generator[Event]:
    """Execute the notebooks and put what they tell into ``result``; yield what happened.

    The results belong to the thread that iterates; the others only send.
    """
    messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    left = len(result.notebooks)
    with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="notebook") as pool:
        try:
            for notebook in result.notebooks:
                pool.submit(_execute_one, notebook, only, environment, stop, messages.put)
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
    environment: Mapping[str, str] | None,
    stop: threading.Event,
    send: Callable[[_Message], None],
) -> None:
    """Execute one notebook, in a thread of its own; whatever happens is sent, nothing raised."""
    begin = perf_counter()
    error = ""
    clean = Secrets(secrets_among({**os.environ, **(environment or {}), **notebook.parameters}))
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
                shuffle=notebook.shuffle,
                environment={**(environment or {}), PATH_VARIABLE: str(notebook.evidence)},
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
            if not error or not log.stat().st_size:
                log.unlink()
            else:
                text = log.read_text(encoding="utf-8", errors="replace")
                write_atomically(log, clean(text).encode())
        send((notebook, _Ended(perf_counter() - begin, clean(error))))


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
                notebook.cut_off = True
                notebook.error = "\n".join(filter(None, (notebook.error, message.error)))
            for result in notebook.checks.values():
                if result.message == _NOT_RUN and notebook.error:
                    result.message = f"{_NOT_RUN}: {notebook.error.splitlines()[0]}"
            yield Event(notebook, None, begun=False)


# What is written


def _write_results(result: Run) -> None:
    content = {
        "version": 1,
        "run": result.id,
        "began": result.began.isoformat(timespec="seconds"),
        "seconds": round(result.seconds, 3),
        "digests": dict(result.digests),
        "stopped": result.stopped,
        "verdict": str(result.verdict),
        "seed": result.parameters.get("seed"),
        "seeds": _seeds(result),
        "parameters": masked(result.parameters),
        "notebooks": [
            {
                "name": notebook.name,
                "path": str(notebook.notebook.path),
                "output": notebook.output.name,
                "evidence": notebook.evidence.name if notebook.evidence.exists() else None,
                "round": notebook.round,
                "shuffle": notebook.shuffle,
                "parameters": masked(
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
                        "printed": each.printed if each.verdict else "",
                        "bvj": list(each.check.bvj),
                        "between": list(each.check.between),
                        "why": each.check.why,
                    }
                    for each in notebook.checks.values()
                ],
            }
            for notebook in result.notebooks
        ],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(result.folder / "results.json", text.encode())


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
            name=_suite(notebook, result),
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


def _seeds(result: Run) -> list[object]:
    """The seed of each round, when there are several."""
    if all(notebook.round == 1 for notebook in result.notebooks):
        return []
    return list(dict.fromkeys(each.parameters.get("seed") for each in result.notebooks))


def _suite(notebook: NotebookResult, result: Run) -> str:
    rounds = max(each.round for each in result.notebooks)
    return f"{notebook.name} (round {notebook.round})" if rounds > 1 else notebook.name


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)

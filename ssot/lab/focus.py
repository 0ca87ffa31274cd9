"""The focused copy of an executed notebook: one cell that failed, and what it takes to reach it."""

from __future__ import annotations

import ast
import enum
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from ssot.environment import MASK
from ssot.lab.notebook import (
    CannotRun,
    Check,
    Notebook,
    Parameter,
    Verdict,
    error_of,
    nearest,
    outcome,
    plain,
    printed,
    read,
    tags,
)

__all__ = [
    "KERNEL_DIED",
    "Failure",
    "Focus",
    "Replay",
    "compare",
    "failure_of",
    "find_focus",
    "focused",
    "hidden",
    "told",
]

KERNEL_DIED = "the kernel died"
"""The text of a failure that left no kernel to look into; the runner says so too."""

_OURS = "ssot"  # metadata of a copy: what it is a copy of
_TITLE, _RECORD = "explore-title", "explore-record"
_LEFT_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}
_LONGEST, _WIDEST = 10, 400  # lines, and characters of a line, of an error in the title
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

_VOLATILE = [
    re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE),  # UUIDs
    re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.,Z+]*"),  # times
    re.compile(r"(?:/\w[\w.-]*)*/(?:ssot|tmp)[-\w][\w./-]*"),  # temporary files
    re.compile(r"\b0x[0-9a-fA-F]+\b"),
    re.compile(r"(?<=:)\d{4,5}\b"),  # ports
    re.compile(r"(?<=pid )\d+|(?<=port )\d+"),
    re.compile(r"\b(?=[0-9A-HJKMNP-TV-Z]*\d)[0-9A-HJKMNP-TV-Z]{26}\b", re.IGNORECASE),  # ULIDs
    re.compile(r"(?=[0-9a-f]*\d)(?<![0-9a-z])[0-9a-f]{8,}(?![0-9a-z])"),  # drawn names
    re.compile(r"\b\d+(?:\.\d+)? ?(?:s|ms|us|seconds)\b"),  # durations
]


class Replay(enum.StrEnum):
    """What came of running a cell again, next to what the batch has on record of it."""

    REPRODUCED = "reproduced"
    """It failed in the batch, and again with the same error."""
    DIFFERENT = "failed differently"
    """It failed in the batch, and now with another error, or in a cell before it."""
    PASSED = "passed now"
    FAILED = "failed now"
    """It failed, and the batch has no failure of it on record."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a cell failed: the class of its error (empty when nothing was raised) and its text."""

    cell_id: str
    kind: str
    text: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.kind, self.text.partition("\n")[0])))

    def same(self, other: Failure) -> bool:
        """Whether it is the same failure: cell, class, and first line but for what is drawn anew.

        Drawn anew in every run are names, ports, paths, times and durations.
        """
        return self._essence() == other._essence()

    def _essence(self) -> tuple[str, str, str]:
        line = plain(self.text).strip().partition("\n")[0]
        for pattern in _VOLATILE:
            line = pattern.sub("…", line)
        return self.cell_id, self.kind, line.strip()


@dataclass(frozen=True, slots=True)
class Focus:
    """One cell of an executed notebook, and what the batch has on record of it.

    ``check`` is None when the cell is none, as a setup that failed; ``recorded`` is None when the
    cell passed. ``never_run`` says that the batch did not come to the cell. ``folder`` is where the
    kernel of the batch worked, if that is known.
    """

    notebook: Notebook
    cell_id: str
    check: Check | None
    recorded: Failure | None
    never_run: bool = False
    run: str = ""
    folder: Path | None = None

    @property
    def name(self) -> str:
        """What people call it: the check's id, or the id of the cell."""
        return self.check.id if self.check else self.cell_id


# Finding


@dataclass(frozen=True, slots=True)
class _Record:
    """What ``results.json`` has of one notebook: where it came from, and a message for each check.

    The output alone does not know why a kernel died.
    """

    run: str = ""
    folder: Path | None = None
    messages: Mapping[str, str] = field(default_factory=dict)


def find_focus(output: Path | None, check: str | None, *, outputs: Path) -> Focus:
    """Return what is to be explored.

    ``output`` is an executed notebook, the folder of a run, or None for ``outputs/latest``.
    ``check`` is the id of a check; without it, the first cell that failed is taken. When a cell
    before that check failed, it is that cell.

    Raises :class:`~ssot.lab.notebook.CannotRun` with what is wrong with the two.
    """
    paths = _executed(output, outputs)
    found: list[Notebook] = []
    problems: list[str] = []
    for path in paths:
        try:
            found.append(_read_executed(path))
        except CannotRun as error:
            problems += error.problems
    if not found or (problems and len(paths) == 1):
        raise CannotRun(problems)
    check = check.upper() if check else None
    if check is not None:
        known = {each.id for notebook in found for each in notebook.checks}
        if check not in known:
            raise CannotRun([f"no check {check} in {_told_paths(found)}{nearest(check, known)}"])
        found = [each for each in found if any(check == one.id for one in each.checks)]
    focuses = [_focus(notebook, check) for notebook in found]
    failed = [each for each in focuses if each and (each.recorded or each.never_run)]
    chosen = next(iter(failed or filter(None, focuses)), None)
    if chosen is None:
        ids = ", ".join(each.id for notebook in found for each in notebook.checks)
        raise CannotRun(
            [f"every check of {_told_paths(found)} passed; name one to explore it anyway: {ids}"]
        )
    if check is not None and not failed and len(focuses) > 1:
        raise CannotRun([f"{check} is in {_told_paths(found)}; give the notebook"])
    return chosen


def _executed(output: Path | None, outputs: Path) -> list[Path]:
    """Return the executed notebooks that ``output`` means."""
    place = output or outputs / "latest"
    if not place.exists():
        if output is None:
            raise CannotRun(
                [f"there is no run in {place}: run ssot run, or name an executed notebook"]
            )
        if (outputs / output).is_dir():
            place = outputs / output  # a run by its id
        else:
            close = _nearest_run(place, outputs)
            raise CannotRun([f"no executed notebook and no folder of a run {place}{close}"])
    place = place.resolve()
    if place.is_file():
        return [place]
    listed = [place / name for name, _ in _records(place)]
    found = [path for path in listed or sorted(place.glob("*.ipynb")) if path.is_file()]
    if not found:
        raise CannotRun([f"no executed notebook in {place}"])
    return found


def _nearest_run(place: Path, outputs: Path) -> str:
    """Return what may have been meant: a notebook beside the ``place``, or a run; no other file."""
    runs = {each.parent.name for each in outputs.glob("*/results.json")}
    known = runs | {each.name for each in place.parent.glob("*.ipynb")}
    known |= {each.parent.name for each in place.parent.glob("*/results.json")}
    close = nearest(place.name, known)
    if len(known) > 8 and "did you mean" not in close:
        return f"; the newest run is {max(runs - {'latest'})}" if runs - {"latest"} else ""
    return close


def _records(folder: Path) -> list[tuple[str, _Record]]:
    """Return what ``results.json`` of a run says of each output, or nothing where there is none."""
    try:
        content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return [
            (
                str(each["output"]),
                _Record(
                    str(content["run"]),
                    Path(each["path"]).parent,
                    {str(one["id"]): str(one["message"]) for one in each["checks"]},
                ),
            )
            for each in content["notebooks"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _read_executed(path: Path) -> Notebook:
    notebook = read(path)
    copied = notebook.node.metadata.get(_OURS, {})
    if "explores" in copied:
        raise CannotRun([f"{path}: is a copy made to explore {copied['explores']}; give that"])
    if not notebook.checks:
        raise CannotRun([f"{path}: has no check; it is not a notebook of ours"])
    code = [cell for cell in notebook.node.cells if cell.cell_type == "code"]
    if not any(cell.execution_count is not None or cell.outputs for cell in code):
        raise CannotRun(
            [f"{path}: was never run; give the output of a run, like outputs/latest/{path.name}"]
        )
    return notebook


def _focus(notebook: Notebook, check: str | None) -> Focus | None:
    """Return the named check or the first cell that failed; None when there is none."""
    record = dict(_records(notebook.path.parent)).get(notebook.path.name, _Record())
    by_cell = {each.cell_id: each for each in notebook.checks}
    for cell in notebook.node.cells:
        if cell.cell_type != "code":
            continue
        known = by_cell.get(cell.id)
        seen = outcome(cell, known)
        wanted = known is not None and known.id == check
        if not wanted and (seen.verdict is Verdict.PASS or (known is not None and check)):
            continue
        recorded = failure_of(cell, known)
        never_run = recorded is not None and not cell.outputs
        message = record.messages.get(known.id, "") if known else ""
        if recorded is not None and not recorded.kind and message:
            recorded = Failure(cell.id, "", message)
            never_run = message.startswith("it was not run")
        return Focus(
            notebook,
            cell.id,
            known,
            None if never_run else recorded,
            never_run,
            record.run,
            record.folder if record.folder and record.folder.is_dir() else None,
        )
    return None


def _told_paths(notebooks: Sequence[Notebook]) -> str:
    return ", ".join(str(each.path) for each in notebooks)


def failure_of(cell: NotebookNode, check: Check | None) -> Failure | None:
    """Return how an executed cell failed, or None if it passed."""
    seen = outcome(cell, check)
    if seen.verdict is Verdict.PASS:
        return None
    error = error_of(cell.outputs)
    if error is None:
        return Failure(cell.id, "", seen.message)
    return Failure(cell.id, plain(error.ename), plain(error.evalue))


def compare(focus: Focus, replayed: Failure | None) -> Replay:
    """Return how a replay compares with the record."""
    if replayed is None:
        return Replay.PASSED
    if focus.recorded is None:
        return Replay.FAILED
    return Replay.REPRODUCED if focus.recorded.same(replayed) else Replay.DIFFERENT


# The copy


def focused(focus: Focus) -> NotebookNode:
    """Return the copy: what runs before the cell, the cell with its record, and where to look.

    The parameters are those of the batch, written into the parameters cell. All checks but the
    one are left out, and so is what comes after it.
    """
    node = focus.notebook.node
    given, strange = _parameters_as_run(focus)
    cells = [_markdown(_TITLE, _title(focus))]
    by_cell = {each.cell_id: each for each in focus.notebook.checks}
    for cell in node.cells:
        if cell.cell_type != "code" or _LEFT_BY_PAPERMILL & tags(cell):
            continue
        chosen = cell.id == focus.cell_id
        if not chosen and cell.id in by_cell:
            continue
        if chosen and focus.check is not None:
            cells.append(_markdown(f"{cell.id[:50]}-why", focus.check.markdown))
        copy = nbformat.from_dict(cell)  # type: ignore[no-untyped-call]
        copy.metadata = nbformat.from_dict({"tags": sorted(tags(cell))})  # type: ignore[no-untyped-call]
        if "parameters" in tags(cell):
            copy.source = _merged(cell.source, given)
        elif not chosen:
            copy.metadata["jupyter"] = {"source_hidden": True}
        cells.append(copy)
        if "parameters" in tags(cell) and strange:
            # Papermill injects what is no parameter, and the setup refuses it by these words.
            lines = ["# Parameters", *(f"{name} = {value}" for name, value in strange.items())]
            cells.append(_code("explore-strange", "\n".join(lines)))
        if chosen:
            break
    copy = nbformat.v4.new_notebook(cells=[*cells, *_looking(focus)])  # type: ignore[no-untyped-call]
    copy.metadata = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {
            "kernelspec": _KERNEL,
            "language_info": {"name": "python"},
            _OURS: {"explores": str(focus.notebook.path), "cell": focus.cell_id},
        }
    )
    return copy  # type: ignore[no-any-return]


def told(copy: NotebookNode, focus: Focus, replay: Replay, replayed: Failure | None) -> None:
    """Write into ``copy``, whose cells were run again, what came of it, and what the batch has."""
    cells = {cell.id: cell for cell in copy.cells}
    cells[_TITLE].source = _title(focus, replay, replayed)
    original = next(cell for cell in focus.notebook.node.cells if cell.id == focus.cell_id)
    text = _as_text(original.outputs)
    if text:
        is_open = "" if replay is Replay.REPRODUCED else " open"
        cells[_RECORD].source = (
            f"<details{is_open}><summary>What the batch has on record of this cell</summary>\n\n"
            f"{_fenced(text)}\n\n</details>"
        )
    else:
        cells[_RECORD].source = "The batch has no output of this cell on record."


def _title(focus: Focus, replay: Replay | None = None, replayed: Failure | None = None) -> str:
    source = f"`{focus.notebook.path.name}`" + (f", run `{focus.run}`" if focus.run else "")
    lines = [f"# Exploring {focus.name}", ""]
    match replay:
        case None:
            lines += [f"From {source}, as the batch left it; not replayed yet."]
        case Replay.REPRODUCED:
            lines += [
                f"**Reproduced.** It failed in the batch ({source}), and it failed again here, "
                "on fresh servers, in the same way:",
                "",
                _quoted(replayed),
            ]
        case Replay.DIFFERENT:
            lines += [
                f"**Failed differently.** In the batch ({source}):",
                "",
                _quoted(focus.recorded),
                "",
                f"Here, on fresh servers{_elsewhere(focus, replayed)}:",
                "",
                _quoted(replayed),
            ]
        case Replay.PASSED if focus.recorded is not None:
            lines += [
                f"**Passed now.** In the batch ({source}) it failed:",
                "",
                _quoted(focus.recorded),
                "",
                "Here it ran alone, on fresh servers, with the parameters of the batch. Run it "
                "again, or look for what it had there: checks before it, load, another version.",
            ]
        case Replay.PASSED:
            lines += [f"**Passed now**, here on fresh servers; {_before(focus)} ({source})."]
        case Replay.FAILED:
            lines += [
                f"**Failed now**{_elsewhere(focus, replayed)}; {_before(focus)} ({source}):",
                "",
                _quoted(replayed),
            ]
    if replayed is not None and replayed.text == KERNEL_DIED:
        lines += ["", "The kernel behind this page is a new one, in which nothing has run yet."]
    return "\n".join(lines)


def _before(focus: Focus) -> str:
    return "the batch did not come to it" if focus.never_run else "in the batch it passed"


def _elsewhere(focus: Focus, replayed: Failure | None) -> str:
    if replayed is None or replayed.cell_id == focus.cell_id:
        return ""
    return f", already in the cell `{replayed.cell_id}`"


def _quoted(failure: Failure | None) -> str:
    """Return a failure as a block: the words of its error, with the values that it shows."""
    parts = (failure.kind, failure.text) if failure else ()
    lines = ": ".join(filter(None, parts)).splitlines()
    shown = [line[:_WIDEST] + "…" * (len(line) > _WIDEST) for line in lines[:_LONGEST]]
    return _fenced("\n".join(shown + ["…"] * (len(lines) > _LONGEST)))


def _fenced(text: str) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text) or [""]))
    return f"{fence}text\n{text}\n{fence}"


def _looking(focus: Focus) -> Iterator[NotebookNode]:
    """Yield the cells after the failure: where to look, and a place to try things."""
    yield _markdown(_RECORD, "")
    if focus.check is None:
        yield _markdown(
            "explore-look",
            "## Look around\n\n`%debug` goes into the frames of the failure. Change the cell and "
            "run it again; its variables are those of the kernel behind this page.",
        )
        yield _code("explore-try", "")
        return
    source = next(cell for cell in focus.notebook.node.cells if cell.id == focus.cell_id).source
    names = ", ".join(f"`{name}`" for name in ("lab", *_names(source)))
    yield _markdown(
        "explore-look",
        "## Look around\n\n"
        f"The kernel behind this page is where it happened: of {names}, whatever had been made by "
        "then is as the failure left it, and `%debug` goes into its frames. Change the check and "
        "run that one cell again. A process of the platform keeps the code that it was started "
        "with: after a change, "
        '`await lab.workers["a"].stop()` or `await lab.nodes["a"].stop()`, and the next check '
        "starts it anew. For what the kernel itself has imported, restart it and run all.",
    )
    yield _code("explore-timeline", "lab.timeline()")
    yield _code("explore-statistics", "await lab.statistics()")
    yield _code("explore-logs", "lab.logs()")
    yield _code("explore-rows", _query(source))
    yield _code("explore-try", "")


def _query(source: str) -> str:
    """Return an example of a query: the runs of the first user that the check made."""
    for target, made in _assigned(source):
        call = made.value if isinstance(made, ast.Await) else made
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("lab.client", "lab.user"):
            user = f"{target}.user" if ast.unparse(call.func) == "lab.client" else target
            return f'await lab.rows("SELECT run_id, state FROM runs", user={user})'  # noqa: S608
    return (
        'await lab.rows("SELECT application_name, state, query FROM pg_stat_activity '
        'WHERE datname = current_database()")'
    )


def _assigned(source: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield each name that a cell assigns, with what it was assigned, in order."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for each, value in zip(target.elts, node.value.elts, strict=False):
                    if isinstance(each, ast.Name):
                        yield each.id, value


def _names(source: str) -> list[str]:
    return [*dict.fromkeys(name for name, _ in _assigned(source))][:8]


def _as_text(outputs: Sequence[NotebookNode]) -> str:
    """Return outputs as the plain text that a terminal would have shown."""
    parts = []
    for output in outputs:
        if output.output_type == "stream":
            parts.append(output.text.rstrip("\n"))
        elif output.output_type == "error":
            parts.append("\n".join(output.traceback) or f"{output.ename}: {output.evalue}")
        elif "text/plain" in output.get("data", {}):
            parts.append(output.data["text/plain"])
    return plain("\n\n".join(parts)).strip()


def _markdown(cell_id: str, source: str) -> NotebookNode:
    cell: NotebookNode = nbformat.v4.new_markdown_cell(source, id=cell_id)  # type: ignore[no-untyped-call]
    return cell


def _code(cell_id: str, source: str) -> NotebookNode:
    cell: NotebookNode = nbformat.v4.new_code_cell(source, id=cell_id)  # type: ignore[no-untyped-call]
    return cell


# Parameters


def _parameters_as_run(focus: Focus) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters that the batch ran with, as source, and what else was injected.

    What papermill injected is in the output; what came from the environment is known only from the
    command that a failed check tells.
    """
    known = {each.name: each for each in focus.notebook.parameters}
    said: dict[str, str] = {}
    injected: dict[str, str] = {}
    for cell in focus.notebook.node.cells:
        if cell.cell_type != "code":
            continue
        if "injected-parameters" in tags(cell):
            injected |= _assignments(cell.source)
        elif cell.id == focus.cell_id and focus.check is not None:
            said = _said(printed(cell.outputs), focus.check.id, known)
    # What was masked is as the notebook has it, or as it is given again.
    given = {name: value for name, value in (said | injected).items() if value != repr(MASK)}
    return (
        {name: value for name, value in given.items() if name in known},
        {name: value for name, value in injected.items() if name not in known},
    )


def hidden(focus: Focus) -> list[str]:
    """The parameters that the batch was given and its output, because they are secret, has not."""
    return sorted(
        name
        for cell in focus.notebook.node.cells
        if cell.cell_type == "code" and "injected-parameters" in tags(cell)
        for name, value in _assignments(cell.source).items()
        if value == repr(MASK)
    )


def _assignments(source: str) -> dict[str, str]:
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return {}
    return {
        target.id: ast.unparse(statement.value)
        for statement in body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _said(text: str, check: str, known: Mapping[str, Parameter]) -> dict[str, str]:
    """Return the parameters of the line ``ssot run … --only <check> -p users 8`` in ``text``."""
    line = next(
        (each for each in text.splitlines() if re.match(rf"ssot run .*--only {check}\b", each)), ""
    )
    try:
        words = shlex.split(line)
    except ValueError:
        return {}
    found: dict[str, str] = {}
    for flag, name, text_of in zip(words, words[1:], words[2:], strict=False):
        if flag != "-p" or name not in known or "***" in text_of:
            continue
        default = known[name].default
        try:
            value: Any = text_of if isinstance(default, str) else ast.literal_eval(text_of)
        except (ValueError, SyntaxError):
            continue
        if value != default:
            found[name] = repr(value)
    return found


def _merged(source: str, given: Mapping[str, str]) -> str:
    """Return the source of a parameters cell with the values of ``given``; comments stay."""
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
    content = source.encode()
    for statement in reversed(ast.parse(source).body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        value = statement.value
        if statement.target.id in given and value is not None:
            assert value.end_lineno is not None
            assert value.end_col_offset is not None
            begin = starts[value.lineno - 1] + value.col_offset
            end = starts[value.end_lineno - 1] + value.end_col_offset
            content = content[:begin] + given[statement.target.id].encode() + content[end:]
    return content.decode()

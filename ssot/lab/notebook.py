"""The form of a notebook: the one place that knows what its cells are, say and must say."""

from __future__ import annotations

import ast
import difflib
import enum
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ssot.environment import MASK, is_secret_name
from ssot.errors import SsotError
from ssot.lab.files import write_atomically
from ssot.lab.observations import COMPONENTS
from ssot.lab.syntax import parse, parse_expression

__all__ = [
    "CannotRun",
    "Check",
    "Notebook",
    "Outcome",
    "Parameter",
    "Verdict",
    "checks",
    "error_of",
    "find",
    "is_check",
    "nearest",
    "outcome",
    "parameters",
    "plain",
    "printed",
    "read",
    "tags",
    "validate_form",
    "validate_parameters",
    "write",
]

_HEADING = re.compile(r"^### (?P<id>[A-Z][A-Z0-9]*-\d+) · (?P<title>\S.*?)\s*$", re.MULTILINE)
_BVJ = re.compile(r"^BVJ:(?P<parts>.*)$", re.MULTILINE)
_INTERPLAY = re.compile(r"^Interplay:(?P<ends>.*)$", re.MULTILINE)
_EXCUSED = re.compile(r"^Excused: (?P<item>[\w -]+?) \((?P<reason>[^)]+)\)\s*$", re.MULTILINE)
_VERDICT = re.compile(
    r"^(?P<id>[A-Z][A-Z0-9]*-\d+) (?P<verdict>PASS|UNKNOWN|FAIL)(?: (?P<rest>.*))?$"
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_HOST_AND_PORT = re.compile(r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\]|://[^/\s:]+):\d{2,5}\b")
_HOST = re.compile(r"localhost|\d{1,3}(?:\.\d{1,3}){3}|::1?")


class CannotRun(SsotError):
    """A notebook, a parameter or a folder is not what it must be; nothing was started.

    ``problems`` names every one of them.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Verdict(enum.IntEnum):
    """What is known of a check; the larger is the worse, so the worst of several is their max."""

    PASS = 0
    UNKNOWN = 1
    FAIL = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict and, unless it is pass, the reason in a sentence or two."""

    verdict: Verdict
    message: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its id and title from the heading, its code cell, and the markdown above it.

    ``between`` names the two components whose interplay it is, the one that acts first; ``excused``
    the items of the audit that do not apply to it, each with the reason.
    """

    id: str
    title: str
    bvj: tuple[str, ...]
    cell_id: str
    markdown: str
    between: tuple[str, ...] = ()
    excused: tuple[tuple[str, str], ...] = ()

    @property
    def why(self) -> str:
        """The sentences below the heading, without the lines for programs."""
        lines = _HEADING.sub("", self.markdown)
        for pattern in (_BVJ, _INTERPLAY, _EXCUSED):
            lines = pattern.sub("", lines)
        return lines.strip()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One line of the ``parameters`` cell: ``name: annotation = default  # comment``."""

    name: str
    annotation: str
    default: object
    comment: str


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook as read from ``path``, fit to be run."""

    path: Path
    node: NotebookNode
    checks: tuple[Check, ...]
    parameters: tuple[Parameter, ...]


# Finding and reading

_FEW = 20
"""Names that are all told where none of them is near to what was given."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean …?"`` for the closest of ``known``, or what there is, or nothing."""
    known = sorted(known)
    # Of GP-01, GP-10 and GP-11, which all differ by one sign, gp-1 means the first.
    same = [each for each in known if _plain_numbers(each) == _plain_numbers(name)]
    close = same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    if len(known) > _FEW:
        return f"; there are {len(known)}, from {known[0]} to {known[-1]}"
    return f"; there is {', '.join(known)}" if known else ""


def _plain_numbers(name: str) -> str:
    return re.sub(r"0+(?=\d)", "", name.casefold())


def find(names: Sequence[str], folder: Path) -> list[Path]:
    """Return the notebooks that ``names`` mean: paths, stems or numbers; without names, all.

    Raises :class:`CannotRun` with every name that means none or more than one.
    """
    known = sorted(folder.glob("*.ipynb"))
    if not names:
        if not known:
            raise CannotRun([f"no notebooks in {folder}"])
        return known
    found: list[Path] = []
    problems = []
    for name in names:
        path = Path(name)
        by_number = [each for each in known if name.isdecimal() and _number(each) == int(name)]
        by_stem = [each for each in known if each.stem == name or each.name == name]
        here = [path] if path.suffix == ".ipynb" and path.is_file() else []
        matches = here or by_stem or by_number
        if len(matches) == 1:
            found.extend(match for match in matches if match not in found)
        elif matches:
            problems.append(f"{name} means {', '.join(each.name for each in matches)}; give one")
        else:
            siblings = path.parent.glob("*.ipynb") if path.parent != Path() else known
            hint = nearest(path.stem, {each.stem for each in siblings})
            problems.append(f"no notebook {name}{hint}")
    if problems:
        raise CannotRun(problems)
    return found


def _number(path: Path) -> int | None:
    number = path.stem.partition("_")[0]
    return int(number) if number.isdecimal() else None


def read(path: Path) -> Notebook:
    """Read a notebook that is to be run; raises :class:`CannotRun` with what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = nearest(path.name, {each.name for each in path.parent.glob("*.ipynb")})
        raise CannotRun([f"no notebook {path}{hint}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRun([f"{path}: cannot be read: {error}"]) from error
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise CannotRun([f"{path}: is not JSON: {error}"]) from None
    if not isinstance(raw, dict) or not isinstance(raw.get("cells"), list):
        raise CannotRun([f"{path}: is not a notebook: there is no list of cells in it"])
    if not all(isinstance(cell, dict) for cell in raw["cells"]):
        raise CannotRun([f"{path}: is not a notebook: one of its cells is no object"])
    version = f"{raw.get('nbformat')}.{raw.get('nbformat_minor')}"
    if version != "4.5":
        raise CannotRun([f"{path}: is nbformat {version}; 4.5 is needed (cell ids)"])
    # before nbformat sees them: it makes up an id for a cell that has none or another's
    ids = [cell.get("id") for cell in raw["cells"]]
    doubtful = sorted({str(each) for each in ids if each is None or ids.count(each) > 1})
    if doubtful:
        problems = [
            f"{path}: a cell has no id"
            if each == "None"
            else f"{path}: two cells have the id {each}"
            for each in doubtful
        ]
        raise CannotRun(problems)
    try:
        node: NotebookNode = nbformat.reads(text, as_version=nbformat.NO_CONVERT)  # type: ignore[no-untyped-call]
        nbformat.validate(node)
    except Exception as error:  # nbformat raises what the content makes it raise
        reason = str(error).partition("\n")[0]
        raise CannotRun([f"{path}: is not valid nbformat 4.5: {reason}"]) from None
    try:
        return Notebook(path, node, checks(node), parameters(node))
    except CannotRun as error:
        raise CannotRun([f"{path}: {problem}" for problem in error.problems]) from None


def write(path: Path, text: str) -> None:
    """Put ``text`` in the place of the notebook at ``path``, whole or not at all.

    Raises :class:`CannotRun` when it cannot be written.
    """
    try:
        write_atomically(path, text.encode(), mode=path.stat().st_mode & 0o7777)
    except OSError as error:
        raise CannotRun([f"{path}: cannot be written: {error.strerror or error}"]) from error


# Cells


def tags(cell: NotebookNode) -> frozenset[str]:
    """Return the tags of a cell."""
    return frozenset(cell.metadata.get("tags", ()))


def is_check(cell: NotebookNode) -> bool:
    """Whether this is the code cell of a check."""
    return cell.cell_type == "code" and "check" in tags(cell)


def plain(text: str) -> str:
    """Return ``text`` without terminal colour codes."""
    return _ANSI.sub("", text)


def printed(outputs: Iterable[NotebookNode], stream: str = "stdout") -> str:
    """Return what a cell wrote to ``stream``, without colour codes."""
    return plain(
        "".join(
            output.text
            for output in outputs
            if output.output_type == "stream" and output.name == stream
        )
    )


def error_of(outputs: Iterable[NotebookNode]) -> NotebookNode | None:
    """Return the error among a cell's outputs, or None."""
    return next((output for output in outputs if output.output_type == "error"), None)


def _with_markdown(node: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Yield each check cell with the markdown right above it, which is empty if there is none."""
    above = None
    for cell in node.cells:
        if "papermill-error-cell-tag" in tags(cell):
            continue  # papermill puts it above the cell that failed
        if is_check(cell):
            yield above.source if above is not None and above.cell_type == "markdown" else "", cell
        above = cell


def checks(node: NotebookNode) -> tuple[Check, ...]:
    """Return the checks of a notebook, in order.

    Raises :class:`CannotRun` for a check cell without a heading, and for an id that is not unique.
    """
    found: list[Check] = []
    problems = []
    for markdown, cell in _with_markdown(node):
        heading = _HEADING.search(markdown)
        if heading is None:
            problems.append(
                f"cell {cell.id}: no heading like '### GP-01 · Title' in a markdown cell above it"
            )
            continue
        check = _made(heading, markdown, cell)
        if any(check.id == other.id for other in found):
            problems.append(f"cell {cell.id}: there is another check {check.id}")
        found.append(check)
    if problems:
        raise CannotRun(problems)
    return tuple(found)


def _made(heading: re.Match[str], markdown: str, cell: NotebookNode) -> Check:
    interplay = _INTERPLAY.search(markdown)
    ends = interplay["ends"].split("→") if interplay else []
    return Check(
        heading["id"],
        heading["title"],
        _bvj(markdown),
        cell.id,
        markdown,
        tuple(end.strip() for end in ends),
        tuple((found["item"], found["reason"]) for found in _EXCUSED.finditer(markdown)),
    )


def _bvj(markdown: str) -> tuple[str, ...]:
    line = _BVJ.search(markdown)
    return tuple(part.strip() for part in line["parts"].split("|")) if line else ()


def outcome(cell: NotebookNode, check: Check | None) -> Outcome:
    """Return the outcome of an executed cell: of a check by its verdict line and its error.

    A cell that is no check passes if it raised nothing (``check`` is None).
    """
    outputs = cell.outputs
    error = error_of(outputs)
    if check is None:
        if error is None:
            return Outcome(Verdict.PASS)
        return Outcome(Verdict.FAIL, _sentence(error))
    if error is not None:
        if error.ename == "Unknown":
            return Outcome(Verdict.UNKNOWN, plain(error.evalue))
        return Outcome(Verdict.FAIL, _sentence(error))
    lines = [line for text in printed(outputs).splitlines() if (line := _VERDICT.match(text))]
    if not lines:
        never = cell.execution_count is None
        return Outcome(Verdict.UNKNOWN, "it was not run" if never else "it printed no verdict line")
    foreign = next((line["id"] for line in lines if line["id"] != check.id), None)
    if foreign is not None:
        return Outcome(Verdict.UNKNOWN, f"its verdict line names {foreign}")
    worst = max(lines, key=lambda line: Verdict[line["verdict"]])
    verdict = Verdict[worst["verdict"]]
    if verdict is Verdict.PASS:
        return Outcome(verdict)
    reason = (worst["rest"] or "").removeprefix(check.title).removeprefix(":").strip()
    return Outcome(verdict, reason or f"it printed {worst['verdict']} and raised nothing")


def _sentence(error: NotebookNode) -> str:
    return plain(f"{error.ename}: {error.evalue}" if error.evalue else error.ename)


# Parameters


def parameters(node: NotebookNode) -> tuple[Parameter, ...]:
    """Return the typed parameters of the notebook's ``parameters`` cell.

    Raises :class:`CannotRun` when there is no such cell, or it holds anything but assignments of
    literals with an annotation that their defaults fit.
    """
    found, problems = _parameters(node)
    if problems:
        raise CannotRun(problems)
    return found


def _parameters(node: NotebookNode) -> tuple[tuple[Parameter, ...], list[str]]:
    cells = [cell for cell in node.cells if cell.cell_type == "code" and "parameters" in tags(cell)]
    if len(cells) != 1:
        return (), [f"{len(cells) or 'no'} code cell{'s' * (len(cells) > 1)} tagged 'parameters'"]
    source = cells[0].source
    try:
        body = parse(source).body
    except SyntaxError as error:
        return (), [f"parameters cell, line {error.lineno}: {error.msg}"]
    comments = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: list[Parameter] = []
    problems = []
    for statement in body:
        match statement:
            case ast.AnnAssign(
                target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value
            ):
                pass
            case _:
                problems.append(
                    f"parameters cell, line {statement.lineno}: "
                    "not of the form 'name: type = literal  # comment'"
                )
                continue
        wanted = ast.unparse(annotation)
        try:
            default = ast.literal_eval(value)
        except ValueError:
            problems.append(f"parameter {name}: its default is not a literal")
            continue
        fits = _fits(default, annotation)
        if fits is None:
            problems.append(f"parameter {name}: unsupported type {wanted}")
        elif not fits:
            problems.append(
                f"parameter {name}: {wanted} expected, its default is {_given(default)}"
            )
        comment = comments.get(statement.end_lineno or statement.lineno, "")
        found.append(Parameter(name, wanted, default, comment))
    return tuple(found), problems


def validate_parameters(known: Sequence[Parameter], given: Mapping[str, object]) -> list[str]:
    """Return what is wrong with ``given``: names that are not known, values of another type."""
    by_name = {parameter.name: parameter for parameter in known}
    problems = []
    for name, value in given.items():
        parameter = by_name.get(name)
        if parameter is None:
            problems.append(f"no parameter {name}{nearest(name, by_name)}")
        elif not _fits(value, parse_expression(parameter.annotation).body):
            problems.append(
                f"parameter {name}: {parameter.annotation} expected, "
                f"given {_given(MASK if is_secret_name(name) else value)}"
            )
    return problems


def _given(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"


def _fits(value: object, annotation: ast.expr) -> bool | None:
    """Whether ``value`` is of the annotated type; None for an annotation not understood."""
    match annotation:
        case ast.Constant(value=None):
            return value is None
        case ast.Constant(value=str() as text):
            return _fits(value, parse_expression(text).body)
        case ast.Name(id="float"):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.Name(id="int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(id="bool" | "str" | "list" | "dict" | "tuple" as name):
            return type(value).__name__ == name
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            either = (_fits(value, left), _fits(value, right))
            return None if None in either else any(either)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=choices)):
            return any(_same(value, choice) for choice in choices)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choice):
            return _same(value, choice)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            if not isinstance(value, list):
                return False
            each = [_fits(element, item) for element in value]
            return None if None in each else all(each)
    return None


def _same(value: object, choice: ast.expr) -> bool:
    literal = ast.literal_eval(choice)
    return type(value) is type(literal) and value == literal


# The whole form


def validate_form(node: NotebookNode) -> list[str]:
    """Return every violation of the form of a committed notebook; an empty list is a good one."""
    problems: list[str] = []
    first = node.cells[0] if node.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        problems.append("the first cell is not a markdown title ('# …')")
    known, wrong = _parameters(node)
    problems += wrong
    problems += [
        f"parameter {parameter.name}: no comment that says what it is"
        for parameter in known
        if not parameter.comment
    ]
    problems += _well_known(node, "setup")
    problems += _well_known(node, "summary")
    seen_cells: set[str] = set()
    for cell in node.cells:
        if cell.id in seen_cells:
            problems.append(f"cell {cell.id}: another cell has this id")
        seen_cells.add(cell.id)
        if cell.cell_type == "code" and printed(cell.outputs, "stderr"):
            problems.append(f"cell {cell.id}: wrote to stderr")
    seen_ids: set[str] = set()
    seen_bvj: dict[tuple[str, ...], str] = {}
    summary = _summary_text(node)
    for markdown, cell in _with_markdown(node):
        check, wrong = _check(markdown, cell)
        problems += [f"cell {cell.id}: {problem}" for problem in wrong]
        if check is None:
            continue
        if check.id in seen_ids:
            problems.append(f"cell {cell.id}: another check is {check.id}")
        seen_ids.add(check.id)
        if check.bvj:
            other = seen_bvj.setdefault(check.bvj, check.id)
            if other != check.id:
                problems.append(f"cell {cell.id}: the BVJ of {check.id} is that of {other}")
        if summary is not None and not re.search(rf"\b{check.id}\b", summary):
            problems.append(f"cell summary: its output does not list {check.id}")
    return problems


def _well_known(node: NotebookNode, name: str) -> list[str]:
    """Return the violations of there being one code cell with ``name`` as its id and tag."""
    cells = [cell for cell in node.cells if cell.cell_type == "code"]
    named = [cell for cell in cells if cell.id == name]
    tagged = [cell for cell in cells if name in tags(cell)]
    if not named and not tagged:
        return [f"no {name} cell (id {name!r}, tag {name!r})"]
    problems = [] if named == tagged else [f"cell {name}: id and tag {name!r} are not on one cell"]
    if name == "setup" and any("raises-exception" in tags(cell) for cell in tagged):
        problems.append("cell setup: tagged raises-exception; a failed setup has to stop the run")
    if name == "summary" and tagged and tagged[-1] is not cells[-1]:
        problems.append("cell summary: is not the last code cell")
    return problems


def _summary_text(node: NotebookNode) -> str | None:
    for cell in node.cells:
        if cell.cell_type == "code" and "summary" in tags(cell):
            shown = [
                output.data["text/plain"]
                for output in cell.outputs
                if "data" in output and "text/plain" in output.data
            ]
            return printed(cell.outputs) + "\n".join(shown)
    return None


def _check(markdown: str, cell: NotebookNode) -> tuple[Check | None, list[str]]:
    """Return a check, as far as its heading tells it, and every violation of its two cells."""
    problems = [
        f"is not tagged {tag}"
        for tag in ("nbval-check-output", "raises-exception")
        if tag not in tags(cell)
    ]
    check = None
    if not markdown:
        problems.append("no markdown cell above it")
    else:
        heading = _HEADING.search(markdown)
        if heading is None:
            problems.append("no heading like '### GP-01 · Title' above it")
        else:
            check = _made(heading, markdown, cell)
        lines = _BVJ.findall(markdown)
        parts = _bvj(markdown)
        if len(lines) != 1:
            problems.append(f"{len(lines) or 'no'} BVJ line{'s' * (len(lines) > 1)} above it")
        elif len(parts) != 4 or not all(parts):
            problems.append("its BVJ does not have four parts (segment | goal | value | strategic)")
        problems += _interplay(markdown, check)
    problems += _code(cell.source, check)
    problems += _record(cell, check)
    if check is not None and not re.fullmatch(rf"{check.id.lower()}-[a-z0-9-]+", cell.id):
        problems.append(f"its id is not {check.id.lower()}-… as its heading says")
    return check, problems


def _interplay(markdown: str, check: Check | None) -> list[str]:
    """Return what is wrong with the line that names the two components."""
    lines = _INTERPLAY.findall(markdown)
    if len(lines) != 1:
        return [f"{len(lines) or 'no'} line like 'Interplay: auth → database' above it"]
    between = check.between if check is not None else ()
    if len(between) != 2 or between[0] == between[1]:
        return [f"its interplay is not between two components ({lines[0].strip()})"]
    return [
        f"its interplay names no component {each!r}{nearest(each, COMPONENTS)}"
        for each in between
        if each not in COMPONENTS
    ]


def _code(source: str, check: Check | None) -> list[str]:
    """Return the violations that stand in the source of a check cell."""
    try:
        tree = parse(source)
    except SyntaxError as error:
        return [f"line {error.lineno} is not plain Python: {error.msg}"]
    problems = []
    named = [
        item.context_expr
        for block in ast.walk(tree)
        if isinstance(block, ast.AsyncWith)
        for item in block.items
        if isinstance(item.context_expr, ast.Call)
        and ast.unparse(item.context_expr.func) == "lab.check"
    ]
    if len(named) != 1:
        problems.append(f"{len(named) or 'no'} 'async with lab.check(…)' in it")
    elif check is not None:
        given = [ast.unparse(each) for each in named[0].args]
        if given[:2] != [repr(check.id), repr(check.title)]:
            problems.append(f"lab.check({', '.join(given)}) is not what its heading says")
    if not any(isinstance(each, ast.Assert) for each in ast.walk(tree)):
        problems.append("it asserts nothing")
    for each in ast.walk(tree):
        if isinstance(each, ast.Call) and ast.unparse(each.func).rpartition(".")[2] == "sleep":
            problems.append(f"line {each.lineno} calls sleep; wait for a condition")
        if port := _literal_port(each):
            problems.append(f"literal port {port}")
    return problems


def _literal_port(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=str() as text) if found := _HOST_AND_PORT.search(text):
            return found[0]
        case (
            ast.keyword(arg=str() as name, value=ast.Constant(value=int() as port))
            | ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int() as port))
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=int() as port))
        ) if port and re.fullmatch(r"(?:.*_)?port", name):
            return str(port)
        case ast.Tuple(elts=[ast.Constant(value=str() as host), ast.Constant(value=int() as port)]):
            return str(port) if port and _HOST.fullmatch(host) else None
    return None


def _record(cell: NotebookNode, check: Check | None) -> list[str]:
    """Return the violations of what a check cell has on record of its last run."""
    if cell.execution_count is None or not cell.outputs:
        return ["never run: no record of a run; run ssot author"]
    problems = []
    error = error_of(cell.outputs)
    if error is not None:
        problems.append(f"its record is of an error: {_sentence(error)}")
    lines = printed(cell.outputs).splitlines()
    found = [line for text in lines if (line := _VERDICT.match(text))]
    if not found:
        problems.append("no verdict line on record")
        return problems
    if len(found) > 1:
        problems.append(f"{len(found)} verdict lines on record, not one")
    if not _VERDICT.match(lines[0]):
        problems.append("its verdict line is not the first thing it printed")
    if found[0]["verdict"] != "PASS":
        problems.append(f"the verdict on record is {found[0]['verdict']}, not PASS")
    elif check is not None and (found[0]["id"], found[0]["rest"]) != (check.id, check.title):
        problems.append(f"the verdict on record, {found[0][0]!r}, is not what its heading says")
    return problems

"""A defect: edits that put a known failure back into a copy of the package."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ssot.errors import SsotError

__all__ = ["Defect", "DoesNotApply", "Edit", "apply", "problems_of"]

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# What exists to test the platform is no part of it.
_NOT_PRODUCT = ("ssot/lab/", "ssot/cli/")


class DoesNotApply(SsotError):
    """An edit does not fit the source any more, or what it makes does not compile."""


@dataclass(frozen=True, slots=True)
class Edit:
    """In ``file`` (``ssot/…``), the one place that reads ``before`` becomes ``after``."""

    file: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Defect:
    """A way to fail.

    ``title`` says what is wrong in the code, ``symptom`` what a user or an operator notices. Each
    check of ``caught_by`` has to fail, each of ``control`` to pass (empty: the notebook's own
    choice). ``incidents`` are numbers of ``docs/incidents.md``.
    """

    id: str
    title: str
    symptom: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]
    control: tuple[str, ...] = ()
    incidents: tuple[int, ...] = ()


def problems_of(defect: Defect) -> list[str]:
    """What is wrong with a defect as it is written, each problem in a sentence."""
    if ill_typed := [*_ill_typed(defect)]:
        return ill_typed
    problems = []
    if not _ID.fullmatch(defect.id):
        problems.append("its id is not of small letters and digits, joined by hyphens")
    if not defect.title.strip():
        problems.append("it has no title")
    if not defect.caught_by:
        problems.append("it names no check that catches it")
    if both := sorted({*defect.caught_by} & {*defect.control}):
        problems.append(f"{', '.join(both)} cannot both catch it and be its control")
    if not defect.edits:
        problems.append("it edits nothing")
    for edit in defect.edits:
        parts = PurePosixPath(edit.file).parts
        if parts[:1] != ("ssot",) or ".." in parts or edit.file.startswith(_NOT_PRODUCT):
            problems.append(f"{edit.file} is no file of the product (ssot/, without lab and cli)")
        if not edit.before.strip():
            problems.append(f"{edit.file}: an edit must say what stood there before")
        if edit.before == edit.after:
            problems.append(f"{edit.file}: an edit changes nothing")
    return [f"defect {defect.id}: {problem}" for problem in problems]


def _ill_typed(defect: Defect) -> Iterator[str]:
    """What of a defect is not of its type: whoever writes one is not always type-checked."""
    wanted = {"edits": Edit, "caught_by": str, "control": str, "incidents": int}
    for name in ("id", "title", "symptom"):
        if not isinstance(getattr(defect, name), str):
            yield f"defect {defect.id}: its {name} is no text"
    for name, kind in wanted.items():
        value = getattr(defect, name)
        if not isinstance(value, list | tuple) or not all(isinstance(v, kind) for v in value):
            yield f"defect {defect.id}: its {name} are not a tuple of {kind.__name__}"
    for edit in defect.edits if isinstance(defect.edits, list | tuple) else ():
        if isinstance(edit, Edit) and not all(
            isinstance(text, str) for text in (edit.file, edit.before, edit.after)
        ):
            yield f"defect {defect.id}: an edit is not of three texts"


def apply(defect: Defect, folder: Path) -> str:
    """Edit the package ``ssot`` in ``folder``, and return what was changed as a unified diff.

    Edits of one file are made one after the other. Nothing is written unless all apply and every
    module still compiles; :class:`DoesNotApply` tells what was looked for, and where.
    """
    if problems := problems_of(defect):
        raise DoesNotApply("\n".join(problems))
    old: dict[str, str] = {}
    new: dict[str, str] = {}
    for edit in defect.edits:
        if edit.file not in new:
            old[edit.file] = new[edit.file] = _read(defect, folder, edit.file)
        new[edit.file] = _edited(defect, edit, new[edit.file])
    for file, text in new.items():
        _compile(defect, file, text)
    for file, text in new.items():
        (folder / file).write_text(text, encoding="utf-8")
    return "".join(line for file, text in new.items() for line in _diff(file, old[file], text))


def _read(defect: Defect, folder: Path, file: str) -> str:
    try:
        return (folder / file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DoesNotApply(f"defect {defect.id} no longer applies: there is no {file}") from None


def _edited(defect: Defect, edit: Edit, text: str) -> str:
    # A look ahead, so that places which overlap are two.
    places = [match.start() for match in re.finditer(f"(?={re.escape(edit.before)})", text)]
    if len(places) == 1:
        return text[: places[0]] + edit.after + text[places[0] + len(edit.before) :]
    looked_for = "\n".join(f"  | {line}" for line in edit.before.splitlines())
    if places:
        numbers = ", ".join(str(text.count("\n", 0, place) + 1) for place in places)
        found = f"stands there {len(places)} times, in lines {numbers}; it must be unique"
    else:
        found = f"is not there{_nearest(edit.before, text.splitlines())}"
    raise DoesNotApply(
        f"defect {defect.id} no longer applies: in {edit.file}, this {found}:\n{looked_for}"
    )


def _nearest(before: str, lines: Sequence[str]) -> str:
    """Where the first line that is missing may have gone."""
    stripped = [line.strip() for line in lines]
    wanted = [line.strip() for line in before.splitlines() if line.strip()]
    missing = next((line for line in wanted if line not in stripped), wanted[0])
    close = difflib.get_close_matches(missing, stripped, n=1, cutoff=0.5)
    if not close:
        return ", and nothing like it"
    return f"; the nearest is line {stripped.index(close[0]) + 1}, {close[0]!r}"


def _compile(defect: Defect, file: str, text: str) -> None:
    if not file.endswith(".py"):
        return
    try:
        compile(text, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise DoesNotApply(
            f"defect {defect.id} makes {file} no Python any more"
            f"{f', line {line}' if line else ''}: {error.args[0]}"
        ) from None


def _diff(file: str, old: str, new: str) -> list[str]:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{file}", f"b/{file}"
    )
    return [
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    ]

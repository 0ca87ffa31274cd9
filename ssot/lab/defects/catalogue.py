"""The defects there are: the house's own by notebook, and those of a file or a folder."""

from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssot.lab.defects import environment, golden_path
from ssot.lab.defects.model import Defect, problems_of
from ssot.lab.defects.patch import read_patch
from ssot.lab.notebook import CannotRun, nearest

__all__ = ["builtin", "load", "select"]

_MODULES = (golden_path, environment)


def builtin() -> tuple[Defect, ...]:
    """Every defect of the house, in the order of its notebooks and checks."""
    return _complete(defect for module in _MODULES for defect in module.DEFECTS)


def load(path: Path) -> tuple[Defect, ...]:
    """The defects of a Python file with ``DEFECTS = (…)``, of a ``.patch``, or of a folder of both.

    Raises :class:`~ssot.lab.notebook.CannotRun` with everything that is wrong with them.
    """
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in (".py", ".patch"))
        if not files:
            raise CannotRun([f"{path}: no .py and no .patch in it"])
    elif path.is_file():
        files = [path]
    else:
        hint = nearest(path.name, {each.name for each in path.parent.glob("*")})
        raise CannotRun([f"no defects at {path}{hint}"])
    found: list[Defect] = []
    problems: list[str] = []
    for file in files:
        try:
            found += _of_file(file)
        except CannotRun as error:
            problems += error.problems
    if problems:
        raise CannotRun(problems)
    return _complete(found)


def select(
    defects: Sequence[Defect], *, ids: Collection[str] = (), checks: Collection[str] = ()
) -> tuple[Defect, ...]:
    """Those with one of the ``ids``, and those caught by one of the ``checks``; without both, all.

    Raises :class:`~ssot.lab.notebook.CannotRun` for what selects nothing.
    """
    known = {defect.id for defect in defects}
    named = {check for defect in defects for check in defect.caught_by}
    problems = [f"no defect {each}{nearest(each, known)}" for each in ids if each not in known]
    problems += [
        f"no defect is caught by {each}{nearest(each, named)}"
        for each in checks
        if each not in named
    ]
    if problems:
        raise CannotRun(problems)
    if not ids and not checks:
        return tuple(defects)
    return tuple(
        defect for defect in defects if defect.id in ids or {*checks} & {*defect.caught_by}
    )


def _of_file(file: Path) -> tuple[Defect, ...]:
    if file.suffix == ".patch":
        try:
            return (read_patch(file.stem, file.read_text(encoding="utf-8")),)
        except (OSError, UnicodeDecodeError) as error:
            raise CannotRun([f"{file}: cannot be read: {error}"]) from error
    try:
        names: Mapping[str, Any] = runpy.run_path(str(file))
    except (Exception, SystemExit) as error:  # whatever the file does
        raise CannotRun([f"{file}: {type(error).__name__}: {error}"]) from error
    defects = names.get("DEFECTS")
    if not isinstance(defects, list | tuple) or not defects:
        raise CannotRun([f"{file}: there is no DEFECTS = (Defect(…), …) in it"])
    if wrong := [each for each in defects if not isinstance(each, Defect)]:
        raise CannotRun([f"{file}: {each!r} is no Defect" for each in wrong])
    return tuple(defects)


def _complete(defects: Iterable[Defect]) -> tuple[Defect, ...]:
    """The defects with their controls, each known to be well written and named by itself."""
    usual = {_series(module.CONTROL[0]): module.CONTROL for module in _MODULES}
    found: list[Defect] = []
    problems: list[str] = []
    for defect in defects:
        if any(defect.id == other.id for other in found):
            problems.append(f"defect {defect.id}: there is another of this id")
        wrong = problems_of(defect)
        if not wrong and not defect.control:
            control = usual.get(_series(defect.caught_by[0]), ())
            defect = dataclasses.replace(defect, control=control)
            wrong = problems_of(defect)
            if not control:
                wrong.append(f"defect {defect.id}: it names no control")
        problems += wrong
        found.append(defect)
    if problems:
        raise CannotRun(problems)
    return tuple(found)


def _series(check_id: str) -> str:
    return check_id.rpartition("-")[0]

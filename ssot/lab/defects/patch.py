"""A defect as a unified diff, with a header that says what catches it.

.. code-block:: text

    # title: A login asks only whether the account exists
    # symptom: whoever knows a name is let in
    # caught-by: GP-03
    # control: GP-05
    --- a/ssot/auth/accounts.py
    +++ b/ssot/auth/accounts.py
    @@ -64,3 +64,3 @@
             user_id, stored = found or ("", self._nobody)
    -        if not await asyncio.to_thread(matches, password, stored) or not found:
    +        if not found:
                 raise AuthenticationError(_REFUSED)

``caught-by`` and ``title`` must be there. The place of a hunk is found by its lines, which must
occur once, and not by its line numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ssot.lab.defects.model import Defect, Edit
from ssot.lab.notebook import CannotRun, nearest

__all__ = ["read_patch"]

_FIELDS = ("title", "symptom", "caught-by", "control", "incidents")
_HEADER = re.compile(r"#\s*(?P<name>[A-Za-z-]+)\s*:\s*(?P<value>.*)")
_HUNK = re.compile(r"@@ -\d+(?:,(?P<old>\d+))? \+\d+(?:,(?P<new>\d+))? @@")


def read_patch(name: str, text: str) -> Defect:
    """Return the defect of a patch; ``name`` becomes its id.

    Raises :class:`~ssot.lab.notebook.CannotRun` with everything that is wrong with the patch.
    """
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith("--- ")), len(lines))
    fields: dict[str, str] = {}
    problems = []
    for line in lines[:begin]:
        if header := _HEADER.fullmatch(line.strip()):
            field = header["name"].lower()
            if field not in _FIELDS:
                problems.append(f"{name}: no field {field}{nearest(field, _FIELDS)}")
            fields[field] = header["value"].strip()
    problems += [
        f"{name}: there is no line '# {field}: …' above the diff"
        for field in ("title", "caught-by")
        if not fields.get(field)
    ]
    incidents = _words(fields.get("incidents", ""))
    problems += [
        f"{name}: incident {each!r} is no number" for each in incidents if not each.isdecimal()
    ]
    edits: tuple[Edit, ...] = ()
    try:
        edits = tuple(_edits(lines[begin:]))
    except ValueError as error:
        problems.append(f"{name}: {error}")
    if not edits and not problems:
        problems.append(f"{name}: there is no diff in it")
    if problems:
        raise CannotRun(problems)
    return Defect(
        id=name,
        title=fields["title"],
        symptom=fields.get("symptom", ""),
        edits=edits,
        caught_by=_words(fields["caught-by"]),
        control=_words(fields.get("control", "")),
        incidents=tuple(int(each) for each in incidents),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _edits(lines: Sequence[str]) -> Iterator[Edit]:
    """Yield an edit for each hunk; :class:`ValueError` for what is no diff of existing files."""
    file = old = ""
    left = iter(lines)
    for line in left:
        if line.startswith("--- "):
            old = _path(line, "a/")
        elif line.startswith("+++ "):
            file = _path(line, "b/")
            if file != old:
                raise ValueError(f"{old} becomes {file}; a defect edits files that are there")
        elif hunk := _HUNK.match(line):
            if not file:
                raise ValueError("a hunk stands before the name of its file")
            yield _edit(file, left, int(hunk["old"] or 1), int(hunk["new"] or 1))


def _path(line: str, prefix: str) -> str:
    return line[4:].partition("\t")[0].strip().removeprefix(prefix)


def _edit(file: str, lines: Iterator[str], old: int, new: int) -> Edit:
    """Read a hunk of so many old and new lines; the count tells where it ends."""
    before: list[str] = []
    after: list[str] = []
    while len(before) < old or len(after) < new:
        line = next(lines, None)
        if line is None:
            raise ValueError(f"{file}: the last hunk is cut off")
        if line.startswith("\\"):
            continue
        kind, content = (line[0], line[1:]) if line else (" ", "")
        if kind not in " -+":
            raise ValueError(f"{file}: {line!r} is no line of a diff")
        if kind != "+":
            before.append(content)
        if kind != "-":
            after.append(content)
    # Whole lines, so that the end of one line is no match for the end of another.
    return Edit(file, "\n".join(before) + "\n", "\n".join(after) + "\n" * bool(after))

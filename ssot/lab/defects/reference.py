"""The page of the defects, made from their catalogue: ``docs/defects.md``.

``python -m ssot.lab.defects.reference``, run in the repository, writes it anew.
"""

from __future__ import annotations

import inspect
import sys
from itertools import groupby
from pathlib import Path

from ssot.lab.defects import patch
from ssot.lab.defects.catalogue import builtin

__all__ = ["PAGE", "main", "page"]

PAGE = Path("docs/defects.md")

_INTRODUCTION = """\
# Seeded defects

A check that cannot fail is worth nothing. `ssot prove` breaks the code on purpose, in a copy and
one way at a time, and runs the checks on the copy: each check that a defect names must fail, by an
assertion of its own that tells the symptom, while the control still passes. Its own is an
`assert` in its cell, or what the cell asked the lab to expect: an error that was not raised, or
something that was waited for in vain. These are ways in which such systems have really failed;
the numbers are those of [incidents](incidents.md).

Made by `python -m ssot.lab.defects.reference` from `ssot/lab/defects/`.
"""

_OWN = """\
## Your own

A defect is a few edits of the product's source. In each, `before` must occur once in its file:

```python
from ssot.lab.defects.model import Defect, Edit

DEFECTS = (
    Defect(
        id="a-name-is-enough",
        title="A login asks only whether the account exists",
        symptom="whoever knows a name is let in",
        caught_by=("GP-03",),
        edits=(
            Edit(
                "ssot/auth/accounts.py",
                "if not await asyncio.to_thread(matches, password, stored) or not found:",
                "if not found:",
            ),
        ),
    ),
)
```

`ssot prove --defects FILE` tries them; instead of the file it takes a patch, or a folder of both. A
patch begins with what catches it:

```diff
%s
```
"""


def page() -> str:
    """The page for whoever adds a check or a defect."""
    parts = [_INTRODUCTION]
    for series, defects in groupby(builtin(), lambda each: each.caught_by[0].rpartition("-")[0]):
        parts += [
            f"## {series}",
            "",
            "| check | defect | what is wrong | what one notices | incidents |",
        ]
        parts += ["|---|---|---|---|---|"]
        for each in defects:
            incidents = ", ".join(map(str, each.incidents))
            cells = (", ".join(each.caught_by), f"`{each.id}`", each.title, each.symptom, incidents)
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    example = (inspect.getdoc(patch) or "").partition("code-block")[2]
    lines = [line[4:] for line in example.splitlines() if line.startswith("    ")]
    return "\n".join(parts) + "\n" + _OWN % "\n".join(lines)


def main() -> int:
    """Write the page, in the working directory; returns the exit code."""
    if not PAGE.parent.is_dir():
        sys.stderr.write(f"no {PAGE.parent} here: run this in the repository\n")
        return 2
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

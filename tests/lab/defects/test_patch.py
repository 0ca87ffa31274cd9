"""Defects that come as unified diffs."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.lab.defects import patch
from ssot.lab.defects.model import Edit, apply
from ssot.lab.defects.patch import read_patch
from ssot.lab.notebook import CannotRun

HEADER = """\
# title: It forgets
# symptom: users wait
# caught-by: GP-05, GP-07
# control: GP-01
# incidents: 30 31
diff --git a/ssot/a.py b/ssot/a.py
index 111..222 100644
"""
DIFF = """\
--- a/ssot/a.py\t2026-01-01
+++ b/ssot/a.py\t2026-01-02
@@ -10,3 +10,2 @@ def f():
 x = 1
-y = 2

@@ -30 +29,2 @@
-z = 3
+z = 4
+--- no header
--- a/ssot/b.lua
+++ b/ssot/b.lua
@@ -1,2 +1,2 @@
-return 1
+return 2
 end
"""


def test_a_patch_is_a_defect() -> None:
    """The header says what catches it; each hunk is an edit of whole lines."""
    defect = read_patch("it-forgets", HEADER + DIFF)
    assert (defect.id, defect.title, defect.symptom) == ("it-forgets", "It forgets", "users wait")
    assert (defect.caught_by, defect.control) == (("GP-05", "GP-07"), ("GP-01",))
    assert defect.incidents == (30, 31)
    assert defect.edits == (
        Edit("ssot/a.py", "x = 1\ny = 2\n\n", "x = 1\n\n"),
        Edit("ssot/a.py", "z = 3\n", "z = 4\n--- no header\n"),
        Edit("ssot/b.lua", "return 1\nend\n", "return 2\nend\n"),
    )


def test_the_example_of_the_page_is_a_patch() -> None:
    """Whoever copies it gets a defect."""
    text = inspect.getdoc(patch).partition("code-block:: text")[2]
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    assert read_patch("example", "\n".join(lines)).caught_by == ("GP-03",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (DIFF, ["no line '# title: …'", "no line '# caught-by: …'"]),
        (HEADER.replace("caught-by", "cought-by") + DIFF, ["no field cought-by; did you mean caught-by?"]),
        (HEADER, ["there is no diff in it"]),
        (HEADER.replace("30", "thirty") + DIFF, ["incident 'thirty' is no number"]),
        (HEADER + DIFF.replace("--- a/ssot/a.py", "--- /dev/null"), ["/dev/null becomes ssot/a.py"]),
        (HEADER + DIFF[: DIFF.index(" end")], ["ssot/b.lua: the last hunk is cut off"]),
        (HEADER + DIFF.replace("-y = 2", "y = 2"), ["'y = 2' is no line of a diff"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_patch_is_told(text: str, told: list[str]) -> None:
    """Each problem names the patch."""
    with pytest.raises(CannotRun) as refused:
        read_patch("it-forgets", text)
    assert all(problem.startswith("it-forgets: ") for problem in refused.value.problems)
    assert [part for part in told if part not in str(refused.value)] == []


LINES = st.lists(st.text("ab ", max_size=4), min_size=1, max_size=12, unique=True)


@given(LINES, LINES)
def test_a_patch_of_difflib_makes_the_new_file(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str]
) -> None:
    """Read and applied, a diff between two texts turns the one into the other."""
    before, after = ("\n".join(lines) + "\n" for lines in (old, new))
    diff = "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True),
            "a/ssot/x.txt", "b/ssot/x.txt", n=20,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("copy")
    (folder / "ssot").mkdir()
    file: Path = folder / "ssot/x.txt"
    file.write_text(before)
    if before == after or not before.strip():
        return
    apply(read_patch("x", HEADER.partition("diff")[0] + diff), folder)
    assert file.read_text() == after

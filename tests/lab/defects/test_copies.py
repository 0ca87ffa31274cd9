"""Copies of the package, and who has run them."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebooks.samples import until

from ssot.lab.defects import copies
from ssot.lab.defects.copies import Copy

PACKAGE = Path(__file__).parents[3] / "ssot"

# Stands for a kernel, by its command line: it runs the package and starts a process of it, which
# waits for a database that is not there.
KERNEL = """
import os, subprocess, sys
import ssot.errors
path = sys.argv[2] or os.environ["PYTHONPATH"]
child = subprocess.Popen(
    [sys.executable, "-m", "ssot.serve", "auth"],
    env={
        "PYTHONPATH": path, "AUTH_SIGNING_KEY": "Xq3v" + "Ab7_-" * 7 + "9dQz",
        "SSOT_DATABASE_URL": "postgresql://nobody:nothing-at-all@127.0.0.1:1/none",
    },
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
print("up", flush=True)
sys.stdin.read()
child.kill()
child.wait()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """One copy of the package for all."""
    return Copy.of_package(PACKAGE, tmp_path_factory.mktemp("copies") / "source")


@pytest.fixture
def copy(source: Copy, tmp_path: Path) -> Copy:
    """A copy for one test."""
    return source.again(tmp_path / "copy")


@pytest.fixture
def kernel(copy: Copy) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.communicate(timeout=20)


def start(copy: Copy, started: list[subprocess.Popen[str]], child_path: Path | str = "") -> None:
    environment = {**os.environ, **copy.environment(os.environ)}
    process = subprocess.Popen(
        [sys.executable, "-c", KERNEL, "ipykernel_launcher", str(child_path)],
        env=environment, cwd=copy.folder.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"


def told(copy: Copy) -> set[str]:
    return {f"{each['file']} {each['command'][-1]}" for each in copy.witnesses()}


def test_a_copy_is_what_runs_and_says_so(copy: Copy, kernel: list[subprocess.Popen[str]]) -> None:
    """The package and each edited module tell which process ran them, also one run as a program."""
    with copy.watch(["ssot/errors.py", "ssot/serve.py"]) as observer:
        start(copy, kernel)
        wanted = {"ssot/serve.py auth", "ssot/__init__.py auth", "ssot/errors.py auth"}
        until(
            lambda: wanted <= told(copy), within=20, what="the process of the kernel ran the copy"
        )
        assert {each["pid"] for each in copy.witnesses()} > {kernel[0].pid}
        assert observer.doubts(finished=True) == []


def test_a_process_that_runs_other_code_is_noticed(
    copy: Copy, kernel: list[subprocess.Popen[str]]
) -> None:
    """A child without the copy on its path proves nothing, whatever its check says."""
    with copy.watch() as observer:
        start(copy, kernel, PACKAGE.parent)
        doubts = until(lambda: observer.doubts(finished=True), within=20, what="a doubt")
    assert "ssot.serve auth ran with another PYTHONPATH" in doubts
    assert "ssot.serve auth did not run this copy" in doubts
    assert observer.doubts(finished=False) == []


def test_a_copy_that_nobody_ran_is_noticed(copy: Copy) -> None:
    """No kernel, no proof; and a module that was edited must have been run."""
    with copy.watch(["ssot/serve.py"]) as observer:
        assert observer.doubts(finished=True) == ["no kernel ran this copy"]
        run = [sys.executable, "-c", "import ssot.errors", "ipykernel"]
        subprocess.run(run, env=os.environ | copy.environment({}), cwd="/", check=True)
    assert observer.doubts(finished=True) == ["no process ran ssot/serve.py, which was edited"]


def test_an_edit_is_never_run_as_it_was_compiled_before(source: Copy, tmp_path: Path) -> None:
    """Also an edit of the same length, in the same second, with the time of the file put back."""
    copy = source.again(tmp_path / "copy")
    module = copy.folder / "ssot/retry.py"
    before = module.stat()
    text = module.read_text()
    assert "_FIRST_PAUSE = 0.01" in text
    module.write_text(text.replace("_FIRST_PAUSE = 0.01", "_FIRST_PAUSE = 0.07"))
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    code = "import ssot.retry as m; print(m._FIRST_PAUSE, m.__cached__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | copy.environment({}), cwd="/",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    value, compiled = done.stdout.split()
    assert value == "0.07"
    assert Path(compiled).is_relative_to(copy.folder)


def test_the_copy_comes_before_what_was_on_the_path(tmp_path: Path) -> None:
    """An empty entry would mean the working directory: none is made."""
    copy = Copy(tmp_path)
    assert copy.environment({}) == {"PYTHONPATH": str(tmp_path)}
    assert copy.environment({"PYTHONPATH": "a:b"}) == {"PYTHONPATH": f"{tmp_path}:a:b"}


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x = 1\n",
        '"""é says."""\nfrom __future__ import annotations  # why\n\nx = 1\n',
        '"""It says."""; y = 1\nx = 1',
        "from __future__ import annotations\r\nx = 1\r\n",
        "# only this\n",
        'if True:\n    x = 1\n"""no docstring"""\n',
    ],
)
def test_a_probe_changes_nothing_but_that_it_is_run(source: str) -> None:
    """The module keeps its docstring, its names and, where it begins with one, its lines."""
    names: dict = {"seen": []}
    made = copies._with_probe(source.encode(), "import builtins; builtins.probed = True")
    exec(compile(made, "module", "exec"), names)
    plain: dict = {"seen": []}
    exec(compile(source, "module", "exec"), plain)
    assert names.keys() == plain.keys()
    assert names.get("__doc__") == plain.get("__doc__")
    import builtins

    assert builtins.__dict__.pop("probed")


@given(st.sampled_from(sorted(PACKAGE.rglob("*.py"))))
def test_every_module_can_be_probed(path: Path) -> None:
    """A traceback through a probed module shows the lines of its source."""
    source = path.read_bytes()
    made = copies._with_probe(source, "pass")
    compile(made, str(path), "exec", dont_inherit=True)
    assert len(made.splitlines()) <= len(source.splitlines()) + 1
    if source.startswith(b'"""'):
        assert len(made.splitlines()) == len(source.splitlines())


def test_a_traceback_keeps_its_line() -> None:
    """An error in a probed module is where it stands in the source."""
    made = copies._with_probe(b'"""A module."""\n\n1 / 0\n', "pass")
    with pytest.raises(ZeroDivisionError) as raised:
        exec(compile(made, "module", "exec"), {})
    assert traceback.extract_tb(raised.tb)[-1].lineno == 3


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["python", "-m", "ssot.serve", "node"], "ssot.serve node"),
        (["python", "-X", "dev", "-m", "ssot.serve", "all", "--until-eof"], "ssot.serve all"),
        (["python", "-m", "ssot"], "ssot"),
        (["python", "-m", "ipykernel_launcher", "-f", "x"], ""),
        (["python", "-m", "ssotter"], ""),
        (["postgres", "-D", "-m"], ""),
        ([], ""),
    ],
)
def test_a_process_of_ours_is_known_by_its_command(command: list[str], role: str) -> None:
    """Whatever runs a module of the package, by the module and its first argument."""
    assert copies._role(command) == role

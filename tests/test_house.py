"""The rules of the house: which way imports point, what a module says of itself, no mocks."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "ssot"

SCRIPTS = {"ssot/lab/services/watchdog.py"}
"""What is run by its path, and imported by nobody."""

MODULES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in PACKAGE.rglob("*.py")
    if "migrations" not in path.relative_to(PACKAGE).parts[:-1]
)


@cache
def parsed(path: str) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """Every module that is imported, at the top or later; of `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def files() -> list[Path]:
    """The files of the repository: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    except OSError:
        pytest.skip("git is not installed")
    if done.returncode != 0:
        pytest.skip(f"no git repository: {done.stderr.strip()}")
    paths = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def found(pattern: str, paths: list[Path]) -> list[str]:
    """Where the pattern occurs, as `file:line: match`; images have no text."""
    places = []
    for path in paths:
        if path == Path(__file__):
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            if match := re.search(pattern, line):
                places.append(f"{path.relative_to(REPOSITORY)}:{number}: {match[0]}")
    return places


def test_imports_point_one_way():
    """Every contract of import-linter holds."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES)
def test_a_module_says_what_it_is_for_and_what_it_offers(path: str):
    """It has a docstring and a sorted `__all__` that names only what exists."""
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{path} has no docstring"
    if len(tree.body) == 1 or path in SCRIPTS:
        return
    module = importlib.import_module(
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    )
    offered = getattr(module, "__all__", None)
    assert offered is not None, f"{path} has no __all__"
    # As ruff sorts it: constants, then classes, then the rest.
    ordered = sorted(offered, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert list(offered) == ordered
    assert len(set(offered)) == len(offered)
    assert [name for name in offered if not hasattr(module, name)] == []


def test_nothing_outside_the_lab_imports_the_lab():
    """The product has no idea that it is tested; the command line alone drives the lab."""
    for path in MODULES:
        if path.startswith(("ssot/lab/", "ssot/cli/")):
            continue
        lab = {name for name in imported(parsed(path)) if re.match(r"ssot\.(lab|cli)(\.|$)", name)}
        assert not lab, f"{path} imports {lab}"


def test_the_command_line_imports_the_lab_lazily():
    """`ssot --help` does not load what runs notebooks."""
    code = "import sys, ssot.cli; print(*(n for n in sys.modules if n.startswith('ssot.lab')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_there_is_no_mock():
    """Real services only: no double takes the place of one, in the package, notebooks or tests."""
    doubles = r"unittest\W+(import\W+)?mock|MagicMock|AsyncMock|fakeredis|pytest_mock|\bmocker\b"
    places = [REPOSITORY / name for name in ("ssot", "notebooks", "tests")]
    # The audit looks for them in a running kernel, so it knows their names.
    looking = {REPOSITORY / "ssot/lab/watch.py", REPOSITORY / "tests/lab/test_audit.py"}
    sources = [path for path in files() if any(place in path.parents for place in places)]
    assert sources
    assert found(doubles, [path for path in sources if path not in looking]) == []


def test_no_file_knows_the_machine_it_was_written_on():
    """No path of one machine, and no address of a package registry, travels with the source."""
    here = r"/root/\w|/home/\w+/|/Users/\w+/|/tmp/w\b|(?<![\w.}])/work/\w"
    registry = r"(extra-)?index-url|find-links|file:///|https?://[^\s/]+/simple\b"
    assert found(f"{here}|{registry}", files()) == []

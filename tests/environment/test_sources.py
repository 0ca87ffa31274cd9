"""Which environment this is, what is read for it besides the process, and the nearest known name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ssot.environment import BOOTSTRAP, KINDS, IsolatedEnvironment, Sources, detect, nearest
from ssot.errors import SettingsError


def test_a_program_has_as_long_as_the_process_says(tmp_path: Path) -> None:
    """A service that must start at once gives them less, one that asks a slow vault gives more."""
    assert Sources.of({}).timeout == 5
    assert Sources.of({"SSOT_ENV_COMMAND_TIMEOUT": "0.25"}).timeout == 0.25

    path = Path(shutil.which("tail") or "").parent
    (tmp_path / ".env").write_text("A=$(tail -f /dev/null)\n")
    with pytest.raises(SettingsError, match=r"'tail' did not end within 0\.2 s"):
        IsolatedEnvironment.load(
            {
                "PATH": str(path),
                "SSOT_ENV_DIRECTORY": str(tmp_path),
                "SSOT_ENV_COMMANDS": "tail",
                "SSOT_ENV_COMMAND_TIMEOUT": "0.2",
            }
        )


@pytest.mark.parametrize("given", ["", "soon", "0", "-1", "61", "inf", "nan"])
def test_a_time_that_is_none_is_refused(given: str) -> None:
    """No time, no end and no number are told by name; nothing is guessed in their place."""
    with pytest.raises(SettingsError, match=r"SSOT_ENV_COMMAND_TIMEOUT is .*at most 60"):
        IsolatedEnvironment.load({"SSOT_ENV_COMMAND_TIMEOUT": given})


def test_what_is_wrong_with_the_reading_is_told_with_what_was_read(tmp_path: Path) -> None:
    """Of a deployment with two mistakes both are in one report, whichever is found first."""
    (tmp_path / "settings").write_text("1=2\n")
    process = {"SSOT_ENV_FILES": str(tmp_path / "settings"), "SSOT_ENV_COMMAND_TIMEOUT": "soon"}
    with pytest.raises(SettingsError) as both:
        IsolatedEnvironment.load(process)
    assert "SSOT_ENV_COMMAND_TIMEOUT" in both.value.problems[0]
    assert "settings, line 1" in both.value.problems[1]
    assert len(both.value.problems) == 2
    with pytest.raises(SettingsError) as unknown:
        IsolatedEnvironment.load({"SSOT_ENVIRONMENT": "prod", "SSOT_ENV_COMMAND_TIMEOUT": "soon"})
    assert [problem.partition(" ")[0] for problem in unknown.value.problems] == [
        "SSOT_ENVIRONMENT",
        "SSOT_ENV_COMMAND_TIMEOUT",
    ]


@pytest.mark.parametrize(
    "process",
    [
        {},
        {"SSOT_ENV_DIRECTORY": "."},
        {"SSOT_ENV_FILES": ".env"},
        {"SSOT_ENV_DIRECTORY": "none", "SSOT_SECRETS_DIRECTORY": "secrets"},
    ],
)
def test_a_relative_path_stays_where_it_was(
    process: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes the working directory does not exchange the files of the next reload."""
    for place, value in (("start", "old"), ("elsewhere", "other")):
        (tmp_path / place / "secrets").mkdir(parents=True)
        (tmp_path / place / "none").mkdir()
        (tmp_path / place / ".env").write_text(f"COLOUR={value}")
        (tmp_path / place / "secrets" / "COLOUR").write_text(value)
    monkeypatch.chdir(tmp_path / "start")
    environment = IsolatedEnvironment.load(process)
    origin = environment.snapshot().variables["COLOUR"].origin
    assert origin.path is not None
    assert origin.path.is_relative_to(tmp_path / "start")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert environment.reload() == ()
    origin.path.write_text(origin.path.read_text().replace("old", "new"))
    environment.reload()
    assert environment.get("COLOUR") == "new"


def test_without_a_working_directory_nothing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been removed: then there is no .env, and what is named is told to be absent."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert dict(IsolatedEnvironment.load({"A": "1"}).snapshot()) == {"A": "1"}
    with pytest.raises(
        SettingsError, match=r"SSOT_ENV_FILES \(process\): a: there is no such file"
    ):
        IsolatedEnvironment.load({"SSOT_ENV_FILES": "a"})


@pytest.mark.parametrize("kind", KINDS)
def test_each_environment_is_known_by_its_own_name(kind: str) -> None:
    """And development is what nobody names."""
    assert detect({"SSOT_ENVIRONMENT": kind}) == kind
    assert detect({}) == "development"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("development", [".env", ".env.development"]),
        ("test", [".env", ".env.test"]),
        ("staging", []),
        ("production", []),
    ],
)
def test_the_files_of_an_environment(kind: str, names: list[str], tmp_path: Path) -> None:
    """The weakest first; those that are named are read instead, in any environment."""
    process = {"SSOT_ENVIRONMENT": kind, "SSOT_ENV_DIRECTORY": str(tmp_path)}
    assert Sources.of(process).files == tuple(tmp_path / name for name in names)
    named = {**process, "SSOT_ENV_FILES": os.pathsep.join(["a", "", "b"])}
    assert Sources.of(named).files == (Path.cwd() / "a", Path.cwd() / "b")
    assert Sources.of(named).asked_for
    assert not Sources.of(process).asked_for


def test_commands_and_secrets_are_off_until_they_are_named() -> None:
    """Nothing, empty, and only commas are the same: none."""
    for process in (
        {},
        {"SSOT_ENV_COMMANDS": "", "SSOT_SECRETS_DIRECTORY": ""},
        {"SSOT_ENV_COMMANDS": " ,"},
    ):
        assert Sources.of(process).commands == frozenset()
        assert Sources.of(process).secrets is None
    assert Sources.of({"SSOT_ENV_COMMANDS": "cat, op"}).commands == {"cat", "op"}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("prod", "production"),
        ("TEST", "test"),
        ("developement", "development"),
        ("elsewhere", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_proposed(name: str, near: str | None) -> None:
    """Whatever its case; none when nothing is near."""
    assert nearest(name, KINDS) == (f" (did you mean {near}?)" if near else "")


def test_what_decides_what_is_read_has_a_meaning() -> None:
    """Each name once, with words for people."""
    assert len({each.name for each in BOOTSTRAP}) == len(BOOTSTRAP)
    assert all(each.name.startswith("SSOT_") and each.meaning for each in BOOTSTRAP)


def test_no_file_is_read_where_the_list_of_files_is_empty(tmp_path: Path) -> None:
    """An empty value is a value: it names none, in place of those of the folder."""
    (tmp_path / ".env").write_text("A=1\n")
    process = {"SSOT_ENV_DIRECTORY": str(tmp_path)}
    assert IsolatedEnvironment.load(process).get("A") == "1"
    assert "A" not in IsolatedEnvironment.load(process | {"SSOT_ENV_FILES": ""})

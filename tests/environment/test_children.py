"""What a child process is given: what its launcher has, as the launcher has it, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError


@pytest.fixture
def process(tmp_path: Path) -> dict[str, str]:
    """The variables of a launcher that reads a file and a secret."""
    (tmp_path / ".env").write_text("FLAG=on\nNODE_ORIGINS=https://a.example\nAUTH_X=1\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "API_TOKEN").write_text("Wm4-kT9s-pQ2x")
    return {
        "PATH": "/bin",
        "SSOT_ENVIRONMENT": "test",
        "SSOT_ENV_DIRECTORY": str(tmp_path),
        "SSOT_SECRETS_DIRECTORY": str(secrets),
        "SSOT_ENV_COMMANDS": "cat",
    }


def test_what_a_launcher_has_deleted_does_not_come_back(process: dict[str, str]) -> None:
    """Not in the child's variables, and not out of the file that the launcher has read."""
    for view in (IsolatedEnvironment.load(process), IsolatedEnvironment.load(process).overlay()):
        view.delete("FLAG")
        given = view.child_env(service="node")
        child = IsolatedEnvironment.load(given, service="node")
        assert dict(child.snapshot()) == given
        assert "FLAG" not in child
        assert given == {
            "PATH": "/bin",
            "SSOT_ENVIRONMENT": "test",
            "SSOT_ENV_FILES": "",
            "NODE_ORIGINS": "https://a.example",
            "API_TOKEN": "Wm4-kT9s-pQ2x",
        }


def test_a_child_reads_files_itself_when_it_is_told_to(process: dict[str, str]) -> None:
    """By a launcher that has read none, or one that says so."""
    names = {name: process[name] for name in process if name.startswith("SSOT_ENV")}
    plain = IsolatedEnvironment(process).child_env(service="node")
    assert plain == process
    told = IsolatedEnvironment.load(process).child_env(names, service="node")
    assert names.items() <= told.items()
    assert "SSOT_ENV_FILES" not in told


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        pytest.param({"B=": "x"}, "'B=' is no name of a variable", id="name"),
        pytest.param({"A": "x\0"}, "A: a value cannot hold a NUL character", id="nul"),
        pytest.param({"A": None}, "A: a value is text, not NoneType", id="none"),
    ],
)
def test_what_no_process_can_be_given_is_refused_here(extra: dict[str, str], problem: str) -> None:
    """And not where the child is started, with an error of the system's."""
    with pytest.raises(SettingsError, match=problem):
        IsolatedEnvironment({}).child_env(extra)


def test_a_name_of_another_service_cannot_be_set_in_a_view() -> None:
    """It would be set, never seen, and nobody told."""
    environment = IsolatedEnvironment({}, service="node")
    for view in (environment, environment.overlay()):
        with pytest.raises(SettingsError, match="AUTH_X belongs to the auth service; the node"):
            view.override({"AUTH_X": "1", "NODE_X": "1"})
        assert "NODE_X" not in view

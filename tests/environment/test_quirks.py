"""What other environments do and this one does not: each test names the quirk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssot.configuration import schema
from ssot.environment import MASK, IsolatedEnvironment, detect
from ssot.errors import SettingsError


def test_a_deleted_name_leaves_no_sentinel() -> None:
    """Quirk: a deleted variable is a marker string, which child processes inherit as its value."""
    environment = IsolatedEnvironment({"PATH": "/bin", "SSOT_X": "1"})
    environment.delete("PATH", "SSOT_X")
    overlay = environment.overlay({"SSOT_Y": "1"})
    overlay.delete("SSOT_Y")
    for view in (environment, overlay):
        assert view.child_env() == {}
        assert view.child_env(service="auth") == {}
        assert dict(view.snapshot()) == {}
        assert view.get("PATH") is None


def test_an_empty_value_is_kept_everywhere(tmp_path: Path) -> None:
    """Quirk: an explicitly empty value reads as missing and gets a default."""
    (tmp_path / ".env").write_text("FILE=\nQUOTED=''\n")
    environment = IsolatedEnvironment.load(
        {"SSOT_ENV_DIRECTORY": str(tmp_path), "PROCESS": ""},
        defaults={"FILE": "default", "QUOTED": "default", "PROCESS": "default", "CODE": "default"},
        overrides={"CODE": ""},
    )
    names = ("FILE", "QUOTED", "PROCESS", "CODE")
    assert environment.require(*names) == ("",) * 4
    assert [environment.get(name, "default") for name in names] == [""] * 4
    child = environment.child_env(service="auth")
    assert [child[name] for name in names] == [""] * 4
    assert environment.overlay({"CODE": ""}).get("CODE", "default") == ""


def test_absence_is_never_cached() -> None:
    """Quirk: a name that was looked up before it was set stays absent."""
    environment = IsolatedEnvironment({})
    overlay = environment.overlay()
    for view in (environment, overlay):
        assert view.get("LATER") is None
        assert "LATER" not in view
    environment.override({"LATER": "1"})
    for view in (environment, overlay):
        assert view.get("LATER") == "1"
        assert view.require("LATER") == ("1",)
    environment.delete("LATER")
    assert overlay.get("LATER", "gone") == "gone"


@pytest.mark.parametrize("value", ["", "0", "None", "false", " "])
def test_every_way_of_reading_agrees(value: str) -> None:
    """Quirk: `get` and `in` disagree about empty and odd values."""
    for view in (IsolatedEnvironment({"A": value}), IsolatedEnvironment({}).overlay({"A": value})):
        snapshot = view.snapshot()
        assert view.get("A") == snapshot["A"] == snapshot.get("A") == value
        assert view.require("A") == (value,)
        assert "A" in view
        assert "A" in snapshot
        assert snapshot.variables["A"].value == value
        assert "B" not in view
        assert "B" not in snapshot


@pytest.mark.parametrize("kind", ["development", "test"])
def test_expansion_works_in_tests_as_anywhere(kind: str, tmp_path: Path) -> None:
    """Quirk: expansion is switched off when a test runner is noticed."""
    (tmp_path / ".env").write_text("HOST=h\nURL=http://${HOST}:${PORT:-80}/$$x\n")
    process = {"SSOT_ENV_DIRECTORY": str(tmp_path), "SSOT_ENVIRONMENT": kind}
    for more in ({}, {"PYTEST_CURRENT_TEST": "x"}):
        assert IsolatedEnvironment.load({**process, **more}).get("URL") == "http://h:80/$x"


def test_nothing_but_its_variable_decides_the_environment() -> None:
    """Quirk: a test runner, a host name or another variable makes it a test environment."""
    for more in ({"PYTEST_CURRENT_TEST": "x"}, {"TESTING": "1"}, {"ENVIRONMENT": "test"}):
        assert IsolatedEnvironment(more).kind == "development"


@pytest.mark.parametrize("name", ["prod", "PRODUCTION", "stage", "", " test"])
def test_an_unknown_environment_is_refused(name: str) -> None:
    """Quirk: an unknown environment falls back to development."""
    with pytest.raises(SettingsError, match="SSOT_ENVIRONMENT is"):
        detect({"SSOT_ENVIRONMENT": name})
    with pytest.raises(SettingsError, match="SSOT_ENVIRONMENT is"):
        IsolatedEnvironment({"SSOT_ENVIRONMENT": name})


def test_defaults_for_tests_are_the_same_every_time() -> None:
    """Quirk: random test defaults, so that two processes of one test do not understand each other."""
    for service in schema.SECTIONS:
        assert schema.test_defaults(service) == schema.test_defaults(service)
    one, two = (
        IsolatedEnvironment(
            {"SSOT_ENVIRONMENT": "test"}, test_defaults=schema.test_defaults("auth")
        )
        for _ in range(2)
    )
    assert dict(one.snapshot()) == dict(two.snapshot())
    assert one.get("AUTH_OAUTH_CLIENT_ID_TEST")


def test_the_process_environment_is_never_written(tmp_path: Path) -> None:
    """Quirk: isolated values are written back into os.environ."""
    before = dict(os.environ)
    (tmp_path / ".env").write_text("SSOT_FROM_FILE=1\n")
    environment = IsolatedEnvironment.load({**os.environ, "SSOT_ENV_DIRECTORY": str(tmp_path)})
    environment.override({"SSOT_NEW": "1", "PATH": "/nowhere"})
    environment.delete("HOME")
    overlay = environment.overlay({"SSOT_MINE": "1"})
    overlay.delete("PATH")
    environment.reload()
    del overlay, environment
    assert dict(os.environ) == before


def test_a_secret_is_one_also_without_a_telling_name() -> None:
    """Quirk: masking goes by the name only, so that a database URL shows its password."""
    environment = IsolatedEnvironment(
        {"PLACE": "postgresql://u:s3cret-value@h/d", "BADGE": "s3cret-badge"},
        secrecy={"BADGE": True},
    )
    told = environment.explain("PLACE") + environment.explain("BADGE")
    assert "s3cret" not in told
    assert told.count(MASK) == 2
    assert environment.redact("s3cret-value s3cret-badge") == f"{MASK} {MASK}"


def test_deleting_respects_protection() -> None:
    """Quirk: protection that `delete` ignores."""
    environment = IsolatedEnvironment({"A": "1"})
    environment.protect("A")
    for change in (lambda: environment.delete("A"), lambda: environment.override({"A": "1"})):
        with pytest.raises(SettingsError, match="A is protected"):
            change()
    assert environment.get("A") == "1"


@pytest.mark.parametrize(
    "secret", ["changeme", "<your-key-here>", "password123", "aaaaaaaaaaaa", "short"]
)
def test_a_placeholder_is_refused_outside_of_tests(secret: str) -> None:
    """Quirk: validation that is always true."""
    for values in ({"AUTH_TOKEN": secret}, {"SSOT_DATABASE_URL": f"postgresql://u:{secret}@h/d"}):
        for kind in ("development", "staging", "production"):
            with pytest.raises(SettingsError) as wrong:
                IsolatedEnvironment({**values, "SSOT_ENVIRONMENT": kind})
            assert len(wrong.value.problems) == 1
            assert secret not in str(wrong.value).replace("password has", "")
        IsolatedEnvironment({**values, "SSOT_ENVIRONMENT": "test"})

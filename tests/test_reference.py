"""What is generated from the settings' schema is current, and true."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from ssot.configuration import SECTIONS, UnifiedConfiguration, fields
from ssot.configuration.reference import (
    ENV_EXAMPLE,
    PAGE,
    entries,
    env_example,
    main,
    markdown_table,
    page,
)
from ssot.environment import IsolatedEnvironment, is_secret_name

REPOSITORY = Path(__file__).parents[1]
HOW = "run: python -m ssot.configuration.reference"

REQUIRED = {
    "SSOT_DATABASE_URL": "postgresql://role:s3cret-value@127.0.0.1:5432/database",
    "SSOT_REDIS_URL": "redis://:s3cret-value@127.0.0.1:6379/0",
    "SSOT_AUTH_URL": "http://127.0.0.1:8081",
    "AUTH_SIGNING_KEY": "Xq3v" + "Ab7_-" * 7 + "9dQz",
}


def test_the_example_is_current():
    """`.env.example` is what the schema says."""
    assert (REPOSITORY / ENV_EXAMPLE).read_text() == env_example(), HOW


def test_the_table_is_current():
    """The table of `docs/settings.md` is what the schema says."""
    text = (REPOSITORY / PAGE).read_text()
    assert text == page(text), HOW
    assert markdown_table() in text


def test_both_are_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command restores what was changed by hand, and what stands around the table stays."""
    text = (REPOSITORY / PAGE).read_text()
    monkeypatch.chdir(tmp_path)
    assert main() == 2
    (tmp_path / PAGE).parent.mkdir()
    (tmp_path / PAGE).write_text(text.replace("SSOT_REDIS_PREFIX", "SSOT_REDIS_POSTFIX"))
    assert main() == 0
    assert (tmp_path / PAGE).read_text() == text
    assert (tmp_path / ENV_EXAMPLE).read_text() == env_example()


def test_every_setting_of_every_service_is_there_once():
    """None is left out and none is repeated, though several services read it."""
    named = [entry.variable for entry in entries()]
    assert sorted(named) == sorted(
        {field.shown for service in SECTIONS for field in fields(service)}
    )
    for name in named:
        assert len(re.findall(rf"^#?{name}=", env_example(), re.MULTILINE)) == 1
        assert len(re.findall(rf"^\| `{name}` ", markdown_table(), re.MULTILINE)) == 1


@pytest.mark.parametrize("service", sorted(SECTIONS))
def test_the_defaults_shown_are_the_defaults(service: str):
    """Uncommented, the example makes the same settings as the required ones alone."""
    lines = re.sub(r"^#(?=[A-Z_]+=)", "", env_example(), flags=re.MULTILINE)
    shown = {name: value or "" for name, value in dotenv_values(stream=StringIO(lines)).items()}
    shown.update(REQUIRED)
    built = [
        UnifiedConfiguration(IsolatedEnvironment(process, service=service), service).settings
        for process in (shown, REQUIRED)
    ]
    assert built[0] == built[1]


def test_what_is_required_is_empty_and_nothing_else_is_set():
    """A copy of the example overrides no default, and what lacks one cannot be overlooked."""
    lines = [line for line in env_example().splitlines() if line and not line.startswith("#")]
    required = {entry.variable for entry in entries() if entry.default is None}
    assert required == set(REQUIRED)
    assert all(line.endswith("=") for line in lines)
    assert {line.rstrip("=") for line in lines} >= required


def test_every_setting_is_visible_to_the_services_that_read_it():
    """A shared setting begins with SSOT_, any other with the name of the one service it is for."""
    for entry in entries():
        if not entry.variable.startswith("SSOT_"):
            (service,) = entry.services
            assert entry.variable.startswith(f"{service.upper()}_")


def test_a_secret_setting_is_masked_wherever_the_environment_is_shown():
    """What the schema calls secret, the environment knows as one: by its name, or as a URL."""
    secret = [entry for entry in entries() if entry.secret]
    assert secret
    for entry in secret:
        value = REQUIRED.get(entry.variable, "s3cret-value")
        environment = IsolatedEnvironment({entry.variable: value})
        assert is_secret_name(entry.variable) or entry.variable.endswith("_URL")
        assert value not in environment.explain(entry.variable)
        assert "s3cret-value" not in environment.explain(entry.variable)

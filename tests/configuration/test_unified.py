"""UnifiedConfiguration: every problem at once, no secret in any message, one service's sections."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ssot.configuration import SECTIONS, UnifiedConfiguration, variables
from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError

DATABASE = "postgresql://role:s3cret-value@host:5432/db"
GOOD: dict[str, dict[str, str]] = {
    "migrate": {"SSOT_DATABASE_URL": DATABASE},
    "auth": {"SSOT_DATABASE_URL": DATABASE, "AUTH_SIGNING_KEY": "A" * 43},
    "node": {
        "SSOT_DATABASE_URL": DATABASE,
        "SSOT_REDIS_URL": "redis://h:1/0",
        "SSOT_AUTH_URL": "http://h:1",
    },
    "worker": {"SSOT_DATABASE_URL": DATABASE, "SSOT_REDIS_URL": "redis://h:1/0"},
}


def build(service: str, values: dict[str, str], **overrides: Any) -> UnifiedConfiguration:
    environment = IsolatedEnvironment(values, service=service)
    paths = {path.replace("__", "."): value for path, value in overrides.items()}
    return UnifiedConfiguration(environment, service, overrides=paths)


@pytest.mark.parametrize("service", sorted(SECTIONS))
def test_each_service_reads_only_its_sections(service: str) -> None:
    """Sections that a service does not use are none, and their variables are not needed."""
    settings = build(service, GOOD[service]).settings
    for section in type(settings).model_fields:
        if section != "environment":
            assert (getattr(settings, section) is not None) == (section in SECTIONS[service])


def test_every_problem_is_told_at_once_with_variable_and_origin() -> None:
    """Three missing and three wrong values make one error with six lines."""
    with pytest.raises(SettingsError) as wrong:
        build(
            "node",
            {"NODE_PORT": "70000", "NODE_RING_SIZE": "", "SSOT_DATABASE_POOL_SIZE": "many"},
        )
    problems = "\n".join(wrong.value.problems)
    assert len(wrong.value.problems) == 6
    for name in ("SSOT_DATABASE_URL", "SSOT_REDIS_URL", "SSOT_AUTH_URL"):
        assert f"{name} is not set for the node service" in problems
    for name in ("NODE_PORT", "NODE_RING_SIZE", "SSOT_DATABASE_POOL_SIZE"):
        assert f"{name} (from the process)" in problems


# Letters that are in no message of ours, and all that means something in a URL.
@given(st.text(st.sampled_from("QXZJ/?#@:%[]&+=é"), min_size=8, max_size=24),
       st.sampled_from(["postgresql://role:{}@host:5432/db", "postgresql://role:{}@host:99999/db",
                        "mysql://role:{}@host/db", "postgresql://role:{}@:5432/", "postgresql://role:{}@[host/db"]))  # fmt: skip
def test_no_message_contains_the_password_of_a_url(password: str, form: str) -> None:
    """However wrong the URL is, and whatever is in its password, no piece of it is told."""
    try:
        build("migrate", {"SSOT_DATABASE_URL": form.format(password)})
    except SettingsError as error:
        for start in range(len(password) - 5):
            assert password[start : start + 6] not in str(error)
        assert error.__cause__ is None


@pytest.mark.parametrize(
    "password",
    [
        "p@hunter2secret/w",
        "hunter2secret/x",
        "hunter2secret#x",
        "hunter2secret?x",
        "x:hunter2secret/y",
    ],
)
def test_a_password_that_should_have_been_encoded_is_not_told(password: str) -> None:
    """The commonest mistake in a URL is told without what was mistaken."""
    for service, name, form in (
        ("migrate", "SSOT_DATABASE_URL", "postgresql://role:{}@host/db"),
        ("worker", "SSOT_REDIS_URL", "redis://:{}@host/0"),
    ):
        with pytest.raises(SettingsError) as wrong:
            build(service, {**GOOD[service], name: form.format(password)})
        assert name in str(wrong.value)
        assert "hunter2secret" not in str(wrong.value)
        build(service, {**GOOD[service], name: form.format(quote(password, safe=""))})


@pytest.mark.parametrize(
    ("service", "name", "value"),
    [
        ("node", "SSOT_AUTH_URL", "auth:8081"),
        ("node", "SSOT_AUTH_URL", "http://auth:port"),
        ("node", "SSOT_AUTH_URL", "http://"),
        ("worker", "SSOT_REDIS_URL", "redis://host:0/0"),
        ("worker", "SSOT_REDIS_URL", "host:6379"),
        ("worker", "SSOT_REDIS_PREFIX", "a:b"),
        ("worker", "SSOT_REDIS_TIMEOUT", "nan"),
        ("worker", "SSOT_REDIS_TIMEOUT", "inf"),
        ("worker", "SSOT_DATABASE_STATEMENT_TIMEOUT", "inf"),
        ("worker", "WORKER_LEASE_TTL", "inf"),
        ("worker", "WORKER_LEASE_TTL", "0"),
        ("worker", "SSOT_ENVIRONMENT", "prod"),
        ("migrate", "SSOT_DATABASE_URL", "postgresql://host"),
        ("auth", "AUTH_SIGNING_KEY", "too-short"),
        ("auth", "AUTH_ACCESS_TTL", "-1"),
    ],
)
def test_a_value_that_cannot_work_is_refused_at_the_start(
    service: str, name: str, value: str
) -> None:
    """What would fail later, in the middle of work, is told before anything is opened."""
    with pytest.raises(SettingsError, match=name):
        build(service, {**GOOD[service], name: value})


def test_default_yields_to_environment_and_environment_to_override() -> None:
    """One precedence, and explain tells which layer won."""
    plain = build("migrate", GOOD["migrate"])
    assert plain.settings.database.pool_size == 10
    assert plain.explain("database.pool_size") == "database.pool_size = 10 (default)"
    given_ = {**GOOD["migrate"], "SSOT_DATABASE_POOL_SIZE": "7"}
    environment = build("migrate", given_)
    assert environment.settings.database.pool_size == 7
    assert "SSOT_DATABASE_POOL_SIZE, process" in environment.explain("database.pool_size")
    override = build("migrate", given_, database__pool_size=3)
    assert override.settings.database.pool_size == 3
    assert "explicit override" in override.explain("database.pool_size")


def test_settings_are_frozen_and_hide_their_secrets() -> None:
    """Nobody changes a setting in passing, and printing settings shows no secret."""
    configuration = build("auth", GOOD["auth"])
    with pytest.raises(ValidationError):
        configuration.settings.database.pool_size = 1  # type: ignore[misc]
    text = f"{configuration.settings!r} {configuration.current!r} {configuration.settings.model_dump_json()}"
    text += configuration.explain("database.url") + configuration.explain("auth.signing_key")
    assert "s3cret-value" not in text
    assert "A" * 43 not in text


@pytest.mark.parametrize("path", ["nonsense", "database.nonsense", "auth.port", "database.url.x"])
def test_a_setting_that_is_not_there_is_told(path: str) -> None:
    """Explaining or overriding an unknown setting is an error."""
    configuration = build("migrate", GOOD["migrate"])
    with pytest.raises(SettingsError):
        configuration.explain(path)
    if "url" not in path:
        with pytest.raises(SettingsError):
            UnifiedConfiguration(
                IsolatedEnvironment(GOOD["migrate"]), "migrate", overrides={path: "1"}
            )


def test_each_variable_has_one_definition() -> None:
    """No two settings of a service are read from one variable, and each says what it means."""
    for service in SECTIONS:
        names = [name for _, name, _ in variables(service)]
        assert len(names) == len(set(names))
        assert all(what for _, _, what in variables(service))

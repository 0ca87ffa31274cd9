"""UnifiedConfiguration: every problem at once, no secret in any message, one service's sections."""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from streams.support import threads

from ssot.configuration import SECTIONS, UnifiedConfiguration, fields
from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError

KEY = "Xq3v" + "Ab7_-" * 7 + "9dQz"
DATABASE = "postgresql://role:s3cret-value@host:5432/db"
GOOD: dict[str, dict[str, str]] = {
    "migrate": {"SSOT_DATABASE_URL": DATABASE},
    "auth": {"SSOT_DATABASE_URL": DATABASE, "AUTH_SIGNING_KEY": KEY},
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
        "x@hunter2secret",
        "hunter2secret x",
        "hunter2secret\n",
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
        ("node", "SSOT_AUTH_URL", "http://user:s3cret-value@auth:8081"),
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
        ("migrate", "SSOT_DATABASE_URL", " postgresql://host/db"),
        ("migrate", "SSOT_DATABASE_URL", "postgresql://host/db\n"),
        ("migrate", "SSOT_DATABASE_URL", "POSTGRESQL://host/db"),
        ("auth", "AUTH_SIGNING_KEY", "too-short"),
        ("auth", "AUTH_ACCESS_TTL", "-1"),
        # Names that no resolver is asked for: the standard library raises before.
        ("migrate", "SSOT_DATABASE_URL", "postgresql://role@a..b/db"),
        ("worker", "SSOT_REDIS_URL", f"redis://{'a' * 64}.example/0"),
        ("node", "SSOT_AUTH_URL", "http://.auth:8081"),
        ("auth", "AUTH_OAUTH_PROVIDER_URL", "https://a..b"),
        ("auth", "AUTH_HOST", "a..b"),
        ("auth", "AUTH_HOST", "[::1]"),
        ("migrate", "SSOT_DATABASE_URL", "postgresql://role@h1,h2/db"),
        ("migrate", "SSOT_DATABASE_URL", "postgresql://role@%2Ftmp/db"),
        ("migrate", "SSOT_DATABASE_URL", "postgresql://role@*/db"),
        ("migrate", "SSOT_DATABASE_URL", "postgresql://role@host:/db"),
        ("migrate", "SSOT_DATABASE_URL", "postgresql://role@host/db?host=other"),
        # Options of the client's own: they would win over what the platform needs.
        ("worker", "SSOT_REDIS_URL", "redis://host/0?decode_responses=true"),
        ("worker", "SSOT_REDIS_URL", "redis://host/0?max_connections=1"),
        ("worker", "SSOT_REDIS_URL", "redis://host/abc"),
        # To the operating system nothing is every address.
        ("auth", "AUTH_HOST", ""),
        ("node", "NODE_HOST", ""),
    ],
)
def test_a_value_that_cannot_work_is_refused_at_the_start(
    service: str, name: str, value: str
) -> None:
    """What would fail later, in the middle of work, is told before anything is opened."""
    with pytest.raises(SettingsError, match=name):
        build(service, {**GOOD[service], name: value})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("NODE_PORT", "many", "a valid integer, .*; it must be a whole number from 0 to 65535$"),
        ("NODE_PORT", "70000", "or equal to 65535; it must be a whole number from 0 to 65535$"),
        ("NODE_MAX_CONNECTIONS", "2.5", "it must be a whole number of at least 1$"),
        ("NODE_STALL_TIMEOUT", "0", "greater than 0; it must be a number above 0$"),
        ("NODE_STALL_TIMEOUT", "nan", "a finite number; it must be a number above 0$"),
        ("SSOT_DATABASE_STATEMENT_TIMEOUT", "1e10", "a number above 0, at most 2000000$"),
        ("SSOT_DATABASE_IDLE_TRANSACTION_TIMEOUT", "2000000.5", "above 0, at most 2000000$"),
        ("SSOT_REDIS_PREFIX", "a:b", r"should match pattern '\S+'$"),
    ],
)
def test_a_wrong_number_is_told_with_what_is_right(name: str, value: str, told: str) -> None:
    """Whichever limit it breaks first: all that hold are told, so that one more try is enough."""
    with pytest.raises(SettingsError) as wrong:
        build("node", {**GOOD["node"], name: value})
    (problem,) = wrong.value.problems
    assert re.search(told, problem), problem


def test_a_port_that_kubernetes_has_set_is_told_with_the_way_out() -> None:
    """It gives every pod the address of each Service; any other text for a number says nothing."""
    hint = "; Kubernetes sets this for a Service of that name: rename it or set enableServiceLinks: false"
    for value, hinted in (("tcp://10.96.4.2:8081", True), ("http://10.96.4.2:8081", False)):
        with pytest.raises(SettingsError) as wrong:
            build("auth", {**GOOD["auth"], "AUTH_PORT": value})
        (problem,) = wrong.value.problems
        assert problem.startswith("AUTH_PORT (from the process): ")
        assert problem.endswith(hint) == hinted


def test_default_yields_to_environment_and_environment_to_override() -> None:
    """One precedence, and explain tells which layer won."""
    plain = build("migrate", GOOD["migrate"])
    assert plain.settings.database.pool_size == 10
    assert plain.explain("database.pool_size") == "database.pool_size = 10 (default)"
    given_ = {**GOOD["migrate"], "SSOT_DATABASE_POOL_SIZE": "7"}
    environment = build("migrate", given_)
    assert environment.settings.database.pool_size == 7
    assert "SSOT_DATABASE_POOL_SIZE, the process" in environment.explain("database.pool_size")
    override = build("migrate", given_, database__pool_size=3)
    assert override.settings.database.pool_size == 3
    assert "explicit override" in override.explain("database.pool_size")


def test_what_is_told_of_a_setting_is_of_one_revision() -> None:
    """Value and origin belong together, in any thread, while another one swaps them."""
    environment = IsolatedEnvironment(GOOD["migrate"])
    configuration = UnifiedConfiguration(environment, "migrate")
    configuration.follow(environment)
    whole = {
        "database.pool_size = 10 (default)",
        "database.pool_size = 3 (SSOT_DATABASE_POOL_SIZE, the override)",
    }
    seen: list[set[str]] = [set(), set(), set()]
    stop, deadline = threading.Event(), time.monotonic() + 30

    def work(number: int) -> None:
        if number < len(seen):
            while not stop.is_set():
                seen[number].add(configuration.explain("database.pool_size"))
            return
        try:
            # A machine that is busy lets its readers sleep through many a swap.
            turn = 0
            while turn < 400 or (
                not all(map(whole.issubset, seen)) and time.monotonic() < deadline
            ):
                turn += 1
                environment.override({"SSOT_DATABASE_POOL_SIZE": "3"})
                environment.delete("SSOT_DATABASE_POOL_SIZE")
        finally:
            stop.set()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads(work, len(seen) + 1)
    finally:
        sys.setswitchinterval(before)
    assert seen == [whole] * len(seen)


def test_settings_of_a_narrowed_view_are_never_made_of_anothers_names(tmp_path: Path) -> None:
    """What has come to be made of them is told as it is, and not as missing or as nothing."""
    file = tmp_path / ".env"
    file.write_text(f"SSOT_DATABASE_URL={DATABASE}\nAUTH_DATABASE_URL={DATABASE}\n")
    environment = IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path)})
    overlay = environment.overlay(service="migrate")
    UnifiedConfiguration(overlay, "migrate")
    file.write_text(f"SSOT_DATABASE_URL=${{AUTH_DATABASE_URL}}\nAUTH_DATABASE_URL={DATABASE}\n")
    environment.reload()
    with pytest.raises(SettingsError) as wrong:
        UnifiedConfiguration(overlay, "migrate")
    (problem,) = wrong.value.problems
    assert problem.startswith("AUTH_DATABASE_URL belongs to the auth service; the migrate service")


@pytest.mark.parametrize("own", [False, True])
def test_a_url_tells_which_variable_it_was_read_from(own: bool) -> None:
    """Whoever must say that it is refused names that one, and not the other."""
    given = GOOD["worker"] | ({"WORKER_DATABASE_URL": DATABASE} if own else {})
    configuration = build("worker", given)
    name = "WORKER_DATABASE_URL" if own else "SSOT_DATABASE_URL"
    assert configuration.settings.database.url_variable == name
    assert f"({name}, the process)" in configuration.explain("database.url")


def test_settings_are_frozen_and_hide_their_secrets() -> None:
    """Nobody changes a setting in passing, and printing settings shows no secret."""
    configuration = build("auth", GOOD["auth"])
    with pytest.raises(ValidationError):
        configuration.settings.database.pool_size = 1  # type: ignore[misc]
    text = f"{configuration.settings!r} {configuration.current!r} {configuration.settings.model_dump_json()}"
    text += configuration.explain("database.url") + configuration.explain("auth.signing_key")
    assert "s3cret-value" not in text
    assert KEY not in text


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nonsense", "no setting 'nonsense' in the migrate service"),
        ("", "no setting '' in the migrate service"),
        ("database.nonsense", "no setting 'database.nonsense' in the migrate service"),
        ("auth.port", "no setting 'auth.port' in the migrate service"),
        ("database.url.x", "no setting 'database.url.x' in the migrate service"),
        ("environment.x", "no setting 'environment.x' in the migrate service"),
        ("database.url_variable", "no setting 'database.url_variable' in the migrate service"),
        ("database.pool_sise", "in the migrate service (did you mean database.pool_size?)"),
        ("database", "'database' is a whole section; its settings are database.url, database.pool"),
    ],
)
def test_a_setting_that_is_not_there_is_told(path: str, told: str) -> None:
    """Explaining or overriding an unknown setting is an error, with the nearest; so is a section."""
    configuration = build("migrate", GOOD["migrate"])
    with pytest.raises(SettingsError) as wrong:
        configuration.explain(path)
    assert told in str(wrong.value)
    with pytest.raises(SettingsError) as wrong:
        build("migrate", GOOD["migrate"], **{path: "1"})
    assert told in str(wrong.value)
    assert str(wrong.value).count("explicit override: ") == 1


def test_every_wrong_override_is_told_by_its_path() -> None:
    """Unknown or ill, together with what is wrong in the environment."""
    overrides = {"database.pool_sise": 3, "database.pool_size": -1, "database.connect_timeout": 0}
    with pytest.raises(SettingsError) as wrong:
        build("migrate", {"SSOT_DATABASE_URL": "x"}, **overrides)
    first, url, second, third = wrong.value.problems
    assert first.startswith("explicit override: no setting 'database.pool_sise'")
    assert url.startswith("SSOT_DATABASE_URL (from the process): ")
    assert second.startswith("database.pool_size (from an explicit override): ")
    assert second.endswith("; it must be a whole number from 1 to 1000")
    assert third.startswith("database.connect_timeout (from an explicit override): ")


def test_each_variable_has_one_definition() -> None:
    """No two settings of a service are read from one variable, and each says what it means."""
    for service in SECTIONS:
        names = [field.variable for field in fields(service)]
        assert len(names) == len(set(names))
        assert all(field.meaning for field in fields(service))


def test_an_overlay_cannot_be_followed() -> None:
    """It is read once: whoever wants more is told what to follow."""
    environment = IsolatedEnvironment(GOOD["migrate"], service="migrate")
    configuration = UnifiedConfiguration(environment.overlay(), "migrate")
    with pytest.raises(TypeError, match="the environment below it"):
        configuration.follow(environment.overlay())  # type: ignore[arg-type]

"""IsolatedEnvironment: one precedence, snapshots that never tear, namespaces, nothing of the parent's."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams.support import threads

from ssot.configuration.schema import secrecy
from ssot.environment import MASK, SERVICES, IsolatedEnvironment
from ssot.errors import SettingsError

NAMES = st.sampled_from(["A", "B", "C", "SHARED_X", "AUTH_X", "NODE_X"])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
LAYERS = st.dictionaries(NAMES, TEXT, max_size=6)


@given(LAYERS, LAYERS, LAYERS, st.sets(NAMES))
def test_the_strongest_layer_wins_and_says_whom_it_beat(
    defaults: dict[str, str], process: dict[str, str], overrides: dict[str, str], deleted: set[str]
) -> None:
    """Override over process over default; an empty value is a value; what is deleted is absent."""
    environment = IsolatedEnvironment(
        process, service="auth", defaults=defaults, overrides=overrides
    )
    for name in deleted:
        environment.delete(name)
    expected = {**defaults, **process, **overrides}
    expected = {n: v for n, v in expected.items() if n not in deleted and n != "NODE_X"}
    assert dict(environment.snapshot()) == expected
    for name in ("A", "AUTH_X", "NODE_X"):
        assert environment.get(name) == expected.get(name)
        assert (name in environment) == (name in expected)
        if name in expected:
            layers = [
                layer
                for layer, values in (
                    ("default", defaults),
                    ("process", process),
                    ("override", overrides),
                )
                if name in values
            ]
            variable = environment.snapshot().variables[name]
            told = [variable.origin, *(each.origin for each in variable.over)]
            assert [origin.layer for origin in reversed(told)] == layers


def test_an_empty_value_is_a_value() -> None:
    """Set to nothing is not the same as not set."""
    environment = IsolatedEnvironment({"A": ""}, defaults={"A": "default"})
    assert environment.get("A", "other") == ""
    assert environment.require("A") == ("",)


def test_a_deleted_name_comes_back_only_when_it_is_set() -> None:
    """Deleting hides every layer; an override afterwards is a new value."""
    environment = IsolatedEnvironment({"A": "1"}, overrides={"A": "2"})
    environment.delete("A")
    assert environment.get("A") is None
    assert "not set" in environment.explain("A")
    environment.override({"A": "3"})
    assert environment.get("A") == "3"


def test_everything_that_is_missing_is_named_at_once() -> None:
    """One error tells all absent names."""
    with pytest.raises(SettingsError) as missing:
        IsolatedEnvironment({"A": "1"}).require("B", "A", "C")
    assert missing.value.problems == ("B is not set", "C is not set")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_sees_its_own_and_the_shared_names_only(service: str) -> None:
    """The names of the other services are not there at all."""
    process = {f"{name.upper()}_NAME": name for name in SERVICES} | {"SHARED": "x"}
    environment = IsolatedEnvironment(process, service=service)
    assert set(environment.snapshot()) == {f"{service.upper()}_NAME", "SHARED"}


def test_a_file_cannot_smuggle_a_name_to_another_service(tmp_path: Path) -> None:
    """A shared value that is made of it is refused there, and says whose name it is."""
    path = tmp_path / ".env"
    path.write_text("AUTH_URL=x\nSHARED=${AUTH_URL}\nFREE=${AUTH_URL:-free}\nMORE=${SHARED}\n")
    process = {"SSOT_ENV_DIRECTORY": str(tmp_path)}
    assert IsolatedEnvironment.load(process, service="auth").get("MORE") == "x"
    with pytest.raises(SettingsError) as refused:
        IsolatedEnvironment.load(process, service="worker")
    assert refused.value.problems == (
        "AUTH_URL belongs to the auth service; the worker service does not see it; "
        f"SHARED ({path}, line 2), and by it MORE ({path}, line 4), refer to it: "
        "use a shared name, or write ${AUTH_URL:-…}",
    )


def test_the_environment_of_no_service_sees_all() -> None:
    """Who starts all services sees the names of all of them."""
    process = {f"{name.upper()}_NAME": name for name in SERVICES} | {"SHARED": "x"}
    assert dict(IsolatedEnvironment(process).snapshot()) == process


def test_an_unknown_service_is_refused() -> None:
    """A mistyped service is told which there are."""
    with pytest.raises(SettingsError, match=r"'autth'.*auth, migrate, node, worker"):
        IsolatedEnvironment({}, service="autth")


def test_snapshots_never_tear_under_a_writing_thread() -> None:
    """Readers in threads of their own see both halves of every change or neither."""
    environment = IsolatedEnvironment({}, overrides={"LEFT": "0", "RIGHT": "0"})
    done = threading.Event()
    torn: list[tuple[str, ...]] = []

    def work(number: int) -> None:
        if number == 0:
            for value in range(1, 3000):
                environment.override({"LEFT": str(value), "RIGHT": str(value)})
            done.set()
            return
        while not done.is_set():
            snapshot = environment.snapshot()
            pairs = [environment.require("LEFT", "RIGHT"), (snapshot["LEFT"], snapshot["RIGHT"])]
            torn.extend(pair for pair in pairs if pair[0] != pair[1])

    threads(work, 4)
    assert torn == []


def test_no_change_of_many_writers_is_lost() -> None:
    """Eight threads that write different names at once all leave their value."""
    environment = IsolatedEnvironment({})
    threads(lambda n: [environment.override({f"N{n}_{i}": "x"}) for i in range(50)] and None, 8)
    assert len(environment.snapshot()) == 400


def test_the_process_environment_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overriding and deleting leave os.environ as it was, and it is read only once."""
    monkeypatch.setenv("SSOT_TEST", "1")
    before = dict(os.environ)
    environment = IsolatedEnvironment(os.environ)
    environment.override({"SSOT_TEST": "2", "SSOT_NEW": "3"})
    environment.delete("PATH")
    assert dict(os.environ) == before
    monkeypatch.setenv("SSOT_TEST", "4")
    assert environment.get("SSOT_TEST") == "2"


def test_a_child_gets_the_machines_names_and_what_it_is_given() -> None:
    """No secret of the parent travels; a deleted name stays deleted."""
    environment = IsolatedEnvironment(
        {
            "PATH": "/bin",
            "HOME": "/root",
            "AUTH_SIGNING_KEY": "s3cret-key",
            "SSOT_DATABASE_URL": "x",
            "TZ": "UTC",
        },
        service="auth",
    )
    environment.delete("HOME")
    assert environment.child_env({"A": "1", "TZ": "CET"}) == {"PATH": "/bin", "TZ": "CET", "A": "1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_TOKEN", "s3cret-value"),
        ("DB_PASSWORD", "s3cret-value"),
        ("SSOT_DATABASE_URL", "postgresql://role:s3cret-value@host:5432/db"),
        ("SSOT_DATABASE_URL", "postgresql://role:s3cret-value/and@host/db"),
        ("SSOT_DATABASE_URL", "postgresql://role:and@s3cret-value@host/db"),
        ("SSOT_DATABASE_URL", "postgresql://host/db?user=role&password=s3cret-value"),
        ("SSOT_REDIS_URL", "redis://:s3cret-value@host:6379/0"),
        ("AUTH_SIGNING_KEY", "s3cret-value"),
    ],
)
def test_explain_and_repr_tell_the_story_without_the_secret(name: str, value: str) -> None:
    """Layer, losers and name are told; what the name or the URL hides is not."""
    environment = IsolatedEnvironment({name: "before"}, service="auth", overrides={name: value})
    told = environment.explain(name)
    assert name in told
    assert "override" in told
    assert "over process" in told
    for text in (
        told,
        repr(environment),
        repr(environment.snapshot()),
        str(environment.snapshot().variables[name]),
    ):
        assert "s3cret-value" not in text
    assert MASK in told


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("AUTH_PORT", "8081", False),
        ("AUTH_OAUTH_CLIENT_ID_STAGING", "shop", False),
        ("SSOT_DATABASE_URL", "postgresql://a:changeme@db/shop", True),
        ("AUTH_SIGNING_KEY", "changeme", True),
        ("AUTH_WHATEVER", "8081", True),
    ],
)
def test_beside_secrets_only_what_is_one_must_be_hard_to_guess(
    tmp_path: Path, name: str, value: str, *, refused: bool
) -> None:
    """A folder of secret files may hold all settings; those known to be none may be short."""
    (tmp_path / name).write_text(value)
    process = {"SSOT_ENVIRONMENT": "staging", "SSOT_SECRETS_DIRECTORY": str(tmp_path)}
    if refused:
        with pytest.raises(SettingsError, match=name):
            IsolatedEnvironment.load(process, secrecy=secrecy())
    else:
        environment = IsolatedEnvironment.load(process, secrecy=secrecy())
        assert value not in environment.explain(name)

"""Layers: one total order of precedence, whatever they hold and in whatever order they come."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.environment import LAYERS, IsolatedEnvironment, Sources, examine
from ssot.errors import SettingsError

NAMES = ["ALPHA", "BETA", "GAMMA", "AUTH_DELTA"]
# From the weakest to the strongest; two are the two files.
PLACES = ["default", "test default", ".env", ".env.test", "secret file", "process", "override"]
TEXT = st.text(st.sampled_from("abc ÄŽ$='\"#"), max_size=6)
HELD = st.dictionaries(
    st.sampled_from(PLACES), st.dictionaries(st.sampled_from(NAMES), TEXT, max_size=4), max_size=7
)


def quoted(value: str) -> str:
    """As a literal of a file."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def build(held: dict[str, dict[str, str]], folder: Path, order: list[str]) -> IsolatedEnvironment:
    """An environment of these places, whose names are written in this order."""

    def of(place: str) -> dict[str, str]:
        values = held.get(place, {})
        return {name: values[name] for name in order if name in values}

    for name in (".env", ".env.test"):
        lines = [f"{key}={quoted(value)}\n" for key, value in of(name).items()]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    for key, value in of("secret file").items():
        (secrets / key).write_text(value, encoding="utf-8")
    process = {
        "SSOT_ENVIRONMENT": "test",
        "SSOT_ENV_DIRECTORY": str(folder),
        "SSOT_SECRETS_DIRECTORY": str(secrets),
    }
    return IsolatedEnvironment.load(
        {**of("process"), **process},
        service="auth",
        defaults=of("default"),
        test_defaults=of("test default"),
        overrides=of("override"),
    )


def place(origin: object) -> str:
    """Which of the places an origin is."""
    told = str(origin).partition(",")[0]
    if told.startswith("secret file"):
        return "secret file"
    return Path(told).name if os.sep in told else told


def test_the_layers_are_named_from_the_weakest_to_the_strongest() -> None:
    """The vocabulary is the order."""
    assert LAYERS == (
        "default", "test default", "env file", "secret file", "process", "override", "overlay",
    )  # fmt: skip


@given(HELD, st.permutations(NAMES))
def test_precedence_is_a_total_order(held: dict[str, dict[str, str]], order: list[str]) -> None:
    """The strongest place that holds a name wins, the others stand behind it in order."""
    with TemporaryDirectory() as name:
        environment = build(held, Path(name), order)
        again = build(held, Path(name), order[::-1])
    assert dict(environment.snapshot()) == dict(again.snapshot())
    for name in NAMES:
        holders = [each for each in reversed(PLACES) if name in held.get(each, {})]
        assert (name in environment) == bool(holders)
        if not holders:
            continue
        variable = environment.snapshot().variables[name]
        assert environment.get(name) == held[holders[0]][name]
        assert place(variable.origin) == holders[0]
        assert [place(each.origin) for each in variable.over] == holders[1:]
        # What stands in a file is not looked into before it is used: the text is as it is written.
        assert [each.value for each in variable.over] == [held[each][name] for each in holders[1:]]
        # Once in a secret file, it is secret wherever else it stands.
        assert variable.secret == ("secret file" in holders)


@pytest.mark.parametrize("kind", ["staging", "production"])
def test_a_file_that_was_left_in_an_image_is_not_read(kind: str, tmp_path: Path) -> None:
    """In staging and production no .env is read unless it is asked for by name."""
    (tmp_path / ".env").write_text("COLOUR=left\n")
    (tmp_path / f".env.{kind}").write_text("COLOUR=behind\n")
    process = {"SSOT_ENVIRONMENT": kind, "SSOT_ENV_DIRECTORY": str(tmp_path)}
    assert IsolatedEnvironment.load(process).get("COLOUR") is None
    process["SSOT_ENV_FILES"] = os.pathsep.join(
        str(tmp_path / name) for name in (f".env.{kind}", ".env")
    )
    # The order is that in which they are named.
    assert IsolatedEnvironment.load(process).get("COLOUR") == "left"


@pytest.mark.parametrize("kind", ["development", "staging", "production"])
def test_defaults_for_tests_are_in_tests_alone(kind: str) -> None:
    """Nowhere else, not even when the default is all there is."""
    options = {"test_defaults": {"COLOUR": "test"}}
    assert IsolatedEnvironment({"SSOT_ENVIRONMENT": kind}, **options).get("COLOUR") is None
    assert IsolatedEnvironment({"SSOT_ENVIRONMENT": "test"}, **options).get("COLOUR") == "test"


@pytest.mark.parametrize("kind", ["development", "staging", "production"])
def test_a_switch_for_tests_is_refused_outside_of_them(kind: str) -> None:
    """Whoever set it believes that it works: it is told, not overlooked."""
    with pytest.raises(SettingsError, match=f"SSOT_TEST_BYPASS .*is for tests, and this is {kind}"):
        IsolatedEnvironment({"SSOT_ENVIRONMENT": kind, "SSOT_TEST_BYPASS": "1"})
    IsolatedEnvironment({"SSOT_ENVIRONMENT": "test", "SSOT_TEST_BYPASS": "1"})
    with pytest.raises(SettingsError) as wrong:
        IsolatedEnvironment({"SSOT_ENVIRONMENT": kind, "SSOT_TEST_LOGIN_PASSWORD": "changeme"})
    # That it is no good password either, is no second problem.
    assert len(wrong.value.problems) == 1


def test_a_name_that_decides_cannot_stand_in_a_file(tmp_path: Path) -> None:
    """It is told once, and nothing is judged as if it were in force."""
    (tmp_path / ".env").write_text("SSOT_ENVIRONMENT=prod\nOTEL_SERVICE_NAME=x\nA=1\n")
    with pytest.raises(SettingsError) as wrong:
        IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path)})
    first, second = wrong.value.problems
    assert first.startswith(f"{tmp_path}/.env, line 1: SSOT_ENVIRONMENT decides which files are")
    assert second.startswith(f"{tmp_path}/.env, line 2: OTEL_SERVICE_NAME is read by OpenTelemetry")


@pytest.mark.parametrize("layer", ["defaults", "test_defaults", "overrides"])
def test_a_name_that_decides_comes_from_the_process_alone(layer: str) -> None:
    """No layer of code makes half of a process believe that it is in production."""
    with pytest.raises(SettingsError, match="SSOT_ENVIRONMENT is protected"):
        IsolatedEnvironment({}, **{layer: {"SSOT_ENVIRONMENT": "production"}})


@pytest.mark.parametrize("layer", ["defaults", "test_defaults", "overrides"])
def test_what_is_no_variable_is_told_before_it_is_used(layer: str) -> None:
    """Names and values of a wrong kind, every one of them, in sentences."""
    values = {"A B": "1", "ÄRGER": "1", "NUMBER": 5, "NUL": "a\0b"}
    with pytest.raises(SettingsError) as wrong:
        IsolatedEnvironment({}, **{layer: values})
    assert wrong.value.problems == (
        "'A B' is no name of a variable: letters, digits and _, no digit first",
        "'ÄRGER' is no name of a variable: letters, digits and _, no digit first",
        "NUMBER: a value is text, not int",
        "NUL: a value cannot hold a NUL character",
    )


def test_a_reference_means_the_value_that_wins(tmp_path: Path) -> None:
    """A file refers to what the process says in the end; to its own name it means the weaker one."""
    (tmp_path / ".env").write_text("HOST=file\nURL=http://${HOST}/\nROUTE=/base\n")
    (tmp_path / ".env.development").write_text("ROUTE=${ROUTE}/more\n")
    environment = IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path), "HOST": "process"})
    assert environment.require("URL", "ROUTE") == ("http://process/", "/base/more")
    environment.override({"HOST": "override", "LITERAL": "${HOST}"})
    # What comes from code is taken as it is.
    assert environment.require("URL", "LITERAL") == ("http://override/", "${HOST}")


def test_a_name_of_a_secret_file_is_secret_in_every_layer(tmp_path: Path) -> None:
    """Also when the process wins over the file, and in what is made of it."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "GREETING").write_text("hello-from-file")
    (tmp_path / ".env").write_text("CARD=to ${GREETING}\nLETTER=${CARD}\n")
    environment = IsolatedEnvironment.load(
        {
            "SSOT_ENV_DIRECTORY": str(tmp_path),
            "SSOT_SECRETS_DIRECTORY": str(secrets),
            "GREETING": "hello-from-process",
        }
    )
    assert environment.get("LETTER") == "to hello-from-process"
    for name in ("GREETING", "CARD", "LETTER"):
        variable = environment.snapshot().variables[name]
        assert variable.secret
        assert "hello" not in f"{variable} {variable!r} {environment.explain(name)}"


def test_all_problems_of_all_kinds_are_told_at_once(tmp_path: Path) -> None:
    """Syntax, expansion, misplacement, weak secrets and a secret file that leads outside, in one."""
    (tmp_path / ".env").write_text("BROKEN\nX=${NOBODY}\nSSOT_ENV_FILES=a\nA=${B}\nB=${A}\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "AUTH_TOKEN").symlink_to("/etc/hostname")
    process = {
        "SSOT_ENV_DIRECTORY": str(tmp_path),
        "SSOT_SECRETS_DIRECTORY": str(secrets),
        "AUTH_PASSWORD": "changeme",
        "SSOT_TEST_MODE": "1",
    }
    with pytest.raises(SettingsError) as wrong:
        IsolatedEnvironment.load(process)
    told = wrong.value.problems
    for each in (
        f"{tmp_path}/.env, line 1: no = follows the name",
        f"NOBODY is not set; X ({tmp_path}/.env, line 2)",
        f"{tmp_path}/.env, line 3: SSOT_ENV_FILES decides",
        "A -> B -> A",
        f"{secrets}/AUTH_TOKEN: is a link that leads out of the folder",
        "AUTH_PASSWORD (process): is a placeholder",
        "SSOT_TEST_MODE (process): is for tests",
    ):
        assert sum(problem.startswith(each) for problem in told) == 1, (each, told)
    assert len(told) == 7
    _, examined = examine(process)
    assert examined == told


@pytest.mark.parametrize("folder", ["nowhere", "file", "x" * 300])
def test_a_named_folder_must_be_one(folder: str, tmp_path: Path) -> None:
    """A mistyped folder is not the same as no files, and never an error of the system."""
    (tmp_path / "file").write_text("A=1\n")
    with pytest.raises(
        SettingsError,
        match=rf"SSOT_ENV_DIRECTORY \(process\): {tmp_path}/{folder}: there is no such folder",
    ):
        IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path / folder)})


@pytest.mark.parametrize(
    ("name", "what", "why"),
    [
        ("SSOT_ENV_FILES", "nowhere", "there is no such file; make it, or do not name it"),
        ("SSOT_ENV_FILES", "folder", "is a folder, not a file; put a regular file there"),
        (
            "SSOT_SECRETS_DIRECTORY",
            "nowhere",
            "there is no such folder; make it, or do not name it",
        ),
        ("SSOT_SECRETS_DIRECTORY", "file", "is no folder; name the folder that holds the files"),
    ],
)
def test_what_is_named_and_cannot_be_read_is_told_with_who_names_it(
    name: str, what: str, why: str, tmp_path: Path
) -> None:
    """Whoever mistyped a path looks for the variable; and what lacks for it is no second mistake."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError) as wrong:
        IsolatedEnvironment.load({"SSOT_ENVIRONMENT": "staging", name: str(tmp_path / what)})
    assert wrong.value.problems == (
        f"{name} (process): {tmp_path}/{what}: {why}; whatever it sets counts as not set",
    )


@pytest.mark.parametrize("name", ["SSOT_ENV_FILES", "SSOT_SECRETS_DIRECTORY", "SSOT_ENV_DIRECTORY"])
def test_a_home_folder_that_no_shell_expanded_is_explained(name: str) -> None:
    """In a unit file or a compose file ``~`` stays as it is, and looks right to whoever reads it."""
    with pytest.raises(SettingsError, match=r"~/.*; ~ is a shell's, .* write the whole path"):
        IsolatedEnvironment.load({name: "~/nowhere"})


def test_a_file_that_nobody_names_is_told_with_what_comes_of_it(tmp_path: Path) -> None:
    """It cannot be read, so all that is demanded lacks: that is said where it begins."""
    (tmp_path / ".env").write_bytes("A=1\n".encode("utf-16"))
    (tmp_path / ".env.development").write_text("B=${A}\n")
    with pytest.raises(SettingsError) as wrong:
        IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path)})
    unread, lack = wrong.value.problems
    assert unread == (
        f"{tmp_path}/.env, line 1: byte 0 begins UTF-16; save the file as UTF-8; "
        "whatever it sets counts as not set"
    )
    assert lack.startswith("A is not set; B ")


def test_a_link_to_nothing_is_no_absent_file(tmp_path: Path) -> None:
    """Somebody meant a file to be there, and is told of the link."""
    (tmp_path / ".env").symlink_to(tmp_path / "gone")
    with pytest.raises(SettingsError, match=r"\.env: is a link to nothing; correct it"):
        IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path)})


def test_sources_by_hand() -> None:
    """Without any source, only what is handed over is there."""
    assert dict(IsolatedEnvironment({"A": "1"}, sources=Sources()).snapshot()) == {"A": "1"}

"""`ssot env`: where a variable comes from, and whether the services could start; never a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssot.configuration.inspection import check, explain, notes_of
from ssot.configuration.schema import secrecy
from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError

URL = "postgresql://role:s3cret-Pq7x@host/db"
KEY = "Xq3v" + "Ab7_-" * 7 + "9dQz"
GOOD = {
    "SSOT_DATABASE_URL": URL,
    "SSOT_REDIS_URL": "redis://h:1/0",
    "SSOT_AUTH_URL": "http://h:1",
    "AUTH_SIGNING_KEY": KEY,
}


def ssot(folder: Path, *arguments: str, **values: str) -> tuple[int, str, str]:
    """The command as people type it, in a folder and with exactly these variables."""
    done = subprocess.run(
        [sys.executable, "-c", "from ssot.cli import main; main()", "env", *arguments],
        env=IsolatedEnvironment(os.environ).child_env(values),
        cwd=folder, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_commands_end_with_the_code_that_a_start_would(tmp_path: Path) -> None:
    """0 and what was asked for on standard output; 2 and why for what is unknown or wrong."""
    assert ssot(tmp_path, "check", **GOOD) == (
        0, "environment development, no file there: valid for auth, migrate, node, worker\n", "",
    )  # fmt: skip
    code, out, err = ssot(tmp_path, "check", "auth", SSOT_DATABASE_URL=URL)
    assert (code, err) == (2, "")
    assert out.splitlines()[1].startswith(
        "  auth  AUTH_SIGNING_KEY is not set for the auth service: "
    )
    code, out, err = ssot(tmp_path, "explain", "SSOT_DATABASE_URL", **GOOD)
    assert (code, err) == (0, "")
    assert "s3cret" not in out
    assert ssot(tmp_path, "explain", "ssot_database_ulr", **GOOD) == (
        2, "", "ssot: ssot_database_ulr is not set, and no setting (did you mean SSOT_DATABASE_URL?)\n",
    )  # fmt: skip


def test_each_problem_is_told_once_with_those_who_have_it(tmp_path: Path) -> None:
    """In columns; what all lack is told of all."""
    (tmp_path / ".env").write_text("X=${NOBODY}\nAUTH_PORT=many\n")
    text, good = check({"SSOT_ENV_DIRECTORY": str(tmp_path)})
    assert not good
    lines = text.splitlines()
    assert lines[0] == f"environment development, {tmp_path}/.env looked at: 6 problems"
    told = [line[2:].split("  ", 1) for line in lines[1:]]
    by_name = {problem.strip().split()[0]: who for who, problem in told}
    assert by_name == {
        "NOBODY": "all", "SSOT_DATABASE_URL": "all", "AUTH_SIGNING_KEY": "auth", "AUTH_PORT": "auth",
        "SSOT_REDIS_URL": "node, worker", "SSOT_AUTH_URL": "node",
    }  # fmt: skip
    # Every problem begins in one column.
    assert len({len(line) - len(line[2:].split("  ", 1)[1].lstrip()) for line in lines[1:]}) == 1


def test_a_name_that_nobody_reads_is_noted(tmp_path: Path) -> None:
    """With its place and what was probably meant; the environment is as valid as without it."""
    (tmp_path / ".env").write_text("A=1\n\nAUTH_ACESS_TTL=60\nNODE_RING_SIZ=${NOBODY}\n")
    code, out, err = ssot(
        tmp_path, "check", "auth", "worker",
        SSOT_DATABSE_POOL_SIZE="7", WORKER_X_Y_Z="s3cret-Pq7x",
        **{name: value for name, value in GOOD.items() if name != "SSOT_REDIS_URL"},
    )  # fmt: skip
    # What else is wrong decides alone.
    assert (code, err) == (2, "")
    assert out.splitlines()[-3:] == [
        f"note: AUTH_ACESS_TTL ({tmp_path}/.env, line 3) is read by no service (did you mean AUTH_ACCESS_TTL?)",
        "note: SSOT_DATABSE_POOL_SIZE (process) is read by no service "
        "(did you mean SSOT_DATABASE_POOL_SIZE?)",
        "note: WORKER_X_Y_Z (process) is read by no service",
    ]
    (tmp_path / ".env").write_text("NODE_RING_SIZ=9\n")
    code, out, err = ssot(tmp_path, "check", **GOOD)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"environment development, {tmp_path}/.env looked at: valid for auth, migrate, node, worker",
        f"note: NODE_RING_SIZ ({tmp_path}/.env, line 1) is read by no service (did you mean NODE_RING_SIZE?)",
    ]
    assert ssot(tmp_path, "check", "auth", **GOOD)[1].count("note") == 0


def test_a_name_of_each_environment_is_noted_without_its_environment() -> None:
    """The one of this environment is told; those of the others are known, and not proposed."""
    assert notes_of({"SSOT_ENVIRONMENT": "staging", "AUTH_OAUTH_CLIENT_ID": "x",
                     "AUTH_OAUTH_CLIENT_ID_TEST": "x", "AUTH_OAUTH_CLIENT_SECRT_TEST": "x"}) == [
        "AUTH_OAUTH_CLIENT_ID (process) is read by no service "
        "(its name is AUTH_OAUTH_CLIENT_ID_STAGING here)",
        "AUTH_OAUTH_CLIENT_SECRT_TEST (process) is read by no service "
        "(did you mean AUTH_OAUTH_CLIENT_SECRET_STAGING?)",
    ]  # fmt: skip


def test_what_is_read_by_somebody_is_not_noted(tmp_path: Path) -> None:
    """Every name of the schema, what decides what is read, what a line needs, and other programs."""
    (tmp_path / ".env").write_text(
        "SSOT_REGION=north\nAUTH_HOME=x\nURL=http://${SSOT_REGION}/${A:-${AUTH_HOME}}\nA=1\n"
        "SSOT_UNUSED='${SSOT_QUOTED}'\nSSOT_QUOTED=1\n"
    )
    known = dict.fromkeys([*secrecy(), "SSOT_SECRETS_DIRECTORY", "SSOT_ENV_COMMANDS"], "")
    foreign = dict.fromkeys(
        ["NODE_OPTIONS", "NODE_ENV", "AUTH_SERVICE_HOST", "AUTH_SERVICE_PORT_HTTP", "SSOT_MORE_A",
         "NODE_PORT_8082_TCP_ADDR", "NODEX", "ssot_x", "PATH", "SSOT_TEST_MODE"], "1",
    )  # fmt: skip
    process = {**known, **foreign, "SSOT_ENVIRONMENT": "test", "SSOT_ENV_DIRECTORY": str(tmp_path)}
    noted = [note.split()[0] for note in notes_of(process, others=("SSOT_MORE_",))]
    assert noted == ["SSOT_QUOTED", "SSOT_UNUSED"]


def test_the_story_of_a_variable(tmp_path: Path) -> None:
    """Value, origin, what it is made of and won over, what it is for, who reads it."""
    (tmp_path / ".env").write_text("AUTH_PORT=1\n")
    (tmp_path / ".env.development").write_text("P=2\nAUTH_PORT=${P}0\n")
    story = explain("AUTH_PORT", {**GOOD, "SSOT_ENV_DIRECTORY": str(tmp_path)})
    assert story.splitlines() == [
        "AUTH_PORT = 20",
        f"  from {tmp_path}/.env.development, line 2",
        "  made of P",
        f"  over {tmp_path}/.env, line 1: 1",
        "",
        "port to listen on; 0: any free one",
        "setting auth.port; read by auth; default 8081; 0 to 65535",
    ]


def test_a_services_own_name_wins_and_is_told() -> None:
    """Whoever asks for the shared name is told whom it does not reach."""
    process = {**GOOD, "WORKER_DATABASE_URL": URL}
    wins = "WORKER_DATABASE_URL wins over it for the worker service"
    assert wins in explain("SSOT_DATABASE_URL", process)
    assert wins in explain("SSOT_DATABASE_URL", process, service="worker")
    assert wins not in explain("SSOT_DATABASE_URL", process, service="node")
    assert "belongs to the worker service" in explain(
        "WORKER_DATABASE_URL", process, service="node"
    )


def test_a_name_that_each_environment_has_for_itself() -> None:
    """In tests there is a default; without the environment it is no name, and the right one is told."""
    process = {**GOOD, "SSOT_ENVIRONMENT": "test"}
    story = explain("AUTH_OAUTH_CLIENT_ID_TEST", process).splitlines()
    assert story[:2] == ["AUTH_OAUTH_CLIENT_ID_TEST = ssot-test-client", "  from test default"]
    with pytest.raises(SettingsError, match="here AUTH_OAUTH_CLIENT_SECRET_TEST"):
        explain("AUTH_OAUTH_CLIENT_SECRET", process)
    assert "********" in explain("AUTH_OAUTH_CLIENT_SECRET_TEST", process)


def test_what_decides_what_is_read_is_explained() -> None:
    """It is told where it may be set, and no other name is proposed for one that there is."""
    assert explain("SSOT_ENV_FILES", GOOD).splitlines()[0] == "SSOT_ENV_FILES is not set"
    assert "given to the process alone" in explain("SSOT_SECRETS_DIRECTORY", GOOD)


def test_what_is_wrong_is_told_with_the_story(tmp_path: Path) -> None:
    """A name whose text has no value has a story nevertheless, and no secret is in it."""
    (tmp_path / ".env").write_text("API_TOKEN=s3cret-${NOBODY}\n")
    story = explain("API_TOKEN", {**GOOD, "SSOT_ENV_DIRECTORY": str(tmp_path)})
    assert story.startswith("API_TOKEN is written, and what is written has no value; see below")
    assert "NOBODY is not set; API_TOKEN" in story
    assert "s3cret" not in story


def test_a_value_that_no_service_can_use_is_told_with_its_story(tmp_path: Path) -> None:
    """Also of a shared name, which is of no service in particular; what others lack is not told."""
    (tmp_path / ".env").write_text("SSOT_REDIS_TIMEOUT=soon\nAUTH_PORT=many\n")
    story = explain("SSOT_REDIS_TIMEOUT", {**GOOD, "SSOT_ENV_DIRECTORY": str(tmp_path)})
    assert f"  - SSOT_REDIS_TIMEOUT (from {tmp_path}/.env, line 1): Input should be" in story
    assert story.count("  - ") == 1


def test_a_mistyped_name_is_told_to_be_none() -> None:
    """It is set, so there is a story; that nobody reads it is a part of it."""
    story = explain("SSOT_DATABSE_POOL_SIZE", {**GOOD, "SSOT_DATABSE_POOL_SIZE": "7"})
    assert story.splitlines() == [
        "SSOT_DATABSE_POOL_SIZE = 7", "  from process", "",
        "no setting has this name (did you mean SSOT_DATABASE_POOL_SIZE?)",
    ]  # fmt: skip
    assert "no setting" not in explain("REGION", {**GOOD, "REGION": "north"})


def test_a_value_cannot_write_the_story() -> None:
    """Line ends and what moves a terminal's cursor are shown as Python writes them."""
    told = explain("NOTE", {**GOOD, "NOTE": "a\n  from the vault\x1b[2J"}).splitlines()
    assert told == [r"NOTE = a\n  from the vault\x1b[2J", "  from process"]


@pytest.mark.parametrize("environment", ["prod", "Production", "", "testing"])
def test_an_unknown_environment_is_no_other_one(environment: str) -> None:
    """Neither development nor anything else is assumed."""
    for ask in (lambda p: check(p), lambda p: explain("PATH", p)):
        with pytest.raises(SettingsError, match=r"SSOT_ENVIRONMENT is .*there are development"):
            ask({**GOOD, "SSOT_ENVIRONMENT": environment})

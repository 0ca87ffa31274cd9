"""Reloading: valid and then swapped, or refused whole; readers see one state or the other."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
from streams.support import threads

from ssot.environment import Change, IsolatedEnvironment, Snapshot
from ssot.errors import SettingsError


def load(folder: Path, **values: str) -> IsolatedEnvironment:
    """An environment of the files in a folder, with secret files in `secrets`."""
    (folder / "secrets").mkdir(exist_ok=True)
    process = {"SSOT_ENV_DIRECTORY": str(folder), "SSOT_SECRETS_DIRECTORY": str(folder / "secrets")}
    return IsolatedEnvironment.load({**process, **values})


def test_what_changed_is_swapped_and_told(tmp_path: Path) -> None:
    """Set, changed and gone, in .env and in secret files; what stronger layers hold does not change."""
    file, secret = tmp_path / ".env", tmp_path / "secrets" / "API_TOKEN"
    file.write_text("GONE=1\nKEPT=1\nCHANGED=1\nSTRONGER=file\n")
    environment = load(tmp_path, STRONGER="process")
    told: list[Change] = []
    environment.subscribe(told.append)
    file.write_text("KEPT=1\nCHANGED=2\nSTRONGER=other\nNEW=${CHANGED}\n")
    secret.write_text("s3cret-value\n")
    # Not before it is asked to.
    assert environment.get("CHANGED") == "1"
    changes = environment.reload()
    assert [each.name for each in changes] == ["API_TOKEN", "CHANGED", "GONE", "NEW"]
    assert told == list(changes)
    assert "s3cret-value" not in f"{changes}{[*map(str, changes)]}{[each.new for each in changes]}"
    assert environment.require("CHANGED", "NEW", "STRONGER", "API_TOKEN") == (
        "2", "2", "process", "s3cret-value",
    )  # fmt: skip
    assert "GONE" not in environment
    assert environment.reload() == ()


def test_overrides_and_deletions_stay(tmp_path: Path) -> None:
    """What code has decided is not undone by a file."""
    (tmp_path / ".env").write_text("A=1\nB=1\n")
    environment = load(tmp_path)
    environment.override({"A": "override"})
    environment.delete("B")
    (tmp_path / ".env").write_text("A=2\nB=2\n")
    assert environment.reload() == ()
    assert environment.get("A") == "override"
    assert "B" not in environment


def test_all_that_is_wrong_is_one_error_and_nothing_changes(tmp_path: Path) -> None:
    """Every kind of bad file at once; values, origins, redaction, counts and subscribers stay."""
    file, secrets = tmp_path / ".env", tmp_path / "secrets"
    file.write_text("A=1\nAPI_TOKEN=s3cret-before\nLOCKED=1\n")

    def validate(snapshot: Snapshot) -> list[str]:
        return [f"A is {snapshot['A']}, not a number"] if snapshot.get("A") == "x" else []

    process = {"SSOT_ENV_DIRECTORY": str(tmp_path), "SSOT_SECRETS_DIRECTORY": str(secrets)}
    secrets.mkdir()
    environment = IsolatedEnvironment.load(process, validate=validate)
    environment.protect("LOCKED")
    told: list[Change] = []
    environment.subscribe(told.append)
    before, statistics, story = (
        environment.snapshot(), environment.statistics(), environment.explain("API_TOKEN"),
    )  # fmt: skip

    file.write_text(
        "A=x\nno assignment\nAPI_TOKEN=s3cret-after\nX=${NOBODY}\nP=${Q}\nQ=${P}\nC=$(id)\n"
        "LOCKED=2\nSSOT_SECRETS_DIRECTORY=/\nAUTH_PASSWORD=changeme\nA=2\n1X=3\nBAD=${A\n"
    )
    (tmp_path / ".env.development").write_bytes(b"OK=1\nRAW=\xff\n")
    (secrets / "bad-name").write_text("s3cret-three")
    (secrets / "LINK").symlink_to("/etc/passwd")
    (secrets / "NUL").write_bytes(b"s3cret\0four")
    with pytest.raises(SettingsError) as wrong:
        environment.reload()
    expected = [
        f"{file}, line 2: is no assignment",
        f"{file}, line 11: A is set on line 1 already",
        f"{file}, line 12: the name before = is not legal",
        f"{tmp_path}/.env.development, line 2: byte 9 of the file is not UTF-8",
        f"{secrets}/LINK: is a link that leads out of the folder",
        f"{secrets}/NUL: on line 1, byte 6 of the file is NUL",
        f"{secrets}/bad-name: the name is not legal",
        f"NOBODY is not set; X ({file}, line 4) refers to it",
        f"BAD ({file}, line 13): the ${{ at character 1 of its text is never closed",
        f"P -> Q -> P: P ({file}, line 5), Q ({file}, line 6) refer to each other in a circle",
        f"C ({file}, line 7): the command at character 1 of its text: commands are off",
        f"{file}, line 9: SSOT_SECRETS_DIRECTORY decides",
        f"AUTH_PASSWORD ({file}, line 10): is a placeholder",
        "LOCKED is protected",
        "A is x, not a number",
    ]
    problems = wrong.value.problems
    for each in expected:
        assert sum(problem.startswith(each) for problem in problems) == 1, (each, problems)
    assert len(problems) == len(expected)
    assert "s3cret" not in str(wrong.value)

    assert environment.snapshot() is before
    assert environment.explain("API_TOKEN") == story
    assert told == []
    after = environment.statistics()
    assert (after.refused, after.reloads, after.revision) == (1, 0, statistics.revision)
    # A value that was refused is nobody's secret: it is in no redactor.
    assert environment.redact("s3cret-before s3cret-after") == "******** s3cret-after"

    for name in ("bad-name", "LINK", "NUL"):
        (secrets / name).unlink()
    (tmp_path / ".env.development").unlink()
    file.write_text("A=2\nAPI_TOKEN=s3cret-after\nLOCKED=1\n")
    assert [each.name for each in environment.reload()] == ["A", "API_TOKEN"]
    assert [each.name for each in told] == ["A", "API_TOKEN"]
    assert environment.statistics().reloads == 1


def test_a_protected_name_stays(tmp_path: Path) -> None:
    """Changed, removed or made by another: the reload is refused, with everything else in it."""
    file = tmp_path / ".env"
    file.write_text("LOCKED=1\nPART=1\nMADE=${PART}\n")
    environment = load(tmp_path)
    environment.protect("LOCKED", "MADE", "ABSENT")
    for text, name in (
        ("LOCKED=2\nPART=1\nMADE=${PART}\nOTHER=1\n", "LOCKED"),
        ("PART=1\nMADE=${PART}\nOTHER=1\n", "LOCKED"),
        ("LOCKED=1\nPART=2\nMADE=${PART}\nOTHER=1\n", "MADE"),
        ("LOCKED=1\nPART=1\nMADE=${PART}\nABSENT=\nOTHER=1\n", "ABSENT"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError) as wrong:
            environment.reload()
        assert wrong.value.problems == (
            f"{name} is protected: it stays as it was when the process started",
        )
        assert "OTHER" not in environment
    with pytest.raises(SettingsError, match="MADE is protected"):
        environment.override({"PART": "2"})
    assert environment.get("MADE") == "1"


@pytest.mark.parametrize("how", ["reload", "override", "delete"])
def test_a_secret_that_was_replaced_stays_redacted(how: str, tmp_path: Path) -> None:
    """Late lines of a log may still hold the old one; overlays know it too."""
    (tmp_path / ".env").write_text("API_TOKEN=s3cret-before\n")
    environment = load(tmp_path)
    overlay = environment.overlay({"CARD": "s3cret-before"})
    if how == "reload":
        (tmp_path / ".env").write_text("API_TOKEN=s3cret-after\n")
        environment.reload()
    elif how == "override":
        environment.override({"API_TOKEN": "s3cret-after"})
    else:
        environment.delete("API_TOKEN")
    for redact in (environment.redact, environment.redactor(), overlay.redactor()):
        assert "s3cret" not in redact("s3cret-before") + redact("s3cret-after" * (how != "delete"))
    assert "s3cret" not in overlay.explain("CARD")


def test_nothing_is_torn_while_it_reloads(tmp_path: Path) -> None:
    """Four threads read two names while the file that holds both is exchanged and read again."""
    file, other = tmp_path / ".env", tmp_path / "other"
    file.write_text("LEFT=0\nRIGHT=0\n")
    environment = load(tmp_path)
    overlay = environment.overlay({"OWN": "1"})
    done = threading.Event()
    torn: list[tuple[str, ...]] = []
    seen: set[str] = set()

    def work(number: int) -> None:
        if number == 0:
            try:
                for value in range(1, 13):
                    # A broken one in between changes nothing for readers.
                    if value % 4 == 0:
                        file.write_text(f"LEFT={value}\nbroken\n")
                        with pytest.raises(SettingsError):
                            environment.reload()
                    other.write_text(f"LEFT={value}\nRIGHT={value}\n")
                    other.replace(file)
                    environment.reload()
            finally:
                done.set()
            return
        while not done.is_set():
            pair = (environment if number % 2 else overlay).require("LEFT", "RIGHT")
            seen.add(pair[0])
            if pair[0] != pair[1]:
                torn.append(pair)

    threads(work, 5)
    assert torn == []
    assert len(seen) > 1
    assert environment.statistics().reloads == 12


def test_reloads_and_overrides_of_many_threads(tmp_path: Path) -> None:
    """All of them happen, one after the other, and every subscriber has one story."""
    (tmp_path / ".env").write_text("A=1\n")
    environment = load(tmp_path)
    told: list[Change] = []
    environment.subscribe(told.append)

    def work(number: int) -> None:
        for turn in range(20):
            if number == 0:
                (tmp_path / ".env").write_text(f"A={turn}\n")
                environment.reload()
            else:
                environment.override({f"N{number}": str(turn)})

    threads(work, 4)
    for number in (1, 2, 3):
        assert [each.new for each in told if each.name == f"N{number}"] == [*map(str, range(20))]
    assert environment.get("A") == "19"
    assert environment.statistics().reloads == 20


def test_an_error_of_what_validates_changes_nothing(tmp_path: Path) -> None:
    """Not only what it says: also when it fails itself, and the next reload works."""
    (tmp_path / ".env").write_text("A=1\n")

    def validate(snapshot: Snapshot) -> list[str]:
        if snapshot.get("A") == "2":
            raise ZeroDivisionError
        return []

    environment = IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path)}, validate=validate)
    (tmp_path / ".env").write_text("A=2\n")
    with pytest.raises(ZeroDivisionError):
        environment.reload()
    assert environment.get("A") == "1"
    (tmp_path / ".env").write_text("A=3\n")
    environment.reload()
    assert environment.get("A") == "3"


def test_the_arguments_of_a_command_are_not_told(tmp_path: Path) -> None:
    """A token may be among them that no variable holds, and so nothing knows it."""
    (tmp_path / ".env").write_text("VALUE=$(/bin/echo 'Pq7-token of the vault')\n")
    environment = load(tmp_path, SSOT_ENV_COMMANDS="/bin/echo")
    assert environment.get("VALUE") == "Pq7-token of the vault"
    told = environment.explain("VALUE").splitlines()
    assert told[-1] == "  made by $(/bin/echo …)"


def test_a_command_runs_once_for_each_reading(tmp_path: Path) -> None:
    """However often the environment changes in between."""
    program, count = tmp_path / "count", tmp_path / "runs"
    program.write_text(f"#!/bin/sh\necho x >> {count}\nwc -l < {count}\n")
    program.chmod(0o755)
    (tmp_path / ".env").write_text(f"RUNS=$({program})\n")
    environment = load(tmp_path, SSOT_ENV_COMMANDS=str(program))
    environment.override({"A": "1"})
    environment.delete("A")
    assert (environment.get("RUNS") or "").strip() == "1"
    assert f"made by $({program})" in environment.explain("RUNS")
    environment.reload()
    assert (environment.get("RUNS") or "").strip() == "2"


def test_a_command_gets_nothing_of_the_platform(tmp_path: Path) -> None:
    """What runs for one value sees no other one, whoever holds it: process, files or code."""
    (tmp_path / ".env").write_text("SEEN=$(env)\nAPI_TOKEN=s3cret-of-a-file\n")
    process = {"PATH": os.environ["PATH"], "SSOT_DATABASE_URL": "postgresql://r:s3cret-one@h/d"}
    environment = load(tmp_path, SSOT_ENV_COMMANDS="env", **process)
    environment.override({"NOTE": "of code"})
    environment.reload()
    assert environment.get("SEEN") == f"PATH={os.environ['PATH']}"


def test_nothing_is_logged_by_a_reload(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks for it tells it."""
    (tmp_path / ".env").write_text("API_TOKEN=s3cret-before\n")
    environment = load(tmp_path)
    with caplog.at_level(logging.DEBUG):
        (tmp_path / ".env").write_text("API_TOKEN=s3cret-after\nbroken\n")
        with pytest.raises(SettingsError):
            environment.reload()
    assert caplog.text == ""

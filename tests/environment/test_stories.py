"""What is told of a value that changed in code, was copied, or is too much to be told."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ssot.environment import MASK, Change, IsolatedEnvironment
from ssot.errors import SettingsError

SECRET = "s3cret-of-somebody"


def test_explain_tells_the_overrides_of_before_and_who_made_them() -> None:
    """Of several parts of a process that set one name, it is known which one won over which."""
    environment = IsolatedEnvironment({"LIMIT": "1"})
    environment.override({"LIMIT": "2"}, label="the operator")
    environment.override({"LIMIT": "3"}, label="the autoscaler")
    assert environment.explain("LIMIT").splitlines() == [
        "LIMIT = 3",
        "  from override the autoscaler",
        "  over override the operator: 2",
        "       process: 1",
    ]


def test_only_the_newest_overrides_are_remembered() -> None:
    """Who sets a name every minute fills no memory."""
    environment = IsolatedEnvironment({})
    for number in range(50):
        environment.override({"LIMIT": str(number)})
    over = environment.snapshot().variables["LIMIT"].over
    assert [each.value for each in over] == [str(number) for number in range(48, 40, -1)]


def test_explain_tells_that_a_name_was_deleted_in_code() -> None:
    """Whoever finds it in a file must not believe that the file was not read."""
    environment = IsolatedEnvironment({"LIMIT": "1"})
    environment.delete("LIMIT")
    told = "LIMIT is not set: a part of this process has deleted it, and can set it again"
    assert environment.explain("LIMIT") == told
    assert environment.overlay().explain("LIMIT") == told
    below = IsolatedEnvironment({"LIMIT": "1"})
    overlay = below.overlay()
    overlay.delete("LIMIT")
    assert overlay.explain("LIMIT") == told
    assert below.get("LIMIT") == "1"


def test_a_secret_that_is_copied_into_another_name_stays_one() -> None:
    """Watchers, explain and repr mask the copy as they mask what it was copied of."""
    environment = IsolatedEnvironment({"API_TOKEN": SECRET})
    heard: list[Change] = []
    environment.subscribe(heard.append)
    environment.override({"NOTE": f"it is {SECRET}"})
    assert [(change.name, change.new) for change in heard] == [("NOTE", MASK)]
    assert SECRET not in repr(environment.snapshot().variables["NOTE"])
    assert environment.get("NOTE") == f"it is {SECRET}"


@pytest.mark.parametrize(
    "values",
    [{"SSOT_TEST_SKIP_LOGIN": "1"}, {"AUTH_SIGNING_KEY": "changeme"}],
    ids=["a switch of tests", "a placeholder"],
)
def test_in_production_an_overlay_takes_nothing_that_only_tests_may_have(
    values: dict[str, str],
) -> None:
    """One user's task is no way around the rules of the environment."""
    production = IsolatedEnvironment({"SSOT_ENVIRONMENT": "production"})
    overlay = production.overlay()
    for change in (production.overlay, overlay.override, overlay.overlay):
        with pytest.raises(SettingsError, match=next(iter(values))):
            change(values)
    IsolatedEnvironment({"SSOT_ENVIRONMENT": "test"}).overlay(values)


@pytest.mark.parametrize("value", ["\ud800", "x" * 131_072], ids=["half a character", "too long"])
def test_what_no_process_can_be_given_is_refused(value: str) -> None:
    """It is told where it is set, and not by whatever starts a child much later."""
    environment = IsolatedEnvironment({})
    for set_ in (environment.override, environment.overlay, environment.child_env):
        with pytest.raises(SettingsError, match="NOTE: "):
            set_({"NOTE": value})


def test_a_file_that_is_none_is_told_in_a_hundred_lines(tmp_path: Path) -> None:
    """A log that was named by mistake: the report can be read, and is there at once."""
    (tmp_path / "log").write_text("!\n" * 500_000)
    begin = time.monotonic()
    with pytest.raises(SettingsError) as wrong:
        IsolatedEnvironment.load({"SSOT_ENV_FILES": str(tmp_path / "log")})
    assert time.monotonic() - begin < 20
    assert len(wrong.value.problems) == 101
    assert wrong.value.problems[-1].endswith("is it the file that you mean?")


def test_a_process_that_stops_gives_up_the_programs_that_run(tmp_path: Path) -> None:
    """A reload in another thread is refused at once, and nothing is left of its program."""
    file = tmp_path / ".env"
    file.touch()
    process = {
        "SSOT_ENV_FILES": str(file),
        "SSOT_ENV_COMMANDS": "cat,tail",
        "PATH": "/bin:/usr/bin",
    }
    environment = IsolatedEnvironment.load({**process, "SSOT_ENV_COMMAND_TIMEOUT": "50"})
    file.write_text("A=$(tail -f /dev/null)\nB=$(tail -f /dev/zero)\n")
    told: list[tuple[str, ...]] = []

    def reload() -> None:
        with pytest.raises(SettingsError) as refused:
            environment.reload()
        told.append(refused.value.problems)

    reloading = threading.Thread(target=reload)
    reloading.start()
    environment.give_up()
    reloading.join(10)
    assert not reloading.is_alive()
    assert all("this process is stopping" in problem for problem in told[0])

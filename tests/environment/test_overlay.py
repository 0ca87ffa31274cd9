"""Overlays: as current as what lies below, and nothing of them ever leaves them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from streams.support import threads

from ssot.environment import MASK, IsolatedEnvironment, Overlay, View
from ssot.errors import SettingsError

NAMES = st.sampled_from(["ALPHA", "BETA", "AUTH_X", "NODE_X", "API_TOKEN"])
VALUES = st.dictionaries(NAMES, st.text(st.sampled_from("ab ="), max_size=3), max_size=3)
FOREIGN = {
    "auth": ("MIGRATE_", "NODE_", "WORKER_"),
    "node": ("AUTH_", "MIGRATE_", "WORKER_"),
    None: (),
}
BASE = {"ALPHA": "a", "NODE_X": "n", "AUTH_X": "x", "PATH": "/bin"}


class Tree(RuleBasedStateMachine):
    """Any tree of overlays, any changes in it, against plain dictionaries."""

    views = Bundle("views")

    def __init__(self) -> None:
        super().__init__()
        self.before = dict(os.environ)
        self.environment = IsolatedEnvironment(BASE)
        # Each view with what lies below it, its own changes and its service.
        self.model: list[tuple[View, int | None, dict[str, str | None], str | None]] = []

    @rule(target=views)
    def the_root(self) -> int:
        """The environment itself, once."""
        if not self.model:
            self.model.append((self.environment, None, dict(BASE), None))
        return 0

    @rule(target=views, below=views, values=VALUES, service=st.sampled_from([None, "auth", "node"]))
    def overlay(self, below: int, values: dict[str, str], service: str | None) -> int:
        """One more, of any that there is."""
        view, _, _, limit = self.model[below]
        assert isinstance(view, (IsolatedEnvironment, Overlay))
        if limit is not None and service not in (None, limit):
            with pytest.raises(SettingsError, match=f"the view of the {limit} service has nothing"):
                view.overlay(values, service=service)
            return below
        if foreign := [
            name for name in values if name.startswith(FOREIGN[service or limit] or "-")
        ]:
            with pytest.raises(SettingsError, match=f"{foreign[0]} belongs to"):
                view.overlay(values, service=service)
            return below
        made = view.overlay(values, service=service)
        self.model.append((made, below, dict(values), service or limit))
        values.clear()
        return len(self.model) - 1

    @rule(at=views, values=VALUES)
    def override(self, at: int, values: dict[str, str]) -> None:
        """Set names somewhere in the tree."""
        view, _, mine, limit = self.model[at]
        assert isinstance(view, (IsolatedEnvironment, Overlay))
        if any(name.startswith(FOREIGN[limit] or "-") for name in values):
            with pytest.raises(SettingsError, match=f"the {limit} service does not see it"):
                view.override(values)
            return
        view.override(values)
        mine.update(values)
        values.clear()

    @rule(at=views, names=st.lists(NAMES, max_size=2))
    def delete(self, at: int, names: list[str]) -> None:
        """Delete names somewhere in the tree."""
        view, _, mine, _ = self.model[at]
        view.delete(*names)  # type: ignore[attr-defined]
        mine.update(dict.fromkeys(names))

    def expected(self, at: int) -> dict[str, str]:
        """What a dictionary says."""
        _, below, mine, service = self.model[at]
        seen = {**(self.expected(below) if below is not None else {})}
        for name, value in mine.items():
            seen.pop(name, None)
            if value is not None:
                seen[name] = value
        return {n: v for n, v in seen.items() if not n.startswith(FOREIGN[service] or "-")}

    @invariant()
    def every_view_reads_as_its_model(self) -> None:
        """Values, absence and what a child gets: the same by every way of reading."""
        for at, (view, *_) in enumerate(self.model):
            expected = self.expected(at)
            assert dict(view.snapshot()) == expected
            for name in ("ALPHA", "BETA", "AUTH_X", "NODE_X", "API_TOKEN"):
                assert view.get(name) == expected.get(name)
                assert (name in view) == (name in expected)
            assert view.child_env() == {"PATH": "/bin"}
            for service in ("auth", "node"):
                told = {n: v for n, v in expected.items() if not n.startswith(FOREIGN[service])}
                assert view.child_env(service=service) == told
        assert dict(os.environ) == self.before


def test_no_tree_of_overlays_leaks() -> None:
    """Parents, siblings and os.environ stay as they are, whatever is set and deleted anywhere."""
    run_state_machine_as_test(Tree, settings=settings(max_examples=25, stateful_step_count=20))


def test_an_overlay_is_as_current_as_what_lies_below() -> None:
    """Except for its own names, at every depth."""
    environment = IsolatedEnvironment({"ALPHA": "1", "BETA": "1"})
    user = environment.overlay({"ALPHA": "user"}, label="alice")
    task = user.overlay(label="task")
    environment.override({"ALPHA": "2", "BETA": "2"})
    assert task.require("ALPHA", "BETA") == ("user", "2")
    user.delete("BETA")
    assert task.get("BETA") is None
    environment.override({"BETA": "3"})
    assert task.get("BETA") is None
    user.override({"BETA": ""})
    assert task.get("BETA", "default") == ""


def test_an_overlay_tells_where_its_values_come_from() -> None:
    """Its label, and whom it won over; what replaces a secret is one."""
    environment = IsolatedEnvironment({"CARD": "none", "API_TOKEN": "s3cret-below"})
    user = environment.overlay({"CARD": "4711", "API_TOKEN": "s3cret-above"}, label="of alice")
    assert user.explain("CARD").splitlines() == [
        "CARD = 4711", "  from overlay of alice", "  over process: none",
    ]  # fmt: skip
    told = user.explain("API_TOKEN")
    assert "s3cret" not in told
    assert told.count(MASK) == 2
    assert "alice" in repr(user)
    assert "s3cret" not in repr(user) + repr(user.snapshot())


@pytest.mark.parametrize("depth", [1, 2])
def test_what_is_protected_is_so_in_every_overlay(depth: int) -> None:
    """Set, deleted or given at the start; also in those that were there before the protection."""
    environment = IsolatedEnvironment({"ALPHA": "1", "SSOT_ENVIRONMENT": "test"})
    view: Any = environment
    for _ in range(depth):
        view = view.overlay()
    environment.protect("ALPHA")
    for name in ("ALPHA", "SSOT_ENVIRONMENT"):
        for change in (
            lambda n=name: view.override({"BETA": "1", n: "x"}),
            lambda n=name: view.delete("BETA", n),
            lambda n=name: view.overlay({n: "x"}),
        ):
            with pytest.raises(SettingsError, match=f"{name} is protected"):
                change()
    assert view.get("BETA") is None
    assert view.get("ALPHA") == "1"


def test_what_is_no_variable_is_refused_whole() -> None:
    """Nothing of it is set."""
    overlay = IsolatedEnvironment({}).overlay()
    with pytest.raises(SettingsError, match="a value is text, not NoneType"):
        overlay.override({"GOOD": "1", "BAD": None})  # type: ignore[dict-item]
    assert "GOOD" not in overlay


def test_a_mapping_that_changes_later_changes_nothing() -> None:
    """What was handed over was copied."""
    process, values = {"ALPHA": "1"}, {"BETA": "1"}
    environment = IsolatedEnvironment(process, overrides=values)
    overlay = environment.overlay(values)
    process["ALPHA"] = values["BETA"] = "2"
    assert overlay.require("ALPHA", "BETA") == ("1", "1")


def test_reads_of_an_overlay_never_tear() -> None:
    """Two names of one change, set below and in the overlay itself by other threads."""
    environment = IsolatedEnvironment({}, overrides={"A": "0", "B": "0"})
    overlay = environment.overlay({"C": "0", "D": "0"})
    torn: list[tuple[str, ...]] = []

    def work(number: int) -> None:
        for value in map(str, range(400)):
            if number == 0:
                environment.override({"A": value, "B": value})
            elif number == 1:
                overlay.override({"C": value, "D": value})
            else:
                a, b, c, d = overlay.require("A", "B", "C", "D")
                torn.extend([(a, b)] * (a != b) + [(c, d)] * (c != d))

    threads(work, 4)
    assert torn == []


def test_tasks_of_many_threads_keep_apart() -> None:
    """Each writes the same name in its own overlay, and reads its own value only."""
    environment = IsolatedEnvironment({"WHO": "nobody"})
    wrong: list[str | None] = []

    def work(number: int) -> None:
        mine = environment.overlay(label=str(number))
        for turn in range(100):
            mine.override({"WHO": f"{number}-{turn}"})
            if mine.get("WHO") != f"{number}-{turn}":
                wrong.append(mine.get("WHO"))

    threads(work, 8)
    assert wrong == []
    assert environment.get("WHO") == "nobody"


# Narrowed to one service

LOGIN = "postgresql://auth:s3cret-Pq7x@host/db"
MADE = f"AUTH_URL={LOGIN}\nSHARED=${{AUTH_URL}}\nSECOND=via ${{SHARED}}\nAUTH_COPY=${{SHARED}}\n"


def made(folder: Path, text: str) -> IsolatedEnvironment:
    """An environment that sees the names of every service, with these lines in its file."""
    (folder / ".env").write_text(text)
    return IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(folder), "PLAIN": "1"})


def test_a_narrowed_view_is_judged_like_one_that_was_limited_when_it_was_read(
    tmp_path: Path,
) -> None:
    """What is made of another service's name is refused, in the same words, wherever it is asked."""
    environment = made(tmp_path, MADE)
    told = []
    for narrow in (
        lambda: IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path)}, service="worker"),
        lambda: environment.overlay(service="worker"),
        lambda: environment.child_env(service="worker"),
        lambda: environment.overlay({"MORE": "1"}).overlay(service="worker"),
        lambda: environment.overlay({"MORE": "1"}).child_env(service="worker"),
    ):
        with pytest.raises(SettingsError) as refused:
            narrow()
        told.append(refused.value.problems)
        assert "s3cret" not in str(refused.value)
    assert told == [told[0]] * len(told)
    assert told[0] == (
        "AUTH_URL belongs to the auth service; the worker service does not see it; "
        f"SHARED ({tmp_path}/.env, line 2), and by it SECOND ({tmp_path}/.env, line 3), "
        "refer to it: use a shared name, or write ${AUTH_URL:-…}",
    )
    assert environment.overlay(service="auth").get("SECOND") == f"via {LOGIN}"
    assert environment.child_env(service="auth")["AUTH_COPY"] == LOGIN


def test_a_narrowed_view_takes_the_default_that_a_limited_one_has(tmp_path: Path) -> None:
    """A text after :- is what counts without the other's name, and a secret in it is known."""
    environment = made(tmp_path, "AUTH_KEY=Zq8-vR2p\nAPI_TOKEN=${AUTH_KEY:-Wm4-kT9s}\n")
    assert environment.get("API_TOKEN") == "Zq8-vR2p"
    limited = IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": str(tmp_path)}, service="node")
    assert limited.get("API_TOKEN") == "Wm4-kT9s"
    overlay = environment.overlay({"MORE": "1"}, service="node")
    for seen in (overlay.snapshot(), environment.child_env(service="node")):
        assert seen["API_TOKEN"] == "Wm4-kT9s"
        assert "AUTH_KEY" not in seen
    for view in (environment, overlay):
        assert "Wm4" not in view.redact("it is Wm4-kT9s")
    # Nobody gets from a limited view what it does not see itself.
    for view in (limited, environment.overlay(service="node"), overlay.overlay()):
        assert view.child_env(service="auth")["API_TOKEN"] == "Wm4-kT9s"
        assert "AUTH_KEY" not in view.child_env(service="auth")


def test_an_own_value_stands_for_one_that_cannot_be_made(tmp_path: Path) -> None:
    """Who sets every name that is made of another's is narrowed like anybody else."""
    environment = made(tmp_path, MADE)
    with pytest.raises(SettingsError, match="AUTH_URL belongs to the auth service"):
        environment.overlay({"SHARED": "own"}, service="node")
    overlay = environment.overlay({"SHARED": "own", "SECOND": "own"}, service="node")
    assert overlay.require("SHARED", "SECOND", "PLAIN") == ("own", "own", "1")
    assert overlay.child_env(service="node")["SHARED"] == "own"


def test_a_name_that_becomes_anothers_is_absent_from_then_on(tmp_path: Path) -> None:
    """What lies below may change as it likes: the narrowed view never has the other's value."""
    environment = made(tmp_path, "AUTH_URL=x\nSHARED=plain\n")
    overlay = environment.overlay(service="worker")
    above = overlay.overlay({"MORE": "1"})
    (tmp_path / ".env").write_text(MADE)
    environment.reload()
    assert environment.get("SHARED") == LOGIN
    for view in (overlay, above):
        assert view.get("SHARED") is None
        assert view.get("PLAIN") == "1"
        assert LOGIN not in dict(view.snapshot()).values()
        with pytest.raises(SettingsError) as missing:
            view.require("SHARED")
        told = "SHARED is made of what the worker service does not see"
        assert missing.value.problems == (told,)
        assert view.explain("SHARED") == told
        with pytest.raises(SettingsError, match="AUTH_URL belongs to the auth service"):
            view.child_env(service="worker")
    (tmp_path / ".env").write_text("AUTH_URL=x\nSHARED=again\n")
    environment.reload()
    assert above.get("SHARED") == "again"


def test_a_narrowed_view_never_tears(tmp_path: Path) -> None:
    """Two names of one change, narrowed and handed on by other threads meanwhile."""
    environment = made(tmp_path, "LEFT=${A:-0}\nRIGHT=${A:-0}\n")
    torn: list[tuple[str, str]] = []

    def work(number: int) -> None:
        for turn in range(150):
            if number == 0:
                environment.override({"A": str(turn)})
            else:
                view = environment.overlay(service="node").require("LEFT", "RIGHT")
                child = environment.child_env(service="worker")
                for left, right in (view, (child["LEFT"], child["RIGHT"])):
                    torn.extend([(left, right)] * (left != right))

    threads(work, 3)
    assert torn == []

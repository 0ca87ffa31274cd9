"""No secret that a lab or a run knows is in anything that they show or write."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import nbformat
import pytest
from notebooks.samples import PARAMETERS, SSOT, finish, notebook, start, write

from ssot.environment import secrets_among
from ssot.lab.focus import find_focus, focused, hidden
from ssot.lab.secrecy import Secrets, clean_messages, masked

PASSWORD = 'planted "pass/word" + 1'
TOKEN = "planted-token-5f1c0a"
IN_URL = "planted@url/password"
URL = f"postgresql://somebody:{quote(IN_URL, safe='')}@example.test/db"

SETUP = """\
import base64, json, os, pathlib, urllib.parse
from ssot.lab.lab import open_lab

told = pathlib.Path(os.environ["PLACE"])

def knows(*secrets):
    told.write_text(json.dumps(json.loads(told.read_text()) + list(secrets)))

def forms(secret):
    encoded = base64.b64encode(secret.encode()).decode()
    return [secret, urllib.parse.quote(secret, safe=""), encoded, json.dumps(secret)]

lab = await open_lab(
    "00_secrets", users=users, seed=seed, services=services, latency_ms=int(latency_ms),
    api_password=api_password,
)
"""

A_PARAMETER = """\
print(*forms(api_password))
    assert api_password == "another"
"""
THE_ENVIRONMENT = """\
print(*forms(os.environ["PLANTED_TOKEN"]), os.environ["PLANTED_ADDRESS"])
    raise RuntimeError(urllib.parse.unquote(os.environ["PLANTED_ADDRESS"]))
"""
A_USER = """\
alice = await lab.client("alice")
    knows(alice.user.password, alice.user.token)
    print(*forms(alice.user.token), *forms(alice.user.password))
    assert alice.user == "another"
"""
THE_KEYS = """\
urls = lab.database_urls
    knows(lab.signing_key, *(urllib.parse.urlsplit(url).password for url in urls.values()))
    knows(urllib.parse.urlsplit(lab.redis_url).password)
    display(urls, lab.redis_url)
    assert lab.signing_key == urls["owner"]
"""
A_STATEMENT = """\
bob = await lab.user("bob")
    knows(bob.password)
    await lab.rows(f"SELECT '{bob.password}' FROM nothing_of_this_name")
"""
A_PROCESS = """\
carol = await lab.user("carol")
    knows(carol.password)
    worse = lab.environment("worker") | {"WORKER_LEASE_TTL": carol.password}
    await lab.process("worker", "worker x", worse).start()
"""


def _forms(secret: str) -> Iterator[bytes]:
    encoded = base64.b64encode(secret.encode()).decode()
    texts = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        encoded.rstrip("="),
        base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        html.escape(secret),
    }
    return (text.encode() for text in texts)


@pytest.mark.long
def test_a_failing_batch_shows_and_writes_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte of the run, of its copy to explore and of what was printed is searched."""
    place = tmp_path / "known"
    place.write_text(json.dumps([PASSWORD, TOKEN, IN_URL]))
    bodies = (A_PARAMETER, THE_ENVIRONMENT, A_USER, THE_KEYS, A_STATEMENT, A_PROCESS)
    write(
        notebook(
            *bodies,
            setup=SETUP,
            summary="print(api_password)",
            parameters=f"{PARAMETERS}api_password: str = ''  # of nothing",
        ),
        tmp_path / "notebooks" / "00_secrets.ipynb",
    )
    monkeypatch.setenv("PLACE", str(place))
    monkeypatch.setenv("PLANTED_TOKEN", TOKEN)
    monkeypatch.setenv("PLANTED_ADDRESS", URL)
    code, output = finish(
        start(*SSOT, "run", "-p", "api_password", PASSWORD, cwd=tmp_path), within=90
    )
    assert code == 1, output
    folder = tmp_path / "outputs" / "latest"
    results = json.loads((folder / "results.json").read_text())
    checks = results["notebooks"][0]["checks"]
    # It ran to the end with the real values: each failed in its own words.
    assert [each["message"].partition(":")[0] for each in checks] == [
        "AssertionError", "RuntimeError", "AssertionError", "AssertionError",
        "ProgrammingError", "ProcessFailed",
    ]  # fmt: skip
    focus = find_focus(folder, "GP-01", outputs=tmp_path / "outputs")
    assert hidden(focus) == ["api_password"]

    written = {str(path): path.read_bytes() for path in folder.resolve().rglob("*.*")}
    written["printed"] = output.encode()
    written["copy"] = nbformat.writes(focused(focus)).encode()
    assert {Path(name).name for name in written} >= {
        "00_secrets.ipynb", "00_secrets.evidence.json", "results.json", "junit.xml", "index.html",
    }  # fmt: skip
    secrets = [each for each in json.loads(place.read_text()) if len(each) >= 8]
    assert len(secrets) >= 10
    found = [
        (name, secret)
        for name, content in written.items()
        for secret in secrets
        if any(form in content for form in _forms(secret))
    ]
    assert found == []


def test_what_the_environment_and_parameters_hold_is_secret_by_name() -> None:
    """A variable by its name, and the password of whatever URL, as written and decoded."""
    found = secrets_among({"API_TOKEN": "abc", "PLACE": "here", "AT": URL, "users": 8})
    assert found == {"abc", quote(IN_URL, safe=""), IN_URL}


def test_a_secret_parameter_is_masked_by_its_name() -> None:
    """However short it is, unless it is empty: then there is nothing to hide."""
    given = {"users": 8, "db_password": "x", "api_token": "", "max_tokens": 5}
    assert masked(given) == {**given, "db_password": "********"}


def test_secrets_may_come_at_any_time() -> None:
    """What was added is masked from then on, in every text of a value."""
    secrets = Secrets(["first-secret"])
    value = {"a": ["first-secret", ("second-secret", 3)]}
    assert secrets.clean(value) == {"a": ["********", ["second-secret", 3]]}
    secrets.add("second-secret")
    assert secrets.clean(value) == {"a": ["********", ["********", 3]]}


def test_only_what_is_shown_is_cleaned_in_messages() -> None:
    """As a message or in parts; a second call replaces the first."""
    sent = []
    session = SimpleNamespace(
        send=lambda stream, message, content=None: sent.append((message, content))
    )
    clean_messages(session, lambda content: {"text": "first"})
    clean_messages(session, lambda content: {"text": content["text"].upper()})
    session.send(None, {"msg_type": "stream", "content": {"text": "a"}})
    session.send(None, "error", {"text": "b"})
    session.send(None, "kernel_info_reply", {"text": "c"})
    assert sent == [
        ({"msg_type": "stream", "content": {"text": "A"}}, None),
        ("error", {"text": "B"}),
        ("kernel_info_reply", {"text": "c"}),
    ]

"""The OAuth provider of a lab: a process that keeps to RFC 6749."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio
from auth.support import CALLBACK, code_of, provider_process
from streams.support import until

from ssot.lab.provider import OAuthServer

CLIENTS = {"shop": "the-secret-of-shop", "other": "the-secret-of-other"}
SHOP = ("shop", "the-secret-of-shop")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with provider_process(CLIENTS) as (_, address):
        yield address


@pytest_asyncio.fixture
async def http(address: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=address, trust_env=False) as http:
        yield http


async def exchange(
    http: httpx.AsyncClient,
    code: str,
    auth: tuple[str, str] | None = SHOP,
    callback: str = CALLBACK,
    **form: str,
) -> httpx.Response:
    data = {"grant_type": "authorization_code", "code": code, "redirect_uri": callback, **form}
    if auth is None:
        return await http.post("/token", data=data)
    return await http.post("/token", data=data, auth=auth)


async def test_a_code_becomes_a_token_and_a_token_a_subject(http: httpx.AsyncClient) -> None:
    """The way of a log-in; the same user is the same subject each time, another is another."""
    subjects = []
    for user in ("alice", "alice", "bob"):
        answer = await exchange(http, await code_of(http, "shop", user))
        assert (answer.status_code, answer.json()["token_type"]) == (200, "Bearer")
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        info = (await http.get("/userinfo", headers=headers)).json()
        assert info["preferred_username"] == user
        subjects.append(info["sub"])
    assert subjects[0] == subjects[1] != subjects[2]


async def test_the_redirect_keeps_what_it_was_given(http: httpx.AsyncClient) -> None:
    """The query of the redirect URI and the state come back beside the code."""
    asked = {"response_type": "code", "client_id": "shop", "redirect_uri": CALLBACK, "login_hint": "alice", "state": "a&b"}  # fmt: skip
    location = (await http.get("/authorize", params=asked)).headers["location"]
    assert location.startswith("http://127.0.0.1:9/callback?")
    query = parse_qs(urlsplit(location).query)
    assert (query["kept"], query["state"], len(query["code"])) == (["1"], ["a&b"], 1)


@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"client_id": "nobody"}, 400, "invalid_request"),
        ({"redirect_uri": "/relative"}, 400, "invalid_request"),
        ({"redirect_uri": ""}, 400, "invalid_request"),
        ({"redirect_uri": "http://h/#fragment"}, 400, "invalid_request"),
        ({"response_type": "token"}, 302, "unsupported_response_type"),
        ({"login_hint": ""}, 302, "login_required"),
    ],
)
async def test_a_wrong_request_gets_no_code(
    http: httpx.AsyncClient, changed: dict[str, str], status: int, error: str
) -> None:
    """Whoever cannot be trusted is sent nowhere; any other mistake is told to the client."""
    asked = {"response_type": "code", "client_id": "shop", "redirect_uri": CALLBACK, "login_hint": "alice", **changed}  # fmt: skip
    answer = await http.get("/authorize", params=asked)
    assert answer.status_code == status
    if status == 302:
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        assert (query["error"], "code" in query) == ([error], False)
    else:
        assert answer.json()["error"] == error


async def test_a_code_is_of_one_client_one_redirect_and_one_use(http: httpx.AsyncClient) -> None:
    """A refused exchange by others does not use it up; a second use takes the token back."""
    code = await code_of(http, "shop", "alice")
    for answer in (
        await exchange(http, code, ("other", "the-secret-of-other")),
        await exchange(http, code, callback="http://127.0.0.1:9/other"),
        await exchange(http, "no-such-code"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    token = (await exchange(http, code)).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert (await http.get("/userinfo", headers=headers)).status_code == 200
    again = await exchange(http, code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert (await http.get("/userinfo", headers=headers)).status_code == 401


async def test_of_many_uses_at_once_one_is_good(http: httpx.AsyncClient) -> None:
    """Two who hold the same code cannot both have a token."""
    code = await code_of(http, "shop", "alice")
    answers = await asyncio.gather(*(exchange(http, code) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
        ({"code": ""}, "invalid_request"),
    ],
)
async def test_a_malformed_exchange_is_told(
    http: httpx.AsyncClient, form: dict[str, str], error: str
) -> None:
    """The error is one of the standard's."""
    given = {"grant_type": "authorization_code", "code": "x", "redirect_uri": CALLBACK, **form}
    answer = await http.post("/token", data=given, auth=SHOP)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_clients_are_counted_with_right_and_wrong_secrets() -> None:
    """What was asked is known by client id, and no secret is in it."""
    with provider_process(CLIENTS) as (_, address):
        async with httpx.AsyncClient(base_url=address, trust_env=False) as http:
            assert (await http.get("/asked")).json() == {}
            for auth in (SHOP, SHOP, ("shop", "wrong"), ("stranger", "wrong"), None):
                answer = await exchange(http, "no-such-code", auth)
                right = auth == SHOP
                assert answer.status_code == (400 if right else 401)
                if not right:
                    assert answer.headers["www-authenticate"] == "Basic"
                    assert answer.json()["error"] == "invalid_client"
            asked = await http.get("/asked")
            assert asked.json() == {
                "shop": {"right": 2, "wrong": 1},
                "stranger": {"right": 0, "wrong": 1},
            }
            assert "secret" not in asked.text


async def test_a_code_expires() -> None:
    """Once its time is over a code is worth nothing, and is told so."""
    app = OAuthServer(CLIENTS, code_ttl=0.2).app
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(base_url="http://127.0.0.1", transport=transport) as http:
        assert (await exchange(http, await code_of(http, "shop", "alice"))).status_code == 200
        code = await code_of(http, "shop", "alice")
        told: list[str] = []

        async def expired() -> bool:
            # Of another client's redirect, so that asking does not use it up.
            answer = await exchange(http, code, callback="http://127.0.0.1:9/other")
            told.append(answer.json()["error_description"])
            return "expired" in told[-1]

        await until(expired, what="the code to expire")
        assert (await exchange(http, code)).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "end of input"])
def test_it_ends_as_asked(how: str) -> None:
    """A signal or the end of its input stops it, with exit code 0 and nothing on stderr."""
    with provider_process(CLIENTS, *(["--until-eof"] if how == "end of input" else [])) as (process, _):  # fmt: skip
        if how == "end of input":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(signal.Signals[how])
        assert process.wait(10) == 0


@pytest.mark.parametrize("clients", ["", "not json", "[]", '{"a": 1}', '{"a": "the-secret"'])
def test_what_are_no_clients_is_told_without_a_secret(clients: str) -> None:
    """The variable is named, and nothing of its value."""
    done = subprocess.run(
        [sys.executable, "-m", "ssot.lab.provider"],
        env={**os.environ, "PROVIDER_CLIENTS": clients},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "PROVIDER_CLIENTS" in done.stderr
    assert "the-secret" not in done.stderr

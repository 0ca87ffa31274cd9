"""Log-in by an authorization code: the exchange, against a real provider in its own process."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
import pytest_asyncio

from auth.support import CALLBACK, answering, code_of, provider_process
from ssot.auth.oauth import OAuthProvider
from ssot.configuration import OAuthSettings, UnifiedConfiguration
from ssot.environment import IsolatedEnvironment
from ssot.errors import AuthenticationError, SettingsError, Unavailable

# What must be encoded before it becomes a header.
CLIENT, SECRET = "the:client/1", "s3cret-of%the+client:&"

CONFIGURATION = {
    "issuer": "{issuer}",
    "token_endpoint": "{issuer}/token",
    "userinfo_endpoint": "{issuer}/userinfo",
}
CONFIGURED = {"/.well-known/openid-configuration": (200, CONFIGURATION)}
TOKEN = {"access_token": "the-token", "token_type": "Bearer"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with provider_process({CLIENT: SECRET, "other": "other-secret"}) as (_, address):
        yield address


@pytest_asyncio.fixture
async def browser(address: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=address, trust_env=False) as browser:
        yield browser


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[OAuthProvider]:
    async with OAuthProvider() as provider:
        yield provider


def credentials(url: str, **changed: Any) -> OAuthSettings:
    given = {"client_id": CLIENT, "client_secret": SECRET, "provider_url": url, **changed}
    return OAuthSettings.model_validate(given)


async def identify(
    provider: OAuthProvider, settings: OAuthSettings, code: str = "x", callback: str = CALLBACK
) -> tuple[str, str]:
    return await provider.identify(settings, environment="test", code=code, redirect_uri=callback)


async def test_a_code_stands_for_its_user(
    provider: OAuthProvider, browser: httpx.AsyncClient, address: str
) -> None:
    """The subject is that of whoever consented, under the name of the provider."""
    for user in ("alice", "bob"):
        code = await code_of(browser, CLIENT, user)
        found = await identify(provider, credentials(f"{address}/"), code)
        assert found == (address, f"subject-of-{user}")


async def test_a_code_that_is_refused_proves_nothing(
    provider: OAuthProvider, browser: httpx.AsyncClient, address: str
) -> None:
    """Invented, used, of another client or another redirect: the provider's word for it is told."""
    settings = credentials(address)
    used = await code_of(browser, CLIENT, "alice")
    await identify(provider, settings, used)
    elsewhere = await code_of(browser, CLIENT, "alice", "http://127.0.0.1:9/other")
    foreign = await code_of(browser, "other", "alice")
    for code in ("invented", used, elsewhere, foreign):
        with pytest.raises(AuthenticationError, match="refuses the code") as refused:
            await identify(provider, settings, code)
        assert "invalid_grant" in refused.value.reason
        assert code not in refused.value.reason


@pytest.mark.parametrize(
    "wrong", [{"client_secret": "another-secret-of-ours"}, {"client_id": "nobody-knows-it"}]
)
async def test_credentials_that_are_refused_are_told_by_their_names(
    provider: OAuthProvider,
    browser: httpx.AsyncClient,
    address: str,
    caplog: pytest.LogCaptureFixture,
    wrong: dict[str, str],
) -> None:
    """That is our mistake: an error in the log with both variables of this environment."""
    code = await code_of(browser, CLIENT, "alice")
    with caplog.at_level(logging.ERROR), pytest.raises(SettingsError) as refused:
        await identify(provider, credentials(address, **wrong), code)
    (record,) = caplog.records
    for told in (str(refused.value), record.getMessage()):
        assert "AUTH_OAUTH_CLIENT_ID_TEST" in told
        assert "AUTH_OAUTH_CLIENT_SECRET_TEST" in told
        assert SECRET not in told
        assert not any(value in told for value in wrong.values())
    # With the right ones the same code is still good.
    assert (await identify(provider, credentials(address), code))[1] == "subject-of-alice"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "AUTH_OAUTH_CLIENT_ID_TEST and AUTH_OAUTH_CLIENT_SECRET_TEST and AUTH_OAUTH_PROVIDER_URL are"),
        ({"client_id": "a", "client_secret": "b"}, "environment test: AUTH_OAUTH_PROVIDER_URL is"),
        ({"provider_url": "https://h"}, "AUTH_OAUTH_CLIENT_ID_TEST and AUTH_OAUTH_CLIENT_SECRET_TEST are"),
    ],
)  # fmt: skip
async def test_what_is_not_set_is_named(
    provider: OAuthProvider, given: dict[str, str], missing: str
) -> None:
    """Without credentials nothing is asked, and the variables of this environment are named."""
    with pytest.raises(SettingsError, match=missing):
        await identify(provider, OAuthSettings.model_validate(given))


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ({"/.well-known/openid-configuration": (404, {})}, "OpenID configuration answers 404"),
        ({"/.well-known/openid-configuration": (200, b"<html>")}, "configuration cannot be read"),
        ({"/.well-known/openid-configuration": (200, CONFIGURATION | {"issuer": "https://h"})}, "another issuer"),
        ({"/.well-known/openid-configuration": (200, CONFIGURATION | {"token_endpoint": "http://h/t"})}, "without TLS"),
        ({"/.well-known/openid-configuration": (200, CONFIGURATION | {"userinfo_endpoint": "ftp://h/x"})}, "without TLS"),
        (CONFIGURED | {"/token": (500, {"error": "invalid_grant"})}, "token endpoint answers 500"),
        (CONFIGURED | {"/token": (302, b"")}, "token endpoint answers 302"),
        (CONFIGURED | {"/token": (400, b"[" * 5000)}, "token endpoint answers 400"),
        (CONFIGURED | {"/token": (400, {"error": "invalid_scope"})}, "token endpoint answers 400"),
        (CONFIGURED | {"/token": (200, {"access_token": ""})}, "token cannot be read"),
        (CONFIGURED | {"/token": (200, TOKEN | {"access_token": "a\r\nb"})}, "token cannot be read"),
        (CONFIGURED | {"/token": (200, TOKEN | {"token_type": "mac"})}, "other than Bearer"),
        (CONFIGURED | {"/token": (200, b" " * 70_000)}, "more than 65536 bytes"),
        (CONFIGURED | {"/token": (200, TOKEN), "/userinfo": (401, {})}, "userinfo endpoint answers 401"),
        (CONFIGURED | {"/token": (200, TOKEN), "/userinfo": (200, {"sub": 7})}, "user info cannot be read"),
        (CONFIGURED | {"/token": (200, TOKEN), "/userinfo": (200, {"sub": ""})}, "user info cannot be read"),
        (CONFIGURED | {"/token": (200, TOKEN), "/userinfo": (200, {"sub": "a\0b"})}, "user info cannot be read"),
        (CONFIGURED | {"/token": (200, TOKEN), "/userinfo": (200, {"sub": "x" * 256})}, "user info cannot be read"),
    ],
)  # fmt: skip
async def test_an_answer_that_leads_nowhere_is_unavailable(
    provider: OAuthProvider, answers: dict[str, tuple[int, object]], cause: str
) -> None:
    """Whatever a provider answers is told without quoting it, and nobody is logged in."""
    async with answering(answers) as address:
        with pytest.raises(Unavailable, match="OAuth provider") as failed:
            await identify(provider, credentials(address))
    assert cause in failed.value.cause
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/userinfo"])
async def test_a_provider_that_keeps_silent_is_given_up(provider: OAuthProvider, path: str) -> None:
    """One deadline for the whole exchange, wherever it hangs."""
    answers: dict[str, tuple[int, object]] = {
        **CONFIGURED,
        "/token": (200, TOKEN),
        "/userinfo": (200, {"sub": "s"}),
    }
    async with answering(answers | {path: (200, None)}) as address, asyncio.timeout(5):
        with pytest.raises(Unavailable, match=r"within 0\.3 s"):
            await identify(provider, credentials(address, timeout=0.3))


async def test_nobody_there_is_unavailable(provider: OAuthProvider) -> None:
    """A refused connection is the same to whoever logs in."""
    with pytest.raises(Unavailable, match="OAuth provider"):
        await identify(provider, credentials("http://127.0.0.1:1"))


async def test_the_request_is_that_of_the_standard(provider: OAuthProvider) -> None:
    """Credentials in the header alone, encoded as a form; asked for its configuration once."""
    seen: list[bytes] = []
    answers = {**CONFIGURED, "/token": (200, TOKEN), "/userinfo": (200, {"sub": "s"})}
    async with answering(answers, seen) as address:
        for _ in range(2):
            assert (await identify(provider, credentials(address))) == (address, "s")
    requests = [head.decode().splitlines()[0].rpartition(" ")[0] for head in seen]
    assert requests == [
        "GET /.well-known/openid-configuration",
        *["POST /token", "GET /userinfo"] * 2,
    ]
    basic = httpx.BasicAuth(quote_plus(CLIENT), quote_plus(SECRET))
    expected = next(basic.auth_flow(httpx.Request("GET", "http://h"))).headers["Authorization"]
    assert f"authorization: {expected}".lower() in seen[1].decode().lower()
    assert b"authorization: bearer the-token" in seen[2].lower()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"client_id": "a", "client_secret": "hunter2secret é"}, "ASCII"),
        ({"client_id": "a b", "client_secret": "hunter2secret"}, "ASCII"),
        ({"provider_url": "http://provider.example"}, "https://"),
        ({"provider_url": "https://u:hunter2secret@provider.example"}, "https://"),
        ({"provider_url": "provider.example"}, "https://"),
        ({"provider_url": "https://provider.example:x"}, "https://"),
        ({"timeout": 0}, "greater than 0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], problem: str) -> None:
    """What no header can carry, or what would send a secret in the clear, and never its value."""
    with pytest.raises(ValueError, match=re.escape(problem)) as refused:
        OAuthSettings.model_validate(given)
    assert "hunter2secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("there", "absent"),
    [
        ("AUTH_OAUTH_CLIENT_ID_STAGING", "AUTH_OAUTH_CLIENT_SECRET_STAGING"),
        ("AUTH_OAUTH_CLIENT_SECRET_STAGING", "AUTH_OAUTH_CLIENT_ID_STAGING"),
    ],
)
def test_half_of_the_credentials_is_refused_with_both_names(there: str, absent: str) -> None:
    """Beside every other problem, under the names of this environment; the other's are not seen."""
    values = {
        "SSOT_ENVIRONMENT": "staging",
        "AUTH_PORT": "many",
        there: "hunter2secret",
        absent.replace("STAGING", "TEST"): "of-another-environment",
    }
    with pytest.raises(SettingsError) as refused:
        UnifiedConfiguration(IsolatedEnvironment(values, service="auth"), "auth")
    assert f"{there} is set and {absent} is not: set both, or neither" in refused.value.problems
    assert any("AUTH_PORT" in problem for problem in refused.value.problems)
    assert "hunter2secret" not in str(refused.value)


def test_the_test_defaults_are_in_the_schema_alone() -> None:
    """They are values of the environment test: by themselves the settings are empty."""
    assert OAuthSettings().missing("staging") == (
        "AUTH_OAUTH_CLIENT_ID_STAGING",
        "AUTH_OAUTH_CLIENT_SECRET_STAGING",
        "AUTH_OAUTH_PROVIDER_URL",
    )
    extras = {name: field.json_schema_extra for name, field in OAuthSettings.model_fields.items()}
    for name in ("client_id", "client_secret"):
        extra = extras[name]
        assert isinstance(extra, dict)
        assert extra["by_environment"] is True
        assert extra["test"]
    assert json.dumps(OAuthSettings.model_json_schema())

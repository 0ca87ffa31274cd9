"""The auth service over real HTTP, its client, and the verifier that fetches its keys."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from streams.support import database_settings, until

from auth.support import CALLBACK, code_of, provider_process
from ssot.auth.client import AuthClient, Login
from ssot.auth.jwks import TokenVerifier
from ssot.auth.keys import SigningKey, new_signing_key
from ssot.auth.service import AuthService
from ssot.auth.verify import UnknownKey, key_id
from ssot.configuration import AuthSettings, OAuthSettings, Settings, TokenSettings
from ssot.database import DatabaseManager
from ssot.environment import IsolatedEnvironment
from ssot.errors import AuthenticationError, ProtocolError, SettingsError, Unavailable
from ssot.lab.services import Services
from ssot.platform import Role, _http, open_role

PRIVATE = new_signing_key()
TOKENS = TokenSettings()


def environment(urls: Mapping[str, str], key: str = PRIVATE, port: int = 0) -> IsolatedEnvironment:
    return IsolatedEnvironment(
        {"SSOT_DATABASE_URL": urls["auth"], "AUTH_SIGNING_KEY": key, "AUTH_PORT": str(port), "AUTH_SCRYPT_LOG_N": "10"},
        service="auth",
    )  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def auth(database_urls: Mapping[str, str]) -> AsyncIterator[Role]:
    async with open_role("auth", environment(database_urls)) as role:
        yield role


@pytest_asyncio.fixture
async def http(auth: Role) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=str(auth.address), trust_env=False) as http:
        yield http


async def test_an_account_and_a_login_give_a_token_that_verifies(auth: Role) -> None:
    """The way of a user: create, log in, be recognised by whoever checks."""
    name = f"alice-{time.time_ns()}"
    async with (
        AuthClient(str(auth.address)) as client,
        TokenVerifier(str(auth.address), TOKENS) as verifier,
    ):
        user_id = await client.create_account(name, "correct horse")
        login = await client.login(name, "correct horse")
        assert login.user_id == user_id
        identity = await verifier.verify(login.access_token)
        assert identity.user_id == user_id
        with pytest.raises(AuthenticationError, match="wrong name or password"):
            await client.login(name, "wrong horse")
        with pytest.raises(ProtocolError, match="taken"):
            await client.create_account(name, "correct horse")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/accounts", b"{}", 400),
        ("POST", "/accounts", b"not json", 400),
        ("POST", "/accounts", b"", 400),
        ("POST", "/accounts", b'{"name":"\xff","password":"correct horse"}', 400),
        ("POST", "/accounts", b'{"name":"x","password":"short"}', 400),
        ("POST", "/accounts", b'{"name":"x","password":"correct horse","admin":true}', 400),
        ("POST", "/accounts", b'{"name":7,"password":"correct horse"}', 400),
        ("POST", "/login", b'{"name":"nobody","password":"x"}', 401),
        ("POST", "/login", b'{"name":"a\\u0000b","password":"x"}', 401),
        ("POST", "/login", b'{"user":"nobody","password":"x"}', 400),
        ("POST", "/login", b'{"name":"' + b"x" * 20_000 + b'"}', 413),
        ("POST", "/oauth/login", b"{}", 400),
        ("POST", "/oauth/login", b'{"code":"","redirect_uri":"http://h"}', 400),
        ("POST", "/oauth/login", b'{"code":"x","redirect_uri":""}', 400),
        ("POST", "/oauth/login", b'{"code":"a\\u0000b","redirect_uri":"http://h"}', 400),
        ("POST", "/oauth/login", b'{"code":"\\ud800","redirect_uri":"http://h"}', 400),
        ("POST", "/oauth/login", b'{"code":"x","redirect_uri":"http://h","user":"x"}', 400),
        ("POST", "/oauth/login", b'{"code":"x","redirect_uri":"http://h"}', 503),
        ("GET", "/oauth/login", b"", 405),
        ("GET", "/login", b"", 405),
        ("GET", "/nothing", b"", 404),
    ],
)
async def test_a_wrong_request_is_answered_with_its_reason_as_json(
    http: httpx.AsyncClient, method: str, path: str, body: bytes, status: int
) -> None:
    """Every error is JSON with the reason, under the status that says whose fault it is."""
    answer = await http.request(method, path, content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    if b"admin" in body:
        assert "admin" in answer.json()["error"]


async def test_keys_and_health_are_public(http: httpx.AsyncClient) -> None:
    """The key set holds the public key alone; health names its parts."""
    (key,) = (await http.get("/.well-known/jwks.json")).json()["keys"]
    assert key == SigningKey(PRIVATE).public_jwk
    health = await http.get("/health")
    assert (health.status_code, health.json()["parts"][0]["name"]) == (200, "database")


async def test_a_database_that_is_away_is_503(servers: Services, http: httpx.AsyncClient) -> None:
    """Health says down while PostgreSQL is killed, and ok after its restart."""
    await servers.postgres.kill()
    try:
        answer = await http.get("/health")
    finally:
        await servers.postgres.restart()
    assert (answer.status_code, answer.json()["status"]) == (503, "down")
    assert (await http.get("/health")).status_code == 200


async def test_a_login_waits_through_a_restart_of_the_database(
    servers: Services, auth: Role
) -> None:
    """A user who logs in while PostgreSQL restarts gets a token, not an error."""
    name = f"bob-{time.time_ns()}"
    async with AuthClient(str(auth.address)) as client:
        await client.create_account(name, "correct horse")
        await servers.postgres.kill()
        logging_in = asyncio.create_task(client.login(name, "correct horse"))
        await asyncio.sleep(0)
        await servers.postgres.restart()
        assert (await logging_in).user_id


# Settings that change while it serves


class Serving:
    """An auth service behind a real socket, whose settings a test applies."""

    def __init__(self, database: DatabaseManager, **given: Any) -> None:
        self.given: dict[str, Any] = {
            "signing_key": PRIVATE, "access_ttl": 900.0, "oauth": {}, **given
        }  # fmt: skip
        self.service = AuthService(database=database, settings=self.settings(database))
        self.address = ""

    def settings(self, database: DatabaseManager, **changed: Any) -> Settings:
        given = {**self.given, **changed}
        return Settings(
            environment="test",
            database=database.settings,
            tokens=TOKENS,
            auth=AuthSettings(
                signing_key=given["signing_key"],
                access_ttl=given["access_ttl"],
                scrypt_log_n=10,
            ),
            oauth=OAuthSettings.model_validate(given["oauth"]),
        )

    def apply(self, database: DatabaseManager, **changed: Any) -> None:
        self.service.apply(self.settings(database, **changed))
        self.given |= changed


@pytest_asyncio.fixture
async def manager(database_urls: Mapping[str, str]) -> AsyncIterator[DatabaseManager]:
    async with DatabaseManager(database_settings(database_urls["auth"]), name="auth") as manager:
        yield manager


@contextlib.asynccontextmanager
async def serving(manager: DatabaseManager, **given: Any) -> AsyncIterator[Serving]:
    found = Serving(manager, **given)
    async with (
        found.service,
        _http(found.service.app, "127.0.0.1", 0, prefix="AUTH") as (address, _),
    ):
        found.address = address
        yield found


async def logged_in(client: AuthClient) -> Login:
    name = f"erin-{time.time_ns()}"
    await client.create_account(name, "correct horse")
    return await client.login(name, "correct horse")


async def test_a_rotation_is_seen_by_a_running_verifier_and_costs_nobody_a_token(
    manager: DatabaseManager,
) -> None:
    """Tokens of both keys are good to whoever had fetched the old key set, within a second or so."""
    rotated = new_signing_key()
    async with (
        serving(manager) as auth,
        AuthClient(auth.address) as client,
        TokenVerifier(auth.address, TOKENS) as verifier,
    ):
        before = await logged_in(client)
        assert (await verifier.verify(before.access_token)).user_id == before.user_id
        auth.apply(manager, signing_key=rotated)
        after = await logged_in(client)
        assert key_id(after.access_token) == SigningKey(rotated).kid
        async with asyncio.timeout(2):
            assert (await verifier.verify(after.access_token)).user_id == after.user_id
        assert (await verifier.verify(before.access_token)).user_id == before.user_id
        found = auth.service.statistics()
        assert (found.logins, found.applied, found.keys.rotations) == (2, 1, 1)
        assert found.keys.published == (SigningKey(rotated).kid, SigningKey(PRIVATE).kid)


async def test_twenty_rotations_under_load_refuse_nobody(manager: DatabaseManager) -> None:
    """Log-ins go on while the key rotates; each token verifies when it is given and at the end."""
    tokens: list[str] = []
    async with (
        serving(manager) as auth,
        AuthClient(auth.address) as client,
        TokenVerifier(auth.address, TOKENS) as verifier,
    ):
        names = [f"load-{time.time_ns()}-{index}" for index in range(4)]
        for name in names:
            await client.create_account(name, "correct horse")
        for _ in range(20):
            auth.apply(manager, signing_key=new_signing_key())
            logins = await asyncio.gather(*(client.login(n, "correct horse") for n in names))
            tokens += [login.access_token for login in logins]
        for token in tokens:
            assert (await verifier.verify(token)).user_id
        assert len({key_id(token) for token in tokens}) == 20
        assert len(auth.service.statistics().keys.published) == 21


async def test_a_shorter_lifetime_does_not_shorten_the_tokens_before_it(
    manager: DatabaseManager,
) -> None:
    """The old key is published for the longest token that it signed, not for the new lifetime."""
    async with serving(manager) as auth, AuthClient(auth.address) as client:
        long = await logged_in(client)
        auth.apply(manager, access_ttl=0.2)
        short = await logged_in(client)
        assert (long.expires_in, short.expires_in) == (900, 0.2)
        auth.apply(manager, signing_key=new_signing_key())
        async with TokenVerifier(auth.address, TOKENS) as verifier:
            assert (await verifier.verify(long.access_token)).user_id == long.user_id


async def test_settings_that_cannot_be_applied_change_nothing(manager: DatabaseManager) -> None:
    """A key that is none is refused whole: lifetime and credentials stay as they were, too."""
    async with serving(manager) as auth, AuthClient(auth.address) as client:
        # Issuer and audience are the whole platform's: they take a start of everybody.
        other = auth.settings(manager).model_copy(update={"tokens": TokenSettings(issuer="other")})
        auth.service.apply(other)
        settings = auth.settings(manager, access_ttl=5.0)
        assert settings.auth is not None
        wrong = settings.auth.model_copy(update={"signing_key": SecretStr("no key at all")})
        with pytest.raises(SettingsError, match="AUTH_SIGNING_KEY"):
            auth.service.apply(settings.model_copy(update={"auth": wrong}))
        login = await logged_in(client)
        assert login.expires_in == 900
        assert key_id(login.access_token) == SigningKey(PRIVATE).kid
        assert auth.service.statistics().applied == 1
        async with TokenVerifier(auth.address, TOKENS) as verifier:
            assert (await verifier.verify(login.access_token)).user_id == login.user_id


# Log-in through an OAuth provider


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with provider_process({"shop": "secret-of-the-shop", "next": "secret-of-the-next"}) as found:
        yield found[1]


def oauth(
    provider: str, client: str = "shop", secret: str = "secret-of-the-shop"
) -> dict[str, str]:
    return {"client_id": client, "client_secret": secret, "provider_url": provider}


@pytest_asyncio.fixture
async def browser(provider: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=provider, trust_env=False) as browser:
        yield browser


async def test_a_code_of_the_provider_logs_in(
    manager: DatabaseManager, provider: str, browser: httpx.AsyncClient
) -> None:
    """The first log-in makes the account, the next finds it; the token is like any other."""
    async with (
        serving(manager, oauth=oauth(provider)) as auth,
        AuthClient(auth.address) as client,
        TokenVerifier(auth.address, TOKENS) as verifier,
    ):
        logins = [
            await client.oauth_login(await code_of(browser, "shop", user), CALLBACK)
            for user in ("alice", "alice", "bob")
        ]
        assert logins[0].user_id == logins[1].user_id != logins[2].user_id
        for login in logins:
            assert (await verifier.verify(login.access_token)).user_id == login.user_id
        assert auth.service.statistics().oauth_logins == 3
        with pytest.raises(AuthenticationError, match="refuses the code"):
            await client.oauth_login("invented", CALLBACK)


async def test_first_log_ins_at_once_are_one_account(
    manager: DatabaseManager, provider: str, browser: httpx.AsyncClient
) -> None:
    """Two windows of one new user are the same user."""
    async with serving(manager, oauth=oauth(provider)) as auth, AuthClient(auth.address) as client:
        user = f"carol-{time.time_ns()}"
        codes = [await code_of(browser, "shop", user) for _ in range(6)]
        logins = await asyncio.gather(*(client.oauth_login(code, CALLBACK) for code in codes))
        assert len({login.user_id for login in logins}) == 1


async def test_credentials_may_change_while_it_serves(
    manager: DatabaseManager, provider: str, browser: httpx.AsyncClient
) -> None:
    """None, wrong ones, those of another client: what was applied last is used, and the user stays."""
    async with serving(manager) as auth, AuthClient(auth.address) as client:
        with pytest.raises(
            Unavailable, match="AUTH_OAUTH_CLIENT_ID_TEST and AUTH_OAUTH_CLIENT_SECR"
        ):
            await client.oauth_login("any", CALLBACK)
        auth.apply(manager, oauth=oauth(provider, secret="wrong-secret-of-ours"))
        code = await code_of(browser, "shop", "dora")
        with pytest.raises(Unavailable, match="AUTH_OAUTH_CLIENT_SECRET_TEST") as refused:
            await client.oauth_login(code, CALLBACK)
        assert "wrong-secret" not in str(refused.value)
        auth.apply(manager, oauth=oauth(provider))
        first = await client.oauth_login(code, CALLBACK)
        auth.apply(manager, oauth=oauth(provider, "next", "secret-of-the-next"))
        second = await client.oauth_login(await code_of(browser, "next", "dora"), CALLBACK)
        assert first.user_id == second.user_id


# The verifier, against a server that counts


@pytest_asyncio.fixture
async def counting() -> AsyncIterator[tuple[str, list[float], list[str]]]:
    """An HTTP server that serves a key set: its address, the times of its requests, its keys."""
    times: list[float] = []
    keys = [PRIVATE]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            times.append(time.monotonic())
            await asyncio.sleep(0.02)
            body = json.dumps({"keys": [SigningKey(k).public_jwk for k in keys]}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                + body
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}", times, keys
    server.close()
    await server.wait_closed()


def token(key: str = PRIVATE) -> str:
    return SigningKey(key).sign(user_id="u1", ttl=60, tokens=TOKENS)


async def test_many_tokens_at_once_are_one_fetch(
    counting: tuple[str, list[float], list[str]],
) -> None:
    """However many wait for the keys, they are fetched once, and not again while they are known."""
    url, times, _ = counting
    async with TokenVerifier(url, TOKENS) as verifier:
        await asyncio.gather(*(verifier.verify(token()) for _ in range(50)))
        await verifier.verify(token())
    assert len(times) == 1


async def test_a_flood_of_unknown_keys_is_no_flood_of_fetches(
    counting: tuple[str, list[float], list[str]],
) -> None:
    """Thirty tokens with invented keys are one more fetch, and hold up nobody behind them."""
    url, times, keys = counting
    async with TokenVerifier(url, TOKENS) as verifier, asyncio.timeout(5):
        await verifier.verify(token())
        rotated = new_signing_key()
        keys.append(rotated)
        invented = [
            asyncio.create_task(verifier.verify(token(new_signing_key()))) for _ in range(30)
        ]
        assert (await verifier.verify(token(rotated))).user_id == "u1"
        refused = await asyncio.gather(*invented, return_exceptions=True)
        assert (await verifier.verify(token())).user_id == "u1"
    assert all(isinstance(error, AuthenticationError) for error in refused)
    assert "does not publish" in str(refused[0])
    assert len(times) <= 3
    assert all(after - before > 0.9 for before, after in itertools.pairwise(times))


async def test_a_key_that_is_published_no_longer_is_forgotten(
    counting: tuple[str, list[float], list[str]],
) -> None:
    """Old keys are fetched again without any unknown one: a withdrawn key is not taken for ever."""
    url, times, keys = counting
    withdrawn, stays = token(), token(new := new_signing_key())
    keys.append(new)
    async with TokenVerifier(url, TOKENS, refresh_after=0.1) as verifier:
        await verifier.verify(withdrawn)
        keys.remove(PRIVATE)

        async def forgotten() -> bool:
            await verifier.verify(stays)
            return len(times) > 1

        await until(forgotten, what="the keys to be fetched again")
        with pytest.raises(UnknownKey):
            await verifier.verify(withdrawn)
        assert (await verifier.verify(stays)).user_id == "u1"


async def test_a_fetch_that_is_cancelled_refuses_nobody_else(
    counting: tuple[str, list[float], list[str]],
) -> None:
    """Whoever waited behind a caller that gave up fetches for themselves."""
    url, times, _ = counting
    async with TokenVerifier(url, TOKENS) as verifier, asyncio.timeout(5):
        first = asyncio.create_task(verifier.verify(token()))
        others = [asyncio.create_task(verifier.verify(token())) for _ in range(5)]
        await until(lambda: len(times) == 1, what="the fetch to begin")
        first.cancel()
        found = await asyncio.gather(*others)
        assert [identity.user_id for identity in found] == ["u1"] * 5
        assert len(times) == 2


async def test_a_silent_auth_service_holds_up_one_token_and_only_for_a_moment() -> None:
    """Known keys that are old go on while fresh ones do not come."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            if asked == 1:
                body = json.dumps({"keys": [SigningKey(PRIVATE).public_jwk]}).encode()
                head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % len(body) + body)
                await writer.drain()
            else:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with TokenVerifier(f"http://{host}:{port}", TOKENS, refresh_after=0.05) as verifier:
        await verifier.verify(token())

        async def refreshing() -> bool:
            patient.append(asyncio.create_task(verifier.verify(token())))
            await asyncio.sleep(0)
            return asked > 1

        patient: list[asyncio.Task[Any]] = []
        await until(refreshing, what="the keys to be fetched again")
        async with asyncio.timeout(0.5):
            await asyncio.gather(*(verifier.verify(token()) for _ in range(100)))
        async with asyncio.timeout(3):
            await asyncio.gather(*patient)
    server.close()
    await server.wait_closed()


async def test_without_the_auth_service_a_verifier_is_unavailable_until_it_is_back(
    database_urls: Mapping[str, str],
) -> None:
    """Nothing is accepted without keys; known keys go on working when the service is gone."""
    async with contextlib.AsyncExitStack() as stack:
        async with open_role("auth", environment(database_urls)) as role:
            address = str(role.address)
        verifier = await stack.enter_async_context(TokenVerifier(address, TOKENS))
        with pytest.raises(Unavailable, match="auth service"):
            await verifier.verify(token())
        port = int(address.rpartition(":")[2])
        async with open_role("auth", environment(database_urls, port=port)):
            assert (await verifier.verify(token())).user_id == "u1"
        assert (await verifier.verify(token())).user_id == "u1"


async def test_no_auth_service_is_unavailable_for_the_client() -> None:
    """A client that reaches nobody says so."""
    async with AuthClient("http://127.0.0.1:1") as client:
        with pytest.raises(Unavailable, match="auth service"):
            await client.login("a", "b")


async def test_an_auth_service_that_fails_is_not_asked_by_everybody_in_turn() -> None:
    """Fifty tokens that come while it answers 503 are two fetches, and all are told to come again."""
    times: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            times.append(time.monotonic())
            writer.write(b"HTTP/1.1 503 Down\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with TokenVerifier(f"http://{host}:{port}", TOKENS) as verifier:
        found = await asyncio.gather(
            *(verifier.verify(token()) for _ in range(50)), return_exceptions=True
        )
    server.close()
    await server.wait_closed()
    assert all(isinstance(error, Unavailable) for error in found)
    assert len(times) <= 2

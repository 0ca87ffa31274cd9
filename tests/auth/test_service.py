"""The auth service over real HTTP, its client, and the verifier that fetches its keys."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
import pytest_asyncio

from ssot.auth.client import AuthClient
from ssot.auth.jwks import TokenVerifier
from ssot.auth.keys import SigningKey, new_signing_key
from ssot.configuration import TokenSettings
from ssot.environment import IsolatedEnvironment
from ssot.errors import AuthenticationError, ProtocolError, Unavailable
from ssot.lab.services import Services
from ssot.platform import Role, open_role

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


# The verifier, against a server that counts


@pytest_asyncio.fixture
async def counting() -> AsyncIterator[tuple[str, list[float], list[str]]]:
    """An HTTP server that serves a key set: its address, the times of its requests, its keys."""
    times: list[float] = []
    keys = [PRIVATE]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import json

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

"""Keys, tokens, passwords and accounts."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import jwt
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from streams.support import database_settings

from ssot.auth.accounts import Accounts
from ssot.auth.keys import SigningKey, new_signing_key
from ssot.auth.passwords import hash_password, matches
from ssot.auth.verify import UnknownKey, key_id, verify
from ssot.configuration import TokenSettings
from ssot.database import DatabaseManager
from ssot.errors import AuthenticationError, ProtocolError, SettingsError

ENCODED = new_signing_key()
KEY = SigningKey(ENCODED)
KEYS = {KEY.kid: KEY.public_jwk}
TOKENS = TokenSettings()


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": TOKENS.issuer,
        "aud": TOKENS.audience,
        "sub": "u1",
        "iat": now,
        "exp": now + 60,
        **changed,
    }


def unsigned(header: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode()
        for p in (header, body)
    ]
    return ".".join([*parts, ""])


def test_a_key_has_one_name_and_publishes_no_private_part() -> None:
    """The same key gives the same kid in every process; only its public half leaves."""
    assert SigningKey(ENCODED).kid == KEY.kid != SigningKey(new_signing_key()).kid
    assert "d" not in KEY.public_jwk
    assert ENCODED not in repr(KEY) + json.dumps(KEY.public_jwk)
    # The example of RFC 8037, appendix A.
    known = SigningKey("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
    assert known.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize(
    "encoded",
    ["", "short", "A" * 44, "é" * 43, "!" * 10 + ENCODED],
    ids=["empty", "short", "one byte more", "no base64", "noise before a key"],
)
def test_what_is_no_key_is_refused_without_repeating_it(encoded: str) -> None:
    """A malformed key names its variable and not its value."""
    with pytest.raises(SettingsError, match="AUTH_SIGNING_KEY") as refused:
        SigningKey(encoded)
    assert not encoded or encoded not in str(refused.value)


def test_a_signed_token_proves_its_user() -> None:
    """What was signed is verified, with its expiry."""
    identity = verify(KEY.sign(user_id="u1", ttl=60, tokens=TOKENS), KEYS, TOKENS)
    assert identity.user_id == "u1"
    assert 50 < identity.expires_at - time.time() <= 61


@given(st.floats(0.001, 1e6))
def test_a_token_lives_for_as_long_as_it_was_promised(ttl: float) -> None:
    """Up to the next whole second, never less: a short-lived one is good when it is given."""
    begin = time.time()
    identity = verify(KEY.sign(user_id="u1", ttl=ttl, tokens=TOKENS), KEYS, TOKENS)
    assert begin + ttl <= identity.expires_at <= time.time() + ttl + 1


def signed(body: Mapping[str, Any], *, key: str = ENCODED, **header: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(key + "="))
    return jwt.encode(dict(body), private, algorithm="EdDSA", headers={"kid": KEY.kid, **header})


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: signed(claims(), key=new_signing_key()), "signature is wrong"),
        (lambda: signed(claims(exp=int(time.time()) - 10)), "expired"),
        (lambda: signed(claims(iss="other")), "issuer is 'other', this service demands 'ssot-auth'"),
        (lambda: signed(claims(aud="other")), "audience is 'other', this service demands 'ssot-platform'"),
        (lambda: signed({k: v for k, v in claims().items() if k != "sub"}), "sub"),
        (lambda: signed({k: v for k, v in claims().items() if k != "exp"}), "exp"),
        (lambda: signed(claims(sub=7)), "not valid"),
        (lambda: signed(claims(), kid="other"), "does not publish"),
        (lambda: unsigned({"alg": "none", "kid": KEY.kid}, claims()), "none, not EdDSA"),
        (lambda: unsigned({"alg": "EdDSA"}, claims()), "kid"),
        (lambda: unsigned({"alg": "EdDSA", "kid": 7}, claims()), ""),
        (lambda: jwt.encode(claims(), KEY.public_jwk["x"], algorithm="HS256", headers={"kid": KEY.kid}), "HS256"),
        (lambda: "not.a.token", "not a JSON web token"),
        (lambda: "", "not a JSON web token"),
        (lambda: signed(claims())[:-4] + "AAAA", "signature is wrong"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_token_that_proves_nothing_is_refused_with_the_reason(token: Any, reason: str) -> None:
    """Wrong signature, expired, another issuer or audience (both values), no key, no algorithm."""
    with pytest.raises(AuthenticationError) as refused:
        verify(token(), KEYS, TOKENS)
    assert reason in refused.value.reason


def test_an_unknown_key_is_told_apart() -> None:
    """Only a key that is not in the set may be worth fetching a fresh set."""
    token = signed(claims(), kid="other")
    assert key_id(token) == "other"
    with pytest.raises(UnknownKey):
        verify(token, KEYS, TOKENS)


@given(st.text(max_size=60))
def test_noise_is_refused_and_nothing_else_raised(token: str) -> None:
    """Whatever comes for a token ends in AuthenticationError."""
    with pytest.raises(AuthenticationError):
        verify(token, KEYS, TOKENS)


@settings(max_examples=15)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_hash_matches_its_password_only(password: str) -> None:
    """Each hash has a salt of its own and matches the password that made it."""
    stored = hash_password(password, log_n=4)
    assert matches(password, stored)
    assert not matches(password + "x", stored)
    assert stored != hash_password(password, log_n=4)
    assert password not in stored or len(password) < 4


@pytest_asyncio.fixture
async def accounts(database_urls: Mapping[str, str]) -> AsyncIterator[Accounts]:
    async with DatabaseManager(database_settings(database_urls["auth"]), name="auth") as manager:
        yield Accounts(manager, scrypt_log_n=10)


async def test_an_account_logs_in_with_its_password_only(accounts: Accounts) -> None:
    """Either mistake is refused in the same words."""
    name = f"alice-{time.time_ns()}"
    user_id = await accounts.create(name, "correct horse")
    assert await accounts.login(name, "correct horse") == user_id
    reasons = set()
    for who, password in ((name, "wrong horse"), ("nobody", "correct horse"), (name, ""), ("", "")):
        with pytest.raises(AuthenticationError) as refused:
            await accounts.login(who, password)
        reasons.add(refused.value.reason)
    assert len(reasons) == 1


@pytest.mark.parametrize("who", ["a\0b", "\ud800", "x" * 100_000])
async def test_a_name_that_nobody_can_have_is_a_wrong_name(accounts: Accounts, who: str) -> None:
    """What the database cannot even store is refused like any unknown name."""
    with pytest.raises(AuthenticationError):
        await accounts.login(who, "correct horse")


async def test_a_password_without_bytes_breaks_nothing(accounts: Accounts) -> None:
    """A lone surrogate in a password is a wrong password for whoever has another, or none."""
    name = f"bob-{time.time_ns()}"
    await accounts.create(name, "correct horse")
    for who in (name, "nobody"):
        with pytest.raises(AuthenticationError):
            await accounts.login(who, "\ud800" * 9)


async def test_a_name_is_taken_once(accounts: Accounts) -> None:
    """Of many who want a name at the same time, one gets it."""
    name = f"carol-{time.time_ns()}"
    made = await asyncio.gather(
        *(accounts.create(name, "correct horse") for _ in range(5)), return_exceptions=True
    )
    assert len([m for m in made if isinstance(m, str)]) == 1
    assert len([m for m in made if isinstance(m, ProtocolError)]) == 4


@pytest.mark.parametrize(("name", "password"), [("", "correct horse"), ("a\nb", "correct horse"), ("x" * 201, "correct horse"), ("dave", "short"), ("dave", "x" * 1001)])  # fmt: skip
async def test_a_bad_name_or_password_makes_no_account(
    accounts: Accounts, name: str, password: str
) -> None:
    """The reason is told."""
    with pytest.raises(ProtocolError, match="has"):
        await accounts.create(name, password)


async def test_first_log_ins_of_a_subject_at_once_make_one_account(
    accounts: Accounts, database_urls: Mapping[str, str]
) -> None:
    """Twenty at once are one user and one row; the same subject of another provider is another."""
    sub = f"sub-{time.time_ns()}"
    found = await asyncio.gather(*(accounts.of_subject("https://a", sub) for _ in range(20)))
    (user_id,) = set(found)
    assert await accounts.of_subject("https://a", sub) == user_id
    assert await accounts.of_subject("https://b", sub) != user_id
    count = text(
        "SELECT count(*) FROM accounts WHERE user_id IN"
        " (SELECT user_id FROM identities WHERE subject = :sub)"
    )
    settings = database_settings(database_urls["auth"])
    async with DatabaseManager(settings, name="auth") as manager, manager.session(None) as session:
        assert await session.scalar(count, {"sub": sub}) == 2


async def test_an_account_of_a_subject_has_no_name_to_log_in_by_or_to_take(
    accounts: Accounts,
) -> None:
    """Whatever account somebody creates beforehand, and whatever they try for a name, it is not it."""
    sub = f"mallory-{time.time_ns()}"
    squatted = await accounts.create(sub, "correct horse")
    user_id = await accounts.of_subject("https://a", sub)
    assert user_id != squatted
    for name in (sub, user_id, "", "None", f"https://a {sub}"):
        for password in ("", "None", "correct horse"):
            with contextlib.suppress(AuthenticationError):
                assert await accounts.login(name, password) == squatted
    assert await accounts.login(sub, "correct horse") == squatted


@pytest.mark.parametrize("role", ["app_a", "relay"])
@pytest.mark.parametrize("statement", ["SELECT * FROM identities", "DELETE FROM identities", "INSERT INTO identities VALUES ('p', 's', 'u')"])  # fmt: skip
async def test_nobody_else_reads_or_writes_who_is_who(
    database_urls: Mapping[str, str], role: str, statement: str
) -> None:
    """The server itself refuses the roles of nodes, workers and the relay."""
    settings = database_settings(database_urls[role])
    async with DatabaseManager(settings, name="test") as manager:
        with pytest.raises(DBAPIError, match="permission denied"):
            await manager.run_transaction(None, lambda s: s.execute(text(statement)))

"""The ring of signing keys: what signs, what is published, and for how long."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams.support import until

from ssot.auth.keyring import KeyRing
from ssot.auth.keys import SigningKey, new_signing_key
from ssot.auth.verify import UnknownKey, key_id, verify
from ssot.configuration import TokenSettings
from ssot.errors import SettingsError

TOKENS = TokenSettings()
ENCODED = [new_signing_key() for _ in range(4)]
KIDS = [SigningKey(each).kid for each in ENCODED]


def token(ring: KeyRing, ttl: float = 60) -> str:
    return ring.sign(user_id="u1", ttl=ttl, tokens=TOKENS)


def accepted(ring: KeyRing, token: str) -> bool:
    keys = {str(jwk["kid"]): jwk for jwk in ring.public_jwks()}
    try:
        return verify(token, keys, TOKENS).user_id == "u1"
    except UnknownKey:
        return False


async def test_the_newest_key_signs_and_the_one_before_it_is_published_for_its_time() -> None:
    """A token of the old key is good until the time is over; new ones are of the new key."""
    ring = KeyRing(ENCODED[0])
    old = token(ring)
    assert ring.rotate(ENCODED[1], keep=0.3)
    new = token(ring)
    assert (key_id(old), key_id(new)) == (KIDS[0], KIDS[1])
    assert accepted(ring, old)
    assert accepted(ring, new)
    assert ring.statistics().published == (KIDS[1], KIDS[0])
    await until(lambda: not accepted(ring, old), what="the old key to be forgotten")
    assert accepted(ring, new)
    found = ring.statistics()
    assert (found.newest, found.published) == (KIDS[1], (KIDS[1],))
    assert (found.signed, found.rotations, found.forgotten) == (2, 1, 1)


def test_rotating_to_the_same_key_is_nothing() -> None:
    """A reload that leaves the key as it is publishes nothing else and counts nothing."""
    ring = KeyRing(ENCODED[0])
    assert not ring.rotate(ENCODED[0], keep=60)
    assert ring.statistics().published == (KIDS[0],)
    assert ring.statistics().rotations == 0


def test_a_key_that_is_still_published_may_come_back() -> None:
    """Taken back, a rotation leaves both keys published, each once; both kinds of token are good."""
    ring = KeyRing(ENCODED[0])
    first = token(ring)
    ring.rotate(ENCODED[1], keep=60)
    second = token(ring)
    ring.rotate(ENCODED[0], keep=60)
    assert ring.statistics().published == (KIDS[0], KIDS[1])
    assert key_id(token(ring)) == KIDS[0]
    assert accepted(ring, first)
    assert accepted(ring, second)
    # Its tokens from before are remembered: it may not be dropped sooner than they expire.
    assert 50 < ring.remaining <= 61


def test_what_remains_is_the_life_of_the_newest_keys_tokens() -> None:
    """The longest-lived token counts, of the key that signs now."""
    ring = KeyRing(ENCODED[0])
    assert ring.remaining == 0
    token(ring, 500)
    token(ring, 5)
    assert 490 < ring.remaining <= 501
    ring.rotate(ENCODED[1], keep=500)
    assert ring.remaining == 0
    token(ring, 0.1)
    # A token ends with a second of the clock.
    assert 0.5 < ring.remaining <= 1.1


def test_what_is_no_key_changes_nothing() -> None:
    """A refused rotation leaves the ring as it was, and is told without the value."""
    ring = KeyRing(ENCODED[0])
    with pytest.raises(SettingsError, match="AUTH_SIGNING_KEY") as refused:
        ring.rotate("not-a-key-at-all", keep=60)
    assert "not-a-key-at-all" not in str(refused.value)
    assert ring.statistics().published == (KIDS[0],)


def test_no_private_half_is_shown() -> None:
    """Neither the key set nor the ring's words hold a private key."""
    ring = KeyRing(ENCODED[0])
    ring.rotate(ENCODED[1], keep=60)
    shown = json.dumps(ring.public_jwks()) + repr(ring) + repr(ring.statistics())
    assert not any(each in shown for each in ENCODED)
    assert '"d"' not in shown


@given(st.lists(st.integers(0, 3), max_size=12))
def test_after_any_rotations_every_token_is_good(order: list[int]) -> None:
    """Whatever the order, the last key signs, each is published once, and no token is orphaned."""
    ring = KeyRing(ENCODED[0])
    tokens = [token(ring)]
    for index in order:
        ring.rotate(ENCODED[index], keep=60)
        tokens.append(token(ring))
    last = order[-1] if order else 0
    published = ring.statistics().published
    assert published[0] == ring.newest == KIDS[last]
    assert sorted(published) == sorted({KIDS[0], *(KIDS[index] for index in order)})
    assert all(accepted(ring, each) for each in tokens)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_kept_for_no_time_only_the_newest_is_published(order: list[int]) -> None:
    """A key that must go at once goes at once."""
    ring = KeyRing(ENCODED[0])
    for index in order:
        ring.rotate(ENCODED[index], keep=0)
        assert ring.statistics().published == (KIDS[index],)

"""Weak secrets: placeholders and short ones are told in words, and good ones are left alone."""

from __future__ import annotations

import base64
import secrets
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.environment import IsolatedEnvironment
from ssot.environment.weakness import weakness
from ssot.errors import SettingsError


@pytest.mark.parametrize(
    "secret",
    [
        "changeme", "Change-Me-Please", "CHANGE_THIS_NOW_1", "your-secret-here", "<secret>", "{{ key }}",
        "[insert key]", "example-key-123", "password1234", "PasswordPassword", "placeholder", "test-secret-1",
        "ssot-test-client-secret", "not-for-production-9", "my-changeme-key-77", "todo-later-123", "admin123456",
    ],
)  # fmt: skip
def test_placeholders(secret: str) -> None:
    """What stands in examples, in any spelling."""
    told = weakness(secret)
    assert told is not None
    assert secret == "placeholder" or secret not in told


@pytest.mark.parametrize(
    ("secret", "told"), [("a7Q_x9!", "fewer than 8"), ("abababab12"[:8], "different")]
)
def test_what_is_guessed_early(secret: str, told: str) -> None:
    """Short ones, and those of a few letters."""
    assert told in (weakness(secret) or "")


@pytest.mark.parametrize(
    "secret",
    ["postgres", "Postgres-1234", "redis123", "mysecretpassword", "my_super_secret_password", "supersecret",
     "superSecret2024", "hunter22", "hunter2hunter2", "qwertyui", "root-admin", "welcome123", "1q2w3e4r"],
)  # fmt: skip
def test_what_is_tried_first(secret: str) -> None:
    """Words of every list, also several of them, with a year or a few digits."""
    assert weakness(secret) in (
        "is made of words that are tried first",
        "is a placeholder or a value for tests",
    )


@pytest.mark.parametrize(
    "secret", ["12345678", "1234567890", "87654321", "abcdefgh", "HGFEDCBA", "abcd-4321", "11223344", "456789ab"]
)  # fmt: skip
def test_runs(secret: str) -> None:
    """Characters that follow each other, up or down, with a break."""
    assert weakness(secret) is not None


@pytest.mark.parametrize("user", ["orders-owner", "Orders-Owner"])
def test_the_name_of_the_user(user: str) -> None:
    """Whoever knows one knows the other; as a password of anybody else it is as good as any."""
    assert weakness("orders-owner", user=user) == "is the name of its user"
    assert weakness("orders-owner", user="reader") is None


@pytest.mark.parametrize(
    ("password", "told"),
    [("postgres", "words that are tried first"), ("orders%2Downer", "name of its user"), ("12345678", "words|run")],
)  # fmt: skip
def test_the_password_of_a_url_in_production(password: str, told: str) -> None:
    """Told with the variable, and without the value."""
    url = f"postgresql://orders-owner:{password}@h/d"
    with pytest.raises(SettingsError, match=rf"SSOT_DATABASE_URL .*its password is .*({told})"):
        IsolatedEnvironment({"SSOT_ENVIRONMENT": "production", "SSOT_DATABASE_URL": url})


@given(st.randoms(use_true_random=False), st.integers(12, 48), st.sampled_from(["url", "hex"]))
def test_random_keys_are_no_words_and_no_runs(random: Random, size: int, how: str) -> None:
    """However they are written; those of the fewest bytes that anybody takes as well."""
    raw = Random(random.getrandbits(64)).randbytes(size)
    key = raw.hex() if how == "hex" else base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert weakness(key) in (None, "is a placeholder or a value for tests")


def test_an_empty_value_is_judged_by_its_reader() -> None:
    """It may mean that a feature is off."""
    assert weakness("") is None


def test_what_is_advised_is_accepted() -> None:
    """The command in the message makes good ones, nearly always beginning with no word."""
    found = [secrets.token_urlsafe(32) for _ in range(500)]
    assert sum(weakness(each) is not None for each in found) <= 1


@given(st.text(min_size=1, max_size=40))
def test_no_message_holds_the_secret(secret: str) -> None:
    """Whatever it is, unless it is a word of the sentence itself."""
    told = weakness(secret)
    assert (
        told is None or len(secret) < 4 or secret not in told or secret in "fewer than characters"
    )

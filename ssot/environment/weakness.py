"""Which secrets are none: placeholders, test values, and what is too short to be guessed late."""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["weakness"]

_SHORTEST = 8
_FEWEST = 4  # different characters
_FEWEST_OWN = 5  # characters that are in none of the words

_PLACEHOLDER = re.compile(
    r"^(change|replace|insert|your|example|sample|dummy|fake|placeholder|todo|fixme|test|default|"
    r"secret|password|passwd|letmein|qwerty|admin|ssottest)",
)
_WORDS = re.compile(r"(changeme|placeholder|notforproduction|testonly|yoursecret|yourpassword)")
# Where these are most of it, whoever guesses is there at once.
_TRIED_FIRST = re.compile(
    r"postgresql|postgres|mysql|redis|valkey|database|root|admin|master|super|user|guest|server|"
    r"service|local|prod|secret|password|passwd|passw0rd|p4ssw0rd|pass|welcome|letmein|"
    r"login|qwerty|qwertz|asdfgh|zxcvbn|1q2w3e4r|dragon|monkey|iloveyou|trustno1|token|key|my|the|"
    r"db|1234+|123|abc|19\d\d|20\d\d|^(?:hunter2*)+$"
)


def weakness(secret: str, *, user: str = "") -> str | None:
    """Why a secret is none, in words that do not contain it; ``None`` when nothing is known.

    ``user`` is whom a password belongs to, where that is known.
    """
    plain = re.sub(r"[^a-z0-9]", "", secret.lower())
    if not secret:
        # A value like any other: whoever reads it decides whether it may be empty.
        return None
    if re.fullmatch(r"<.*>|\{.*\}|\[.*\]", secret):
        return "is a placeholder"
    if _PLACEHOLDER.match(plain) or _WORDS.search(plain):
        return "is a placeholder or a value for tests"
    if len(secret) < _SHORTEST:
        return f"has fewer than {_SHORTEST} characters"
    if len(set(secret)) < _FEWEST:
        return f"has fewer than {_FEWEST} different characters"
    if user and secret.casefold() == user.casefold():
        return "is the name of its user"
    if len(secret) - sum(map(len, _TRIED_FIRST.findall(plain))) < _FEWEST_OWN:
        return "is made of words that are tried first"
    if _is_run(plain) and len(plain) * 2 > len(secret):
        return "is a run of neighbours in the alphabet"
    return None


def _is_run(text: str) -> bool:
    """Whether nearly every character is followed by itself or a neighbour: abcd4321, 1234567890."""
    steps = (abs(ord(one) - ord(next_)) for one, next_ in pairwise(text))
    # Nine is between a nine and a nought.
    return sum(step > 1 and step != 9 for step in steps) <= len(text) // 5

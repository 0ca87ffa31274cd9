"""Password hashes: scrypt with a salt and its own cost in each, checked in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

__all__ = ["hash_password", "matches"]

_R, _P, _LENGTH = 8, 1, 32


def hash_password(password: str, *, log_n: int) -> str:
    """``scrypt$<log2 n>$<salt>$<hash>``; takes 2 ** ``log_n`` KiB of memory, and time likewise."""
    salt = os.urandom(16)
    return "$".join(("scrypt", str(log_n), _b64(salt), _b64(_derive(password, salt, log_n))))


def matches(password: str, stored: str) -> bool:
    """Whether the password made this hash."""
    _, log_n, salt, expected = stored.split("$")
    derived = _derive(password, base64.b64decode(salt), int(log_n))
    return hmac.compare_digest(derived, base64.b64decode(expected))


def _derive(password: str, salt: bytes, log_n: int) -> bytes:
    # OpenSSL refuses to use more than `maxmem`; it needs 128 * n * r bytes and a little.
    n = 1 << log_n
    return hashlib.scrypt(
        # JSON can carry lone surrogates; they are part of the password like any other character.
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=n,
        r=_R,
        p=_P,
        dklen=_LENGTH,
        maxmem=132 * n * _R + (1 << 20),
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()

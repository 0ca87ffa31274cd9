"""Signing keys: Ed25519, named by their RFC 7638 thumbprint, published as a JWK set."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ssot.configuration import TokenSettings
from ssot.context import new_id
from ssot.errors import SettingsError

__all__ = ["ALGORITHM", "SigningKey", "new_signing_key"]

ALGORITHM = "EdDSA"


def new_signing_key() -> str:
    """A fresh private key, in the form that ``AUTH_SIGNING_KEY`` takes."""
    raw = Ed25519PrivateKey.generate().private_bytes(
        Encoding.Raw, PrivateFormat.Raw, NoEncryption()
    )
    return _b64(raw)


class SigningKey:
    """One private key. Signs tokens; publishes only its public half."""

    def __init__(self, encoded: str) -> None:
        try:
            padded = encoded + "=" * (-len(encoded) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
            self._key = Ed25519PrivateKey.from_private_bytes(raw)
        except ValueError:
            raise SettingsError(
                ["AUTH_SIGNING_KEY is no Ed25519 private key: 32 bytes, in base64url"]
            ) from None
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        # The members that RFC 7638 requires, in its order.
        thumb = {"crv": "Ed25519", "kty": "OKP", "x": _b64(public)}
        digest = hashlib.sha256(json.dumps(thumb, separators=(",", ":"), sort_keys=True).encode())
        self.kid = _b64(digest.digest())
        self.public_jwk: dict[str, Any] = {**thumb, "use": "sig", "alg": ALGORITHM, "kid": self.kid}

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid}>"

    def sign(self, *, user_id: str, ttl: float, tokens: TokenSettings) -> str:
        """An access token of this user that lives for ``ttl`` seconds, up to a whole second.

        Never for less: who was promised a second must be able to use it.
        """
        now = time.time()
        claims = {
            "iss": tokens.issuer,
            "aud": tokens.audience,
            "sub": user_id,
            "iat": int(now),
            "exp": math.ceil(now + ttl),
            "jti": new_id("token"),
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self.kid})


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

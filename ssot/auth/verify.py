"""Checking a token: pure, and the same for everybody who checks one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt

from ssot.auth.keys import ALGORITHM
from ssot.configuration import TokenSettings
from ssot.errors import AuthenticationError

__all__ = ["Identity", "UnknownKey", "key_id", "verify"]


class Identity(NamedTuple):
    """Whom a token proves, and until when (Unix seconds)."""

    user_id: str
    expires_at: float


class UnknownKey(AuthenticationError):
    """The token names a key that is not in the key set; a fresh set may have it."""


def key_id(token: str) -> str:
    """The ``kid`` of a token's header, unverified."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise AuthenticationError("the token is not a JSON web token") from None
    if header.get("alg") != ALGORITHM:
        raise AuthenticationError(f"the token is signed with {header.get('alg')}, not {ALGORITHM}")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise AuthenticationError("the token does not name its key (kid)")
    return kid


def verify(token: str, keys: Mapping[str, Mapping[str, Any]], tokens: TokenSettings) -> Identity:
    """Whom ``token`` proves, by ``keys`` (public JWKs by ``kid``).

    Raises :class:`AuthenticationError` with the reason: wrong signature, expired, another issuer
    or audience (with both values), no user.
    """
    kid = key_id(token)
    if kid not in keys:
        raise UnknownKey("the token was signed with a key that the auth service does not publish")
    try:
        claims = jwt.decode(
            token,
            key=jwt.PyJWK(dict(keys[kid])),
            algorithms=[ALGORITHM],
            audience=tokens.audience,
            issuer=tokens.issuer,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except jwt.ExpiredSignatureError:
        raise AuthenticationError("the token has expired") from None
    except jwt.InvalidIssuerError:
        raise _other("issuer", token, "iss", tokens.issuer) from None
    except jwt.InvalidAudienceError:
        raise _other("audience", token, "aud", tokens.audience) from None
    except jwt.InvalidSignatureError:
        raise AuthenticationError("the token's signature is wrong") from None
    except jwt.InvalidTokenError as error:
        raise AuthenticationError(f"the token is not valid: {error}") from None
    return Identity(user_id=claims["sub"], expires_at=float(claims["exp"]))


def _other(what: str, token: str, claim: str, ours: str) -> AuthenticationError:
    # The signature was checked before the claims, so that this value is the signer's own.
    theirs = jwt.decode(token, options={"verify_signature": False}).get(claim)
    return AuthenticationError(f"the token's {what} is {theirs!r}, this service demands {ours!r}")

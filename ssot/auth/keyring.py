"""The keys of the auth service over time: the newest signs, and the ones before it stay known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ssot.auth.keys import SigningKey
from ssot.configuration import TokenSettings

__all__ = ["KeyRing", "KeyRingStatistics"]


@dataclass(frozen=True, slots=True)
class KeyRingStatistics:
    """What is published and what has happened.

    ``newest`` is the ``kid`` that signs, ``published`` are all of the key set, the newest first.
    ``forgotten`` counts the keys whose time has passed.
    """

    newest: str
    published: tuple[str, ...]
    signed: int
    rotations: int
    forgotten: int


class KeyRing:
    """Signs with the newest key, and publishes each earlier one until its tokens have expired.

    Of an earlier key only the public half is kept. Nothing is stored: a process that starts again
    knows the key that it is started with.
    """

    def __init__(self, encoded: str) -> None:
        self._newest = SigningKey(encoded)
        # By kid, the latest last: the public key, and the moment at which it is forgotten.
        self._earlier: dict[str, tuple[dict[str, Any], float]] = {}
        self._last_expiry = float("-inf")
        self._signed = 0
        self._rotations = 0
        self._forgotten = 0

    def __repr__(self) -> str:
        return f"<KeyRing of {self._newest.kid} and {len(self._earlier)} before it>"

    @property
    def newest(self) -> str:
        """The ``kid`` of the key that signs."""
        return self._newest.kid

    @property
    def remaining(self) -> float:
        """Seconds until every token that the newest key signed here has expired; 0 for none."""
        return max(self._last_expiry - time.monotonic(), 0.0)

    def sign(self, *, user_id: str, ttl: float, tokens: TokenSettings) -> str:
        """An access token of this user, by the newest key; see :meth:`SigningKey.sign`."""
        token = self._newest.sign(user_id=user_id, ttl=ttl, tokens=tokens)
        # A token ends with a second of the clock.
        self._last_expiry = max(self._last_expiry, time.monotonic() + ttl + 1)
        self._signed += 1
        return token

    def rotate(self, encoded: str, *, keep: float) -> bool:
        """Sign with this key from now on; whether it is another one than before.

        The key that signed until now stays published for ``keep`` seconds: as long as a token of
        it may live, wherever it was signed. A key that is still published may come back, and
        is the newest again. Raises :class:`SettingsError` for what is no key; nothing has changed
        then.
        """
        key = SigningKey(encoded)
        if key.kid == self._newest.kid:
            return False
        self._forget()
        now = time.monotonic()
        _, until = self._earlier.pop(key.kid, ({}, float("-inf")))
        self._earlier[self._newest.kid] = (self._newest.public_jwk, now + keep)
        # The tokens of its first time are as old as its place in the key set allowed at most.
        self._newest, self._last_expiry = key, until
        self._rotations += 1
        return True

    def public_jwks(self) -> list[dict[str, Any]]:
        """The key set as it is published, the newest first."""
        self._forget()
        return [self._newest.public_jwk, *(jwk for jwk, _ in reversed(self._earlier.values()))]

    def statistics(self) -> KeyRingStatistics:
        """The state of the ring now."""
        return KeyRingStatistics(
            newest=self._newest.kid,
            published=tuple(str(jwk["kid"]) for jwk in self.public_jwks()),
            signed=self._signed,
            rotations=self._rotations,
            forgotten=self._forgotten,
        )

    def _forget(self) -> None:
        now = time.monotonic()
        kept = {kid: held for kid, held in self._earlier.items() if held[1] > now}
        self._forgotten += len(self._earlier) - len(kept)
        self._earlier = kept

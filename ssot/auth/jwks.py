"""The verifier that other processes use: the auth service's public keys, fetched and remembered."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from ssot.auth.verify import Identity, key_id, verify
from ssot.configuration import TokenSettings
from ssot.errors import Unavailable

__all__ = ["TokenVerifier"]

_TIMEOUT = 5.0
# A flood of tokens with invented key ids must not become a flood of fetches.
_REFETCH_AFTER = 1.0


class TokenVerifier:
    """Checks tokens with the keys that the auth service publishes. An async context manager.

    Keys are fetched when the first token comes and again when one names an unknown ``kid``, at
    most once a second, by one task however many wait.
    """

    def __init__(self, auth_url: str, tokens: TokenSettings) -> None:
        self._url = f"{auth_url}/.well-known/jwks.json"
        self._tokens = tokens
        self._keys: dict[str, dict[str, Any]] = {}
        self._fetched = float("-inf")
        self._failure: Unavailable | None = None
        self._fetching = asyncio.Lock()
        # Nothing of the machine's proxy settings may stand between two of our services.
        self._http = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False)

    async def __aenter__(self) -> TokenVerifier:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to the auth service. Idempotent."""
        await self._http.aclose()

    async def verify(self, token: str) -> Identity:
        """Whom the token proves.

        Raises :class:`AuthenticationError` with the reason, and :class:`Unavailable` when the
        keys are needed and the auth service does not answer.
        """
        kid = key_id(token)
        if kid not in self._keys:
            await self._fetch(kid)
        return verify(token, self._keys, self._tokens)

    async def _fetch(self, kid: str) -> None:
        arrived = asyncio.get_running_loop().time()
        async with self._fetching:
            # A fetch that began after this token came would have brought its key.
            if kid not in self._keys and self._fetched <= arrived:
                await asyncio.sleep(self._fetched + _REFETCH_AFTER - arrived)
                self._fetched = asyncio.get_running_loop().time()
                self._failure = await self._replace_keys()
            if kid not in self._keys and self._failure is not None:
                raise self._failure

    async def _replace_keys(self) -> Unavailable | None:
        try:
            answer = await self._http.get(self._url)
            answer.raise_for_status()
            self._keys = {key["kid"]: key for key in answer.json()["keys"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            return Unavailable("the auth service", deadline=_TIMEOUT, cause=repr(error))
        return None

"""The verifier that other processes use: the auth service's public keys, fetched and remembered."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from opentelemetry.trace import SpanKind

from ssot.auth.verify import Identity, key_id, verify
from ssot.configuration import TokenSettings
from ssot.errors import Unavailable
from ssot.tracing import Spans, mark_failed, trace_of

__all__ = ["TokenVerifier"]

_spans = Spans("auth")

_TIMEOUT = 5.0
# A flood of tokens with invented key ids must not become a flood of fetches.
_REFETCH_AFTER = 1.0
# Known keys do while the auth service is slow: one token in a minute waits so long for fresh ones.
_PATIENCE = 1.0


class TokenVerifier:
    """Checks tokens with the keys that the auth service publishes. An async context manager.

    Keys are fetched when the first token comes and again when one names an unknown ``kid``, at
    most once a second, by one task however many wait. Keys older than ``refresh_after`` seconds
    are fetched again by the next token, so that one that is published no longer is not taken for
    ever; while the auth service does not answer, the known ones go on.
    """

    def __init__(
        self, auth_url: str, tokens: TokenSettings, *, refresh_after: float = 60.0
    ) -> None:
        self._url = f"{auth_url}/.well-known/jwks.json"
        self._tokens = tokens
        self._refresh_after = refresh_after
        self._keys: dict[str, dict[str, Any]] = {}
        # When the last fetch began, and when the last that came to its end had begun.
        self._began = float("-inf")
        self._answered = float("-inf")
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
        with _spans.span("auth.verify") as span:
            kid = key_id(token)
            if kid not in self._keys:
                await self._fetch(kid)
            elif self._began + self._refresh_after < asyncio.get_running_loop().time():
                await self._refresh()
            identity = verify(token, self._keys, self._tokens)
            span.set_attribute("ssot.user_id", identity.user_id)
            return identity

    async def _fetch(self, kid: str) -> None:
        arrived = asyncio.get_running_loop().time()
        async with self._fetching:
            # A fetch that began after this token came would have brought its key. One that was
            # cancelled with its caller has brought nothing to anybody.
            if kid not in self._keys and self._answered <= arrived:
                await asyncio.sleep(
                    self._began + _REFETCH_AFTER - asyncio.get_running_loop().time()
                )
                await self._replace_keys(_TIMEOUT)
            if kid not in self._keys and self._failure is not None:
                raise self._failure

    async def _refresh(self) -> None:
        # Whoever comes while another one fetches goes on with what is known.
        if not self._fetching.locked():
            async with self._fetching:
                await self._replace_keys(_PATIENCE)

    async def _replace_keys(self, timeout: float) -> None:
        self._began = began = asyncio.get_running_loop().time()
        with _spans.span("auth.fetch_keys", kind=SpanKind.CLIENT) as span:
            trace = trace_of(span)
            headers = {"traceparent": trace} if trace else {}
            try:
                async with asyncio.timeout(timeout):
                    answer = await self._http.get(self._url, headers=headers)
                answer.raise_for_status()
                self._keys = {key["kid"]: key for key in answer.json()["keys"]}
                self._failure = None
            except (TimeoutError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                self._failure = Unavailable("the auth service", deadline=timeout, cause=repr(error))
                mark_failed(span, self._failure)
        self._answered = began

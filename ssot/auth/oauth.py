"""The OAuth provider as the auth service sees it: one authorization code becomes one subject."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import quote_plus

import httpx
import msgspec
from opentelemetry.trace import SpanKind

from ssot.configuration import OAuthSettings, is_protected, name_in
from ssot.errors import AuthenticationError, SettingsError, Unavailable
from ssot.tracing import Spans

__all__ = ["OAuthProvider", "Subject"]

_log = logging.getLogger(__name__)
_spans = Spans("auth")

T = TypeVar("T")

_WHAT = "the OAuth provider"
_LONGEST_ANSWER = 65_536
_ENDPOINTS_KEPT = 3600.0
# RFC 6749, section 5.2: whose mistake an error of the token endpoint tells of.
_CODE_REFUSED = frozenset({"invalid_grant", "invalid_request"})
_WE_ARE_REFUSED = frozenset({"invalid_client", "unauthorized_client"})


class Subject(NamedTuple):
    """Somebody whom a provider knows: ``sub`` is unique there, and never given to another."""

    provider: str
    sub: str


class _Endpoints(msgspec.Struct):
    issuer: str
    token_endpoint: str
    userinfo_endpoint: str


class _Token(msgspec.Struct):
    access_token: Annotated[str, msgspec.Meta(min_length=1, pattern=r"^[!-~]+$")]
    token_type: str


class _UserInfo(msgspec.Struct):
    # OpenID Connect, section 2: at most 255 characters of ASCII.
    sub: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[ -~]+$")]


class _Refusal(msgspec.Struct):
    error: str


_endpoints_decoder = msgspec.json.Decoder(_Endpoints)
_token_decoder = msgspec.json.Decoder(_Token)
_userinfo_decoder = msgspec.json.Decoder(_UserInfo)
_refusal_decoder = msgspec.json.Decoder(_Refusal)


class _Unusable(Exception):
    """An answer that leads nowhere; its text quotes nothing of it."""


class OAuthProvider:
    """Exchanges authorization codes (RFC 6749, section 4.1.3) at the provider of the settings.

    Its endpoints are those of its OpenID configuration, which is kept for an hour. An async
    context manager.
    """

    def __init__(self) -> None:
        # The environment reaches this process by its settings alone, and so does no proxy.
        # The deadline is that of the whole exchange.
        self._http = httpx.AsyncClient(
            trust_env=False, timeout=httpx.Timeout(None), verify=ssl.create_default_context()
        )
        self._known: dict[str, tuple[_Endpoints, float]] = {}

    async def __aenter__(self) -> OAuthProvider:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to the provider. Idempotent."""
        await self._http.aclose()

    async def identify(
        self, settings: OAuthSettings, *, environment: str, code: str, redirect_uri: str
    ) -> Subject:
        """Whom the code stands for. A code is used up by this, whatever comes of it.

        Raises :class:`AuthenticationError` when the provider refuses the code,
        :class:`SettingsError` when there are no credentials for this environment or the provider
        refuses them, and :class:`Unavailable` when it gives no usable answer in time.
        """
        if missing := settings.missing(environment):
            raise SettingsError(
                [
                    f"log-in through an OAuth provider is off in the environment {environment}: "
                    f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set"
                ]
            )
        with _spans.span("auth.exchange_code", kind=SpanKind.CLIENT):
            try:
                async with asyncio.timeout(settings.timeout):
                    endpoints = await self._endpoints(settings.provider_url)
                    token = await self._exchange(
                        endpoints, settings, environment, code, redirect_uri
                    )
                    return Subject(settings.provider_url, await self._subject(endpoints, token))
            except (TimeoutError, httpx.HTTPError, _Unusable) as error:
                # It may have moved.
                self._known.clear()
                cause = str(error) or type(error).__name__
                raise Unavailable(_WHAT, deadline=settings.timeout, cause=cause) from error

    async def _endpoints(self, url: str) -> _Endpoints:
        known, until = self._known.get(url, (None, 0.0))
        if known is not None and time.monotonic() < until:
            return known
        status, body = await self._ask("GET", f"{url}/.well-known/openid-configuration")
        if status != 200:
            raise _Unusable(f"its OpenID configuration answers {status}")
        found = _decode(_endpoints_decoder, body, "its OpenID configuration")
        if found.issuer.rstrip("/") != url:
            # Else one provider could speak for the subjects of another.
            raise _Unusable("its OpenID configuration is that of another issuer")
        if not (is_protected(found.token_endpoint) and is_protected(found.userinfo_endpoint)):
            raise _Unusable("its OpenID configuration names an endpoint without TLS")
        self._known = {url: (found, time.monotonic() + _ENDPOINTS_KEPT)}
        return found

    async def _exchange(
        self,
        endpoints: _Endpoints,
        settings: OAuthSettings,
        environment: str,
        code: str,
        redirect_uri: str,
    ) -> str:
        # RFC 6749, section 2.3.1: both are encoded like a form before they become one header.
        auth = (
            quote_plus(settings.client_id),
            quote_plus(settings.client_secret.get_secret_value()),
        )
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        status, body = await self._ask("POST", endpoints.token_endpoint, data=form, auth=auth)
        if status == 200:
            token = _decode(_token_decoder, body, "its token")
            if token.token_type.lower() != "bearer":
                raise _Unusable("its token is of a type other than Bearer")
            return token.access_token
        try:
            reason = _refusal_decoder.decode(body).error
        except ValueError:
            reason = ""
        if status == 401 or (status == 400 and reason in _WE_ARE_REFUSED):
            refused = SettingsError(
                [
                    f"{_WHAT} refuses our client credentials: look at "
                    f"{name_in(environment, 'AUTH_OAUTH_CLIENT_ID')} and "
                    f"{name_in(environment, 'AUTH_OAUTH_CLIENT_SECRET')}"
                ]
            )
            _log.error("%s", refused.problems[0])
            raise refused
        if status == 400 and reason in _CODE_REFUSED:
            raise AuthenticationError(f"{_WHAT} refuses the code ({reason})")
        raise _Unusable(f"its token endpoint answers {status}")

    async def _subject(self, endpoints: _Endpoints, token: str) -> str:
        headers = {"Authorization": f"Bearer {token}"}
        status, body = await self._ask("GET", endpoints.userinfo_endpoint, headers=headers)
        if status != 200:
            raise _Unusable(f"its userinfo endpoint answers {status}")
        return _decode(_userinfo_decoder, body, "its user info").sub

    async def _ask(self, method: str, url: str, **request: Any) -> tuple[int, bytes]:
        # Not compressed: a short answer could be a very long one.
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **request.pop("headers", {}),
        }
        body = b""
        async with self._http.stream(method, url, headers=headers, **request) as answer:
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > _LONGEST_ANSWER:
                    raise _Unusable(f"an answer has more than {_LONGEST_ANSWER} bytes")
        return answer.status_code, body


def _decode(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError):
        # Not the decoder's words: they may quote what should stay between the two.
        raise _Unusable(f"{what} cannot be read") from None

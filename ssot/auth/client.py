"""The auth service as its clients see it: create an account, log in."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx
from opentelemetry.trace import SpanKind

from ssot.errors import AuthenticationError, ProtocolError, SsotError, Unavailable
from ssot.tracing import Spans, trace_of

__all__ = ["AuthClient", "Login"]

_spans = Spans("auth")

_TIMEOUT = 30.0


class Login(NamedTuple):
    """A successful login."""

    user_id: str
    access_token: str
    expires_in: float


class AuthClient:
    """HTTP calls to the auth service. An async context manager."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, trust_env=False)

    async def __aenter__(self) -> AuthClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._http.aclose()

    async def create_account(self, name: str, password: str) -> str:
        """Create an account; returns its user id."""
        answer = await self._post("/accounts", {"name": name, "password": password})
        return str(answer["user_id"])

    async def login(self, name: str, password: str) -> Login:
        """Log in; :class:`AuthenticationError` when the password is wrong."""
        return _login(await self._post("/login", {"name": name, "password": password}))

    async def oauth_login(self, code: str, redirect_uri: str) -> Login:
        """Log in by an authorization code of the OAuth provider, and where it was sent to.

        :class:`AuthenticationError` when the provider refuses the code; :class:`Unavailable` with
        the variables' names when the service has no credentials there.
        """
        return _login(
            await self._post("/oauth/login", {"code": code, "redirect_uri": redirect_uri})
        )

    async def _post(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        with _spans.span("auth.request", kind=SpanKind.CLIENT, path=path) as span:
            trace = trace_of(span)
            headers = {"traceparent": trace} if trace else {}
            try:
                answer = await self._http.post(path, json=body, headers=headers)
            except httpx.HTTPError as error:
                raise Unavailable(
                    "the auth service", deadline=_TIMEOUT, cause=repr(error)
                ) from error
            if answer.is_success:
                found: dict[str, Any] = answer.json()
                span.set_attribute("ssot.user_id", str(found.get("user_id", "")))
                return found
            raise _refusal(path, answer)


def _login(answer: dict[str, Any]) -> Login:
    return Login(answer["user_id"], answer["access_token"], answer["expires_in"])


def _refusal(path: str, answer: httpx.Response) -> SsotError:
    try:
        reason = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        reason = f"HTTP {answer.status_code}"
    if answer.status_code == 401:
        return AuthenticationError(reason)
    if answer.status_code == 503:
        return Unavailable("the auth service", deadline=_TIMEOUT, cause=reason)
    return ProtocolError(f"the auth service refused {path}: {reason}")

"""The auth service as its clients see it: create an account, log in."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx

from ssot.errors import AuthenticationError, ProtocolError, Unavailable

__all__ = ["AuthClient", "Login"]

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
        answer = await self._post("/login", {"name": name, "password": password})
        return Login(answer["user_id"], answer["access_token"], answer["expires_in"])

    async def _post(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        try:
            answer = await self._http.post(path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable("the auth service", deadline=_TIMEOUT, cause=repr(error)) from error
        if answer.is_success:
            found: dict[str, Any] = answer.json()
            return found
        try:
            reason = str(answer.json()["error"])
        except (ValueError, KeyError, TypeError):
            reason = f"HTTP {answer.status_code}"
        if answer.status_code == 401:
            raise AuthenticationError(reason)
        if answer.status_code == 503:
            raise Unavailable("the auth service", deadline=_TIMEOUT, cause=reason)
        raise ProtocolError(f"the auth service refused {path}: {reason}")

"""The auth service over HTTP: accounts, log-in by password or OAuth, public keys, health."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from opentelemetry.trace import Span, SpanKind
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssot.auth.accounts import Accounts
from ssot.auth.keyring import KeyRing, KeyRingStatistics
from ssot.auth.oauth import OAuthProvider
from ssot.configuration import OAuthSettings, Settings
from ssot.database import DatabaseManager
from ssot.errors import (
    AuthenticationError,
    LimitExceeded,
    ProtocolError,
    SettingsError,
    Unavailable,
)
from ssot.health import merge
from ssot.tracing import Spans
from ssot.wire import read_json

__all__ = ["AuthService", "AuthStatistics"]

_log = logging.getLogger(__name__)
_spans = Spans("auth")


class _Credentials(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    password: str


class _Code(msgspec.Struct, forbid_unknown_fields=True):
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    redirect_uri: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]


T = TypeVar("T")

_LONGEST_BODY = 16_384
# Clocks of other machines may be behind, and whoever caches the key set is.
_KEEP_LONGER = 30.0
_credentials_decoder = msgspec.json.Decoder(_Credentials)
_code_decoder = msgspec.json.Decoder(_Code)


@dataclass(frozen=True, slots=True)
class AuthStatistics:
    """What has happened: log-ins by each way, and settings applied after the first."""

    logins: int
    oauth_logins: int
    applied: int
    keys: KeyRingStatistics


class AuthService:
    """The auth service as an ASGI application, with settings that may change while it serves.

    * ``POST /accounts {name, password}`` → 201 ``{user_id}``; 400 with the reason
    * ``POST /login {name, password}`` → 200 ``{user_id, access_token, expires_in}``; 401
    * ``POST /oauth/login {code, redirect_uri}`` → the same, for whom the OAuth provider knows by
      this authorization code; 401 when it refuses the code
    * ``GET /.well-known/jwks.json`` → the public keys
    * ``GET /health`` → 200, or 503 while the database is down

    Errors are ``{"error": …}``; 503 means that the same request may succeed later, or that the
    service lacks a setting, which is named.

    An async context manager; it owns its connections to the provider, and nothing else.
    """

    def __init__(self, *, database: DatabaseManager, settings: Settings) -> None:
        assert settings.auth is not None
        assert settings.tokens is not None
        self._database = database
        # What everybody else demands of a token cannot change here alone.
        self._tokens = settings.tokens
        self._keys = KeyRing(settings.auth.signing_key.get_secret_value())
        self._now = _Applied.of(settings)
        self._accounts = Accounts(database, scrypt_log_n=settings.auth.scrypt_log_n)
        self._provider = OAuthProvider()
        self._logins = self._oauth_logins = self._applied = 0
        with _spans.span("auth.start"):
            self.app = Starlette(
                routes=[
                    Route("/accounts", self._create, methods=["POST"]),
                    Route("/login", self._login, methods=["POST"]),
                    Route("/oauth/login", self._oauth_login, methods=["POST"]),
                    Route("/.well-known/jwks.json", self._jwks),
                    Route("/health", self._health),
                ],
                exception_handlers={
                    AuthenticationError: _answer(401),
                    ProtocolError: _answer(400),
                    LimitExceeded: _answer(503),
                    SettingsError: _answer_settings,
                    Unavailable: _answer(503),
                    HTTPException: _answer_http,
                },
            )

    async def __aenter__(self) -> AuthService:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to the OAuth provider. Idempotent."""
        await self._provider.aclose()

    def apply(self, settings: Settings) -> None:
        """From now on, sign with this key and lifetime, and log in with these OAuth credentials.

        All of them at once, or none: :class:`SettingsError` for what is no key. Every token that
        was signed stays valid for as long as it was to live, because the public key before this
        one is published until then. Call it in the loop that serves. Other settings of the service
        need a start.
        """
        assert settings.auth is not None
        with _spans.span("auth.apply") as span:
            before = self._keys.newest
            # Other processes of this service may have signed with the old key until now.
            keep = max(self._now.access_ttl, self._keys.remaining) + _KEEP_LONGER
            key = settings.auth.signing_key.get_secret_value()
            rotated = self._keys.rotate(key, keep=keep)
            span.set_attribute("ssot.rotated", rotated)
            self._now = _Applied.of(settings)
            self._applied += 1
        if rotated:
            _log.info(
                "signing with the key %s; %s stays published for %g s",
                self._keys.newest, before, round(keep),
            )  # fmt: skip

    def statistics(self) -> AuthStatistics:
        """The state of the service now."""
        return AuthStatistics(
            logins=self._logins,
            oauth_logins=self._oauth_logins,
            applied=self._applied,
            keys=self._keys.statistics(),
        )

    # The endpoints

    async def _create(self, request: Request) -> Response:
        given = await _read(request, _credentials_decoder, "{name, password} as JSON")
        with _serving("auth.create_account", request) as span:
            user_id = await self._accounts.create(given.name, given.password)
            span.set_attribute("ssot.user_id", user_id)
        return JSONResponse({"user_id": user_id}, status_code=201)

    async def _login(self, request: Request) -> Response:
        given = await _read(request, _credentials_decoder, "{name, password} as JSON")
        with _serving("auth.login", request) as span:
            user_id = await self._accounts.login(given.name, given.password)
            span.set_attribute("ssot.user_id", user_id)
            self._logins += 1
            return self._signed(user_id)

    async def _oauth_login(self, request: Request) -> Response:
        given = await _read(request, _code_decoder, "{code, redirect_uri} as JSON")
        if not (given.code.isprintable() and given.redirect_uri.isprintable()):
            raise ProtocolError("code and redirect_uri consist of printable characters")
        with _serving("auth.oauth_login", request) as span:
            now = self._now
            subject = await self._provider.identify(
                now.oauth,
                environment=now.environment,
                code=given.code,
                redirect_uri=given.redirect_uri,
            )
            user_id = await self._accounts.of_subject(subject.provider, subject.sub)
            span.set_attribute("ssot.user_id", user_id)
            self._oauth_logins += 1
            return self._signed(user_id)

    def _signed(self, user_id: str) -> Response:
        ttl = self._now.access_ttl
        token = self._keys.sign(user_id=user_id, ttl=ttl, tokens=self._tokens)
        answer = {"user_id": user_id, "access_token": token, "expires_in": ttl}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def _jwks(self, request: Request) -> Response:
        with _serving("auth.jwks", request):
            return JSONResponse({"keys": self._keys.public_jwks()})

    async def _health(self, _: Request) -> Response:
        found = merge("auth", [await self._database.health()])
        body = msgspec.json.encode(found)
        status = 200 if found.status == "ok" else 503
        return Response(body, status_code=status, media_type="application/json")


@dataclass(frozen=True, slots=True)
class _Applied:
    """The settings that may change while the service runs: replaced as one."""

    environment: str
    access_ttl: float
    oauth: OAuthSettings

    @classmethod
    def of(cls, settings: Settings) -> _Applied:
        assert settings.auth is not None
        return cls(
            environment=settings.environment,
            access_ttl=settings.auth.access_ttl,
            oauth=settings.oauth or OAuthSettings(),
        )


def _serving(name: str, request: Request) -> AbstractContextManager[Span]:
    caller = request.headers.get("traceparent", "")
    return _spans.span(name, parent=caller, kind=SpanKind.SERVER)


async def _read(request: Request, decoder: msgspec.json.Decoder[T], what: str) -> T:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise HTTPException(413, f"the body may have {_LONGEST_BODY} bytes")
    return read_json(decoder, body, what=what)


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = {"error": error.detail}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _answer_settings(_: Request, error: Exception) -> Response:
    assert isinstance(error, SettingsError)
    return JSONResponse({"error": "; ".join(error.problems)}, status_code=503)


def _answer(status: int) -> Any:
    async def handler(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=status)

    return handler

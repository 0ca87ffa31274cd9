"""The auth service over HTTP: accounts, login, public keys, health."""

from __future__ import annotations

from typing import Any

import msgspec
from opentelemetry import propagate, trace
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssot.auth.accounts import Accounts
from ssot.auth.keys import SigningKey
from ssot.configuration import TokenSettings
from ssot.database import DatabaseManager
from ssot.errors import AuthenticationError, LimitExceeded, ProtocolError, Unavailable
from ssot.health import merge
from ssot.wire import read_json

__all__ = ["auth_app"]

_tracer = trace.get_tracer("ssot.auth")


class _Credentials(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    password: str


_LONGEST_BODY = 16_384
_credentials_decoder = msgspec.json.Decoder(_Credentials)


def auth_app(
    *,
    database: DatabaseManager,
    accounts: Accounts,
    key: SigningKey,
    tokens: TokenSettings,
    access_ttl: float,
) -> Starlette:
    """The ASGI application.

    * ``POST /accounts {name, password}`` → 201 ``{user_id}``; 400 with the reason
    * ``POST /login {name, password}`` → 200 ``{user_id, access_token, expires_in}``; 401
    * ``GET /.well-known/jwks.json`` → the public keys
    * ``GET /health`` → 200, or 503 while the database is down

    Errors are ``{"error": …}``; 503 means that the same request may succeed later.
    """

    async def create(request: Request) -> Response:
        given = await _credentials(request)
        user_id = await accounts.create(given.name, given.password)
        return JSONResponse({"user_id": user_id}, status_code=201)

    async def login(request: Request) -> Response:
        given = await _credentials(request)
        context = propagate.extract(dict(request.headers))
        with _tracer.start_as_current_span("auth.login", context=context) as span:
            user_id = await accounts.login(given.name, given.password)
            span.set_attribute("ssot.user_id", user_id)
            token = key.sign(user_id=user_id, ttl=access_ttl, tokens=tokens)
        answer = {"user_id": user_id, "access_token": token, "expires_in": access_ttl}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def jwks(_: Request) -> Response:
        return JSONResponse({"keys": [key.public_jwk]})

    async def health(_: Request) -> Response:
        found = merge("auth", [await database.health()])
        body = msgspec.json.encode(found)
        status = 200 if found.status == "ok" else 503
        return Response(body, status_code=status, media_type="application/json")

    return Starlette(
        routes=[
            Route("/accounts", create, methods=["POST"]),
            Route("/login", login, methods=["POST"]),
            Route("/.well-known/jwks.json", jwks),
            Route("/health", health),
        ],
        exception_handlers={
            AuthenticationError: _answer(401),
            ProtocolError: _answer(400),
            LimitExceeded: _answer(503),
            Unavailable: _answer(503),
            HTTPException: _answer_http,
        },
    )


async def _credentials(request: Request) -> _Credentials:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise HTTPException(413, f"the body may have {_LONGEST_BODY} bytes")
    return read_json(_credentials_decoder, body, what="{name, password} as JSON")


async def _answer_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = {"error": error.detail}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def _answer(status: int) -> Any:
    async def handler(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=status)

    return handler

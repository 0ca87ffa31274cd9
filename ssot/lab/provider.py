"""A real OAuth provider for labs, as a process: ``python -m ssot.lab.provider [--until-eof]``.

It knows the clients of its environment, ``PROVIDER_CLIENTS='{"<client id>": "<secret>", …}'``, and
whatever test users it is asked for. With ``PROVIDER_ISSUER`` it says that it is another issuer, as
an impostor or a mistaken proxy would. Once up it prints one line of JSON to standard output,
``{"ready": "provider", "address": "http://127.0.0.1:…"}``, and runs until SIGTERM or SIGINT; with
``--until-eof`` the end of standard input stops it too. Everything is in memory.

* ``GET /.well-known/openid-configuration`` → where the others are
* ``GET /authorize?response_type=code&client_id=…&redirect_uri=…&login_hint=<user>[&state=…]`` →
  302 to ``redirect_uri?code=…[&state=…]``, as if ``<user>`` had consented; 400 otherwise
* ``POST /token`` (RFC 6749, section 4.1.3; HTTP Basic) → ``{access_token, token_type,
  expires_in}``; 401 ``invalid_client``, 400 ``invalid_grant`` and its like
* ``GET /userinfo`` (Bearer) → ``{sub, preferred_username}``; 401
* ``GET /asked`` → ``{"<client id>": {"right": n, "wrong": n}}``: how often each has asked for a
  token, with its secret or a wrong one

A code is used once, by its client and with its redirect URI, within a minute; used again, it takes
back the token that it gave.

Exit codes: 0 stopped as asked, 2 wrong environment or arguments.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit, urlunsplit

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

__all__ = ["OAuthServer", "main"]

_CODE_TTL = 60.0
_TOKEN_TTL = 300.0
_LONGEST_BODY = 65_536
_NO_STORE = {"Cache-Control": "no-store"}


@dataclass(slots=True)
class _Code:
    client_id: str
    redirect_uri: str
    user: str
    until: float
    token: str = ""


class OAuthServer:
    """The provider as an ASGI application, ``app``. Codes live for ``code_ttl`` seconds.

    ``issuer`` is whom it says to be, if not whoever is asked.
    """

    def __init__(
        self, clients: Mapping[str, str], *, code_ttl: float = _CODE_TTL, issuer: str = ""
    ) -> None:
        self._issuer = issuer
        self._clients = dict(clients)
        self._code_ttl = code_ttl
        self._codes: dict[str, _Code] = {}
        # By access token: the user, and until when.
        self._tokens: dict[str, tuple[str, float]] = {}
        self._asked: dict[str, dict[str, int]] = {}
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._configuration),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/userinfo", self._userinfo),
                Route("/asked", self._tell_asked),
            ]
        )

    async def _configuration(self, request: Request) -> Response:
        issuer = str(request.base_url).rstrip("/")
        return JSONResponse(
            {
                "issuer": self._issuer or issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "userinfo_endpoint": f"{issuer}/userinfo",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    async def _authorize(self, request: Request) -> Response:
        asked = request.query_params
        redirect_uri, user = asked.get("redirect_uri", ""), asked.get("login_hint", "")
        target = urlsplit(redirect_uri)
        # RFC 6749, section 4.1.2.1: whoever cannot be trusted is not sent anywhere.
        if asked.get("client_id") not in self._clients:
            return _error(400, "invalid_request", "no such client_id")
        if not target.scheme or not target.netloc or target.fragment:
            return _error(400, "invalid_request", "redirect_uri must be absolute")
        back = {"state": asked["state"]} if "state" in asked else {}
        if asked.get("response_type") != "code":
            back["error"] = "unsupported_response_type"
        elif not user or not user.isprintable():
            back["error"] = "login_required"
        else:
            back["code"] = self._new_code(asked["client_id"], redirect_uri, user)
        query = "&".join(filter(None, [target.query, urlencode(back)]))
        return RedirectResponse(urlunsplit(target._replace(query=query)), 302, headers=_NO_STORE)

    def _new_code(self, client_id: str, redirect_uri: str, user: str) -> str:
        now = time.monotonic()
        # A code that was used or has expired is known for one lifetime more.
        self._codes = {
            code: held for code, held in self._codes.items() if held.until + self._code_ttl > now
        }
        code = secrets.token_urlsafe(24)
        self._codes[code] = _Code(client_id, redirect_uri, user, now + self._code_ttl)
        return code

    async def _token(self, request: Request) -> Response:
        client_id, given = _basic(request.headers.get("authorization", ""))
        if client_id is None:
            return _error(401, "invalid_client", "HTTP Basic is required", authenticate="Basic")
        secret = self._clients.get(client_id)
        right = secret is not None and hmac.compare_digest(secret.encode(), given.encode())
        count = self._asked.setdefault(client_id, {"right": 0, "wrong": 0})
        count["right" if right else "wrong"] += 1
        if not right:
            return _error(401, "invalid_client", "", authenticate="Basic")
        body = await request.body()
        if len(body) > _LONGEST_BODY:
            return _error(400, "invalid_request", "the body is too long")
        form = parse_qs(body.decode("utf-8", "replace"))
        if any(len(values) > 1 for values in form.values()):
            return _error(400, "invalid_request", "a parameter is repeated")
        named = {name: values[0] for name, values in form.items()}
        if "grant_type" not in named or "code" not in named:
            return _error(400, "invalid_request", "grant_type and code are required")
        if named["grant_type"] != "authorization_code":
            return _error(400, "unsupported_grant_type", "")
        return self._granted(client_id, named["code"], named.get("redirect_uri", ""))

    def _granted(self, client_id: str, code: str, redirect_uri: str) -> Response:
        held = self._codes.get(code)
        if held is None or held.client_id != client_id:
            return _error(400, "invalid_grant", "no such code")
        if held.token:
            # Somebody else has seen it: section 4.1.2.
            self._tokens.pop(held.token, None)
            return _error(400, "invalid_grant", "the code was used before")
        now = time.monotonic()
        if held.until <= now:
            return _error(400, "invalid_grant", "the code has expired")
        if held.redirect_uri != redirect_uri:
            return _error(400, "invalid_grant", "the code was sent to another redirect_uri")
        held.token = secrets.token_urlsafe(24)
        self._tokens = {token: each for token, each in self._tokens.items() if each[1] > now}
        self._tokens[held.token] = (held.user, now + _TOKEN_TTL)
        answer = {
            "access_token": held.token,
            "token_type": "Bearer",
            "expires_in": int(_TOKEN_TTL),
            "scope": "openid",
        }
        return JSONResponse(answer, headers=_NO_STORE)

    async def _userinfo(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        user, until = self._tokens.get(token, ("", 0.0))
        if scheme.lower() != "bearer" or until <= time.monotonic():
            return _error(401, "invalid_token", "", authenticate="Bearer")
        return JSONResponse(
            {"sub": f"subject-of-{user}", "preferred_username": user}, headers=_NO_STORE
        )

    async def _tell_asked(self, _: Request) -> Response:
        return JSONResponse(self._asked)


def main(arguments: list[str]) -> int:
    """Serve until stopped; returns the exit code."""
    if arguments not in ([], ["--until-eof"]):
        sys.stderr.write("usage: python -m ssot.lab.provider [--until-eof]\n")
        return 2
    try:
        clients = msgspec.json.decode(
            os.environ.get("PROVIDER_CLIENTS", ""), type=dict[str, str], strict=True
        )
    except ValueError:
        # Not the reason: it may quote a secret.
        sys.stderr.write('PROVIDER_CLIENTS must be JSON: {"<client id>": "<secret>", …}\n')
        return 2
    provider = OAuthServer(clients, issuer=os.environ.get("PROVIDER_ISSUER", ""))
    asyncio.run(_serve(provider, until_eof=bool(arguments)))
    return 0


async def _serve(provider: OAuthServer, *, until_eof: bool) -> None:
    class Server(uvicorn.Server):
        # Signals are ours; uvicorn would raise them again when it is done.
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(
            uvicorn.Config(
                provider.app,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )

        def stop() -> None:
            server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        reading = None
        if until_eof:
            reader = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
            reading = asyncio.create_task(reader.read(), name="end of input")
            reading.add_done_callback(lambda _: stop())
        # The kernel takes connections from here on; they wait for the server.
        ready = {"ready": "provider", "address": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await server.serve(sockets=[listener])
        if reading is not None:
            reading.cancel()


def _basic(header: str) -> tuple[str | None, str]:
    """Client id and secret, decoded like a form (section 2.3.1); ``None`` without them."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None, ""
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None, ""
    return (unquote_plus(client_id), unquote_plus(secret)) if colon else (None, "")


def _error(status: int, error: str, description: str, *, authenticate: str = "") -> Response:
    body = {"error": error} | ({"error_description": description} if description else {})
    challenge = {"WWW-Authenticate": authenticate} if authenticate else {}
    return JSONResponse(body, status_code=status, headers=_NO_STORE | challenge)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

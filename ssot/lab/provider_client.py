"""The OAuth provider of a lab, as a check sees it: its address, its codes, what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx

from ssot.lab.processes import Process

__all__ = ["Provider"]

_TIMEOUT = 12.0


class Provider:
    """A provider that is up, in a process of its own.

    ``reach`` gives its address over the link of whoever asks, and ``secret`` is told each code.
    """

    def __init__(
        self,
        process: Process,
        reach: Callable[[str, str], str],
        secret: Callable[[str], None],
    ) -> None:
        self.process = process
        self._reach = reach
        self._secret = secret

    def __repr__(self) -> str:
        return f"<{self.process.name} at {self.address}>"

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self.process.address)

    def address_for(self, near: str) -> str:
        """The same over a link that can be broken, from a process such as ``auth b``."""
        return self._reach(self.process.name, near)

    async def code(self, user: str, client_id: str, redirect_uri: str) -> str:
        """A fresh code, as the browser of this user would be sent back with."""
        asked = {
            "response_type": "code",
            "login_hint": user,
            "client_id": client_id,
            "redirect_uri": redirect_uri,
        }
        async with self._http() as http:
            answer = await http.get("/authorize", params=asked)
        location = answer.headers.get("location", "")
        found = parse_qs(urlsplit(location).query).get("code", [])
        if not found:
            raise AssertionError(
                f"the provider gave no code: HTTP {answer.status_code} {answer.text[:200]}"
            )
        code = str(found[0])
        self._secret(code)
        return code

    async def asked(self) -> dict[str, dict[str, int]]:
        """How often each client has asked for a token, with its secret and without:

        ``{"<client id>": {"right": 1, "wrong": 0}}``; of no one else.
        """
        async with self._http() as http:
            found: dict[str, dict[str, int]] = (await http.get("/asked")).raise_for_status().json()
            return found

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.address, trust_env=False, timeout=_TIMEOUT)

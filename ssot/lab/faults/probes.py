"""Questions that a server or a process answers without a password: does it work again?"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Literal

__all__ = ["Kind", "ask", "health"]

Kind = Literal["postgresql", "redis", "http"]
"""What is spoken over a link."""

_HEALTH = b"GET /health HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


async def ask(kind: Kind, host: str, port: int) -> str:
    """What is wrong with whoever listens there, or nothing. Raises :class:`OSError` too.

    PostgreSQL and Redis say something to a stranger; a platform process answers ``/health``, here
    with whatever it finds.
    """
    questions: dict[Kind, tuple[bytes, tuple[bytes, ...]]] = {
        # It says whether it speaks TLS, with one letter.
        "postgresql": (_SSL_REQUEST, (b"N", b"S")),
        # PONG, or that a password is needed.
        "redis": (b"PING\r\n", (b"+", b"-NOAUTH")),
        "http": (_HEALTH, (b"HTTP/1.1 ",)),
    }
    question, answers = questions[kind]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(question)
        return await reader.read(100)

    answer = await _connected(host, port, talk)
    if answer.startswith(answers):
        return ""
    return f"{kind} hangs up" if not answer else f"{kind} answers {answer!r}"


async def health(host: str, port: int, parts: Collection[str]) -> str:
    """What ``/health`` of a platform process finds wrong in these parts of it, or nothing."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(_HEALTH)
        return await reader.read(-1)

    answer = await _connected(host, port, talk)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return "/health hangs up"
    try:
        found: dict[str, Any] = json.loads(body)
    except ValueError:
        return f"/health answers {head.splitlines()[0].decode(errors='replace')}"
    return "; ".join(
        f"/health says {part['name']} is {part['status']}: {part['reason']}"
        for part in found.get("parts", ())
        if part["name"] in parts and part["status"] != "ok"
    )


async def _connected(
    host: str,
    port: int,
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]],
) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await talk(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

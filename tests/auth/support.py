"""What the tests of OAuth share: a provider in a process of its own, and one that answers badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import parse_qs, urlsplit

import httpx

CALLBACK = "http://127.0.0.1:9/callback?kept=1"


@contextmanager
def provider_process(
    clients: Mapping[str, str], *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A provider that knows these clients, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ssot.lab.provider", *arguments],
        env={**os.environ, "PROVIDER_CLIENTS": json.dumps(clients)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["ready"] == "provider"
            yield process, ready["address"]
        finally:
            process.terminate()


async def code_of(http: httpx.AsyncClient, client: str, user: str, callback: str = CALLBACK) -> str:
    """The code that a browser of this user would carry back."""
    asked = {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": callback,
        "login_hint": user,
    }
    answer = await http.get("/authorize", params=asked)
    assert answer.status_code == 302, answer.text
    (code,) = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
    return code


@asynccontextmanager
async def answering(
    answers: Mapping[str, tuple[int, object]], seen: list[bytes] | None = None
) -> AsyncIterator[str]:
    """A server with one answer for each path, JSON or bytes; ``None`` for a path: it keeps silent.

    ``{issuer}`` in an answer is its own address.
    """
    silent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if seen is not None:
                seen.append(head)
            status, content = answers[head.split()[1].decode()]
            if content is None:
                await silent.wait()
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            body = body.replace(b"{issuer}", address.encode())
            writer.write(
                b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                % (status, len(body))
                + body
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    address = f"http://{host}:{port}"
    try:
        yield address
    finally:
        silent.set()
        server.close()
        await server.wait_closed()

"""The OAuth provider of a lab: a real process, whose codes and secrets are the lab's secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from ssot.lab.lab import Lab

BACK = "https://client.test/back"


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(
        "provider", parameters={"users": 2, "seed": 7, "services": "embedded", "latency_ms": 0}
    )
    try:
        await lab.open()
        yield lab
    finally:
        await lab.aclose()


async def test_a_code_is_exchanged_and_what_was_asked_is_told(lab: Lab) -> None:
    """Over a link of its own too; it ends with the check, and a refusal says why."""
    async with lab.check("LAB-10", "a provider"):
        provider = await lab.provider({"lab-client": "a-secret-of-the-lab"})
        code = await provider.code("alice", "lab-client", BACK)
        assert lab.redact(f"a-secret-of-the-lab, {code}") == "********, ********"
        asked = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK}
        near = provider.address_for("kernel")
        assert near != provider.address
        async with httpx.AsyncClient(base_url=near, trust_env=False) as http:
            wrong = await http.post("/token", data=asked, auth=("lab-client", "another"))
            right = await http.post(
                "/token", data=asked, auth=("lab-client", "a-secret-of-the-lab")
            )
        assert (wrong.status_code, right.status_code) == (401, 200)
        assert await provider.asked() == {"lab-client": {"right": 1, "wrong": 1}}
        with pytest.raises(AssertionError, match="the provider gave no code: HTTP 400"):
            await provider.code("alice", "nobody", BACK)
        async with (
            lab.link("kernel", "provider").cut(),
            httpx.AsyncClient(base_url=near, trust_env=False) as http,
        ):
            with pytest.raises(httpx.TransportError):
                await http.get("/asked")
        async with lab.faults.frozen("provider"):
            pass
        async with lab.faults.killed("provider"):
            pass
        assert await provider.asked() == {}
    assert not provider.process.running

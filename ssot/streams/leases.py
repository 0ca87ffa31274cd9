"""Leases: at most one holder at a time, and a fencing token that tells the newest holder."""

from __future__ import annotations

from dataclasses import dataclass

from ssot.streams.client import RedisClient
from ssot.tracing import Spans

__all__ = ["Lease", "Leases"]

_spans = Spans("streams")

# The fence outlives the lease: an expired holder whom nobody replaced may still write, one who was
# replaced may not. A token is never below the server's clock, so that a server which lost its
# newest writes does not issue one of them again.
_FENCE_DAYS = 7

_ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return '0' end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local newest = tonumber(redis.call('GET', KEYS[2])) or 0
local token = string.format('%.0f', math.max(newest + 1, now))
redis.call('SET', KEYS[2], token, 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return token
"""

_RENEW = """
local fence = redis.call('GET', KEYS[2])
if fence and tonumber(fence) > tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('GET', KEYS[2]) == ARGV[2] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted lease. ``token`` is higher than that of every earlier holder of ``name``."""

    name: str
    holder: str
    token: int


class Leases:
    """Leases of ``ttl`` seconds, kept in Redis under the server's clock."""

    def __init__(self, client: RedisClient, *, ttl: float) -> None:
        self._client = client
        self.ttl = ttl
        self._acquire = client.redis.register_script(_ACQUIRE)
        self._renew = client.redis.register_script(_RENEW)
        self._release = client.redis.register_script(_RELEASE)

    async def acquire(self, name: str, holder: str) -> Lease | None:
        """Take the lease, or ``None`` while somebody else holds it. Waits through a restart.

        Taking it again as the same holder is granted, under a higher token.
        """
        args: list[str | int] = [holder, self._milliseconds, _FENCE_DAYS * 86_400_000]
        with _spans.span("streams.lease", server="redis", lease=name) as span:
            token = int(
                await self._client.call(lambda _: self._acquire(keys=self._keys(name), args=args))
            )
            span.set_attribute("ssot.granted", bool(token))
        return Lease(name, holder, token) if token else None

    async def renew(self, lease: Lease) -> bool:
        """Prolong the lease by ``ttl``; ``False`` when a later holder has taken it."""
        args: list[str | int] = [
            lease.holder,
            self._milliseconds,
            lease.token,
            _FENCE_DAYS * 86_400_000,
        ]
        renewed = await self._client.call(
            lambda _: self._renew(keys=self._keys(lease.name), args=args)
        )
        return bool(renewed)

    async def release(self, lease: Lease) -> None:
        """Give the lease back, if it is still ours."""
        args: list[str | int] = [lease.holder, lease.token]
        await self._client.call(lambda _: self._release(keys=self._keys(lease.name), args=args))

    @property
    def _milliseconds(self) -> int:
        return max(int(self.ttl * 1000), 1)

    def _keys(self, name: str) -> list[str]:
        return [self._client.key("lease", name), self._client.key("fence", name)]

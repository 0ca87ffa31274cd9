"""Ports that a killed server can come back to."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from ssot.lab.services.errors import ServiceError

__all__ = ["ReservedPort", "is_free", "pick_port"]

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 100


class ReservedPort:
    """A port for a server that comes later: whoever else looks for one meanwhile gets another.

    The server itself listens as always, with ``SO_REUSEADDR``; so does the next one when it ended.
    """

    def __init__(self) -> None:
        for _ in range(_TRIES):
            self.number = pick_port()
            # Bound and never listening: it keeps off those who probe, and no one who listens.
            self._keeper = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._keeper.bind(("127.0.0.1", self.number))
            except OSError:
                self._keeper.close()
                continue
            return
        raise ServiceError(f"each of {_TRIES} ports that were free was taken a moment later")

    def close(self) -> None:
        """Give it up. A server that listens there goes on."""
        self._keeper.close()


def is_free(port: int) -> bool:
    """Whether nobody listens on 127.0.0.1:``port`` now, or has reserved it.

    A port with connections that ended a moment ago is not free either.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pick_port() -> int:
    """A port that is free now and that the kernel gives to nobody's outgoing connection.

    A port of the ephemeral range could be taken by any client while its server is down.
    """
    first, last = _range()
    # Not from the seeded generator of a run: two runs with one seed would meet.
    draw = random.SystemRandom()
    for _ in range(_TRIES):
        port = draw.randint(first, last)
        if is_free(port):
            return port
    raise ServiceError(f"no free port was found between {first} and {last} in {_TRIES} tries")


def _range() -> tuple[int, int]:
    """20000 to 32000, or what the kernel's ephemeral range leaves of the lower ports."""
    try:
        low, high = (int(part) for part in _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        return 20000, 32000
    if low > 32000 or high < 20000:
        return 20000, 32000
    if low > 11000:
        return 10000, low - 1
    return (high + 1, 65535) if high < 60000 else (20000, 32000)

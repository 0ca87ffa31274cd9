"""Ports: one that was given to a server that is not there yet is not given to anybody else."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from ssot.lab.services.ports import ReservedPort, is_free, pick_port

_PROBE = "import sys; from ssot.lab.services.ports import is_free; print(is_free(int(sys.argv[1])))"


def seen_as_free_elsewhere(port: int) -> bool:
    """What another process, with a lab of its own, would say of it."""
    command = [sys.executable, "-c", _PROBE, str(port)]
    return subprocess.run(command, check=True, capture_output=True).stdout.strip() == b"True"


def test_a_port_that_was_picked_is_free() -> None:
    port = pick_port()
    assert is_free(port)
    assert seen_as_free_elsewhere(port)


async def test_a_reserved_port_is_for_its_server_alone() -> None:
    """Servers come and go there, listening as always; nobody who looks for a port is given it."""
    reserved = ReservedPort()
    try:
        assert not is_free(reserved.number)
        assert not seen_as_free_elsewhere(reserved.number)
        for _ in range(2):
            server = await asyncio.start_server(lambda *_: None, "127.0.0.1", reserved.number)
            server.close()
            await server.wait_closed()
            assert not is_free(reserved.number)
    finally:
        reserved.close()
    assert is_free(reserved.number)


def test_reserved_ports_differ() -> None:
    reserved = [ReservedPort() for _ in range(50)]
    try:
        assert len({port.number for port in reserved}) == 50
    finally:
        for port in reserved:
            port.close()

"""``ssot up``: servers for processes that are started by hand."""

from __future__ import annotations

import shlex
import sys
import threading
from typing import Annotated, Any

import typer

from ssot.cli.exits import give_up
from ssot.cli.signals import stop_on_signals

__all__ = ["up"]


def up(
    services: Annotated[
        str, typer.Option(help="embedded, compose or url; see the parameters of a notebook.")
    ] = "embedded",
) -> None:
    """Bring up the servers alone, for processes that are started by hand.

    Prints the command for each process; Ctrl-C stops the servers and removes everything.
    """
    from typing import cast

    from ssot.errors import SsotError

    with stop_on_signals() as (stop, _):
        try:
            _up(cast("Any", services), stop)
        except SsotError as error:
            give_up((str(error),))


def _up(services: Any, stop: threading.Event) -> None:
    import asyncio
    from time import perf_counter

    from ssot.lab.up import up as bring_up
    from ssot.platform import ROLES

    began = perf_counter()

    async def serve() -> None:
        async with bring_up(services) as folder:
            print(f"PostgreSQL and Redis are up after {perf_counter() - began:.2f} s.", flush=True)
            print("The platform, one process a terminal:", flush=True)
            for role in ROLES:
                file = shlex.quote(str(folder / f"{role}.env"))
                print(f"  env $(cat {file}) {sys.executable} -m ssot.serve {role}", flush=True)
            print("Ctrl-C stops the servers and removes everything.", flush=True)
            await asyncio.to_thread(stop.wait)

    asyncio.run(serve())

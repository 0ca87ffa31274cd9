"""``ssot explore``: a failed check, alive in JupyterLab."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from ssot.cli.exits import give_up
from ssot.cli.places import OUTPUTS
from ssot.cli.signals import stop_on_signals

__all__ = ["explore"]


def explore(
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUTPUT]",
            help="An executed notebook, or the folder of a run; outputs/latest if none is given.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Argument(
            metavar="[CHECK]",
            help="A check, like GP-08; the first that did not pass if none is given.",
            show_default=False,
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it in a browser, or only tell.")
    ] = True,
) -> None:
    """Open a failed check in JupyterLab, replayed, with everything it left behind alive.

    Ctrl-C ends it, and so do JupyterLab's own Shut Down and an hour without a browser; then all is
    gone but the notebook in explore/. Exit code: 0, or 2 when there is nothing to explore, 130 or
    143 when interrupted before the failure was there.
    """
    from ssot.errors import SsotError
    from ssot.lab.notebook import CannotRun
    from ssot.lab.progress import Stopped

    with stop_on_signals() as (stop, received):
        try:
            _explore(output, check, stop, browser=browser)
        except CannotRun as error:
            give_up(error.problems)
        except Stopped:
            raise typer.Exit(128 + received[0]) from None
        except SsotError as error:
            give_up((str(error),))


def _explore(
    output: Path | None, check: str | None, stop: threading.Event, *, browser: bool
) -> None:
    import asyncio

    from ssot.lab import explore as exploring

    def tell(text: str) -> None:
        print(text, flush=True)

    async def serve() -> None:
        async with exploring.explore(
            output, check, outputs=OUTPUTS, tell=tell, stop=stop
        ) as exploration:
            tell(f"{exploration.focus.name} {exploration.outcome}")
            if exploration.replayed and exploration.outcome != "reproduced":
                tell(f"  {exploration.replayed}")
            tell(f"the copy: {exploration.notebook}\n{exploration.url}")
            opened = browser and exploring.open_browser(exploration.url)
            tell(f"{'' if opened else 'Open that address in a browser. '}Ctrl-C ends it.")
            tell(f"{await exploration.ended()}; removing everything but the copy")

    asyncio.run(serve())

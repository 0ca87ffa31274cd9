"""The command ``ssot``: the only place that prints and exits."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssot.lab.runner import CheckResult, Event, NotebookResult, Run

__all__ = ["app", "main"]

_NOTEBOOKS = Path("notebooks")
_OUTPUTS = Path("outputs")
_FAILED, _COULD_NOT_RUN = 1, 2
_STYLES = {"PASS": "green", "UNKNOWN": "yellow", "FAIL": "bold red"}

app = typer.Typer(
    help="Prove what must hold where two single sources of truth meet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Notebooks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NOTEBOOK]...",
        help="Paths, names or numbers, like 00; all of notebooks/ if none is given.",
        show_default=False,
    ),
]


def main() -> None:
    """Run the command line."""
    app()


@app.callback(invoke_without_command=True)
def _ssot(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"ssot-interplay {installed('ssot-interplay')}")
        raise typer.Exit


class _WithPairs(TyperCommand):
    """Gives ``-p`` two values, which typer cannot: it reads the pair as one, ``NAME=VALUE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = iter(args)
        joined: list[str] = []
        for arg in rest:
            joined.append(arg)
            if arg == "--":
                break
            if arg in ("-p", "--parameter"):
                pair = [next(rest, None), next(rest, None)]
                if None in pair or not str(pair[0]).isidentifier():
                    ctx.fail("-p takes a name and a value, like: -p users 8")
                joined.append("=".join(map(str, pair)))
        return super().parse_args(ctx, [*joined, *rest])


@app.command(cls=_WithPairs)
def run(
    notebooks: _Notebooks = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="A parameter; repeatable."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Notebooks at a time.", show_default="one a processor"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Just this check, after setup; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same as -p seed SEED.")] = None,
) -> None:
    """Run notebooks and tell the verdict of every check.

    Exit code: 0 all passed, 1 a check failed or is unknown, 2 it could not be run, 130 or 143
    interrupted. What had finished is in outputs/latest in any case.
    """
    from ssot.lab import runner
    from ssot.lab.notebook import CannotRun, Verdict, find

    parameters: dict[str, object] = {}
    for pair in parameter or []:
        name, _, text = pair.partition("=")
        parameters[name] = _value(text)
    if seed is not None:
        parameters["seed"] = seed
    with _stop_on_signals() as (stop, received):
        try:
            paths = find(notebooks or [], _NOTEBOOKS)
            with _display() as show:
                result = runner.run(
                    paths,
                    parameters=parameters,
                    outputs=_OUTPUTS,
                    jobs=jobs or len(os.sched_getaffinity(0)),
                    only=[name.upper() for name in only or []],
                    on_event=show,
                    stop=stop,
                )
        except CannotRun as error:
            _give_up(error.problems)
    _summarise(result, parameters)
    if received:
        raise typer.Exit(128 + received[0])
    raise typer.Exit(0 if result.verdict is Verdict.PASS else _FAILED)


@app.command()
def author(
    notebooks: _Notebooks = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if it would change a file.")
    ] = False,
) -> None:
    """Run notebooks and commit their outputs to their files, the same bytes every time.

    Exit code: 0 done, 1 a check did not pass or an output is not fit to be committed (nothing was
    written), 2 it could not be run.
    """
    from ssot.lab import author as authoring
    from ssot.lab.notebook import CannotRun, find
    from ssot.lab.progress import Stopped

    failed = False
    with _stop_on_signals() as (stop, received):
        try:
            for path in find(notebooks or [], _NOTEBOOKS):
                authored = authoring.author(path, check=check, stop=stop)
                for problem in authored.problems:
                    print(f"{path}: {problem}", flush=True)
                if authored.problems:
                    told = "not written"
                elif authored.changed:
                    told = "would change; run: ssot author" if check else "written"
                else:
                    told = "unchanged"
                failed |= bool(authored.problems) or (check and authored.changed)
                print(f"{path}: {told}", flush=True)
        except CannotRun as error:
            _give_up(error.problems)
        except Stopped:
            raise typer.Exit(128 + received[0]) from None
    raise typer.Exit(_FAILED if failed else 0)


@app.command()
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

    with _stop_on_signals() as (stop, _):
        try:
            _up(cast("Any", services), stop)
        except SsotError as error:
            _give_up((str(error),))


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


def _value(text: str) -> object:
    """Read a value of the command line as papermill does, with YAML's true, false and null."""
    match text:
        case "true" | "True":
            return True
        case "false" | "False":
            return False
        case "null" | "None":
            return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _give_up(problems: tuple[str, ...]) -> NoReturn:
    for problem in problems:
        print(f"ssot: {problem}", file=sys.stderr)
    raise typer.Exit(_COULD_NOT_RUN)


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """Turn SIGINT and SIGTERM into a request to stop; a second one ends the process at once."""
    stop = threading.Event()
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if received:
            os._exit(128 + received[0])
        received.append(number)
        stop.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# What is shown of a run


def _line(result: CheckResult) -> str:
    return f"{result.check.id} {result.verdict.name} {result.check.title} {result.seconds:.1f} s"


def _told(event: Event) -> list[tuple[str, str]]:
    """Return what there is to say of an event, in lines, each with its style."""
    if event.begun:
        return []
    if event.check is None:
        notebook = event.notebook
        if not notebook.error:
            return []
        left = sum(1 for each in notebook.checks.values() if each.message.startswith("it was not"))
        told = f"{notebook.name}: {notebook.error}\n  {left} checks were not run"
        return [(told, _STYLES["FAIL"])]
    style = _STYLES[event.check.verdict.name]
    return [
        (_line(event.check), style),
        *((f"  {line}", "") for line in event.check.message.splitlines()),
    ]


@contextlib.contextmanager
def _display() -> Generator[Callable[[Event], None]]:
    """Yield what shows an event: a line for each check, in a terminal above a live table."""
    if not sys.stdout.isatty():

        def show_plainly(event: Event) -> None:
            for line, _ in _told(event):
                print(line, flush=True)

        yield show_plainly
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    running: dict[str, tuple[NotebookResult, str]] = {}
    console = Console()
    with Live(console=console, transient=True, refresh_per_second=8) as live:

        def show(event: Event) -> None:
            for line, style in _told(event):
                console.print(Text(line, style=style), soft_wrap=True)
            now = event.check.check.id if event.begun and event.check else ""
            if event.check is None:
                running.pop(event.notebook.name, None)
            else:
                running[event.notebook.name] = (event.notebook, now)
            live.update(_table([*running.values()]))

        yield show


def _table(running: list[tuple[NotebookResult, str]]) -> Any:
    from rich.table import Table

    table = Table("notebook", "running", "done", box=None)
    for notebook, now in running:
        done = sum(1 for each in notebook.checks.values() if each.seconds)
        table.add_row(notebook.name, now, f"{done} of {len(notebook.checks)}")
    return table


def _summarise(result: Run, parameters: Mapping[str, object]) -> None:
    counts = result.counts
    print()
    for notebook in result.notebooks:
        wrong = [each.check.id for each in notebook.checks.values() if each.verdict]
        if wrong:
            print(f"{notebook.name}: {', '.join(wrong)} did not pass; to run just that again:")
            print(f"  {_again(notebook, wrong[0], parameters)}")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), end="")
    print(f" of {sum(counts.values())} checks{', stopped' if result.stopped else ''}")
    folder = result.folder
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    print(f"outputs: {folder}", flush=True)


def _again(notebook: NotebookResult, check_id: str, parameters: Mapping[str, object]) -> str:
    path = notebook.notebook.path
    usual = path.parent == _NOTEBOOKS.absolute()
    words = ["ssot", "run", path.stem if usual else str(path), "--only", check_id]
    for name in notebook.parameters:
        words += ["-p", name, str(parameters[name])]
    return shlex.join(words)

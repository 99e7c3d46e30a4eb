"""`penstock bench`: measures penstock on this machine."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..errors import UsageError
from .logs import configure
from .quiet import load_tensorflow

if TYPE_CHECKING:
    from types import TracebackType

    from ..bench.harness import Case, Settings

#: The modules of penstock.bench that have a CASE; loaded when asked for.
CASES = ("recovery", "checkpoint", "journal")
_FILE_COLUMNS = 140


_Case = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help=f"What to measure: {', '.join(CASES)}. May be repeated."),
]
_Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object with every single figure.")
]
_Repeat = Annotated[int | None, typer.Option(min=1, help="Rounds; by default what the case needs.")]
_Quick = Annotated[
    bool, typer.Option("--quick", help="Less data and one round: rough figures, soon.")
]
_Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Measure only what has such a name: jpeg/standby, or jpeg/* for all of them. May "
        "be repeated.",
    ),
]
_WorkerTimeout = Annotated[
    float, typer.Option(min=0.1, help="Seconds of silence after which a worker is dead.")
]
_Directory = Annotated[
    Path | None,
    typer.Option(help="Where data, journals and checkpoints are written, and removed again."),
]


def bench(
    case: _Case = None,
    json: _Json = False,
    repeat: _Repeat = None,
    quick: _Quick = False,
    only: _Only = None,
    worker_timeout: _WorkerTimeout = 5.0,
    directory: _Directory = None,
) -> None:
    """Measures penstock on this machine, with real processes and real kill -9.

    [bold]recovery[/bold]: one consumer reads as fast as it can while a worker, the dispatcher, or
    everything is killed. The outage is the longest time between two deliveries that follow each
    other, of which the second came after the kill; nothing is subtracted from it. Detection
    (until the dispatcher counts the worker as lost) and the start of processes are shown apart.

    [bold]checkpoint[/bold]: the time of an epoch with checkpoints every second, every 5 seconds
    and auto, against none; in turns.

    [bold]journal[/bold]: durable appends a second, and how fast a journal is recovered.

        penstock bench --case recovery --only jpeg/standby --only 'cheap/*'

    Figures are medians over the rounds, with the least and the most below. A benchmark does not
    pass or fail; but what was delivered is compared with a plain local run, and it exits with 5
    if that is not the same.
    """
    chosen = [_load(name) for name in _known(case or [])]
    from ..bench.harness import Settings

    configure("error", "human")  # that a consumer waits is what is measured, and no news
    # Rich takes 80 columns for what is not a terminal; a file has room for the whole table.
    console = Console(stderr=json)
    if not console.is_terminal:
        console = Console(stderr=json, width=_FILE_COLUMNS)
    documents = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=_checked(directory)) as scratch:
        for one in chosen:
            settings = Settings(
                directory=Path(scratch) / one.name,
                quick=quick,
                worker_timeout_s=worker_timeout,
                only=tuple(only or ()),
            )
            documents.append(_run(one, settings, repeat or (1 if quick else one.repeat), console))
    if json:
        typer.echo(jsonlib.dumps({"cases": documents}))


def _known(names: list[str]) -> list[str]:
    known = ", ".join(CASES)
    if not names:
        raise UsageError(f"--case is missing; there are {known}")
    for name in names:
        if name not in CASES:
            raise UsageError(f"--case {name!r} is not known; there are {known}")
    return list(dict.fromkeys(names))


def _checked(directory: Path | None) -> Path | None:
    if directory is not None and not directory.is_dir():
        raise UsageError(f"--directory {directory} is not a directory")
    return directory


def _load(name: str) -> Case:
    from importlib import import_module

    if name != "journal":  # which is measured without it
        load_tensorflow()
    case: Case = import_module(f"..bench.{name}", __package__).CASE
    return case


def _run(case: Case, settings: Settings, repeat: int, console: Console) -> dict[str, Any]:
    """Runs one case, shows its table, and returns its document."""
    from ..bench.harness import Environment, document, run_case
    from ..bench.report import circumstances, glossary, table

    before = Environment.now()
    settings.directory.mkdir()
    with _Screen(console) as screen:
        results = run_case(case, settings, repeat, screen)
    load_after = round(os.getloadavg()[0], 2)
    console.print(table(case, results))
    for line in [*glossary(case, results), circumstances(before, load_after)]:
        console.print(line, style="dim", highlight=False)
    return document(
        case,
        results,
        environment=dataclasses.asdict(before),
        load_1min_after=load_after,
        repeat=repeat,
        quick=settings.quick,
        worker_timeout_s=settings.worker_timeout_s,
    )


class _Screen:
    """Shows how far a benchmark is: a bar on a terminal, and lines everywhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def said(self, text: str) -> None:
        """Prints a line."""
        since_s = time.monotonic() - self._began_s
        self._console.print(f"[yellow]{since_s:7.1f} s[/yellow] {escape(text)}", highlight=False)

    def step(self, what: str, done: float, total: float) -> None:
        """Moves the bar."""
        if self._task is None:
            self._task = self._progress.add_task(what, total=total)
        self._progress.update(self._task, description=what, completed=done, total=total)

    def __enter__(self) -> _Screen:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

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
MODULES = (
    "recovery",
    "checkpoint",
    "journal",
    "control",
    "cache",
    "shuffle",
    "diagnose",
    "insitu",
    "scaling",
)
#: The cases of penstock.bench.speed.
SPEED = ("scalars", "vectors", "images", "batches", "jpeg", "strings", "ragged", "tfrecord-raw")
CASES = (*MODULES[:-1], *SPEED, MODULES[-1])
#: Measured without TensorFlow, or in other processes.
_WITHOUT_TENSORFLOW = ("journal", "control", "diagnose", "scaling", *SPEED)
_FILE_COLUMNS = 200


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
        "be repeated. Cases of speed leave most of their combinations out without it.",
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
    [bold]control[/bold]: what a dispatcher can do for 10, 100 and 1,000 simulated workers.

    [bold]cache[/bold]: epochs computed, put into the workers' cache and got from it, beside a raw
    sendfile and TensorFlow's own caches. [bold]shuffle[/bold]: how well an epoch is mixed, and what
    a training makes of it. [bold]diagnose[/bold]: megabytes of log that a diagnosis reads in a
    second. [bold]insitu[/bold]: what a guarded training step costs, and a recovery in place beside
    a restart. [bold]scalars[/bold], [bold]vectors[/bold], [bold]images[/bold],
    [bold]batches[/bold], [bold]jpeg[/bold], [bold]strings[/bold], [bold]ragged[/bold],
    [bold]tfrecord-raw[/bold]: how fast a pipeline of such elements is read through stock tf.data
    service, through penstock and without either, side by side, each in four ways (eager, batched,
    numpy, reduce). Names are penstock/unix/batched/w1, stock/tcp/eager/w4, penstock/tcp/numpy/w2/c4
    (four clients), local/reduce; --only chooses among all of them. [bold]scaling[/bold]: an input
    that only waits, on 1 to 16 workers.

        penstock bench --case recovery --only jpeg/standby --only 'cheap/*'
        penstock bench --case images --only 'penstock/unix/*/w2' --only 'stock/tcp/*/w2'

    Figures are medians over the rounds, with the least and the most below. A benchmark does not
    pass or fail, and what a contestant cannot do is shown as such; but what penstock delivered is
    compared with a plain local run, and it exits with 5 if that is not the same.
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

    if name not in _WITHOUT_TENSORFLOW:
        load_tensorflow()
    if name in SPEED:
        made: Case = import_module("..bench.speed", __package__).case_of(name)
        return made
    case: Case = import_module(f"..bench.{name}", __package__).CASE
    return case


def _run(case: Case, settings: Settings, repeat: int, console: Console) -> dict[str, Any]:
    """Runs one case, shows its table, and returns its document."""
    from ..bench.harness import Environment, document, run_case
    from ..bench.report import circumstances, failures, glossary, table, verdicts
    from ..bench.targets import judge

    before = Environment.now()
    settings.directory.mkdir()
    with _Screen(console) as screen:
        results = run_case(case, settings, repeat, screen)
    load_after = round(os.getloadavg()[0], 2)
    console.print(table(case, results))
    if case.targets:
        console.print(verdicts(judge(case.targets, results)))
    for line in [*failures(results), *glossary(case, results), circumstances(before, load_after)]:
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

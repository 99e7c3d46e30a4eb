"""`penstock soak`: a real cluster under random faults, every epoch checked against ground truth."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import UsageError
from .quiet import load_tensorflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..soak.result import Observer, SoakOptions, SoakResult

_PLAIN_EVERY_S = 10.0
_COLUMNS = (
    *("epochs", "reread", "broken_off", "elements"),
    *("lost", "duplicated", "altered", "misplaced"),
)

_Seconds = Annotated[float, typer.Option(min=5.0, help="How long faults are injected.")]
_Seed = Annotated[
    int,
    typer.Option(min=0, help="Decides the faults, their moments and victims, and what is read."),
]
_Workers = Annotated[int, typer.Option(min=1, help="Workers to start with.")]
_Standbys = Annotated[int, typer.Option(min=0, help="Standby workers to start with.")]
_Trainers = Annotated[int, typer.Option(min=1, help="Trainers that read at the same time.")]
_WorkerTimeout = Annotated[
    float,
    typer.Option(
        min=0.5,
        help="The dispatchers' --worker-timeout, in seconds; pauses are shorter and longer. On a "
        "machine with more to do than it can, a short one makes live workers look dead.",
    ),
]
_Patience = Annotated[
    float,
    typer.Option(
        min=10.0,
        help="Seconds after which an epoch that stands still has failed; also the time that the "
        "last epochs have when the faults are over.",
    ),
]
_Directory = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="An empty or new directory for data, journal, checkpoints and logs; it is kept. "
        "By default a temporary one, kept only if something is wrong.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")]


def soak(
    seconds: _Seconds = 120.0,
    seed: _Seed = 0,
    workers: _Workers = 3,
    standbys: _Standbys = 1,
    trainers: _Trainers = 2,
    worker_timeout: _WorkerTimeout = 5.0,
    patience: _Patience = 120.0,
    directory: _Directory = "",
    json: _Json = False,
) -> None:
    """Runs a real cluster under random faults, and checks every epoch against a plain local run.

    Dispatcher, standby dispatcher, workers and trainers are processes on this machine. They are
    killed (kill -9), paused (SIGSTOP, for less and for more than the timeouts), stopped (SIGTERM),
    restarted at their address or replaced, one at a time and all together, and new workers join.
    Meanwhile the trainers read pipelines of many kinds: numbers, shuffles, filters, strings of
    varying length, records, JPEG images, flat_map and interleave.

    Each epoch must hold exactly the elements of a plain tf.data run (nothing lost, duplicated or
    altered), and each time it is read again, beside other faults, have the same order. An epoch
    that stands still, a process that ends by itself and an error that nothing explains are
    failures, too. The first failure ends the run with exit code 1; status, logs and seed are
    shown, and the directory is kept. The same seed gives the same faults in the same order; a
    machine that is slow to start workers gets them later.

        penstock soak --seconds 3600 --seed 7
    """
    place, temporary = _place(directory)
    load_tensorflow()
    from ..soak.result import SoakOptions
    from ..soak.run import Soak

    options = SoakOptions(
        seconds=seconds,
        seed=seed,
        workers=workers,
        standbys=standbys,
        trainers=trainers,
        directory=place,
        worker_timeout_s=worker_timeout,
        patience_s=patience,
    )
    console = Console(stderr=json, highlight=False)
    console.print(f"seed {seed}, {seconds:g} s, everything is in {place}")
    result = _run(Soak, options, console)
    _report(result, options, console, json=json)
    if temporary and result.exact:
        shutil.rmtree(place, ignore_errors=True)
    if not result.exact:
        raise typer.Exit(1)
    if result.interrupted:
        raise typer.Exit(130)


def _place(directory: str) -> tuple[Path, bool]:
    """The directory to use, and whether it is a temporary one."""
    if not directory:
        return Path(tempfile.mkdtemp(prefix="penstock-soak-")), True
    place = Path(directory)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"--directory must be an empty directory or a new one, not {directory!r}")
    place.mkdir(parents=True, exist_ok=True)
    return place.resolve(), False


def _run(make: Callable[..., Any], options: SoakOptions, console: Console) -> SoakResult:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} s"),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    soak_ = make(options, _observer(progress, console, options.seconds))
    result: SoakResult = soak_.result
    try:
        with progress:
            soak_.run()
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def _observer(progress: Progress, console: Console, seconds: float) -> Observer:
    """A bar and lines above it on a terminal, lines only elsewhere."""
    from ..soak.result import Observer

    bar = progress.add_task("soak", total=seconds, text="")
    last_s = time.monotonic()

    def said(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    def looked(gone_s: float, result: SoakResult, cluster: str) -> None:
        nonlocal last_s
        text = f"{result.epochs} epochs, {result.faults.total()} faults, {cluster}"
        progress.update(bar, completed=min(gone_s, seconds), text=text)
        if not console.is_terminal and time.monotonic() - last_s >= _PLAIN_EVERY_S:
            last_s = time.monotonic()
            said(f"{gone_s:7.1f} s  {text}, {result.elements:,} elements checked")

    return Observer(said=said, looked=looked)


def _report(result: SoakResult, options: SoakOptions, console: Console, *, json: bool) -> None:
    if json:
        typer.echo(jsonlib.dumps(as_json(result, options.directory)))
    else:
        console.print(_fault_table(result))
        console.print(_element_table(result))
        console.print(_summary(result), markup=False, soft_wrap=True)
    for problem in result.problems:
        console.print(f"FAILED: {problem}", style="red", markup=False, soft_wrap=True)
    if result.problems:
        console.print(result.evidence, markup=False, soft_wrap=True)
        console.print(
            f"seed {result.seed}; run it again with: penstock soak{_arguments(options)}; journal "
            f"and logs are kept in {options.directory}",
            soft_wrap=True,
        )


def _arguments(options: SoakOptions) -> str:
    """The options that decide what happens."""
    return (
        f" --seconds {options.seconds:g} --seed {options.seed}"
        f" --workers {options.workers} --standbys {options.standbys}"
        f" --trainers {options.trainers} --worker-timeout {options.worker_timeout_s:g}"
    )


def as_json(result: SoakResult, directory: Path) -> dict[str, Any]:
    """The result as the object that docs/operations.md describes."""
    return {
        "seed": result.seed,
        "seconds": round(result.seconds, 1),
        "exact": result.exact,
        "interrupted": result.interrupted,
        "faults": dict(sorted(result.faults.items())),
        "pipelines": {name: dataclasses.asdict(t) for name, t in result.pipelines.items()},
        "outages": [
            {"seconds": round(o.seconds, 2), "at_s": round(o.begin_s, 1), "cause": o.cause}
            for o in result.outages
        ],
        "recomputed_elements": result.recomputed_elements,
        "restored_attempts": result.restored_attempts,
        "refused_trainers": result.refused_trainers,
        "problems": result.problems,
        "directory": str(directory) if result.problems else None,
    }


def _fault_table(result: SoakResult) -> Table:
    table = Table(title=f"Faults injected in {result.seconds:.0f} s")
    table.add_column("fault")
    table.add_column("times", justify="right")
    for kind, times in sorted(result.faults.items()):
        table.add_row(kind, str(times))
    table.add_section()
    table.add_row("all", str(result.faults.total()))
    return table


def _element_table(result: SoakResult) -> Table:
    title = "Against a plain local run, and against other readings of the same epoch"
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("pipeline", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column.replace("_", " "), justify="right")
    sums = dict.fromkeys(_COLUMNS, 0)
    for name, tally in result.pipelines.items():
        values = dataclasses.asdict(tally)
        table.add_row(
            name, *(f"{values[c]:,}" for c in _COLUMNS), style=None if tally.exact else "red"
        )
        sums = {column: sums[column] + values[column] for column in _COLUMNS}
    table.add_section()
    table.add_row("all", *(f"{sums[column]:,}" for column in _COLUMNS))
    return table


def _summary(result: SoakResult) -> str:
    longest = "none of half a second or more"
    if result.outages:
        outage = result.outages[0]
        longest = f"{outage.seconds:.1f} s, {outage.begin_s:.0f} s after the start: {outage.cause}"
    state = "interrupted; what was checked is exact" if result.interrupted else "all exact"
    return (
        f"longest outage: {longest}\n"
        f"{result.recomputed_elements:,} elements made again, {result.restored_attempts} attempts "
        f"restored from checkpoints, {result.refused_trainers} trainers refused after a long pause"
        f"\nseed {result.seed}: {state if result.exact else 'NOT exact'}"
    )

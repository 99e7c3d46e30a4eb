"""`penstock faults`: the functional fault tests, each on a fresh cluster of real processes."""

from __future__ import annotations

import contextlib
import json as jsonlib
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..errors import UsageError
from .logs import configure
from .quiet import load_tensorflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..faults.catalog import FaultTest
    from ..faults.result import TestResult
    from ..faults.run import Observer, Options

_Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Which tests; by default all.")
]
_Repeat = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Run each test so many times, with its fault at a moment of the epoch that is drawn "
        "from the seed; by default once, at a fixed moment.",
    ),
]
_Seed = Annotated[int, typer.Option(min=0, help="Decides the moments, and the order of the data.")]
_Directory = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="An empty or new directory for data, journals, checkpoints and logs; it is kept. "
        "By default a temporary one, of which only what belongs to failed tests is kept.",
    ),
]
_WorkerTimeout = Annotated[
    float, typer.Option(min=0.5, help="Seconds of silence after which a worker is dead.")
]
_Patience = Annotated[
    float, typer.Option(min=5.0, help="Seconds after which whatever is waited for has failed.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON array instead of the lines.")]
_List = Annotated[bool, typer.Option("--list", help="Print the names of the tests, and end.")]


def faults(
    name: _Names = None,
    repeat: _Repeat = None,
    seed: _Seed = 0,
    directory: _Directory = "",
    worker_timeout: _WorkerTimeout = 5.0,
    patience: _Patience = 120.0,
    json: _Json = False,
    list_: _List = False,
) -> None:
    """Tests with real processes and real kill -9 that no fault changes what a trainer reads.

    Each test starts a fresh cluster on this machine, and a trainer reads three epochs of an
    ImageNet-like pipeline: TFRecord files of JPEG pictures with labels, shuffled, decoded, cropped
    and flipped on the workers, in batches of 192. In the second epoch something is killed or
    paused. Every element, image and label, must be one of a plain tf.data run, exactly once in each
    epoch, in the order of a reading without faults, and in the batches of a local run. Beyond that
    each test checks what is its own: that the standby took over, that no more was made again than
    must be. `--list` says what there is.

        penstock faults recover killall --repeat 5 --seed 1

    A line tells of each test: whether it went well, how long it took, the outage (the longest time
    between two batches in the epoch of the fault, the second of them after the fault) and how many
    elements were made again although the trainer had them. Exit code 1 if one failed; what went
    wrong is told, and its journal, checkpoints and logs are kept.
    """
    if list_:
        _list()
        return
    tests = chosen(name or [])
    place, temporary = place_of(directory)
    configure("error", "human")  # what a cluster says of its faults is in its logs
    load_tensorflow()
    from ..faults.run import Options

    options = Options(tests, repeat, seed, place, not temporary, worker_timeout, patience)
    results: list[TestResult] = []
    interrupted = False
    try:
        with _terminable():
            _play(options, results, Console(stderr=json, highlight=False, soft_wrap=True))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        ok = all(result.ok for result in results)
        if temporary and ok and (interrupted or len(results) == len(tests) * (repeat or 1)):
            shutil.rmtree(place, ignore_errors=True)
    if json:
        from ..faults.result import as_json

        typer.echo(jsonlib.dumps([as_json(result) for result in results]))
    if interrupted:
        raise typer.Exit(130)
    if not ok:
        raise typer.Exit(1)


def _list() -> None:
    from ..faults.catalog import TESTS, names_of

    width = max(map(len, names_of()))
    for test in TESTS:
        typer.echo(f"{test.name:<{width}}  {test.title}")


def chosen(names: list[str]) -> tuple[FaultTest, ...]:
    """The tests of these names and their variants, in their own order; all, if there are no names.

    Raises:
        UsageError: there is no such test.
    """
    from ..faults.catalog import TESTS, names_of

    unknown = [name for name in names if name not in names_of()]
    if unknown:
        raise UsageError(f"there is no test {unknown[0]!r}; there are {', '.join(names_of())}")
    return tuple(
        test
        for test in TESTS
        if not names or any(test.name == n or test.name.startswith(f"{n}-") for n in names)
    )


def place_of(directory: str) -> tuple[Path, bool]:
    """The directory to use, and whether it is a temporary one.

    Raises:
        UsageError: it is not empty, or no directory.
    """
    if not directory:
        return Path(tempfile.mkdtemp(prefix="penstock-faults-")), True
    place = Path(directory)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"--directory must be an empty directory or a new one, not {directory!r}")
    place.mkdir(parents=True, exist_ok=True)
    return place.resolve(), False


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, as a CI or `docker stop` sends it, is an interruption like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _play(options: Options, results: list[TestResult], console: Console) -> None:
    from ..faults.run import Run

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} elements"),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with progress:
        for result in Run(options, _observer(progress, console)).results():
            results.append(result)  # noqa: PERF402  # one that is interrupted keeps these


def _observer(progress: Progress, console: Console) -> Observer:
    """A bar for the test that runs on a terminal, and a line for each that ended."""
    from ..faults.result import line_of
    from ..faults.run import Observer

    bar = progress.add_task("", total=1, text="")
    label = ""

    def said(text: str) -> None:
        console.print(text, style="dim", markup=False)

    def looked(now: str, elements: int, total: int, text: str) -> None:
        nonlocal label
        if now != label:
            label = now
            progress.reset(bar, description=now, total=total, text=text)
        progress.update(bar, description=now, completed=elements, total=total, text=text)

    def ended(result: TestResult) -> None:
        mark, rest = line_of(result)
        console.print(Text.assemble((mark, "green" if result.ok else "bold red"), rest))
        for problem in result.problems:
            console.print(Text(f"         {problem}", style="red"))
        if not result.ok:
            console.print(Text(f"         journal, checkpoints, logs: {result.directory}"))

    return Observer(said=said, looked=looked, ended=ended)

"""The harness: cases by name, contestants in turns, medians with their spread, and circumstances.

Theory of operation. A case makes contestants; a contestant is measured once a round and gives
metrics. Every round measures all contestants one after the other, every second round backwards,
so that a slow drift of the machine does not favour one. Where a contestant names a baseline, it
is compared with the baseline's measurement of the same round, and the median of these ratios is
reported: what disturbs a whole round disturbs both. What a contestant cannot do is a result, too,
and does not keep the others from being measured. Nothing here passes or fails.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError
from .targets import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from .targets import Target

#: What one measurement gives: the value of each metric, None where it does not apply.
Metrics = dict[str, float | None]


class Show(Protocol):
    """Who is told how far a benchmark is."""

    def said(self, text: str) -> None:
        """Something happened that people want to read."""

    def step(self, what: str, done: float, total: float) -> None:
        """What runs now is at `done` of `total`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says about a run.

    Attributes:
        directory: an existing empty directory for data, journals and checkpoints.
        quick: less data; the figures are rough.
        worker_timeout_s: the dispatcher's `--worker-timeout`.
        only: patterns with * for anything; a contestant runs if its name fits one of them, or
            there is none.
    """

    directory: Path
    quick: bool = False
    worker_timeout_s: float = 5.0
    only: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Whether the contestant of that name is to run."""
        return not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)


@dataclass(frozen=True, slots=True)
class CouldNot:
    """Instead of metrics: the contestant cannot do this, and why. It is not asked again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that is measured once a round.

    Attributes:
        name: unique in its case.
        measure: measures once.
        baseline: name of the contestant that it is compared with; empty for none.
        rivals: names of further ones that it is compared with, by what the case calls them.
    """

    name: str
    measure: Callable[[], Metrics | CouldNot]
    baseline: str = ""
    rivals: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A metric over a rival's, measured in the same round.

    Attributes:
        column: what the result is called.
        metric: what is compared.
        rival: whose: a key of `Contestant.rivals`.
        meaning: for people.
    """

    column: str
    metric: str
    rival: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Case:
    """A subject that can be measured.

    Attributes:
        name: what `--case` calls it.
        title: one line that says what is measured.
        repeat: rounds, if the command line does not say.
        metrics: each metric and what it means, in the order of the table's columns.
        contestants: a context in which they can be measured, given the settings and who is told
            of progress; its end tidies up.
        compared: the metrics that are compared with the baseline; each becomes `<name>_overhead`,
            the part that it is above the baseline (0.02 is 2 % more).
        ratios: further comparisons, with the contestants' rivals.
        usual: patterns of what runs if the command line does not say; none for everything.
        targets: what the figures are wished to be.
    """

    name: str
    title: str
    repeat: int
    metrics: Mapping[str, str]
    contestants: Callable[[Settings, Show], AbstractContextManager[Sequence[Contestant]]]
    compared: tuple[str, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    usual: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """The metrics, and the comparisons made of them."""
        out = {}
        for name, meaning in self.metrics.items():
            out[name] = meaning
            if name in self.compared:
                out[f"{name}_overhead"] = f"{name} above the baseline's, as a part of it"
        return out | {ratio.column: ratio.meaning for ratio in self.ratios}


@dataclass(frozen=True, slots=True)
class Summary:
    """The values of one metric over the rounds."""

    median: float
    least: float
    most: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Summary | None:
        """Summarises what is known; None if nothing is."""
        known = tuple(value for value in values if value is not None)
        if not known:
            return None
        return cls(statistics.median(known), min(known), max(known), known)


@dataclass(frozen=True, slots=True)
class Result:
    """What a contestant's rounds gave, by metric; `could_not` says why there are no more."""

    name: str
    rounds: tuple[Metrics, ...]
    baseline: str = ""
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    could_not: str = ""


def run_case(case: Case, settings: Settings, repeat: int, show: Show) -> list[Result]:
    """Measures every wanted contestant `repeat` times, in turns.

    Raises:
        UsageError: `settings.only` leaves no contestant; the message lists them.
        PenstockError: a measurement could not be made, or what it delivered was wrong.
    """
    if not settings.only:
        settings = dataclasses.replace(settings, only=case.usual)
    failures: dict[str, str] = {}
    with case.contestants(settings, show) as everybody:
        wanted = [one for one in everybody if settings.wants(one.name)]
        if not wanted:
            known = ", ".join(one.name for one in everybody)
            raise UsageError(f"--only matches nothing in case {case.name}; it has {known}")
        rounds: dict[str, list[Metrics]] = {one.name: [] for one in wanted}
        for number in range(repeat):
            for place, one in enumerate(wanted if number % 2 == 0 else reversed(wanted), 1):
                if one.name in failures:
                    continue
                done = number * len(wanted) + place
                show.said(f"{case.name} {one.name}: measurement {done} of {repeat * len(wanted)}")
                measured = one.measure()
                if isinstance(measured, CouldNot):
                    show.said(f"{one.name} could not: {measured.reason}")
                    failures[one.name] = measured.reason
                else:
                    rounds[one.name].append(measured)
    compare(wanted, rounds, case.compared)
    compare_rivals(wanted, rounds, case.ratios)
    return [
        _result(one, rounds[one.name], case.columns, failures.get(one.name, "")) for one in wanted
    ]


def compare(
    contestants: Sequence[Contestant],
    rounds: Mapping[str, Sequence[Metrics]],
    compared: Sequence[str],
) -> None:
    """Adds `<metric>_overhead` to every round of the contestants whose baseline was measured."""
    for one in contestants:
        for own, other in zip(rounds[one.name], rounds.get(one.baseline, ()), strict=False):
            for metric in compared:
                above, below = own.get(metric), other.get(metric)
                if above is not None and below:
                    own[f"{metric}_overhead"] = above / below - 1.0


def compare_rivals(
    contestants: Sequence[Contestant],
    rounds: Mapping[str, Sequence[Metrics]],
    ratios: Sequence[Ratio],
) -> None:
    """Adds the ratios to every round in which the rival was measured, too."""
    for one in contestants:
        for ratio in ratios:
            others = rounds.get(one.rivals.get(ratio.rival, ""), ())
            for own, other in zip(rounds[one.name], others, strict=False):
                above, below = own.get(ratio.metric), other.get(ratio.metric)
                if above is not None and below:
                    own[ratio.column] = above / below


def _result(
    one: Contestant, rounds: Sequence[Metrics], columns: Mapping[str, str], could_not: str
) -> Result:
    summaries = {}
    for name in columns:
        summary = Summary.of(metrics.get(name) for metrics in rounds)
        if summary is not None:
            summaries[name] = summary
    return Result(one.name, tuple(rounds), one.baseline, summaries, could_not)


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine and the software that figures were taken with, and how busy the machine was."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    tensorflow: str
    penstock: str
    load_1min: float

    @classmethod
    def now(cls) -> Environment:
        """As it is here and now; the load is the mean of the last minute."""
        return cls(
            cpu=_cpu_model(),
            cores=len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 0,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            tensorflow=_version("tensorflow"),
            penstock=_version("penstock"),
            load_1min=round(os.getloadavg()[0], 2),
        )


def document(case: Case, results: Sequence[Result], **about: Any) -> dict[str, Any]:
    """One case as a JSON object; `about` is what else there is to say about the run."""
    return {
        "case": case.name,
        "title": case.title,
        **about,
        "metrics": case.columns,
        "results": [
            {
                "name": result.name,
                "baseline": result.baseline or None,
                "summary": {
                    name: {"median": one.median, "min": one.least, "max": one.most}
                    for name, one in result.summaries.items()
                },
                "rounds": list(result.rounds),
                "could_not": result.could_not or None,
            }
            for result in results
        ],
        "targets": [dataclasses.asdict(verdict) for verdict in judge(case.targets, results)],
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # only Linux tells in this way
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()

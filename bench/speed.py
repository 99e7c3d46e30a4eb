"""Cases of speed: penstock, stock tf.data service and a plain local run, side by side.

Theory of operation. Every case is one pipeline. Its contestants are `entries`: a system, how it is
connected, a way of consuming, and numbers of workers and clients. All trainers and servers are
processes (`child`), so that a measurement that hangs can be given up. A measurement is one epoch
of a new job on a cluster that runs, and has run one before; it lasts from the first request to the
end of the epoch, so what it takes to begin is in it.

Stock is measured without compression and with AUTO, one after the other, and the better one
counts. Its processing mode is the one in which every element comes once, whatever the number of
workers: dynamic sharding. With one worker it could do without, which is shown as `stock-off`.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from ..client.embedded import LocalCluster
from ..errors import PenstockError, UnavailableError, VerificationError
from ..testing.certificates import Authority
from .children import Child, Service, ask_all, one_line, stock_service
from .entries import LOCAL, PENSTOCK, STOCK_OFF, USUAL, Entry, entries, targets
from .harness import Case, Contestant, CouldNot, Ratio
from .pipelines import RECORDS, by_name
from .processes import process_cpu_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .harness import Metrics, Settings, Show
    from .pipelines import Pipeline

#: After so long, a measurement is given up: it takes some seconds.
_DEADLINE_S = 120.0
_TRUTH_DEADLINE_S = 600.0

METRICS = {
    "elements": "elements of one epoch; slower contestants read fewer of the same pipeline",
    "elements_per_s": "elements a second, from the first request to the end of the epoch",
    "mb_per_s": "the same in bytes of tensors",
    "first_s": "seconds from the first request until it was answered, on a cluster that runs",
    "client_cpu_s_per_gb": "CPU seconds of the clients for 1e9 bytes",
    "worker_cpu_s_per_gb": "CPU seconds of the workers for 1e9 bytes",
    "auto": "of stock: 1 if it was faster with compression AUTO, 0 if without any",
}
RATIOS = (
    Ratio("times_stock", "elements_per_s", "stock", "elements a second, times stock's"),
    Ratio("times_local", "elements_per_s", "local", "the same, times the local run's"),
    Ratio("client_cpu", "client_cpu_s_per_gb", "stock", "CPU of clients, times stock's"),
    Ratio("worker_cpu", "worker_cpu_s_per_gb", "stock", "CPU of workers, times stock's"),
)


def case_of(name: str) -> Case:
    """The case that measures the pipeline of that name."""
    pipeline = by_name()[name]
    return Case(
        name,
        f"{pipeline.title}; batch({pipeline.batch}) where batched",
        repeat=3,
        metrics=METRICS,
        contestants=partial(contestants, pipeline),
        ratios=RATIOS,
        usual=USUAL,
        targets=targets(name),
    )


@contextlib.contextmanager
def contestants(pipeline: Pipeline, settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """Every contestant; of processes, those that the wanted ones need."""
    everybody = entries()
    wanted = [entry for entry in everybody if settings.wants(entry.name)]
    with contextlib.ExitStack() as stack:
        stage = Stage(pipeline, settings, show, stack)
        if wanted:
            stage.prepare(wanted)
        yield [
            Contestant(entry.name, partial(stage.measure, entry), rivals=entry.rivals)
            for entry in everybody
        ]


class Stage:
    """The processes of one case, and what was found out about its data.

    Args:
        pipeline: what is read.
        settings: of the run.
        show: is told what happens.
        stack: ends the processes.
    """

    def __init__(
        self, pipeline: Pipeline, settings: Settings, show: Show, stack: contextlib.ExitStack
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._show = show
        self._stack = stack
        self._trainers: list[Child] = []
        self._services: dict[tuple[str, str, int], Service | CouldNot] = {}
        self._truths: dict[int, dict[str, int]] = {}

    def prepare(self, wanted: Sequence[Entry]) -> None:
        """Starts what the wanted contestants need, and has each of it work once.

        Raises:
            PenstockError: a trainer cannot be started, or a local run cannot be made.
        """
        users = {key: entry for entry in wanted if (key := _service_key(entry)) is not None}
        clients = max(entry.clients for entry in wanted)
        self._show.said(f"starting {clients} trainers and {len(users)} services")
        for number in range(clients):
            trainer = Child(f"trainer-{number + 1}", self._settings.directory)
            self._stack.callback(trainer.end)
            self._trainers.append(trainer)
        with ThreadPoolExecutor(len(users) + clients) as pool:
            ready = [pool.submit(trainer.start) for trainer in self._trainers]
            started = {key: pool.submit(self._start, *key) for key in users}
            for one in ready:
                one.result()
            self._services = {key: one.result() for key, one in started.items()}
        if self._pipeline.files:
            self._show.said(f"writing {self._pipeline.files} files of {RECORDS} pictures")
            files = {"files": self._pipeline.files, "records": RECORDS}
            where = str(self._settings.directory)
            self._trainers[0].ask(_TRUTH_DEADLINE_S, do="pictures", directory=where, **files)
        self._show.said("running the pipeline once without penstock, and each service once")
        for entry in wanted:
            self._truth(entry.elements(self._pipeline, quick=self._settings.quick))
        for entry in users.values():
            self._ask(entry, self._trainers, self._pipeline.rounded(200), **_variants(entry)[0])

    def measure(self, entry: Entry) -> Metrics | CouldNot:
        """One epoch of every client of the entry.

        Raises:
            VerificationError: penstock delivered something else than a local run does.
        """
        best: Metrics | CouldNot | None = None
        for variant in _variants(entry):
            tried = self._measure_variant(entry, variant)
            if isinstance(tried, dict) and "compression" in variant:
                tried["auto"] = float(variant["compression"] is not None)
            if best is None or _rate(tried) > _rate(best):
                best = tried
        assert best is not None
        return best

    def _measure_variant(self, entry: Entry, variant: dict[str, Any]) -> Metrics | CouldNot:
        elements = entry.elements(self._pipeline, quick=self._settings.quick)
        service = self._service(entry)
        workers = service.workers if isinstance(service, Service) else ()
        before_s = _cpu_s(workers)
        trainers = self._trainers[: entry.clients]
        answers = self._ask(entry, trainers, elements, **variant)
        if isinstance(answers, CouldNot):
            return answers
        after_s = _cpu_s(workers)
        for answer in answers:
            if answer["elements"] != elements:
                return CouldNot(f"{answer['elements']} elements came, of {elements}")
        return figures(answers, self._truth(elements)["nbytes"], before_s, after_s)

    def _ask(
        self, entry: Entry, trainers: Sequence[Child], elements: int, **variant: Any
    ) -> list[dict[str, Any]] | CouldNot:
        """Has trainers read an epoch each; what came is checked."""
        service = self._service(entry)
        if isinstance(service, CouldNot):
            return service
        try:
            answers = ask_all(
                trainers,
                _DEADLINE_S,
                do="read",
                system=entry.system.removesuffix("-off"),
                way=entry.way,
                pipeline=self._pipeline.name,
                elements=elements,
                directory=str(self._settings.directory),
                address=service.address if service is not None else "",
                **({"files": dict(service.files)} if service is not None and service.files else {}),
                **variant,
            )
        except VerificationError:
            raise
        except PenstockError as error:
            return CouldNot(one_line(str(error)))
        if entry.system == PENSTOCK:
            for answer in answers:
                check(entry.name, answer, self._truth(elements))
        return answers

    def _service(self, entry: Entry) -> Service | CouldNot | None:
        key = _service_key(entry)
        return None if key is None else self._services[key]

    def _truth(self, elements: int) -> dict[str, int]:
        """Number, digest and bytes of a plain local run."""
        if elements not in self._truths:
            self._truths[elements] = self._trainers[0].ask(
                _TRUTH_DEADLINE_S,
                do="truth",
                pipeline=self._pipeline.name,
                elements=elements,
                directory=str(self._settings.directory),
            )
        return self._truths[elements]

    def _start(self, system: str, transport: str, workers: int) -> Service | CouldNot:
        """Starts a service, which ends with the stack."""
        directory = self._settings.directory / f"{system}-{transport}-{workers}"
        directory.mkdir()
        try:
            if system != PENSTOCK:
                return self._stack.enter_context(stock_service(workers, directory))
            cluster = self._stack.enter_context(_cluster(directory, workers, transport))
        except UnavailableError as error:
            return CouldNot(one_line(f"did not start: {error}"))
        workers_of = tuple(worker.pid for worker in cluster.workers)
        files = cluster.security.as_dict() if cluster.security.tls else {}
        return Service(cluster.address, workers_of, files)


def check(name: str, answer: dict[str, Any], truth: dict[str, int]) -> None:
    """Checks that what came is what a plain local run gives.

    Raises:
        VerificationError: it is not.
    """
    count, total = answer["digest"]
    wanted = (truth["count"], truth["count"], truth["total"])
    if (answer["elements"], count, total) != wanted:
        raise VerificationError(
            f"{name}: {answer['elements']} elements came, {count} with digest {total:016x}; a "
            f"plain local run gives {truth['count']} with {truth['total']:016x}"
        )


def figures(
    answers: Sequence[dict[str, Any]],
    nbytes: int,
    before_s: float | None,
    after_s: float | None,
) -> Metrics:
    """The metrics of one measurement.

    Args:
        answers: of its trainers, which began at about the same time.
        nbytes: of an epoch.
        before_s, after_s: CPU seconds that the workers had used then, if there are any.
    """
    elements = sum(answer["elements"] for answer in answers)
    begin_s, end_s = (min(a["begin_s"] for a in answers), max(a["end_s"] for a in answers))
    seconds, gigabytes = max(1e-9, end_s - begin_s), nbytes * len(answers) / 1e9
    firsts = [answer["first_s"] for answer in answers if answer["first_s"] is not None]
    worker_s = None
    if before_s is not None and after_s is not None:
        worker_s = (after_s - before_s) / gigabytes
    return {
        "elements": float(answers[0]["elements"]),
        "elements_per_s": elements / seconds,
        "mb_per_s": gigabytes * 1e3 / seconds,
        "first_s": max(firsts, default=None),
        "client_cpu_s_per_gb": sum(answer["cpu_s"] for answer in answers) / gigabytes,
        "worker_cpu_s_per_gb": worker_s,
        "auto": None,
    }


def _service_key(entry: Entry) -> tuple[str, str, int] | None:
    """What entries share a service by; None if it needs none."""
    if entry.system == LOCAL:
        return None
    return (entry.system.removesuffix("-off"), entry.transport, entry.workers)


def _variants(entry: Entry) -> list[dict[str, Any]]:
    """What is tried for an entry, of which the best counts: arguments of `distribute`."""
    if entry.system in (LOCAL, PENSTOCK):
        return [{}]
    mode = "off" if entry.system == STOCK_OFF else "dynamic"
    return [{"compression": one, "processing_mode": mode} for one in (None, "AUTO")]


def _cluster(directory: Path, workers: int, transport: str) -> LocalCluster:
    security = None
    if transport == "tls":
        security = Authority(directory / "certificates").issue("local", "127.0.0.1")
    return LocalCluster(
        workers=workers,
        directory=directory,
        worker_arguments=("--no-unix",) if transport != "unix" else (),
        security=security,
    )


def _cpu_s(workers: Sequence[int]) -> float | None:
    """CPU seconds that all workers have used; None without any, or where that is not told."""
    used = [process_cpu_s(pid) for pid in workers]
    known = [one for one in used if one is not None]
    return sum(known) if known and len(known) == len(used) else None


def _rate(measured: Metrics | CouldNot) -> float:
    rate = None if isinstance(measured, CouldNot) else measured["elements_per_s"]
    return rate or 0.0

"""The dispatcher's state: what the journal's events add up to.

Rule 1: `apply` is the only mutator, and everything that it does follows from the state and the
event. No clock, I/O, threads or randomness; so replaying a journal rebuilds the state, byte for
byte (`digest`). Rule 2: an event that does not fit is refused before anything has changed. Rule 3:
the cost of the state follows from what is open, not from what is past: an epoch that is over is
three numbers, a delivered split is a bit.

An attempt belongs to a worker and to an undelivered split of an open epoch; a split has at most
one. Losing the worker, failing, dropping, delivering the split or closing its epoch ends it. A
split without an attempt that was never failed is not held at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    arbitration,
    caching,
    consumers,
    event_records,
    failover,
    memory,
    positions,
    probing,
    quarantine,
    workers,
)
from . import events as ev
from .records import (
    Attempt,
    Dataset,
    Epoch,
    EpochKey,
    Group,
    Job,
    LostWorker,
    Split,
    Stream,
    Worker,
    deal_epoch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .lanes import LaneBook
    from .records import CacheDecision
    from .splitset import SplitSet

#: How many replaced clients of a job are remembered.
FORMER_MAX = 8
_MASK = (1 << 64) - 1


class InvalidEventError(Exception):
    """The event does not fit the state: a bug, or a journal that is not what was written."""


class State:
    """Everything that the dispatcher has to remember. Read it freely; `apply` alone changes it.

    Attributes:
        term: number of dispatcher starts on this journal.
        next_worker: the number that the next new worker gets; likewise the other counters.
        datasets: by fingerprint.
        jobs: by id, in the order of their opening.
        workers: live ones by id, in the order of their registration.
        attempts: running ones by number.
        lost: the last lost workers by id, the oldest first.
        stores: by cache directory and cache key, the splits whose segments are there.
        decisions: by cache key, what `auto` does.
        failover: faults, what was decided about them, and who is retired.
        groups: of consumers that share lanes, by name.
        rulings: by group, (action, rank, fingerprint) of each (step, round) that was ruled.
    """

    def __init__(self) -> None:
        self.term = 0
        self.next_worker = 1
        self.next_job = 1
        self.next_attempt = 1
        self.datasets: dict[str, Dataset] = {}
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Worker] = {}
        self.attempts: dict[int, Attempt] = {}
        self.lost: dict[str, LostWorker] = {}
        self.stores: dict[str, dict[str, SplitSet]] = {}
        self.decisions: dict[str, CacheDecision] = {}
        self.failover = failover.FailoverBook()
        self.groups: dict[str, Group] = {}
        self.rulings: dict[str, dict[tuple[int, int], tuple[str, int, str]]] = {}

    def apply(self, event: ev.Event) -> set[str]:
        """Carries an event out.

        Returns:
            The ids of the workers and jobs whose view changed: what they should hold, or know.

        Raises:
            InvalidEventError: the event does not fit the state, which is unchanged.
        """
        match event:
            case ev.AttemptAssigned():
                return self._assign(event)
            case ev.SplitDelivered():
                return self._deliver(event)
            case ev.AttemptFailed():
                return self._fail_attempt(event)
            case ev.AttemptDropped(attempt):
                return self.end_attempt(self._attempt(attempt))
            case ev.EpochStarted() | ev.EpochFinished() | ev.EpochAbandoned():
                return self._apply_epoch(event)
            case ev.TermStarted(term):
                _require(term > self.term, f"term {term} does not follow {self.term}")
                self.term = term
                return set()
            case ev.DatasetRegistered():
                fits = not event.weights or len(event.weights) == event.num_splits
                _require(fits, f"dataset {event.fingerprint} has weights for other splits")
                _require(
                    event.fingerprint not in self.datasets,
                    f"dataset {event.fingerprint} is registered already",
                )
                self.datasets[event.fingerprint] = Dataset(*event_records.values(event))
                return set()
            case _:
                try:
                    return self._apply_other(event)
                except ValueError as error:
                    raise InvalidEventError(str(error)) from error

    def _apply_other(self, event: ev.Event) -> set[str]:
        if isinstance(event, workers.WorkerEvent):
            return workers.apply(self, event)
        if isinstance(event, caching.CacheEvent):
            caching.apply(self, event)
            return set()
        if isinstance(event, positions.PositionEvent):
            return positions.apply(self, event)
        if isinstance(event, failover.FailoverEvent):
            return failover.apply(self, event)
        if isinstance(event, ev.StepRuled):
            return arbitration.apply(self, event)
        if isinstance(event, consumers.GroupEvent):
            return set().union(*map(self._close_job, consumers.apply(self, event)))
        if isinstance(event, quarantine.QuarantineEvent):
            return quarantine.apply(self, event)
        if isinstance(event, probing.ProbeEvent):
            return probing.apply(self, event)
        if isinstance(event, memory.MemoryEvent):
            return memory.apply(self, event)
        return self._apply_job(event)

    def epoch(self, key: EpochKey) -> Epoch | None:
        """The open epoch of that name."""
        job = self.jobs.get(key[0])
        return job.epochs.get(key[1:]) if job else None

    def open_epochs(self) -> Iterator[tuple[Job, Epoch]]:
        """Every open epoch with its job, in the order of opening."""
        for job in self.jobs.values():
            for epoch in job.epochs.values():
                yield job, epoch

    def dataset_of(self, job: Job, stream: int) -> Dataset:
        """The dataset of one of a job's streams."""
        return self.datasets[job.streams[stream].dataset]

    def book(self, job: Job, epoch: Epoch) -> LaneBook:
        """The lane book of an open epoch; dealt when it is first asked for."""
        if epoch.book is None:
            epoch.book = deal_epoch(job, self.dataset_of(job, epoch.stream), epoch)
        return epoch.book

    # Jobs.

    def _apply_job(self, event: ev.Event) -> set[str]:
        match event:
            case ev.JobOpened():
                return self._open_job(event)
            case ev.ClientJoined(job_id, client):
                job = self._job(job_id)
                touched = self.close_epochs(job)
                if job.client and job.client != client:
                    job.former = (*job.former, job.client)[-FORMER_MAX:]
                    job.commits = 0
                job.client, job.attached, job.failure, job.left = client, True, "", ""
            case ev.ClientLeft(job_id, reason):
                job = self._job(job_id)
                touched = self.close_epochs(job)
                job.attached, job.left = False, reason
            case ev.JobFailed(job_id, reason):
                job = self._job(job_id)
                _require(bool(reason), f"job {job_id} fails without a reason")
                touched = self.close_epochs(job)
                job.failure = reason
            case ev.JobClosed(job_id):
                touched = self._close_job(self._job(job_id))
            case _:
                raise InvalidEventError(f"{event!r} is not an event")
        return touched | {job_id}

    def _close_job(self, job: Job) -> set[str]:
        touched = self.close_epochs(job)
        del self.jobs[job.job]
        self.failover.spent.pop(job.job, None)
        return touched | {job.job}

    def _open_job(self, event: ev.JobOpened) -> set[str]:
        number = workers.number_of(event.job, "j")
        _require(number >= self.next_job, f"job {event.job} is not new")
        _require(event.lanes >= 1 and event.block >= 1, f"job {event.job} has no lanes")
        unknown = [stream for stream in event.streams if stream not in self.datasets]
        _require(not unknown, f"job {event.job} has unregistered streams {unknown}")
        self.next_job = number + 1
        self.jobs[event.job] = Job(
            job=event.job,
            name=event.name,
            seed=event.seed,
            lanes=event.lanes,
            block=event.block,
            ordered=event.ordered,
            attempts_max=event.attempts_max,
            streams=[Stream(fingerprint) for fingerprint in event.streams],
        )
        return {event.job}

    # Epochs.

    def _apply_epoch(
        self, event: ev.EpochStarted | ev.EpochFinished | ev.EpochAbandoned
    ) -> set[str]:
        job = self._job(event.job)
        _require(event.stream < len(job.streams), f"{job.job} has no stream {event.stream}")
        if isinstance(event, ev.EpochStarted):
            stream = job.streams[event.stream]
            key = (event.stream, event.epoch)
            usable = job.attached and not job.failure
            _require(usable, f"an epoch of {job.job}, which has failed or has no client")
            _require(event.epoch >= stream.next_epoch, f"epoch {key} of {job.job} is over")
            _require(key not in job.epochs, f"epoch {key} of {job.job} is open already")
            job.epochs[key] = Epoch(event.job, event.stream, event.epoch)
            return {event.job}
        epoch = self._epoch(event)
        if isinstance(event, ev.EpochFinished):
            whole = len(epoch.delivered) == self.dataset_of(job, event.stream).num_splits
            _require(whole, f"epoch {epoch.key} is not delivered whole")
            _require(
                (event.count, event.total) == (epoch.count, epoch.total),
                f"the digest of epoch {epoch.key} is not the sum of its splits",
            )
            stream = job.streams[event.stream]
            stream.next_epoch = max(stream.next_epoch, event.epoch + 1)
            stream.epochs_finished += 1
            stream.last_digest = (event.count, event.total, event.chain)
        return self._close_epoch(job, epoch)

    def _close_epoch(self, job: Job, epoch: Epoch) -> set[str]:
        touched = {job.job}
        epoch.book = None  # nobody asks for its order any more
        for split in list(epoch.running()):
            touched |= self.end_attempt(self.attempts[epoch.splits[split].attempt])
        del job.epochs[epoch.stream, epoch.epoch]
        return touched

    def close_epochs(self, job: Job) -> set[str]:
        """What a job has open is given up; a part of `apply`."""
        touched: set[str] = set()
        for epoch in list(job.epochs.values()):
            touched |= self._close_epoch(job, epoch)
        return touched

    # Attempts and splits.

    def _assign(self, event: ev.AttemptAssigned) -> set[str]:
        number, job, _, _, split_number, name, trial = event
        epoch = self._epoch(event)
        worker = self.workers.get(name)
        split = epoch.splits.get(split_number)
        if split is None:
            self._check_undelivered(epoch, split_number)
            split = Split()
        if number < self.next_attempt:
            raise InvalidEventError(f"attempt {number} is not new")
        if split.attempt:
            raise InvalidEventError(f"split {split_number} has attempt {split.attempt}")
        if trial != split.failures + 1:
            raise InvalidEventError(f"trial {trial} of split {split_number}")
        if worker is None or not failover.takes_work(self, worker):
            raise InvalidEventError(f"worker {name} takes no attempts")
        self.next_attempt = number + 1
        split.attempt = number
        epoch.splits[split_number] = split
        worker.attempts[number] = None
        self.attempts[number] = event
        if epoch.book is not None:
            epoch.book.assigned(split_number)
        return {name, job}

    def _check_undelivered(self, epoch: Epoch, split: int) -> None:
        """Refuses what is no split, or a delivered one. Texts are made only when they are needed:
        most of a replay goes through here."""
        num_splits = self.dataset_of(self.jobs[epoch.job], epoch.stream).num_splits
        if split >= num_splits:
            raise InvalidEventError(f"there is no split {split} in {epoch.key}")
        if split in epoch.delivered:
            raise InvalidEventError(f"split {split} is delivered already")

    def _fail_attempt(self, event: ev.AttemptFailed) -> set[str]:
        attempt = self._attempt(event.attempt)
        split = self._epoch(attempt).splits[attempt.split]
        split.failures += 1  # before the attempt ends: a split that failed is remembered
        if attempt.worker not in split.failed_on:
            split.failed_on += (attempt.worker,)
        return self.end_attempt(attempt)

    def end_attempt(self, attempt: Attempt) -> set[str]:
        """An attempt is over; a part of `apply`."""
        return self._end(attempt, self._epoch(attempt))

    def _end(self, attempt: Attempt, epoch: Epoch) -> set[str]:
        number, job, _, _, split_number, worker, _ = attempt
        split = epoch.splits[split_number]
        split.attempt = 0
        if not split.failures:
            del epoch.splits[split_number]
        del self.attempts[number]
        del self.workers[worker].attempts[number]
        if epoch.book is not None:
            epoch.book.dropped(split_number)
        return {worker, job}

    def _deliver(self, event: ev.SplitDelivered) -> set[str]:
        epoch = self._epoch(event)
        number = event.split
        touched: set[str] = set()
        split = epoch.splits.get(number)
        if split is None:
            self._check_undelivered(epoch, number)
        else:
            if split.attempt:
                failover.learn(self, split)
                probing.learn(self, epoch, self.attempts[split.attempt].worker, event)
                touched = self._end(self.attempts[split.attempt], epoch)
            epoch.splits.pop(number, None)
        if epoch.kills:
            epoch.kills.pop(number, None)
        epoch.delivered.add(number)
        epoch.count += event.count
        epoch.total = (epoch.total + event.total) & _MASK
        if epoch.book is not None:
            epoch.book.delivered(number)
        return touched

    def _job(self, job_id: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None:
            raise InvalidEventError(f"there is no job {job_id}")
        return job

    def _epoch(
        self,
        event: ev.EpochFinished | ev.EpochAbandoned | ev.AttemptAssigned | ev.SplitDelivered,
    ) -> Epoch:
        job = self.jobs.get(event.job)
        epoch = job.epochs.get((event.stream, event.epoch)) if job else None
        if epoch is None:
            key = (event.job, event.stream, event.epoch)
            raise InvalidEventError(f"epoch {key} is not open")
        return epoch

    def _attempt(self, number: int) -> Attempt:
        attempt = self.attempts.get(number)
        if attempt is None:
            raise InvalidEventError(f"attempt {number} is not running")
        return attempt


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise InvalidEventError(text)

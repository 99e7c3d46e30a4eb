"""What must be true of a state at any moment; for tests, recovery and a dispatcher in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .failover import takes_work
from .records import deal_epoch

if TYPE_CHECKING:
    from .records import Epoch, Job
    from .state import State


class BrokenInvariantError(AssertionError):
    """The state is not one that events can lead to."""


def validate(state: State, *, deal: bool = False) -> None:
    """Checks every invariant.

    Args:
        state: the state.
        deal: also deal each open epoch anew and compare the lanes; costs all its splits.

    Raises:
        BrokenInvariantError: one does not hold; the message says which.
    """
    _check(state.term >= 0, "the term is negative")
    for number, attempt in state.attempts.items():
        worker = state.workers.get(attempt.worker)
        epoch = state.epoch(attempt.epoch_key)
        _check(number == attempt.attempt, f"attempt {number} is filed under another number")
        _check(number < state.next_attempt, f"attempt {number} was never numbered")
        _check(worker is not None, f"attempt {number} is on a worker that is not live")
        _check(epoch is not None, f"attempt {number} is of an epoch that is not open")
        assert worker is not None
        assert epoch is not None
        _check(number in worker.attempts, f"worker {worker.worker} does not know of its {number}")
        _check(takes_work(state, worker), f"attempt {number} is on a standby, or a retired worker")
        split = epoch.splits.get(attempt.split)
        _check(
            split is not None and split.attempt == number,
            f"attempt {number} is not the current one of split {attempt.split}",
        )
    for name, worker in state.workers.items():
        _check(name == worker.worker, f"worker {name} is filed under another id")
        _check(name not in state.lost, f"worker {name} is live and lost")
        _check(worker.slots >= 1, f"worker {name} has no slots")
        known = all(state.attempts[number].worker == name for number in worker.attempts)
        _check(known, f"worker {name} holds an attempt of another")
    _check_unique([worker.incarnation for worker in state.workers.values()], "incarnations")
    _check_unique([worker.address for worker in state.workers.values()], "addresses")
    _check_unique([job.name for job in state.jobs.values() if job.name], "job names")
    for fault in [*state.failover.open, *state.failover.decided]:
        _check(fault < state.failover.next_fault, f"fault {fault} was never numbered")
    _check(not state.failover.open.keys() & state.failover.decided, "a decided fault is open")
    _check(state.failover.spent.keys() <= {"", *state.jobs}, "a job that is gone has spent budgets")
    for name, group in state.groups.items():
        _check(len(group.jobs) == group.world, f"group {name} has other seats than consumers")
        seated = [job for job in group.jobs if job]
        _check_unique(seated, f"consumers of {name}")
        _check(not set(seated) & set(group.former), f"group {name} has a job of a former life")
    for job_id, job in state.jobs.items():
        _check(job_id == job.job, f"job {job_id} is filed under another id")
        _check_job(state, job, deal)


def _check_job(state: State, job: Job, deal: bool) -> None:
    for stream in job.streams:
        _check(stream.dataset in state.datasets, f"{job.job} has a stream without a dataset")
    may_run = job.attached and not job.failure
    _check(may_run or not job.epochs, f"{job.job} has failed or has no client, and has epochs")
    for key, epoch in job.epochs.items():
        _check(epoch.key == (job.job, *key), f"epoch {key} of {job.job} is filed elsewhere")
        _check_epoch(state, job, epoch, deal)


def _check_epoch(state: State, job: Job, epoch: Epoch, deal: bool) -> None:
    num_splits = state.dataset_of(job, epoch.stream).num_splits
    _check(
        len(epoch.delivered.to_bytes()) <= (num_splits + 7) // 8,
        f"epoch {epoch.key} delivered a split that it does not have",
    )
    for number, split in epoch.splits.items():
        where = f"split {number} of epoch {epoch.key}"
        _check(number < num_splits, f"there is no {where}")
        _check(number not in epoch.delivered, f"{where} is delivered and open")
        _check(bool(split.attempt or split.failures), f"{where} is held for nothing")
        if split.attempt:
            attempt = state.attempts.get(split.attempt)
            _check(attempt is not None, f"{where} has an attempt that is not running")
            assert attempt is not None
            agrees = (*attempt.epoch_key, attempt.split) == (*epoch.key, number)
            _check(agrees, f"{where} has the attempt of another split")
    if deal and epoch.book is not None:
        fresh = deal_epoch(job, state.dataset_of(job, epoch.stream), epoch)
        _check(fresh.wanted() == epoch.book.wanted(), f"the lanes of {epoch.key} are not as dealt")


def _check_unique(values: list[str], what: str) -> None:
    _check(len(set(values)) == len(values), f"two {what} are the same")


def _check(condition: bool, text: str) -> None:
    if not condition:
        raise BrokenInvariantError(text)

"""What a peer should have, as a reply: a function of the state, whole every time.

Messages that are put one behind the other are one message with the contents of all: that is how
protocol buffers are defined, and how a long list is put together here without touching its items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..proto import control_pb2
from .caching import mode_of
from .memory import is_suspect
from .quarantine import left_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .records import Epoch, Job, Worker
    from .state import State

#: So many placements of attempts that are over may be kept.
_KEPT = 1024
#: What a placement costs on both sides together, generously.
_PLACEMENT_S = 10e-6
_GAP_S_MAX = 0.25


def worker_view(state: State, worker: Worker, version: int) -> control_pb2.SyncWorkerReply:
    """Everything that a worker should hold."""
    reply = control_pb2.SyncWorkerReply(term=state.term, version=version, registered=True)
    add = reply.attempts.add  # made in its place: a list of them would be copied
    for number in worker.attempts:
        attempt = state.attempts[number]
        job = state.jobs[attempt.job]
        epoch = job.epochs[attempt.stream, attempt.epoch]
        add(
            attempt=number,
            job=attempt.job,
            stream=attempt.stream,
            epoch=attempt.epoch,
            split=attempt.split,
            dataset=job.streams[attempt.stream].dataset,
            seed=job.seed,
            # From the second trial on elements are made one by one, and named.
            trial=max(attempt.trial, 2) if is_suspect(epoch, attempt.split) else attempt.trial,
            cache=mode_of(state, job, attempt.stream),
            bad=left_out(job, (attempt.stream, attempt.epoch, attempt.split)),
        )
    reply.probes.extend(_probes(state, worker))
    return reply


def _probes(state: State, worker: Worker) -> list[control_pb2.AttemptSpec]:
    """The probe that a worker has to make, if there is one."""
    probe = state.failover.probes.get(worker.worker)
    if probe is None or probe.outcome or state.epoch(probe.started.epoch_key) is None:
        return []
    at, job = probe.started, state.jobs[probe.started.job]
    return [
        control_pb2.AttemptSpec(
            attempt=at.probe,
            job=at.job,
            stream=at.stream,
            epoch=at.epoch,
            split=at.split,
            dataset=job.streams[at.stream].dataset,
            seed=job.seed,
            trial=1,
            cache="off",
            bad=left_out(job, (at.stream, at.epoch, at.split)),
        )
    ]


def gap_s(job: Job) -> float:
    """How long a job's client is not told again after it was told.

    Whole views of thousands of splits that change hundreds of times a second would be most of
    what dispatcher and trainer do. Who has that much ahead can wait for a part of it.
    """
    splits = sum(len(epoch.splits) for epoch in job.epochs.values())
    return min(_GAP_S_MAX, splits * _PLACEMENT_S)


class Placements:
    """Where the running attempts are, each encoded once.

    A client is told of all its attempts whenever one of them changes. With a thousand workers
    these are thousands, and most are the same as the last time.
    """

    def __init__(self) -> None:
        self._encoded: dict[int, bytes] = {}

    def client_view(
        self, state: State, job: Job, version: int, notices: Sequence[str]
    ) -> control_pb2.SyncClientReply:
        """Everything that a job's client should know."""
        reply = control_pb2.SyncClientReply(
            term=state.term, version=version, notices=notices, failure=job.failure
        )
        for epoch in job.epochs.values():
            view = reply.epochs.add(stream=epoch.stream, epoch=epoch.epoch)
            view.MergeFromString(self._of(state, epoch))
        if len(self._encoded) > 2 * len(state.attempts) + _KEPT:
            self._encoded = {at: it for at, it in self._encoded.items() if at in state.attempts}
        return reply

    def _of(self, state: State, epoch: Epoch) -> bytes:
        """The placements of an epoch, as the bytes of an EpochView that has nothing else."""
        encoded = self._encoded
        running = [split.attempt for split in epoch.splits.values() if split.attempt]
        for attempt in running:
            if attempt not in encoded:
                encoded[attempt] = _placement(state, attempt)
        return b"".join([encoded[attempt] for attempt in running])


def _placement(state: State, number: int) -> bytes:
    attempt = state.attempts[number]
    worker = state.workers[attempt.worker]
    placement = control_pb2.Placement(
        split=attempt.split,
        attempt=number,
        worker=worker.worker,
        address=worker.address,
        unix_path=worker.unix_path,
        host_id=worker.host_id,
    )
    return control_pb2.EpochView(placements=[placement]).SerializeToString()

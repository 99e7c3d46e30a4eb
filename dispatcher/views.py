"""What a peer should have, as a reply: a function of the state, whole every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..proto import control_pb2
from .caching import mode_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .records import Epoch, Job, Worker
    from .state import State


def worker_view(state: State, worker: Worker, version: int) -> control_pb2.SyncWorkerReply:
    """Everything that a worker should hold."""
    specs = []
    for number in worker.attempts:
        attempt = state.attempts[number]
        job = state.jobs[attempt.job]
        specs.append(
            control_pb2.AttemptSpec(
                attempt=number,
                job=attempt.job,
                stream=attempt.stream,
                epoch=attempt.epoch,
                split=attempt.split,
                dataset=job.streams[attempt.stream].dataset,
                seed=job.seed,
                trial=attempt.trial,
                cache=mode_of(state, job, attempt.stream),
            )
        )
    return control_pb2.SyncWorkerReply(
        term=state.term, version=version, registered=True, attempts=specs
    )


def client_view(
    state: State, job: Job, version: int, notices: Sequence[str]
) -> control_pb2.SyncClientReply:
    """Everything that a job's client should know."""
    return control_pb2.SyncClientReply(
        term=state.term,
        version=version,
        epochs=[_epoch_view(state, epoch) for epoch in job.epochs.values()],
        notices=notices,
        failure=job.failure,
    )


def _epoch_view(state: State, epoch: Epoch) -> control_pb2.EpochView:
    placements = []
    for number, split in epoch.splits.items():
        if split.attempt:
            worker = state.workers[state.attempts[split.attempt].worker]
            placements.append(
                control_pb2.Placement(
                    split=number,
                    attempt=split.attempt,
                    worker=worker.worker,
                    address=worker.address,
                    unix_path=worker.unix_path,
                    host_id=worker.host_id,
                )
            )
    return control_pb2.EpochView(stream=epoch.stream, epoch=epoch.epoch, placements=placements)

"""What a peer's request means: the events that it leads to, or why it is refused.

Pure functions of the state and the request. Refusals are penstock errors whose text names what was
wrong and what would be accepted; `service` gives them their gRPC status.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import FollowedError, JobFailedError, NotFoundError, RefusedError, UsageError
from ..proto.wire import PROTOCOL_VERSION
from ..recovery.failover import FailureKind
from . import caching, consumers, memory, positions, quarantine
from .events import (
    ClientJoined,
    ClientLeft,
    DatasetRegistered,
    JobClosed,
    JobOpened,
    WorkerLost,
    WorkerRegistered,
)
from .faults import CHAIN_CHARS_MAX, CHAIN_MAX, explained, trainer_faults, worker_faults
from .scheduler import promotions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..proto import control_pb2
    from .events import Event
    from .records import Job, LostWorker, Worker
    from .state import State

SPLITS_MAX = 1 << 32
LANES_MAX = 1 << 16
STREAMS_MAX = 1 << 10
NAME_CHARS_MAX = 256
SLOTS_MAX = 1 << 16
_FINGERPRINT = re.compile(r"[0-9a-f]{8,128}")


def check_version(version: int, who: str) -> None:
    """Refuses a peer of another protocol version."""
    if version != PROTOCOL_VERSION:
        raise RefusedError(
            f"this dispatcher speaks protocol version {PROTOCOL_VERSION}, the {who} {version}:"
            " run the same release of penstock on both"
        )


def check_term(state: State, term: int, first_term: int = 0) -> None:
    """Refuses a peer that has talked to a newer dispatcher than this one, or to a forgotten one.

    Args:
        state: the state.
        term: the one that the peer knows of; 0 for none.
        first_term: the one that the state began with, if it was not read from a journal; whoever
            knows of an earlier one was talking to a dispatcher whose memory is lost.
    """
    if term > state.term:
        raise RefusedError(
            f"the peer knows of term {term}, this dispatcher is of term {state.term}: it was"
            " replaced, or its journal is older than the peer"
        )
    if 0 < term < first_term:
        raise RefusedError(
            f"the peer knows of term {term}, this dispatcher has no journal (--journal none) and"
            f" was started anew with term {first_term}: what the last one knew of jobs and epochs"
            " is lost, so an epoch that was open cannot be completed, and was not restarted"
        )


def check_fingerprint(fingerprint: str) -> None:
    """Refuses what is not a fingerprint; what passes is safe as a file's name."""
    if _FINGERPRINT.fullmatch(fingerprint) is None:
        raise UsageError(
            f"fingerprint must be 8 to 128 lower-case hexadecimal digits, not {fingerprint[:80]!r}"
        )


def register_dataset(state: State, info: control_pb2.DatasetInfo) -> list[Event]:
    """Registers a dataset; nothing if it is known."""
    check_fingerprint(info.fingerprint)
    _in_range("num_splits", info.num_splits, 0, SPLITS_MAX)
    if info.weights and len(info.weights) != info.num_splits:
        raise UsageError(
            f"weights must be empty or one for each of {info.num_splits} splits, "
            f"not {len(info.weights)}"
        )
    event = DatasetRegistered(
        fingerprint=info.fingerprint,
        num_splits=info.num_splits,
        weights=tuple(info.weights),
        replayable=info.replayable,
        components=info.components,
        graph_bytes=info.graph_bytes,
    )
    known = state.datasets.get(info.fingerprint)
    if known is None:
        return [event]
    same = (known.num_splits, known.weights) == (event.num_splits, event.weights)
    if not same or known.components != event.components or known.replayable != event.replayable:
        raise RefusedError(
            f"dataset {info.fingerprint} is registered with other splits or components;"
            " the fingerprint of a changed dataset has to change"
        )
    return []


def open_job(state: State, request: control_pb2.OpenJobRequest, seed: int) -> list[Event]:
    """Creates or joins a job; `seed` is for a new one that names none.

    Raises:
        UsageError: a field is out of range.
        NotFoundError: one of its datasets is not registered.
        RefusedError: another protocol version, a job with other settings, or a client that was
            replaced by a newer one.
        JobFailedError: the client's own job has failed.
    """
    check_version(request.protocol_version, "client")
    check_job_request(state, request)
    job = find_job(state, request)
    if job is not None and request.client in job.former:
        raise taken_over(job, request.client)  # a request that comes late takes nothing back
    if job is not None and job.failure:
        if job.client == request.client:
            raise JobFailedError(f"job {job.label} failed: {job.failure}")
        if _differences(job, request):
            closed = JobClosed(job.job, "a new job of this name replaces the failed one")
            return [closed, *_new_job(state, request, seed)]
    if job is None:
        return _new_job(state, request, seed)
    different = _differences(job, request)
    if different:
        raise RefusedError(
            f"job {job.label} exists with {'; '.join(different)}. Use another job name, or the"
            " same pipeline and settings as before"
        )
    if job.client == request.client and job.attached:
        return []
    joined = ClientJoined(job.job, request.client)
    # Who is there, and is replaced, has not closed the job: it has crashed, or will.
    late = f"client {request.client} has taken the job over"
    replaced = trainer_faults(job, late) if job.attached else []
    return [*replaced, joined, *positions.rewind_events(job.job, request)]


def find_job(state: State, request: control_pb2.OpenJobRequest) -> Job | None:
    """The job that a request names; an unnamed one is named by its client and settings."""
    for job in state.jobs.values():
        if request.job_name:
            if job.name == request.job_name:
                return job
        elif job.client == request.client and not job.name and not _differences(job, request):
            return job
    return None


def owned_job(
    state: State, job_id: str, client: str, endings: Mapping[str, str] | None = None
) -> Job:
    """The job, if this client may speak for it.

    Args:
        state: the state.
        job_id: the job that the client names.
        client: its incarnation.
        endings: why jobs were closed or have no client, by id, as far as that is known.

    Raises:
        NotFoundError: no job of that id was ever opened on this journal.
        ResizedError: it is one consumer's, of a former generation of its group.
        RefusedError: the job is closed, or another client's, or has given this client up.
    """
    job = state.jobs.get(job_id)
    if job is None:
        consumers.check_generation(state, job_id)
        if not _was_opened(state, job_id):
            raise NotFoundError(f"there is no job {job_id!r}: it was never opened here")
        why = (endings or {}).get(job_id, "the reason was not kept when the dispatcher restarted")
        raise RefusedError(
            f"job {job_id} is closed: {why}. What it had open was given up; the trainer has to"
            " open a job again"
        )
    if job.client != client:
        raise taken_over(job, client)
    if not job.attached and not job.failure:
        why = job.left or "it left, or was silent for too long"
        raise RefusedError(
            f"client {client} of job {job.label} has left it: {why}. Its epochs were given up;"
            " open the job again to go on from its next epoch"
        )
    return job


def taken_over(job: Job, client: str) -> RefusedError:
    """What a client is told whose job is a newer one's."""
    return RefusedError(
        f"job {job.label} was taken over by client {job.client}; this client, {client},"
        " is an older one"
    )


def close_events(job: Job, request: control_pb2.CloseClientRequest) -> list[Event]:
    """What follows when a job's client says that it is done, or ends by an exception."""
    reason, faults = consumers.LEFT if request.leaving else consumers.CLOSED, []
    chain = tuple(text[:CHAIN_CHARS_MAX] for text in request.crash[:CHAIN_MAX])
    if chain:
        reason = f"its trainer crashed: {chain[0]}"
        faults = trainer_faults(job, reason, chain, 1)  # as Python ends by an exception
    return [*faults, ClientLeft(job.job, reason) if job.name else JobClosed(job.job, reason)]


def _was_opened(state: State, job_id: str) -> bool:
    digits = job_id[1:21]  # no number of ours is longer
    return job_id == f"j{digits}" and digits.isdecimal() and int(digits) < state.next_job


def register_worker(state: State, request: control_pb2.RegisterWorkerRequest) -> list[Event]:
    """Registers a worker; an older process at its address is dead.

    One that was lost and lives after all takes no place that was given to another: it comes back
    as a standby then, and with new attempts only.

    Raises:
        UsageError: a field is out of range.
        RefusedError: another protocol version, or a process that a newer one has followed.
    """
    check_version(request.protocol_version, "worker")
    _present("incarnation", request.incarnation)
    _present("address", request.address)
    _in_range("slots", request.slots, 1, SLOTS_MAX)
    memory.check_request(request)
    if worker_of(state, request.incarnation) is not None:
        return []
    reason = "another process has registered at its address"
    out: list[Event] = []
    for worker in state.workers.values():
        if worker.address == request.address:
            ended = (FailureKind.DEATH, reason, request.last_exit)
            out += worker_faults(state, worker.worker, *ended)
            out.append(WorkerLost(worker.worker, reason))
    again = [lost for lost in state.lost.values() if lost.incarnation == request.incarnation]
    for late in again:
        _check_is_newest(state, late)
    if not out and not again:  # else what it tells is of a process before itself
        out += explained(state, request.address, request.last_exit)
    standby = any(late.standby or late.replaced for late in again) if again else request.standby
    out.append(
        WorkerRegistered(
            worker=again[0].worker if again else f"w{state.next_worker}",
            incarnation=request.incarnation,
            address=request.address,
            unix_path=request.unix_path,
            host_id=request.host_id,
            slots=request.slots,
            standby=standby,
            tensorflow_version=request.tensorflow_version,
            pid=request.pid,
        )
    )
    return out


def _check_is_newest(state: State, late: LostWorker) -> None:
    """Refuses a process that another one has followed at its address; it must be the older one."""
    lost = list(state.lost.values())
    later: list[LostWorker | Worker] = [*lost[lost.index(late) + 1 :], *state.workers.values()]
    for other in later:
        if other.address == late.address:
            raise FollowedError(
                f"worker {late.worker} was followed by worker {other.worker} at its address"
                f" {late.address}, so it counts as dead; this is a request of the older process."
                " Two workers need two addresses (--port, --advertise)"
            )


def worker_leaves(state: State, worker: str) -> list[Event]:
    """Takes a worker off the books that says that it stops; a standby replaces it."""
    return [WorkerLost(worker, "it was stopped"), *promotions(state, {worker})]


def worker_of(state: State, incarnation: str) -> Worker | None:
    """The live worker of that incarnation."""
    for worker in state.workers.values():
        if worker.incarnation == incarnation:
            return worker
    return None


def check_job_request(state: State, request: control_pb2.OpenJobRequest) -> None:
    """Refuses a request for a job that cannot be, whatever jobs there are.

    Raises:
        UsageError: a field is out of range.
        NotFoundError: one of its datasets is not registered.
    """
    _present("client", request.client)
    if len(request.job_name) > NAME_CHARS_MAX:
        raise UsageError(f"job_name must have at most {NAME_CHARS_MAX} characters")
    _in_range("number of streams", len(request.streams), 1, STREAMS_MAX)
    _in_range("lanes", request.lanes, 1, LANES_MAX)
    _in_range("block", request.block, 1, SPLITS_MAX)
    _in_range("attempts_max", request.attempts_max, 1, SPLITS_MAX)
    caching.checked_mode(request.cache)
    quarantine.check_request(request)
    for stream in request.streams:
        check_fingerprint(stream)
        if stream not in state.datasets:
            raise NotFoundError(f"dataset {stream} is not registered: PutDataset comes first")


def _differences(job: Job, request: control_pb2.OpenJobRequest) -> list[str]:
    out = []
    streams = [stream.dataset for stream in job.streams]
    if streams != list(request.streams):
        out.append(
            f"another pipeline (streams {_short(streams)}, not {_short(list(request.streams))})"
        )
    for name in ("lanes", "block", "ordered"):
        have, wanted = getattr(job, name), getattr(request, name)
        if have != wanted:
            out.append(f"{name}={have}, not {wanted}")
    if request.HasField("seed") and request.seed != job.seed:
        out.append(f"seed={job.seed}, not {request.seed}")
    return out


def _short(fingerprints: list[str]) -> str:
    return ", ".join(fingerprint[:12] for fingerprint in fingerprints)


def _new_job(state: State, request: control_pb2.OpenJobRequest, seed: int) -> list[Event]:
    job = f"j{state.next_job}"
    opened = JobOpened(
        job=job,
        name=request.job_name,
        streams=tuple(request.streams),
        seed=request.seed if request.HasField("seed") else seed,
        lanes=request.lanes,
        block=request.block,
        ordered=request.ordered,
        attempts_max=request.attempts_max,
    )
    joined = ClientJoined(job, request.client)
    return [opened, joined, *positions.rewind_events(job, request)]


def _present(field: str, value: str) -> None:
    if not value or len(value) > NAME_CHARS_MAX:
        raise UsageError(f"{field} must have 1 to {NAME_CHARS_MAX} characters, not {len(value)}")


def _in_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(f"{field} must be {least} to {most}, not {value}")

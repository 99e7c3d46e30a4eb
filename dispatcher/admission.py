"""What a peer's request means: the events that it leads to, or why it is refused.

Pure functions of the state and the request. Refusals are penstock errors whose text names what was
wrong and what would be accepted; `service` gives them their gRPC status.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import JobFailedError, NotFoundError, RefusedError, UsageError
from ..proto.wire import PROTOCOL_VERSION
from .events import (
    ClientJoined,
    DatasetRegistered,
    JobClosed,
    JobOpened,
    WorkerLost,
    WorkerRegistered,
)
from .scheduler import promotions

if TYPE_CHECKING:
    from ..proto import control_pb2
    from .events import Event
    from .records import Job, Worker
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


def check_term(state: State, term: int) -> None:
    """Refuses a peer that has talked to a newer dispatcher than this one."""
    if term > state.term:
        raise RefusedError(
            f"the peer knows of term {term}, this dispatcher is of term {state.term}: it was"
            " replaced, or its journal is older than the peer"
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
    """Creates or joins a job; `seed` is for a new one that names none."""
    check_version(request.protocol_version, "client")
    _check_job_request(state, request)
    job = find_job(state, request)
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
    return [ClientJoined(job.job, request.client)]


def find_job(state: State, request: control_pb2.OpenJobRequest) -> Job | None:
    """The job that a request names; an unnamed one is named by its client and settings."""
    for job in state.jobs.values():
        if request.job_name:
            if job.name == request.job_name:
                return job
        elif job.client == request.client and not job.name and not _differences(job, request):
            return job
    return None


def owned_job(state: State, job_id: str, client: str) -> Job:
    """The job, if this client may speak for it."""
    job = state.jobs.get(job_id)
    if job is None:
        raise NotFoundError(f"there is no job {job_id!r}: it was closed, or never opened here")
    if job.client != client:
        raise RefusedError(
            f"job {job.label} was taken over by client {job.client}; this client, {client},"
            " is an older one"
        )
    if not job.attached and not job.failure:
        raise RefusedError(
            f"client {client} of job {job.label} left, or was silent for too long: its epochs were"
            " given up. Open the job again to go on from its next epoch"
        )
    return job


def register_worker(state: State, request: control_pb2.RegisterWorkerRequest) -> list[Event]:
    """Registers a worker; an older process at its address is dead."""
    check_version(request.protocol_version, "worker")
    _present("incarnation", request.incarnation)
    _present("address", request.address)
    _in_range("slots", request.slots, 1, SLOTS_MAX)
    if worker_of(state, request.incarnation) is not None:
        return []
    out: list[Event] = [
        WorkerLost(worker.worker, "another process has registered at its address")
        for worker in state.workers.values()
        if worker.address == request.address
    ]
    again = [lost for lost in state.lost.values() if lost.incarnation == request.incarnation]
    out.append(
        WorkerRegistered(
            worker=again[0].worker if again else f"w{state.next_worker}",
            incarnation=request.incarnation,
            address=request.address,
            unix_path=request.unix_path,
            host_id=request.host_id,
            slots=request.slots,
            standby=request.standby,
            tensorflow_version=request.tensorflow_version,
            pid=request.pid,
        )
    )
    return out


def worker_leaves(state: State, worker: str) -> list[Event]:
    """Takes a worker off the books that says that it stops; a standby replaces it."""
    return [WorkerLost(worker, "it was stopped"), *promotions(state, {worker})]


def worker_of(state: State, incarnation: str) -> Worker | None:
    """The live worker of that incarnation."""
    for worker in state.workers.values():
        if worker.incarnation == incarnation:
            return worker
    return None


def _check_job_request(state: State, request: control_pb2.OpenJobRequest) -> None:
    _present("client", request.client)
    if len(request.job_name) > NAME_CHARS_MAX:
        raise UsageError(f"job_name must have at most {NAME_CHARS_MAX} characters")
    _in_range("number of streams", len(request.streams), 1, STREAMS_MAX)
    _in_range("lanes", request.lanes, 1, LANES_MAX)
    _in_range("block", request.block, 1, SPLITS_MAX)
    _in_range("attempts_max", request.attempts_max, 1, SPLITS_MAX)
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
    return [opened, ClientJoined(job, request.client)]


def _present(field: str, value: str) -> None:
    if not value or len(value) > NAME_CHARS_MAX:
        raise UsageError(f"{field} must have 1 to {NAME_CHARS_MAX} characters, not {len(value)}")


def _in_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(f"{field} must be {least} to {most}, not {value}")

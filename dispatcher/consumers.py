"""Groups of consumers that share a job's lanes: who sits where, and what a resize makes of it.

Each consumer is a job of its own, named after its group and rank, whose other lanes it resumes as
delivered; so attempts, leases and workers know nothing of groups. A group has *generations*: one
for each number of consumers that it had. Forming the next one closes the jobs of the last, puts
down where its lanes go on (`proto.seats`), and from then on refuses whoever belongs to a former one
by name. Pure functions, like `admission`; `apply` is the part of `State.apply` about the events
here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ..errors import PositionError, RefusedError, ResizedError, SeatTakenError, UsageError
from ..proto import control_pb2
from ..proto.position import Consumer, Position
from ..proto.seats import LANES_MAX, GroupPosition, name_of_job, regrouped
from .events import ConsumerSeated, GroupFormed
from .records import Group

if TYPE_CHECKING:
    from ..timing import Timing
    from .events import Event
    from .records import Job
    from .state import State

GroupEvent: TypeAlias = GroupFormed | ConsumerSeated

#: How many jobs of former generations are remembered, to tell them why they are refused.
FORMER_MAX = 256
#: Why a client left that said so itself: it is done, or leaves its lanes to the others.
CLOSED, LEFT = "its client closed it", "its client left its lanes to the others"


def apply(state: State, event: GroupEvent) -> list[Job]:
    """Carries an event out; returns the jobs that are to be closed.

    Raises:
        ValueError: the event does not fit the state, which is unchanged.
    """
    group = state.groups.get(event.group)
    if isinstance(event, ConsumerSeated):
        if group is None or event.rank >= group.world or event.job not in state.jobs:
            raise ValueError(f"there is no seat {event.rank} of {event.group}, or no {event.job}")
        if event.job in group.former:
            raise ValueError(f"job {event.job} is of a former generation of {event.group}")
        group.jobs[event.rank] = event.job
        return []
    last = 0 if group is None else group.generation
    if event.generation != last + 1 or not 1 <= event.world <= event.lanes:
        raise ValueError(
            f"generation {event.generation} of {event.group}, of {event.world} consumers, does not"
            f" follow {last}"
        )
    seated = [] if group is None else [job for job in group.jobs if job]
    former = () if group is None else group.former
    state.groups[event.group] = Group(
        event.group,
        event.generation,
        event.world,
        event.streams,
        event.seed,
        event.lanes,
        event.block,
        event.ordered,
        event.position,
        [""] * event.world,
        (*former, *seated)[-FORMER_MAX:],
    )
    return [state.jobs[job] for job in seated if job in state.jobs]


def group_events(state: State, request: control_pb2.OpenJobRequest, seed: int) -> list[GroupFormed]:
    """Forms the group that a consumer belongs to, or its next generation; nothing if it is there.

    Args:
        state: the state.
        request: of a client that says which consumer it is.
        seed: for a new group that names none.

    Raises:
        UsageError: there cannot be such a consumer; the message says what can be.
        RefusedError: the group has other settings.
        ResizedError: the client's position or seat is not one of this generation.
    """
    wanted, group = request.consumer, state.groups.get(request.job_name)
    check_consumer(request, group)
    if group is None:
        if any(job.name == request.job_name for job in state.jobs.values()):
            raise RefusedError(
                f"job {request.job_name!r} exists and is read by one client: use another job_name"
            )
        drawn = request.seed if request.HasField("seed") else seed
        return [_formed(request, 1, drawn, "")]
    _check_settings(request, group)
    if wanted.generation and wanted.generation != group.generation:
        raise ResizedError(
            f"the position is one of generation {wanted.generation} of {group.group!r}, which is in"
            f' generation {group.generation} now: pass restore="committed"'
        )
    if wanted.generation and wanted.world != group.world:
        raise ResizedError(
            f"the seat is one of {wanted.world} consumers, and generation {group.generation} of"
            f" {group.group!r} has {group.world}: join it again"
        )
    if wanted.world == group.world:
        if group.position and not wanted.restore and not wanted.generation:
            raise UsageError(
                f"{group.group!r} was resized, and its consumers go on in the middle of epochs:"
                ' pass restore="committed"'
            )
        return []
    if not wanted.restore:
        raise UsageError(
            f"{group.group!r} has {group.world} consumers, not {wanted.world}: pass"
            ' restore="committed" to resize it at its committed positions, or another job_name'
        )
    position = regrouped(group.position, committed(state, group))
    return [_formed(request, group.generation + 1, group.seed, position)]


def check_plain(state: State, request: control_pb2.OpenJobRequest) -> None:
    """Refuses a client that wants the name of a group for itself.

    Raises:
        RefusedError: it does.
    """
    group = state.groups.get(request.job_name)
    if group is not None:
        raise RefusedError(
            f"{group.group!r} is a group of {group.world} consumers: say which of them this client"
            f" is, consumer=(rank, {group.world}), or use another job_name"
        )


def committed(state: State, group: Group) -> list[str]:
    """What its consumers committed last in this generation; empty texts for nothing."""
    jobs = [state.jobs.get(job) for job in group.jobs]
    return ["" if job is None else job.position for job in jobs]


def as_job(state: State, request: control_pb2.OpenJobRequest) -> control_pb2.OpenJobRequest:
    """What a consumer asks for, as the request of a client that has a job for itself."""
    group, consumer = state.groups[request.job_name], consumer_of(request)
    out = control_pb2.OpenJobRequest()
    out.CopyFrom(request)
    out.ClearField("consumer")
    out.job_name, out.seed = name_of_job(group.group, consumer), group.seed
    if request.consumer.restore:
        out.rewind[:] = [_next_epoch(state, group, consumer)]
    return out


def seat_events(state: State, job: Job, request: control_pb2.OpenJobRequest) -> list[Event]:
    """Seats a job that was opened for a consumer."""
    group, rank = state.groups[request.job_name], request.consumer.rank
    if group.jobs[rank] == job.job:
        return []
    return [ConsumerSeated(job.job, group.group, rank)]


def gone_after_s(timing: Timing) -> float:
    """A client whose call broke off, and that made no other one for so long, is gone."""
    return 2 * (timing.heartbeat_s + timing.retry_max_s)


def check_seat(job: Job | None, client: str, broken_s: float, timing: Timing) -> None:
    """Refuses a second consumer of one rank; a newer one follows one that is gone.

    A process that ends breaks its call off, one that is only slow or paused does not; so its
    successor need not wait for the whole time that a silent client is given.

    Args:
        job: the rank's job, if it was opened.
        client: who asks for the seat.
        broken_s: how long ago the last call of the one who has it broke off; 0 if it did not.
        timing: intervals and deadlines.

    Raises:
        SeatTakenError: another one has it, and is alive as far as is known.
    """
    grace_s = gone_after_s(timing)
    if job is None or not job.attached or job.client == client or broken_s > grace_s:
        return
    raise SeatTakenError(
        f"{job.name} is read by client {job.client}, and two consumers cannot have one rank; it"
        f" counts as gone {grace_s:g} s after its connection broke, or when it was silent for"
        f" {timing.client_timeout_s:g} s"
    )


def check_generation(state: State, job_id: str) -> None:
    """Refuses a consumer of a former generation.

    Raises:
        ResizedError: it is one.
    """
    for group in state.groups.values():
        if job_id in group.former:
            raise ResizedError(
                f"the group {group.group!r} was resized: it has {group.world} consumers since"
                f" generation {group.generation}, and goes on at what was committed before. This"
                f' one, job {job_id}, is of a former generation: read on with restore="committed"'
            )


def check_commit(state: State, job: Job, text: str) -> None:
    """Refuses a consumer's position that no resize could go by.

    Raises:
        UsageError: it is none of this consumer, or cannot be put together with others.
    """
    for group in state.groups.values():
        if job.job in group.jobs:
            position = Position.parse(text)
            wanted = Consumer(group.jobs.index(job.job), group.world, group.generation)
            if position.consumer != wanted:
                raise PositionError(f"the position is not one of {job.name}: {position!r}")
            # A resize must not fail: so it is tried, with what another one has committed. What
            # all have fits already, and to read it took 0.1 s of 64 consumers, for each commit.
            others = (other for other in committed(state, group) if other != job.position)
            regrouped(group.position, [next(filter(None, others), ""), text])


def consumer_of(request: control_pb2.OpenJobRequest) -> Consumer:
    """The consumer that a client says it is."""
    return Consumer(request.consumer.rank, request.consumer.world)


def _next_epoch(state: State, group: Group, consumer: Consumer) -> int:
    job = state.jobs.get(group.jobs[consumer.rank])
    position = regrouped(group.position, ["" if job is None else job.position])
    return GroupPosition.parse(position).first_epoch(consumer) if position else 0


def _formed(
    request: control_pb2.OpenJobRequest, generation: int, seed: int, position: str
) -> GroupFormed:
    return GroupFormed(
        request.job_name,
        generation,
        request.consumer.world,
        tuple(request.streams),
        seed,
        request.lanes,
        request.block,
        request.ordered,
        position,
    )


def check_consumer(request: control_pb2.OpenJobRequest, group: Group | None) -> None:
    """Refuses a consumer that cannot be.

    Raises:
        UsageError: the message says what can be.
    """
    wanted = request.consumer
    if not request.job_name:
        raise UsageError("consumer needs a job_name, which names the group")
    if not 0 <= wanted.rank < wanted.world:
        raise UsageError(f"consumer must be (rank, world) with rank < world, not {wanted}")
    if len(request.streams) != 1:
        raise UsageError(f"several consumers can share one stream, not {len(request.streams)}")
    if request.lanes > LANES_MAX:
        raise UsageError(f"lanes must be at most {LANES_MAX} for consumers, not {request.lanes}")
    if wanted.world > request.lanes:
        known = "" if group is None else ", under another job_name"
        raise UsageError(
            f"{wanted.world} consumers cannot share {request.lanes} lanes: set lanes={wanted.world}"
            f" or more{known}"
        )


def _check_settings(request: control_pb2.OpenJobRequest, group: Group) -> None:
    different = [
        f"{name}={getattr(group, name)}, not {getattr(request, name)}"
        for name in ("lanes", "block", "ordered")
        if getattr(group, name) != getattr(request, name)
    ]
    if list(group.streams) != list(request.streams):
        different.append("another pipeline")
    if request.HasField("seed") and request.seed != group.seed:
        different.append(f"seed={group.seed}, not {request.seed}")
    if different:
        raise RefusedError(
            f"the group {group.group!r} exists with {'; '.join(different)}. Use another job name,"
            " or the same pipeline and settings as before"
        )

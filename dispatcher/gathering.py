"""What the service does for groups of consumers: seats, meetings, and who is told of them."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..proto import control_pb2
from ..proto.seats import LANES_MAX, name_of_job, regrouped
from . import admission, consumers
from .events import GroupFormed
from .rendezvous import MEMBERS_MAX, Rendezvous

if TYPE_CHECKING:
    from .arrivals import Arrivals
    from .engine import Engine
    from .records import Group, Job

#: Those who wait ask twice as often as anybody who is alive makes itself heard.
_SETTLE = 2


class Gathering:
    """The groups of one dispatcher.

    Args:
        engine: decides and journals.
        arrivals: of its clients.
    """

    def __init__(self, engine: Engine, arrivals: Arrivals) -> None:
        self._engine = engine
        self._arrivals = arrivals
        timing = engine.timing
        self._gone_s = consumers.gone_after_s(timing)
        self._rendezvous = Rendezvous(self._gone_s, _SETTLE * timing.heartbeat_s)
        #: By group, the generation that was formed last of those who met, and when, if that was in
        #: this term; generation 0 if it was for whoever opens its job first.
        self._formed: dict[str, tuple[int, float]] = {}

    def as_job(self, request: control_pb2.OpenJobRequest) -> control_pb2.OpenJobRequest:
        """The request for a job; that of a consumer for its own, in a group that fits it."""
        engine, state = self._engine, self._engine.state
        if not request.HasField("consumer"):
            consumers.check_plain(state, request)
            return request
        group = state.groups.get(request.job_name)
        self._arrivals.check_resize(group, request)
        # A group that is formed for a request that is refused then would stay as it is.
        consumers.check_consumer(request, group)
        named = control_pb2.OpenJobRequest()
        named.CopyFrom(request)
        named.job_name = name_of_job(request.job_name, consumers.consumer_of(request))
        admission.check_job_request(state, named)
        engine.commit(consumers.group_events(state, request, secrets.randbits(63)))
        self._arrivals.resized(state.groups[request.job_name], request.arrival)
        as_job = consumers.as_job(state, request)
        job = admission.find_job(state, as_job)
        broken_s = self._arrivals.broken_s(job, time.monotonic())
        consumers.check_seat(job, request.client, broken_s, engine.timing)
        return as_job

    def tell(self, job: Job, reply: control_pb2.SyncClientReply) -> None:
        """Tells a consumer who waits to join its group, and who is gone from it."""
        for group in self._engine.state.groups.values():
            if job.job in group.jobs:
                jobs = self._engine.state.jobs
                endings = [jobs[name].left for name in group.jobs if name in jobs]
                waiting = self._rendezvous.joining(group.group, time.monotonic())
                # Nobody is to commit and meet for one who cannot be seated.
                waiting = 0 if self._is_full(group) else waiting
                reply.joining = waiting + endings.count(consumers.LEFT)
                reply.gone.extend(self._gone(group))

    def join(self, request: control_pb2.JoinGroupRequest) -> control_pb2.JoinGroupReply:
        """A process asks for a seat in a group.

        Raises:
            UsageError: a name is missing or too long, or there are too few lanes.
            ResizedError: it is a consumer of a former generation.
        """
        engine, name = self._engine, request.group
        for field, text in (("group", name), ("member", request.member)):
            if not 0 < len(text) <= admission.NAME_CHARS_MAX:
                raise UsageError(f"{field} must have 1 to {admission.NAME_CHARS_MAX} characters")
        group = engine.state.groups.get(name)
        most = MEMBERS_MAX if group is None else group.lanes
        if request.at_least > most:
            raise UsageError(f"at_least must be at most {most}, not {request.at_least}")
        now_s = time.monotonic()
        generation = 0 if group is None else group.generation
        # What a former consumer held was committed, or is lost: it joins as anybody else.
        job = request.job if group is not None and request.job in group.jobs else ""
        seat = None if job else self._rendezvous.seat(name, request.member, generation)
        if seat is None:
            new = self._rendezvous.ask(name, request.member, job, request.at_least, now_s)
            if new and group is not None:
                engine.news.bump([job for job in group.jobs if job])
            waiting = self._missing(name, group, now_s)
            if waiting:
                return control_pb2.JoinGroupReply(term=engine.state.term, waiting=waiting)
            self._form(name, group)
            seat = self._rendezvous.seat(name, request.member, generation + (group is not None))
        if seat is None:
            waiting = [f"a lane: {_lanes(group)} consumers have them all"]
            return control_pb2.JoinGroupReply(term=engine.state.term, waiting=waiting)
        return control_pb2.JoinGroupReply(
            term=engine.state.term,
            seated=True,
            rank=seat.rank,
            world=seat.world,
            generation=seat.generation,
        )

    def waiting(self) -> list[str]:
        """Who waits for a seat, and for whom, in words (G6)."""
        now_s, out = time.monotonic(), []
        for name in self._rendezvous.names(now_s):
            group = self._engine.state.groups.get(name)
            count = self._rendezvous.joining(name, now_s)
            missing = self._missing(name, group, now_s)
            out.append(
                f"{count} of group {name!r} wait for seats: {'; '.join(missing) or 'nobody'}"
            )
        return out

    def _missing(self, name: str, group: Group | None, now_s: float) -> list[str]:
        """For whom or what those who ask for a seat wait, in words."""
        if group is None:
            _, formed_s = self._formed.get(name, (0, float("-inf")))
            if now_s < formed_s + self._engine.timing.client_timeout_s:
                # Formed once more, it would have two consumers of one rank and generation.
                return ["those who have seats to begin"]
        elif self._is_full(group):
            return [f"a lane: {group.lanes} consumers have them all"]
        return self._rendezvous.missing(name, self._alive(group), _lanes(group), now_s)

    def _is_full(self, group: Group) -> bool:
        """Whether its consumers have a lane each, and none of them asks for a seat anew."""
        alive = self._alive(group)
        return len(alive) >= group.lanes and not self._rendezvous.meets(group.group, alive)

    def _form(self, name: str, group: Group | None) -> None:
        engine = self._engine
        self._rendezvous.forget([*engine.state.groups, name])
        self._formed[name] = (0 if group is None else group.generation + 1), time.monotonic()
        if group is None:  # whoever opens its job first says what is read
            self._rendezvous.form(name, {}, 1, LANES_MAX)
            return
        ranks = {job: rank for rank, job in enumerate(group.jobs) if job}
        generation = group.generation + 1
        world = self._rendezvous.form(name, ranks, generation, group.lanes)
        position = regrouped(group.position, consumers.committed(engine.state, group))
        engine.commit(
            [
                GroupFormed(
                    name,
                    generation,
                    world,
                    group.streams,
                    group.seed,
                    group.lanes,
                    group.block,
                    group.ordered,
                    position,
                )
            ]
        )

    def _alive(self, group: Group | None) -> dict[str, str]:
        """The live consumers of a group: what each is called, by its job."""
        if group is None:
            return {}
        gone = set(self._gone(group))
        jobs = self._engine.state.jobs
        return {
            job: f"consumer {rank} of {group.world}"
            for rank, job in enumerate(group.jobs)
            if job and rank not in gone and jobs[job].attached
        }

    def _gone(self, group: Group) -> list[int]:
        """The ranks whose process is gone, and did not say that it is done."""
        jobs, now_s = self._engine.state.jobs, time.monotonic()
        out = []
        for rank, name in enumerate(group.jobs):
            job = jobs.get(name)
            if job is None:  # it was seated, and should have come soon
                generation, formed_s = self._formed.get(group.group, (0, now_s))
                if generation not in (0, group.generation):
                    formed_s = now_s  # another formation, which says nothing of this one's seats
                if now_s > formed_s + self._engine.timing.client_timeout_s:
                    out.append(rank)
                continue
            left = not job.attached and job.left not in (consumers.CLOSED, consumers.LEFT)
            if left or self._arrivals.broken_s(job, now_s) > self._gone_s:
                out.append(rank)
        return out


def _lanes(group: Group | None) -> int:
    return LANES_MAX if group is None else group.lanes

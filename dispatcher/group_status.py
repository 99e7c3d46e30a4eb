"""Groups of consumers for people: who is there, and who is missing, dead, late or slow (G6).

Consumers of one training wait for each other, so the one that all wait for is worth a name. Pure
functions of the state and of when each was heard of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..proto.position import Consumer
from ..proto.seats import owned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..timing import Timing
    from .records import Group, Job
    from .state import State

#: So many heartbeats that did not come make a client late.
LATE = 4
#: A consumer so many epochs behind the furthest one is slow.
SLOW = 0.1


def pictures(
    state: State, heard_s: Mapping[str, float], timing: Timing, now_s: float
) -> list[dict[str, Any]]:
    """The groups, as they are in the status document."""
    return [_picture(state, group, heard_s, timing, now_s) for group in state.groups.values()]


def late_texts(groups: list[dict[str, Any]]) -> list[str]:
    """What the other consumers of each group wait for, in words."""
    out = []
    for group in groups:
        for consumer in group["consumers"]:
            who = f"consumer {consumer['rank']} of {group['world']} of {group['name']!r}"
            match consumer["state"]:
                case "missing":
                    out.append(f"{who} has not come")
                case "dead":
                    out.append(f"{who} is gone; its lanes wait for it")
                case "slow":
                    out.append(f"{who} is {consumer['behind']:.2f} epochs behind the furthest one")
                # One that is late is named as the client of its job.
    return out


def progress(state: State, job: Job, consumer: Consumer) -> float:
    """How many epochs of its lanes a consumer has had delivered, parts of one included."""
    (stream,) = job.streams
    epoch = max(job.epochs.values(), key=lambda epoch: epoch.epoch, default=None)
    if epoch is None:
        return float(stream.next_epoch)
    book = state.book(job, epoch)
    splits = sum(book.length(lane) for lane in owned(consumer, job.lanes))
    left = state.dataset_of(job, 0).num_splits - len(epoch.delivered)
    return epoch.epoch + (1 - left / splits if splits else 1.0)


def _picture(
    state: State, group: Group, heard_s: Mapping[str, float], timing: Timing, now_s: float
) -> dict[str, Any]:
    jobs = [state.jobs.get(job) for job in group.jobs]
    done = [
        0.0 if job is None else progress(state, job, Consumer(rank, group.world))
        for rank, job in enumerate(jobs)
    ]
    furthest = max(done)
    consumers = []
    for rank, job in enumerate(jobs):
        silent_s = None
        if job is not None and job.attached:
            silent_s = round(now_s - heard_s.get(job.job, now_s), 3)
        behind = furthest - done[rank]
        consumers.append(
            {
                "rank": rank,
                "job": None if job is None else job.job,
                "client": job.client if job is not None and job.attached else None,
                "state": _state(job, silent_s, behind, timing),
                "silent_s": silent_s,
                "progress": round(done[rank], 4),
                "behind": round(behind, 4),
                "committed": dict(zip(("epoch", "consumed"), job.position_at, strict=True))
                if job is not None and job.position
                else None,
            }
        )
    return {
        "name": group.group,
        "generation": group.generation,
        "world": group.world,
        "lanes": group.lanes,
        "consumers": consumers,
    }


def _state(job: Job | None, silent_s: float | None, behind: float, timing: Timing) -> str:
    if job is None:
        return "missing"
    if job.failure:
        return "failed"
    if silent_s is None:
        return "dead"
    if silent_s > LATE * timing.heartbeat_s:
        return "late"
    return "slow" if behind > SLOW else "live"

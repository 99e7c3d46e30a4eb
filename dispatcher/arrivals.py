"""In which order clients arrived, so that a late request of an older one takes no job back.

A trainer that is killed may leave its OpenJob under way, and its successor's may come before it. So
a client is numbered first, by a call whose late copies change nothing, and the job belongs to the
one that arrived last. The numbers are of one term and are not journaled: who arrived in an
earlier one and lives is asked to announce itself again; who is dead is not there to do so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ResizedError
from .admission import taken_over

if TYPE_CHECKING:
    from collections.abc import Container

    from ..proto import control_pb2
    from .records import Group, Job

#: How many closed jobs are remembered before they are forgotten.
_CLOSED_MAX = 64
#: How many clients are remembered whose last call broke off.
_BROKEN_MAX = 4096


class Arrivals:
    """The numbers of this term."""

    def __init__(self) -> None:
        self._last = 0
        self._owners: dict[str, tuple[str, int]] = {}  # (client, arrival) by job
        self._broken_s: dict[str, float] = {}  # when its client's last call broke off, by job
        self._resizes: dict[str, tuple[int, int]] = {}  # (generation, arrival) by group

    def number(self) -> int:
        """The number of a client that arrives now."""
        self._last += 1
        return self._last

    def is_known(self, term: int, request: control_pb2.OpenJobRequest) -> bool:
        """Whether the number that a client shows was given in this term."""
        return request.term == term and 0 < request.arrival <= self._last

    def check(self, job: Job | None, request: control_pb2.OpenJobRequest) -> None:
        """Refuses a client that arrived before the one that has the job.

        Raises:
            RefusedError: it did.
        """
        owner, arrival = self._owners.get(job.job, ("", 0)) if job is not None else ("", 0)
        if job is not None and owner == job.client != request.client and request.arrival < arrival:
            raise taken_over(job, request.client)

    def check_resize(self, group: Group | None, request: control_pb2.OpenJobRequest) -> None:
        """Refuses a consumer that arrived before the one that made its group as large as it is.

        Raises:
            ResizedError: it did, and would resize the group again.
        """
        if group is None or request.consumer.world == group.world:
            return
        generation, arrival = self._resizes.get(group.group, (0, 0))
        if generation == group.generation and request.arrival < arrival:
            raise ResizedError(
                f"the group {group.group!r} has {group.world} consumers by the word of a client"
                f" that arrived after this one, which wants {request.consumer.world}"
            )

    def resized(self, group: Group, arrival: int) -> None:
        """The group is what the client that arrived as that number made of it."""
        if self._resizes.get(group.group, (0, 0))[0] < group.generation:
            self._resizes[group.group] = (group.generation, arrival)

    def broke_off(self, job: str, now_s: float) -> None:
        """The call of a job's client broke off, as it does when a process ends."""
        self._broken_s.pop(job, None)
        self._broken_s[job] = now_s
        if len(self._broken_s) > _BROKEN_MAX:
            del self._broken_s[next(iter(self._broken_s))]

    def came_back(self, job: str) -> None:
        """The job's client has called again."""
        self._broken_s.pop(job, None)

    def broken_s(self, job: Job | None, now_s: float) -> float:
        """How long ago the last call of a job's client broke off; 0 if it did not."""
        return now_s - self._broken_s.get("" if job is None else job.job, now_s)

    def opened(self, job: Job, arrival: int, jobs: Container[str]) -> None:
        """The job belongs to its client, which arrived as that number."""
        self._owners[job.job] = (job.client, arrival)
        if len(self._owners) > 2 * _CLOSED_MAX:
            self._owners = {at: owner for at, owner in self._owners.items() if at in jobs}

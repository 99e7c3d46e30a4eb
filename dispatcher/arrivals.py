"""In which order clients arrived, so that a late request of an older one takes no job back.

A trainer that is killed may leave its OpenJob under way, and its successor's may come before it. So
a client is numbered first, by a call whose late copies change nothing, and the job belongs to the
one that arrived last. The numbers are of one term and are not journaled: who arrived in an
earlier one and lives is asked to announce itself again; who is dead is not there to do so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .admission import taken_over

if TYPE_CHECKING:
    from collections.abc import Container

    from ..proto import control_pb2
    from .records import Job

#: How many closed jobs are remembered before they are forgotten.
_CLOSED_MAX = 64


class Arrivals:
    """The numbers of this term."""

    def __init__(self) -> None:
        self._last = 0
        self._owners: dict[str, tuple[str, int]] = {}  # (client, arrival) by job

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

    def opened(self, job: Job, arrival: int, jobs: Container[str]) -> None:
        """The job belongs to its client, which arrived as that number."""
        self._owners[job.job] = (job.client, arrival)
        if len(self._owners) > 2 * _CLOSED_MAX:
            self._owners = {at: owner for at, owner in self._owners.items() if at in jobs}

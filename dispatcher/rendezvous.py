"""Processes that agree on who is which consumer of a group, when some come and others are gone.

Each asks again and again, and says which consumer it is now, if it is one: then it has committed
what it holds. Once every consumer that is alive has asked, and nobody new has come for a moment,
the group is formed of all who ask: those who were consumers first, in the order of their ranks,
then the others in that of their arrival. Nothing of it is journaled but the group that comes of it:
who asked before a restart asks again. Pure: a clock's time comes in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

#: At most so many processes wait for one group.
MEMBERS_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Seat:
    """A consumer's place in a generation."""

    rank: int
    world: int
    generation: int


@dataclass(slots=True)
class _Waiting:
    """Who waits: since when, heard of when, for how many; `job` of the consumer that it is."""

    arrival: int
    since_s: float
    heard_s: float
    job: str
    at_least: int


@dataclass(slots=True)
class _Group:
    waiting: dict[str, _Waiting] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)


class Rendezvous:
    """Who waits to become a consumer of which group.

    Args:
        silent_s: who has not asked for so long does not wait any more.
        settle_s: a group is formed when nobody new has come for so long.
    """

    def __init__(self, silent_s: float, settle_s: float) -> None:
        self._silent_s = silent_s
        self._settle_s = settle_s
        self._arrivals = 0
        self._groups: dict[str, _Group] = {}

    def ask(self, group: str, member: str, job: str, at_least: int, now_s: float) -> bool:
        """A process asks for a seat; whether it is one that did not ask before."""
        waiting = self._groups.setdefault(group, _Group()).waiting
        self._prune(waiting, now_s)
        known = waiting.get(member)
        if known is None:
            self._arrivals += 1
            waiting[member] = _Waiting(self._arrivals, now_s, now_s, job, at_least)
            return True
        known.heard_s, known.job, known.at_least = now_s, job, at_least
        return False

    def seat(self, group: str, member: str, generation: int) -> Seat | None:
        """The seat that a process was given in the present generation."""
        known = self._groups.get(group)
        seat = known.seats.get(member) if known is not None else None
        return seat if seat is not None and seat.generation == max(1, generation) else None

    def joining(self, group: str, now_s: float) -> int:
        """How many wait."""
        known = self._groups.get(group)
        if known is None:
            return 0
        self._prune(known.waiting, now_s)
        return len(known.waiting)

    def meets(self, group: str, jobs: Container[str]) -> bool:
        """Whether one of those who wait is a consumer with one of these jobs."""
        known = self._groups.get(group)
        return known is not None and any(one.job in jobs for one in known.waiting.values())

    def names(self, now_s: float) -> list[str]:
        """The groups that somebody waits for."""
        return [name for name in self._groups if self.joining(name, now_s)]

    def missing(self, group: str, alive: Mapping[str, str], lanes: int, now_s: float) -> list[str]:
        """For whom those who ask wait, in words; nobody, if the group can be formed.

        Args:
            group: the group.
            alive: who each live consumer is, by its job.
            lanes: no more consumers than these can be seated.
            now_s: the time.
        """
        waiting = self._groups[group].waiting
        asked = {one.job for one in waiting.values() if one.job}
        out = [f"{who} to commit" for job, who in alive.items() if job not in asked]
        most = max(one.at_least for one in waiting.values())
        if len(waiting) < most:
            out.append(f"{most - len(waiting)} more of {most} processes")
        if max(one.since_s for one in waiting.values()) + self._settle_s > now_s:
            out.append("others who may come at the same time")
        if most > lanes:
            out.append(f"{most} consumers, which {lanes} lanes are too few for")
        return out

    def form(self, group: str, ranks: Mapping[str, int], generation: int, lanes: int) -> int:
        """Seats all who wait, or as many as there are lanes; returns how many.

        Args:
            group: the group.
            ranks: the rank of each job of its present consumers.
            generation: the one that is formed.
            lanes: how many lanes there are.
        """
        known = self._groups[group]
        order = sorted(
            known.waiting.items(),
            key=lambda item: (ranks.get(item[1].job, len(ranks)), item[1].arrival),
        )[:lanes]
        known.seats = {
            member: Seat(rank, len(order), generation) for rank, (member, _) in enumerate(order)
        }
        for member, _ in order:
            del known.waiting[member]
        return len(order)

    def forget(self, groups: Iterable[str]) -> None:
        """These groups are all there are."""
        kept = set(groups)
        self._groups = {
            name: group for name, group in self._groups.items() if name in kept or group.waiting
        }

    def _prune(self, waiting: dict[str, _Waiting], now_s: float) -> None:
        for member in [m for m, w in waiting.items() if w.heard_s + self._silent_s < now_s]:
            del waiting[member]

"""One decision for all ranks about a failed step: votes, and what was ruled.

What was ruled is journaled (`StepRuled`) and part of the state; the votes before it are not: ranks
repeat their call until they have a ruling, so a dispatcher that begins anew collects them again. A
vote is over when every rank has voted, or its time is. `apply` is the part of `State.apply` that is
about the event here.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..failpoints import failpoint
from ..proto import control_pb2
from ..recovery.arbitration import GRAVITY, Proposal, Ruling, gravest
from ..recovery.policy import Action
from .events import StepRuled

if TYPE_CHECKING:
    from .engine import Engine
    from .state import State

    Key = tuple[str, int, int]

#: Rulings are kept of so many steps of a group, and of so many groups; the oldest go first.
RULINGS_MAX = 256
GROUPS_MAX = 64
NAME_CHARS_MAX = 128
_RANKS_MAX = 1 << 20
_VOTE_S_MAX = 600.0
_VOTES_MAX = 4096
_HOLD_S_MAX = 30.0
_NUMBER_MAX = (1 << 63) - 1


def apply(state: State, event: StepRuled) -> set[str]:
    """Carries an event out.

    Raises:
        ValueError: it was ruled already, which is unchanged.
    """
    group = state.rulings.get(event.group, {})
    if (event.step, event.round) in group:
        raise ValueError(f"step {event.step} of {event.group} was ruled already")
    state.rulings.pop(event.group, None)
    state.rulings[event.group] = group  # the group that was used last is the last
    group[event.step, event.round] = (event.action, event.rank, event.fingerprint)
    while len(group) > RULINGS_MAX:
        del group[next(iter(group))]
    while len(state.rulings) > GROUPS_MAX:
        del state.rulings[next(iter(state.rulings))]
    return set()


def found(state: State, request: control_pb2.RuleStepRequest) -> Ruling | None:
    """What was ruled about a step, if it was."""
    row = state.rulings.get(request.group, {}).get((request.step, request.round))
    return None if row is None else Ruling(Action(row[0]), row[1], row[2])


def check(request: control_pb2.RuleStepRequest) -> None:
    """Refuses a request that cannot be.

    Raises:
        UsageError: a field is not accepted.
    """
    for name in ("group", "fingerprint"):
        if len(getattr(request, name)) > NAME_CHARS_MAX:
            raise UsageError(f"{name} must have at most {NAME_CHARS_MAX} characters")
    if not request.group:
        raise UsageError("group must not be empty")
    if not request.rank < request.ranks <= _RANKS_MAX:
        raise UsageError(
            f"rank must be less than ranks, which are at most {_RANKS_MAX}, not {request.rank}"
            f" of {request.ranks}"
        )
    if request.step > _NUMBER_MAX or request.round > _NUMBER_MAX:
        raise UsageError(f"step and round must be at most {_NUMBER_MAX}")
    names = [action.value for action in GRAVITY]
    if request.action and request.action not in names:
        raise UsageError(f"action must be one of {', '.join(names)}, not {request.action!r:.40}")


@dataclass(slots=True)
class _Vote:
    """Proposals for one key; it ends so long after the first of them. `waiting` calls are held."""

    ends_s: float
    waiting: int = 0
    proposals: dict[int, Proposal] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Votes:
    """The votes that are open."""

    def __init__(self) -> None:
        self._open: dict[Key, _Vote] = {}

    def add(self, request: control_pb2.RuleStepRequest) -> StepRuled | None:
        """Counts a proposal; the ruling, if the vote is over with it.

        Raises:
            UsageError: too many votes are open.
        """
        vote = self._of(request)
        if not vote.proposals:  # until now somebody only listened
            vote.ends_s = time.monotonic() + _vote_s(request)
        proposal = Proposal(request.rank, Action(request.action), request.fingerprint)
        if request.alone:
            vote.proposals = {}
        vote.proposals.setdefault(request.rank, proposal)
        whole = request.alone or len(vote.proposals) >= request.ranks
        return self._end(request) if whole or time.monotonic() >= vote.ends_s else None

    async def wait(self, request: control_pb2.RuleStepRequest) -> StepRuled | None:
        """Waits for the end of a vote; the ruling, if this call is the one that ends it by time."""
        vote = self._of(request)
        hold_s = min(request.hold_ms / 1000, _HOLD_S_MAX)
        left_s = vote.ends_s - time.monotonic()
        until_s = min(hold_s, left_s) if vote.proposals else hold_s
        key = (request.group, request.step, request.round)
        vote.waiting += 1
        try:
            await asyncio.wait_for(vote.over.wait(), max(until_s, 0.0))
        except asyncio.TimeoutError:
            stands = self._open.get(key) is vote  # else it was ended by another call
            if stands and vote.proposals and time.monotonic() >= vote.ends_s:
                return self._end(request)
        finally:
            vote.waiting -= 1
            # While others listen, they are to hear what is proposed yet.
            if not (vote.waiting or vote.proposals) and self._open.get(key) is vote:
                del self._open[key]
        return None

    def _of(self, request: control_pb2.RuleStepRequest) -> _Vote:
        key = (request.group, request.step, request.round)
        vote = self._open.get(key)
        if vote is None:
            self._forget()
            vote = self._open[key] = _Vote(time.monotonic() + _vote_s(request))
        return vote

    def _forget(self) -> None:
        """Makes room: drops votes whose ranks are gone, for they would have ended them."""
        if len(self._open) < _VOTES_MAX:
            return
        old_s = time.monotonic() - _VOTE_S_MAX
        self._open = {key: vote for key, vote in self._open.items() if vote.ends_s > old_s}
        if len(self._open) >= _VOTES_MAX:
            raise UsageError(f"{_VOTES_MAX} votes are open already")

    def _end(self, request: control_pb2.RuleStepRequest) -> StepRuled:
        vote = self._open.pop((request.group, request.step, request.round))
        vote.over.set()
        made = gravest(vote.proposals.values())
        return StepRuled(
            request.group,
            request.step,
            request.round,
            made.action.value,
            made.rank,
            made.fingerprint,
        )


def _vote_s(request: control_pb2.RuleStepRequest) -> float:
    return min(request.vote_ms / 1000, _VOTE_S_MAX)


async def rule(
    engine: Engine, votes: Votes, request: control_pb2.RuleStepRequest
) -> control_pb2.RuleStepReply:
    """Answers a rank: with what is ruled, once it is; empty if its call was held for long.

    Raises:
        UsageError: the request is not acceptable.
    """
    check(request)
    if found(engine.state, request) is None:
        ruled = votes.add(request) if request.action else None
        if ruled is None:
            ruled = await votes.wait(request)
        if ruled is not None:
            failpoint("dispatcher.rule_step.before_commit")
            engine.commit([ruled])
    made = found(engine.state, request)
    await engine.durable()
    failpoint("dispatcher.rule_step.before_reply")
    reply = control_pb2.RuleStepReply(term=engine.state.term)
    if made is not None:
        reply.action, reply.rank, reply.fingerprint = made.action.value, made.rank, made.fingerprint
    return reply

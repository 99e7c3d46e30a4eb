"""Mistakes that one could make, each put into the code by name, so that tests see them caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from penstock.client.engine import Engine as ClientEngine
from penstock.client.lanes import EpochCore
from penstock.client.positions import Positions
from penstock.client.splits import SplitState
from penstock.client.turns import Turns
from penstock.client.weave import Woven
from penstock.dispatcher import consumers, failover, positions, probing, quarantine, scheduler
from penstock.dispatcher import events as ev
from penstock.dispatcher.deciding import Deciding
from penstock.dispatcher.engine import Engine
from penstock.dispatcher.service import ControlService
from penstock.proto.position import Consumer
from penstock.proto.seats import share
from penstock.worker.buffer import Buffer

from . import dispatcher
from .checkpoints import Checkpoints
from .worker import SimWorker

Patch = pytest.MonkeyPatch


class OneOfMany(Consumer):
    """A consumer that owns its own lanes, whatever `counts_others_lanes` makes of others."""

    def owns(self, lane: int) -> bool:
        return lane % self.world == self.rank


def replies_before_it_is_durable(patch: Patch) -> None:
    """The dispatcher does not wait for its journal."""

    async def durable(engine: Engine) -> None:
        return None

    patch.setattr(Engine, "durable", durable)


def assigns_a_split_twice(patch: Patch) -> None:
    """The scheduler gives the last split to a worker once more."""
    assignments = scheduler.assignments

    def twice(state: Any, facts: Any, seats: Any) -> list[Any]:
        events = list(assignments(state, facts, seats))
        again = [e._replace(attempt=e.attempt + 1) for e in events[-1:]]
        return events + again

    patch.setattr(scheduler, "assignments", twice)


def forgets_the_last_record(patch: Patch) -> None:
    """Recovery stops one record early."""
    replay = dispatcher.replay
    patch.setattr(dispatcher, "replay", lambda snapshot, records: replay(snapshot, records[:-1]))


def forgets_an_element_too_many(patch: Patch) -> None:
    """The worker drops one element that the client has not got."""
    acknowledge = Buffer.acknowledge
    patch.setattr(
        Buffer, "acknowledge", lambda buffer, got: acknowledge(buffer, got + 1 if got else 0)
    )


def takes_stale_chunks(patch: Patch) -> None:
    """The client takes a chunk whose attempt is not the split's any more, wherever it begins."""
    placements, accept = EpochCore.placements, SplitState.accept
    known: dict[int, SplitState] = {}

    def remembering(core: EpochCore, view: Any) -> Any:
        out = placements(core, view)
        known.update(core._placed)
        return out

    def fetched(core: EpochCore, attempt: int) -> SplitState | None:
        state = core._splits.get(known[attempt].split) if attempt in known else None
        return state if state is not None and state.fetch is not None else None

    def anywhere(state: SplitState, chunk: Any, nbytes: int) -> None:
        moved = dataclasses.replace(chunk, start=state.received)
        assert state.fetch is not None
        state.fetch.verify = False
        accept(state, moved, nbytes)

    patch.setattr(EpochCore, "placements", remembering)
    patch.setattr(EpochCore, "_fetched", fetched)
    patch.setattr(EpochCore, "wants", lambda core, attempt: attempt in known)
    patch.setattr(SplitState, "accept", anywhere)


def trusts_an_end_without_its_digest(patch: Patch) -> None:
    """The client believes every END, and some are of a worker that swallowed the last piece."""

    def prove(state: SplitState, digest: Any) -> None:
        state.proven, state.fetch, state.problem = state._digest.digest(), None, None

    produce = SimWorker._produce

    def swallow(worker: SimWorker, run: int) -> None:
        made = worker._runs.get(run)
        if made is not None and made.size > 3 and made.made >= made.size - 1:
            made.size = made.made
        produce(worker, run)

    patch.setattr(SplitState, "prove", prove)
    patch.setattr(SimWorker, "_produce", swallow)


def ends_an_epoch_with_its_first_lane(patch: Patch) -> None:
    """The client counts the epoch as over when one lane is."""
    settle = Turns._settle

    def hasty(turns: Turns, lane: Any, taking: Any) -> Any:
        state = settle(turns, lane, taking)
        if state is None:
            turns.unfinished = 0
        return state

    patch.setattr(Turns, "_settle", hasty)


def weaves_lanes_out_of_turn(patch: Patch) -> None:
    """What many lanes hand over at once begins with the last of them."""
    of = Woven.of
    patch.setattr(Woven, "of", lambda pieces, block: of(pieces[::-1], block))


def shows_an_end_before_it_is_acknowledged(patch: Patch) -> None:
    """The end of an epoch is shown although the dispatcher has not said that it is journaled."""
    from penstock.client.epoch import EpochReader

    end = EpochReader._end

    def hasty(reader: EpochReader, taken: Any) -> Any:
        reader.acknowledged = True
        return end(reader, taken)

    patch.setattr(EpochReader, "_end", hasty)


def acknowledges_what_was_not_sent(patch: Patch) -> None:
    """A reply counts for all splits that are done, not for those in its request."""
    sync_reply = ClientEngine.sync_reply

    def all_of_them(engine: ClientEngine, sent: Any, reply: Any) -> None:
        sync_reply(engine, sent, reply)
        for reader in engine._readers:
            reader.unacknowledged.clear()

    patch.setattr(ClientEngine, "sync_reply", all_of_them)


def never_says_what_is_gone(patch: Patch) -> None:
    """The client keeps its problems to itself."""
    patch.setattr(EpochCore, "problems", lambda core: [])


def never_loses_a_worker(patch: Patch) -> None:
    """The dispatcher waits for dead workers for ever."""
    patch.setattr(scheduler, "lost_workers", lambda *_: [])
    patch.setattr(scheduler, "detours", lambda *_: [])
    patch.setattr(Engine, "_lose", lambda *_: None)


def restores_beyond_the_cursor(patch: Patch) -> None:
    """A worker begins at its newest checkpoint, whatever the client wants next."""
    find = Checkpoints.find

    def newest(checkpoints: Checkpoints, key: Any, cursor: int) -> Any:
        return find(checkpoints, key, 1 << 60)

    patch.setattr(Checkpoints, "find", newest)


def never_ends_what_is_stuck(patch: Patch) -> None:
    """The dispatcher has no watchdog."""
    patch.setattr(scheduler, "stuck_attempts", lambda *_: [])


def hears_overtaken_requests(patch: Patch) -> None:
    """A client's request that comes late counts like a new one."""
    patch.setattr(ControlService, "_is_overtaken", lambda *_: False)


def counts_one_element_too_few(patch: Patch) -> None:
    """A position is one element before where the trainer is."""
    at = Positions.at

    def early(self: Positions, consumed: int, epoch: int | None, batch: int) -> Any:
        position = at(self, max(consumed - 1, self._history.visits(0)[-1].base), epoch, batch)
        return dataclasses.replace(position, consumed=consumed)

    patch.setattr(Positions, "at", early)


def goes_on_without_what_was_consumed(patch: Patch) -> None:
    """An epoch that is resumed is made from its beginning."""
    patch.setattr("penstock.dispatcher.progress.resumed_event", lambda *arguments: None)


def forgets_commits(patch: Patch) -> None:
    """A commit is answered, and not kept."""
    patch.setattr(positions, "commit_events", lambda job, request: [])


def forgets_who_is_retired(patch: Patch) -> None:
    """A worker that was retired gets work as before."""
    patch.setattr(failover, "_retire", lambda *_: set())


def restarts_nothing(patch: Patch) -> None:
    """All attempts go on though all were to begin again."""
    patch.setattr(failover, "_end_all", lambda state, attempts: set())


def aborts_nothing(patch: Patch) -> None:
    """A job that was aborted goes on."""
    patch.setattr(failover, "_fail_jobs", lambda *_: set())


def does_not_ask_again_after_a_restart(patch: Patch) -> None:
    """A fault that a former term left open is nobody's business."""
    patch.setattr(Deciding, "start", lambda deciding: None)


def asks_twice(patch: Patch) -> None:
    """An extension is asked about each fault twice."""
    raised = Deciding.raised

    def hasty(deciding: Deciding, number: int) -> None:
        raised(deciding, number)
        raised(deciding, number)

    patch.setattr(Deciding, "raised", hasty)


def forgets_what_is_left_out(patch: Patch) -> None:
    """A worker is not told of bad elements that are to be left out."""
    patch.setattr("penstock.dispatcher.views.left_out", lambda job, key: [])


def leaves_out_the_next_one(patch: Patch) -> None:
    """An element is left out that is not the one that raised."""
    last_resort = quarantine.last_resort

    def wrong(*arguments: Any) -> list[Any]:
        return [
            dataclasses.replace(event, element=event.element + 1)
            if isinstance(event, ev.ElementSkipped)
            else event
            for event in last_resort(*arguments)
        ]

    patch.setattr(quarantine, "last_resort", wrong)


def regroups_without_what_was_committed(patch: Patch) -> None:
    """A resize goes on where the last one did."""
    patch.setattr(consumers, "regrouped", lambda start, committed: start)


def counts_others_lanes(patch: Patch) -> None:
    """A consumer's commit puts forward all lanes; those of others are at their ends there."""
    patch.setattr(Consumer, "owns", lambda consumer, lane: True)
    patch.setattr(
        "penstock.client.starts.share",
        lambda place, lanes, block, consumer, places=(): share(
            place, lanes, block, OneOfMany(consumer.rank, consumer.world), places
        ),
    )


def hears_consumers_of_former_generations(patch: Patch) -> None:
    """A resize leaves the former jobs open."""
    apply = consumers.apply
    patch.setattr(consumers, "apply", lambda state, event: apply(state, event)[:0])


#: Those that only show with several consumers.
OF_GROUPS: Mapping[str, Callable[[Patch], None]] = {
    mutation.__name__: mutation
    for mutation in (
        regroups_without_what_was_committed,
        counts_others_lanes,
        hears_consumers_of_former_generations,
    )
}


def knows_another_digest(patch: Patch) -> None:
    """What a worker has made is remembered with another digest, so a sound one fails its probe."""

    def learn(_: Any, epoch: Any, maker: str, event: Any) -> None:
        epoch.proven[maker] = event._replace(total=event.total ^ 1)

    patch.setattr(probing, "learn", learn)


MUTATIONS: Mapping[str, Callable[[Patch], None]] = {
    mutation.__name__: mutation
    for mutation in (
        replies_before_it_is_durable,
        assigns_a_split_twice,
        forgets_the_last_record,
        forgets_an_element_too_many,
        takes_stale_chunks,
        trusts_an_end_without_its_digest,
        ends_an_epoch_with_its_first_lane,
        weaves_lanes_out_of_turn,
        shows_an_end_before_it_is_acknowledged,
        acknowledges_what_was_not_sent,
        never_says_what_is_gone,
        never_loses_a_worker,
        restores_beyond_the_cursor,
        never_ends_what_is_stuck,
        hears_overtaken_requests,
        counts_one_element_too_few,
        goes_on_without_what_was_consumed,
        forgets_commits,
        forgets_who_is_retired,
        restarts_nothing,
        aborts_nothing,
        does_not_ask_again_after_a_restart,
        asks_twice,
        forgets_what_is_left_out,
        leaves_out_the_next_one,
        knows_another_digest,
    )
}

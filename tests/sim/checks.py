"""What must be true: of the journal, of what was acknowledged, and of every delivery.

`Ledger` is the memory of somebody who sees everything. It keeps each record that a dispatcher ever
appended and whether it was durable, in sets of its own, and knows nothing of `State`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from penstock.dispatcher import events as ev
from penstock.dispatcher.event_records import decode
from penstock.dispatcher.recover import replay
from penstock.dispatcher.snapshot import digest
from penstock.dispatcher.splitset import SplitSet
from penstock.dispatcher.state import State
from penstock.dispatcher.validate import validate

from .data import Pipeline, digest_of
from .failover import FailoverWitness

_VALIDATED_EVERY = 16


class BrokenError(AssertionError):
    """An invariant does not hold."""


class Ledger:
    """Every record of the journal, and what the durable ones say."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.durable = 0
        self.facts: set[tuple[Any, ...]] = set()
        self.recoveries = 0
        self.strategies: Counter[str] = Counter()

    def appended(self, record: bytes, seq: int) -> None:
        check(seq == len(self.records) + 1, f"record {seq} comes after {len(self.records)}")
        self.records.append(record)

    def synced(self, durable_seq: int) -> None:
        """Records up to this one are durable."""
        check(durable_seq >= self.durable, "what was durable is not any more")
        for record in self.records[self.durable : durable_seq]:
            self.facts.update(_facts(decode(record)))
        self.durable = durable_seq

    def recovered(
        self, last_seq: int, snapshot_seq: int, records: list[tuple[int, bytes]], state: State
    ) -> None:
        """A dispatcher has read its journal: nothing that was durable may be missing."""
        self.recoveries += 1
        check(last_seq >= self.durable, f"{self.durable} records were durable, {last_seq} are left")
        kept = self.records[:last_seq]
        check(
            [record for _, record in records] == kept[snapshot_seq:],
            "the records that were read are not those that were written",
        )
        self.records = kept
        self.synced(last_seq)  # opening a journal makes durable what it found
        check(digest(state) == digest(folded(kept)), "replaying gives another state")

    def check_reply(self, method: str, request: Any, reply: Any) -> None:
        """What a reply says or acknowledges is durable (G7)."""
        facts: list[tuple[Any, ...]] = []
        if method == "SyncWorker":
            facts += [("attempt", spec.attempt, request.worker) for spec in reply.attempts]
        elif method == "RegisterWorker":
            facts.append(("worker", reply.worker, request.incarnation))
        elif method == "OpenJob":
            facts.append(("joined", reply.job, request.client))
        elif method == "CommitPosition":
            facts.append(("committed", request.job, request.position))
        elif method == "GetPosition" and reply.position:
            facts.append(("position", reply.position))
        elif method == "SyncClient" and not reply.failure:
            for progress in request.epochs:
                epoch = (request.job, progress.stream, progress.epoch)
                facts.append(("epoch", *epoch))
                facts += [("delivered", *epoch, done.split) for done in progress.done]
                if progress.finished:
                    facts.append(("finished", *epoch))
            facts += [
                ("attempt", placed.attempt, placed.worker)
                for view in reply.epochs
                for placed in view.placements
            ]
        facts.append(("term", reply.term))
        for fact in facts:
            check(fact in self.facts, f"{method} said {fact} before it was durable")

    def check_finished(self, job: str, epoch: int, splits: int) -> None:
        """The end of an epoch was shown to the trainer: every split is proven and durable (G5)."""
        check(("finished", job, 0, epoch) in self.facts, f"epoch {epoch} has an end, and no proof")
        missing = [s for s in range(splits) if ("delivered", job, 0, epoch, s) not in self.facts]
        check(not missing, f"epoch {epoch} has an end, splits {missing} were not delivered")

    def check_prefixes(self, state: State | None) -> None:
        """Every prefix of the journal replays, and the whole of it gives the state that is."""
        so_far, witness = State(), FailoverWitness()
        for number, record in enumerate(self.records):
            event = decode(record)
            wrong = witness.see(event)
            check(not wrong, wrong)
            so_far.apply(event)
            if number % _VALIDATED_EVERY == 0:
                validate(so_far, deal=True)
        validate(so_far, deal=True)
        half = [(seq, record) for seq, record in enumerate(self.records, 1)]
        half = half[: len(half) // 2]
        replay(None, half)
        if state is not None:
            check(digest(state) == digest(so_far), "the journal does not give the state")
        self.strategies.update(witness.strategies)


class Witness:
    """What one trainer was given, compared with the truth element by element."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.epochs_finished: list[int] = []
        self.elements = 0
        self.epoch = -1
        self.deaths = 0
        self._truth: list[tuple[int, int]] = []
        self._given: list[tuple[int, int]] = []
        self._left: Counter[tuple[int, int]] = Counter()
        self._resumed = False
        self._acknowledged = (0, 0)
        # What was given of an epoch up to a position that was to be committed.
        self._committed: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {(0, 0): ()}

    @property
    def given_so_far(self) -> list[tuple[int, int]]:
        """What was given of the epoch, by former lives too."""
        return self._given

    def committing(self, epoch: int, consumed: int) -> None:
        """A position is to be committed."""
        self._committed[epoch, consumed] = tuple(self._given[:consumed])

    def committed(self, epoch: int, consumed: int) -> None:
        """It was acknowledged."""
        self._acknowledged = (epoch, consumed)

    def resumes(self, epoch: int, consumed: int) -> None:
        """A new life goes on at a position: no acknowledged commit may be lost (G7)."""
        check(
            (epoch, consumed) >= self._acknowledged,
            f"{self._acknowledged} was committed, {(epoch, consumed)} is known",
        )
        self._acknowledged = (epoch, consumed)

    def begin(self, epoch: int, resumed_at: int | None = None) -> None:
        """An epoch is read from its beginning, or from where a former life was."""
        self._resumed = bool(resumed_at)
        if resumed_at is not None:
            self.epochs_finished = [number for number in self.epochs_finished if number < epoch]
        least = self.epochs_finished[-1] + 1 if self.epochs_finished else 0
        check(epoch >= least, f"epoch {epoch} begins, {least - 1} was over")
        self.epoch = epoch
        self._truth = self.pipeline.truth(epoch)
        self._given = []
        self._left = Counter(self._truth)
        if resumed_at:
            self._given = list(self._committed[epoch, resumed_at])
            self._left.subtract(self._given)
            check(min(self._left.values()) >= 0, "what was committed is not the truth")

    def given(self, split: int, values: tuple[int, ...]) -> None:
        """Elements were handed over."""
        at = len(self._given)
        new = [(split, value) for value in values]
        self._given += new
        self.elements += len(new)
        if self.pipeline.deterministic:
            wanted = self._truth[at : at + len(new)]
            check(new == wanted, f"epoch {self.epoch}, element {at}: {new} came, not {wanted}")
            return
        for item in new:
            self._left[item] -= 1
            check(self._left[item] >= 0, f"epoch {self.epoch}: {item} came twice, or is unknown")

    def end(self, said: Any) -> None:
        """The end of the epoch was shown."""
        check(
            len(self._given) == len(self._truth),
            f"epoch {self.epoch} ended after {len(self._given)} of {len(self._truth)} elements",
        )
        own = digest_of([value for _, value in self._given])
        same = own == said or (self._resumed and (own.count, own.total) == (said.count, said.total))
        check(same, f"epoch {self.epoch} has digest {own}, the reader says {said}")
        self.epochs_finished.append(self.epoch)


def folded(records: list[bytes]) -> State:
    """The state that records add up to."""
    state = State()
    for record in records:
        state.apply(decode(record))
    return state


def _facts(event: Any) -> list[tuple[Any, ...]]:
    match event:
        case ev.TermStarted(term):
            return [("term", term)]
        case ev.AttemptAssigned():
            return [("attempt", event.attempt, event.worker)]
        case ev.WorkerRegistered():
            return [("worker", event.worker, event.incarnation)]
        case ev.ClientJoined(job, client):
            return [("joined", job, client)]
        case ev.EpochStarted(job, stream, epoch):
            return [("epoch", job, stream, epoch)]
        case ev.SplitDelivered():
            return [("delivered", event.job, event.stream, event.epoch, event.split)]
        case ev.PositionCommitted():
            return [("committed", event.job, event.position), ("position", event.position)]
        case ev.EpochResumed():
            return [
                ("delivered", event.job, event.stream, event.epoch, split)
                for split in SplitSet.from_bytes(event.delivered)
            ]
        case ev.EpochFinished():
            return [("finished", event.job, event.stream, event.epoch)]
    return []


def check(condition: bool, text: str) -> None:
    if not condition:
        raise BrokenError(text)

"""The state as bytes: for the journal's snapshots, and to compare states.

Equal states give equal bytes; what is derived (the lane books) is left out. The format is a
msgpack map with its version, read as strictly as the journal's events.
"""

from __future__ import annotations

import functools
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgpack
import xxhash

from ..errors import JournalCorruptError
from .event_records import values
from .events import SplitDelivered
from .failover import FailoverBook, Retired
from .fault_events import CrossChecked, FailoverDecided, FaultRaised, ProbeStarted
from .probing import Probe
from .quarantine import BadElement
from .records import (
    Attempt,
    CacheDecision,
    Dataset,
    Epoch,
    Group,
    Job,
    LostWorker,
    Split,
    Stream,
    Worker,
)
from .splitset import SplitSet
from .state import State
from .validate import validate

if TYPE_CHECKING:
    from .quarantine import Bad

VERSION = 7
#: The versions that are read; 1 did not know who was replaced, worker or client, 2 no caches, 3 no
#: positions, 4 neither faults nor groups of consumers nor rulings, 5 no bad elements, and 6
#: neither what led to faults, nor probes, nor why clients left.
_KNOWN = (1, 2, 3, 4, 5, 6, 7)
#: Of a group, without what was left out.
_GROUP_FIELDS = 11


def digest(state: State) -> str:
    """32 hexadecimal digits that are the same for equal states."""
    return xxhash.xxh3_128_hexdigest(to_snapshot(state))


def to_snapshot(state: State) -> bytes:
    """The whole state."""
    content = {
        "version": VERSION,
        "term": state.term,
        "next": [state.next_worker, state.next_job, state.next_attempt],
        "datasets": [_row(dataset, Dataset) for dataset in state.datasets.values()],
        "workers": [_row(worker, Worker, ("attempts",)) for worker in state.workers.values()],
        "lost": [_row(lost, LostWorker) for lost in state.lost.values()],
        "jobs": [_job_row(job) for job in state.jobs.values()],
        "attempts": [list(attempt) for attempt in state.attempts.values()],
        "stores": [
            [store, [[key, splits.to_bytes()] for key, splits in held.items()]]
            for store, held in state.stores.items()
        ],
        "decisions": [_row(made, CacheDecision) for made in state.decisions.values()],
        "failover": _failover_row(state.failover),
        "groups": [
            [*_row(group, Group, ("bad",)), _bad_rows(group.bad)] for group in state.groups.values()
        ],
        "rulings": [
            [group, [[*key, *ruling] for key, ruling in rulings.items()]]
            for group, rulings in state.rulings.items()
        ],
    }
    packed: bytes = msgpack.packb(content)
    return packed


def from_snapshot(data: bytes) -> State:
    """The inverse of `to_snapshot`.

    Raises:
        JournalCorruptError: the bytes are no snapshot of a state that this version knows.
    """
    try:
        content = msgpack.unpackb(data)
        version = content["version"]
        if version not in _KNOWN:
            raise JournalCorruptError(
                f"the snapshot is of version {version!r}; this penstock knows {VERSION}"
            )
        state = _state(content)
        validate(state)
    except JournalCorruptError:
        raise
    except Exception as error:  # whatever is wrong with it, it is not a snapshot of ours
        raise JournalCorruptError(f"the snapshot holds no valid state: {error!r}") from error
    return state


def _state(content: dict[str, Any]) -> State:
    state = State()
    state.term = content["term"]
    state.next_worker, state.next_job, state.next_attempt = content["next"]
    for fingerprint, num_splits, weights, *rest in content["datasets"]:
        dataset = Dataset(fingerprint, num_splits, tuple(weights), *rest)
        state.datasets[fingerprint] = dataset
    for row in content["workers"]:
        state.workers[row[0]] = Worker(*row)
    for row in content["lost"]:
        state.lost[row[0]] = LostWorker(*row)
    for row in content["jobs"]:
        job = _job(row)
        state.jobs[job.job] = job
    for row in content["attempts"]:
        attempt = Attempt(*row)
        state.attempts[attempt.attempt] = attempt
    for store, held in content.get("stores", ()):
        state.stores[store] = {key: SplitSet.from_bytes(bits) for key, bits in held}
    for row in content.get("decisions", ()):
        state.decisions[row[0]] = CacheDecision(*row)
    if "failover" in content:
        state.failover = _failover(content["failover"])
    for row in content.get("groups", ()):
        *row, bad = row if len(row) > _GROUP_FIELDS else [*row, []]  # before version 7
        group = Group(*row)
        group.bad = _bad(bad)
        group.streams, group.former = tuple(group.streams), tuple(group.former)
        state.groups[group.group] = group
    for group, rows in content.get("rulings", ()):
        state.rulings[group] = {
            (step, round): (action, rank, fingerprint)
            for step, round, action, rank, fingerprint in rows
        }
    # A worker's attempts in ascending order is the order in which it got them.
    for number, attempt in sorted(state.attempts.items()):
        state.workers[attempt.worker].attempts[number] = None
    return state


def _failover_row(book: FailoverBook) -> list[Any]:
    return [
        book.next_fault,
        [[number, *values(fault)] for number, fault in book.open.items()],
        [[values(fault), values(made)] for fault, made in book.decided.values()],
        [
            [job, [[*key, times] for key, times in spent.items()]]
            for job, spent in book.spent.items()
        ],
        [[incarnation, *_row(who, Retired)] for incarnation, who in book.retired.items()],
        [
            [values(probe.started), probe.outcome, probe.detail, probe.made_here]
            for probe in book.probes.values()
        ],
        [[values(started), values(made)] for started, made in book.checked.values()],
        list(book.suspects.items()),
    ]


def _failover(row: list[Any]) -> FailoverBook:
    next_fault, still_open, decided, spent, retired, *probing = row
    book = FailoverBook(next_fault)
    book.open = {number: _fault(fault) for number, *fault in still_open}
    for fault, made in decided:
        book.decided[made[0]] = _fault(fault), FailoverDecided(*made)
    for job, counts in spent:
        book.spent[job] = {(strategy, of): times for strategy, of, times in counts}
    probes, checked, suspects = probing or ([], [], [])  # a version before 7 had none
    book.suspects = dict(suspects)
    for started, *outcome in probes:
        probe = Probe(ProbeStarted(*started), *outcome)
        book.probes[probe.started.worker] = probe
    for started, made in checked:
        book.checked[made[0]] = ProbeStarted(*started), CrossChecked(*made)
    book.retired = {incarnation: Retired(*who) for incarnation, *who in retired}
    return book


def _fault(row: list[Any]) -> FaultRaised:
    """A fault; one of a version before 7 has no exceptions."""
    first, exceptions, rest = row[:15], row[15:16], row[16:]
    return FaultRaised(*first, *map(tuple, exceptions), *rest)


def _job_row(job: Job) -> list[Any]:
    row = _row(job, Job, ("streams", "epochs", "bad"))
    row.append(_bad_rows(job.bad))
    row.append([_row(stream, Stream) for stream in job.streams])
    row.append([_epoch_row(epoch) for epoch in job.epochs.values()])
    return row


def _job(row: list[Any]) -> Job:
    streams, epochs = row.pop(-2), row.pop(-1)
    without = ("streams", "epochs", "bad")
    names = [name for name in Job.__dataclass_fields__ if name not in without]
    former = names.index("former")
    row += [[]] if len(row) == former else []  # version 1
    row += ["off"] if len(row) == former + 1 else []  # version 2
    row += ["", (0, 0), 0] if len(row) == former + 2 else []  # version 3
    row += [""] if len(row) == former + 5 else []  # version 4
    row += ["fail", 0, []] if len(row) == former + 6 else []  # version 5
    bad = row.pop()
    row += [""] if len(row) == former + 8 else []  # version 6
    row[former], row[former + 3] = tuple(row[former]), tuple(row[former + 3])
    made = [Stream(dataset, at, over, tuple(last)) for dataset, at, over, last in streams]
    job = Job(**dict(zip(names, row, strict=True)), streams=made)
    job.bad = _bad(bad)
    for (job_id, stream, number), splits, delivered, count, total, *more in epochs:
        epoch = Epoch(job_id, stream, number)
        kills, proven = (*more, [], [])[:2]
        epoch.kills = {split: tuple(named) for split, named in kills}
        epoch.proven = {name: SplitDelivered(*epoch.key, *made) for name, *made in proven}
        epoch.delivered, epoch.count, epoch.total = SplitSet.from_bytes(delivered), count, total
        for number, attempt, failures, failed_on, *named in splits:
            named = tuple(named[0]) if named else ()
            epoch.splits[number] = Split(attempt, failures, tuple(failed_on), named)
        job.epochs[epoch.stream, epoch.epoch] = epoch
    return job


def _bad_rows(bad: Bad) -> list[Any]:
    return [[*key, [_row(one, BadElement) for one in known.values()]] for key, known in bad.items()]


def _bad(rows: list[Any]) -> Bad:
    return {
        (stream, epoch, split): {element: BadElement(element, *rest) for element, *rest in known}
        for stream, epoch, split, known in rows
    }


def _epoch_row(epoch: Epoch) -> list[Any]:
    splits = [[number, *_row(split, Split)] for number, split in sorted(epoch.splits.items())]
    kills = [[split, named] for split, named in epoch.kills.items()]
    proven = [[name, *made[len(epoch.key) :]] for name, made in epoch.proven.items()]
    delivered = epoch.delivered.to_bytes()
    return [epoch.key, splits, delivered, epoch.count, epoch.total, kills, proven]


def _row(record: Any, kind: Any, without: tuple[str, ...] = ()) -> list[Any]:
    return list(_getter(kind, without)(record))


@functools.cache
def _getter(kind: Any, without: tuple[str, ...]) -> attrgetter[tuple[Any, ...]]:
    """What gives the values of a kind's fields: there may be thousands of its records."""
    return attrgetter(*(name for name in kind.__dataclass_fields__ if name not in without))

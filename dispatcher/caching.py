"""What is cached where, and who may cache: pure functions of the state and of what peers say.

Theory of operation. A worker's segments lie in a *store*, a directory that several workers may
share. Workers say what their stores hold, whole when they register and in differences later; the
journal keeps it, so that placement knows it at once after a restart. It is a hint all the same: a
worker looks for the segment itself when an attempt begins, and makes the split if it is not there.

`auto` decides for each cache key once, from what the first splits cost on these machines: to make,
to write, and to make from their segments. A dataset is cached if one later epoch wins back what
writing costs, and if all of it fits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import UsageError
from . import events as ev
from .records import CacheDecision
from .splitset import SplitSet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ..proto import control_pb2
    from .events import Event
    from .records import Job, Worker
    from .state import State

OFF, PUT, ON, AUTO, MEASURE = "off", "put", "on", "auto", "measure"
#: What a job may ask for.
MODES = (OFF, PUT, ON, AUTO)
#: Higher splits are not cached: a set of them would take too much memory.
CACHED_SPLIT_MAX = 1 << 24
#: Stores that no live worker has are forgotten beyond so many.
STORES_MAX = 256
#: `auto` decides when so many splits are measured, or all that there are.
MEASURED_SPLITS = 3
_KEY_CHARS_MAX = 128

CacheEvent = (
    ev.DatasetCacheable
    | ev.JobCaching
    | ev.StoreAttached
    | ev.SplitsCached
    | ev.SplitsUncached
    | ev.CacheDecided
)


def apply(state: State, event: CacheEvent) -> None:
    """Carries an event about caches out; the part of `State.apply` for them.

    Raises:
        ValueError: the event does not fit the state, which is unchanged.
    """
    match event:
        case ev.DatasetCacheable(fingerprint, key):
            _require(fingerprint in state.datasets, f"dataset {fingerprint} is not registered")
            state.datasets[fingerprint].cache_key = key
        case ev.JobCaching(job, mode):
            _require(job in state.jobs, f"there is no job {job}")
            _require(mode in MODES, f"job {job} cannot use caches as {mode!r}")
            state.jobs[job].cache = mode
        case ev.StoreAttached(name, store, limit):
            _require(name in state.workers, f"worker {name} is not registered")
            state.workers[name].store, state.workers[name].cache_limit = store, limit
            if store:
                state.stores.setdefault(store, {})
            _forget_stores(state)
        case ev.SplitsCached(store, key, splits) | ev.SplitsUncached(store, key, splits):
            _require(store in state.stores, f"store {store} is nobody's")
            _require(max(splits, default=0) < CACHED_SPLIT_MAX, "there is no such split")
            _hold(state.stores[store], key, splits, cached=isinstance(event, ev.SplitsCached))
        case ev.CacheDecided(key):
            _require(key not in state.decisions, f"it is decided whether {key} is cached")
            names = CacheDecision.__dataclass_fields__
            state.decisions[key] = CacheDecision(*(getattr(event, name) for name in names))


def _hold(held: dict[str, SplitSet], key: str, splits: Iterable[int], *, cached: bool) -> None:
    known = held.setdefault(key, SplitSet())
    for split in splits:
        if cached:
            known.add(split)
        else:
            known.discard(split)
    if not known:
        del held[key]


def _forget_stores(state: State) -> None:
    live = {worker.store for worker in state.workers.values()}
    for store in [store for store in state.stores if store not in live]:
        if len(state.stores) <= STORES_MAX:
            break
        del state.stores[store]


def checked_mode(mode: str) -> str:
    """How a job asks to use caches.

    Raises:
        UsageError: in no way that there is.
    """
    if (mode or OFF) not in MODES:
        raise UsageError(f"cache must be one of {', '.join(MODES)}, not {mode[:40]!r}")
    return mode or OFF


def job_events(job: Job, mode: str) -> list[Event]:
    """What follows when a client asks for caches in a way that the job did not use so far."""
    mode = checked_mode(mode)
    return [ev.JobCaching(job.job, mode)] if job.cache != mode else []


def dataset_events(state: State, info: control_pb2.DatasetInfo) -> list[Event]:
    """What follows from a dataset's cache key; the dataset is registered.

    Raises:
        UsageError: it is no key.
    """
    key, known = info.cache_key, state.datasets[info.fingerprint]
    if not key or known.cache_key == key:
        return []
    if len(key) > _KEY_CHARS_MAX:
        raise UsageError(f"cache_key must have at most {_KEY_CHARS_MAX} characters")
    return [ev.DatasetCacheable(info.fingerprint, key)]


def register_events(
    state: State, worker: Worker, request: control_pb2.RegisterWorkerRequest
) -> list[Event]:
    """What follows from the store that a worker brings, and all that is in it."""
    store, limit = request.store[:_KEY_CHARS_MAX], request.cache_limit
    out: list[Event] = []
    if (worker.store, worker.cache_limit) != (store, limit):
        out.append(ev.StoreAttached(worker.worker, store, limit))
    if not store:
        return out
    held = state.stores.get(store, {})
    brought = _by_key(request.cached)
    for key, splits in brought.items():
        new = sorted(splits - set(held.get(key, ())))
        out += [ev.SplitsCached(store, key, tuple(new))] if new else []
    for key, known in held.items():
        gone = sorted(set(known) - brought.get(key, set()))
        out += [ev.SplitsUncached(store, key, tuple(gone))] if gone else []
    return out


def sync_events(
    state: State, worker: Worker, request: control_pb2.SyncWorkerRequest
) -> list[Event]:
    """What follows from what a worker's store has got and lost."""
    held = state.stores.get(worker.store)
    if held is None:
        return []
    out: list[Event] = []
    for key, splits in _by_key(request.cached).items():
        new = sorted(split for split in splits if split not in held.get(key, ()))
        out += [ev.SplitsCached(worker.store, key, tuple(new))] if new else []
    for key, splits in _by_key(request.uncached).items():
        gone = sorted(split for split in splits if split in held.get(key, ()))
        out += [ev.SplitsUncached(worker.store, key, tuple(gone))] if gone else []
    return out


def _by_key(lists: Iterable[control_pb2.CachedSplits]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for item in lists:
        if 0 < len(item.key) <= _KEY_CHARS_MAX:
            splits = found.setdefault(item.key, set())
            splits.update(split for split in item.splits if split < CACHED_SPLIT_MAX)
    return found


def mode_of(state: State, job: Job, stream: int) -> str:
    """What an attempt of a job's stream does with caches: `off`, `put`, `on` or `measure`."""
    key = state.dataset_of(job, stream).cache_key
    if not key or job.cache == OFF:
        return OFF
    if job.cache != AUTO:
        return job.cache
    decision = state.decisions.get(key)
    if decision is None:
        return MEASURE
    return ON if decision.on else OFF


def stores_with(state: State, job: Job, stream: int, split: int) -> Collection[str]:
    """The stores from which an attempt of a split could read it."""
    if mode_of(state, job, stream) not in (ON, MEASURE):
        return ()
    key = state.dataset_of(job, stream).cache_key
    return [store for store, held in state.stores.items() if split in held.get(key, ())]


@dataclass(slots=True)
class Measures:
    """What the first splits of undecided keys cost; of the moment, never journaled.

    Attributes:
        sums: by key: splits, elements, bytes, and microseconds to make, to write and to read.
    """

    sums: dict[str, list[int]] = field(default_factory=dict)

    def take(self, state: State, measures: Iterable[control_pb2.CacheMeasure]) -> list[Event]:
        """A worker's measurements; the decisions that they allow."""
        out: list[Event] = []
        measures = list(measures)
        if not measures and not self.sums:
            return out  # every heartbeat comes here
        wanted = {
            state.dataset_of(job, stream).cache_key: state.dataset_of(job, stream).num_splits
            for job in state.jobs.values()
            for stream in range(len(job.streams))
            if mode_of(state, job, stream) == MEASURE
        }
        for measure in measures:
            if measure.key not in wanted:
                continue
            sums = self.sums.setdefault(measure.key, [0] * 6)
            one = (1, measure.elements, measure.nbytes)
            costs = (measure.produce_us, measure.write_us, measure.read_us)
            for place, value in enumerate((*one, *costs)):
                sums[place] += value
            if sums[0] >= min(MEASURED_SPLITS, wanted[measure.key]):
                limit = _capacity(state.workers)
                out.append(decide(measure.key, self.sums.pop(measure.key), limit, wanted))
                del wanted[measure.key]
        self.sums = {key: sums for key, sums in self.sums.items() if key in wanted}
        return out


def decide(key: str, sums: list[int], limit: int, num_splits: Mapping[str, int]) -> ev.CacheDecided:
    """Whether a dataset is worth being cached.

    Args:
        key: of the dataset.
        sums: see `Measures`.
        limit: bytes that all stores together may hold.
        num_splits: by key, how many splits there are.

    Returns:
        The decision with its numbers. How many epochs are left is not known, so one has to pay.
    """
    splits, elements, nbytes, produce_us, write_us, read_us = sums
    whole = nbytes // splits * num_splits[key]
    saved_us = produce_us - read_us
    per_split = f"{produce_us / splits / 1e6:.3f} s to make, {write_us / splits / 1e6:.3f} s to"
    per_split += f" write and {read_us / splits / 1e6:.3f} s to read a split"
    if whole > limit:
        on, why = False, f"about {whole} bytes do not fit into {limit}"
    elif saved_us <= write_us:
        on, why = False, "the next epoch would not win back what writing costs"
    else:
        on, why = True, "the next epoch wins back what writing costs"
    return ev.CacheDecided(
        key,
        on,
        f"{why}: {per_split}",
        splits=splits,
        elements=elements,
        nbytes=nbytes,
        produce_us=produce_us,
        write_us=write_us,
        read_us=read_us,
        limit=limit,
    )


def _capacity(workers: Mapping[str, Worker]) -> int:
    return sum({worker.store: worker.cache_limit for worker in workers.values()}.values())


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(text)

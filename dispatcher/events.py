"""The journal's vocabulary: everything that can happen to the dispatcher's state.

A record is msgpack `[kind, version, fields...]`. Kinds and the order of fields are never changed
for a given version, because old journals must replay: a change is a new version, whose class reads
the old ones too. Decoding is strict; what does not fit is a `JournalCorruptError`, never a guess.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgpack

from ..errors import JournalCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

VERSION = 1


@dataclass(frozen=True, slots=True)
class TermStarted:
    """A dispatcher process has taken over the journal."""

    term: int


@dataclass(frozen=True, slots=True)
class DatasetRegistered:
    """A stream's graph is stored; `weights` is empty when all splits are alike."""

    fingerprint: str
    num_splits: int
    weights: tuple[int, ...]
    replayable: bool
    components: bytes
    graph_bytes: int


@dataclass(frozen=True, slots=True)
class JobOpened:
    """A job was created; `name` is empty for one that ends with its client."""

    job: str
    name: str
    streams: tuple[str, ...]
    seed: int
    lanes: int
    block: int
    ordered: bool
    attempts_max: int


@dataclass(frozen=True, slots=True)
class ClientJoined:
    """A client owns the job from now on; what an older one had open is given up."""

    job: str
    client: str


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """The job has no client any more; what it had open is given up."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job cannot go on; what it had open is given up."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobClosed:
    """The job is over and forgotten."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class EpochStarted:
    """The client opened an epoch."""

    job: str
    stream: int
    epoch: int


@dataclass(frozen=True, slots=True)
class EpochFinished:
    """Every split of the epoch was delivered and proven; the digest is in delivered order."""

    job: str
    stream: int
    epoch: int
    count: int
    total: int
    chain: int


@dataclass(frozen=True, slots=True)
class EpochAbandoned:
    """The client gave the epoch up."""

    job: str
    stream: int
    epoch: int


@dataclass(frozen=True, slots=True)
class WorkerRegistered:
    """A worker process introduced itself."""

    worker: str
    incarnation: str
    address: str
    unix_path: str
    host_id: str
    slots: int
    standby: bool
    tensorflow_version: str
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker counts as dead; its attempts are void."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerPromoted:
    """A standby gets work from now on."""

    worker: str


@dataclass(frozen=True, slots=True)
class AttemptAssigned:
    """A worker is to run a split; `trial` is 1 for its first production in this epoch."""

    attempt: int
    job: str
    stream: int
    epoch: int
    split: int
    worker: str
    trial: int

    @property
    def epoch_key(self) -> tuple[str, int, int]:
        """The epoch that it belongs to: (job, stream, epoch)."""
        return self.job, self.stream, self.epoch


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The worker could not produce the split."""

    attempt: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class AttemptDropped:
    """The attempt is void through no fault of the split; another one is needed."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class SplitDelivered:
    """The client has the whole split, and its digest agreed with the worker's."""

    job: str
    stream: int
    epoch: int
    split: int
    count: int
    total: int
    chain: int


@dataclass(frozen=True, slots=True)
class DatasetCacheable:
    """Workers can cache splits of the dataset; datasets that share a key share the segments."""

    fingerprint: str
    key: str


@dataclass(frozen=True, slots=True)
class JobCaching:
    """How the job uses caches from now on: `off`, `put`, `on` or `auto`."""

    job: str
    mode: str


@dataclass(frozen=True, slots=True)
class StoreAttached:
    """A worker has a cache directory, which others may have, too."""

    worker: str
    store: str
    limit: int


@dataclass(frozen=True, slots=True)
class SplitsCached:
    """A store holds the segments of these splits."""

    store: str
    key: str
    splits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SplitsUncached:
    """A store does not hold them any more."""

    store: str
    key: str
    splits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PositionCommitted:
    """The trainer's word that a position is safe; `sequence` counts its client's commits."""

    job: str
    sequence: int
    epoch: int
    consumed: int
    position: str


@dataclass(frozen=True, slots=True)
class JobRewound:
    """The job's client resumes at a position: the epoch that comes next, for each stream."""

    job: str
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EpochResumed:
    """An epoch that was just started goes on after these splits, a bit each."""

    job: str
    stream: int
    epoch: int
    delivered: bytes
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class CacheDecided:
    """Whether `auto` caches a dataset, and the sums of what was measured of its first splits."""

    key: str
    on: bool
    reason: str
    splits: int
    elements: int
    nbytes: int
    produce_us: int
    write_us: int
    read_us: int
    limit: int


Event: TypeAlias = (
    TermStarted
    | DatasetRegistered
    | JobOpened
    | ClientJoined
    | ClientLeft
    | JobFailed
    | JobClosed
    | EpochStarted
    | EpochFinished
    | EpochAbandoned
    | WorkerRegistered
    | WorkerLost
    | WorkerPromoted
    | AttemptAssigned
    | AttemptFailed
    | AttemptDropped
    | SplitDelivered
    | DatasetCacheable
    | JobCaching
    | StoreAttached
    | SplitsCached
    | SplitsUncached
    | CacheDecided
    | PositionCommitted
    | JobRewound
    | EpochResumed
)


def _is_unsigned(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: type(value) is list and all(map(check, value))


def _is_text(value: object) -> bool:
    return type(value) is str


#: How a field that is annotated so is checked, and what it is called in errors.
_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "int": (_is_unsigned, "an unsigned 64-bit integer"),
    "str": (_is_text, "a string"),
    "bool": (lambda value: type(value) is bool, "a boolean"),
    "bytes": (lambda value: type(value) is bytes, "bytes"),
    "tuple[int, ...]": (_is_list_of(_is_unsigned), "a list of unsigned 64-bit integers"),
    "tuple[str, ...]": (_is_list_of(_is_text), "a list of strings"),
}

_SIMPLE: Mapping[str, type[Any]] = {"int": int, "str": str, "bool": bool}

_KINDS: Mapping[str, type[Any]] = {kind.__name__: kind for kind in Event.__args__}
_FIELDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    name: tuple((field.name, str(field.type)) for field in dataclasses.fields(kind))
    for name, kind in _KINDS.items()
}


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of these attributes; `attrgetter` gives no tuple for one."""
    if len(names) == 1:
        return lambda event: (getattr(event, names[0]),)
    return attrgetter(*names)


_VALUES: Mapping[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    kind: _getter([field for field, _ in _FIELDS[name]]) for name, kind in _KINDS.items()
}
#: Of those kinds that hold numbers, strings and booleans only: the types of the fields, and what
#: gives the numbers (and one more, so that there are always two).
_PLAIN: Mapping[str, tuple[list[type[Any]], Callable[[list[Any]], tuple[Any, ...]]]] = {
    name: (
        [_SIMPLE[annotation] for _, annotation in fields],
        itemgetter(*numbers, numbers[0]),
    )
    for name, fields in _FIELDS.items()
    if all(annotation in _SIMPLE for _, annotation in fields)
    if (numbers := [at for at, (_, annotation) in enumerate(fields) if annotation == "int"])
}
_NOT_PLAIN: tuple[None, Callable[[list[Any]], tuple[Any, ...]]] = (None, tuple)


def values(event: Event) -> tuple[Any, ...]:
    """The fields of an event, in their order."""
    return _VALUES[type(event)](event)


def encode(event: Event) -> bytes:
    """The record of an event."""
    kind = type(event)
    packed: bytes = msgpack.packb((kind.__name__, VERSION, *_VALUES[kind](event)))
    return packed


def decode(record: bytes) -> Event:
    """The event of a record.

    Raises:
        JournalCorruptError: the record is no event that this version of penstock knows.
    """
    try:
        parts = msgpack.unpackb(record)
    except (ValueError, msgpack.UnpackException) as error:
        raise JournalCorruptError(f"a record is not msgpack: {error}") from None
    if type(parts) is not list or len(parts) < 2 or type(parts[0]) is not str:
        raise JournalCorruptError("a record is not a list [kind, version, fields...]")
    kind, version = parts[0], parts[1]
    del parts[:2]
    if kind not in _KINDS or version != VERSION:
        raise JournalCorruptError(
            f"a record is of kind {kind[:80]!r}, version {version!r}, which this version of"
            " penstock does not know"
        )
    # A restart may read a million of these: the usual ones are checked without a loop in Python.
    types, numbers = _PLAIN.get(kind, _NOT_PLAIN)
    if list(map(type, parts)) != types or min(numbers(parts)) < 0:
        parts = _checked(kind, parts)
    event: Event = _KINDS[kind](*parts)
    return event


def _checked(kind: str, parts: list[Any]) -> list[Any]:
    """The fields, checked one by one, and lists made tuples."""
    fields = _FIELDS[kind]
    if len(parts) != len(fields):
        raise JournalCorruptError(f"a {kind} record has {len(parts)} fields, not {len(fields)}")
    for (name, annotation), value in zip(fields, parts, strict=True):
        check, wanted = _CHECKS[annotation]
        if not check(value):
            raise JournalCorruptError(f"{name} of a {kind} record is not {wanted}")
    return [tuple(value) if type(value) is list else value for value in parts]


def as_dict(event: Event) -> dict[str, object]:
    """The event for people and tools: its kind and its fields by name."""
    return {"kind": type(event).__name__, **dataclasses.asdict(event)}

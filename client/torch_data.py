"""For PyTorch: an `IterableDataset` and a loader with a state. TensorFlow is not imported.

Each worker process of a `DataLoader` is a client with a job of its own, of the same seed; it reads
the lanes `l` with `l % workers == worker`, so no element is sent twice. Nothing is shared between
the processes: a share is simply a position at which all other lanes are at their ends.
"""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PositionError, UsageError
from ..proto.position import Cursor, Position
from .arrays import nested
from .history import dealt, place_of
from .positions import position_in
from .reader import Reader
from .restoring import checked_consumed

try:
    from torch.utils.data import IterableDataset as _Base
    from torch.utils.data import get_worker_info
except ImportError:  # the dataset can be iterated without PyTorch, too
    _Base = object

    def get_worker_info() -> Any:
        return None


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """Where one of several processes is in its part of an epoch.

    Attributes:
        epoch: the epoch.
        position: the text of where it is; empty at the beginning.
        over: it has had all of its part.
    """

    epoch: int
    position: str = ""
    over: bool = False


class TorchDataset(_Base):  # type: ignore[misc]
    """A registered dataset as a `torch.utils.data.IterableDataset`; an iteration is an epoch.

    For a `DataLoader` with any number of workers (started by "spawn" or "forkserver": gRPC does
    not survive a fork). Only without workers, its own `state_dict()` says where a trainer is; with
    workers, that of a `TorchLoader` does.

    Args:
        fingerprint: of a registered dataset (`penstock explain` tells it, or `Reader(...).plan`).
        service: `host:port` of the dispatcher.
        seed: of the order; None draws one. It is the same in all processes of a loader.
        structure: see `ArrayIterator`; by default elements are flat tuples.
        transform: called with every element, for instance to make tensors of strings.
        options: what else `Reader` takes; `job_name` and `restore` are not for several processes.

    Raises:
        UsageError: an argument is not accepted.
    """

    def __init__(
        self,
        fingerprint: str,
        service: str,
        *,
        seed: int | None = None,
        structure: Any = None,
        transform: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(fingerprint, str) or not isinstance(service, str):
            raise UsageError("fingerprint and service must be strings, to be sent to processes")
        unknown = {"job_name", "restore", "resumable", "ledger"} & set(options)
        if unknown:
            raise UsageError(f"{', '.join(sorted(unknown))}: not for several processes")
        self._fingerprint, self._service = fingerprint, service
        self._seed = secrets.randbits(63) if seed is None else seed
        self._structure, self._transform, self._options = structure, transform, options
        self._shares: list[Share] = []
        self._epoch = 0
        self._first = 0
        self._reader: Reader | None = None
        self._began: Share | None = None
        self._taken = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, from its beginning."""
        self._epoch, self._shares, self._first = checked_consumed("epoch", epoch), [], 0

    def __iter__(self) -> Iterator[Any]:
        """The rest of an epoch, or of this process' part of it."""
        worker = get_worker_info()
        rank, world = (0, 1) if worker is None else (worker.id, worker.num_workers)
        place = (rank + self._first) % world
        share = Share(self._epoch)
        if self._shares:
            share = self._shares[place]
        self._shares, self._first = [], 0
        self._epoch = share.epoch + 1
        self._began, self._taken, self._reader = share, 0, None
        if share.over:
            return
        at = Position.parse(share.position) if share.position else None
        with Reader(self._fingerprint, self._service, seed=self._seed, **self._options) as reader:
            reader.restore(at or self._begin(reader, share.epoch, place, world))
            reader.passes_over = world == 1  # several processes have to stay in step
            self._reader = reader
            for element in reader:
                assert reader.epoch is not None
                self._began = Share(reader.epoch)
                self._epoch = reader.epoch + 1
                self._taken += 1
                yield self._made(element)
            self._began, self._reader = Share(self._epoch - 1, over=True), None

    def share(self) -> Share:
        """Where this process is."""
        if self._reader is None:
            return self._began or Share(self._epoch)
        assert self._began is not None
        position = self._reader.position(self._taken)
        if position.epoch > self._began.epoch:
            return Share(self._began.epoch, over=True)
        return Share(self._began.epoch, str(position))

    def state_dict(self) -> dict[str, Any]:
        """Where the next element comes from, in a process that iterates by itself."""
        share = self.share()
        if share.over:
            share = Share(share.epoch + 1)
        if self._shares:
            share = self._shares[0]
        return state_of([share], 0, self._seed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration goes on where `state_dict` was called.

        Raises:
            PositionError: it is no such state, or one of another seed or number of workers.
        """
        self.start_at(*shares_of(state, 1, self._seed))

    def start_at(self, shares: list[Share], first: int) -> None:
        """The next iteration, in that many processes, goes on there; the `first` is first."""
        self._shares, self._first = shares, first
        self._epoch = shares[0].epoch
        self._began = self._reader = None

    @property
    def seed(self) -> int:
        """The seed of the order."""
        return self._seed

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets: everything but what is open."""
        return {**self.__dict__, "_reader": None, "_began": None}

    def _begin(self, reader: Reader, epoch: int, rank: int, world: int) -> Position:
        """The beginning of a process' part of an epoch."""
        job = reader.job
        if world > job.lanes:
            raise UsageError(
                f"{world} workers cannot share {job.lanes} lanes: pass lanes={world} or more"
            )
        (info,) = job.streams
        cursors = tuple(
            Cursor(0 if lane % world == rank else len(splits))
            for lane, splits in enumerate(dealt(job, 0, epoch))
        )
        place = dataclasses.replace(place_of(info, epoch), cursors=cursors, left=job.block)
        return position_in(job, self._fingerprint, epoch, 0, [place])

    def _made(self, element: tuple[Any, ...]) -> Any:
        # Copies: PyTorch wants arrays that may be written to.
        arrays = tuple(np.array(part) if np.ndim(part) else part for part in element)
        made = nested(self._structure, arrays)
        return made if self._transform is None else self._transform(made)


class _Tagging:
    """Collates in the worker, and says where the worker is then."""

    def __init__(self, dataset: TorchDataset, collate: Callable[[Any], Any]) -> None:
        self._dataset, self._collate = dataset, collate

    def __call__(self, rows: Any) -> Any:
        worker = get_worker_info()
        share = self._dataset.share()
        tag = (0 if worker is None else worker.id, share.epoch, share.position, share.over)
        return tag, self._collate(rows)


class TorchLoader:
    """A `DataLoader` over a `TorchDataset` that knows where the trainer is.

    Batches that workers have made ahead do not count, only those that were handed out.

    Args:
        dataset: what to load.
        batch_size: elements of a batch.
        num_workers: processes that load; 0 loads in this one.
        collate_fn: makes a batch of elements; by default PyTorch's.
        options: what else `DataLoader` takes.

    Raises:
        UsageError: PyTorch is not installed, or an option would undo the counting.
    """

    def __init__(
        self,
        dataset: TorchDataset,
        *,
        batch_size: int = 1,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        try:
            from torch.utils import data
        except ImportError:
            raise UsageError("TorchLoader needs PyTorch: pip install torch") from None
        if options.get("persistent_workers"):
            raise UsageError("persistent_workers is not supported: workers start anew each epoch")
        if num_workers:
            options.setdefault("multiprocessing_context", "spawn")
        self._dataset = dataset
        self._workers = max(1, num_workers)
        self._shares = [Share(0) for _ in range(self._workers)]
        self._next = 0
        self._loader = data.DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=_Tagging(dataset, collate_fn or data.default_collate),
            **options,
        )

    def __iter__(self) -> Iterator[Any]:
        """The rest of an epoch, in batches; the next one, if nothing is left of it."""
        resumed, some = True, False
        while resumed and not some:
            first = self._next
            resumed = any(share.position or share.over for share in self._shares)
            self._dataset.start_at(list(self._shares), first)
            for (worker, epoch, position, over), batch in self._loader:
                place = (worker + first) % self._workers
                self._shares[place] = Share(epoch, position, over)
                self._next = (place + 1) % self._workers
                some = True
                yield batch
            self._shares = [Share(share.epoch + 1) for share in self._shares]
            self._next = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch comes from."""
        return state_of(self._shares, self._next, self._dataset.seed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration goes on where `state_dict` was called.

        Raises:
            PositionError: it is no such state, or one of another seed or number of workers.
        """
        self._shares, self._next = shares_of(state, self._workers, self._dataset.seed)


def state_of(shares: list[Share], first: int, seed: int) -> dict[str, Any]:
    """Shares as a state, of plain values only."""
    return {
        "version": 1,
        "seed": seed,
        "workers": len(shares),
        "next": first,
        "shares": [[share.epoch, share.position, share.over] for share in shares],
    }


def shares_of(state: Mapping[str, Any], workers: int, seed: int) -> tuple[list[Share], int]:
    """The inverse of `state_of`.

    Raises:
        PositionError: it is no state, or not one of so many workers and this seed.
    """
    try:
        version, rows = state["version"], state["shares"]
        shares = [Share(int(epoch), str(text), bool(over)) for epoch, text, over in rows]
        found = [
            f"{name} is {have}, it was {want}"
            for name, have, want in (
                ("version", 1, version),
                ("workers", workers, len(shares)),
                ("seed", seed, state["seed"]),
            )
            if have != want
        ]
        first = int(state["next"])
    except (KeyError, TypeError, ValueError) as error:
        raise PositionError(f"this is no state of a loader: {error!r}") from None
    if found or not 0 <= first < workers:
        raise PositionError(f"the state is one of something else: {'; '.join(found) or 'next'}")
    return shares, first

"""What an attempt needs to be produced: its stream, and the way by which its elements are made."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..failpoints import failpoint
from ..graph import load_stream
from .cached import run_cached
from .checkpointing import Cost
from .datasets import DatasetCache
from .fed import Fed, FedSplits, IdleIterators
from .link import DATASET
from .messages import AttemptError
from .pipeline import run_attempt
from .rate import Rate
from .recorder import Recorder

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from ..graph import LoadedStream
    from ..proto.hashing import Digest
    from .cache import Cache
    from .checkpointing import Interval
    from .keeper import Keeper
    from .messages import Assignment
    from .producers import Outlet


@dataclass(frozen=True, slots=True)
class _Known:
    """A stream, and what was found out about it."""

    stream: LoadedStream
    rate: Rate
    cost: Cost
    fed: FedSplits


class Production:
    """Produces attempts. Thread-safe.

    Args:
        fetch: gets the blob of a stream by its fingerprint; may block and raise.
        interval: of checkpoints.

    Attributes:
        keeper: of checkpoints, if there are any; set before the first attempt, as is
        cache: the worker's, if it has one.
    """

    def __init__(self, fetch: Callable[[str], bytes], interval: Interval) -> None:
        self._fetch = fetch
        self._interval = interval
        self._streams = DatasetCache(self._load)
        self._idle = IdleIterators()
        self.keeper: Keeper | None = None
        self.cache: Cache | None = None

    def produce(self, assignment: Assignment, outlet: Outlet) -> Digest | None:
        """Makes an attempt's elements.

        Returns:
            Their digest; None if it was stopped.

        Raises:
            AttemptError: they cannot be made.
        """
        known = self._streams.get(assignment.dataset)
        stream, rate, stopped = known.stream, known.rate, outlet.stopped
        if assignment.bad:  # what is left out is of this job alone: not for caches or checkpoints
            return run_attempt(stream, assignment, outlet.put, rate, stopped)
        make = functools.partial(Recorder, self.keeper, known.cost, outlet, assignment)
        if self.cache is not None and stream.cache is not None and assignment.cache != "off":
            return run_cached(self.cache, stream, assignment, outlet, rate, make)
        fed = Fed(known.fed, assignment)
        outlet.later(fed.prepare)
        return run_attempt(stream, assignment, outlet.put, rate, stopped, make(), fed)

    def probe(self, assignment: Assignment, stopped: threading.Event) -> Digest | None:
        """A split's digest; what is made of it is let go.

        Raises:
            AttemptError: it cannot be made.
        """
        known = self._streams.get(assignment.dataset)
        return run_attempt(known.stream, assignment, lambda _: True, known.rate, stopped)

    def _load(self, fingerprint: str) -> _Known:
        failpoint("worker.dataset.before_fetch")
        blob = self._fetch(fingerprint)
        failpoint("worker.dataset.after_fetch")
        try:
            stream = load_stream(blob)
        except Exception as error:
            raise AttemptError(DATASET, f"dataset {fingerprint}: {error}") from error
        return _Known(stream, Rate(), Cost(self._interval), FedSplits(stream, self._idle))

"""`Reader`: a dataset from the service as numpy, and the handle of a distributed tf.data pipeline.

Reading a registered dataset by its fingerprint needs no TensorFlow: elements are flat tuples of
numpy arrays, in the order of the dataset's dense components. A `tf.data.Dataset` is analysed
first (in `dataset`, which imports TensorFlow) and its elements are nested as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .events import EndOfEpoch
from .options import checked_flag, checked_options
from .runs import LARGE_BYTES, empty_run, runs_of
from .session import Session

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from ..proto.hashing import Digest
    from ..timing import Timing
    from .epoch import EpochReader
    from .runs import Arrays

_FINGERPRINT_CHARACTERS_MAX = 128


class Reader:
    """Reads a dataset through the service: one epoch for each iteration.

    Use it as a context manager, or call `close`; it is closed at exit, too. Nothing is connected
    to before the first iteration.

    Args:
        dataset: a `tf.data.Dataset`, or the fingerprint of a registered one.
        service: `host:port` of the dispatcher, several separated by commas; an object with such
            an `address`, as `LocalCluster`; None starts a cluster on this machine.
        job_name: names the job, so that it outlives this process; None for one of its own.
        seed: decides the order and the randomness of every epoch; None for one drawn at random.
        lanes: number of lanes; by default 16, or 1 where the order must be the source's.
        block: elements of a lane before the next one's turn; by default about 256 KiB worth,
            or 4 MiB where the splits themselves are mixed.
        deterministic: False takes elements in whatever order they arrive.
        ordered: for a fingerprint only: splits in source order, never permuted.
        exact: for a dataset only: see `penstock.graph.analyse`.
        strict: for a dataset only: what a replay cannot reproduce is an error.
        ledger: directory that gets a record of every element, for `penstock audit`.
        attempts_max: failed productions of one split before the job fails.
        memory_limit: bytes that may be buffered, but for one chunk of each lane.
        cache: see `distribute`.
        cache_dir: see `distribute`.
        element_spec: for a dataset only: the spec that it is expected to have.
        timing: intervals and deadlines.

    Attributes:
        plan: the analysed dataset (`penstock.graph.Plan`); None when read by fingerprint.
        seed: the job's seed, where it is known before the job is opened.
        epoch: the number, within the job, of the epoch that was begun last; None before.
        error: what ended the latest iteration, or None. tf.data shows it as text only.

    Raises:
        UsageError: an argument is not accepted; the message names it.
        NotShippableError: the dataset cannot run in another process.
        SpecMismatchError: the dataset has not the expected `element_spec`.
    """

    def __init__(
        self,
        dataset: Any,
        service: Any = None,
        *,
        job_name: str | None = None,
        seed: int | None = None,
        lanes: int | None = None,
        block: int | None = None,
        deterministic: bool = True,
        ordered: bool = False,
        exact: bool = True,
        strict: bool = False,
        ledger: str | os.PathLike[str] | None = None,
        attempts_max: int = 3,
        memory_limit: int = 256 << 20,
        cache: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        element_spec: Any = None,
        timing: Timing | None = None,
    ) -> None:
        options = checked_options(
            job_name=job_name,
            seed=seed,
            lanes=lanes,
            block=block,
            ordered=ordered,
            deterministic=deterministic,
            attempts_max=attempts_max,
            ledger=ledger,
            memory_limit=memory_limit,
            cache=cache,
            cache_dir=cache_dir,
            timing=timing,
        )
        exact, strict = checked_flag("exact", exact), checked_flag("strict", strict)
        self.plan: Any = None
        self.error: BaseException | None = None
        self._idle_s = options.timing.heartbeat_s
        self.epoch: int | None = None
        self._iterations = 0
        if isinstance(dataset, str):
            if not dataset or len(dataset) > _FINGERPRINT_CHARACTERS_MAX:
                raise UsageError(f"{dataset[:80]!r} is not the fingerprint of a dataset")
            self._session = Session(service, dataset, options)
        else:
            from .dataset import planned

            self.plan, streams, options = planned(
                dataset, options, exact=exact, strict=strict, element_spec=element_spec
            )
            self._session = Session(service, streams, options)
        self.seed = options.seed

    @property
    def digests(self) -> Mapping[int, Digest]:
        """The digest of every epoch that was delivered whole, by its number.

        Of the first stream, if the pipeline has several sources; see `stream_digests`.
        """
        streams = self.stream_digests
        return streams[0] if streams else {}

    @property
    def stream_digests(self) -> tuple[Mapping[int, Digest], ...]:
        """`digests` of every stream of the pipeline."""
        return tuple(dict(digests) for digests in self._session.digests)

    @property
    def epochs(self) -> int:
        """Number of epochs that were delivered whole."""
        return len(self.digests)

    def dataset(self) -> Any:
        """A `tf.data.Dataset` of the elements; each iteration of it is the next epoch."""
        from .dataset import dataset_of

        return dataset_of(self, seed=self.seed, epoch=self._iterations)

    def components(self, stream: int = 0) -> Any:
        """The types of a stream's dense components; connects if that is needed to know them."""
        if self.plan is not None:
            return self.plan.streams[stream].components
        return self._session.components(stream)

    def __iter__(self) -> Iterator[Any]:
        """One epoch, element by element, in numpy."""
        if self.plan is not None:
            elements = self.dataset().as_numpy_iterator()
            self._iterations += 1
            yield from elements
            return
        for arrays in self.runs():
            for index in range(len(arrays[0])):
                yield tuple(array[index] for array in arrays)

    def runs(
        self, stream: int = 0, *, idle: bool = False, large_bytes: int = LARGE_BYTES
    ) -> Iterator[Arrays]:
        """One epoch of a stream, as runs of stacked elements of equal shapes.

        Args:
            stream: which one.
            idle: yield an empty run now and then while nothing comes, so that the consumer can
                look after other things.
            large_bytes: a run of so many bytes comes as a view of what was received; smaller ones
                are joined, which copies them.
        """
        reader: EpochReader | None = None
        try:
            reader = self._session.read(stream)
            self.epoch = reader.epoch
            nothing = empty_run(self.components(stream)) if idle else ()
            while True:
                taken = reader.take(timeout_s=self._idle_s if idle else None)
                if isinstance(taken, EndOfEpoch):
                    return
                if taken is None:
                    yield nothing
                else:
                    yield from runs_of(taken.pieces, large_bytes)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise
        finally:
            if reader is not None:
                reader.close()

    def close(self) -> None:
        """Frees everything here and at the service; an unnamed job ends. Closing twice is fine."""
        self._session.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

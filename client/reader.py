"""`Reader`: a dataset from the service as numpy, and the handle of a distributed tf.data pipeline.

Reading a registered dataset by its fingerprint needs no TensorFlow: elements are flat tuples of
numpy arrays, in the order of the dataset's dense components. A `tf.data.Dataset` is analysed
first (in `dataset`, which imports TensorFlow) and its elements are nested as there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..proto.position import Position
from .columns import AsColumns
from .options import checked_flag, checked_options
from .positions import Positions, counting_of
from .restoring import checked_consumed, checked_restore, completed, shared_counting
from .runs import LARGE_BYTES, Stacked, epoch_runs
from .session import COMMITTED, Session

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from ..proto.hashing import Digest
    from ..proto.position import Consumer
    from ..security.settings import Security
    from ..timing import Timing
    from .columns import Columns
    from .opened import OpenedJob
    from .options import JobOptions
    from .runs import Arrays, Form, T

_FINGERPRINT_CHARACTERS_MAX = 128


class Reader:
    """Reads a dataset through the service: one epoch for each iteration.

    Use it as a context manager, or `close` it; it is closed at exit, too. It connects when used.

    Args:
        dataset: a `tf.data.Dataset`, or the fingerprint of a registered one.
        service: `host:port` of the dispatcher, several separated by commas; an object with such
            an `address`, as `LocalCluster`; None starts a cluster on this machine.
        job_name: names the job, so that it outlives this process; None for one of its own.
        seed: decides the order and the randomness of every epoch; None for one drawn at random.
        ordered: for a fingerprint only: splits in source order, never permuted.
        exact: for a dataset only: see `penstock.graph.analyse`.
        strict: for a dataset only: what a replay cannot reproduce is an error.
        lanes, block, deterministic, ledger, attempts_max, memory_limit, cache, cache_dir,
            failover_extension, on_bad_element, max_bad: see `distribute`.
        element_spec: for a dataset only: the spec that it is expected to have.
        restore: where to go on: a `Position`, its text, or "committed" for the position of
            `job_name` that was committed last (or the job's next epoch, if none was).
        resumable: for a dataset only: `restore` may be called after `dataset()`, which then
            declares no cardinality.
        consumer: (rank, world): `world` processes share the job `job_name`, this one reads the
            lanes `l` with `l % world == rank`; see docs/elastic.md.
        timing: intervals and deadlines.
        security: certificates and token; by default the cluster's own, or as the environment says.

    Attributes:
        plan: the analysed dataset (`penstock.graph.Plan`); None when read by fingerprint.
        seed: the job's seed, where it is known before the job is opened.
        epoch: the number, within the job, of the epoch that was begun last; None before, and when
            it was restored.
        passes_over: of a restored epoch nothing may be left: the next one then follows at once.
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
        failover_extension: str | None = None,
        on_bad_element: str = "fail",
        max_bad: int = 10,
        element_spec: Any = None,
        restore: Position | str | None = None,
        resumable: bool = False,
        consumer: tuple[int, ...] | None = None,
        timing: Timing | None = None,
        security: Security | None = None,
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
            failover_extension=failover_extension,
            on_bad_element=on_bad_element,
            max_bad=max_bad,
            timing=timing,
            consumer=consumer,
            security=security,
        )
        at = checked_restore(restore, options.job_name)
        self.error: BaseException | None = None
        self.epoch: int | None = None
        self._service = service
        self._resumable = checked_flag("resumable", resumable) or bool(at or consumer)
        self._made_once = False
        self.passes_over = True
        self._analyse(dataset, completed(options, at), exact, strict, element_spec)
        self._session = self._open(at)

    def _analyse(
        self, dataset: Any, options: JobOptions, exact: bool, strict: bool, element_spec: Any
    ) -> None:
        """Finds out what is to be read, and how its elements are counted."""
        exact, strict = checked_flag("exact", exact), checked_flag("strict", strict)
        self.plan: Any = None
        if isinstance(dataset, str):
            if not 0 < len(dataset) <= _FINGERPRINT_CHARACTERS_MAX:
                raise UsageError(f"{dataset[:80]!r} is not the fingerprint of a dataset")
            streams: Any = dataset
        else:
            from .dataset import planned

            self.plan, streams, options = planned(
                dataset, options, exact=exact, strict=strict, element_spec=element_spec
            )
        self._streams, self._options = streams, options
        counting = counting_of(self.plan, dataset if self.plan is None else "")
        self._counting = shared_counting(counting, options, self._service, self.plan)
        self.seed = options.seed

    def _open(self, at: Position | str | None) -> Session:
        """A session that is not connected yet."""
        self._iterations, self._dropped = at.epoch if isinstance(at, Position) else 0, at is None
        session = Session(self._service, self._streams, self._options, self._counting, at)
        if at == COMMITTED and self._counting.random:
            # What the client's part draws depends on where the job goes on.
            session.start()
            if session.origin is not None:
                self._iterations, self.seed = session.origin.epoch, session.origin.seed
        return session

    @property
    def digests(self) -> Mapping[int, Digest]:
        """The digest of every epoch that was delivered whole, by its number.

        Of the first stream, if the pipeline has several sources; see `stream_digests`.
        """
        return next(iter(self.stream_digests), {})

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
        self._made_once = True
        return self._dataset()

    def _dataset(self) -> Any:
        from .dataset import dataset_of

        return dataset_of(self, seed=self.seed, epoch=self._iterations, resumable=self._resumable)

    def position(self, consumed: int, *, epoch: int | None = None, batch: int = 1) -> Position:
        """Where a trainer is that took `consumed` elements.

        An element is one of the distributed dataset. What lies between it and the trainer (a
        prefetch, a batch) has taken more, which does not matter. The end of an epoch is the same
        as the beginning of the next one.

        Args:
            consumed: how many; counted since the reader was made or restored, over all epochs,
                which must have been read to their ends. Never fewer than the last time.
            epoch: the epoch of the job in which they are counted, from its beginning.
            batch: count batches of so many elements, made after the service; each epoch's last one
                may be smaller.

        Raises:
            UsageError: so many were not delivered, or are too long ago; the message says what may
                be asked for.
        """
        number, batch = checked_consumed("consumed", consumed), checked_consumed("batch", batch, 1)
        epoch = None if epoch is None else checked_consumed("epoch", epoch)
        session = self._session
        history = session.start().history
        positions = Positions(history, self._counting, session.origin, rebuilt=not self._made_once)
        return positions.at(number, epoch, batch)

    def commit(
        self, consumed: int | Position, *, epoch: int | None = None, batch: int = 1
    ) -> Position:
        """Has a position journaled at the dispatcher: the trainer's checkpoint holds it.

        `restore="committed"` then goes on there, in whatever process. Durable when this returns.

        Args:
            consumed: a position of this job, or what `position` takes.
            epoch, batch: see `position`.

        Returns:
            The position.

        Raises:
            UsageError: see `position`.
            RefusedError: another client has the job by now.
        """
        at = consumed
        if not isinstance(at, Position):
            at = self.position(at, epoch=epoch, batch=batch)
        self._session.commit(at)
        return at

    def restore(self, position: Position | str, *, consumer: tuple[int, ...] | None = None) -> None:
        """Goes on at a position: the next iteration is the rest of its epoch.

        What is open is given up. Counts begin anew: see `position`.

        Args:
            position: what `position` or `commit` gave, its text, or "committed".
            consumer: another one than until now: see `penstock.elastic`.

        Raises:
            PositionError: it is damaged, or not one of this pipeline, seed and settings.
            UsageError: a dataset was made that declares how many elements it has.
        """
        at = checked_restore(position, self._options.job_name)
        if self._made_once and not self._resumable:
            raise UsageError(
                "a dataset of this reader declares its number of elements, which a restored epoch"
                " does not have: pass resumable=True, or restore before making the dataset"
            )
        if self._made_once and self._counting.random:
            raise UsageError(
                "the client's part of the pipeline draws at random, and a dataset of it was made:"
                " make another reader, with restore="
            )
        options, self._options = self._options, completed(self._options, at, consumer)
        try:
            opened = self._open(at)
        except UsageError:
            self._options = options
            raise
        self._session.close()
        self._session, self._resumable, self.epoch = opened, True, None
        self.seed = self._options.seed

    @property
    def resumable(self) -> bool:
        """Whether it may be restored: no dataset was made that declares its number of elements."""
        return self._resumable or not self._made_once

    def report_step(self, step: int) -> None:
        """Says at which step the trainer is, for `FailureInfo.trainer_step`.

        Raises:
            UsageError: it is no whole number >= 0.
        """
        self._session.stepped(checked_consumed("step", step))

    def record_skip(self, epoch: int, first: int, count: int, why: str) -> None:
        """Has the ledger, if there is one, say that the trainer left elements out.

        Args:
            epoch: of the job.
            first: number of the first one within the epoch.
            count: how many.
            why: in a line.
        """
        self._session.record_skip(epoch, first, count, why)

    def components(self, stream: int = 0) -> Any:
        """The types of a stream's dense components; connects if that is needed to know them."""
        if self.plan is not None:
            return self.plan.streams[stream].components
        return self._session.components(stream)

    def __iter__(self) -> Iterator[Any]:
        """One epoch, element by element, in numpy."""
        if self.plan is not None:
            elements = self._dataset().as_numpy_iterator()
            self._iterations += 1
            yield from elements
            return
        for arrays in self.runs():
            yield from zip(*arrays, strict=True)

    def runs(
        self, stream: int = 0, *, idle: bool = False, large_bytes: int = LARGE_BYTES
    ) -> Iterator[Arrays]:
        """One epoch of a stream, as runs of stacked elements of equal shapes.

        Args:
            stream: which one.
            idle: yield an empty run now and then while nothing comes.
            large_bytes: a run of so many bytes is a view of what was received, others are joined.
        """
        return self._runs(stream, Stacked(large_bytes), idle)

    def columns(self, stream: int = 0, *, idle: bool = False) -> Iterator[Columns]:
        """As `runs`, but of elements whatever their shapes: a column for each component."""
        return self._runs(stream, AsColumns(), idle)

    def _runs(self, stream: int, form: Form[T], idle: bool) -> Iterator[T]:
        try:
            idle_s = self._options.timing.heartbeat_s if idle else None
            nothing = form.nothing(self.components(stream)) if idle else None
            began = partial(self._begin, stream)
            yield from epoch_runs(self._session, stream, began, form, nothing, idle_s)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise

    def _begin(self, stream: int, epoch: int) -> int:
        """An epoch begins; returns how many elements it has to have, else the next one follows."""
        self.epoch = epoch
        # Of a resumed epoch, what is too little to give anything is the former life's.
        resumed = self._session.start().history.resumes(stream, epoch)
        return self._counting.least(stream) if resumed and self.passes_over else 0

    @property
    def consumer(self) -> Consumer | None:
        """Which of several consumers this is to be; `job` says which it is."""
        return self._options.consumer

    @property
    def session(self) -> Session:
        """The reader's own client, for `penstock.elastic`; `restore` makes another one."""
        return self._session

    @property
    def job(self) -> OpenedJob:
        """The job at the dispatcher; connects if that is needed."""
        return self._session.start().history.job

    @property
    def origin(self) -> Position | None:
        """Where this reader was restored, if it was; known for "committed" once it reads."""
        return self._session.origin

    @property
    def cardinality(self) -> int:
        """Elements of an iteration; negative if that is not known, or no number."""
        return self._counting.cardinality

    @property
    def replays(self) -> bool:
        """Whether an epoch that is resumed is read from its beginning."""
        return self._counting.rates is None

    def take_drop(self) -> int:
        """How many elements the iteration that begins now drops at its beginning."""
        if self._dropped:
            return 0
        self._dropped = True
        self._session.start()
        origin = self._session.origin
        return origin.consumed if origin is not None and origin.replayed else 0

    def close(self) -> None:
        """Frees everything here and at the service; an unnamed job ends. Closing twice is fine."""
        self._session.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

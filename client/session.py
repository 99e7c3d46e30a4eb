"""One consumption of one job: opened at first use; closed by its user, at exit or when dropped."""

from __future__ import annotations

import atexit
import logging
import secrets
import threading
import weakref
from typing import TYPE_CHECKING, Any

import msgpack

from ..errors import NotFoundError, RefusedError, UsageError
from ..failpoints import failpoint
from ..proto import control_pb2
from ..proto.spec import ComponentSpec
from .control import Control, parse_service
from .engine import Engine, OpenedJob
from .epoch import EpochReader, StreamInfo
from .ledger import Ledger
from .options import DEFAULT_LANES, default_block
from .position import Position
from .positions import Counting, check_options, check_streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..proto.hashing import Digest
    from .options import JobOptions

logger = logging.getLogger(__name__)

#: The position that was committed last, whatever it is.
COMMITTED = "committed"


class Session:
    """Reads the streams of one job, one epoch after the other.

    Args:
        service: addresses of the dispatcher, a `LocalCluster`, or None to start one.
        streams: what to read, or the fingerprint of one registered dataset.
        options: how.
        counting: how elements are counted.
        restore: where to go on; `COMMITTED` for the job's last committed position, if it has one.

    Attributes:
        origin: where this session goes on, once that is known.

    Raises:
        UsageError: `service` is none, or has workers that were told their cache directory.
    """

    def __init__(
        self,
        service: object,
        streams: Sequence[StreamInfo] | str,
        options: JobOptions,
        counting: Counting | None = None,
        restore: Position | str | None = None,
    ) -> None:
        self._addresses = None if service is None else parse_service(service)
        if options.cache_dir is not None and service is not None:
            raise UsageError(
                "cache_dir is for a cluster that is started here (service=None); give the workers"
                " of a service --cache-dir"
            )
        self._service = service  # a LocalCluster must live as long as we do
        self._streams = streams
        self._options = options
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._control: Control | None = None
        self._closed = False
        self._counting = counting or Counting("")
        self._committed = restore == COMMITTED
        self._commits = 0
        self.origin = restore if isinstance(restore, Position) else None
        if self.origin is not None:
            check_options(self.origin, self._counting, options)

    @property
    def digests(self) -> tuple[Mapping[int, Digest], ...]:
        """For each stream, the digest of every epoch that was delivered whole."""
        return self._engine.digests if self._engine is not None else ()

    def start(self) -> Engine:
        """Opens the job, if it is not open; connects to the dispatcher, which may take long.

        Raises:
            UnavailableError: no dispatcher answered within `connect_deadline_s`.
            RefusedError: the dispatcher refused, or the session is closed.
        """
        with self._lock:
            if self._engine is None:
                if self._closed:
                    raise RefusedError("this client is closed")
                self._engine = self._open()
            return self._engine

    def read(self, stream: int = 0) -> EpochReader:
        """Opens the next epoch of a stream, to be taken from or closed."""
        return self.start().read(stream)

    def components(self, stream: int = 0) -> tuple[ComponentSpec, ...]:
        """The types of a stream's elements."""
        return self.start().components(stream)

    def commit(self, position: Position) -> None:
        """Has a position journaled at the dispatcher; returns when it is."""
        text = str(position)
        control, job = self.start_control()
        with self._lock:
            self._commits += 1
            sequence = self._commits
        control.commit(
            control_pb2.CommitPositionRequest(
                job=job.job,
                client=job.client,
                term=job.term,
                sequence=sequence,
                epoch=position.epoch,
                consumed=position.consumed,
                position=text,
            )
        )

    def start_control(self) -> tuple[Control, OpenedJob]:
        """The dispatcher, and the job, which is opened if it is not open."""
        engine = self.start()
        assert self._control is not None
        return self._control, engine.history.job

    def close(self) -> None:
        """Frees everything, here and at the dispatcher. Closing twice is fine."""
        self._closed = True
        control = self._control
        if self._engine is None and control is not None:
            control.close()  # ends a start that is under way
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                atexit.unregister(self._engine.close)

    def _open(self) -> Engine:
        options = self._options
        if self._addresses is None:
            from .embedded import LocalCluster

            logger.info("starting a cluster on this machine")
            cluster = LocalCluster(cache_dir=self._options.cache_dir)
            weakref.finalize(self, cluster.close)
            self._addresses = parse_service(cluster)
        self._control = control = Control(self._addresses, options.timing)
        try:
            self._find_start(control)
            engine = self._open_job(control, _resolve(control, self._streams))
        except BaseException:
            control.close()
            raise
        engine.start()
        # At exit threads are joined, within a bound; a finaliser may not wait.
        atexit.register(engine.close)
        weakref.finalize(self, _drop, engine).atexit = False
        return engine

    def _find_start(self, control: Control) -> None:
        """Asks for the committed position, if that is where to go on."""
        text = control.committed(self._options.job_name or "") if self._committed else ""
        if text:
            self.origin = Position.parse(text)
            check_options(self.origin, self._counting, self._options)

    def _open_job(self, control: Control, streams: tuple[StreamInfo, ...]) -> Engine:
        options, client, start = self._options, secrets.token_hex(8), self.origin
        lanes = options.lanes or (1 if options.ordered else DEFAULT_LANES)
        block = options.block or _default_block(streams, lanes)
        if start is not None:
            check_streams(start, streams)
            block, lanes = start.block, start.lanes
        request = control_pb2.OpenJobRequest(
            job_name=options.job_name or "",
            client=client,
            streams=[stream.fingerprint for stream in streams],
            seed=options.seed if start is None else start.seed,
            lanes=lanes,
            block=block,
            ordered=options.ordered,
            attempts_max=options.attempts_max,
            failover_extension=options.failover_extension,
            on_bad_element=options.on_bad_element,
            max_bad=options.max_bad if options.on_bad_element != "fail" else 0,
            cache=options.cache or ("on" if any(s.cache_key for s in streams) else "off"),
            rewind=[stream.epoch for stream in start.streams] if start is not None else [],
        )
        failpoint("client.open_job.before_send")
        reply = control.open_job(request)
        failpoint("client.open_job.after_reply")
        logger.info("job %s, seed %d, %d lanes", reply.job, reply.seed, reply.lanes)
        job = OpenedJob(
            job=reply.job,
            client=client,
            term=reply.term,
            seed=reply.seed,
            lanes=reply.lanes,
            block=reply.block,
            ordered=options.ordered,
            deterministic=options.deterministic,
            next_epoch=tuple(reply.next_epoch),
            streams=streams,
        )
        ledger = None
        if options.ledger is not None:
            ledger = Ledger(
                options.ledger,
                job=reply.job,
                client=client,
                seed=reply.seed,
                streams=[stream.fingerprint for stream in streams],
            )
        return Engine(
            control,
            job,
            ledger=ledger,
            start=None if start is None else start.streams,
            memory_limit=options.memory_limit,
            timing=options.timing,
        )


def _drop(engine: Engine) -> None:
    """A session was collected without having been closed."""
    atexit.unregister(engine.close)
    engine.close_soon()


def _default_block(streams: Iterable[StreamInfo], lanes: int) -> int:
    """Elements of a block where the user said nothing: what suits all streams."""
    return min(
        default_block(
            stream.components, mixed=lanes == 1 or stream.permuted, blended=stream.blended
        )
        for stream in streams
    )


def _resolve(control: Control, streams: Sequence[StreamInfo] | str) -> tuple[StreamInfo, ...]:
    """Registers the streams, or looks the one up that is given by its fingerprint."""
    if isinstance(streams, str):
        info = control.describe(streams)
        if info is None:
            raise NotFoundError(
                f"no dataset {streams!r} is registered at the dispatcher at {control.address}"
            )
        return (
            StreamInfo(
                info.fingerprint,
                info.num_splits,
                tuple(info.weights) or None,
                info.replayable,
                _components(info.components),
                cache_key=info.cache_key,
            ),
        )
    for stream in streams:
        if stream.graph is None:
            raise UsageError(f"stream {stream.fingerprint} has no graph to register")
        control.put(
            control_pb2.DatasetInfo(
                fingerprint=stream.fingerprint,
                num_splits=stream.num_splits,
                weights=stream.weights or (),
                replayable=stream.replayable,
                components=msgpack.packb([spec.to_wire() for spec in stream.components]),
                graph_bytes=len(stream.graph),
                cache_key=stream.cache_key,
            ),
            stream.graph,
        )
    return tuple(streams)


def _components(packed: bytes) -> tuple[ComponentSpec, ...]:
    values: Any = msgpack.unpackb(packed)
    return tuple(ComponentSpec.from_wire(value) for value in values)

"""One consumption of one job: opened at first use; closed by its user, at exit or when dropped."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import secrets
import threading
import weakref
from typing import TYPE_CHECKING

from ..errors import RefusedError, UsageError
from ..failpoints import failpoint
from ..proto import control_pb2
from ..proto.position import Position
from ..proto.seats import GroupPosition
from ..security.access import Access
from ..security.settings import Security
from . import crash
from .control import Control, parse_service
from .engine import Engine
from .ledger import Ledger, Life
from .opening import ledger_of, open_request, opened_job, resolve
from .positions import Counting, check_options, check_streams
from .starts import Start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..proto.hashing import Digest
    from ..proto.spec import ComponentSpec
    from .epoch import EpochReader, StreamInfo
    from .opened import OpenedJob
    from .options import JobOptions

logger = logging.getLogger(__name__)

#: The position that was committed last, whatever it is.
COMMITTED = "committed"
#: A consumer waits for its seat a little longer than a silent former life of it may have it.
_PATIENCE = 1.25


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
        UsageError: `service` is none, or has workers that were told their cache directory, or a
            file of the security settings cannot be used.
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
        # A cluster that is started here has settings of its own, whatever the environment's.
        of_its_own = Security() if service is None and options.security is None else None
        self._access = Access.load(of_its_own or Security.of(options.security, service))
        self._service = service  # a LocalCluster must live as long as we do
        self._streams = streams
        self._options = options
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._control: Control | None = None
        self._ledger: Ledger | None = None
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
        engine = self.start()
        engine.committing(text, done=False)
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
        engine.committing(text, done=True)

    def stepped(self, step: int) -> None:
        """The trainer is at this step; the dispatcher is told with what it is told anyway."""
        if self._engine is not None:
            self._engine.trainer_step = step

    def record_skip(self, epoch: int, first: int, count: int, why: str) -> None:
        """Has the ledger, if there is one, say that the trainer left elements out."""
        if self._ledger is not None:
            self._ledger.skip(epoch, first, count, why)

    def join(self, member: str) -> control_pb2.JoinGroupReply:
        """Asks for a seat in the job's group anew, as the consumer that this one is, if any."""
        engine = self._engine
        if engine is not None:
            engine.check()
        if self._addresses is None:
            raise RefusedError("a cluster of this reader's own has no other consumers")
        # Of its own: the job is closed when the group is formed, and with it what belongs to it.
        control = Control(self._addresses, self._options.timing, self._access)
        try:
            return control.join(
                control_pb2.JoinGroupRequest(
                    group=self._options.job_name or "",
                    member=member,
                    job=engine.history.job.job if engine is not None else "",
                )
            )
        finally:
            control.close()

    def leave(self) -> None:
        """Closes, and leaves this consumer's lanes to the others."""
        self.start().leaving = True
        self.close()

    def give_up(self) -> None:
        """Closes; what this consumer was reading is left to the others."""
        engine = self._engine
        if engine is not None:
            engine.leaving = True
        self.close()

    def start_control(self) -> tuple[Control, OpenedJob]:
        """The dispatcher, and the job, which is opened if it is not open."""
        engine = self.start()
        engine.check()
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
            cluster = LocalCluster(cache_dir=options.cache_dir, security=options.security)
            weakref.finalize(self, cluster.close)
            self._addresses = parse_service(cluster)
        self._control = control = Control(self._addresses, options.timing, self._access)
        try:
            self._find_start(control)
            engine = self._open_job(control, resolve(control, self._streams))
        except BaseException:
            control.close()
            raise
        engine.start()
        crash.watch()
        # At exit threads are joined, within a bound; a finaliser may not wait.
        atexit.register(engine.close)
        weakref.finalize(self, _drop, engine).atexit = False
        return engine

    def _find_start(self, control: Control) -> None:
        """Asks for the committed position, if that is where to go on."""
        if not self._committed or self._options.consumer is not None:
            return  # a consumer learns it when it is seated
        text = control.committed(self._options.job_name or "")
        if text:
            self.origin = Position.parse(text)
            check_options(self.origin, self._counting, self._options)

    def _open_job(self, control: Control, streams: tuple[StreamInfo, ...]) -> Engine:
        options, client, origin = self._options, secrets.token_hex(8), self.origin
        if origin is not None:
            check_streams(origin, streams)
        request = open_request(options, streams, client, origin, committed=self._committed)
        failpoint("client.open_job.before_send")
        if options.consumer is None:
            reply = control.open_job(request)
        else:
            reply = control.open_seat(request, _PATIENCE * options.timing.client_timeout_s)
        failpoint("client.open_job.after_reply")
        logger.info("job %s, seed %d, %d lanes", reply.job, reply.seed, reply.lanes)
        job = opened_job(reply, options, client, streams)
        start = Start(None if origin is None else origin.streams)
        if job.consumer is not None:
            try:
                start = self._seated(reply, job, streams)
            except BaseException:
                control.close_client(job)
                raise
        self._ledger = ledger_of(options, job, self._life(request, reply, job))
        return Engine(
            control,
            job,
            ledger=self._ledger,
            start=start,
            memory_limit=options.memory_limit,
            timing=options.timing,
        )

    def _life(
        self,
        request: control_pb2.OpenJobRequest,
        reply: control_pb2.OpenJobReply,
        job: OpenedJob,
    ) -> Life:
        return Life(
            name=self._options.job_name or "",
            arrival=(request.term, request.arrival),
            start="" if self.origin is None else str(self.origin),
            consumer=None if job.consumer is None else job.consumer.row(),
            group_start=reply.group_position,
            splits=tuple(stream.num_splits for stream in job.streams),
            weights=tuple(stream.weights or () for stream in job.streams),
            replayable=tuple(stream.replayable for stream in job.streams),
            lanes=job.lanes,
            block=job.block,
            ordered=job.ordered,
            deterministic=job.deterministic,
        )

    def _seated(
        self, reply: control_pb2.OpenJobReply, job: OpenedJob, streams: Sequence[StreamInfo]
    ) -> Start:
        """Where one of several consumers goes on."""
        group = GroupPosition.parse(reply.group_position) if reply.group_position else None
        if group is not None:
            check_options(
                dataclasses.replace(group.base, consumer=job.consumer),
                self._counting,
                self._options,
            )
            check_streams(group.base, streams)
        if self._committed and reply.position:
            self.origin = Position.parse(reply.position)
            check_options(self.origin, self._counting, self._options)
            check_streams(self.origin, streams)
        origin = None if self.origin is None else self.origin.streams
        return Start(origin, job.consumer, group)


def _drop(engine: Engine) -> None:
    """A session was collected without having been closed."""
    atexit.unregister(engine.close)
    engine.close_soon()

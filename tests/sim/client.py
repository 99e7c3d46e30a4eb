"""A simulated trainer process: the real client engine, epoch readers and lane core, with links
that follow the rules of `client/stream.py`; `sync` has the long polls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc

from penstock.client.control import Backoff, Control, error_of, is_transient
from penstock.client.engine import Engine
from penstock.client.epoch import EpochReader, StreamInfo
from penstock.client.events import Delivery, EndOfEpoch
from penstock.client.links import Links
from penstock.client.opened import OpenedJob
from penstock.client.starts import Start
from penstock.client.stream import Target, WorkerLink
from penstock.client.sync import SyncLoop
from penstock.client.weave import Woven
from penstock.errors import PenstockError, UnavailableError, VerificationError
from penstock.proto import control_pb2
from penstock.proto.position import Consumer
from penstock.proto.wire import PROTOCOL_VERSION, FrameType
from penstock.security.access import OPEN
from penstock.worker.messages import SendChunk, SendEnd, SendFail, SendHashes

from .checks import Witness
from .clock import Process
from .dispatcher import HOST
from .gossip import MODES, key_of
from .net import Connection, SimRpcError
from .positions import Commits
from .sync import SimSync

if TYPE_CHECKING:
    from .world import World


class SimLink:
    """The connection to one worker, again and again; see `WorkerLink`."""

    def __init__(self, target: Target, trainer: SimTrainer) -> None:
        self.target = target
        self.alive = True
        self.process = trainer.process
        self._trainer = trainer
        self._world = trainer.world
        self._backoff = Backoff(trainer.world.setup.timing)
        self._connection: Connection | None = None
        self._up = False
        self._closed = False
        self._outbox: list[Any] = []

    def start(self) -> None:
        self.process.after(self._world.net.lag_s(), self._connect)

    def queue(self, kind: FrameType, header: dict[str, object]) -> None:
        if self._up:
            self._outbox.append((kind, header))

    def flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if self._connection is not None:
            for frame in outbox:
                self._connection.send(0, frame)

    def close(self) -> None:
        self._closed = True
        if self._connection is not None:
            self._hang_up()
            self.process.after(0, self._ended, "closed")

    def join(self, timeout_s: float) -> bool:
        return True

    def received(self, connection: Connection, message: Any) -> None:
        """A worker's frame."""
        engine = self._trainer.engine
        if connection is not self._connection or engine is None:
            return
        match message:
            case (FrameType.WELCOME, worker):
                if worker != self.target.worker:
                    self._hang_up()
                    self._ended(f"there is worker {worker!r} now")
                    return
                self._backoff.reset()
                self._up = True
                engine.link_up(cast(WorkerLink, self))
            case SendChunk(_, attempt, piece):
                self._chunk(engine, attempt, piece)
            case SendHashes(_, attempt, start, hashes):
                engine.hashes_came(attempt, start, hashes)
            case SendEnd(_, attempt, digest):
                engine.end_came(attempt, digest)
            case SendFail(_, attempt, code, detail):
                engine.fail_came(attempt, code, detail)
        self._trainer.look()

    def disconnected(self, connection: Connection, detail: str) -> None:
        """The connection is gone."""
        if connection is self._connection:
            self._connection = None
            self._ended(detail)

    def _chunk(self, engine: Engine, attempt: int, piece: Any) -> None:
        if engine.specs_of(attempt) is None:
            return
        try:
            piece.verify()
        except VerificationError as error:
            engine.corrupt_came(attempt, str(error))
            return
        engine.chunk_came(attempt, piece, piece.nbytes)

    def _connect(self) -> None:
        if self._closed:
            self.alive = False
            return
        net, host = self._world.net, self.target.address
        server = self._world.worker_at(host)
        if net.is_cut(self.process.name, host):
            # Nobody says no: it takes its time.
            self.process.after(self._world.setup.timing.rpc_deadline_s, self._ended, "timed out")
        elif server is None:
            self.process.after(net.lag_s(), self._ended, "connection refused")
        else:
            self._connection = net.connect(self, server, self.process.name, host)
            self._connection.send(0, (FrameType.HELLO, {}))

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(0)

    def _ended(self, detail: str) -> None:
        if not self.alive:
            return
        self._up = False
        self._outbox.clear()
        engine = self._trainer.engine
        assert engine is not None
        wanted = engine.link_down(cast(WorkerLink, self), detail)
        if wanted and not self._closed:
            self.process.after(self._backoff.next_s(), self._connect)
        else:
            self.alive = False
        self._trainer.look()


class SimLinks(Links):
    """The real book-keeping of links, of simulated ones."""

    trainer: SimTrainer

    def _make(self, target: Target) -> WorkerLink:
        return cast(WorkerLink, SimLink(target, self.trainer))


class SimControl:
    """What the engine asks of its `Control` besides the long polls."""

    access = OPEN

    def __init__(self, trainer: SimTrainer) -> None:
        self._trainer = trainer

    def close_client(self, job: Any, *, leaving: bool = False, step: int | None = None) -> None:
        request = control_pb2.CloseClientRequest(job=job.job, client=job.client, leaving=leaving)
        self._trainer.call("CloseClient", request, lambda reply: None, tries=1)

    def close(self) -> None:
        """Nothing is open."""


class SimTrainer:
    """One life of a trainer: opens its job, reads epoch after epoch, and takes its time.

    Args:
        world: where it lives.
        name: its host's name.
        witness: sees what it gets; survives it.
    """

    def __init__(self, world: World, name: str, witness: Witness) -> None:
        self.world = world
        self.name = name
        self.witness = witness
        self.process = Process(world.clock, name)
        self.client = f"{name}-{world.next_incarnation()}"
        self.engine: Engine | None = None
        self.error: PenstockError | None = None
        self.finished = False
        self._links: SimLinks | None = None
        self._reader: EpochReader | None = None
        self._commits = Commits(self)
        self._looking = False
        self._timing = world.setup.timing
        self.process.after(world.rng.uniform(0.01, 0.5), self._open)

    def look(self) -> None:
        """Something may have become available."""
        if not self._looking and self._reader is not None:
            self._looking = True
            self.process.after(0, self._take)

    def call(
        self, method: str, request: Any, then: Any, *, tries: int = 1 << 30, pause_s: float = 0.0
    ) -> None:
        """A call that is tried until it is answered, or refused for good."""
        started_s = self.world.clock.now_s

        def done(reply: Any, error: SimRpcError | None) -> None:
            if error is None:
                then(reply)
            elif not is_transient(error):
                self._fail(error_of(error, HOST))
            elif error.code() is grpc.StatusCode.ABORTED:
                self.process.after(self._timing.retry_min_s, self._announce)
            elif tries > 1:
                waited_s = self.world.clock.now_s - started_s
                again_s = min(2 * pause_s, self._timing.retry_max_s) or self._timing.retry_min_s
                if waited_s > self._timing.connect_deadline_s:
                    self._fail(UnavailableError(f"no dispatcher answers for {waited_s:.1f} s"))
                    return
                self.process.after(again_s, retry, again_s)

        def retry(again_s: float) -> None:
            self.call(method, request, then, tries=tries - 1, pause_s=again_s)

        self.world.net.call(self.process, HOST, method, request, self._timing.rpc_deadline_s, done)

    def _open(self) -> None:
        pipeline = self.witness.pipeline
        info = control_pb2.DatasetInfo(
            fingerprint=pipeline.fingerprint,
            num_splits=len(pipeline.sizes),
            weights=pipeline.weights,
            replayable=True,
            graph_bytes=5,
            cache_key=key_of(pipeline.fingerprint),
        )
        put = control_pb2.PutDatasetRequest
        parts = [put(info=info), put(part=b"graph")]
        self.call("PutDataset", parts, lambda reply: self._announce())

    def _announce(self) -> None:
        request = control_pb2.AnnounceClientRequest()
        self.call("AnnounceClient", request, self._open_job)

    def _open_job(self, announced: control_pb2.AnnounceClientReply) -> None:
        self._commits.find(lambda epochs: self._open_at(announced, epochs))

    def _open_at(self, announced: control_pb2.AnnounceClientReply, epochs: list[int]) -> None:
        self.call("OpenJob", self._request(announced, epochs), self._opened)

    def _request(
        self, announced: control_pb2.AnnounceClientReply, epochs: list[int]
    ) -> control_pb2.OpenJobRequest:
        pipeline = self.witness.pipeline
        return control_pb2.OpenJobRequest(
            protocol_version=PROTOCOL_VERSION,
            job_name=self.name,
            client=self.client,
            streams=[pipeline.fingerprint],
            seed=pipeline.seed,
            lanes=pipeline.lanes,
            block=pipeline.block,
            ordered=pipeline.ordered,
            attempts_max=pipeline.attempts_max,
            term=announced.term,
            arrival=announced.arrival,
            cache=MODES[pipeline.seed % len(MODES)],
            on_bad_element="quarantine" if pipeline.bad else "fail",
            max_bad=len(pipeline.bad),
            rewind=epochs,
        )

    def _opened(self, reply: Any) -> None:
        if self.engine is not None:
            return
        pipeline, setup = self.witness.pipeline, self.world.setup
        job = OpenedJob(
            job=reply.job,
            client=self.client,
            term=reply.term,
            seed=reply.seed,
            lanes=reply.lanes,
            block=reply.block,
            ordered=pipeline.ordered,
            deterministic=pipeline.deterministic,
            next_epoch=tuple(reply.next_epoch),
            streams=(
                StreamInfo(
                    pipeline.fingerprint, len(pipeline.sizes), pipeline.weights, True, (), b""
                ),
            ),
            consumer=self._consumer(reply),
        )
        engine = self.engine = Engine(
            cast(Control, SimControl(self)),
            job,
            ledger=None,
            start=self._start(reply),
            memory_limit=setup.client_memory,
            timing=self._timing,
        )
        links = SimLinks(engine, job, self._timing)
        links.trainer = self
        engine._links = links
        engine._sync = cast(SyncLoop, SimSync(self, engine))
        engine.start()
        self._begin_epoch(reply.next_epoch[0])

    def _consumer(self, reply: control_pb2.OpenJobReply) -> Consumer | None:
        """Which of several it is."""
        return None

    def _start(self, reply: control_pb2.OpenJobReply) -> Start:
        """Where it goes on."""
        return Start(self._commits.start)

    def _begin_epoch(self, epoch: int) -> None:
        assert self.engine is not None
        if epoch >= self.world.setup.epochs:
            self.finished = True
            self.world.trainer_over()
            self.engine.close_soon()
            return
        self.world.trace(self.name, "begins epoch", epoch)
        self.world.check(self.witness.begin, epoch, self._commits.resumed_at(epoch))
        self._reader = self.engine.read(0)
        self.look()

    def _take(self) -> None:
        self._looking = False
        reader = self._reader
        if reader is None:
            return
        try:
            taken = reader.take(self.world.setup.take_bytes, 0.0)
        except PenstockError as error:
            self._fail(error)
            return
        if isinstance(taken, Delivery):
            self.world.woven += sum(
                len(piece.hashes) for piece in taken.pieces if isinstance(piece, Woven)
            )
            count = 0
            for piece in taken.each_piece():
                values = cast(Any, piece.chunk).values
                count += len(values)
                self.world.check(self.witness.given, piece.split, values)
            self._commits.consider()
            self._looking = True
            step_s = count * self.world.setup.step_s
            self.process.after(self.world.rng.random() * 2 * step_s, self._take)
        elif isinstance(taken, EndOfEpoch):
            self.world.trace(self.name, "ended epoch", reader.epoch)
            self.world.check(self.witness.end, taken.digest)
            assert self.engine is not None
            self.world.check(
                self.world.ledger.check_finished,
                self.engine._job.job,
                reader.epoch,
                len(self.witness.pipeline.sizes),
            )
            self._reader = None
            self._begin_epoch(reader.epoch + 1)

    def _fail(self, error: PenstockError) -> None:
        if self.error is None and not self.finished:
            self.error = error
            self._reader = None
            self.world.trainer_failed(self, error)

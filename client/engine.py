"""What runs behind a session: the job at the dispatcher, the links to workers, the open epochs.

The engine is referred to by its threads, the `Session` only by its user; so a session that is
dropped can be collected, and then stops its engine. All state is guarded by `changed`, which is
re-entrant because the garbage collector may give an epoch up at any point (which then only leaves
a note for the sync thread). Frames are sent without the lock.
"""

from __future__ import annotations

import logging
from collections import deque
from threading import Condition, RLock
from typing import TYPE_CHECKING

from ..errors import NotFoundError, PenstockError, RefusedError
from ..proto import control_pb2
from .epoch import EpochReader, failure_of
from .events import Done, Fail, Placed, Report
from .history import History
from .links import Links
from .messages import frame_of, problems_of, progress_of
from .resumed import ResumedCore
from .starts import Start
from .sync import Outgoing, SyncLoop

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..errors import AuthenticationError
    from ..proto.chunk import Chunk
    from ..proto.hashing import Digest, Hashes
    from ..proto.spec import ComponentSpec
    from ..timing import Timing
    from .control import Control
    from .events import Delivery, Instruction
    from .ledger import Ledger
    from .opened import OpenedJob
    from .stream import WorkerLink

logger = logging.getLogger(__name__)

_CLOSE_DEADLINE_S = 5.0
_AT_NEXT_EPOCHS = Start()


class Engine:
    """Runs an opened job for this client.

    Args:
        control: the dispatcher; the engine closes it at its end.
        job: what was opened.
        ledger: records what is delivered, or None; closed at the end.
        start: where each stream goes on.
        memory_limit: bytes that all open epochs may buffer together.
        timing: intervals and deadlines.

    Attributes:
        changed: guards everything; notified whenever something may have become available.
        notices: what the dispatcher waits for, in its words.
        digests: for each stream, the digests of the epochs that were delivered whole.
        history: what was delivered of the epochs.
        error: why the job cannot go on, or None.
        leaving: at its end this client leaves its lanes to other consumers of its group.
        joining: how many processes wait to become consumers of the job's group.
        gone: the ranks of its group whose process is gone.
        trainer_step: that the trainer is at, if it says so.
    """

    def __init__(
        self,
        control: Control,
        job: OpenedJob,
        *,
        ledger: Ledger | None,
        start: Start = _AT_NEXT_EPOCHS,
        memory_limit: int,
        timing: Timing,
    ) -> None:
        self.timing = timing
        self.changed = Condition(RLock())
        self.notices: tuple[str, ...] = ()
        self.digests: tuple[dict[int, Digest], ...] = tuple({} for _ in job.streams)
        self.error: PenstockError | None = None
        self.leaving = False
        self.joining = 0
        self.gone: tuple[int, ...] = ()
        self.trainer_step: int | None = None
        self.history = History(job, start)
        self._control = control
        self._job = job
        self._ledger = ledger
        self._memory_limit = memory_limit
        self._next_epoch = list(job.next_epoch)
        self._readers: list[EpochReader] = []
        self._given_up: deque[EpochReader] = deque()
        self._links = Links(self, job, timing, control.access, memory_limit)
        self._term = job.term
        self._version = 0
        self._sequence = 0
        self._generation = 1
        self._told = 0
        self._failure = ""
        self._closed = False
        self._sync = SyncLoop(control, self, timing, f"penstock-control-{job.job}")

    def start(self) -> None:
        """Starts keeping in touch with the dispatcher."""
        self._sync.start()

    def components(self, stream: int) -> tuple[ComponentSpec, ...]:
        """The types of a stream's elements."""
        return self._job.streams[stream].components

    def read(self, stream: int) -> EpochReader:
        """Opens the next epoch of a stream."""
        with self.changed:
            self.check()
            epoch = self._next_epoch[stream]
            self._next_epoch[stream] += 1
            core, start = self.history.open(stream, epoch)
            if self._ledger is not None and isinstance(core, ResumedCore) and start is not None:
                self._ledger.resume(stream, epoch, start.digest, core.begun)
            reader = EpochReader(self, stream, epoch, core, start)
            self._readers.append(reader)
            self._share_memory()
            for worker in sorted(self._links.up):
                core.connected(worker)
            self.news()
            return reader

    def close(self) -> None:
        """Ends everything within a bound: threads joined, sockets and files closed."""
        self.close_soon()
        self._sync.join(_CLOSE_DEADLINE_S)
        self._links.join(_CLOSE_DEADLINE_S)

    def close_soon(self) -> None:
        """Begins to end everything, on the sync thread. Safe in a finaliser."""
        self._closed = True
        self._sync.stop()

    # What epoch readers call.

    def check(self) -> None:
        """Raises what ended this client, if something did."""
        if self.error is not None:
            # A new one each time: a traceback would tie the engine to its user's frames, and so
            # keep a session from being collected.
            raise type(self.error)(*self.error.args)
        if self._closed:
            raise RefusedError("this client is closed")

    def wait(self, timeout_s: float) -> bool:
        """Waits for a change, with the lock held; False if there was none."""
        return self.changed.wait(timeout_s)

    def news(self) -> None:
        """There is something to tell the dispatcher."""
        self._generation += 1
        self._sync.poke()

    def give_up(self, reader: EpochReader) -> None:
        """The consumer wants no more of this epoch. Safe in a finaliser."""
        self._given_up.append(reader)
        self._sync.poke()

    def record(self, reader: EpochReader, delivery: Delivery) -> None:
        """Puts a delivery on record, before the trainer gets it."""
        self.history.delivered(reader.stream, reader.epoch, delivery.pieces)
        if self._ledger is not None:
            self._ledger.record(reader.stream, reader.epoch, delivery.pieces)

    def committing(self, position: str, *, done: bool) -> None:
        """Puts a commit on record: before it is sent, and when it is acknowledged."""
        if self._ledger is not None:
            with self.changed:
                counts = {(r.stream, r.epoch): r.core.counts() for r in self._readers}
            self._ledger.commit(position, counts, done=done)

    def epoch_over(self, reader: EpochReader, digest: Digest) -> None:
        """The epoch was delivered, proven and acknowledged."""
        if self._ledger is not None:
            self._ledger.finish(reader.stream, reader.epoch, digest, reader.core.counts())
        self.history.finished(reader.stream, reader.epoch)
        self.digests[reader.stream][reader.epoch] = digest
        self._readers.remove(reader)
        self._share_memory()

    def carry_out(
        self, reader: EpochReader, instructions: Iterable[Instruction]
    ) -> list[WorkerLink]:
        """Carries out a core's instructions; returns the links to be flushed without the lock."""
        links: dict[str, WorkerLink] = {}
        for instruction in instructions:
            if isinstance(instruction, Done):
                reader.unacknowledged[instruction.split] = instruction.digest
                self.news()
            elif isinstance(instruction, Report):
                logger.info(
                    "attempt %d: %s: %s", instruction.attempt, instruction.code, instruction.detail
                )
                self.news()
            elif isinstance(instruction, Fail):
                logger.error("the job fails: %s", instruction.error)
                self._failure = self._failure or str(instruction.error)
                self._set_error(instruction.error)
                self.news()
            elif (link := self._links.get(instruction.worker)) is not None:
                link.queue(*frame_of(instruction))
                links[instruction.worker] = link
        return list(links.values())

    # What the links call, on their threads.

    def link_up(self, link: WorkerLink) -> None:
        """A worker is connected."""
        worker = link.target.worker
        links: list[WorkerLink] = []
        with self.changed:
            if self._links.is_current(link):
                self._links.up.add(worker)
                for reader in self._readers:
                    links += self.carry_out(reader, reader.core.connected(worker))
            self.news()
        _flush(links)

    def link_down(
        self, link: WorkerLink, detail: str, refusal: AuthenticationError | None = None
    ) -> bool:
        """A worker is not connected (any more); whether the link shall try again."""
        worker = link.target.worker
        with self.changed:
            if not self._links.is_current(link):
                return False
            if self._links.is_refused_by_all(link, refusal) and refusal is not None:
                self._set_error(refusal)
            if self._closed or self.error is not None:
                return False
            for reader in self._readers:
                self.carry_out(reader, reader.core.lost(worker, detail))
            self.changed.notify_all()
            if any(worker in reader.core.workers for reader in self._readers):
                return True
            self._links.forget(link)
            return False

    def specs_of(self, attempt: int) -> Sequence[ComponentSpec] | None:
        """The types of an attempt's elements; None if the attempt is stale."""
        with self.changed:
            reader = self._reader_of(attempt)
            return None if reader is None else self._job.streams[reader.stream].components

    def chunk_came(self, attempt: int, chunk: Chunk, nbytes: int) -> None:
        """A chunk, with its hashes verified."""
        with self.changed:
            reader = self._reader_of(attempt)
            if reader is None:
                return
            reader.seen = (reader.seen[0] + nbytes, reader.seen[1] + chunk.count)
            links = self.carry_out(reader, reader.core.chunk(attempt, chunk, nbytes))
            self.changed.notify_all()
        _flush(links)

    def hashes_came(self, attempt: int, start: int, hashes: Hashes) -> None:
        """Hashes of a replay."""
        with self.changed:
            if (reader := self._reader_of(attempt)) is not None:
                self.carry_out(reader, reader.core.hashes(attempt, start, hashes))

    def end_came(self, attempt: int, digest: Digest) -> None:
        """The END of an attempt."""
        with self.changed:
            if (reader := self._reader_of(attempt)) is not None:
                self.carry_out(reader, reader.core.end(attempt, digest))
                self.changed.notify_all()

    def fail_came(self, attempt: int, code: str, detail: str) -> None:
        """A worker cannot go on with an attempt."""
        with self.changed:
            if (reader := self._reader_of(attempt)) is not None:
                logger.warning("attempt %d: %s: %s", attempt, code, detail)
                self.carry_out(reader, reader.core.fail(attempt, code, detail))

    def corrupt_came(self, attempt: int, detail: str) -> None:
        """A chunk was not what its header says."""
        with self.changed:
            reader = self._reader_of(attempt)
            if reader is None:
                return
            logger.error("attempt %d sent what it should not: %s", attempt, detail)
            links = self.carry_out(reader, reader.core.corrupt(attempt, detail))
        _flush(links)

    # What the sync thread calls.

    def sync_request(self) -> Outgoing:
        """Everything this client has."""
        links: list[WorkerLink] = []
        with self.changed:
            while self._given_up:
                reader = self._given_up.popleft()
                if reader in self._readers:
                    self._readers.remove(reader)
                    links += self.carry_out(reader, reader.core.abandon())
                    self._generation += 1
                    self._share_memory()
            self._sequence += 1
            urgent = self._generation > self._told or self._version == 0
            request = control_pb2.SyncClientRequest(
                job=self._job.job,
                client=self._job.client,
                term=self._term,
                seen_version=self._version,
                hold_ms=0 if urgent else int(self.timing.heartbeat_s * 1000),
                epochs=[progress_of(reader) for reader in self._readers],
                problems=problems_of(self._readers),
                failure=self._failure,
                sequence=self._sequence,
                trainer_step=self.trainer_step,
            )
            generation = self._generation
        _flush(links)
        return Outgoing(request, urgent, generation)

    def sync_reply(self, sent: Outgoing, reply: control_pb2.SyncClientReply) -> None:
        """Everything this client should have."""
        links: list[WorkerLink] = []
        with self.changed:
            if reply.term < self._term:
                return  # a dispatcher that was replaced; the next try goes to the new one
            if reply.term > self._term:
                logger.info("the dispatcher's term is %d now", reply.term)
            self._term, self._version = reply.term, reply.version
            self.joining, self.gone = reply.joining, tuple(reply.gone)
            self._told = max(self._told, sent.generation)
            notices = tuple(reply.notices)
            for notice in set(notices) - set(self.notices):
                logger.warning("the dispatcher says: %s", notice)
            self.notices = notices
            if reply.failure:
                self._set_error(failure_of(self._readers, reply.failure))
            readers = {(reader.stream, reader.epoch): reader for reader in self._readers}
            for progress in sent.request.epochs:
                if (known := readers.get((progress.stream, progress.epoch))) is not None:
                    for done in progress.done:
                        known.unacknowledged.pop(done.split, None)
                    known.acknowledged = known.acknowledged or progress.finished
            for view in reply.epochs:
                if (known := readers.get((view.stream, view.epoch))) is not None:
                    links += self._place(known, view)
            self.changed.notify_all()
        _flush(links)

    def sync_failed(self, error: PenstockError) -> None:
        """The dispatcher refused this client."""
        if isinstance(error, NotFoundError):
            error = RefusedError(
                f"{error}. The dispatcher does not know job {self._job.job} any more: its journal "
                "was lost or is another one. The epoch cannot be completed and was not restarted."
            )
        with self.changed:
            if not self._closed:
                self._set_error(error)

    def sync_stopped(self) -> None:
        """The sync thread ends: so does everything else."""
        with self.changed:
            self._closed = True
            self._readers.clear()
            self._links.close()
            self.changed.notify_all()
        self._control.close_client(self._job, leaving=self.leaving, step=self.trainer_step)
        self._control.close()
        if self._ledger is not None:
            self._ledger.close()

    def _place(self, reader: EpochReader, view: control_pb2.EpochView) -> list[WorkerLink]:
        placed = []
        for item in view.placements:
            placed.append(Placed(item.split, item.attempt, item.worker))
            self._links.ensure(item)
        return self.carry_out(reader, reader.core.placements(placed))

    def _reader_of(self, attempt: int) -> EpochReader | None:
        return next((reader for reader in self._readers if reader.core.wants(attempt)), None)

    def _share_memory(self) -> None:
        for reader in self._readers:
            reader.core.memory_limit = self._memory_limit // len(self._readers)

    def _set_error(self, error: PenstockError) -> None:
        self.error = self.error or error.with_traceback(None)
        self.changed.notify_all()


def _flush(links: Iterable[WorkerLink]) -> None:
    for link in links:
        link.flush()

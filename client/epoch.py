"""One epoch of one stream as its consumer sees it: blocking `take`, logging of waits, giving up."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import JobFailedError, RefusedError
from ..failpoints import failpoint
from .events import Delivery, EndOfEpoch, Wait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..errors import PenstockError
    from ..proto.hashing import Digest
    from ..proto.position import StreamPosition
    from ..proto.spec import ComponentSpec
    from .engine import Engine
    from .lanes import EpochCore

logger = logging.getLogger(__name__)

_ELEMENTS_MAX = 1 << 16


def failure_of(readers: Iterable[EpochReader], why: str) -> PenstockError:
    """The error of a job that has failed: of its own kind if a replay differed, as we told."""
    different = next((r.core.different for r in readers if r.core.different is not None), None)
    return JobFailedError(why) if different is None else type(different)(why)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a session has to know of a stream; `graph` is None for one that is registered."""

    fingerprint: str
    num_splits: int
    weights: tuple[int, ...] | None
    replayable: bool
    components: tuple[ComponentSpec, ...]
    graph: bytes | None = None
    #: Names what workers can cache of it; empty: nothing.
    cache_key: str = ""
    #: Its splits are ranges of a permutation of the source.
    permuted: bool = False
    #: The pipeline mixes elements of different splits, as lanes then have to.
    blended: bool = False


class EpochReader:
    """Delivers one epoch to one consumer; made by `Session.read`.

    Attributes:
        stream: index of the stream in the job.
        epoch: the epoch's number.
        core: what decides; guarded by the engine's lock, like the rest.
        start: where the epoch goes on; None for its beginning.
        unacknowledged: digests of splits whose end the dispatcher has not acknowledged.
        finished: the epoch's digest, once it has been delivered whole.
        acknowledged: the dispatcher has journaled that it is finished.
        seen: (bytes, elements) received so far.
    """

    def __init__(
        self,
        engine: Engine,
        stream: int,
        epoch: int,
        core: EpochCore,
        start: StreamPosition | None = None,
    ) -> None:
        self.stream = stream
        self.epoch = epoch
        self.core = core
        self.start = start
        self.unacknowledged: dict[int, Digest] = {}
        self.finished: Digest | None = None
        self.acknowledged = False
        self.seen = (0, 0)
        self._engine = engine
        self._waiting: _Waiting | None = None
        self._given_up = False
        self._over = False

    def take(
        self, target_bytes: int = 16 << 20, timeout_s: float | None = None
    ) -> Delivery | EndOfEpoch | None:
        """The elements that come next, about `target_bytes` of them; waits until there are some.

        Returns:
            A delivery; the end of the epoch, proven and acknowledged; or None after `timeout_s`.

        Raises:
            PenstockError: the job failed, or was closed.
        """
        engine = self._engine
        waiting = self._waiting = self._waiting or _Waiting(self, engine.timing.warn_after_s)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with engine.changed:
                self._check()
                taken, instructions = self.core.take(self._elements(target_bytes))
                links = engine.carry_out(self, instructions)
                if isinstance(taken, EndOfEpoch):
                    end = self._end(taken)
                    if end is not None:
                        return end
                if not isinstance(taken, Delivery) and not links:
                    reason = waiting.reason(taken)
                    if not engine.wait(waiting.left_s(deadline)):
                        now = time.monotonic()
                        waiting.warn(now, reason, engine.notices)
                        if deadline is not None and now >= deadline:
                            return None
            for link in links:
                link.flush()
            if isinstance(taken, Delivery):
                self._waiting = None
                engine.record(self, taken)
                return taken

    def close(self) -> None:
        """Gives the epoch up, unless it is over. Safe anywhere: it only leaves a note."""
        if not self._given_up:
            self._given_up = True
            self._engine.give_up(self)

    def _check(self) -> None:
        if self._given_up and not self._over:
            raise RefusedError(f"epoch {self.epoch} of stream {self.stream} was given up")
        self._engine.check()

    def _end(self, taken: EndOfEpoch) -> EndOfEpoch | None:
        """The end as soon as the dispatcher has acknowledged it (G5)."""
        if self.finished is None:
            failpoint("client.epoch.before_finish")
            self.finished = taken.digest
            self._engine.news()
        if not self.acknowledged:
            return None
        if not self._over:
            failpoint("client.epoch.after_acknowledged")
            self._over = True
            self._engine.epoch_over(self, taken.digest)
        return taken

    def _elements(self, target_bytes: int) -> int:
        """So many, in whole blocks or rounds: a piece cut in parts costs as much for each."""
        nbytes, elements = self.seen
        wanted = max(1, min(_ELEMENTS_MAX, target_bytes * elements // max(1, nbytes)))
        grain = self.core.round if wanted >= self.core.round else self.core.block
        return -(-wanted // grain) * grain


class _Waiting:
    """How long a consumer has waited, and when that is to be logged (G6)."""

    def __init__(self, reader: EpochReader, warn_after_s: float) -> None:
        self._reader = reader
        self._period_s = warn_after_s
        self._since = time.monotonic()
        self._warn_at = self._since + self._period_s

    def left_s(self, deadline: float | None) -> float:
        until = self._warn_at if deadline is None else min(deadline, self._warn_at)
        return max(0.0, until - time.monotonic())

    def reason(self, taken: Wait | EndOfEpoch) -> str:
        if isinstance(taken, EndOfEpoch):
            return "the dispatcher to acknowledge the end of the epoch"
        where = f"attempt {taken.attempt} on worker {taken.worker}" if taken.worker else "unplaced"
        return f"lane {taken.lane}, split {taken.split} ({where}): {taken.reason}"

    def warn(self, now: float, reason: str, notices: tuple[str, ...]) -> None:
        if now < self._warn_at:
            return
        self._warn_at = now + self._period_s
        said = f"; the dispatcher says: {'; '.join(notices)}" if notices else ""
        logger.warning(
            "stream %d, epoch %d has waited %.0f s for %s%s",
            self._reader.stream,
            self._reader.epoch,
            now - self._since,
            reason,
            said,
        )

"""This worker's part of the Put/Get cache: finishes segments, and tells the dispatcher of them.

Theory of operation. A run that puts hands its partial segment over when it has made everything;
one thread makes them durable, so that no client waits for an fsync. A run that wants a segment
which is being made so waits for it. The dispatcher is told what the store has got and lost since
it last answered; a later word on a split replaces the one before, so that a word may be lost or
come twice. What `auto` has to know is measured in the same thread, after the segment is there.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..proto import control_pb2
from .segments import SegmentStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..proto.hashing import Digest
    from .partial import PartialSegment
    from .segment import Segment
    from .segment_file import SegmentName

logger = logging.getLogger(__name__)

#: How long a run waits for a segment that is being made durable.
_FINISH_S = 10.0
#: Of the disk space that is free, what a cache takes at most if it is not told how much it may.
_DISK_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Costs:
    """What one split cost, in seconds; see `CacheMeasure`."""

    produce_s: float
    write_s: float
    read: Callable[[Segment], float]


@dataclass(frozen=True, slots=True)
class _Finish:
    partial: PartialSegment
    name: SegmentName
    digest: Digest
    costs: Costs | None


@dataclass(frozen=True, slots=True)
class News:
    """What one request told: what was present or not, how many measures and attempts."""

    segments: dict[tuple[str, int], bool]
    measures: int
    read: int


def open_cache(
    root: Path, owner: str, limit: int, tensorflow: str, report: Callable[[], None]
) -> Cache:
    """The cache in a directory; see `Cache` for the arguments.

    Args:
        limit: bytes, or 0 for most of what is free there or the cache's own.

    Raises:
        UsageError: the directory cannot be used.
    """
    if not limit:
        try:
            root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(root).free
            own = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        except OSError as error:
            raise UsageError(f"--cache-dir {root}: {error}") from error
        limit = int(_DISK_SHARE * (free + own))
    made = Cache(root, owner, limit, tensorflow, report)
    logger.info("cache in %s, %d of %d bytes used", root, made.store.total_bytes(), limit)
    return made


class Cache:
    """The store, the thread that finishes segments, and the news for the dispatcher. Thread-safe.

    Args:
        root: the directory; made if it is not there.
        owner: address of this worker, under which it finds again what it has not finished.
        limit: what the directory may hold, bytes.
        tensorflow: the release that runs.
        report: tells the agent that there is news; must not block.

    Attributes:
        store: the files.
        leaving: this process stops: what runs have written stays for its next life.
    """

    def __init__(
        self, root: Path, owner: str, limit: int, tensorflow: str, report: Callable[[], None]
    ) -> None:
        self.leaving = False
        self._limit = limit
        self._report = report
        self._changed = threading.Condition()
        self._jobs: deque[_Finish] = deque()
        self._finishing: set[SegmentName] = set()
        self._segments: dict[tuple[str, int], bool] = {}
        self._measures: deque[control_pb2.CacheMeasure] = deque()
        self._read: deque[int] = deque()
        self._closing = False
        self.store = SegmentStore(root, owner, limit, tensorflow, self._note)
        self._thread = threading.Thread(target=self._main, name="penstock-cache", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def close(self, deadline_s: float) -> bool:
        """Finishes what is left and ends; whether it ended in time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        self.store.close()
        return not self._thread.is_alive()

    # The runs' side.

    def get(self, name: SegmentName) -> Segment | None:
        """A segment to read, if there is an undamaged one; waits for one that is being finished."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._finishing, _FINISH_S)
        return self.store.get(name)

    def reading(self, attempt: int) -> None:
        """An attempt reads its segment."""
        with self._changed:
            self._read.append(attempt)
        self._report()

    def finish(
        self, partial: PartialSegment, name: SegmentName, digest: Digest, costs: Costs | None
    ) -> None:
        """Has a segment committed that holds all of its split.

        Args:
            partial: nobody writes to it any more.
            name: of the segment.
            digest: of its elements.
            costs: what the dispatcher is to be told, if it wants to know.
        """
        with self._changed:
            self._finishing.add(name)
            self._jobs.append(_Finish(partial, name, digest, costs))
            self._changed.notify_all()

    def _note(self, name: SegmentName, present: bool) -> None:
        """The store has got or lost a segment."""
        key = (name.cache_key, name.split)
        if not present:  # there may be one of the same split, but of other files
            present = name.split in self.store.inventory().get(name.cache_key, {})
        with self._changed:
            self._segments[key] = present
        self._report()

    # The agent's side.

    def introduce(self, request: control_pb2.RegisterWorkerRequest) -> None:
        """Says which store there is, and all that it holds."""
        with self._changed:
            self._segments.clear()  # before the look: what comes after it is told later
        request.store, request.cache_limit = self.store.store_id, self._limit
        for key, splits in self.store.inventory().items():
            request.cached.append(control_pb2.CachedSplits(key=key, splits=sorted(splits)))

    def tell(self, request: control_pb2.SyncWorkerRequest) -> News:
        """Says what the store has got and lost since the last answer."""
        with self._changed:
            news = News(dict(self._segments), len(self._measures), len(self._read))
            request.measures.extend(self._measures)
            request.read.extend(self._read)
        for present, lists in ((True, request.cached), (False, request.uncached)):
            by_key: dict[str, list[int]] = {}
            for (key, split), now in news.segments.items():
                if now is present:
                    by_key.setdefault(key, []).append(split)
            for key, splits in by_key.items():
                lists.append(control_pb2.CachedSplits(key=key, splits=sorted(splits)))
        return news

    def told(self, news: object) -> None:
        """The dispatcher has answered the request that brought this."""
        assert isinstance(news, News)
        with self._changed:
            for key, present in news.segments.items():
                if self._segments.get(key) is present:
                    del self._segments[key]
            for told, queue in ((news.measures, self._measures), (news.read, self._read)):
                for _ in range(told):
                    queue.popleft()

    # The thread.

    def _main(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            try:
                self._finish(job)
            except OSError as error:
                logger.warning("segment %s was not finished: %s", job.name, error)
                job.partial.discard()
            except Exception:
                logger.exception("segment %s was not finished", job.name)
                job.partial.discard()
            finally:
                self._finished(job.name)

    def _finish(self, job: _Finish) -> None:
        began = time.monotonic()
        committed = job.partial.commit(job.digest)
        seconds = time.monotonic() - began
        self._finished(job.name)
        logger.debug("segment %s: finished in %.3f s", job.name, seconds)
        if not committed or job.costs is None:
            return
        segment = self.store.get(job.name)
        if segment is None:
            return
        with segment:
            measure = control_pb2.CacheMeasure(
                key=job.name.cache_key,
                elements=segment.digest.count,
                nbytes=segment.nbytes,
                produce_us=int(1e6 * job.costs.produce_s),
                write_us=int(1e6 * (job.costs.write_s + seconds)),
                read_us=int(1e6 * job.costs.read(segment)),
            )
        with self._changed:
            self._measures.append(measure)
        self._report()

    def _finished(self, name: SegmentName) -> None:
        with self._changed:
            self._finishing.discard(name)
            self._changed.notify_all()

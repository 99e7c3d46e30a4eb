"""Group commit: many appended records, one fsync, and everybody who waits for it.

Records are appended by the event loop. One thread at a time syncs; what is appended meanwhile goes
with the next sync. A journal that fails ends the process: `on_failure` is told once, and nobody who
waits is ever released, so no reply leaves that rests on what may not be on the disk (G7). The same
holds when another dispatcher has taken the journal over: who did not wait for a sync, which looks
whether that is so, has the journal asked (one stat, a few microseconds).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class JournalLog(Protocol):
    """What is needed of `journal.Log`."""

    @property
    def bytes_since_snapshot(self) -> int: ...
    @property
    def last_seq(self) -> int: ...
    def append(self, payload: bytes) -> int: ...
    def sync(self) -> int: ...
    def check(self) -> None: ...
    def snapshot(self, payload: bytes, seq: int | None = None) -> None: ...
    def close(self) -> None: ...


class Committer:
    """Makes records durable. Belongs to one event loop.

    Args:
        log: the journal, or None to keep nothing.
        on_failure: called once when the journal has failed; should not return.
        snapshot: makes a snapshot of the state as it is now.
        snapshot_records: how many records make a snapshot worth while.

    Attributes:
        last_sync_ms: how long the last sync took.
    """

    def __init__(
        self,
        log: JournalLog | None,
        on_failure: Callable[[BaseException], None],
        snapshot: Callable[[], bytes],
        snapshot_records: int,
    ) -> None:
        self.last_sync_ms = 0.0
        self._log = log
        self._on_failure = on_failure
        self._snapshot = snapshot
        self._snapshot_records = snapshot_records
        self._appended = self._durable = self._snapshot_at = log.last_seq if log else 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        # One thread syncs, the other writes a snapshot meanwhile.
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="journal")
        self._syncing: asyncio.Task[None] | None = None
        self._snapshotting: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def keeps(self) -> bool:
        """Whether there is a journal at all."""
        return self._log is not None

    @property
    def records(self) -> int:
        """The number of records appended over the life of the journal."""
        return self._appended

    @property
    def pending(self) -> int:
        """The number of records that are not durable yet."""
        return self._appended - self._durable

    @property
    def bytes_since_snapshot(self) -> int:
        """How much a recovery would have to read."""
        return self._log.bytes_since_snapshot if self._log else 0

    def append(self, record: bytes) -> None:
        """Adds a record to the next commit."""
        if self._log is None or self._failed:
            return
        try:
            self._appended = self._log.append(record)
        except Exception as error:
            self._fail(error)
            return
        if self._syncing is None:
            self._syncing = asyncio.get_running_loop().create_task(self._sync_all())

    async def durable(self) -> None:
        """Waits until everything appended so far is durable, and still ours to tell."""
        if self._durable >= self._appended and self._is_ours():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((self._appended, waiter))
        await waiter

    async def close(self) -> None:
        """Makes everything durable and closes the journal."""
        for task in (self._syncing, self._snapshotting):
            if task is not None:
                await task
        self._executor.shutdown()
        if self._log is not None and not self._failed:
            self._log.close()

    def _is_ours(self) -> bool:
        if self._log is not None and not self._failed:
            try:
                self._log.check()
            except Exception as error:
                self._fail(error)
        return not self._failed

    async def _sync_all(self) -> None:
        assert self._log is not None
        loop = asyncio.get_running_loop()
        try:
            while self._durable < self._appended:
                started = time.monotonic()
                self._durable = await loop.run_in_executor(self._executor, self._log.sync)
                self.last_sync_ms = 1000 * (time.monotonic() - started)
                while self._waiters and self._waiters[0][0] <= self._durable:
                    waiter = self._waiters.popleft()[1]
                    if not waiter.done():
                        waiter.set_result(None)
        except Exception as error:
            self._fail(error)
        finally:
            self._syncing = None
        self._consider_snapshot()

    def _consider_snapshot(self) -> None:
        due = self._appended - self._snapshot_at >= self._snapshot_records
        if due and self._snapshotting is None and not self._failed:
            # The state and the number of its last record are taken in one step of the loop.
            content, self._snapshot_at = self._snapshot(), self._appended
            self._snapshotting = asyncio.get_running_loop().create_task(
                self._write_snapshot(content, self._snapshot_at)
            )

    async def _write_snapshot(self, content: bytes, seq: int) -> None:
        assert self._log is not None
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, self._log.snapshot, content, seq)
            logger.info("snapshot of %d bytes after record %d", len(content), seq)
        except Exception as error:
            self._fail(error)
        finally:
            self._snapshotting = None

    def _fail(self, error: BaseException) -> None:
        if not self._failed:
            self._failed = True
            self._on_failure(error)

"""The thread that writes and removes checkpoints, so that producing goes on meanwhile.

What it is told to do it does in that order: what is saved before a split is forgotten is removed
with it. A disk that refuses costs checkpoints, never an attempt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .checkpointing import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .checkpoint_file import Checkpoint
    from .checkpoints import CheckpointStore
    from .messages import Key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Save:
    checkpoint: Checkpoint
    acknowledged: int
    prepare: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Remove:
    """Removes the checkpoints of a split that have more than `above` elements before them."""

    key: Key
    above: int


class Keeper:
    """Keeps the store in order.

    Args:
        store: nobody else may write to it; closed in the end.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self._changed = threading.Condition()
        self._jobs: deque[_Save | _Remove] = deque()
        self._saving: set[Key] = set()
        self._closing = False
        self._failing = False
        self._full = False
        self._thread = threading.Thread(target=self._main, name="penstock-checkpoints", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def close(self, deadline_s: float) -> bool:
        """Does what is left to do and ends; whether it ended in time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        self.store.close()
        return not self._thread.is_alive()

    def busy(self, key: Key) -> bool:
        """Whether a checkpoint of that split waits to be written."""
        with self._changed:
            return key in self._saving

    def save(
        self,
        checkpoint: Checkpoint,
        acknowledged: int,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes a checkpoint, then removes those of its split that are not needed any more.

        Args:
            checkpoint: a new one.
            acknowledged: elements before it will not be asked for again.
            prepare: called before, in this thread: makes durable what the checkpoint relies on.
        """
        with self._changed:
            self._saving.add(checkpoint.header.key)
        self._add(_Save(checkpoint, acknowledged, prepare))

    def forget(self, key: Key, above: int = -1) -> None:
        """Removes a split's checkpoints that lie after element `above`; all, if it is not given."""
        self._add(_Remove(key, above))

    def offered(self) -> list[tuple[Key, int]]:
        """What the dispatcher is told: splits, and how many elements need not be made again."""
        return self.store.newest()

    def retain(self, wanted: Iterable[Key], offered: Iterable[Key]) -> None:
        """Of what was offered, forgets what is not wanted."""
        keys = set(wanted)
        for key in offered:
            if key not in keys:
                self.forget(key)

    def _add(self, job: _Save | _Remove) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def _main(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            try:
                self._do(job)
                self._failing = False
            except OSError as error:
                if not self._failing:  # once, not for each of them
                    logger.warning("checkpoints cannot be written or removed: %s", error)
                self._failing = True
            except Exception:
                logger.exception("a checkpoint was not written or removed")
            finally:
                if isinstance(job, _Save):
                    with self._changed:
                        self._saving.discard(job.checkpoint.header.key)

    def _do(self, job: _Save | _Remove) -> None:
        if isinstance(job, _Remove):
            held = self.store.elements(job.key)
            self.store.remove(job.key, [elements for elements in held if elements > job.above])
            return
        header = job.checkpoint.header
        began = time.monotonic()
        job.prepare()
        # Those not needed any more go last, so that there is one at every moment.
        if self.store.write(job.checkpoint):
            self._full = False
            logger.debug(
                "%s: checkpoint at element %d, %d bytes, written in %.3f s",
                header.key,
                header.elements,
                job.checkpoint.nbytes,
                time.monotonic() - began,
            )
        elif not self._full:
            logger.warning(
                "no space for a checkpoint of %s, %d bytes: the others have what is allowed",
                header.key,
                job.checkpoint.nbytes,
            )
            self._full = True
        held = self.store.elements(header.key)
        needed = kept(held, job.acknowledged)
        self.store.remove(header.key, [elements for elements in held if elements not in needed])

"""The training process of the fault tests: reads epochs in batches, and waits where it is told to.

It takes JSON lines from its standard input: an `Order` to read some epochs, and then, each time
that it is held, the word to go on. It answers with JSON lines on its standard output: `ready`,
`begin` (of an epoch), `batch`, `held`, `epoch` (its end), `error`, `done`. The hashes of the
elements go to a file for each epoch while they come, so that what a killed trainer was given can be
judged, too.
Times are those of the system-wide monotonic clock. It ends with whoever holds its standard input.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, VerificationError
from ..soak.trainer import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import tensorflow as tf

    from ..client.reader import Reader

#: An epoch that is so many times too long is given up: it might never end.
_ENDLESS = 3
_WARN_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a trainer is to read.

    Attributes:
        service: the dispatchers' addresses.
        job: its name.
        seed: of the job.
        paths: of the data.
        elements: of an epoch, as far as they are known beforehand.
        epochs: the epoch of this number minus one is the last to be read.
        block, lanes, memory_limit: see `penstock.distribute`.
        folder: an existing directory for the hashes.
        cache: how the job uses caches, with `.cache()` at the pipeline's end; empty: without it.
        holds: numbers of elements, ascending, after which it waits.
        hold_epoch: the epoch in which it does.
        commits: whether it commits after every batch, and goes on at what was committed.
    """

    service: str
    job: str
    seed: int
    paths: list[str]
    elements: int
    epochs: int
    block: int
    lanes: int
    memory_limit: int
    folder: str
    cache: str = ""
    holds: list[int] = field(default_factory=list)
    hold_epoch: int = 0
    commits: bool = False


class _Holds:
    """Where the trainer waits to be told to go on.

    Args:
        order: says where.
        inbox: what it is told.
    """

    def __init__(self, order: Order, inbox: queue.Queue[dict[str, Any]]) -> None:
        self._order = order
        self._left = list(order.holds)
        self._step = False
        self._inbox = inbox

    def passed(self, epoch: int, elements: int) -> None:
        """So much of an epoch was consumed: waits if this is the place."""
        due = self._step or bool(self._left and elements >= self._left[0])
        if epoch != self._order.hold_epoch or not due:
            return
        if not self._step:
            self._left.pop(0)
        say("held", elements=elements, at_s=time.monotonic())
        self._step = self._inbox.get()["step"]


def main() -> None:
    """The process."""
    from ..cli.logs import configure

    if len(sys.argv) != 1:
        raise UsageError("this is a part of `penstock faults`, and started by it")
    configure("info", "human")
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    import tensorflow  # noqa: F401  # so that `ready` is the truth

    say("ready")
    while True:
        order = Order(**inbox.get())
        _read(order, _Holds(order, inbox))


def _listen(inbox: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    os._exit(0)  # whoever gave orders is gone; the main thread may be waiting for data


def _read(order: Order, holds: _Holds) -> None:
    from ..client.dataset import distribute
    from ..timing import Timing
    from .data import BATCH, pipeline

    served = pipeline(order.paths, cached=bool(order.cache)).apply(
        distribute(
            order.service,
            job_name=order.job,
            seed=order.seed,
            lanes=order.lanes,
            block=order.block,
            memory_limit=order.memory_limit,
            cache=order.cache or "off",
            restore="committed" if order.commits else None,
            timing=Timing(warn_after_s=_WARN_AFTER_S),
        )
    )
    reader: Reader = served.penstock
    try:
        taken = 0
        for iteration in range(order.epochs):
            path = Path(order.folder) / f"{os.getpid()}-{iteration}.hashes"
            taken += _consume(served.batch(BATCH), reader, path, order, holds, taken)
            number, digest = max(reader.digests.items())
            say("epoch", number=number, count=digest.count, total=digest.total)
            if number + 1 >= order.epochs:
                break
    except Exception as error:
        # tf.data shows an error of the reader as text only.
        cause = reader.error or error
        say("error", kind=type(cause).__name__, text=str(cause)[:2000])
    else:
        say("done")
    finally:
        reader.close()


def _consume(
    batches: tf.data.Dataset, reader: Reader, path: Path, order: Order, holds: _Holds, before: int
) -> int:
    """Reads one epoch; writes the hashes of its elements to `path` while they come.

    `before` elements were read in other epochs of this process; returns how many there were now.
    """
    from .data import hashes_of

    elements = 0
    with path.open("wb", buffering=0) as file:
        asked_s = time.monotonic()
        for batch in arrays_of(batches, order, reader):
            came_s = time.monotonic()
            hashes = hashes_of(batch)
            epoch = reader.epoch
            assert epoch is not None
            if not elements:  # before anything is written that is to be judged by it
                origin = reader.origin if not before else None
                start = origin.consumed if origin is not None else 0
                say("begin", number=epoch, path=str(path), start=start)
            file.write(b"".join(hashes))
            elements += len(hashes)
            say("batch", epoch=epoch, asked_s=asked_s, came_s=came_s, size=len(hashes))
            if elements > _ENDLESS * order.elements:
                raise VerificationError(f"epoch {epoch} has had {elements} elements: it is endless")
            if order.commits:
                reader.commit(before + elements)
            holds.passed(epoch, elements)
            asked_s = time.monotonic()
    return elements


def arrays_of(
    batches: tf.data.Dataset, order: Order, reader: Reader
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """One epoch's batches as they are trained on; a test of the tests spoils them here.

    Args:
        batches: of one epoch.
        order: what is read.
        reader: knows which epoch it is.
    """
    del order, reader
    yield from batches.as_numpy_iterator()


if __name__ == "__main__":
    main()

"""A consumer whose deliveries are timed, and which can strike in the middle of an epoch.

It reads a stream's runs of stacked elements straight from `Reader.runs`, in this thread, without
tf.data behind it: a tf.data pipeline would read ahead and hide a part of every gap. What arrived
is compared with a plain local run: the number of elements that came here, and the digest of the
epoch, which the client computes from what it received.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..errors import UnavailableError, VerificationError
from .timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from ..client.reader import Reader
    from .harness import Show
    from .workloads import Workload

T = TypeVar("T")

#: A measurement in which nothing comes for so long is given up.
_PATIENCE_S = 120.0
#: The part of an epoch at which a paced consumer stops to read as fast as it can.
_PACED_FROM = 0.15
_PACE = 0.5


@dataclass(frozen=True, slots=True)
class Strike:
    """What happens in the middle of an epoch, in a thread beside the consumer.

    Attributes:
        at: the part of the epoch's elements after which it happens.
        paced: from 15 % of the epoch on, the consumer takes elements at half of the rate at which
            they came until then, as a trainer does that is slower than its input: so there is
            always something read ahead.
    """

    at: float
    paced: bool = False


def read_epoch(reader: Reader, workload: Workload, show: Show) -> Timeline:
    """Reads one epoch as fast as it comes, and checks it.

    Raises:
        VerificationError: what came is not what a plain local run gives.
        UnavailableError: nothing came for minutes.
    """
    timeline, _ = read_struck_epoch(reader, workload, show, Strike(at=2.0), lambda: None)
    return timeline


def read_struck_epoch(
    reader: Reader, workload: Workload, show: Show, strike: Strike, act: Callable[[], T]
) -> tuple[Timeline, T | None]:
    """The same, with a strike in the middle.

    Args:
        reader: reads the workload's dataset.
        workload: what is read.
        show: is told how far it is.
        strike: when, and how the consumer reads.
        act: the strike; returns when what it waits for has happened.

    Returns:
        The deliveries, and what `act` returned; None if it was not called.

    Raises:
        PenstockError: `act` did, or what came is not what a plain local run gives.
    """
    timeline = Timeline()
    acting: Future[T] | None = None
    count, pace_s = 0, 0.0
    asked_s = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        for run in reader.runs(idle=True):
            came_s = time.monotonic()
            if acting is not None and acting.done():
                acting.result()  # raises what went wrong: nothing will come then
            if not len(run[0]):
                _check_patience(came_s - asked_s, workload)
                continue
            timeline.add(asked_s, came_s, len(run[0]))
            count += len(run[0])
            show.step(workload.name, count, workload.elements)
            if acting is None and count >= strike.at * workload.elements:
                acting = pool.submit(act)
            if strike.paced and not pace_s and count >= _PACED_FROM * workload.elements:
                pace_s = 1.0 / (_PACE * max(1.0, timeline.rate()))
            if pace_s:
                time.sleep(pace_s * len(run[0]))  # stands for a training step on these elements
            asked_s = time.monotonic()
        _check(reader, workload, count)
        return timeline, None if acting is None else acting.result()


def _check(reader: Reader, workload: Workload, count: int) -> None:
    digest, truth = reader.digests[reader.epochs - 1], workload.truth
    if (count, digest.count, digest.total) != (truth.count, truth.count, truth.total):
        raise VerificationError(
            f"{workload.name}: {count} elements came, digest {digest}; a plain local run gives "
            f"{truth.count}, digest {truth}"
        )


def _check_patience(waited_s: float, workload: Workload) -> None:
    if waited_s > _PATIENCE_S:
        raise UnavailableError(f"{workload.name}: nothing came for {waited_s:.0f} s: given up")

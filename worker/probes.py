"""Probes: splits that are made for nobody, so that the dispatcher can tell a bad worker.

What is made is counted and hashed, and let go at once: it takes no buffer and no share of the
memory limit, and comes from the pipeline itself, neither from a cache nor from a checkpoint. The
dispatcher gives a worker one at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import exception_chain
from ..proto import control_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..proto.hashing import Digest
    from .messages import Assignment

logger = logging.getLogger(__name__)

DETAIL_CHARS_MAX = 1000


@dataclass(slots=True)
class _Probe:
    stopped: threading.Event = field(default_factory=threading.Event)
    result: control_pb2.ProbeResult | None = None


class Probes:
    """Makes the probes that are wanted, each in a thread of its own. Thread-safe.

    Args:
        make: makes a split until the event is set; gives its digest, or None if it was stopped.
        report: tells the dispatcher's agent that there is news.
    """

    def __init__(
        self,
        make: Callable[[Assignment, threading.Event], Digest | None],
        report: Callable[[], None],
    ) -> None:
        self._make = make
        self._report = report
        self._lock = threading.Lock()
        self._probes: dict[int, _Probe] = {}
        #: Those that may run: one that was stopped does until the element at hand is made.
        self._threads: list[threading.Thread] = []

    def set_wanted(self, assignments: Iterable[Assignment]) -> None:
        """Exactly these are wanted: begins what is new, and stops and forgets the others."""
        wanted = {assignment.attempt: assignment for assignment in assignments}
        with self._lock:
            for number in [number for number in self._probes if number not in wanted]:
                self._probes.pop(number).stopped.set()
            new = [number for number in wanted if number not in self._probes]
            for number in new:
                probe = self._probes[number] = _Probe()
                thread = threading.Thread(
                    target=self._run,
                    args=(wanted[number], probe),
                    name=f"penstock-probe-{number}",
                    daemon=True,
                )
                thread.start()
                self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]

    def results(self) -> list[control_pb2.ProbeResult]:
        """What is known of those that are wanted."""
        with self._lock:
            return [probe.result for probe in self._probes.values() if probe.result is not None]

    def close(self, deadline_s: float) -> bool:
        """Stops all, and waits so long for their threads; whether these have ended.

        A process that ends with a thread inside TensorFlow may die of it.
        """
        self.set_wanted(())
        end = time.monotonic() + deadline_s
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _run(self, assignment: Assignment, probe: _Probe) -> None:
        result = control_pb2.ProbeResult(probe=assignment.attempt)
        try:
            digest = self._make(assignment, probe.stopped)
        except Exception as error:  # whatever it is, it is what the dispatcher wants to know
            logger.warning("probe %d failed: %s", assignment.attempt, error)
            chain = exception_chain(error)
            result.detail = " < ".join(chain)[:DETAIL_CHARS_MAX]
        else:
            if digest is None:
                return
            result.digest.count, result.digest.total = digest.count, digest.total
            result.digest.chain = digest.chain
            logger.info("probe %d: %d elements", assignment.attempt, digest.count)
        with self._lock:
            probe.result = result
        self._report()

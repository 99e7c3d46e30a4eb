"""The links of one client: one for each worker that it was told of, and which of them are up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..proto.budget import Budget
from ..security.access import OPEN, Access
from .stream import Target, WorkerLink

if TYPE_CHECKING:
    from ..errors import AuthenticationError
    from ..proto import control_pb2
    from ..timing import Timing
    from .opened import OpenedJob
    from .stream import Listener

logger = logging.getLogger(__name__)


class Links:
    """Makes, finds and ends links. Guarded by the engine's lock, but for `join`.

    Args:
        listener: is told what comes on every link.
        job: what is read.
        timing: intervals and deadlines.
        access: whom to trust, and what to show.
        pool_bytes: what the links may keep together of memory to receive into, in use or not.

    Attributes:
        up: the workers that are connected.
    """

    def __init__(
        self,
        listener: Listener,
        job: OpenedJob,
        timing: Timing,
        access: Access = OPEN,
        pool_bytes: int = 0,
    ) -> None:
        self.up: set[str] = set()
        self._listener = listener
        self._job = job
        self._timing = timing
        self._access = access
        self._pooled = Budget(pool_bytes)
        self._current: dict[str, WorkerLink] = {}
        self._old: list[WorkerLink] = []
        self._refusing: set[str] = set()

    def get(self, worker: str) -> WorkerLink | None:
        """The link to a worker."""
        return self._current.get(worker)

    def ensure(self, placement: control_pb2.Placement) -> None:
        """Starts a link to a placement's worker, unless there is one to where it is now."""
        worker = placement.worker
        target = Target(worker, placement.address, placement.unix_path, placement.host_id)
        link = self._current.get(worker)
        if link is not None and link.target == target:
            return
        if link is not None:
            self._old = [old for old in self._old if old.alive] + [link]
            self.up.discard(worker)
            link.close()
        link = self._make(target)
        self._current[worker] = link
        link.start()

    def is_current(self, link: WorkerLink) -> bool:
        """Whether it was not replaced by another link to the worker."""
        return self._current.get(link.target.worker) is link

    def is_refused_by_all(self, link: WorkerLink, refusal: AuthenticationError | None) -> bool:
        """A link is down, perhaps because it is refused; whether none is let in anywhere.

        One worker of many that is set up wrongly is one that cannot be reached.
        """
        worker = link.target.worker
        self.up.discard(worker)
        if refusal is None:
            self._refusing.discard(worker)
        else:
            self._refusing.add(worker)
        return not self.up and self._current.keys() <= self._refusing

    def forget(self, link: WorkerLink) -> None:
        """The link ends itself: nothing is wanted from its worker."""
        del self._current[link.target.worker]
        self._refusing.discard(link.target.worker)

    def close(self) -> None:
        """Ends all links soon."""
        for link in self._current.values():
            link.close()

    def _make(self, target: Target) -> WorkerLink:
        """A new link; apart, so that a simulation can make links of its own."""
        return WorkerLink(
            target,
            job=self._job.job,
            client=self._job.client,
            listener=self._listener,
            timing=self._timing,
            pooled=self._pooled,
            access=self._access,
        )

    def join(self, timeout_s: float) -> None:
        """Waits until the links have ended, each for no longer than `timeout_s`."""
        for link in [*self._current.values(), *self._old]:
            if not link.join(timeout_s):
                logger.warning("the stream of worker %s did not end in time", link.target.worker)

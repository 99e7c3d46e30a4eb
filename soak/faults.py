"""Carries out a schedule of faults on a cluster of real processes, and notices who dies of itself.

The schedule (`testing.chaos`) says what to do to which node; here nodes become processes. Starts do
not wait: what has been started announces itself some seconds later, and may be hit before that.
"""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import JournalError, PenstockError, UnavailableError
from .chaos import DISPATCHER, TOGETHER, Verb, worker_node

if TYPE_CHECKING:
    from ..client.daemon import Daemon
    from ..client.embedded import LocalCluster
    from .chaos import Step

logger = logging.getLogger(__name__)

_ADDRESS_TAKEN = UnavailableError.exit_code
_STARTS_MAX = 5
#: A process that is told to end has this long: it may be inside TensorFlow's loading.
_END_S = 60.0


@dataclass(slots=True)
class _Node:
    """A process and what is expected of it.

    `up`: it is meant to run. `announced`: it has said that it is ready. `starts`: how often it was
    started since it last was. `next`: how to start it again once it has ended, and `asked_s`: when
    it was told to end.
    """

    daemon: Daemon
    standby: bool = False
    up: bool = True
    announced: bool = True
    paused: bool = False
    starts: int = 0
    next: Verb | None = None
    asked_s: float = 0.0


class FaultInjector:
    """Does to a cluster what a schedule says.

    Args:
        cluster: a running cluster; it stays the caller's.
        standbys: how many of its workers, the last ones, are standbys.
    """

    def __init__(self, cluster: LocalCluster, standbys: int) -> None:
        self._cluster = cluster
        workers = len(cluster.workers)
        self._workers = {
            worker_node(number): _Node(daemon, standby=number >= workers - standbys)
            for number, daemon in enumerate(cluster.workers)
        }
        self._dispatchers = [_Node(cluster.dispatcher)]
        if cluster.standby_dispatcher is not None:
            self._dispatchers.append(_Node(cluster.standby_dispatcher))
        self._hit = self._dispatchers[0]  # the one that the latest fault is about
        #: The address of the dispatcher that answered last; whoever asks it sets this.
        self.serving = cluster.dispatcher.address

    @property
    def daemons(self) -> list[Daemon]:
        """Every process that is part of the cluster now."""
        return [node.daemon for node in self._nodes()]

    @property
    def running(self) -> int:
        """Number of processes that are up, announced and not paused."""
        return sum(node.up and node.announced and not node.paused for node in self._nodes())

    @property
    def weak(self) -> bool:
        """Whether most workers are only starting: then it is too early for the next fault."""
        up = [node for node in self._workers.values() if node.up]
        starting = sum(not node.announced for node in up)
        return 2 * starting > len(up)

    def carry_out(self, step: Step) -> str:
        """Does what `step` says.

        Returns:
            What was done, for people.
        """
        if step.verb is Verb.ADD:
            self._workers[step.node] = _Node(self._cluster.add_worker(wait=False), announced=False)
            return f"{step.node}: a new worker starts"
        node = self._node(step)
        if step.kind == TOGETHER:
            for dispatcher in self._dispatchers:
                _kill(dispatcher)
        elif step.verb is Verb.KILL:
            _kill(node)
        elif step.verb is Verb.TERMINATE:
            node.up, node.asked_s = False, time.monotonic()
            node.daemon.send_signal(signal.SIGTERM)
        elif step.verb is Verb.PAUSE:
            node.paused = True
            node.daemon.send_signal(signal.SIGSTOP)
        elif step.verb is Verb.RESUME:
            node.paused = False
            node.daemon.send_signal(signal.SIGCONT)
        elif step.node == DISPATCHER:
            for dispatcher in self._dispatchers:
                if not dispatcher.up:
                    self._start_dispatcher()
        elif node.daemon.alive:
            node.next = None if node.up else step.verb  # it is still busy with ending
        else:
            self._start(node, same_address=step.verb is Verb.RESTART)
        return f"{step.node} ({node.daemon.name}, pid {node.daemon.pid}): {step.verb}"

    def tend(self) -> list[str]:
        """Looks after the processes: reads announcements, starts again what may end.

        Returns:
            What must not have happened: a process ended that nobody had ended.
        """
        problems = []
        for name, node in [*self._workers.items(), *((DISPATCHER, d) for d in self._dispatchers)]:
            if node.next is not None:
                problems += self._tend_ending(node)
            if not node.up or node.paused:
                continue
            if not node.announced and node.daemon.alive:
                node.announced = _announcement(node.daemon)
                node.starts = 0 if node.announced else node.starts
            code = node.daemon.exit_code
            if code is None:
                continue
            # While it was down another process may have been given its port.
            taken = code == _ADDRESS_TAKEN and not node.announced and node.starts < _STARTS_MAX
            replaced = name == DISPATCHER and len(self._dispatchers) > 1
            if taken or (replaced and code == JournalError.exit_code):
                if name == DISPATCHER:
                    self._start_dispatcher()
                else:
                    self._start(node, same_address=True)
            else:
                problems.append(f"{node.daemon.name} ended by itself with exit code {code}")
        return problems

    def _tend_ending(self, node: _Node) -> list[str]:
        assert node.next is not None
        if not node.daemon.alive:
            verb, node.next = node.next, None
            self._start(node, same_address=verb is Verb.RESTART)
        elif time.monotonic() - node.asked_s > _END_S:
            return [f"{node.daemon.name} has not ended {_END_S:.0f} s after SIGTERM"]
        return []

    def calm(self) -> None:
        """Continues what is paused, so that it can be stopped."""
        for node in self._nodes():
            if node.paused:
                node.paused = False
                node.daemon.send_signal(signal.SIGCONT)

    def _nodes(self) -> list[_Node]:
        return [*self._dispatchers, *self._workers.values()]

    def _node(self, step: Step) -> _Node:
        if step.node != DISPATCHER:
            return self._workers[step.node]
        if step.verb in (Verb.KILL, Verb.PAUSE):
            serving = (d for d in self._dispatchers if d.daemon.address == self.serving)
            self._hit = next(serving, self._dispatchers[0])
        return self._hit

    def _start(self, node: _Node, *, same_address: bool) -> None:
        if same_address and node.daemon.address:
            node.daemon = self._cluster.restart_worker(node.daemon, wait=False)
        else:  # also for one that was killed before anybody knew its address
            node.daemon = self._cluster.add_worker(standby=node.standby, wait=False)
        _started(node)

    def _start_dispatcher(self) -> None:
        """Starts the dispatcher that ended; the cluster knows as what."""
        self._cluster.restart_dispatcher(wait=False)
        daemons = [self._cluster.dispatcher, self._cluster.standby_dispatcher]
        (node,) = [n for n in self._dispatchers if n.daemon not in daemons]
        known = [n.daemon for n in self._dispatchers]
        node.daemon = next(d for d in daemons if d is not None and d not in known)
        _started(node)


def _kill(node: _Node) -> None:
    node.up = node.paused = False
    node.next = None
    node.daemon.kill()


def _started(node: _Node) -> None:
    node.up, node.announced, node.paused, node.next = True, False, False, None
    node.starts += 1


def _announcement(daemon: Daemon) -> bool:
    """Whether the daemon has announced itself; does not wait."""
    try:
        daemon.wait_ready(deadline_s=0.0)
    except PenstockError:
        return False
    return True

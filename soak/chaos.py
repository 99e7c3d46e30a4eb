"""A random schedule of faults for a cluster and its trainers: pure, a function of its seed.

`schedule` gives `Step`s: at this second do this to that node. A fault is one step that begins it
(a kill, a pause) and those that end it (a start, a continue). The rules that make a schedule worth
running are kept here, so that whoever carries it out needs none: no node has two faults at once, a
node that came back has time to get to work before it is hit again, a cluster never loses its last
worker for good, and everything that was begun has ended when the schedule does.

The node names are "worker-0", "worker-1", …, "dispatcher" and "trainer-0", …. With a standby
dispatcher, "dispatcher" is whichever of the two serves at that moment.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DISPATCHER = "dispatcher"
#: The fault that hits all workers and every dispatcher: "dispatcher" in its steps means them all.
TOGETHER = "kill -9 of dispatcher and workers together"
#: A schedule is quiet for its last seconds, or for this share of it if that is less.
_CALM_S = 10.0
_CALM_SHARE = 0.2
_FIRST_S = (2.0, 4.0)
_GAP_S = (0.5, 6.0)
#: Seconds that a node of that kind is left alone after a fault of its own.
_WORKER_REST_S = 10.0
_DISPATCHER_REST_S = 5.0
_CLUSTER_REST_S = 15.0
_TRAINER_REST_S = 15.0
_WORKERS_MORE = 2


class Verb(str, Enum):
    """What is done to a node."""

    KILL = "kill -9"
    TERMINATE = "SIGTERM"
    PAUSE = "SIGSTOP"
    RESUME = "SIGCONT"
    RESTART = "restart at its address"
    REPLACE = "a new one instead"
    ADD = "a new one"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Shape:
    """What a schedule is for.

    Attributes:
        workers: slots for workers at the start, standbys included, >= 1.
        trainers: number of trainer processes, >= 0.
        worker_timeout_s: pauses of workers are shorter and longer than this.
        client_timeout_s: pauses of trainers are shorter and longer than this.
        lease_s: pauses of the dispatcher are shorter and longer than this.
    """

    workers: int
    trainers: int
    worker_timeout_s: float
    client_timeout_s: float
    lease_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        at_s: seconds after the start of the schedule.
        verb: what to do.
        node: to whom.
        fault: number of the fault that it belongs to, from 0.
        kind: name of the fault where this step begins one, else empty.
    """

    at_s: float
    verb: Verb
    node: str
    fault: int
    kind: str = ""


def worker_node(number: int) -> str:
    """The name of the worker in slot `number`."""
    return f"worker-{number}"


def trainer_node(number: int) -> str:
    """The name of trainer `number`."""
    return f"trainer-{number}"


def schedule(seed: int, seconds: float, shape: Shape) -> tuple[Step, ...]:
    """The steps of a run, in the order of their time.

    Args:
        seed: decides everything.
        seconds: length of the run; the last step comes before its end.
        shape: the cluster and the timeouts that matter.

    Raises:
        UsageError: there is no worker, or no time.
    """
    if shape.workers < 1 or not seconds > 0:
        raise UsageError("a schedule needs at least one worker and a duration above 0 s")
    return _Scheduler(random.Random(seed), seconds, shape).run()


def postponed(steps: Sequence[Step], by_s: float) -> list[Step]:
    """Steps with every fault that has not begun yet begun later, by `by_s` seconds.

    For a machine that is slower than the schedule. What has begun ends when it was meant to, and
    the rests between two faults of a node only get longer.

    Args:
        steps: those that are still to be carried out, in order.
        by_s: by how much.

    Returns:
        The steps, in their new order.
    """
    waiting = {step.fault for step in steps if step.kind}
    moved = [
        dataclasses.replace(step, at_s=step.at_s + by_s) if step.fault in waiting else step
        for step in steps
    ]
    return sorted(moved, key=lambda step: step.at_s)


def begun(steps: Sequence[Step]) -> list[Step]:
    """Only the steps of faults that have begun: all the others are dropped."""
    waiting = {step.fault for step in steps if step.kind}
    return [step for step in steps if step.fault not in waiting]


def last_fault_s(seconds: float) -> float:
    """When a run of that length is quiet: no fault begins from then on."""
    return seconds - min(_CALM_S, _CALM_SHARE * seconds)


class _Scheduler:
    def __init__(self, choice: random.Random, seconds: float, shape: Shape) -> None:
        self._choice = choice
        self._shape = shape
        self._end_s = last_fault_s(seconds)
        self._slots = {worker_node(number) for number in range(shape.workers)}
        self._slots_made = shape.workers
        self._free_s: dict[str, float] = {}
        self._now_s = min(choice.uniform(*_FIRST_S), seconds * 0.1)
        self._faults = 0
        self._steps: list[Step] = []
        self._kinds: tuple[tuple[int, Callable[[], list[Step]]], ...] = (
            (12, self._kill_worker),
            (8, self._pause_worker),
            (4, self._terminate_worker),
            (2, self._lose_worker),
            (2, self._join_worker),
            (8, self._kill_dispatcher),
            (4, self._pause_dispatcher),
            (1, self._kill_everything),
            (4, self._pause_trainer),
            (2, self._kill_trainer),
        )

    def run(self) -> tuple[Step, ...]:
        weights = [weight for weight, _ in self._kinds]
        make = self._kill_worker  # a run without a single kill would show nothing
        while self._now_s < self._end_s:
            steps = make()
            # A fault that would not be over in time is dropped, and another one gets the chance.
            if steps and max(step.at_s for step in steps) < self._end_s:
                self._keep(steps)
                self._now_s += self._choice.uniform(*_GAP_S)
            else:
                self._now_s += _GAP_S[0]
            (make,) = self._choice.choices([make for _, make in self._kinds], weights)
        return tuple(sorted(self._steps, key=lambda step: step.at_s))

    def _keep(self, steps: list[Step]) -> None:
        self._steps += steps
        self._faults += 1
        together = len({step.node for step in steps}) > 1
        for step in steps:
            rest_s = _WORKER_REST_S
            if together:
                rest_s = _CLUSTER_REST_S
            elif step.node == DISPATCHER:
                rest_s = _DISPATCHER_REST_S
            elif step.node.startswith("trainer"):
                rest_s = _TRAINER_REST_S
            self._free_s[step.node] = max(self._free_s.get(step.node, 0.0), step.at_s + rest_s)
        begun = steps[0]
        if begun.verb is Verb.ADD:
            self._slots.add(begun.node)
            self._slots_made += 1
        elif len(steps) == 1 and begun.node in self._slots:
            self._slots.discard(begun.node)  # for good

    def _step(self, verb: Verb, node: str, kind: str = "", after_s: float = 0.0) -> Step:
        return Step(round(self._now_s + after_s, 3), verb, node, self._faults, kind)

    def _free(self, node: str) -> bool:
        return self._free_s.get(node, 0.0) <= self._now_s

    def _worker(self) -> str | None:
        free = sorted(node for node in self._slots if self._free(node))
        return self._choice.choice(free) if free else None

    def _kill_worker(self) -> list[Step]:
        if (node := self._worker()) is None:
            return []
        same = self._choice.random() < 0.7
        # At once as well: the place is taken before anybody has missed a heartbeat.
        pause_s = self._choice.choice([0.0, 0.2, 1.0, 2.0 * self._shape.worker_timeout_s])
        verb = Verb.RESTART if same else Verb.REPLACE
        return [
            self._step(Verb.KILL, node, "kill -9 of a worker"),
            self._step(verb, node, after_s=pause_s * self._choice.uniform(0.5, 1.5)),
        ]

    def _pause_worker(self) -> list[Step]:
        if (node := self._worker()) is None:
            return []
        pause_s = self._shape.worker_timeout_s * self._choice.choice([0.3, 0.8, 1.5, 3.0])
        return [
            self._step(Verb.PAUSE, node, "pause of a worker"),
            self._step(Verb.RESUME, node, after_s=pause_s),
        ]

    def _terminate_worker(self) -> list[Step]:
        if (node := self._worker()) is None:
            return []
        return [
            self._step(Verb.TERMINATE, node, "SIGTERM of a worker"),
            self._step(Verb.RESTART, node, after_s=self._choice.uniform(0.5, 4.0)),
        ]

    def _lose_worker(self) -> list[Step]:
        node = self._worker()
        if node is None or len(self._slots) <= self._shape.workers:
            return []  # only what had joined may go for good
        return [self._step(Verb.KILL, node, "kill -9 of a worker for good")]

    def _join_worker(self) -> list[Step]:
        if len(self._slots) >= self._shape.workers + _WORKERS_MORE:
            return []
        return [self._step(Verb.ADD, worker_node(self._slots_made), "a new worker")]

    def _kill_dispatcher(self) -> list[Step]:
        if not self._free(DISPATCHER):
            return []
        pause_s = self._choice.choice([0.0, 0.5, 3.0]) * self._choice.uniform(0.5, 1.5)
        return [
            self._step(Verb.KILL, DISPATCHER, "kill -9 of the dispatcher"),
            self._step(Verb.RESTART, DISPATCHER, after_s=pause_s),
        ]

    def _pause_dispatcher(self) -> list[Step]:
        if not self._free(DISPATCHER):
            return []
        pause_s = self._shape.lease_s * self._choice.choice([0.2, 0.6, 1.5, 2.5])
        return [
            self._step(Verb.PAUSE, DISPATCHER, "pause of the dispatcher"),
            self._step(Verb.RESUME, DISPATCHER, after_s=pause_s),
        ]

    def _kill_everything(self) -> list[Step]:
        nodes = [DISPATCHER, *sorted(self._slots)]
        rested_s = max(self._free_s.get(node, 0.0) for node in nodes)
        if rested_s >= self._end_s:
            return []
        # By itself there would hardly be a moment at which all of them are at rest.
        self._now_s = max(self._now_s, rested_s)
        steps = [
            self._step(Verb.KILL, node, TOGETHER if number == 0 else "")
            for number, node in enumerate(nodes)
        ]
        self._choice.shuffle(nodes)
        after_s = 0.1
        for node in nodes:
            after_s += self._choice.uniform(0.0, 1.5)
            steps.append(self._step(Verb.RESTART, node, after_s=after_s))
        return steps

    def _trainer(self) -> str | None:
        free = [trainer_node(n) for n in range(self._shape.trainers)]
        free = [node for node in free if self._free(node)]
        return self._choice.choice(free) if free else None

    def _pause_trainer(self) -> list[Step]:
        if (node := self._trainer()) is None:
            return []
        pause_s = self._shape.client_timeout_s * self._choice.choice([0.1, 0.5, 1.5])
        return [
            self._step(Verb.PAUSE, node, "pause of a trainer"),
            self._step(Verb.RESUME, node, after_s=pause_s),
        ]

    def _kill_trainer(self) -> list[Step]:
        if (node := self._trainer()) is None:
            return []
        return [
            self._step(Verb.KILL, node, "kill -9 of a trainer"),
            self._step(Verb.RESTART, node, after_s=self._choice.uniform(0.1, 2.0)),
        ]

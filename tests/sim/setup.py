"""What a seed chooses: how large everything is, how slow, and what goes wrong when."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass

from penstock.timing import Timing

from .data import Pipeline
from .net import Weather

#: What can go wrong, and how often, relative to each other.
FAULTS = (
    ("kill_worker", 8),
    ("stop_worker", 2),
    ("pause_worker", 4),
    ("kill_dispatcher", 6),
    ("crash_dispatcher", 4),
    ("pause_dispatcher", 2),
    ("cut", 6),
    ("isolate", 2),
    ("break_connection", 6),
    ("kill_all", 2),
    ("add_worker", 2),
    ("kill_trainer", 1),
    ("pause_trainer", 2),
)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at `at_s` after the start and lasts for `lasts_s`."""

    at_s: float
    kind: str
    lasts_s: float


@dataclass(frozen=True)
class Setup:
    """One run, but for what the network draws on the way."""

    pipelines: tuple[Pipeline, ...]
    workers: int
    standbys: int
    slots: int
    worker_memory: int
    client_memory: int
    epochs: int
    timing: Timing
    weather: Weather
    faults: tuple[Fault, ...]
    #: When everything is well again, seconds after the start.
    calm_s: float
    turn_s: float
    disk_s: float
    segment: int
    snapshot_records: int
    take_bytes: int
    step_s: float
    piece_s: float
    piece_max: int
    frame_s: float
    #: Probability that a run of a split raises.
    fails: float
    #: Probability that a run of a split makes nothing any more, and does not say so.
    hangs: float
    #: Probability of a checkpoint after a piece.
    checkpoint: float
    journal_lost: bool
    #: Weights of what is answered about faults; see `failover.ANSWERS`.
    answers: tuple[int, ...]

    @property
    def patience_s(self) -> float:
        """How long after the last fault everything may take that is still to be done."""
        pieces = self.epochs * sum(p.total + len(p.sizes) for p in self.pipelines)
        timing = self.timing
        work_s = pieces * (self.piece_s + self.step_s + self.frame_s + 0.05)
        work_s *= 4 if any(pipeline.bad for pipeline in self.pipelines) else 1
        stuck_s = 12 * timing.progress_timeout_s if self.hangs else 0.0
        return stuck_s + 4 * work_s + 4 * timing.client_timeout_s + 10 * timing.rpc_deadline_s + 60


def choose(rng: random.Random) -> Setup:
    """Everything that a seed stands for."""
    calm_s = rng.choice((0.0, 5.0, 10.0, 20.0))
    worker_timeout_s = rng.choice((1.0, 2.0, 5.0))
    timing = Timing(
        heartbeat_s=rng.choice((0.5, 1.0)),
        worker_timeout_s=worker_timeout_s,
        # One lost reply must not be a silence: the deadline of a call is well below the timeout.
        client_timeout_s=rng.choice((5.0, 10.0, 30.0)),
        rpc_deadline_s=rng.choice((0.5, 1.0)),
        connect_deadline_s=600.0,
        retry_min_s=0.05,
        retry_max_s=rng.choice((0.2, 1.0)),
        attempt_grace_s=rng.choice((0.5, 5.0)),
    )
    faulty = calm_s > 0
    weather = Weather(lag_s=rng.choice((0.001, 0.01, 0.05)))
    if faulty:
        weather.slow = rng.choice((0.0, 0.02, 0.1))
        weather.lost = rng.choice((0.0, 0.0, 0.02, 0.1))
        weather.repeated = rng.choice((0.0, 0.02, 0.2))
    pipelines = [_pipeline(rng, f"job{number}") for number in range(rng.choice((1, 1, 1, 2)))]
    spoiled = any(pipeline.bad for pipeline in pipelines)
    epochs = rng.choice((1, 2, 2, 3))
    # The work is to last about as long as the faults do: half of the runs wait for the trainer,
    # the others for the workers.
    elements = epochs * max(1, max(pipeline.total for pipeline in pipelines))
    pace_s = max(0.002, min(0.5, calm_s * rng.uniform(0.3, 1.5) / elements))
    by_trainer = rng.random() < 0.5
    piece_s = rng.choice((0.002, 0.02)) if by_trainer else rng.choice((1, 2, 4)) * pace_s
    timing = dataclasses.replace(timing, progress_timeout_s=10 + 10 * piece_s)
    return Setup(
        pipelines=tuple(pipelines),
        workers=rng.randrange(1, 5),
        standbys=rng.choice((0, 0, 1, 2)),
        slots=rng.choice((1, 2, 4)),
        worker_memory=rng.choice((1, 20_000, 1 << 20)),
        client_memory=rng.choice((100, 2_000, 1 << 20)),  # an element has 100 bytes
        epochs=epochs,
        timing=timing,
        weather=weather,
        faults=_faults(rng, calm_s, timing) if faulty else (),
        calm_s=calm_s,
        turn_s=rng.choice((0.0, 0.0, 0.001, 0.01)),
        disk_s=rng.choice((0.001, 0.01, 0.1)),
        segment=rng.choice((2_000, 1 << 20)),
        snapshot_records=rng.choice((10, 50, 100_000)),
        # A slow trainer that takes much at once finds elements of all lanes: they are woven.
        take_bytes=rng.choice((1, 1000) if by_trainer else (1, 1000, 1 << 20)),
        step_s=pace_s if by_trainer else 0.001,
        piece_s=piece_s,
        piece_max=rng.choice((1, 4, 10)),
        frame_s=rng.choice((0.0, 0.01)),
        # Where some elements always raise, a healthy one must not seem to.
        fails=0.0 if spoiled else rng.choice((0.0, 0.0, 0.0, 0.05)),
        hangs=rng.choice((0.0, 0.0, 0.0, 0.03)) if faulty and not spoiled else 0.0,
        checkpoint=rng.choice((0.0, 0.2, 0.7)),
        journal_lost=faulty and rng.random() < 0.02,
        answers=rng.choice(((1, 0, 0, 0, 0), (1, 0, 0, 0, 0), (4, 3, 3, 1, 1), (1, 1, 1, 0, 0))),
    )


def _pipeline(rng: random.Random, name: str) -> Pipeline:
    splits = rng.choice((1, 3, 8, 12))
    largest = rng.choice((1, 8, 16))
    sizes = tuple(rng.randrange(largest + 1) for _ in range(splits))
    places = [(split, number) for split, size in enumerate(sizes) for number in range(size)]
    spoiled = rng.sample(places, min(len(places), 3)) if rng.random() < 0.15 else []
    return Pipeline(
        name=name,
        seed=rng.getrandbits(63),
        sizes=sizes,
        weights=rng.choice(((), sizes)),
        lanes=rng.choice((1, 2, 3, 5)),
        block=rng.choice((1, 2, 5, 100)),
        ordered=rng.random() < 0.3,
        deterministic=rng.random() < 0.8,
        attempts_max=3 if spoiled else rng.choice((1, 3)),
        bad=frozenset(spoiled),
    )


def _faults(rng: random.Random, calm_s: float, timing: Timing) -> tuple[Fault, ...]:
    kinds = [kind for kind, _ in FAULTS]
    weights = [weight for _, weight in FAULTS]
    if rng.random() < 0.4:  # a run of few kinds goes deeper than one of all
        chosen = rng.sample(range(len(kinds)), 3)
        kinds, weights = [kinds[i] for i in chosen], [weights[i] for i in chosen]
    faults = []
    for _ in range(rng.choice((1, 3, 6, 12))):
        kind = rng.choices(kinds, weights)[0]
        longest_s = rng.choice((0.2, timing.worker_timeout_s, 3 * timing.worker_timeout_s))
        if kind == "pause_trainer" and rng.random() < 0.3:
            longest_s = 2 * timing.client_timeout_s
        faults.append(Fault(rng.random() * calm_s, kind, rng.random() * longest_s))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))

"""Case `diagnose`: how many megabytes of log a second are read for a diagnosis, on one core.

Logs are made in memory, block by block, so that no disk is measured. `usual` is what trainers write
when all is well; `mixed` holds what is hard as well: ids in every tenth line, words of rules,
warnings, and one line of fifty like no other. `varied` is the worst there is, lines that are all
different and hold words of rules. Each ends with a failure that has to be found.
"""

from __future__ import annotations

import contextlib
import random
import resource
import time
from functools import partial
from typing import TYPE_CHECKING

from ..errors import VerificationError
from ..recovery.diagnosis.entry import builtin_rules, diagnose_logs
from .harness import Case, Contestant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .harness import Metrics, Settings, Show

    Line = Callable[[random.Random, int], str]

MEGABYTES = 1000
_VARIED_MEGABYTES = 3
#: Stands in a block where each repetition of it has another text.
_TURN = b"@@@@"
_FAILURE = b"\nTraceback (most recent call last):\n  File \"t.py\", line 1, in f\nKeyError: 'x'\n"
_WORDS = ("loader", "queue", "rank", "shard", "token", "cache", "worker", "value")

METRICS = {
    "mb_per_s": "megabytes of log for each second of processor time",
    "log_mb": "megabytes read",
    "grown_mb": "by how much the process's largest size grew meanwhile",
}


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """A training's usual log, a harder one, and one of lines that are all different."""
    scale = 10 if settings.quick else 1
    yield [
        Contestant("usual", partial(measure, _usual, MEGABYTES // scale)),
        Contestant("mixed", partial(measure, _mixed, MEGABYTES // scale)),
        Contestant("varied", partial(measure, _varied, _VARIED_MEGABYTES)),
    ]


CASE = Case(
    "diagnose",
    "megabytes of log read a second for a diagnosis",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
)


def measure(line: Line, megabytes: int) -> Metrics:
    """Diagnoses a log of so many megabytes of lines that `line(random, number)` makes.

    Raises:
        VerificationError: the failure at its end was not found.
    """
    builtin_rules()
    block = _block(line)
    count = max(megabytes * 1_000_000 // len(block), 1)

    made_s = 0.0

    def blocks() -> Iterator[bytes]:
        nonlocal made_s
        for turn in range(count):
            began = time.process_time()
            made = block.replace(_TURN, b"%04x" % (turn * 40503 % 65536))
            made_s += time.process_time() - began
            yield made
        yield _FAILURE

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    found = diagnose_logs([blocks()])
    seconds = time.process_time() - began - made_s
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if found.root_cause != "KeyError":
        raise VerificationError(f"the log's failure was taken for {found.root_cause}")
    read = count * len(block) / 1e6
    return {"mb_per_s": read / seconds, "log_mb": read, "grown_mb": grown / 1024}


def _block(line: Line, nbytes: int = 3_000_000) -> bytes:
    source = random.Random(1)
    made: list[str] = []
    size = number = 0
    while size < nbytes:
        made.append(line(source, number))
        size += len(made[-1]) + 1
        number += 1
    return "\n".join(made).encode()


def _usual(source: random.Random, number: int) -> str:
    """What trainers, loaders and NCCL write when all is well."""
    clock = f"2026-11-25 05:{number // 60 % 60:02}:{number % 60:02}"
    if number % 5 < 3:
        return (
            f"{clock},{number % 1000:03} INFO trainer step={number} loss={source.random():.4f}"
            f" lr=1.0e-4 grad_norm={source.random():.3f} tokens/s={source.randrange(9999)}"
        )
    if number % 5 == 3:
        word = source.choice(_WORDS)
        return f"[rank{number % 8}]: {clock} loader.py:88] shard-{number:06}.tar opened, {word}"
    return f"gpu{number % 64:02}:811:902 [{number % 8}] NCCL INFO Channel {number % 32:02} via P2P"


def _varied(source: random.Random, number: int) -> str:
    words = " ".join(f"{source.choice(_WORDS)}{source.getrandbits(40):x}" for _ in range(7))
    return f"worker says {words}"


def _mixed(source: random.Random, number: int) -> str:
    """Routine lines of many kinds, some with ids, few unlike all others."""
    clock = f"2026-11-25T05:{number // 60 % 60:02}:{number % 60:02}.{number % 1000:03}Z"
    kind = source.randrange(50)
    if kind == 0:
        return f"{_varied(source, number)} @@@@{source.choice(_WORDS)}"
    if kind < 6:
        uuid = f"@@@@{source.getrandbits(16):04x}-4a1b-8c2d-9e3f-{source.getrandbits(48):012x}"
        return f"{clock} INFO request {uuid} of rank {number % 8} took {number % 97} ms, no error"
    if kind < 12:
        return f"{clock} WARNING loader.py:{number % 400} worker {number % 64} is slow, retrying"
    if kind < 18:
        return f'{{"t": "{clock}", "level": "info", "errors": 0, "queue": {number}, "failed": 0}}'
    if kind < 24:
        return f"{clock} cache hit for shard-{number:06}.tar, token valid for {number % 60} minutes"
    return _usual(source, number)

"""Which checkpoints workers have on their disks, and whether a split was restored at the best one.

A split is restored at the newest checkpoint that its client has passed. What lies between two
checkpoints of a split is what was made in one interval, so a split that begins at the newest one
that can be used is made again by less than an interval. That is compared here, without any clock.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..worker.checkpoint_file import DamagedError, read_header
from ..worker.checkpoints import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint: the directory that it is in, of what it is, and the elements before it."""

    place: str
    epoch: int
    split: int
    elements: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the dispatcher's status said last of an attempt.

    Attributes:
        epoch, split, worker: of the attempt.
        restored: the element that it began at; 0 for the beginning.
        recomputed: elements that it made again though the client had them.
    """

    epoch: int
    split: int
    worker: str
    restored: int
    recomputed: int


def kept_in(root: Path, epoch: int) -> list[Kept]:
    """The checkpoints of an epoch in a `--checkpoint-dir`; workers may be changing it."""
    found = []
    for path in sorted(root.glob(f"*/*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError, DamagedError), path.open("rb") as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
            if header.key.epoch == epoch:
                key = header.key
                found.append(Kept(path.parent.name, key.epoch, key.split, header.elements))
    return found


def passed(consumed: int, splits: int, block: int) -> int:
    """How many elements of every split have been delivered at least.

    Args:
        consumed: elements of the epoch that the trainer has.
        splits: equally large ones, one in each lane.
        block: elements of a lane before the next one's turn.
    """
    return consumed // (splits * block) * block


class Usable:
    """Tells which workers have a checkpoint that can be used: one that the client is past.

    How far the client is, its worker knows: it keeps of each split the newest checkpoint that the
    client is past, and all after it. So where one has been removed, the oldest that is left can be
    used.
    """

    def __init__(self) -> None:
        self._least: dict[tuple[str, int], int] = {}

    def look(self, kept: Sequence[Kept], delivered: int = 0) -> set[str]:
        """The workers that have one, as far as is known from this look and those before.

        Args:
            kept: what there is.
            delivered: elements of every split that the trainer has.
        """
        places = set()
        oldest: dict[tuple[str, int], int] = {}
        for one in kept:
            key = one.place, one.split
            oldest[key] = min(one.elements, oldest.get(key, one.elements))
        for key, elements in oldest.items():
            if elements > self._least.setdefault(key, elements) or elements <= delivered:
                places.add(key[0])
        return places


def replay_problems(attempts: Sequence[Attempt], kept: Sequence[Kept]) -> list[str]:
    """Which attempts made more again than they had to, in words.

    Args:
        attempts: those that followed a worker's death.
        kept: what was on its disk then.
    """
    problems = []
    for attempt in attempts:
        cursor = attempt.restored + attempt.recomputed
        newest = max(
            (
                one.elements
                for one in kept
                if (one.epoch, one.split) == (attempt.epoch, attempt.split)
                and one.elements <= cursor
            ),
            default=0,
        )
        if cursor and attempt.restored < newest:
            problems.append(
                f"split {attempt.split} was made again from element {attempt.restored} on, though "
                f"there was a checkpoint at {newest} and the client wanted it from {cursor} on"
            )
    return problems

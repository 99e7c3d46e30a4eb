"""What a cache directory holds, read row by row: the fault tests' own look at it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..proto.chunk import decode
from ..soak.data import hash_of
from ..worker.cache_files import name_of
from ..worker.segment import Segment
from ..worker.segment_file import DamagedSegmentError
from .data import FILES

if TYPE_CHECKING:
    from pathlib import Path

#: The components of an element of the fault tests' pipeline, in the order in which they are stored.
_COMPONENTS = ("image", "label")


def cache_problems(root: Path, truth: Counter[bytes]) -> tuple[list[str], int]:
    """Compares the rows of every segment with a plain local run.

    Args:
        root: the workers' `--cache-dir`, with one directory for each that has its own.
        truth: how often each element occurs.

    Returns:
        What is wrong, in words, and how many segments there are.
    """
    problems: list[str] = []
    rows: Counter[bytes] = Counter()
    splits: Counter[int] = Counter()
    for path in sorted(root.glob("**/*.seg")):
        name = name_of(path)
        if name is None:
            problems.append(f"{path} has not the name of a segment")
            continue
        splits[name.split] += 1
        try:
            with Segment(path, name) as segment:
                segment.check()
                rows.update(_rows_of(segment))
        except DamagedSegmentError as error:
            problems.append(str(error))
    if splits != Counter(range(FILES)):
        problems.append(f"the segments are of splits {dict(sorted(splits.items()))}")
    lost, more = truth - rows, rows - truth
    if lost or more:
        doubled = sum(1 for row in more if row in truth)
        problems.append(
            f"{lost.total()} rows are missing in the cache, {doubled} are there more than once,"
            f" {more.total() - doubled} are of no element"
        )
    left = [
        path.name for pattern in ("partial", "damaged") for path in root.glob(f"**/*.{pattern}")
    ]
    if left:
        problems.append(f"left behind in the cache: {', '.join(left)}")
    return problems, splits.total()


def _rows_of(segment: Segment) -> list[bytes]:
    rows = []
    for frame in range(len(segment.frames)):
        chunk = decode(segment.header(frame), segment.payload(frame))
        for index in range(chunk.start, chunk.stop):
            arrays = zip(_COMPONENTS, chunk.element(index), strict=True)
            rows.append(hash_of({key: array[()] for key, array in arrays}))
    return rows

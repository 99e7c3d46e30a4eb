"""A trainer for the tests of memory: reads epochs, and tells its memory on standard output.

`python -m tests.cluster.reading ADDRESS WAY EPOCHS ELEMENTS FLOATS MEMORY_LIMIT PAUSE_AFTER`

Elements are vectors of FLOATS float32. After each epoch it writes one JSON line. After PAUSE_AFTER
elements (0: never) it stops reading, says so, and goes on when it gets a line on standard input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

import penstock
from penstock.bench.processes import process_rss_bytes


def vectors(elements: int, floats: int) -> Any:
    return tf.data.Dataset.range(elements).map(
        lambda i: tf.cast(i, tf.float32) + tf.zeros([floats], tf.float32)
    )


def lengths(reader: Any, way: str) -> Iterator[int]:
    """How many elements come at once, over one epoch."""
    if way == "numpy":
        for run in reader.runs():
            yield len(run[0])
    else:
        for batch in reader.dataset().batch(32):
            yield len(batch)


def say(**what: Any) -> None:
    print(json.dumps({**what, "rss_bytes": process_rss_bytes(os.getpid())}), flush=True)


def main() -> None:
    address, way, *numbers = sys.argv[1:]
    epochs, elements, floats, memory_limit, pause_after = map(int, numbers)
    dataset = vectors(elements, floats)
    with penstock.Reader(dataset, address, seed=1, memory_limit=memory_limit) as reader:
        total = 0
        for epoch in range(epochs):
            for length in lengths(reader, way):
                if total <= pause_after < total + length:
                    say(consumed=total + length)
                    sys.stdin.readline()
                total += length
            say(epoch=epoch, consumed=total, digests=len(reader.digests))


if __name__ == "__main__":
    main()

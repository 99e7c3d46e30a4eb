"""A trainer as a process of its own: reads an epoch and writes down what it gets.

Usage: python trainer.py ADDRESS COUNT SEED OUT. The file OUT gets a line with each element's first
component, flushed before the next one is taken, so that what was consumed is known whatever
happens to the process; after the epoch the line `end`. Exits with 0, or 9 after a penstock error,
which is the last line of standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines import numbers  # beside this file, which is run as a script

import penstock
from penstock.errors import PenstockError


def main(address: str, count: int, seed: int, out: Path) -> int:
    """Consumes one epoch."""
    served = numbers(count, work=20).apply(penstock.distribute(address, seed=seed))
    try:
        with out.open("a") as file:
            for element in served:
                file.write(f"{int(element[0])}\n")
                file.flush()
            file.write("end\n")
    except Exception as error:
        # tf.data shows an error of the service as text only; the reader has the real one.
        cause = served.penstock.error
        if not isinstance(cause, PenstockError):
            raise
        print(f"{type(cause).__name__}: {cause} ({error!r:.80})", file=sys.stderr)
        return 9
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))

"""`penstock faults` with a training process that spoils what it is given by one of the tests.

With arguments this is the command; without, the training process that it starts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from penstock.faults import consumer, trainer

SPOILED = "dispatcher"
take = trainer.arrays_of


def spoil(batch: dict[str, Any], epoch: int) -> dict[str, Any]:
    """Two elements change places, or one comes instead of another, or three are altered or lost."""
    images, labels = batch["image"].copy(), batch["label"].copy()
    if epoch == 0:
        images[[3, 4]], labels[[3, 4]] = images[[4, 3]], labels[[4, 3]]
    elif epoch == 1:
        images[3], labels[3] = images[4], labels[4]
    else:
        images[3, 63, 63, 2] = np.nextafter(images[3, 63, 63, 2], np.float32(2.0))
        labels[4] += 1
        images, labels = images[:-1], labels[:-1]
    return {"image": images, "label": labels}


def spoiled_arrays(batches: Any, order: Any, reader: Any) -> Iterator[dict[str, Any]]:
    for number, batch in enumerate(take(batches, order, reader)):
        yield spoil(batch, reader.epoch) if order.job == f"{SPOILED}-1" and number == 2 else batch


if __name__ == "__main__":
    if sys.argv[1:]:
        from penstock.cli.main import main

        consumer.PROGRAM = (__file__,)
        main()
    trainer.arrays_of = spoiled_arrays
    trainer.main()

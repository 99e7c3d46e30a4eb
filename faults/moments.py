"""When a fault comes: after how many elements of its epoch. Pure.

A moment is a share of the epoch. Faults come in its middle: late enough that there is something to
lose, early enough that the client cannot have everything already.
"""

from __future__ import annotations

import random

#: The share of the epoch at which a fault comes unless it is drawn at random.
FIXED = 0.4
EARLIEST = 0.1
LATEST = 0.6
#: From one fault to the next, where a test has several in one epoch.
APART = 0.12


def share_of(seed: int, name: str, run: int | None) -> float:
    """The share of an epoch after which the first fault comes.

    Args:
        seed: of all.
        name: of the test.
        run: how often the test was run before, >= 0; None for the fixed moment.
    """
    if run is None:
        return FIXED
    return random.Random(f"{seed}/{name}/{run}").uniform(EARLIEST, LATEST)


def holds_of(share: float, strikes: int, elements: int) -> list[int]:
    """The elements after which the trainer waits for each fault, ascending.

    Args:
        share: of the first.
        strikes: how many faults there are.
        elements: of an epoch.
    """
    return [max(1, int((share + APART * number) * elements)) for number in range(strikes)]

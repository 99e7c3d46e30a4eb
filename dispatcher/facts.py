"""What the scheduler goes by beyond the state: all that is of the moment and not journaled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .offers import Offer
    from .reports import Progress


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the moment, beyond the state.

    Attributes:
        heard_s: when each worker and each job's client was heard of last, by worker or job id.
        produced: by worker, those of its running attempts that it has produced whole.
        offers: by worker, the splits that it has a checkpoint of.
        avoided: by job, the workers that its client cannot reach though they are alive.
        progress: how far each running attempt is.
        mistakes: by worker, how often it counted as dead lately and was alive.
        first_attempt: no attempt gets a lower number; above what a forgotten life has given out.
    """

    heard_s: Mapping[str, float] = field(default_factory=dict)
    produced: Mapping[str, Collection[int]] = field(default_factory=dict)
    offers: Mapping[str, Collection[Offer]] = field(default_factory=dict)
    avoided: Mapping[str, Collection[str]] = field(default_factory=dict)
    progress: Mapping[int, Progress] = field(default_factory=dict)
    mistakes: Mapping[str, int] = field(default_factory=dict)
    first_attempt: int = 0

"""A job that the dispatcher opened for a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..proto.position import Consumer
    from .epoch import StreamInfo


@dataclass(frozen=True, slots=True)
class OpenedJob:
    """A job that the dispatcher opened for this client.

    Attributes:
        job: its id; the others are those of the job and of the client, too.
        next_epoch: the epoch that each stream begins with.
        consumer: which of several this client is; None if it has the job for itself.
    """

    job: str
    client: str
    term: int
    seed: int
    lanes: int
    block: int
    ordered: bool
    deterministic: bool
    next_epoch: tuple[int, ...]
    streams: tuple[StreamInfo, ...]
    consumer: Consumer | None = None

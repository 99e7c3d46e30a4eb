"""Where a life of a client begins each epoch: at its beginning, at a position, with some lanes.

One of several consumers begins every epoch in the middle, so to speak: the lanes of the others are
at their ends. After a resize its own lanes come from different consumers, which may have been in
different epochs; so the rest of the earlier one comes first, and later ones begin where each lane
is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..proto.seats import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.position import Consumer, StreamPosition
    from ..proto.seats import GroupPosition


@dataclass(frozen=True, slots=True)
class Start:
    """Where a client goes on.

    Attributes:
        streams: where each stream goes on; None at the job's next epoch.
        consumer: which of several it is; None if it has all lanes.
        group: where the lanes of the consumers' generation began; None at the very beginning.
    """

    streams: Sequence[StreamPosition] | None = None
    consumer: Consumer | None = None
    group: GroupPosition | None = None

    def at(
        self, stream: int, begin: StreamPosition, lanes: Sequence[Sequence[int]], block: int
    ) -> StreamPosition | None:
        """Where an epoch begins; None at its beginning, with all lanes.

        Args:
            stream: the stream.
            begin: the beginning of the epoch.
            lanes: the splits of each lane, as dealt.
            block: of the job.
        """
        known = self._known(stream, begin.epoch)
        if known is not None or self.consumer is None:
            return known
        places = () if self.group is None else self.group.places
        return share(begin, lanes, block, self.consumer, places)

    def resumes(self, stream: int, epoch: int) -> bool:
        """Whether some of the client's part of an epoch was consumed before."""
        if self._known(stream, epoch) is not None:
            return True
        if self.consumer is None or self.group is None:
            return False
        return epoch <= self.group.last_epoch(self.consumer)

    def _known(self, stream: int, epoch: int) -> StreamPosition | None:
        position = None if self.streams is None else self.streams[stream]
        if position is None or position.epoch != epoch or not position.started:
            return None
        return position

"""What a simulated worker says of a cache, true or not: none of it may matter to what is delivered.

A real worker looks for a segment itself and makes the split if there is none, so to everybody else
what it says is a hint (decision 32). Here it is drawn at random: false, late, about splits that do
not exist. Placement changes with it, and must not change anything else.
"""

from __future__ import annotations

import random

from penstock.proto import control_pb2

MODES = ("off", "put", "on", "auto")
_STORES = 2
_SPLITS = 12


def key_of(fingerprint: str) -> str:
    """The cache key of a pipeline; that of some is shared by others."""
    return fingerprint[-2:]


class Gossip:
    """One worker's, of one incarnation.

    Args:
        incarnation: decides what is said.
        keys: of the pipelines that there are.
    """

    def __init__(self, incarnation: str, keys: list[str]) -> None:
        self._random = random.Random(incarnation)
        self._keys = [*keys, "unknown"]
        self._store = f"s{self._random.randrange(_STORES)}" if self._random.random() < 0.7 else ""

    def introduce(self, request: control_pb2.RegisterWorkerRequest) -> None:
        """Names a store, and what would be in it."""
        request.store, request.cache_limit = self._store, 1 << self._random.randrange(8, 40)
        request.cached.extend(self._lists())

    def tell(self, request: control_pb2.SyncWorkerRequest) -> None:
        """Says now and then that something came or went, or what it cost."""
        if self._random.random() < 0.7:
            return
        request.cached.extend(self._lists())
        request.uncached.extend(self._lists())
        request.read.extend(held.attempt for held in request.held)
        request.measures.add(
            key=self._random.choice(self._keys),
            elements=self._random.randrange(10),
            nbytes=self._random.randrange(1000),
            produce_us=self._random.randrange(1000),
            write_us=self._random.randrange(1000),
            read_us=self._random.randrange(1000),
        )

    def _lists(self) -> list[control_pb2.CachedSplits]:
        some = self._random.sample(self._keys, self._random.randrange(len(self._keys) + 1))
        return [
            control_pb2.CachedSplits(
                key=key, splits=[self._random.randrange(_SPLITS) for _ in range(4)]
            )
            for key in some
        ]

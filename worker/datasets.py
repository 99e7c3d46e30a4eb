"""The graphs of streams: fetched once for each fingerprint, loaded once, a bounded number kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: T | None = None


class DatasetCache(Generic[T]):
    """Streams by fingerprint, the least recently used dropped beyond `keep_max`.

    Args:
        load: makes a stream, given its fingerprint; may block and raise, and is then asked again
            by the next caller. Concurrent callers of one fingerprint share a call.
        keep_max: how many streams to keep.
    """

    def __init__(self, load: Callable[[str], T], keep_max: int = 32) -> None:
        self._load = load
        self._keep_max = keep_max
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()

    def get(self, fingerprint: str) -> T:
        """The stream of that fingerprint."""
        with self._lock:
            entry = self._entries.setdefault(fingerprint, _Entry())
            self._entries.move_to_end(fingerprint)
            while len(self._entries) > self._keep_max:
                self._entries.popitem(last=False)
        with entry.lock:
            if entry.value is None:
                entry.value = self._load(fingerprint)
            return entry.value

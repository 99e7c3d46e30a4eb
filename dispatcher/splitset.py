"""A set of split numbers, a bit each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class SplitSet:
    """A set of split numbers; it takes `largest number / 8` bytes.

    Equal sets have equal `to_bytes()`, whatever the order in which they were filled.
    """

    __slots__ = ("_bits", "_count")

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __contains__(self, split: int) -> bool:
        at = split >> 3
        return at < len(self._bits) and bool(self._bits[at] & (1 << (split & 7)))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for at, byte in enumerate(self._bits):
            for bit in range(8):
                if byte & (1 << bit):
                    yield 8 * at + bit

    def add(self, split: int) -> None:
        """Adds a number; adding one that is there changes nothing."""
        at, bit, bits = split >> 3, 1 << (split & 7), self._bits
        if at >= len(bits):
            bits.extend(bytes(at + 1 - len(bits)))
        elif bits[at] & bit:
            return
        bits[at] |= bit
        self._count += 1

    def discard(self, split: int) -> None:
        """Removes a number; removing one that is not there changes nothing."""
        if split not in self:
            return
        self._bits[split >> 3] &= ~(1 << (split & 7))
        self._count -= 1
        while self._bits and not self._bits[-1]:
            self._bits.pop()

    def to_bytes(self) -> bytes:
        """The bits, lowest first, without zero bytes at the end."""
        return bytes(self._bits)

    @classmethod
    def from_bytes(cls, bits: bytes) -> SplitSet:
        """The inverse of `to_bytes`."""
        made = cls()
        made._bits = bytearray(bits.rstrip(b"\0"))
        made._count = int.from_bytes(bits, "little").bit_count()
        return made

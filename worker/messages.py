"""The words between the attempt book and the threads around it: plain values, no behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.hashing import Digest, Hashes

#: The attempt is not here (any more), or not from that element on.
GONE = "GONE"
#: The pipeline raised.
PIPELINE = "PIPELINE"
#: Longest text that describes a failure.
DETAIL_BYTES_MAX = 4096


class AttemptError(PenstockError):
    """An attempt cannot be produced.

    Attributes:
        code: the kind of failure, for dispatcher and client.
        element: the one that raised, where that is known exactly; counts those that are left out.
    """

    exit_code = 4

    def __init__(self, code: str, detail: str, element: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.element = element


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a piece's payload lies in a file, from which the kernel can send it.

    Attributes:
        descriptor: of the file; open as long as the piece is there.
        offset: of the payload's first byte.
        nbytes: its length.
        digest: xxh3-64 of it.
    """

    descriptor: int
    offset: int
    nbytes: int
    digest: int


class Piece(Protocol):
    """What the book needs to know of a chunk; it is sent as one CHUNK frame."""

    @property
    def start(self) -> int:
        """Index in the split of the first element."""

    @property
    def stop(self) -> int:
        """Index in the split of the element after the last."""

    @property
    def nbytes(self) -> int:
        """Length of the frame's payload, which is what credit counts."""

    @property
    def memory(self) -> int:
        """How much of this process's memory its payload takes."""

    @property
    def stored(self) -> Stored | None:
        """Where its payload lies in a file, if it does."""

    @property
    def hashes(self) -> Hashes:
        """One hash an element."""

    @property
    def header(self) -> dict[str, Any]:
        """The frame's header."""

    @property
    def buffers(self) -> Sequence[bytes | memoryview]:
        """The frame's payload, in parts."""

    def slice(self, a: int, b: int) -> Piece:
        """Elements `a .. b-1` as a piece of their own."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What a split's elements are a function of: two attempts with one key make the same ones.

    Attributes:
        dataset: fingerprint of the stream's graph.
        seed: the job's seed.
        epoch: the stream's epoch.
        split: which split of the stream.
    """

    dataset: str
    seed: int
    epoch: int
    split: int

    def __str__(self) -> str:
        return f"split {self.split} of epoch {self.epoch} of dataset {self.dataset}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt that the dispatcher wants this worker to hold.

    Attributes:
        attempt: its number, unique over the life of the journal.
        job: the job's id.
        stream: which of the job's streams.
        epoch: the stream's epoch.
        split: which split of the stream.
        dataset: fingerprint of the stream's graph.
        seed: the job's seed.
        trial: 1 for the first production of this split in this epoch.
        cache: `off`; `put` writes its segment; `on` reads it, or writes it; `measure` does that
            and tells what it costs.
        bad: elements that are left out, ascending; an element's number counts them.
    """

    attempt: int
    job: str
    stream: int
    epoch: int
    split: int
    dataset: str
    seed: int = 0
    trial: int = 1
    cache: str = "off"
    bad: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        """What its elements are a function of."""
        return Key(self.dataset, self.seed, self.epoch, self.split)

    def __str__(self) -> str:
        return (
            f"job {self.job}, stream {self.stream}, epoch {self.epoch}, split {self.split}, "
            f"attempt {self.attempt}"
        )


class State(enum.IntEnum):
    """How far an attempt is; the numbers are those of `HeldAttempt.State`."""

    RUNNING = 0
    PRODUCED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class Held:
    """What the dispatcher is told of one attempt; see `HeldAttempt`."""

    attempt: int
    state: State
    elements: int
    code: str = ""
    detail: str = ""
    restored: int = 0
    recomputed: int = 0
    waiting: bool = False
    element: int | None = None
    exceptions: tuple[str, ...] = ()


# Instructions: what the threads have to do after an event.


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Produce this attempt. What it makes is told to the book with the same `run`."""

    assignment: Assignment
    run: int


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """Stop that run, if it has not ended already."""

    run: int


@dataclass(frozen=True, slots=True)
class ResumeProducing:
    """A run that had to wait for space may make its next piece."""

    run: int


@dataclass(frozen=True, slots=True)
class CursorKnown:
    """The client has said from where on it wants this run's elements, before the run began."""

    run: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Nobody will ask for this split again: its checkpoints are of no use any more."""

    key: Key


@dataclass(frozen=True, slots=True)
class Wake:
    """There may be something to send on this connection: ask `next_send`."""

    connection: int


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the dispatcher at once: an attempt is produced or failed, or was restored."""


Instruction = StartAttempt | StopAttempt | ResumeProducing | CursorKnown | Forget | Wake | Report

# Sends: what goes out on a connection next.


@dataclass(frozen=True, slots=True)
class SendChunk:
    """A CHUNK frame."""

    connection: int
    attempt: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class SendHashes:
    """A HASHES frame: the hashes of elements from `start` on."""

    connection: int
    attempt: int
    start: int
    hashes: Hashes = field(compare=False)


@dataclass(frozen=True, slots=True)
class SendEnd:
    """An END frame."""

    connection: int
    attempt: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class SendFail:
    """A FAIL frame about one attempt."""

    connection: int
    attempt: int
    code: str
    detail: str


Send = SendChunk | SendHashes | SendEnd | SendFail

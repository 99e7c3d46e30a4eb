"""What was delivered, on record: every element's (epoch, stream, split, index, hash).

A ledger is a directory; each client appends to a file of its own in it. A file is a sequence of
records, `length, length check, xxh3-64 of the payload, msgpack payload`:

    {kind: "open", version, job, client, seed, streams: [fingerprint], life: {…}}
    {kind: "resume", stream, epoch, digest: [count, total, chain], begun: [[split, elements]]}
    {kind: "run", stream, epoch, pieces: [[split, start, count]], hashes: bytes}
    {kind: "end", stream, epoch, digest: [count, total, chain], splits: [[split, count]]}
    {kind: "commit", position, done, splits: [[stream, epoch, split, count]]}
    {kind: "skip", epoch, first, count, why}
    {kind: "close"}

"life" is what `Life` says. "resume" begins an epoch that another life of the trainer has begun:
`digest` is of what that life consumed, `begun` says how much of which splits; splits that it
consumed whole are not in this file. "commit" is written twice: before a position is sent to the
dispatcher, and with `done` when it has acknowledged it; it names the splits that were proven since
the last one. "skip" says that the trainer left elements of the distributed dataset out, by in-situ
recovery. "end" is written only when the epoch was proven, and says how many elements each split
has, so an auditor can tell what is missing. A record is made for each delivery, never for each
element. The file is flushed and fsynced at the end of an epoch and at a commit; a file without
"close" may end in half a record.
"""

from __future__ import annotations

import dataclasses
import os
import re
import struct
import threading
from typing import TYPE_CHECKING, Any

import msgpack
import xxhash

from ..errors import UsageError, VerificationError
from ..failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ..proto.hashing import Digest
    from .events import Piece
    from .weave import Woven

VERSION = 1
SUFFIX = ".ledger"
_PREFIX = struct.Struct("<IIQ")
_PAYLOAD_BYTES_MAX = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class Life:
    """What an audit of several lives of several consumers has to know of one.

    Attributes:
        name: of the job, or of the consumers' group; empty for an unnamed one.
        arrival: (term, number) of the client at the dispatcher, which grow.
        start: the text of the position that it goes on at; empty for none.
        consumer: (rank, world, generation); None if it has all lanes.
        group_start: the text of the position that the generation began at.
        splits: number of splits of each stream.
        weights: their sizes, of each stream; empty where they are alike.
        replayable: for each stream, whether a replay gives the same bytes.
        lanes, block, ordered, deterministic: of the job.
    """

    name: str
    arrival: tuple[int, int]
    start: str
    consumer: tuple[int, int, int] | None
    group_start: str
    splits: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...]
    replayable: tuple[bool, ...]
    lanes: int
    block: int
    ordered: bool
    deterministic: bool


class Ledger:
    """One client's file in a ledger directory; made when the job is known.

    Args:
        directory: the ledger; made if it is not there.
        job: the job's id.
        client: the client's incarnation, which names the file.
        seed: the job's seed.
        streams: fingerprints of the job's streams.
        life: what an audit of several lives has to know of this one.

    Raises:
        UsageError: the directory cannot be written to.
    """

    def __init__(
        self,
        directory: Path,
        *,
        job: str,
        client: str,
        seed: int,
        streams: Sequence[str],
        life: Life | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._told: set[tuple[int, int, int]] = set()
        name = re.sub(r"[^\w.-]", "_", f"{job}-{client}") + SUFFIX
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / name).open("xb", buffering=1 << 16)
        except OSError as error:
            raise UsageError(f"ledger must be a directory that can be written: {error}") from error
        self._append(
            {
                "kind": "open",
                "version": VERSION,
                "job": job,
                "client": client,
                "seed": seed,
                "streams": list(streams),
                "life": None if life is None else dataclasses.asdict(life),
            }
        )

    def record(self, stream: int, epoch: int, pieces: Sequence[Piece | Woven]) -> None:
        """Records a delivery, before the trainer gets it."""
        self._append(
            {
                "kind": "run",
                "stream": stream,
                "epoch": epoch,
                "pieces": [span for piece in pieces for span in piece.spans()],
                "hashes": b"".join(piece.hashes.tobytes() for piece in pieces),
            }
        )

    def resume(self, stream: int, epoch: int, digest: Digest, begun: Mapping[int, int]) -> None:
        """Records that an epoch goes on where another life was: what came before is not here."""
        self._append(
            {
                "kind": "resume",
                "stream": stream,
                "epoch": epoch,
                "digest": [digest.count, digest.total, digest.chain],
                "begun": [[split, elements] for split, elements in begun.items()],
            }
        )

    def finish(self, stream: int, epoch: int, digest: Digest, counts: Mapping[int, int]) -> None:
        """Records the proven end of an epoch, and makes everything so far durable."""
        self._append(
            {
                "kind": "end",
                "stream": stream,
                "epoch": epoch,
                "digest": [digest.count, digest.total, digest.chain],
                "splits": [[split, count] for split, count in counts.items()],
            }
        )
        self._sync()

    def skip(self, epoch: int, first: int, count: int, why: str) -> None:
        """Records that the trainer left elements out; durable when this returns."""
        self._append({"kind": "skip", "epoch": epoch, "first": first, "count": count, "why": why})
        self._sync()

    def commit(
        self, position: str, counts: Mapping[tuple[int, int], Mapping[int, int]], *, done: bool
    ) -> None:
        """Records that a position is committed, or will be, and makes everything so far durable.

        Args:
            position: its text.
            counts: by (stream, epoch), how many elements each proven split has.
            done: the dispatcher has acknowledged it.
        """
        new = [
            (*key, split, count)
            for key, splits in counts.items()
            for split, count in splits.items()
            if (*key, split) not in self._told
        ]
        self._told.update(row[:3] for row in new)
        self._append(
            {"kind": "commit", "position": position, "done": done, "splits": list(map(list, new))}
        )
        self._sync()

    def close(self) -> None:
        """Ends the file. Closing twice is fine."""
        self._append({"kind": "close"})
        with self._lock:
            self._file.close()

    def _sync(self) -> None:
        with self._lock:
            if not self._file.closed:
                self._file.flush()
                failpoint("client.ledger.before_fsync")
                os.fsync(self._file.fileno())
                failpoint("client.ledger.after_fsync")

    def _append(self, record: dict[str, Any]) -> None:
        payload = msgpack.packb(record, use_bin_type=True)
        prefix = _PREFIX.pack(
            len(payload), _length_check(len(payload)), xxhash.xxh3_64_intdigest(payload)
        )
        with self._lock:
            if not self._file.closed:
                failpoint("client.ledger.before_write")
                self._file.write(prefix + payload)
                failpoint("client.ledger.after_write")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of one ledger file, in order; half a record at the end is left out.

    Raises:
        VerificationError: the file is damaged; the message names it and the place.
    """
    with path.open("rb") as file:
        while prefix := file.read(_PREFIX.size):
            at = file.tell() - len(prefix)
            if len(prefix) < _PREFIX.size:
                return
            length, check, checksum = _PREFIX.unpack(prefix)
            if check != _length_check(length) or length > _PAYLOAD_BYTES_MAX:
                raise VerificationError(f"{path}: the record at byte {at} has a damaged length")
            payload = file.read(length)
            if len(payload) < length:
                return
            if xxhash.xxh3_64_intdigest(payload) != checksum:
                raise VerificationError(f"{path}: the record at byte {at} has a wrong checksum")
            record = msgpack.unpackb(payload, raw=False)
            if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
                raise VerificationError(f"{path}: the record at byte {at} is not a ledger's")
            yield record


def _length_check(length: int) -> int:
    return xxhash.xxh32_intdigest(length.to_bytes(4, "little"))

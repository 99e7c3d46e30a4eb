"""Where the graphs of datasets are kept: on disk beside the journal, or in memory without one.

A file is magic, length, xxh3-128 of the content, content; it is written under a temporary name,
fsynced and renamed, and the directory is fsynced, before anybody is told that it is there. What
does not have its hash when it is read is never served.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from typing import TYPE_CHECKING, Protocol

import xxhash

from ..errors import JournalError, NotFoundError
from ..failpoints import failpoint
from .admission import check_fingerprint

if TYPE_CHECKING:
    from pathlib import Path

GRAPH_BYTES_MAX = 1 << 30
_MAGIC = b"PSTKBLB1"
_HEAD = struct.Struct("<8sQ16s")


class BlobStore(Protocol):
    """Keeps contents by fingerprint. Calls may block on the disk."""

    def has(self, fingerprint: str) -> bool:
        """Whether there is a content of this fingerprint."""
        ...

    def put(self, fingerprint: str, content: bytes) -> None:
        """Keeps a content, durably; replaces an older one."""
        ...

    def get(self, fingerprint: str) -> bytes:
        """The content; NotFoundError or JournalError if it cannot be had whole."""
        ...


class MemoryBlobs:
    """Forgets everything with the process."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def has(self, fingerprint: str) -> bool:
        """See `BlobStore`."""
        return fingerprint in self._contents

    def put(self, fingerprint: str, content: bytes) -> None:
        """See `BlobStore`."""
        check_fingerprint(fingerprint)
        self._contents[fingerprint] = content

    def get(self, fingerprint: str) -> bytes:
        """See `BlobStore`."""
        if fingerprint not in self._contents:
            raise _unknown(fingerprint)
        return self._contents[fingerprint]


class DirectoryBlobs:
    """A file for each content.

    Args:
        directory: made if it does not exist, and all its parents.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _sync_directory(directory.parent)
            for left in directory.glob("*.tmp"):  # of a process that died while it wrote
                left.unlink()
        except OSError as error:
            raise JournalError(f"dataset directory {directory}: {error.strerror}") from error

    def has(self, fingerprint: str) -> bool:
        """See `BlobStore`."""
        return self._path(fingerprint).exists()

    def put(self, fingerprint: str, content: bytes) -> None:
        """See `BlobStore`.

        Raises:
            JournalError: the file could not be written.
        """
        path = self._path(fingerprint)
        beside = path.with_name(f"{fingerprint}.{secrets.token_hex(4)}.tmp")
        digest = xxhash.xxh3_128_digest(content)
        try:
            with beside.open("wb") as file:
                file.write(_HEAD.pack(_MAGIC, len(content), digest))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            failpoint("dispatcher.dataset.before_rename")
            beside.replace(path)
            _sync_directory(self._directory)
            failpoint("dispatcher.dataset.after_write")
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise JournalError(f"writing dataset {path}: {error.strerror}") from error

    def get(self, fingerprint: str) -> bytes:
        """See `BlobStore`.

        Raises:
            NotFoundError: there is none.
            JournalError: it is damaged, or cannot be read.
        """
        path = self._path(fingerprint)
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD.size)
                content = file.read()
        except FileNotFoundError:
            raise _unknown(fingerprint) from None
        except OSError as error:
            raise JournalError(f"reading dataset {path}: {error.strerror}") from error
        if head != _HEAD.pack(_MAGIC, len(content), xxhash.xxh3_128_digest(content)):
            beside = path.with_name(f"{fingerprint}.damaged")
            with contextlib.suppress(OSError):
                path.replace(beside)
            raise JournalError(
                f"dataset {path} is damaged: its content does not have its hash. It was set aside"
                f" as {beside.name}; the next client that uses the dataset brings it again"
            )
        return content

    def _path(self, fingerprint: str) -> Path:
        check_fingerprint(fingerprint)
        return self._directory / fingerprint


def _unknown(fingerprint: str) -> NotFoundError:
    return NotFoundError(f"dataset {fingerprint} is not registered")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

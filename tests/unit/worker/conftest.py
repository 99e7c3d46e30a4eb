"""What the worker's tests share: an attempt book, a stream server, and a directory for sockets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.worker.attempts import AttemptBook

from .books import GRACE_S
from .clients import DEADLINE_S
from .stations import Station


@pytest.fixture
def book() -> AttemptBook:
    """An empty book with more memory than the test's pieces need."""
    return AttemptBook(1 << 20, GRACE_S)


@pytest.fixture
def station() -> Iterator[Station]:
    """A stream server that serves what the test produces."""
    made = Station()
    yield made
    made.server.close(DEADLINE_S)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Replaces pytest's own, whose names may exceed a Unix socket's 107 characters."""
    with tempfile.TemporaryDirectory(prefix="penstock-test-") as directory:
        yield Path(directory)

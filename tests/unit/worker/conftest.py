"""A temporary directory that Unix sockets fit into."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Replaces pytest's own, whose names may exceed a Unix socket's 107 characters."""
    with tempfile.TemporaryDirectory(prefix="penstock-test-") as directory:
        yield Path(directory)

"""What the journal's tests share: one directory on a simulated disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.testing.disk import SimDisk


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk()


@pytest.fixture
def directory() -> Path:
    return Path("/journal")

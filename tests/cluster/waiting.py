"""Waiting for what the dispatcher's status says, with a bound that says what was there instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from penstock.client.status import fetch_status

Picture = dict[str, Any]


def wait_until(
    address: str, condition: Callable[[Picture], bool], what: str, timeout_s: float = 60.0
) -> Picture:
    """Asks for the status until `condition` holds for it, and returns it."""
    deadline = time.monotonic() + timeout_s
    while True:
        picture = fetch_status(address, timeout_s)
        if condition(picture):
            return picture
        assert time.monotonic() < deadline, f"not {what} within {timeout_s} s: {picture}"
        time.sleep(0.05)  # a status cannot be subscribed to


def worker_of(picture: Picture, worker: str) -> Picture:
    """A worker's entry."""
    return next(entry for entry in picture["workers"] if entry["id"] == worker)

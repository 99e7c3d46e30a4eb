"""Asks the dispatchers for their status while a soak runs: who serves, and what was made again."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

from ..client.status import fetch_status
from ..errors import PenstockError

if TYPE_CHECKING:
    from .faults import FaultInjector


class StatusWatch:
    """Asks the dispatchers for their status beside the run.

    Args:
        service: their addresses, separated by commas.
        injector: is told which of them serves.
    """

    def __init__(self, service: str, injector: FaultInjector) -> None:
        self._addresses = service.split(",")
        self._injector = injector
        self._over = threading.Event()
        self._picture: dict[str, Any] = {}
        self._seen: dict[int, dict[str, int]] = {}
        self._thread = threading.Thread(target=self._watch, name="soak-status", daemon=True)
        self._thread.start()

    def total(self, name: str) -> int:
        """The sum over all terms of a figure that the status gives for a term."""
        return sum(figures.get(name, 0) for figures in self._seen.values())

    def latest(self) -> str:
        """The status now, or the last one that could be had, as JSON."""
        self._ask()
        return json.dumps(self._picture, indent=1)

    def finish(self) -> None:
        """Asks a last time and ends."""
        self._over.set()
        self._thread.join()
        self._ask()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self._ask()

    def _ask(self) -> None:
        for address in self._addresses:
            with contextlib.suppress(PenstockError):
                picture = fetch_status(address, timeout_s=1.0)
                self._injector.serving = address
                self._picture = picture
                self._seen[picture["term"]] = {
                    name: picture[name]
                    for name in ("recomputed_elements", "restored_attempts")
                    if name in picture
                }
                return

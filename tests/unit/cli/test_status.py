"""`penstock status` prints whatever names and reasons there are."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from penstock.cli.status import print_status

ODD = "made [/by] hand"


def picture() -> dict[str, Any]:
    """A status document in which every text that comes from outside is odd."""
    lost = {"id": "1", "address": ODD, "state": "lost", "replaced": False, "reason": ODD}
    job = {
        "id": "7", "name": ODD, "state": "running", "recomputed_elements": 0,
        "streams": [{"splits": 2}], "bad_elements": {"elements": []},
    }  # fmt: skip
    made = {"fault": 1, "job": "7", "strategy": "X", "reason": ODD, "source": ODD, "text": ODD}
    consumer = {"rank": 0, "state": "dead", "job": "7", "progress": 0.5, "committed": None}
    decision = {"key": "k", "on": True, "reason": ODD}
    return {
        "term": 1, "uptime_s": 1.0, "restored_attempts": 0, "cached_attempts": 0,
        "recomputed_elements": 0, "workers": [lost], "jobs": [job], "waiting": [ODD],
        "groups": [{"name": ODD, "generation": 1, "world": 1, "consumers": [consumer]}],
        "cache": {
            "stores": [{"store": "s", "workers": [], "segments": {}}], "decisions": [decision],
        },
        "failover": {
            "decisions": [made], "budgets": [], "problems": [ODD],
            "retired": [{"worker": "1", "address": ODD, "reason": ODD}],
            "probes": [ODD], "verdicts": [{"verdict": "worker", "text": ODD, "detail": ODD}],
        },
    }  # fmt: skip


def test_texts_in_brackets_are_no_markup() -> None:
    printed = io.StringIO()
    print_status(picture(), Console(file=printed, width=300))
    assert printed.getvalue().count(ODD) == 15

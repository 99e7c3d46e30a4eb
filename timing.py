"""Every interval and deadline of penstock, in one place (DESIGN section 11).

All values are seconds on the monotonic clock. `--time-scale` (or `Timing(scale=...)`) multiplies
them together, so that tests run the same code scaled down. Leaf module: imports nothing of ours.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """The intervals and deadlines, in seconds.

    Attributes:
        heartbeat_s: longest time between two heartbeats of a worker or client.
        worker_timeout_s: a worker silent for this long is dead; also how long a job without any
            worker waits before it says so.
        client_timeout_s: a client silent for this long has its buffers and attempts freed.
        rpc_deadline_s: deadline of one control call, beyond the time it is held on purpose.
        connect_deadline_s: how long a client tries to reach a dispatcher before it gives up at
            its start; afterwards it tries for as long as it lives, and says so. A worker always
            does.
        warn_after_s: a wait longer than this is logged, with what it waits for (G6).
        retry_min_s: first pause before something that failed is tried again; doubles each time.
        retry_max_s: longest such pause.
        attempt_grace_s: how long a worker keeps a request for an attempt it has not heard of.
        progress_timeout_s: an attempt that makes nothing for this long, though it has room and
            its worker is alive, is stuck: the split is attempted elsewhere.
        probe_deadline_s: how long a worker that a client cannot reach may take to answer the
            dispatcher's own question before only its heartbeats count.
        lease_s: a dispatcher that has not renewed its hold of the journal for this long may be
            replaced by a standby.
        follow_s: how often logs that are followed are looked at for what is new in them.
        settle_s: a failure in logs that are followed is told when nothing more of it has come for
            this long, or when it began five times as long ago.
    """

    heartbeat_s: float = 0.5
    worker_timeout_s: float = 5.0
    client_timeout_s: float = 60.0
    rpc_deadline_s: float = 10.0
    connect_deadline_s: float = 60.0
    warn_after_s: float = 10.0
    retry_min_s: float = 0.05
    retry_max_s: float = 1.0
    attempt_grace_s: float = 5.0
    progress_timeout_s: float = 600.0
    probe_deadline_s: float = 1.0
    lease_s: float = 5.0
    follow_s: float = 0.25
    settle_s: float = 2.0

    def scaled(self, factor: float) -> Timing:
        """Returns a copy with every value multiplied by `factor` (> 0).

        Raises:
            ValueError: `factor` is not a positive number.
        """
        if not factor > 0:
            raise ValueError(f"time scale must be a positive number, not {factor!r}")
        fields = dataclasses.fields(self)
        return Timing(**{field.name: getattr(self, field.name) * factor for field in fields})

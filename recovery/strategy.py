"""The four failover strategies (DESIGN section 10; the names are DLRover's)."""

from __future__ import annotations

from enum import Enum


class FailoverStrategy(str, Enum):
    """What is done about a failure.

    Attributes:
        NORMAL_FAILOVER: restart the attempt, anywhere.
        NODE_FAILOVER: retire the worker and use a standby.
        GLOBAL_FAILOVER: restart all workers from their checkpoints.
        ABORTION_FAILOVER: fail the job now, everywhere, with the reason.
    """

    NORMAL_FAILOVER = "NORMAL_FAILOVER"
    NODE_FAILOVER = "NODE_FAILOVER"
    GLOBAL_FAILOVER = "GLOBAL_FAILOVER"
    ABORTION_FAILOVER = "ABORTION_FAILOVER"

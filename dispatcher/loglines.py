"""The dispatcher's log: a line for what happens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import events as ev
from . import probing
from .failover import NORMAL
from .fault_events import (
    CrossChecked,
    ElementRetried,
    ElementSkipped,
    FailoverDecided,
    JobFailoverSet,
    JobPolicySet,
    ProbeStarted,
    SplitKilled,
    WorkerLimited,
    WorkerReadmitted,
)
from .fault_texts import text_of

if TYPE_CHECKING:
    from .events import Event
    from .state import State

logger = logging.getLogger(__name__)


def log_event(state: State, event: Event) -> None:
    """Tells of an event that was just applied."""
    match event:
        case ev.SplitDelivered() | ev.SplitsCached() | ev.AttemptAssigned():
            logger.debug("%s", event)
        case ev.WorkerLost(worker, reason):
            logger.warning("worker %s is lost: %s", worker, reason)
        case ev.WorkerRegistered():
            kind = "standby" if event.standby else "worker"
            logger.info("%s %s registered at %s", kind, event.worker, event.address)
        case ev.WorkerPromoted(worker, instead):
            logger.warning("standby %s takes over%s", worker, f" for {instead}" if instead else "")
        case ev.ClientJoined(job, client):
            logger.info("client %s has job %s", client, state.jobs[job].label)
        case ev.ClientLeft(job, reason):
            logger.info("job %s has no client: %s", job, reason)
        case ev.JobClosed(job, reason):
            logger.info("job %s is closed: %s", job, reason)
        case ev.JobFailed(job, reason):
            logger.error("job %s failed: %s", job, reason)
        case ev.AttemptFailed(attempt, code, detail):
            logger.warning("attempt %d failed: %s: %s", attempt, code, detail)
        case ev.AttemptDropped(attempt, reason):
            logger.warning("attempt %d is void: %s", attempt, reason)
        case ev.CacheDecided(key, on, reason):
            logger.info("cache %s: %s, %s", key[:12], "on" if on else "off", reason)
        case SplitKilled():
            logger.warning("a worker died of memory: %s", event)
        case WorkerLimited(worker, limit):
            logger.warning("worker %s: %s", worker, limit)
        case ElementSkipped():
            logger.warning("left out: %s", event)
        case ProbeStarted():
            logger.info("cross-check: %s", probing.text_of(event))
        case CrossChecked():
            started, _ = state.failover.checked[event.probe]
            level = logging.WARNING if event.verdict == probing.WORKER else logging.INFO
            detail = f" ({event.detail})" if event.detail else ""
            logger.log(
                level,
                "cross-check: verdict %s%s; %s",
                event.verdict,
                detail,
                probing.text_of(started),
            )
        case FailoverDecided():
            _log_decision(state, event)
        case ev.EpochStarted() | ev.EpochFinished() | ev.EpochAbandoned() | ev.GroupFormed():
            logger.info("%s", event)
        case WorkerReadmitted() | JobFailoverSet() | JobPolicySet() | ElementRetried():
            logger.info("%s", event)


def _log_decision(state: State, event: FailoverDecided) -> None:
    fault, _ = state.failover.decided[event.fault]
    logger.log(
        logging.INFO if event.strategy == NORMAL.value else logging.WARNING,
        "fault %d: %s by %s%s; %s",
        event.fault,
        event.strategy,
        event.source,
        f" ({event.reason})" if event.reason else "",
        text_of(fault),
    )

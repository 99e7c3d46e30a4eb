"""Alerts: a person is told of a failure, by a line in the log and by a webhook.

Theory of operation. `Alerts.send` writes the log line and hands the alert to a thread; it never
waits. The thread posts it as JSON, with a deadline and a few retries, to the operator's URL.
The queue is bounded: under a storm of failures the oldest alerts are dropped, and the next one says
how many. An alert that cannot be delivered is an error in the log, and nothing else fails.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PenstockError, UsageError
from .http_json import Endpoint, StatusError, parse_endpoint, post_json
from .masking import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .diagnosis.result import Diagnosis

VARIABLE = "PENSTOCK_ALERT_URL"
QUEUE_MAX = 64
ATTEMPTS = 3
_URL_BYTES_MAX = 4096
_TEXT_CHARS_MAX = 2000
_logger = logging.getLogger("penstock.alerts")


@dataclass(frozen=True, slots=True)
class Alert:
    """What a person is told.

    Attributes:
        summary: one line: what failed and what is done.
        subject: what it is about, such as "job 3001, split 17".
        diagnosis: the root cause, if one is known.
        needs_operator: whether nothing goes on without a person.
        at_unix_s: when, in seconds since 1970.
    """

    summary: str
    subject: str = ""
    diagnosis: Diagnosis | None = None
    needs_operator: bool = False
    at_unix_s: float = dataclasses.field(default_factory=time.time)

    def to_dict(self, dropped: int = 0) -> dict[str, Any]:
        """What is posted: `text` is what chat webhooks show; secrets are masked."""
        found = self.diagnosis
        document: dict[str, Any] = {
            "text": mask_secrets(f"penstock: {self.summary}")[:_TEXT_CHARS_MAX],
            "subject": mask_secrets(self.subject)[:_TEXT_CHARS_MAX],
            "needs_operator": self.needs_operator,
            "at_unix_s": round(self.at_unix_s, 3),
            "dropped_before": dropped,
        }
        if found is not None:
            document["diagnosis"] = {
                "root_cause": found.root_cause,
                "category": found.category.value,
                "recoverable": found.recoverable,
                "strategy": found.strategy.value,
                "mitigation": found.mitigation,
                "evidence": [mask_secrets(line)[:_TEXT_CHARS_MAX] for line in found.evidence],
                "confidence": found.confidence,
                "source": found.source,
                "entity": found.entity,
            }
        return document


def url_of(environment: Mapping[str, str] | None = None) -> Endpoint | None:
    """The webhook of `PENSTOCK_ALERT_URL`, which is a URL or the path of a file that holds one.

    Args:
        environment: the process's own if None.

    Returns:
        None if it says nothing.

    Raises:
        UsageError: the file cannot be read, or the URL is neither https nor http to this machine.
    """
    text = (os.environ if environment is None else environment).get(VARIABLE)
    if not text:
        return None
    return parse_endpoint(text, VARIABLE) if "://" in text else url_in(text, VARIABLE)


def url_in(path: str, name: str) -> Endpoint:
    """The webhook whose URL is in a file.

    Args:
        path: of the file.
        name: what the option is called in an error.

    Raises:
        UsageError: the file cannot be read, or the URL is neither https nor http to this machine.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_URL_BYTES_MAX + 1)
        text = content.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: the file {path} with the URL cannot be read: {error}") from error
    if len(content) > _URL_BYTES_MAX:
        raise UsageError(f"{name}: the file with the URL has more than {_URL_BYTES_MAX} bytes")
    return parse_endpoint(text, name)


class Alerts:
    """Tells people, from a thread of its own.

    Args:
        endpoint: the webhook; None: only the log is written.
        deadline_s: for one attempt to post.
        pause_s: before the first retry; the next one waits twice as long.
    """

    def __init__(
        self, endpoint: Endpoint | None, *, deadline_s: float = 10.0, pause_s: float = 1.0
    ) -> None:
        if not deadline_s > 0 or not pause_s > 0:
            raise UsageError("deadline_s and pause_s must be more than 0")
        self._endpoint = endpoint
        self._deadline_s = deadline_s
        self._pause_s = pause_s
        self._queue: collections.deque[Alert] = collections.deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._dropped = 0
        self._busy = False
        self._thread: threading.Thread | None = None

    def send(self, alert: Alert) -> None:
        """Writes the log line now, and posts the alert soon; never waits, never raises for it."""
        level = logging.ERROR if alert.needs_operator else logging.WARNING
        _logger.log(level, "ALERT %s", _line(alert))
        if self._endpoint is None:
            return
        with self._changed:
            if self._stopping.is_set():
                return
            if len(self._queue) >= QUEUE_MAX:
                self._queue.popleft()
                self._dropped += 1
            self._queue.append(alert)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Waits until all is posted or given up; whether that was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Posts what is left, for so long, and ends the thread."""
        self.flush(timeout_s)
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping.is_set())
                if self._stopping.is_set():
                    return
                alert, dropped = self._queue.popleft(), self._dropped
                self._busy, self._dropped = True, 0
            self._post(alert, dropped)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _post(self, alert: Alert, dropped: int) -> None:
        assert self._endpoint is not None
        pause_s = self._pause_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                post_json(self._endpoint, alert.to_dict(dropped), deadline_s=self._deadline_s)
                return
            except PenstockError as error:
                if _is_final(error) or attempt == ATTEMPTS:
                    _logger.error("an alert was not delivered: %s", error)
                    return
            if self._stopping.wait(pause_s):
                return
            pause_s *= 2


def _is_final(error: PenstockError) -> bool:
    """Whether the server refuses it for good: then it is not sent again."""
    if not isinstance(error, StatusError):
        return False
    return error.status // 100 == 4 and error.status not in (408, 429)


def _line(alert: Alert) -> str:
    found = alert.diagnosis
    parts = [alert.summary, alert.subject]
    if found is not None:
        parts.append(f"root cause {found.root_cause} ({found.source}, {found.confidence:.0%})")
        parts.append(found.mitigation)
    if alert.needs_operator:
        parts.append("an operator is needed")
    return mask_secrets("; ".join(part for part in parts if part)).replace("\n", " ")[
        :_TEXT_CHARS_MAX
    ]

"""Log output of the daemons and tools: one line for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal, TextIO

LogFormat = Literal["human", "json"]
LEVELS = ("debug", "info", "warning", "error")


class _HumanFormatter(logging.Formatter):
    """`14:03:07.412 INFO  worker.agent: text`, with the logger's name without our prefix."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        name = record.name.removeprefix("penstock.")
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {name}: "
        line += record.getMessage()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time (Unix seconds), level, logger, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment: whoever runs a command may replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def configure(level: str, fmt: LogFormat) -> None:
    """Sends penstock's log to standard error.

    Args:
        level: the least severe level shown: one of `LEVELS`.
        fmt: `human`, or `json` for one object a line.

    Raises:
        ValueError: `level` or `fmt` is none of the accepted values.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    if fmt not in ("human", "json"):
        raise ValueError(f"log format {fmt!r} is neither human nor json")
    handler = _ToStandardError()
    handler.setFormatter(_JsonFormatter() if fmt == "json" else _HumanFormatter())
    root = logging.getLogger("penstock")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False

"""A process that does what it is asked: one JSON object a line in, one a line out.

`children` is the other end. The process ends with its standard input, even in the middle of
something that hangs: what is compared with may do so.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answers until standard input ends."""
    # Standard output is for answers; what libraries print goes where errors go.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for request in _requests():
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                print(json.dumps(answer(request)), file=answers, flush=True)


def _requests() -> Iterator[dict[str, Any]]:
    """The lines of standard input, which a thread reads, so that its end is noticed at once."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def pump() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # nothing here is worth a tidy end, and a stock reader may not let us have one

    threading.Thread(target=pump, name="bench-requests", daemon=True).start()
    while True:
        yield json.loads(lines.get())

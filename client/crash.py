"""The exception that ends this process, for the dispatcher: a trainer's crash has a cause then.

What Python shows of an exception that nobody has caught it gives to `sys.excepthook`, after which
the process exits, and readers are closed. Our hook notes down the chain and goes on to the hook
that was there. Nothing is sent from here.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from ..errors import exception_chain

if TYPE_CHECKING:
    from types import TracebackType

_lock = threading.Lock()
_watching = False
_chain: tuple[str, ...] = ()


def watch() -> None:
    """From now on the exception that ends this process is noted down. Watching twice is fine."""
    global _watching
    with _lock:
        if _watching:
            return
        _watching = True
        before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        global _chain
        # Ctrl-C is a person's wish, and no crash; and who types goes on after an error.
        typing = sys.flags.inspect or hasattr(sys, "ps1")
        if not typing and not issubclass(kind, KeyboardInterrupt):
            _chain = exception_chain(error)
        before(kind, error, trace)

    sys.excepthook = hook


def told() -> tuple[str, ...]:
    """The chain of the exception that ends this process; empty if none does."""
    return _chain

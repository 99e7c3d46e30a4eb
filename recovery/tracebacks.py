"""Tracebacks: a fault's fingerprint, and letting go of what its frames hold.

A traceback refers to every frame that the error passed, and so to their tensors. Before a step runs
again they are let go, or a retry after an out-of-memory error would run out of memory again.
"""

from __future__ import annotations

import os
import re
import traceback
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

_OWN = os.path.dirname(os.path.abspath(__file__))
_FRAMES_MAX = 64
_SUMMARY_CHARS_MAX = 300
#: Control characters, and half ones, which come from names of files that are no UTF-8.
_UNSHOWN = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")


def type_name(error: BaseException) -> str:
    """The exception's type, with its module unless that is `builtins`."""
    kind = type(error)
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{prefix}{kind.__qualname__}"


def summary_of(error: BaseException) -> str:
    """Type and message, in one line of bounded length."""
    text = f"{type_name(error)}: {message_of(error)}".rstrip(": ")
    return shortened(" ".join(text.split()), _SUMMARY_CHARS_MAX)


def message_of(error: BaseException) -> str:
    """The message, of any length, as text that can be written, sent and shown on terminals."""
    try:
        return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(error))
    except Exception as failure:  # a user's __str__ may do anything
        return f"<its message cannot be shown: {type(failure).__name__}>"


def shortened(text: str, most: int) -> str:
    """The beginning and the end of a text: TensorFlow says at the end what happened."""
    if len(text) <= most:
        return text
    head = most // 2 - 1
    return f"{text[:head]}…{text[head + 1 - most :]}"


def fingerprint_of(error: BaseException) -> str:
    """16 hex digits: the same for errors of the same type at the same place, in any process.

    The message is left out, because it often holds what differs from step to step; so are the
    directories of files, which may differ from machine to machine.
    """
    parts = [type_name(error)]
    for frame, line in frames_of(error.__traceback__):
        code = frame.f_code
        parts.append(f"{os.path.basename(code.co_filename)}:{code.co_name}:{line}")
    return f"{xxhash.xxh3_64_intdigest('|'.join(parts).encode()):016x}"


def frames_of(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """The innermost frames that the error passed, outermost first; not those of this package."""
    found = [
        pair
        for pair in traceback.walk_tb(trace)
        if os.path.dirname(pair[0].f_code.co_filename) != _OWN
    ]
    yield from found[-_FRAMES_MAX:]


def chain_of(error: BaseException) -> list[BaseException]:
    """The error, and those that it came from, nearest first; each one once."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


def forget(error: BaseException) -> None:
    """Lets go of the frames of an error and of all that it came from, and of what they hold."""
    for one in chain_of(error):
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None

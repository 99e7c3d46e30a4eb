"""Tokens: read from a file, shown, and compared."""

from __future__ import annotations

import functools
import hmac
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .settings import VARIABLES, named

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

_FILE_BYTES_MAX = 1 << 16
_CHARS_MIN, _CHARS_MAX = 16, 1024
_TOKEN = named(VARIABLES[3])


def read_tokens(path: str) -> tuple[str, ...]:
    """The tokens in a file, one a line.

    Raises:
        UsageError: it cannot be read, holds none, or one that is too short or not plain ASCII.
    """
    try:
        with Path(path).open("rb") as file:
            warn_if_readable(path, os.fstat(file.fileno()).st_mode)
            text = file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise UsageError(f"{_TOKEN}: cannot read {path}: {error.strerror}") from error
    tokens = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not tokens:
        raise UsageError(f"{_TOKEN}: {path} holds no token")
    for number, token in enumerate(tokens, 1):
        # The message never shows the token, not even one that is wrong.
        if not _CHARS_MIN <= len(token) <= _CHARS_MAX or not all(33 <= c <= 126 for c in token):
            raise UsageError(
                f"{_TOKEN}: token {number} in {path} must have {_CHARS_MIN} to {_CHARS_MAX}"
                " characters of printable ASCII without spaces; `openssl rand -hex 32` makes one"
            )
    return tuple(token.decode("ascii") for token in tokens)


def accepts(tokens: Sequence[str], shown: object) -> bool:
    """Whether what a peer has shown is one of the tokens, in a time that does not tell how nearly.

    Args:
        tokens: the acceptable ones; none of them means that everyone is accepted.
        shown: whatever the peer sent.
    """
    if not tokens:
        return True
    given = shown.encode("utf-8", "surrogatepass") if isinstance(shown, str) else b""
    return any([hmac.compare_digest(token.encode(), given) for token in tokens])


@functools.cache  # once for each file
def warn_if_readable(path: str, mode: int) -> None:
    """Says so if every user of this machine may read a file that is a secret."""
    if mode & stat.S_IROTH:
        logger.warning(
            "%s is a secret, and every user of this machine may read it: chmod 600 %s", path, path
        )

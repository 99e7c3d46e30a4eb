"""How a penstock error travels in gRPC: a status code, the text, and the error's class by name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc

from ..errors import JournalError, NotFoundError, PenstockError, UsageError

if TYPE_CHECKING:
    from typing import NoReturn

logger = logging.getLogger(__name__)

#: The trailing metadata key under which peers find the name of the error's class.
ERROR_KEY = "penstock-error"
_CODES: tuple[tuple[type[PenstockError], grpc.StatusCode], ...] = (
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (JournalError, grpc.StatusCode.DATA_LOSS),
)


async def refuse(context: Any, error: PenstockError) -> NoReturn:
    """Ends a call with the error."""
    codes = [code for kind, code in _CODES if isinstance(error, kind)]
    code = codes[0] if codes else grpc.StatusCode.FAILED_PRECONDITION
    logger.info("refused a call of %s: %s: %s", context.peer(), type(error).__name__, error)
    await context.abort(code, str(error), ((ERROR_KEY, type(error).__name__),))
    raise AssertionError("abort raises")


async def ask_again(context: Any) -> NoReturn:
    """Ends a client's call that shows no number of this term; nothing came of it."""
    await context.abort(
        grpc.StatusCode.ABORTED, "this client has not announced itself in this term"
    )
    raise AssertionError("abort raises")


async def supersede(context: Any) -> NoReturn:
    """Ends a call that was overtaken by a newer one of the same peer; nothing came of it."""
    await context.abort(grpc.StatusCode.CANCELLED, "a newer call of this peer came before this one")
    raise AssertionError("abort raises")

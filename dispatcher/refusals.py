"""How calls end: a reply, or a penstock error as a status code, its text and its class by name."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from ..errors import JournalError, NotFoundError, PenstockError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    Reply = TypeVar("Reply")
    Method = Callable[[Any, Any, Any], Awaitable[Reply]]

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


def answering(method: Method[Reply]) -> Method[Reply]:
    """Lets the reply, or the refusal, of a call out once what it rests on is durable."""

    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: Any) -> Reply:
        try:
            reply = await method(self, request, context)
        except PenstockError as error:
            await self.engine.durable()
            await refuse(context, error)
        except asyncio.CancelledError:
            self.broke_off(request)
            raise
        except grpc.aio.AbortError:
            raise
        except Exception:
            # A bug: the peer gets an error from gRPC and tries again; the log must say why.
            logger.exception("%s of %s", method.__name__, context.peer())
            raise
        await self.engine.durable()
        return reply

    return answer

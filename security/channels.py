"""Control connections by gRPC: channels that show what `Access` holds, servers that demand it."""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .access import Access

logger = logging.getLogger(__name__)

#: The metadata in which a token travels, as HTTP has it.
AUTHORIZATION = "authorization"
_SCHEME = "Bearer "
#: Asked by supervisors that hold no token; it tells whether this process serves, and nothing else.
_OPEN_SERVICES = ("/grpc.health.v1.Health/",)
_DENIED = (
    "this dispatcher demands a token, and {what}: give the file of the cluster's token by"
    " PENSTOCK_TOKEN_FILE (daemons: or --token-file; trainers: or penstock.Security)"
)


def open_channel(
    address: str, access: Access, options: Sequence[tuple[str, Any]] = ()
) -> grpc.Channel:
    """A channel to a dispatcher.

    Args:
        address: `host:port`; with TLS, the certificate must be of that host.
        access: whom to trust, and what to show.
        options: of gRPC.
    """
    if access.client is None:
        channel = grpc.insecure_channel(address, options=options)
    else:
        credentials = grpc.ssl_channel_credentials(access.ca, access.key, access.cert)
        channel = grpc.secure_channel(address, credentials, options=options)
    return grpc.intercept_channel(channel, _Shows(access.token)) if access.token else channel


def bind(server: grpc.aio.Server, address: str, access: Access) -> int:
    """Has a server listen at an address.

    Returns:
        The port.

    Raises:
        RuntimeError: it is taken.
    """
    if access.server is None:
        return int(server.add_insecure_port(address))
    credentials = grpc.ssl_server_credentials(
        [(access.key, access.cert)], access.ca, require_client_auth=access.ca is not None
    )
    return int(server.add_secure_port(address, credentials))


def demands(access: Access) -> list[grpc.aio.ServerInterceptor]:
    """What a server needs to serve nobody without a token; nothing if there is none."""
    return [_Demands(access)] if access.tokens else []


class _Details(
    collections.namedtuple(
        "_Details", ("method", "timeout", "metadata", "credentials", "wait_for_ready")
    ),
    grpc.ClientCallDetails,  # type: ignore[misc]
):
    """What a call is made with, with metadata of ours."""


class _Shows(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Adds the token to every call."""

    def __init__(self, token: str) -> None:
        self._metadata = (AUTHORIZATION, _SCHEME + token)

    def _intercept(self, proceed: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        shown = _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), self._metadata],
            details.credentials,
            details.wait_for_ready,
        )
        return proceed(shown, request)

    intercept_unary_unary = _intercept
    intercept_unary_stream = _intercept
    intercept_stream_unary = _intercept
    intercept_stream_stream = _intercept


class _Demands(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends every call without an acceptable token before anything of it is read."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(
        self, proceed: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        if details.method.startswith(_OPEN_SERVICES):
            return await proceed(details)
        shown = [v for key, v in details.invocation_metadata or () if key == AUTHORIZATION]
        token = shown[-1].removeprefix(_SCHEME) if shown and isinstance(shown[-1], str) else None
        if self._access.accepts(token):
            return await proceed(details)
        # A stream's handler, whatever the method is: it is called before a request is read.
        return _WRONG if shown else _MISSING


def _denial(what: str) -> Any:
    async def deny(_: Any, context: Any) -> None:
        logger.warning("refused a call of %s: %s", context.peer(), what)
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            _DENIED.format(what=what),
            (("penstock-error", "AuthenticationError"),),
        )

    return grpc.stream_stream_rpc_method_handler(deny)


_MISSING = _denial("this call shows none")
_WRONG = _denial("the one that this call shows is wrong")

"""`Access`: a process's certificates and tokens, loaded and checked once, for all its connections.

Both kinds of connection use it: control by gRPC's own TLS (`channels`), data by Python's
(`tls_socket`). What is read is checked here by Python's in either case, because its errors say
which file is wrong, and because gRPC takes anything and fails at the first connection only.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ..errors import UsageError
from .settings import VARIABLES, Security, named
from .tokens import accepts, read_tokens, warn_if_readable

_CA, _CERT, _KEY = (named(variable) for variable in VARIABLES[:3])


@dataclass(frozen=True, slots=True)
class Access:
    """What a process shows to others and demands of them.

    Attributes:
        tokens: the acceptable ones; the first is shown. None of them: nobody is asked for any.
        client: for connections that are made; None: they are not encrypted.
        control: the same for a look at a gRPC server, which wants to hear its protocol's name.
        server: for connections that are accepted; None: they are not encrypted.
        ca, cert, key: the PEM files' bytes, for gRPC; None where there is none.
    """

    tokens: tuple[str, ...] = field(default=(), repr=False)
    client: ssl.SSLContext | None = None
    control: ssl.SSLContext | None = None
    server: ssl.SSLContext | None = None
    ca: bytes | None = field(default=None, repr=False)
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    @property
    def token(self) -> str:
        """The token to show; empty if there is none."""
        return self.tokens[0] if self.tokens else ""

    def accepts(self, shown: object) -> bool:
        """Whether a peer that has shown this may be served."""
        return accepts(self.tokens, shown)

    @classmethod
    def load(cls, security: Security, *, serving: bool = False) -> Access:
        """Reads the files.

        Args:
            security: which files.
            serving: this process accepts connections, for which it needs a certificate.

        Raises:
            UsageError: a file is missing or not what it should be, or a server has TLS settings
                but no certificate.
        """
        tokens = read_tokens(str(security.token_file)) if security.token_file else ()
        if not security.tls:
            return cls(tokens)
        if serving and not security.tls_cert:
            raise UsageError(f"{_CA} alone is for clients: a server needs {_CERT} and {_KEY}, too")
        ca = _read(_CA, security.tls_ca) if security.tls_ca else None
        cert = _read(_CERT, security.tls_cert) if security.tls_cert else None
        key = _read(_KEY, security.tls_key, secret=True) if security.tls_key else None
        client, control = (_context(ssl.PROTOCOL_TLS_CLIENT, security) for _ in range(2))
        control.set_alpn_protocols(["h2"])
        server = None
        if serving:
            server = _context(ssl.PROTOCOL_TLS_SERVER, security)
            server.num_tickets = 0  # nobody resumes
            if security.tls_ca:
                server.verify_mode = ssl.CERT_REQUIRED
        return cls(tokens, client, control, server, ca, cert, key)


#: Neither TLS nor tokens.
OPEN = Access()


def _read(what: str, path: str | os.PathLike[str], *, secret: bool = False) -> bytes:
    try:
        with Path(path).open("rb") as file:
            if secret:
                warn_if_readable(str(path), os.fstat(file.fileno()).st_mode)
            return file.read()
    except OSError as error:
        raise UsageError(f"{what}: cannot read {path}: {error.strerror}") from error


def _context(protocol: int, security: Security) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if security.tls_ca:
        try:
            context.load_verify_locations(security.tls_ca)
        except ssl.SSLError as error:
            raise UsageError(f"{_CA}: {security.tls_ca} holds no PEM certificate") from error
    elif protocol == ssl.PROTOCOL_TLS_CLIENT:
        context.load_default_certs()
    if security.tls_cert:
        try:
            context.load_cert_chain(security.tls_cert, security.tls_key, _refuse_to_ask)
        except ssl.SSLError as error:
            what = f"{security.tls_cert} and {security.tls_key}"
            why = "are not of one pair" if error.reason == "KEY_VALUES_MISMATCH" else "are no PEM"
            raise UsageError(
                f"{_CERT}, {_KEY}: {what} {why} certificate and private key"
                f" ({error.reason or error})"
            ) from error
    return context


def _refuse_to_ask() -> NoReturn:
    # Without this OpenSSL would ask for a passphrase at the terminal, and wait.
    raise UsageError(f"{_KEY}: the key is encrypted; penstock needs one that is not")

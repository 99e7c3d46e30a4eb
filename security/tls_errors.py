"""What a failure of TLS means: an error by name if trying again cannot help, else nothing."""

from __future__ import annotations

import ssl

from ..errors import AuthenticationError
from .settings import VARIABLES

_CA, _CERT, _KEY = VARIABLES[:3]
#: What OpenSSL says, in its various releases, of bytes that are not TLS.
_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"}
_NOT_TLS |= {"RECORD_LAYER_FAILURE", "BAD_RECORD_TYPE", "UNEXPECTED_MESSAGE"}
#: Part of OpenSSL's name for what the other side objects to, and what that means.
_OBJECTIONS = (
    ("CERTIFICATE_REQUIRED", f"it demands a certificate: give {_CERT} and {_KEY}"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", f"it shows no certificate: it needs {_CERT} and {_KEY}"),
    ("ALERT_UNKNOWN_CA", f"it does not trust who signed this side's certificate ({_CA} there)"),
    ("ALERT_CERTIFICATE_EXPIRED", "it refuses this side's certificate: that has expired"),
    ("ALERT_CERTIFICATE_REVOKED", "it refuses this side's certificate: that is revoked"),
    ("ALERT_BAD_CERTIFICATE", "it refuses this side's certificate, or found another name in it"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "it refuses this side's certificate: not for this use"),
    ("ALERT_CERTIFICATE_UNKNOWN", "it refuses this side's certificate"),
    (
        "ALERT_HANDSHAKE_FAILURE",
        f"it does not agree to a cipher, or demands a certificate ({_CERT})",
    ),
    ("ALERT_PROTOCOL_VERSION", "it demands another version of TLS than 1.2 or 1.3"),
    ("UNSUPPORTED_PROTOCOL", "it speaks a version of TLS before 1.2"),
    ("NO_SHARED_CIPHER", "there is no cipher that both sides know"),
)


class NoTlsError(AuthenticationError):
    """What the other side sends is not TLS."""


def named_error(error: ssl.SSLError) -> AuthenticationError | None:
    """The error to end with; None if the connection just broke, and another try may help.

    Args:
        error: what came of a handshake, or of the first read after it: under TLS 1.3 a server
            looks at a client's certificate after the client is done with the handshake.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return AuthenticationError(f"TLS: its certificate is not trusted here: {why}")
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return NoTlsError(f"TLS: it does not speak TLS, and this side has {_CA} or {_CERT} set")
    for part, meaning in _OBJECTIONS:
        if part in reason:
            return AuthenticationError(f"TLS: {meaning}")
    return None

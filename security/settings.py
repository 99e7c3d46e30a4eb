"""`Security`: which files hold a process's certificate, its key, whom it trusts, and its token."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The environment variables that say the same as the fields of `Security`, in their order.
VARIABLES = ("PENSTOCK_TLS_CA", "PENSTOCK_TLS_CERT", "PENSTOCK_TLS_KEY", "PENSTOCK_TOKEN_FILE")


@dataclass(frozen=True, slots=True)
class Security:
    """The files by which a process shows who it is, and knows the others; see docs/security.md.

    Attributes:
        tls_ca: PEM file of the authorities whose certificates are trusted. Given to a dispatcher
            or a worker it also has them demand a certificate of everyone who connects.
        tls_cert: PEM file of this process's certificate, followed by those that lead to the CA's.
        tls_key: PEM file of the certificate's private key, not encrypted.
        token_file: file of the token that everyone shows and demands; of several lines the first
            one is shown and each is accepted.

    Raises:
        UsageError: one of certificate and key is given without the other.
    """

    tls_ca: str | os.PathLike[str] = ""
    tls_cert: str | os.PathLike[str] = ""
    tls_key: str | os.PathLike[str] = ""
    token_file: str | os.PathLike[str] = ""

    def __post_init__(self) -> None:
        for field, variable in zip(fields(self), VARIABLES, strict=True):
            value = getattr(self, field.name)
            if not isinstance(value, (str, os.PathLike)):
                raise UsageError(f"{named(variable)} must be the path of a file, not {value!r:.80}")
            object.__setattr__(self, field.name, os.fsdecode(value))
        if bool(self.tls_cert) != bool(self.tls_key):
            _, certificate, key, _ = VARIABLES
            missing, given = (key, certificate) if self.tls_cert else (certificate, key)
            raise UsageError(f"{named(given)} needs {named(missing)}, too")

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.tls_ca or self.tls_cert)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Security:
        """What `PENSTOCK_TLS_CA`, `…_CERT`, `…_KEY` and `PENSTOCK_TOKEN_FILE` say.

        Args:
            environment: where they are; None for this process's.
        """
        found = os.environ if environment is None else environment
        return cls(*(found.get(variable, "") for variable in VARIABLES))

    @classmethod
    def of(cls, security: object, service: object = None) -> Security:
        """Which settings count: those given, those of a `LocalCluster`, else the environment's.

        Raises:
            UsageError: `security` is something else.
        """
        if security is None:
            own = getattr(service, "security", None)
            return own if isinstance(own, cls) else cls.from_environment()
        if not isinstance(security, cls):
            raise UsageError(f"security must be a penstock.Security, or None, not {security!r:.80}")
        return security

    def as_dict(self) -> dict[str, str]:
        """The files by the names of their fields."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}

    def arguments(self) -> list[str]:
        """The same as command line arguments of a daemon."""
        flags = (("ca", self.tls_ca), ("cert", self.tls_cert), ("key", self.tls_key))
        given = [f"--tls-{flag}={value!s}" for flag, value in flags if value]
        return given + ([f"--token-file={self.token_file!s}"] if self.token_file else [])


def named(variable: str) -> str:
    """How people know a setting: by its flag, its argument and its variable."""
    flag = variable.removeprefix("PENSTOCK_").lower().replace("_", "-")
    return f"--{flag} (in a trainer penstock.Security, or {variable})"

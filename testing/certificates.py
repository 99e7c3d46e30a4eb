"""An authority for tests: makes certificates with the `openssl` command, which must be there.

    authority = Authority(directory)
    with LocalCluster(security=authority.issue("local", "127.0.0.1")) as cluster:
        ...

The keys lie unprotected in the directory: these certificates are good for nothing else.
"""

from __future__ import annotations

import ipaddress
import subprocess
from typing import TYPE_CHECKING

from ..errors import UnavailableError
from ..security.settings import Security

if TYPE_CHECKING:
    from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_DEADLINE_S = 60.0


class Authority:
    """Signs certificates.

    Args:
        directory: where its files and those of its certificates are; made if it is not there.
        name: of the authority, and the beginning of its files' names.

    Attributes:
        ca: its own certificate, a PEM file.

    Raises:
        UnavailableError: the `openssl` command is missing or fails.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = directory / f"{name}.key"
        self.ca = directory / f"{name}.pem"
        made = ("-keyout", str(self._key), "-out", str(self.ca), "-days", "30")
        use = ("-addext", "keyUsage=critical,keyCertSign")
        _openssl("req", "-x509", *_KEY, "-subj", f"/CN=penstock test {name}", *made, *use)

    def issue(self, name: str, *hosts: str, days: int = 30) -> Security:
        """Issues a certificate, for a server and a client alike.

        Args:
            name: the beginning of its files' names.
            hosts: names and addresses by which its owner is reached.
            days: until it expires; below 0: it has expired.

        Returns:
            The files.

        Raises:
            UnavailableError: the `openssl` command is missing or fails.
        """
        certificate, key, request, more = (
            self._directory / f"{name}.{ending}" for ending in ("pem", "key", "csr", "ext")
        )
        names = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
        subject = f"subjectAltName={names}\n" if hosts else ""
        more.write_text(subject + "extendedKeyUsage=serverAuth,clientAuth\n")
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
        signed = ("-CA", str(self.ca), "-CAkey", str(self._key), "-CAcreateserial")
        made = ("-extfile", str(more), "-days", str(days), "-out", str(certificate))
        _openssl("x509", "-req", "-in", str(request), *signed, *made)
        return Security(self.ca, certificate, key)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _openssl(*arguments: str) -> None:
    try:
        subprocess.run(
            ["openssl", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
        )
    except FileNotFoundError:
        raise UnavailableError("certificates are made by the openssl command: install it") from None
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", "") or ""
        raise UnavailableError(f"openssl {arguments[0]} failed: {said or error}") from error

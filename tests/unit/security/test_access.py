"""Files of certificates: what is wrong with them is told when they are read."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.security.access import Access
from penstock.security.settings import Security

from ...papers import Papers


def test_a_server_with_an_authority_demands_certificates(papers: Papers) -> None:
    mutual = Access.load(papers.good, serving=True)
    assert mutual.server is not None
    assert mutual.server.verify_mode is ssl.CERT_REQUIRED
    one_sided = Security(tls_cert=papers.good.tls_cert, tls_key=papers.good.tls_key)
    access = Access.load(one_sided, serving=True)
    assert access.server is not None
    assert access.server.verify_mode is ssl.CERT_NONE
    assert access.ca is None


def test_a_client_verifies_names_and_no_old_version_is_spoken(papers: Papers) -> None:
    access = Access.load(papers.anonymous)
    assert access.server is None
    assert access.client is not None
    assert access.client.check_hostname
    assert access.client.verify_mode is ssl.CERT_REQUIRED
    assert access.client.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_server_needs_a_certificate(papers: Papers) -> None:
    with pytest.raises(UsageError, match=r"--tls-cert .*PENSTOCK_TLS_CERT"):
        Access.load(papers.anonymous, serving=True)


@pytest.mark.parametrize("field", ["tls_ca", "tls_cert", "tls_key"])
def test_a_file_that_is_missing_or_none_of_the_kind_is_named(
    papers: Papers, tmp_path: Path, field: str
) -> None:
    def load(path: Path) -> None:
        files = {
            "tls_ca": papers.good.tls_ca,
            "tls_cert": papers.good.tls_cert,
            "tls_key": papers.good.tls_key,
        }
        Access.load(Security(**{**files, field: path}), serving=True)

    missing = tmp_path / "missing.pem"
    flag = f"--{field.replace('_', '-')}"
    with pytest.raises(UsageError, match=rf"{flag} .*cannot read .*missing\.pem: No such file"):
        load(missing)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    nonsense.chmod(0o600)
    with pytest.raises(UsageError, match=rf"{flag}.*nonsense\.pem"):
        load(nonsense)


def test_a_key_of_another_certificate_is_told(papers: Papers) -> None:
    mixed = Security(papers.good.tls_ca, papers.good.tls_cert, papers.stranger.tls_key)
    with pytest.raises(UsageError, match="not of one pair"):
        Access.load(mixed)


def test_an_encrypted_key_is_told_and_nobody_is_asked(papers: Papers, tmp_path: Path) -> None:
    key = tmp_path / "encrypted.key"
    how = ("-aes256", "-passout", "pass:secret", "-in", str(papers.good.tls_key), "-out", str(key))
    subprocess.run(["openssl", "ec", *how], check=True, capture_output=True)
    with pytest.raises(UsageError, match="encrypted"):
        Access.load(Security(papers.good.tls_ca, papers.good.tls_cert, key))


def test_keys_are_not_shown(papers: Papers) -> None:
    assert "PRIVATE" not in repr(Access.load(papers.good, serving=True))

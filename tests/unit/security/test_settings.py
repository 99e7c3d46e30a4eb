"""Which files count, and what is said about those that do not do."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.security.access import OPEN, Access
from penstock.security.settings import VARIABLES, Security
from penstock.security.tokens import accepts, read_tokens

TOKEN = "0123456789abcdef"


def test_the_environment_says_the_same_as_the_fields() -> None:
    environment = dict(zip(VARIABLES, ("ca", "cert", "key", "token"), strict=True))
    assert Security.from_environment(environment) == Security("ca", "cert", "key", "token")
    assert Security.from_environment({}) == Security()
    assert not Security().tls
    assert Security(tls_ca="ca").tls


def test_what_is_given_goes_before_a_cluster_and_that_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Cluster:
        security = Security(token_file="cluster")

    monkeypatch.setenv("PENSTOCK_TOKEN_FILE", "environment")
    given = Security(token_file=Path("given"))
    assert Security.of(given, Cluster()) == Security(token_file="given")
    assert Security.of(None, Cluster()) == Cluster.security
    assert Security.of(None, "head:5050") == Security(token_file="environment")
    with pytest.raises(UsageError, match=r"penstock\.Security"):
        Security.of("token")


def test_arguments_are_what_a_daemon_understands() -> None:
    given = Security("a", "b", "c", "d")
    flags = ["--tls-ca=a", "--tls-cert=b", "--tls-key=c", "--token-file=d"]
    assert given.arguments() == flags
    assert Security().arguments() == []


@pytest.mark.parametrize(
    ("fields", "missing"), [({"tls_cert": "x"}, "--tls-key"), ({"tls_key": "x"}, "--tls-cert")]
)
def test_a_certificate_and_its_key_come_together(fields: dict[str, str], missing: str) -> None:
    with pytest.raises(UsageError, match=f"needs {missing}"):
        Security(**fields)


def test_a_path_is_a_path() -> None:
    with pytest.raises(UsageError, match="--token-file"):
        Security(token_file=3)  # type: ignore[arg-type]


def test_tokens_are_the_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n\n  another-{TOKEN} \n")
    path.chmod(0o600)
    tokens = read_tokens(str(path))
    assert tokens == (TOKEN, f"another-{TOKEN}")
    access = Access.load(Security(token_file=path))
    assert access.token == TOKEN
    assert access.accepts(f"another-{TOKEN}")
    assert TOKEN not in repr(access)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n \n", "holds no token"),
        (b"short", "16 to 1024"),
        (b"x" * 1025, "16 to 1024"),
        (b"secret with spaces in it", "without spaces"),
        (TOKEN.encode() + b"\nb\xc3\xa4d" + b"x" * 20, "token 2"),
    ],
)
def test_a_token_that_is_none_is_named_and_not_shown(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_tokens(str(path))
    assert "--token-file" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--token-file .*No such file"):
        read_tokens(str(tmp_path / "none"))


def test_a_secret_that_everybody_may_read_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        read_tokens(str(path))
        assert not caplog.records
        path.chmod(0o644)
        read_tokens(str(path))
        read_tokens(str(path))
    assert [f"chmod 600 {path}" in text for text in caplog.messages] == [True]


@pytest.mark.parametrize("shown", [None, "", TOKEN[:-1], TOKEN + "0", 7, TOKEN.encode(), "\ud800"])
def test_nothing_but_a_token_is_accepted(shown: object) -> None:
    assert not accepts((TOKEN,), shown)
    assert accepts((TOKEN,), TOKEN)
    assert accepts((), shown)
    assert OPEN.accepts(shown)

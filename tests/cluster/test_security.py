"""G10: a whole cluster that nobody unknown gets into, and that is exact all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from penstock import Security
from penstock.client.status import fetch_status
from penstock.errors import AuthenticationError

from .conftest import ClusterMaker
from .pipelines import numbers

PENSTOCK = [sys.executable, "-m", "penstock"]


@pytest.fixture
def token(tmp_path: Path) -> Security:
    path = tmp_path / "token"
    path.write_text("a-token-for-this-test-only")
    path.chmod(0o600)
    return Security(token_file=path)


def order(address: object, **more: object) -> list[int]:
    served = numbers(2000, work=5).apply(penstock.distribute(address, seed=3, **more))
    return [int(element[0]) for element in served]


def test_a_token_lets_in_whoever_has_it_and_nobody_else(
    make_cluster: ClusterMaker, token: Security, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("a-token-of-something-else")
    wrong.chmod(0o600)
    cluster = make_cluster(security=token)
    assert sorted(order(cluster)) == list(range(2000))
    with pytest.raises(AuthenticationError, match="shows none"):
        order(cluster.address)
    with pytest.raises(AuthenticationError, match="is wrong"):
        order(cluster.address, security=Security(token_file=wrong))
    for environment in ({}, {"PENSTOCK_TOKEN_FILE": str(wrong)}):
        monkeypatch.delenv("PENSTOCK_TOKEN_FILE", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        asked = subprocess.run(
            [*PENSTOCK, "status", "--dispatcher", cluster.address], capture_output=True, text=True
        )
        assert asked.returncode == AuthenticationError.exit_code
        assert "PENSTOCK_TOKEN_FILE" in asked.stderr
        joined = subprocess.run(
            [*PENSTOCK, "worker", "--dispatcher", cluster.address], capture_output=True, text=True
        )
        assert joined.returncode == AuthenticationError.exit_code
        assert "PENSTOCK_TOKEN_FILE" in joined.stderr
    monkeypatch.setenv("PENSTOCK_TOKEN_FILE", str(token.token_file))
    assert sorted(order(cluster.address)) == list(range(2000))
    picture = fetch_status(cluster.address)
    assert len(picture["workers"]) == 2
    secret = Path(token.token_file).read_text()
    for log in (cluster.directory / "logs").iterdir():
        assert secret not in log.read_text()
    assert secret not in str(picture)

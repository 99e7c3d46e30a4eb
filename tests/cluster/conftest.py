"""Real clusters for the tests here: one that is shared, and a maker of short-lived ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock import LocalCluster

ClusterMaker = Callable[..., LocalCluster]


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two workers, shared by all tests that break nothing."""
    directory = tmp_path_factory.mktemp("shared-cluster")
    with LocalCluster(workers=2, directory=directory) as cluster:
        yield cluster


@pytest.fixture
def make_cluster(tmp_path: Any) -> Iterator[ClusterMaker]:
    """Makes clusters that end with the test; logs stay in the test's directory on failure."""
    made: list[LocalCluster] = []

    def make(*, workers: int = 2, worker_timeout_s: float = 1.0, **more: Any) -> LocalCluster:
        directory = tmp_path / f"cluster-{len(made)}"
        cluster = LocalCluster(
            workers=workers, worker_timeout_s=worker_timeout_s, directory=directory, **more
        )
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.close()

"""Real trainings of several processes, scaled 2 -> 1 -> 2 by killing and adding a process."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import tensorflow as tf

from penstock import LocalCluster, Reader

from .consumer import Told
from .mirrored_trainer import BATCH, COUNT


def free_ports(count: int) -> str:
    """Ports that nobody listens at."""
    with ExitStack() as sockets:
        found = [
            sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return ",".join(str(one.getsockname()[1]) for one in found)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("trainer", ["mirrored_trainer", "ddp_trainer"])
def test_a_training_that_is_scaled_down_and_up_accounts_for_every_element(
    shared_cluster: LocalCluster, tmp_path: Path, trainer: str
) -> None:
    if trainer == "ddp_trainer":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    with Reader(tf.data.Dataset.range(COUNT).shuffle(30).batch(BATCH), shared_cluster) as reader:
        assert reader.job.lanes == 16
        fingerprint = reader.plan.streams[0].fingerprint
    trained: Counter[int] = Counter()
    weights = tmp_path / "weights"
    with ExitStack() as processes:

        def workers(count: int) -> list[Told]:
            ports = free_ports(count)
            out = []
            for rank in range(count):
                arguments = (shared_cluster.address, trainer, rank, ports, weights, fingerprint)
                out.append(Told(trainer, *arguments))
                processes.callback(out[-1].close)
            return out

        def steps(workers: list[Told], count: int) -> Counter[int]:
            for worker in workers:
                worker.tell(f"steps {count}")
            return sum((Counter(worker.answer()) for worker in workers), Counter())

        def save(workers: list[Told]) -> None:
            for worker in workers:
                assert worker.ask("save") == []

        two = workers(2)
        trained += steps(two, 10)
        save(two)
        lost = steps(two, 3)
        for worker in two:  # the one that is left could not go on alone
            worker.kill()
        (alone,) = workers(1)
        again = steps([alone], 15)
        assert set(lost) <= set(again), "what no checkpoint holds comes again"
        trained += again
        save([alone])
        alone.kill()
        two = workers(2)
        trained += steps(two, 1000)
        assert trained == Counter(range(COUNT))
        assert [worker.ask("weight") for worker in two] == [float(sum(range(COUNT)))] * 2

"""G1 and G3 without faults: every element exactly once, in an order that only the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import penstock
from penstock import LocalCluster

from .conftest import ClusterMaker
from .pipelines import multiset_of, numbers, sequence_of, shuffled_numbers, write_lines


def test_an_epoch_is_what_a_local_run_gives(shared_cluster: LocalCluster, tmp_path) -> None:
    local = tf.data.TextLineDataset(write_lines(tmp_path, files=7, lines=111))
    served = local.apply(penstock.distribute(shared_cluster.address))
    assert served.element_spec == local.element_spec
    assert multiset_of(served) == multiset_of(local)


def test_another_epoch_has_another_order_and_the_same_elements(
    shared_cluster: LocalCluster,
) -> None:
    served = shuffled_numbers(2000).apply(penstock.distribute(shared_cluster.address, seed=3))
    first, second = sequence_of(served), sequence_of(served)
    assert first != second
    assert sorted(first) == sorted(second)


def test_digests_agree_with_ground_truth(shared_cluster: LocalCluster) -> None:
    local = numbers(3000)
    served = local.apply(penstock.distribute(shared_cluster.address))
    list(served)
    list(served)
    truth = penstock.digest_of(local)
    for digest in served.penstock.digests.values():
        assert (digest.count, digest.total) == (truth.count, truth.total)


def test_the_sequence_is_the_same_on_1_2_and_4_workers(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=1)

    def epochs() -> list[list[str]]:
        served = shuffled_numbers(3000).apply(penstock.distribute(cluster.address, seed=11))
        return [sequence_of(served), sequence_of(served)]

    with_one = epochs()
    cluster.add_worker()
    with_two = epochs()
    cluster.add_worker()
    cluster.add_worker()
    with_four = epochs()
    assert with_one == with_two == with_four


def test_100_000_small_elements(shared_cluster: LocalCluster) -> None:
    served = tf.data.Dataset.range(100_000).apply(penstock.distribute(shared_cluster.address))
    received = np.concatenate([batch.numpy() for batch in served.batch(1000)])
    assert np.array_equal(np.sort(received), np.arange(100_000))


def test_200_elements_of_3_mb(shared_cluster: LocalCluster) -> None:
    local = tf.data.Dataset.range(200).map(
        lambda i: (i, tf.fill([64, 64, 64, 3], tf.cast(i, tf.float32)))
    )
    served = local.apply(penstock.distribute(shared_cluster.address))
    seen = []
    for i, big in served:
        assert big.shape == (64, 64, 64, 3)
        assert float(big[0, 0, 0, 0]) == float(big[-1, -1, -1, -1]) == float(i)
        seen.append(int(i))
    assert sorted(seen) == list(range(200))


def test_two_jobs_at_once_on_one_cluster(shared_cluster: LocalCluster) -> None:
    one = numbers(1500).apply(penstock.distribute(shared_cluster.address, job_name="one"))
    two = tf.data.Dataset.range(900).apply(
        penstock.distribute(shared_cluster.address, job_name="two")
    )
    first, second = iter(one), iter(two)
    seen_one = [int(next(first)[0]) for _ in range(700)]
    seen_two = [int(element) for element in second]
    seen_one += [int(element[0]) for element in first]
    assert sorted(seen_one) == list(range(1500))
    assert sorted(seen_two) == list(range(900))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_dataset_with_fewer_splits_than_lanes(shared_cluster: LocalCluster, count: int) -> None:
    served = tf.data.Dataset.range(count).apply(penstock.distribute(shared_cluster.address))
    assert sorted(int(element) for element in served) == list(range(count))
    assert sorted(int(element) for element in served) == list(range(count))


def test_one_lane_without_shuffle_keeps_the_local_order(shared_cluster: LocalCluster) -> None:
    local = numbers(1000).filter(lambda i, _: i % 3 != 0)
    served = local.apply(penstock.distribute(shared_cluster.address, lanes=1))
    assert sequence_of(served) == sequence_of(local)


def test_what_cannot_be_split_is_run_again_at_the_client(shared_cluster: LocalCluster) -> None:
    local = numbers(1000).batch(64).map(lambda i, _: tf.reduce_sum(i)).take(5).repeat(2)
    served = local.apply(penstock.distribute(shared_cluster.address))
    assert sequence_of(served) == sequence_of(local)


def test_nested_ragged_sparse_and_strings_arrive_as_they_were(
    shared_cluster: LocalCluster,
) -> None:
    def build(i: tf.Tensor) -> dict:
        length = tf.cast(i % 5, tf.int32)
        return {
            "ragged": tf.RaggedTensor.from_row_lengths(tf.range(length), [length, 0]),
            "sparse": tf.SparseTensor([[0, i % 4]], [i], [1, 4]),
            "text": (tf.strings.as_string(i), tf.fill([length], "é")),
        }

    local = tf.data.Dataset.range(300).map(build)
    served = local.apply(penstock.distribute(shared_cluster.address))
    assert served.element_spec == local.element_spec
    assert multiset_of(served) == multiset_of(local)


def test_an_abandoned_iterator_frees_its_epoch(shared_cluster: LocalCluster) -> None:
    served = numbers(5000).apply(
        penstock.distribute(shared_cluster.address, job_name="abandoned", lanes=4)
    )
    for _ in range(3):
        iterator = iter(served)
        next(iterator)
        del iterator
    assert sum(1 for _ in served.batch(500)) == 10


def test_without_determinism_every_element_still_arrives_once(
    shared_cluster: LocalCluster,
) -> None:
    served = numbers(2000).apply(penstock.distribute(shared_cluster.address, deterministic=False))
    assert sorted(int(element[0]) for element in served) == list(range(2000))

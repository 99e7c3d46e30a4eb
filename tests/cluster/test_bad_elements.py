"""Bad elements on a real cluster: left out, listed, the same in every epoch and every order."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import tensorflow as tf

import penstock
from penstock import errors

BAD = (17, 60)
COUNT = 100


def spoiled() -> Any:
    """Numbers, some of which raise on the workers."""

    def checked(number: tf.Tensor) -> tf.Tensor:
        fine = tf.reduce_all([tf.not_equal(number, bad) for bad in BAD])
        with tf.control_dependencies([tf.debugging.assert_equal(fine, True, message="torn jpeg")]):
            return tf.identity(number)

    return tf.data.Dataset.range(COUNT).map(checked, num_parallel_calls=4).batch(7)


def command(*arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "quarantine", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_bad_elements_are_quarantined_listed_and_left_out_of_every_epoch(
    shared_cluster: penstock.LocalCluster,
) -> None:
    address = f"--dispatcher={shared_cluster.address}"
    served = spoiled().apply(
        penstock.distribute(
            shared_cluster.address, job_name="spoiled", lanes=4, on_bad_element="quarantine"
        )
    )
    assert served.cardinality() == tf.data.UNKNOWN_CARDINALITY
    wanted = [number for number in range(COUNT) if number not in BAD]
    for _ in range(2):
        batches = [batch.numpy().tolist() for batch in served]
        assert sorted(number for batch in batches for number in batch) == wanted
        assert [len(batch) for batch in batches] == 14 * [7]
    shown = command("ls", "--json", address).splitlines()
    listed = [bad for bad in map(json.loads, shown) if bad["name"] == "spoiled"]
    assert [bad["epoch"] for bad in listed] == [0, 0, 1, 1]
    assert all("torn jpeg" in bad["error"] for bad in listed)
    name = listed[0]["element_id"]
    assert json.loads(command("show", name, address))["worker"] == listed[0]["worker"]
    assert "will be made" in command("retry", name, address)
    assert "leaves out no element" in command("retry", name, address, status=7)


def test_past_max_bad_the_job_fails_and_names_them(shared_cluster: penstock.LocalCluster) -> None:
    served = spoiled().apply(
        penstock.distribute(
            shared_cluster.address, lanes=1, on_bad_element="skip", max_bad=1, attempts_max=2
        )
    )
    with pytest.raises(errors.JobFailedError, match="more than max_bad=1 elements"):
        list(served)
    assert isinstance(served.penstock.error, errors.JobFailedError)

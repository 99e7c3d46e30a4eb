"""A user's failover class for the tests: it answers what the job's name says.

The name is `STRATEGY PATH`. The file at PATH is what the job's pipeline misses; whoever is asked
about an exception makes it, so that the pipeline fails once. Everything that was asked is written
down beside it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from penstock import FailoverExtension, FailoverStrategy, FailureInfo
from penstock.recovery.failover import FailureKind


class ByName(FailoverExtension):
    """Does what the job's name says."""

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        strategy, _, path = failure_info.job_name.partition(" ")
        if not path:
            return FailoverStrategy.NORMAL_FAILOVER
        with Path(path + ".asked").open("a") as asked:
            asked.write(f"{failure_info.kind.value}\n")
        Path(path).write_text("here")
        return FailoverStrategy(strategy)


class Telling(FailoverExtension):
    """Writes down what a failure tells of itself, in the file that PENSTOCK_TEST_TOLD names."""

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        told = {
            "kind": failure_info.kind.value,
            "exceptions": failure_info.exceptions,
            "exit_code": failure_info.exit_code,
            "signal": failure_info.signal,
            "trainer_step": failure_info.trainer_step,
        }
        with Path(os.environ["PENSTOCK_TEST_TOLD"]).open("a") as file:
            file.write(f"{json.dumps(told)}\n")
        return FailoverStrategy.NORMAL_FAILOVER


class Mending(FailoverExtension):
    """Retires whose bytes differ, and mends the file that the job's name ends with."""

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        if failure_info.kind is not FailureKind.HASH_MISMATCH:
            return FailoverStrategy.NORMAL_FAILOVER
        Path(failure_info.job_name.partition(" ")[2]).write_text("here")
        return FailoverStrategy.NODE_FAILOVER

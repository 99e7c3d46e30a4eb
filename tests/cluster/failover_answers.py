"""A user's failover class for the tests: it answers what the job's name says.

The name is `STRATEGY PATH`. The file at PATH is what the job's pipeline misses; whoever is asked
about an exception makes it, so that the pipeline fails once. Everything that was asked is written
down beside it.
"""

from __future__ import annotations

from pathlib import Path

from penstock import FailoverExtension, FailoverStrategy, FailureInfo


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

"""Which failpoints there are in the source, and how each of them is visited by the matrix."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("journal", "dispatcher", "worker", "client", "graph", "proto", "cli")


@dataclass(frozen=True, slots=True)
class Visit:
    """One death at one point.

    Attributes:
        name: of the failpoint.
        at: the pass at which the process dies, from 1.
        during: what goes on meanwhile. `epoch`: an epoch of a dataset that everybody knows;
            `fresh`: one of a dataset that is new; `pause`: an epoch while a worker that has been
            dealt splits is paused for so long that it is given up, and then comes back; `leave`:
            an epoch while the worker is told to stop; `unreachable`: an epoch a part of which is
            given to a worker that no client can reach, though it sends heartbeats.
    """

    name: str
    at: int = 1
    during: str = "epoch"

    def __str__(self) -> str:
        return f"{self.name}@{self.at}"


#: The dispatcher owns the points of the journal. It takes a snapshot every SNAPSHOT_RECORDS.
SNAPSHOT_RECORDS = 7
JOURNAL = (
    Visit("journal.lease.before_take"),
    Visit("journal.lease.after_take"),
    Visit("journal.lease.before_renew", 2),
    Visit("journal.before_write", 4),
    Visit("journal.before_fsync", 4),
    Visit("journal.after_fsync", 4),
    Visit("journal.file.before_rename", 1),  # while the last run's segment is written anew
    Visit("journal.file.before_rename", 3),
    Visit("journal.file.after_rename", 2),
    Visit("journal.segment.after_create"),
    Visit("journal.snapshot.before_write"),
    Visit("journal.snapshot.after_write"),
    Visit("journal.prune.before_remove", 2),
    Visit("journal.prune.after_remove", 2),
)
DISPATCHER = (
    Visit("dispatcher.term.before_start"),
    Visit("dispatcher.term.after_start"),
    Visit("dispatcher.dataset.before_rename", during="fresh"),
    Visit("dispatcher.dataset.after_write", during="fresh"),
    Visit("dispatcher.get_dataset.before_send", during="fresh"),
    Visit("dispatcher.announce_client.before_reply"),
    Visit("dispatcher.open_job.before_commit"),
    Visit("dispatcher.open_job.before_reply"),
    Visit("dispatcher.failover.before_commit", during="pause"),
    Visit("dispatcher.sync_client.before_commit", 3),
    Visit("dispatcher.sync_client.before_reply", 3),
    Visit("dispatcher.sync_worker.before_commit", 5),
    Visit("dispatcher.sync_worker.before_reply", 5),
    Visit("dispatcher.assign.after_append", 6),
    Visit("dispatcher.worker_lost.after_append", during="pause"),
    Visit("dispatcher.register_worker.before_commit", during="pause"),
    Visit("dispatcher.register_worker.before_reply", during="pause"),
    Visit("dispatcher.before_probe", during="unreachable"),
    Visit("dispatcher.after_probe", during="unreachable"),
    Visit("dispatcher.commit_position.before_commit"),
    Visit("dispatcher.commit_position.before_reply"),
    Visit("dispatcher.rule_step.before_commit"),
    Visit("dispatcher.rule_step.before_reply"),
    Visit("dispatcher.close_client.before_commit"),
    Visit("dispatcher.close_client.before_reply"),
)
WORKER = (
    Visit("worker.register.before_send"),
    Visit("worker.register.after_reply"),
    Visit("worker.sync.before_send", 6),
    Visit("worker.sync.after_reply", 6),
    Visit("worker.dataset.before_fetch"),
    Visit("worker.dataset.after_fetch"),
    Visit("worker.attempt.before_start", 2),
    Visit("worker.piece.before_put", 2),
    Visit("worker.attempt.before_end"),
    Visit("worker.stream.before_welcome"),
    Visit("worker.stream.before_send", 2),
    Visit("worker.stream.after_send", 2),
    Visit("worker.leave.before_send", during="leave"),
    Visit("worker.leave.after_reply", during="leave"),
)
#: Visited one after the other by the same worker, in one epoch.
CHECKPOINTS = (
    Visit("worker.checkpoint.before_write", 2),
    Visit("worker.checkpoint.after_write", 2),
    Visit("worker.restore.before_read"),
    Visit("worker.checkpoint.before_rename", 2),
    Visit("worker.checkpoint.after_rename", 2),
    Visit("worker.restore.after_restore"),
    Visit("worker.checkpoint.before_remove"),
)
#: Visited by a process that has nothing but a cache (tests/unit/worker/test_segments_killed.py).
CACHE = (
    Visit("worker.put.after_append", 2),
    Visit("worker.put.before_commit"),
    Visit("worker.put.after_rename"),
    Visit("worker.get.before_read"),
)
CLIENT = (
    Visit("client.put_dataset.before_send", during="fresh"),
    Visit("client.put_dataset.after_reply", during="fresh"),
    Visit("client.open_job.before_send"),
    Visit("client.announce.after_reply"),
    Visit("client.open_job.after_reply"),
    Visit("client.sync.before_send", 3),
    Visit("client.sync.after_reply", 3),
    Visit("client.stream.before_hello"),
    Visit("client.fetch.before_send", 3),
    Visit("client.chunk.after_receive", 5),
    Visit("client.ledger.before_write", 6),
    Visit("client.ledger.after_write", 6),
    Visit("client.commit.before_send"),
    Visit("client.commit.after_reply"),
    Visit("client.epoch.before_finish"),
    Visit("client.epoch.after_acknowledged"),
    Visit("client.ledger.before_fsync"),
    Visit("client.ledger.after_fsync"),
    Visit("client.close.before_send"),
)
ALL = (*JOURNAL, *DISPATCHER, *WORKER, *CHECKPOINTS, *CACHE, *CLIENT)


def names_in(source: str) -> list[str]:
    """The names of the failpoints in a module's source.

    Raises:
        ValueError: one has no literal name, or `failpoint` goes by another name there.
    """
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("failpoints"):
            renamed = [alias.asname for alias in node.names if alias.asname]
            if renamed:
                raise ValueError(f"line {node.lineno}: failpoint must not be called {renamed[0]}")
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == "failpoint":
            argument = node.args[0] if len(node.args) == 1 else None
            if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                raise ValueError(f"line {node.lineno}: the name of a failpoint must be a literal")
            found.append(argument.value)
    return found


def names_in_source() -> set[str]:
    """The names of all failpoints."""
    paths = [*ROOT.glob("*.py"), *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))]
    return {name for path in paths for name in names_in(path.read_text())}

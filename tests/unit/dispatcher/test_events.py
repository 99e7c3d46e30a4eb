"""The journal's vocabulary: encodings that must never change, strict decoding."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.dispatcher import event_records
from penstock.dispatcher import events as ev
from penstock.errors import JournalCorruptError

#: One event of each kind with its record. Journals in the field hold these: add, never change.
GOLDEN: dict[str, tuple[ev.Event, list[Any]]] = {
    "TermStarted": (ev.TermStarted(3), [3]),
    "DatasetRegistered": (
        ev.DatasetRegistered("00ff", 2, (1, 5), True, b"\x90", 1 << 40),
        ["00ff", 2, [1, 5], True, b"\x90", 1 << 40],
    ),
    "JobOpened": (
        ev.JobOpened("j1", "träin", ("00ff",), (1 << 64) - 1, 16, 8, False, 3),
        ["j1", "träin", ["00ff"], (1 << 64) - 1, 16, 8, False, 3],
    ),
    "ClientJoined": (ev.ClientJoined("j1", "c"), ["j1", "c"]),
    "ClientLeft": (ev.ClientLeft("j1", "silent"), ["j1", "silent"]),
    "JobFailed": (ev.JobFailed("j1", "why"), ["j1", "why"]),
    "JobClosed": (ev.JobClosed("j1", "done"), ["j1", "done"]),
    "EpochStarted": (ev.EpochStarted("j1", 0, 4), ["j1", 0, 4]),
    "EpochFinished": (ev.EpochFinished("j1", 0, 4, 9, 8, 7), ["j1", 0, 4, 9, 8, 7]),
    "EpochAbandoned": (ev.EpochAbandoned("j1", 0, 4), ["j1", 0, 4]),
    "WorkerRegistered": (
        ev.WorkerRegistered("w1", "i", "h:1", "/s", "host", 4, True, "2.21", 99),
        ["w1", "i", "h:1", "/s", "host", 4, True, "2.21", 99],
    ),
    "WorkerLost": (ev.WorkerLost("w1", "silent"), ["w1", "silent"]),
    "WorkerPromoted": (ev.WorkerPromoted("w1", "w2"), ["w1", "w2"]),
    "AttemptAssigned": (
        ev.AttemptAssigned(12, "j1", 0, 4, 77, "w1", 1),
        [12, "j1", 0, 4, 77, "w1", 1],
    ),
    "AttemptFailed": (ev.AttemptFailed(12, "PIPELINE", "boom"), [12, "PIPELINE", "boom"]),
    "AttemptDropped": (ev.AttemptDropped(12, "GONE"), [12, "GONE"]),
    "SplitDelivered": (
        ev.SplitDelivered("j1", 0, 4, 77, 10, 11, 12),
        ["j1", 0, 4, 77, 10, 11, 12],
    ),
    "DatasetCacheable": (ev.DatasetCacheable("00ff", "aa"), ["00ff", "aa"]),
    "JobCaching": (ev.JobCaching("j1", "auto"), ["j1", "auto"]),
    "StoreAttached": (ev.StoreAttached("w1", "s1", 1 << 40), ["w1", "s1", 1 << 40]),
    "SplitsCached": (ev.SplitsCached("s1", "aa", (3, 5)), ["s1", "aa", [3, 5]]),
    "SplitsUncached": (ev.SplitsUncached("s1", "aa", (5,)), ["s1", "aa", [5]]),
    "CacheDecided": (
        ev.CacheDecided("aa", True, "pays", 3, 30, 300, 9, 8, 7, 1 << 40),
        ["aa", True, "pays", 3, 30, 300, 9, 8, 7, 1 << 40],
    ),
    "PositionCommitted": (
        ev.PositionCommitted("j1", 2, 4, 100, "penstock.1.x"),
        ["j1", 2, 4, 100, "penstock.1.x"],
    ),
    "JobRewound": (ev.JobRewound("j1", (4, 0)), ["j1", [4, 0]]),
    "FaultRaised": (
        ev.FaultRaised(
            *("exception", "j1", "w1", "i", "h:1", 12, 0, 4, 77, 2, 9, True, "PIPELINE", "boom"),
            *("00ff", ("A: b", "C: d"), 137, "SIGKILL"),
        ),
        [
            *("exception", "j1", "w1", "i", "h:1", 12, 0, 4, 77, 2, 9, True, "PIPELINE", "boom"),
            *("00ff", ["A: b", "C: d"], 137, "SIGKILL"),
        ],
    ),
    "DeathExplained": (ev.DeathExplained("i", 137, "SIGKILL"), ["i", 137, "SIGKILL"]),
    "FailoverDecided": (
        ev.FailoverDecided(7, "NODE_FAILOVER", "", "m::C", "why", "DiskFull"),
        [7, "NODE_FAILOVER", "", "m::C", "why", "DiskFull"],
    ),
    "WorkerReadmitted": (ev.WorkerReadmitted("w1"), ["w1"]),
    "JobFailoverSet": (ev.JobFailoverSet("j1", "m::C"), ["j1", "m::C"]),
    "JobPolicySet": (ev.JobPolicySet("j1", "skip", 9), ["j1", "skip", 9]),
    "ElementSkipped": (
        ev.ElementSkipped("j1", 0, 4, 77, 3, "w1", "boom", 7),
        ["j1", 0, 4, 77, 3, "w1", "boom", 7],
    ),
    "ElementRetried": (ev.ElementRetried("j1", 0, 4, 77, 3), ["j1", 0, 4, 77, 3]),
    "WorkerLimited": (ev.WorkerLimited("w1", "1 death"), ["w1", "1 death"]),
    "SplitKilled": (
        ev.SplitKilled("j1", 0, 4, 77, "w2", 3, True),
        ["j1", 0, 4, 77, "w2", 3, True],
    ),
    "ProbeStarted": (
        ev.ProbeStarted(7, "w1", "j1", 0, 4, 77, 78, 10, 11, 12),
        [7, "w1", "j1", 0, 4, 77, 78, 10, 11, 12],
    ),
    "ProbeEnded": (ev.ProbeEnded(7, "w1", "failed", "boom"), [7, "w1", "failed", "boom"]),
    "CrossChecked": (
        ev.CrossChecked(7, "w1", "worker", "boom"),
        [7, "w1", "worker", "boom"],
    ),
    "EpochResumed": (
        ev.EpochResumed("j1", 0, 4, b"\x05", 10, 11),
        ["j1", 0, 4, b"\x05", 10, 11],
    ),
    "GroupFormed": (
        ev.GroupFormed("train", 2, 3, ("00ff",), 7, 16, 8, False, "penstock-group.1.x"),
        ["train", 2, 3, ["00ff"], 7, 16, 8, False, "penstock-group.1.x"],
    ),
    "ConsumerSeated": (ev.ConsumerSeated("j1", "train", 2), ["j1", "train", 2]),
    "StepRuled": (
        ev.StepRuled("run-7", 50, 1, "skip", 3, "00ff"),
        ["run-7", 50, 1, "skip", 3, "00ff"],
    ),
}


def test_there_is_a_golden_record_of_every_kind() -> None:
    assert set(GOLDEN) == {kind.__name__ for kind in typing.get_args(ev.Event)}


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_golden_records(kind: str) -> None:
    event, fields = GOLDEN[kind]
    record = msgpack.packb([kind, 2 if kind in ("FaultRaised", "WorkerPromoted") else 1, *fields])
    assert event_records.encode(event) == record
    assert event_records.decode(record) == event
    assert event_records.as_dict(event)["kind"] == kind


def test_records_of_version_1_are_read() -> None:
    assert event_records.decode(msgpack.packb(["WorkerPromoted", 1, "w1"])) == (
        ev.WorkerPromoted("w1")
    )
    event, fields = GOLDEN["FaultRaised"]
    old = event_records.decode(msgpack.packb(["FaultRaised", 1, *fields[:15]]))
    assert old == dataclasses.replace(event, exceptions=(), exit_code=0, signal="")
    with pytest.raises(JournalCorruptError, match="not 15"):
        event_records.decode(msgpack.packb(["FaultRaised", 1, *fields]))


_BY_ANNOTATION = {
    "int": st.integers(0, (1 << 64) - 1),
    "str": st.text(max_size=20),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=20),
    "tuple[int, ...]": st.lists(st.integers(0, (1 << 64) - 1), max_size=4).map(tuple),
    "tuple[str, ...]": st.lists(st.text(max_size=5), max_size=4).map(tuple),
}


def any_event() -> st.SearchStrategy[ev.Event]:
    """Events with any content that their fields' types allow."""
    kinds = typing.get_args(ev.Event)
    return st.one_of(
        *(
            st.builds(kind, *(_BY_ANNOTATION[type_] for _, type_ in event_records.fields(kind)))
            for kind in kinds
        )
    )


@given(any_event())
def test_every_event_comes_back_from_its_record(event: ev.Event) -> None:
    assert event_records.decode(event_records.encode(event)) == event


@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_or_corruption(record: bytes) -> None:
    try:
        event = event_records.decode(record)
    except JournalCorruptError:
        return
    assert event_records.decode(event_records.encode(event)) == event


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "not a list"),
        ([], "not a list"),
        (["Nonsense", 1], "'Nonsense'"),
        (["TermStarted", 2, 1], "version 2"),
        (["TermStarted", 1], "0 fields, not 1"),
        (["TermStarted", 1, 1, 1], "2 fields, not 1"),
        (["TermStarted", 1, -1], "term of a TermStarted"),
        (["TermStarted", 1, True], "unsigned"),
        (["TermStarted", 1, "1"], "unsigned"),
        (["EpochStarted", 1, "j1", 0, -1], "epoch of a EpochStarted record is not an unsigned"),
        (["EpochStarted", 1, "j1", False, 1], "stream of a EpochStarted record is not an uns"),
        (["AttemptAssigned", 1, 1, "j1", 0, 0, 0, "w1"], "6 fields, not 7"),
        (["AttemptAssigned", 1, 1, "j1", 0, -1, 0, "w1", 1], "epoch of a AttemptAssigned"),
        (["SplitDelivered", 1, "j1", 0, True, 0, 0, 0, 0], "epoch of a SplitDelivered"),
        (["SplitDelivered", 1, "j1", 0, 0, 0, 0, 0, -1], "chain of a SplitDelivered"),
        (["SplitDelivered", 2, "j1", 0, 0, 0, 0, 0, 0], "version 2"),
        (["JobRewound", 1, "j1", [0, -1]], "a list of unsigned"),
        (["JobRewound", 1, "j1", {}], "a list of unsigned"),
        ([["TermStarted"], 1, 1], "not a list"),
        ([{}, 1, 1], "not a list"),
        (["WorkerLost", 1, "w1", b"why"], "reason of a WorkerLost record is not a string"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(parts: object, text: str) -> None:
    with pytest.raises(JournalCorruptError, match=text):
        event_records.decode(msgpack.packb(parts))

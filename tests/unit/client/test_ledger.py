"""Ledgers and their audit: faithful ones pass, every kind of damage is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from penstock.client.audit import AuditReport, audit
from penstock.client.events import Piece
from penstock.client.ledger import Ledger, read_records
from penstock.client.reader import Reader
from penstock.errors import UsageError, VerificationError
from penstock.proto.chunk import Chunk
from penstock.proto.hashing import Digest, DigestBuilder

PER_SPLIT = 10
COUNTS = {0: PER_SPLIT, 1: PER_SPLIT, 2: 0}


def piece(split: int, start: int, stop: int, *, add: int = 0) -> Piece:
    values = np.arange(split * 100 + start, split * 100 + stop) + add
    return Piece(split, Chunk.from_stacked(start, [values]))


WHOLE = (piece(0, 0, 4), piece(1, 0, 10), piece(0, 4, 10))


def digest_of(pieces: tuple[Piece, ...]) -> Digest:
    builder = DigestBuilder()
    for item in pieces:
        builder.update(item.chunk.hashes)
    return builder.digest()


def write(
    directory: Path,
    pieces: tuple[Piece, ...],
    *,
    counts: dict[int, int] | None = COUNTS,
    digest: Digest | None = None,
    client: str = "c1",
    close: bool = True,
) -> Path:
    """Writes one epoch; `counts=None` for one that did not end."""
    ledger = Ledger(directory, job="j1", client=client, seed=3, streams=["f"])
    ledger.record(0, 0, pieces[:2])
    ledger.record(0, 0, pieces[2:])
    if counts is not None:
        ledger.finish(0, 0, digest or digest_of(pieces), counts)
    if close:
        ledger.close()
    else:
        ledger._file.close()
    return directory / f"j1-{client}.ledger"


def found(report: AuditReport) -> tuple[int, int, int, int]:
    return report.lost, report.duplicated, report.unexpected, report.altered


def test_a_faithful_ledger_is_clean(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    report = audit(tmp_path, digest_of(WHOLE))
    assert report.clean
    (visit,) = report.visits
    assert visit.finished
    assert (visit.elements, visit.digest) == (20, digest_of(WHOLE))


@pytest.mark.parametrize(
    ("pieces", "result"),
    [
        (WHOLE[:2], (6, 0, 0, 0)),
        ((piece(0, 0, 4), piece(1, 0, 10), piece(0, 5, 10)), (1, 0, 0, 0)),
        (WHOLE[:1], (16, 0, 0, 0)),
        ((*WHOLE, piece(1, 3, 5)), (0, 2, 0, 0)),
        ((*WHOLE, piece(1, 8, 12)), (0, 2, 2, 0)),
        ((*WHOLE, piece(7, 0, 3)), (0, 0, 3, 0)),
        ((*WHOLE, piece(2, 0, 1)), (0, 0, 1, 0)),
    ],
)
def test_what_is_wrong_by_position(
    tmp_path: Path, pieces: tuple[Piece, ...], result: tuple[int, int, int, int]
) -> None:
    write(tmp_path, pieces, digest=digest_of(WHOLE))
    report = audit(tmp_path)
    assert found(report) == result
    assert not report.clean


def test_an_altered_element_shows_in_the_digest_and_by_ground_truth(tmp_path: Path) -> None:
    pieces = (piece(0, 0, 4), piece(1, 0, 10, add=7), piece(0, 4, 10))
    write(tmp_path, pieces, digest=digest_of(WHOLE))
    assert found(audit(tmp_path)) == (0, 0, 0, 1)
    truth = np.concatenate([item.chunk.hashes for item in WHOLE])
    # 100..109 became 107..116: seven values are missing, and seven others came.
    assert found(audit(tmp_path, truth)) == (0, 0, 0, 7)
    assert found(audit(tmp_path, digest_of(WHOLE))) == (0, 0, 0, 1)


def test_ground_truth_tells_what_the_clients_own_word_cannot(tmp_path: Path) -> None:
    pieces = WHOLE[:2]
    write(tmp_path, pieces, counts={0: 4, 1: 10, 2: 0})
    assert audit(tmp_path).clean
    assert found(audit(tmp_path, digest_of(WHOLE))) == (6, 0, 0, 0)
    truth = np.concatenate([item.chunk.hashes for item in WHOLE])
    assert found(audit(tmp_path, truth)) == (6, 0, 0, 0)
    assert (
        found(audit(tmp_path, truth[:10])) == (4, 0, 8, 0) or not audit(tmp_path, truth[:10]).clean
    )


def test_an_unfinished_epoch_may_end_anywhere_but_has_no_gap(tmp_path: Path) -> None:
    write(tmp_path, WHOLE[:1], counts=None)
    report = audit(tmp_path)
    assert report.clean
    assert not report.visits[0].finished
    write(tmp_path, (piece(0, 0, 2), piece(0, 3, 4)), counts=None, client="c2")
    assert found(audit(tmp_path)) == (1, 0, 0, 0)


def test_half_a_record_at_the_end_is_a_crash_and_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE, counts=None, close=False)
    content = path.read_bytes()
    for cut in range(1, 60):
        path.write_bytes(content[:-cut])
        assert audit(tmp_path).clean


def test_any_flipped_bit_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    content = path.read_bytes()
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        report = audit(tmp_path)
        assert not report.clean, at
        assert str(path) in report.damaged[0]


def test_a_directory_without_a_ledger_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ledger"):
        audit(tmp_path)
    with pytest.raises(UsageError, match="no ledger"):
        audit(tmp_path / "nowhere")


def test_a_ledger_that_cannot_be_written_is_bad_usage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="ledger"):
        Ledger(tmp_path / "file", job="j", client="c", seed=0, streams=[])


def test_the_record_at_fault_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    records = list(read_records(path))
    assert [record["kind"] for record in records] == ["open", "run", "run", "end", "close"]
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerificationError, match="byte 0"):
        list(read_records(path))


def test_a_client_writes_what_the_audit_accepts(
    tmp_path: Path, make_workers, make_dispatcher, timing
) -> None:
    dispatcher = make_dispatcher(make_workers(2))
    dispatcher.register("f" * 8, 6)
    options = {"ledger": tmp_path / "new" / "ledger", "timing": timing}
    with Reader("f" * 8, dispatcher.address, **options) as reader:
        assert len(list(reader)) == 600
        next(iter(reader))
        assert len(list(reader)) == 600
    truth = np.concatenate(
        [Chunk.from_stacked(0, [np.arange(600)]).hashes],
    )
    report = audit(tmp_path / "new" / "ledger", truth)
    assert report.clean
    assert [visit.finished for visit in report.visits] == [True, False, True]
    assert report.visits[0].digest == reader.digests[0]


def run(*arguments: str) -> tuple[int, str]:
    import typer

    from penstock.cli.audit import audit_command

    app = typer.Typer()
    app.command()(audit_command)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_the_command_prints_a_table_or_json_and_exits_with_5_if_anything_is_wrong(
    tmp_path: Path,
) -> None:
    write(tmp_path, WHOLE)
    code, output = run(str(tmp_path))
    assert code == 0
    assert "every element exactly once" in output
    code, output = run(str(tmp_path), "--json", "--expected", str(digest_of(WHOLE)))
    assert code == 0
    document = json.loads(output)
    assert document["clean"]
    assert document["visits"][0]["digest"] == str(digest_of(WHOLE))
    code, output = run(str(tmp_path), "--json", "--expected", str(digest_of(WHOLE[:1])))
    assert code == 5
    assert json.loads(output)["unexpected"] == 16
    write(tmp_path, WHOLE[:1], client="c2")
    code, output = run(str(tmp_path))
    assert code == 5
    assert "NOT exact" in output


def test_an_epoch_that_was_resumed_lacks_nothing_but_what_the_former_life_had(
    tmp_path: Path,
) -> None:
    whole = Chunk.from_stacked(0, [np.arange(10)])
    former = DigestBuilder()
    former.update(whole.slice(0, 4).hashes)
    ledger = Ledger(tmp_path, job="j1", client="later", seed=1, streams=["f"])
    ledger.resume(0, 3, former.digest(), {7: 4})
    builder = DigestBuilder.after(former.digest())
    builder.update(whole.slice(4, 10).hashes)
    ledger.record(0, 3, [Piece(7, whole.slice(4, 10))])
    ledger.finish(0, 3, builder.digest(), {7: 10})
    ledger.close()
    for truth in (None, whole.hashes):
        report = audit(tmp_path, truth)
        assert report.clean, report
        assert report.visits[0].elements == 6
    short = Ledger(tmp_path, job="j1", client="short", seed=1, streams=["f"])
    short.resume(0, 3, former.digest(), {7: 4})
    short.record(0, 3, [Piece(7, whole.slice(5, 10))])
    short.finish(0, 3, builder.digest(), {7: 10})
    short.close()
    assert audit(tmp_path).lost == 1


def test_what_the_trainer_skipped_is_told_and_is_no_loss(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE, close=False)
    ledger = Ledger(tmp_path, job="j1", client="c2", seed=3, streams=["f"])
    ledger.skip(4, 48, 16, "ValueError: NaN")
    ledger.close()
    report = audit(tmp_path)
    assert report.clean
    (skip,) = report.skips
    assert (skip.epoch, skip.first, skip.count, skip.why) == (4, 48, 16, "ValueError: NaN")
    assert skip.file == "j1-c2.ledger" != path.name
    _, printed = run(str(tmp_path))
    assert "epoch 4, elements 48 to 63: ValueError: NaN" in printed.replace("\n", " ")

"""From lines to a verdict: episodes, cascades, progress, damage, size."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from penstock.recovery.diagnosis import Category, diagnose
from penstock.recovery.diagnosis.entry import builtin_rules, diagnose_logs
from penstock.recovery.diagnosis.evaluate import by_reason, evaluate
from penstock.recovery.diagnosis.scanner import Scanner, lines_of
from penstock.recovery.diagnosis.screen import screen_of

HERE = Path(__file__).parent
TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 7, in main
    raise KeyError("CUDA out of memory")  # what a source line holds is no error
{}"""
TIMEOUT = (
    "[rank0]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1) ran for"
    " 600021 milliseconds before timing out."
)


def test_every_log_of_the_corpus_is_diagnosed() -> None:
    answers = evaluate(HERE / "corpus")
    assert len(answers) >= 60
    assert [one.path.name for one in answers if not one.right] == []


def test_accuracy_by_reason_on_logs_that_the_rules_were_not_written_on() -> None:
    answers = evaluate(HERE / "heldout")
    right = sum(one.right for one in answers)
    table = by_reason(answers)
    print(f"held out: {right} of {len(answers)}", table)
    assert right / len(answers) >= 0.9, table


def test_nothing_is_said_of_a_log_without_trouble() -> None:
    lines = [f"step {n} loss 0.5 error_rate=0 failures: 0" for n in range(100)]
    found = diagnose(lines)
    assert (found.root_cause, found.source, found.confidence) == ("Unknown", "none", 0.0)
    assert diagnose([]).source == "none"


def test_the_earliest_root_wins_over_its_cascades() -> None:
    oom = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    found = diagnose([TRACEBACK.format(oom), TIMEOUT, "Killed"])
    assert found.root_cause == "OutOfMemoryError"
    assert found.evidence[0] == oom
    assert set(found.contributing) == {"NCCLTimeoutError", "ProcessKilled"}


def test_a_root_that_is_logged_after_its_cascade_still_wins() -> None:
    assert diagnose([TIMEOUT, "KeyError: 'x'"]).root_cause == "KeyError"


def test_hardware_explains_what_was_logged_before_it() -> None:
    found = diagnose(
        [
            "RuntimeError: CUDA error: unspecified launch failure",
            "kernel: NVRM: Xid (PCI:0000:3b:00): 48, pid=1, DBE",
        ]
    )
    assert (found.root_cause, found.entity) == ("ECCError", "device:0000:3b:00")


def test_what_was_survived_does_not_count() -> None:
    lines = ["ConnectionResetError: [Errno 104] Connection reset by peer"]
    lines += [f"step {n} loss 0.5" for n in range(50)]
    assert diagnose([*lines, "IndexError: list index out of range"]).root_cause == "IndexError"
    assert diagnose(lines).confidence < 0.3


def test_a_warning_does_not_win_over_an_error() -> None:
    lines = ["WARNING Connection refused, retrying in 1 s", "ValueError: bad"]
    assert diagnose(lines).root_cause == "ValueError"


def test_news_do_not_win_over_an_error() -> None:
    for news in (
        "2026-11-25 03:30:11.000121: I tensorflow/core/x.cc:405] status: OUT_OF_RANGE: End",
        "I1125 03:30:11.117 rendezvous.cc:88] Connection refused",
        "2026-11-25 03:30:11 INFO agent: Connection refused",
        '{"level": "info", "msg": "Connection refused"}',
    ):
        assert diagnose([news, "ValueError: bad"]).root_cause == "ValueError", news
    hint = "RuntimeError: CUDA error: bad launch (run with NCCL_DEBUG=INFO for details)"
    assert diagnose([hint, "ValueError: bad"]).root_cause == "CUDAError"


def test_an_exception_that_no_rule_knows_is_told_by_what_its_name_says() -> None:
    for name, root_cause in (
        ("acme.PeerUnreachableError", "ConnectionError"),
        ("acme.BlobReadError", "S3StorageError"),
        ("acme.ForbiddenException", "PermissionError"),
        ("acme.BadConfigError", "ConfigError"),
        ("acme.ChecksumMismatchError", "CorruptRecord"),
        ("acme.StrangeError", "UnhandledException"),
    ):
        assert diagnose(["Traceback (most recent call last):", f"{name}: x"]).root_cause == (
            root_cause
        )


def test_source_lines_in_a_traceback_are_no_errors() -> None:
    assert diagnose([TRACEBACK.format("TypeError: x")]).root_cause == "TypeError"


def test_tracebacks_of_ranks_that_write_in_turns_are_told_apart() -> None:
    one = [f"[rank1]: {line}" for line in TRACEBACK.format("ValueError: one").split("\n")]
    two = [f"[rank2]: {line}" for line in TRACEBACK.format("TypeError: two").split("\n")]
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    found = diagnose(mixed)
    assert found.root_cause == "ValueError"
    assert found.contributing == ("TypeError",)


def test_of_chained_exceptions_the_specific_one_speaks() -> None:
    lines = [
        TRACEBACK.format("KeyError: 'x'"),
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        TRACEBACK.format("OSError: [Errno 28] No space left on device"),
    ]
    assert diagnose(lines).root_cause == "DiskFull"


def test_the_earliest_of_several_logs_is_found_by_time() -> None:
    late = b"2026-03-02 04:00:09 ERROR IndexError: x\n"
    early = b"2026-03-02 04:00:03 ERROR Connection refused\n"
    assert diagnose_logs([[late], [early]]).root_cause == "ConnectionError"
    assert diagnose_logs([[early], [late]]).root_cause == "ConnectionError"


def test_categories_are_those_of_the_rules() -> None:
    assert diagnose(["KeyError: 'x'"]).category is Category.SCRIPT


def test_blocks_may_end_anywhere() -> None:
    log = (TRACEBACK.format("KeyError: 'x'") + "\n" + TIMEOUT + "\n").encode()
    for size in (1, 7, 64):
        blocks = [log[i : i + size] for i in range(0, len(log), size)]
        assert diagnose_logs([blocks]).root_cause == "KeyError"


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_break_it(blocks: list[bytes]) -> None:
    assert 0 <= diagnose_logs([blocks]).confidence <= 1


@given(st.lists(st.text(max_size=100), max_size=20))
def test_no_text_breaks_it(lines: list[str]) -> None:
    assert diagnose(lines).strategy is not None


def test_no_rule_that_matches_a_line_is_passed_over() -> None:
    rules = builtin_rules()
    screen = screen_of(rules)
    for line in (example for rule in rules for example in (*rule.positive, *rule.negative)):
        low = line.lower()
        tried = {rule.id for rule in screen.candidates(screen.hits(low), low)}
        for rule in rules:
            assert rule.id in tried or not rule.pattern.compiled.search(line), (rule.id, line)


def test_what_differs_from_routine_in_digits_or_ids_is_still_seen() -> None:
    errno = "OSError: [Errno {}] {}"
    lines = [errno.format(n, "No space left on device") for n in (5, 7, 28)]
    assert diagnose(lines).root_cause == "DiskFull"
    scanner = Scanner(builtin_rules())
    scanner.feed([b"request 4f1a%04x of a worker" % n for n in range(5000)])
    scanner.feed([b"torch.OutOfMemoryError: CUDA out of memory in 4f1a%04x" % 7])
    assert scanner.findings[0].rule.reason == "OutOfMemoryError"


def test_colours_do_not_hide_an_error() -> None:
    assert diagnose(["\x1b[31mKey\x1b[1mError\x1b[0m: 'x'"]).root_cause == "KeyError"


def test_what_looks_like_trouble_all_the_time_is_no_evidence_of_it() -> None:
    lines = [f"query {n}: failed: 0, errors: 0" for n in range(500)]
    lines.insert(100, "the flux capacitor failed")
    assert "the flux capacitor failed" in diagnose(lines).evidence


def test_the_time_of_a_finding_is_that_of_the_last_line_that_shows_one() -> None:
    scanner = Scanner(builtin_rules())
    timed = [b"2026-03-02 04:00:0%d worker failed" % n for n in range(3)]
    scanner.feed([*timed, b"worker failed again", b"KeyError: 'x'"])
    assert {one.when for one in scanner.findings} == {"03-02 04:00:02.000000000"}


def test_memory_is_bounded_whatever_the_log_is() -> None:
    def blocks() -> object:
        for n in range(40):
            yield b"x" * 100_000  # one line without an end
            yield b"\n" + b"\n".join(b"KeyError: '%d-%d'" % (n, k) for k in range(200)) + b"\n"
            yield b"Traceback (most recent call last):\n" * 100

    scanner = Scanner(builtin_rules())
    tracemalloc.start()
    for lines in lines_of(blocks()):  # type: ignore[arg-type]
        scanner.feed(lines)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20
    assert len(scanner.findings) < 200
    huge = lines_of([b"a" * (1 << 20)] * 8)
    assert max(len(line) for lines in huge for line in lines) < 3 << 20

"""Templates of lines; filters that are learned, and wait for a yes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.errors import UsageError
from penstock.recovery.diagnosis import diagnose
from penstock.recovery.diagnosis.documents import write_json
from penstock.recovery.diagnosis.entry import builtin_rules
from penstock.recovery.diagnosis.filters import load_filters
from penstock.recovery.diagnosis.pending import SCHEMA, VERSION, accept_pending
from penstock.recovery.diagnosis.rules import parse_rule, to_document
from penstock.recovery.diagnosis.templates import GROUPS_MAX, Miner
from penstock.recovery.fingerprints import fingerprint, mask


def test_lines_that_differ_in_values_are_one_template() -> None:
    miner = Miner()
    for n in range(50):
        miner.add(f"probe {n} of 10.0.0.{n}:50 at /data/{n}/x took 0.{n} s, id {n:032x}")
        miner.add(f"reader of {'abc'[n % 3]} is ready now")
    texts = [one.text for one in miner.templates()]
    assert len(texts) == 2
    assert "reader of <*> is ready now" in texts


def test_a_mask_names_kinds() -> None:
    assert (
        mask("at 2026-01-02 03:04:05,6 from 10.0.0.1:80 /a/b 7") == "at <time> from <ip> <path> <n>"
    )
    assert mask("x1 x10 w-107 x1.52") == "x<n> x<n> w-<n> x<n>.<n>"
    assert fingerprint("step 1 of 9") == fingerprint("step 2 of 17") != fingerprint("steps")


@given(st.lists(st.text(max_size=60), max_size=40))
def test_any_text_has_a_template(lines: list[str]) -> None:
    miner = Miner()
    for line in lines:
        assert miner.add(line).count >= 1


def test_the_number_of_templates_is_bounded() -> None:
    miner = Miner()
    for n in range(2 * GROUPS_MAX):
        miner.add("".join(chr(97 + int(digit)) for digit in str(n)) + " x")
    assert len(miner.templates()) <= GROUPS_MAX


def test_what_is_learned_is_used_after_a_yes_only(tmp_path: Path) -> None:
    log = tmp_path / "good.log"
    good = [f"probe {n}: Connection refused by cache {n}, as expected" for n in range(9)]
    # Of the second kind a filter would hide errors: it is not learned.
    log.write_text("\n".join([*good, *["Killed", "Killed", "Killed", "Killed"]]) + "\n")
    pending, filters = tmp_path / "pending.json", tmp_path / "filters.json"
    result = CliRunner().invoke(app, ["diagnose", str(log), "--learn", str(pending)])
    assert result.exit_code == 0, result.output
    assert "1 filters" in result.stdout
    assert not filters.exists()
    accept = ["diagnose", "--accept", str(pending), "--filters", str(filters)]
    assert "1 filters and 0 rules were added" in CliRunner().invoke(app, accept).stdout
    assert "0 filters and 0 rules were added" in CliRunner().invoke(app, accept).stdout
    lines = [good[0], "KeyError: 'x'"]
    assert diagnose(lines).root_cause == "ConnectionError"
    known = load_filters(filters, builtin_rules())
    assert diagnose(lines, filters=known).root_cause == "KeyError"


def test_a_filter_that_would_hide_what_an_own_rule_is_for_is_not_accepted(tmp_path: Path) -> None:
    line = "probe failed: flux capacitor is dry"
    pending, filters, rules = (tmp_path / f"{name}.json" for name in ("p", "filters", "rules"))
    routine = {"id": "dry", "pattern": "flux capacitor is dry", "example": line}
    write_json(pending, {"schema": SCHEMA, "version": VERSION, "filters": [routine], "rules": []})
    rule = {
        "id": "flux", "reason": "FluxError", "pattern": "flux capacitor", "category": "data",
        "recoverable": True, "action": "retry", "mitigation": "Fill it.", "positive": [line],
    }  # fmt: skip
    write_json(rules, to_document([parse_rule(rule, "flux")]))
    with pytest.raises(UsageError, match="it would hide 'probe failed: flux"):
        accept_pending(pending, builtin_rules(), filters=filters, rules=rules)
    assert not filters.exists()

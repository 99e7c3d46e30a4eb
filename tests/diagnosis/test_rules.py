"""Rule and filter files: what is verified when they are loaded; Acme's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock import errors
from penstock.errors import UsageError
from penstock.recovery.diagnosis import diagnose
from penstock.recovery.diagnosis.acme import import_filters, import_rules
from penstock.recovery.diagnosis.entry import builtin_rules
from penstock.recovery.diagnosis.filters import load_filters
from penstock.recovery.diagnosis.rules import load_rules

RULE: dict[str, Any] = {
    "id": "flux",
    "reason": "FluxError",
    "pattern": r"flux capacitor (?P<device>\w+) is dry",
    "role": "root",
    "priority": 60,
    "category": "infrastructure",
    "recoverable": True,
    "action": "replace_worker",
    "mitigation": "Fill it.",
    "entity": "device",
    "positive": ["E flux capacitor f7 is dry"],
    "negative": ["flux capacitor f7 is full"],
    "origin": "operator",
}
ACME_REASONS = [
    "NVLinkError",
    "CUDAError",
    "NodeFailure",
    "ECCError",
    "NetworkError",
    "ConnectionError",
    "S3StorageError",
    "NCCLTimeoutError",
    "NCCLRemoteError",
    "DataloaderKilled",
    "AttributeError",
    "OutOfMemoryError",
    "RuntimeError",
    "AssertionError",
    "ValueError",
    "ZeroDivisionError",
    "ModelLoadingError",
    "DatasetLoadingError",
    "FileNotFound",
    "OSError",
    "TypeError",
    "NameError",
    "PermissionError",
    "ImportError",
    "KeyError",
    "SyntaxError",
    "ArgumentError",
    "CalledProcessError",
    "IndexError",
]


def written(path: Path, rules: list[Any], **changed: Any) -> Path:
    document = {"schema": "penstock.diagnosis.rules", "version": 1, "rules": rules, **changed}
    path.write_text(json.dumps(document))
    return path


def test_a_rule_file_is_read_and_used(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path / "rules.json", [RULE]))
    found = diagnose(["E flux capacitor f9 is dry"], rules=rules)
    assert (found.root_cause, found.entity, found.source) == ("FluxError", "device:f9", "rule:flux")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"positive": ["nothing"]}, "does not match the positive"),
        ({"positive": []}, "positive must hold an example"),
        ({"negative": RULE["positive"]}, "matches the negative"),
        ({"pattern": "(a+)+"}, "may take for ever"),
        ({"role": "king"}, "role must be root, cascade, confirmation"),
        ({"category": "weather"}, "category must be infrastructure"),
        ({"action": "rm -rf"}, "action must be retry"),
        ({"priority": 101}, "priority must be"),
        ({"recoverable": "yes"}, "recoverable must be"),
        ({"entity": "split"}, "no group"),
        ({"exec": "x"}, "unknown fields exec"),
        ({"mitigation": ""}, "mitigation must be"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_name(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_rules(written(tmp_path / "rules.json", [{**RULE, **changed}]))
    assert "flux" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "schema"),
        ('{"schema": "penstock.diagnosis.rules", "version": 2, "rules": []}', "version 2"),
        ('{"schema": "penstock.diagnosis.rules", "version": 1}', 'list "rules"'),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_that_is_no_rule_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_rules(path)


def test_a_pattern_of_whole_tracebacks_is_tried_out_on_long_ones(tmp_path: Path) -> None:
    # A line of a thousand characters takes 20 ms, the lines of a traceback half a minute.
    trace = {**RULE, "pattern": r"x[\s\S]*y[\s\S]*flux", "entity": "", "positive": ["x y flux"]}
    path = tmp_path / "rules.json"
    assert len(load_rules(written(path, [trace]))) == 1
    with pytest.raises(UsageError, match="'flux' is refused: its pattern needs more than 1 s"):
        load_rules(written(path, [{**trace, "scope": "episode"}]))


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two rules are called 'flux'"):
        load_rules(written(tmp_path / "rules.json", [RULE, RULE]))


def test_a_filter_may_hide_no_error(tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    for pattern, example in (("e", "he"), ("CUDA", "CUDA is fine"), (".", "x")):
        one = {"id": "f", "pattern": pattern, "example": example, "origin": "operator"}
        path.write_text(
            json.dumps({"schema": "penstock.diagnosis.filters", "version": 1, "filters": [one]})
        )
        with pytest.raises(UsageError, match="would hide"):
            load_filters(path, builtin_rules())


def test_a_filter_takes_routine_lines_out_of_the_way(tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    one = {"id": "f", "pattern": "^probe: .*expected$", "example": "probe: x expected"}
    path.write_text(
        json.dumps({"schema": "penstock.diagnosis.filters", "version": 1, "filters": [one]})
    )
    lines = ["probe: Connection refused as expected", "KeyError: 'x'"]
    assert diagnose(lines).root_cause == "ConnectionError"
    filters = load_filters(path, builtin_rules())
    assert diagnose(lines, filters=filters).root_cause == "KeyError"


def test_acme_rules_are_imported_and_bad_ones_named() -> None:
    said = {
        "root_cause": "NVLink broke",
        "error_type": "NVLinkError",
        "source": "infrastructure_failure",
        "is_recoverable": True,
        "mitigation": "Cordon the node.",
        "new_rule_regex": None,
    }
    rules, refused = import_rules(
        [
            {"regex": "link [0-9]+ melted", "diagnosis": said},
            {"regex": "(a+)+", "diagnosis": said},
            "nonsense",
        ]
    )
    assert [rule.reason for rule in rules] == ["NVLinkError"]
    assert len(refused) == 2
    found = diagnose(["link 3 melted"], rules=rules)
    assert (found.root_cause, found.strategy.value) == ("NVLinkError", "NODE_FAILOVER")
    filters, refused = import_filters([r"\[METRIC\].*step=\d+", ".+"], builtin_rules())
    assert (len(filters), len(refused)) == (1, 1)


def test_each_of_acmes_reasons_has_a_rule() -> None:
    assert len(ACME_REASONS) == 29
    assert set(ACME_REASONS) <= {rule.reason for rule in builtin_rules()}


def test_each_error_that_penstock_raises_has_a_rule() -> None:
    names = [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.PenstockError)
    ]
    assert len(names) > 15
    for name in names:
        found = diagnose(["Traceback (most recent call last):", f"penstock.errors.{name}: why"])
        assert found.source.startswith("rule:penstock_"), name


@pytest.mark.parametrize("framework", ["grpc", "tf"])
def test_each_status_of_grpc_and_tensorflow_has_a_rule(framework: str) -> None:
    codes = [
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ]
    for code in codes:
        kind = "".join(part.title() for part in code.split("_"))
        line = (
            f"status = StatusCode.{code}"
            if framework == "grpc"
            else f"tensorflow.python.framework.errors_impl.{kind}Error: it failed"
        )
        assert diagnose([line]).source == f"rule:{framework}_{code.lower()}"

"""The report of an incident: what a person needs to decide, as JSON and as text.

It holds the error with what it came from, the frames with the values of their variables, the step,
its batch, where the data is, what was tried, what can be done and why not, a diagnosis by rules,
and suggestions. Values are summarised and secrets masked (`values`), everything is bounded.
"""

from __future__ import annotations

import linecache
import os
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from .decisions import why_not
from .diagnosis.entry import diagnose
from .masking import mask_secrets
from .policy import Action
from .tracebacks import chain_of, frames_of, message_of, shortened, summary_of, type_name
from .values import named, not_numbers, of_batch

if TYPE_CHECKING:
    from types import FrameType

    from .diagnosis.result import Diagnosis
    from .guard import Scene

VERSION = 1
#: What an operator may answer, in the order in which it is offered.
ANSWERS = (Action.RETRY, Action.SKIP, Action.REWIND, Action.RESTART, Action.ABORT)
_FRAMES_MAX = 16
_VALUES_MAX = 24
_CHAIN_MAX = 8
_HISTORY_MAX = 20
_MESSAGE_CHARS_MAX = 4000
_TEXT_CHARS_MAX = 2000


def report_of(error: BaseException, scene: Scene, settable: dict[str, str]) -> dict[str, Any]:
    """The report, of values that JSON has.

    Args:
        error: what was raised, with its traceback.
        scene: what is known besides.
        settable: what may be set, by name, with its value now.
    """
    fault, policy = scene.fault, scene.policy
    found = _diagnosis(error)
    report: dict[str, Any] = {
        "version": VERSION,
        "at_unix_s": round(time.time(), 3),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "program": mask_secrets(" ".join(sys.argv))[:_TEXT_CHARS_MAX],
        "step": fault.step,
        "attempt": fault.attempt,
        "stage": fault.stage.value,
        "position": scene.position,
        "fingerprint": fault.fingerprint,
        "error": mask_secrets(fault.summary),
        "errors": [_error(one) for one in chain_of(error)[:_CHAIN_MAX]],
        "batch": [] if scene.batch is None else of_batch(scene.batch),
        "history": [
            {"step": past.step, "fingerprint": past.fingerprint, "action": past.action.value}
            for past in scene.history[-_HISTORY_MAX:]
        ],
        "reason": scene.reason,
        "timeout_s": policy.operator_timeout_s,
        "default": policy.operator_default.value,
        "answers": {one.value: why_not(one, fault.stage, scene.means) for one in ANSWERS},
        "settable": settable,
        "diagnosis": _shown(found),
    }
    report["suggestions"] = _suggestions(error, scene, settable, found)
    return report


def least_report_of(scene: Scene, failure: BaseException) -> dict[str, Any]:
    """The report that is left if the whole one cannot be made, and why it cannot."""
    fault = scene.fault
    return {
        "version": VERSION,
        "at_unix_s": round(time.time(), 3),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "program": "",
        "step": fault.step,
        "attempt": fault.attempt,
        "stage": fault.stage.value,
        "position": scene.position,
        "fingerprint": fault.fingerprint,
        "error": mask_secrets(fault.summary),
        "errors": [],
        "batch": [],
        "history": [],
        "reason": f"{scene.reason}; the whole report failed: {summary_of(failure)}",
        "timeout_s": scene.policy.operator_timeout_s,
        "default": scene.policy.operator_default.value,
        "answers": {one.value: why_not(one, fault.stage, scene.means) for one in ANSWERS},
        "settable": {},
        "diagnosis": None,
        "suggestions": [],
    }


def text_of(report: dict[str, Any], identity: str) -> str:
    """The report for people."""
    lines = [
        f"incident {identity}: {report['error']}",
        "",
        f"program      {report['program']} (pid {report['pid']} on {report['host']})",
        f"step         {report['step']}, attempt {report['attempt']} ({report['stage']})",
        f"data         {report['position']}",
        f"decided      {report['reason']}",
    ]
    diagnosis = report["diagnosis"]
    if diagnosis is not None:
        cause = f"{diagnosis['root_cause']} ({diagnosis['category']}, {diagnosis['source']})"
        lines += [f"diagnosis    {cause}", f"             {diagnosis['mitigation']}"]
    lines += _section("batch", report["batch"])
    for number, error in enumerate(report["errors"]):
        lines += ["", f"{'came from' if number else 'error'}: {error['type']}"]
        lines += [f"  | {line}" for line in error["message"].splitlines()]
        for frame in error["frames"]:
            lines.append(f"  {frame['file']}:{frame['line']} in {frame['function']}")
            if frame["source"]:
                lines.append(f"    > {frame['source']}")
            lines += [f"        {name} = {value}" for name, value in frame["values"].items()]
    lines += _section(
        "before", [f"step {past['step']}: {past['action']}" for past in report["history"]]
    )
    lines += _section("settable", [f"{name} = {now}" for name, now in report["settable"].items()])
    lines += _section(
        "answers",
        [
            f"penstock repair {identity} --{answer}" + (f"   not now: {refusal}" if refusal else "")
            for answer, refusal in report["answers"].items()
        ],
    )
    lines += _section("suggestions", report["suggestions"])
    lines += ["", f"without an answer in {report['timeout_s']:g} s: {report['default']}"]
    return "\n".join(lines) + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _error(error: BaseException) -> dict[str, Any]:
    frames = list(frames_of(error.__traceback__))[-_FRAMES_MAX:]
    return {
        "type": type_name(error),
        "message": mask_secrets(shortened(message_of(error), _MESSAGE_CHARS_MAX)),
        "frames": [_frame(frame, line) for frame, line in frames],
    }


def _frame(frame: FrameType, line: int) -> dict[str, Any]:
    code = frame.f_code
    source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    # What the failing line speaks of comes first, if not everything can be shown.
    names = sorted(frame.f_locals, key=lambda name: name not in source)
    shown = [name for name in names if not name.startswith("__")][:_VALUES_MAX]
    return {
        "file": code.co_filename,
        "line": line,
        "function": code.co_name,
        "source": mask_secrets(source)[:_TEXT_CHARS_MAX],
        "values": {name: named(name, frame.f_locals[name]) for name in shown},
    }


def _diagnosis(error: BaseException) -> Diagnosis | None:
    found = diagnose(["".join(traceback.format_exception(error, limit=-_FRAMES_MAX))])
    return found if found.confidence else None


def _shown(found: Diagnosis | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "root_cause": found.root_cause,
        "category": found.category.value,
        "recoverable": found.recoverable,
        "mitigation": found.mitigation,
        "confidence": found.confidence,
        "source": found.source,
    }


def _suggestions(
    error: BaseException, scene: Scene, settable: dict[str, str], found: Diagnosis | None
) -> list[str]:
    """What is likely to help, most likely first; only what can be done."""
    possible = {one for one in ANSWERS if not why_not(one, scene.fault.stage, scene.means)}
    hints = []
    strange = not_numbers(scene.batch) if scene.batch is not None else []
    if strange and Action.SKIP in possible:
        hints.append(f"{', '.join(strange)} has values that are no numbers: --skip leaves it out")
    if isinstance(error, FileNotFoundError) and Action.RETRY in possible:
        missing = f" {error.filename}" if error.filename else ""
        hints.append(f"put the file{missing} in its place, then --retry")
    no_room = isinstance(error, MemoryError) or "out of memory" in scene.fault.summary.lower()
    if no_room and settable and Action.RETRY in possible:
        hints.append(f"make less of it, by --set of {', '.join(settable)}, and --retry")
    if found is not None:
        hints.append(found.mitigation)
    if Action.RETRY not in possible and Action.REWIND in possible:
        hints.append("the step cannot run again as it is: --rewind goes back to the last commit")
    return hints

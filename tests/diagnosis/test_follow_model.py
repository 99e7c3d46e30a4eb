"""A model that is asked about failures of logs that are followed: beside it, and not too often."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from penstock.cli.diagnose_advise import Adviser, Asked
from penstock.recovery.diagnosis.entry import builtin_rules
from penstock.recovery.diagnosis.model import model_of
from penstock.recovery.diagnosis.watch import Told, Watch

from .model_server import answer, completion, serving
from .test_follow import following, next_line

LINE = b"E flux capacitor f7 is dry"
UNKNOWN = b"Traceback (most recent call last):\n  File 'a.py', line 1, in f\nFluxError: %s\n"


def test_a_suggestion_follows_what_was_told(tmp_path: Path) -> None:
    log, pending = tmp_path / "a.log", tmp_path / "pending.json"
    log.write_bytes(LINE + b"\n" + UNKNOWN % b"dry")
    with serving() as serve:
        server = serve(completion(answer()))
        options = ("--model-url", server.url, "--model", "m", "--pending", str(pending))
        with following("--settle", "0.2", *options, str(log)) as process:
            told, suggested = next_line(process), next_line(process)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert told["source"] == "rule:unhandled"
    assert told["suggestion"] is None
    assert (suggested["log"], suggested["line"]) == (told["log"], told["line"])
    suggestion = suggested["suggestion"]
    assert isinstance(suggestion, dict)
    assert (suggestion["root_cause"], suggestion["source"]) == ("FluxError", "model")
    assert process.returncode == 130, errors
    assert len(server.received) == 1


def told_of(*errors: bytes) -> list[Told]:
    """What is told of these failures, one after the other."""
    watch = Watch(1, builtin_rules(), (), settle_s=1.0)
    out = []
    for number, error in enumerate(errors):
        watch.feed(0, [LINE, *(UNKNOWN % error).splitlines()], 100.0 * number)
        out.append(watch.due(100.0 * number + 50))
    return [one for one in out if one is not None]


def test_questions_are_bounded() -> None:
    shown, came = [], threading.Semaphore(0)

    def show(told: Told, suggestion: object) -> None:
        shown.append(told)
        came.release()

    with serving() as serve:
        server = serve(*[completion(answer())] * 3)
        model = model_of(server.url, "m", environment={})
        assert model is not None
        first, again, other = told_of(b"dry", b"dry", b"a wire is loose")
        assert (again.times, other.times) == (2, 1)
        adviser = Adviser(Asked(model, 0.7), builtin_rules(), show, every_s=3600)
        adviser.consider(first, [])
        assert came.acquire(timeout=60)
        adviser.consider(again, [])  # it looks like the first
        assert adviser.left_out == 0
        adviser.consider(other, [])  # it comes too fast
        adviser.close()
        assert (adviser.left_out, len(shown), len(server.received)) == (1, 1, 1)
        quick = Adviser(Asked(model, 0.7), builtin_rules(), show, every_s=0)
        quick.consider(other, [])
        quick.close()
        assert (quick.left_out, shown) == (0, [first, other])
        sure = Adviser(Asked(model, 0.0), builtin_rules(), show, every_s=0)
        sure.consider(first, [])
        sure.close()
        assert len(server.received) == 2

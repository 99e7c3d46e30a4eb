"""`IncidentOperator`: a program waits for a person, who answers by `penstock repair`.

Theory of operation. `ask` makes an incident, tells people of it (a log line and the configured
webhook), serves its control socket until an answer can be carried out or the time is over, and says
what was answered. It needs no terminal. Answers are checked by the core's `why_not`, values that
are to be set against what the program registered; what is refused is said to whoever asked, and the
program waits on. `settled` writes what the answer led to beside the report.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .alerts import Alert, Alerts, url_of
from .decisions import why_not
from .incidents import checked_root, conclude, create
from .operator_socket import ControlSocket
from .patching import Patch, load_patch
from .policy import Action
from .reports import ANSWERS, VERSION, least_report_of, report_of, text_of
from .settable import Change, apply_all, changes, checked_settable, shown
from .tracebacks import summary_of

if TYPE_CHECKING:
    from .guard import Scene

_logger = logging.getLogger("penstock.in_situ")
_SET_MAX = 64
_FLUSH_S = 5.0


class _Pending(threading.local):
    """What a thread has asked, and of which it is not known yet what it led to.

    Attributes:
        directory: of the incident; None if nothing is pending.
        outcome: what was answered.
        patch: what was patched.
        set: the step, and what was set in answers to its faults.
    """

    directory: Path | None = None
    patch: Patch | None = None

    def __init__(self) -> None:
        self.outcome: dict[str, Any] = {}
        self.set: tuple[int, list[Change]] = (-1, [])


class IncidentOperator:
    """Asks a person; see `guard.Operator`.

    Args:
        root: where incidents are made; True for the default place.
        settable: what may be set, by name.
        allow_patch: the operator may replace functions of the program.
        alerts: who is told; by default the log, and the webhook of `PENSTOCK_ALERT_URL`.

    Raises:
        UsageError: an argument is not accepted.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | bool,
        *,
        settable: dict[str, Any] | None = None,
        allow_patch: bool = False,
        alerts: Alerts | None = None,
    ) -> None:
        self._root = checked_root(root)
        self._settable = checked_settable(settable)
        self._alerts = alerts or Alerts(url_of())
        self._pending = _Pending()
        self._socket: ControlSocket | None = None
        if not isinstance(allow_patch, bool):
            raise UsageError(f"allow_patch must be True or False, not {allow_patch!r:.80}")
        self._allow_patch = allow_patch
        self._asking = threading.Lock()
        self._closed = False

    def ask(self, error: BaseException, scene: Scene) -> Action | None:
        """Waits for an answer that can be carried out; None if there was none in time.

        Threads that ask wait for each other.

        Raises:
            OSError: there is no room for an incident.
        """
        with self._asking:
            return None if self._closed else self._ask(error, scene)

    def _ask(self, error: BaseException, scene: Scene) -> Action | None:
        identity, directory = self._incident(error, scene)
        timeout_s = scene.policy.operator_timeout_s
        self._alert(
            f"step {scene.fault.step} failed and waits {timeout_s:g} s for `penstock repair"
            f" {identity}`, then: {scene.policy.operator_default.value}",
            directory,
            needs_operator=True,
        )
        chosen: list[Action] = []

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            try:
                action = self._answered(request, scene, directory)
            except UsageError as refusal:
                _logger.warning("an answer to incident %s was refused: %s", identity, refusal)
                return {"error": str(refusal)}
            except Exception as failure:  # the program's objects may do anything when they are set
                _logger.exception("an answer to incident %s failed", identity)
                return {"error": f"the answer failed: {summary_of(failure)}"}
            chosen.append(action)
            return {"done": True, "action": action.value, "set": request.get("set") or {}}

        began_s = time.monotonic()
        with ControlSocket(directory) as self._socket:
            if not self._closed:  # since the question was begun
                self._socket.serve(answer, began_s + timeout_s)
        self._socket = None
        self._pending.directory = directory
        self._pending.outcome = {
            "action": chosen[0].value if chosen else scene.policy.operator_default.value,
            "by": "operator" if chosen else "default",
            "waited_s": round(time.monotonic() - began_s, 3),
            "patched": list(self._pending.patch.names) if self._pending.patch is not None else [],
        }
        self._conclude(directory)
        return chosen[0] if chosen else None

    def tell(self, error: BaseException, scene: Scene, action: Action) -> None:
        """The training ends because of this: keeps a report, and tells people."""
        if self._pending.directory is None:
            _, self._pending.directory = self._incident(error, scene)
            self._pending.outcome = {"action": action.value, "by": "policy"}
        what = "restarts" if action is Action.RESTART else "ends"
        self._alert(
            f"step {scene.fault.step} failed and the training {what}", self._pending.directory
        )
        self._conclude(self._pending.directory, f"the training {what}")
        self._pending.directory = None
        self._alerts.flush(_FLUSH_S)

    def settled(self, *, succeeded: bool) -> None:
        """What the answer led to; a patch that did not help is taken back."""
        patch, self._pending.patch = self._pending.patch, None
        if patch is not None and not succeeded:
            patch.revert()
            _logger.warning("the patch of %s did not help: reverted", ", ".join(patch.names))
        if self._pending.directory is not None:
            result = "the training went on" if succeeded else "the step failed again"
            self._conclude(self._pending.directory, result)
            self._pending.directory = None

    def repeat(self, step: int) -> None:
        """Sets again what was set in answers to faults of this step: its state was restored.

        Raises:
            UsageError: the program's object refuses it now.
        """
        if self._pending.set[0] == step:
            apply_all(self._pending.set[1])

    def close(self) -> None:
        """Ends a wait, from another thread, as if its time were over; nobody is asked any more."""
        self._closed = True
        socket = self._socket
        if socket is not None:
            socket.wake()

    def _incident(self, error: BaseException, scene: Scene) -> tuple[str, Path]:
        try:
            report = report_of(error, scene, shown(self._settable))
        except Exception as failure:  # values of the program may do anything when looked at
            _logger.exception("the report of step %d cannot be made", scene.fault.step)
            report = least_report_of(scene, failure)
        return create(self._root, report, text_of)

    def _conclude(self, directory: Path, result: str = "") -> None:
        """Writes what became of it; a full disk changes nothing of that."""
        try:
            conclude(directory, {**self._pending.outcome, "result": result})
        except OSError:
            _logger.exception("the outcome of incident %s cannot be written", directory.name)

    def _alert(self, summary: str, directory: Path, *, needs_operator: bool = False) -> None:
        text = f"report in {directory}/report.txt"
        self._alerts.send(Alert(summary, text, needs_operator=needs_operator))

    def _answered(self, request: dict[str, Any], scene: Scene, directory: Path) -> Action:
        """The action that a request asks for; what it sets and patches is set and patched.

        Raises:
            UsageError: it asks for what cannot be.
        """
        unknown = set(request) - {"version", "do", "set", "patch"}
        if unknown or request.get("version") != VERSION:
            raise UsageError(f"not a request of version {VERSION}: {sorted(request)!r:.80}")
        wanted = request.get("set") or {}
        if not isinstance(wanted, dict) or len(wanted) > _SET_MAX:
            raise UsageError(f"set must be an object of at most {_SET_MAX} names")
        try:
            action = Action(request.get("do"))
        except ValueError:
            action = Action.WAIT
        if action not in ANSWERS:
            names = ", ".join(one.value for one in ANSWERS)
            raise UsageError(f"do must be one of {names}, not {request.get('do')!r:.40}")
        refusal = why_not(action, scene.fault.stage, scene.means)
        if refusal:
            raise UsageError(f"no {action.value} now: {refusal}")
        todo = changes(self._settable, wanted)
        self._pending.patch = self._patched(request.get("patch"), directory)
        try:
            apply_all(todo)
        except BaseException:
            if self._pending.patch is not None:
                self._pending.patch.revert()
                self._pending.patch = None
            raise
        step, before = self._pending.set
        self._pending.set = (
            scene.fault.step,
            [*(before if step == scene.fault.step else []), *todo],
        )
        return action

    def _patched(self, path: object, directory: Path) -> Patch | None:
        """The patch of a file, applied; a copy of it is kept with the incident.

        Raises:
            UsageError: it cannot be applied.
        """
        if path is None:
            return None
        if not self._allow_patch:
            raise UsageError("this program takes no patch: it would need allow_patch=True")
        if not isinstance(path, str) or not os.path.isabs(path):
            raise UsageError(f"patch must be an absolute path, not {path!r:.80}")
        patch = load_patch(Path(path))
        copy = os.open(directory / "patch.py", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(copy, "wb") as file:
            file.write(patch.source)
        patch.apply()
        _logger.warning("patched by the operator: %s, from %s", ", ".join(patch.names), path)
        return patch


def operator_for(
    incidents: str | os.PathLike[str] | bool | None,
    settable: dict[str, Any] | None,
    allow_patch: bool = False,
) -> IncidentOperator | None:
    """Who is asked, if a program names a place for incidents.

    Raises:
        UsageError: an argument is not accepted, or the others are given without `incidents`.
    """
    if incidents is None or incidents is False:
        if settable is not None or allow_patch:
            raise UsageError(
                "settable and allow_patch are for an operator: they need incidents=, a directory"
                " or True"
            )
        return None
    return IncidentOperator(incidents, settable=settable, allow_patch=allow_patch)

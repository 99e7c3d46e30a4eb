"""`penstock incidents` and `penstock repair`: what waits for a person, and the person's answer."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import NotFoundError, RefusedError, UsageError

if TYPE_CHECKING:
    from ..recovery.incidents import Incident

_Identity = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="Show this one's report; its end is enough.")
]
_Which = Annotated[str, typer.Argument(metavar="ID", help="The incident; its end is enough.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Directory = Annotated[
    Path | None,
    typer.Option(
        envvar="PENSTOCK_INCIDENTS",
        help="Where the program keeps its incidents; by default ~/.local/state/penstock/incidents.",
    ),
]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=JSON",
        help="Set a value that the program registered, and retry. May be repeated.",
    ),
]
_Patch = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.py",
        help="Replace the functions that the file defines, and retry. The program must allow it.",
    ),
]
_TEXT_CHARS_MAX = 60


def incidents(
    identity: _Identity = None, json: _Json = False, directory: _Directory = None
) -> None:
    """Lists the incidents of trainings on this machine, or shows the report of one.

    A training with `incidents=` writes one when a step failed that its policy cannot recover, and
    may wait for your answer: see [bold]penstock repair[/bold].

    Exit codes: 0 done, 7 there is no such incident.
    """
    from ..recovery.incidents import default_root, find, load_all

    root = directory or default_root()
    if identity is not None:
        one = find(root, identity)
        if json:
            typer.echo(jsonlib.dumps(_document(one)))
            return
        try:
            text = (one.directory / "report.txt").read_text("utf-8", "replace")
        except OSError as error:
            raise NotFoundError(f"{one.identity} has no report: {error.strerror}") from None
        typer.echo(text, nl=False)
        typer.echo(f"state: {_state(one)}")
        return
    found = load_all(root)
    if json:
        typer.echo(jsonlib.dumps([_document(one) for one in found]))
        return
    table = Table("id", "state", "step", "error", "program", title=escape(f"Incidents in {root}"))
    for one in found:
        texts = (str(one.report.get(key, "")) for key in ("step", "error", "program"))
        table.add_row(
            one.identity, _state(one), *(escape(text[:_TEXT_CHARS_MAX]) for text in texts)
        )
    Console(width=None if Console().is_terminal else 200).print(table)


def repair(
    identity: _Which,
    retry: Annotated[bool, typer.Option("--retry", help="Run the step again.")] = False,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave the batch out, and put it into quarantine.")
    ] = False,
    rewind: Annotated[
        bool, typer.Option("--rewind", help="Go back to the training's last commit.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Raise RestartNeededError: start the program again.")
    ] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Raise the error.")] = False,
    values: _Set = None,
    patch: _Patch = None,
    directory: _Directory = None,
) -> None:
    """Answers a training that waits in an incident.

        penstock incidents
        penstock repair 381920 --set config.rate=0.001 --retry
        penstock repair 381920 --skip
        penstock repair 381920 --patch fix.py

    The training says whether it can do that; if it cannot, it waits on. A patch holds functions
    (and classes of methods) by the names that they have in the program's main module, or in the
    one that MODULE = "name" in its first line names. It is reverted if the step fails again.

    Exit codes: 0 it goes on as told, 2 bad usage, 3 nobody waits there, 7 it refused.
    """
    from ..recovery.incidents import default_root, find
    from ..recovery.operator_socket import request
    from ..recovery.reports import VERSION

    verbs = {"retry": retry, "skip": skip, "rewind": rewind, "restart": restart, "abort": abort}
    chosen = [name for name, given in verbs.items() if given]
    if not chosen and (values or patch):
        chosen = ["retry"]
    if len(chosen) != 1:
        raise UsageError(f"say what to do, by one of {', '.join('--' + name for name in verbs)}")
    wanted = dict(_value(text) for text in values or ())
    one = find(directory or default_root(), identity)
    message = {"version": VERSION, "do": chosen[0], "set": wanted}
    if patch is not None:
        message["patch"] = str(patch.absolute())
    reply = request(one.directory, message)
    if not reply.get("done"):
        raise RefusedError(f"the training waits on: {reply.get('error', reply)}")
    told = "".join(f"; {name} is {jsonlib.dumps(value)}" for name, value in wanted.items())
    typer.echo(f"incident {one.identity}: {reply.get('action')}{told}")


def _value(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"--set must be NAME=JSON, not {text!r:.80}")
    try:
        return name, jsonlib.loads(value, parse_constant=_not_finite)
    except (ValueError, RecursionError):
        raise UsageError(
            f"--set {name}: {value!r:.80} is not JSON; a text needs quotes: '{name}=\"text\"'"
        ) from None


def _not_finite(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")  # Python's own reader takes it


def _document(one: Incident) -> dict[str, Any]:
    return {
        "id": one.identity,
        "directory": str(one.directory),
        "state": _state(one),
        "outcome": one.outcome,
        "report": one.report,
    }


def _state(one: Incident) -> str:
    if one.outcome is not None:
        result = one.outcome.get("result")
        return f"{one.outcome.get('action')} by {one.outcome.get('by')}" + (
            f", {result}" if result else ""
        )
    return "waits" if one.waiting else "gone"

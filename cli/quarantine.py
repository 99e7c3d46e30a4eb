"""`penstock quarantine`: elements that jobs leave out because they cannot be produced."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import NotFoundError, UsageError

app = typer.Typer(no_args_is_help=True, help="Elements that jobs leave out (docs/failover.md).")

_Dispatcher = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT[,HOST:PORT...]",
        help="The dispatcher, and its standbys: the one that serves answers.",
    ),
]
_Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer.")]
_Element = Annotated[
    str,
    typer.Argument(
        metavar="JOB/STREAM/EPOCH/SPLIT/ELEMENT", help="As `penstock quarantine ls` shows it."
    ),
]
_DEFAULT = "127.0.0.1:5050"


def elements_of(picture: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The elements that are left out, of all jobs of a status document, by their names."""
    return {
        "/".join(str(part) for part in (job["id"], *_place(bad))): {
            "job": job["id"],
            "name": job["name"],
            "policy": job["bad_elements"]["policy"],
            **bad,
        }
        for job in picture["jobs"]
        for bad in job["bad_elements"]["elements"]
    }


def _place(bad: dict[str, Any]) -> tuple[int, int, int, int]:
    return bad["stream"], bad["epoch"], bad["split"], bad["element"]


@app.command("ls")
def list_command(
    dispatcher: _Dispatcher = _DEFAULT,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    timeout: _Timeout = 5.0,
) -> None:
    """Lists the elements that are left out."""
    found = elements_of(_picture(dispatcher, timeout))
    if json:
        for name, bad in found.items():
            typer.echo(jsonlib.dumps({"element_id": name, **bad}))
        return
    table = Table("element", "job", "worker", "error")
    for name, bad in found.items():
        table.add_row(
            name, escape(bad["name"] or "-"), bad["worker"] or "-", escape(bad["error"] or "-")
        )
    Console().print(table)


@app.command("show")
def show_command(
    element: _Element, dispatcher: _Dispatcher = _DEFAULT, timeout: _Timeout = 5.0
) -> None:
    """Prints all that is known of one element, as JSON.

    Exits with 7 if it is not left out.
    """
    found = elements_of(_picture(dispatcher, timeout))
    if element not in found:
        raise NotFoundError(f"{element!r} is not left out; `penstock quarantine ls` lists what is")
    typer.echo(jsonlib.dumps(found[element], indent=2))


@app.command("retry")
def retry_command(
    element: _Element, dispatcher: _Dispatcher = _DEFAULT, timeout: _Timeout = 5.0
) -> None:
    """Has an element made again, should its split be: when its job goes back to that epoch.

    Exits with 7 if it is not left out, or its epoch is open: others have the split without it.
    """
    from ..client.status import retry_element

    job, *numbers = element.split("/")
    if len(numbers) != 4 or not all(n.isdecimal() and len(n) <= 20 for n in numbers):
        raise UsageError(f"ELEMENT must be JOB/STREAM/EPOCH/SPLIT/ELEMENT, not {element[:80]!r}")
    stream, epoch, split, number = map(int, numbers)
    retry_element(
        dispatcher,
        job,
        stream=stream,
        epoch=epoch,
        split=split,
        element=number,
        timeout_s=timeout,
    )
    typer.echo(f"{element} will be made when its split is made again")


def _picture(dispatcher: str, timeout_s: float) -> dict[str, Any]:
    # Not at the head: gRPC takes longer to load than other commands take to run.
    from ..client.status import fetch_status
    from ..worker.link import parse_addresses

    parse_addresses(dispatcher)  # whose error names the option
    return fetch_status(dispatcher, timeout_s)

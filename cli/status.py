"""`penstock status`: what a cluster is doing, who is missing and since when."""

from __future__ import annotations

import json as jsonlib
from typing import Any

import grpc
import typer
from rich.console import Console
from rich.table import Table

from ..errors import UnavailableError, UsageError
from ..proto import control_pb2, control_pb2_grpc


def status(
    dispatcher: str = typer.Option("127.0.0.1:5050", help="The dispatcher's HOST:PORT."),
    json: bool = typer.Option(False, "--json", help="Print the whole picture as one JSON object."),
    timeout: float = typer.Option(5.0, min=0.1, help="Seconds to wait for the answer."),
) -> None:
    """Shows workers, jobs, epochs and what is waited for.

    Exits with 3 when the dispatcher cannot be reached.
    """
    picture = fetch_status(dispatcher, timeout)
    if json:
        typer.echo(jsonlib.dumps(picture))
    else:
        _print(picture, Console())


def fetch_status(address: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """Asks the dispatcher at `address` (`host:port`) for its status document.

    Returns:
        The document that docs/operations.md describes.

    Raises:
        UsageError: `address` is not `host:port`.
        UnavailableError: no dispatcher answered within `timeout_s` seconds.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"dispatcher address must be HOST:PORT, not {address!r}")
    with grpc.insecure_channel(address) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        try:
            reply = stub.GetStatus(
                control_pb2.GetStatusRequest(), timeout=timeout_s, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise UnavailableError(
                f"no dispatcher answers at {address} within {timeout_s:g} s "
                f"({error.code().name}); is `penstock dispatcher` running there?"
            ) from None
    picture: dict[str, Any] = jsonlib.loads(reply.json)
    return picture


def _print(picture: dict[str, Any], console: Console) -> None:
    console.print(f"dispatcher: term {picture['term']}, up {picture['uptime_s']:.0f} s")
    workers = Table("worker", "address", "state", "attempts", "heartbeat s ago", title="Workers")
    for worker in picture["workers"]:
        heartbeat = worker.get("last_heartbeat_s")
        workers.add_row(
            worker["id"],
            worker["address"],
            worker["state"],
            str(worker.get("attempts", "")),
            "" if heartbeat is None else f"{heartbeat:.1f}",
        )
    console.print(workers)
    jobs = Table("job", "name", "state", "stream", "epoch", "splits", "elements", title="Jobs")
    for job in picture["jobs"]:
        for number, stream in enumerate(job["streams"]):
            epoch = stream.get("epoch")
            jobs.add_row(
                job["id"],
                job["name"] or "-",
                job["state"],
                str(number),
                "-" if epoch is None else str(epoch),
                f"{stream.get('delivered_splits', 0)}/{stream['splits']}",
                str(stream.get("delivered_elements", 0)),
            )
    console.print(jobs)
    for text in picture["waiting"]:
        console.print(f"[yellow]waiting:[/yellow] {text}")

"""`penstock readmit`: a retired worker may work again."""

from __future__ import annotations

import typer


def readmit(
    worker: str = typer.Argument(metavar="WORKER", help="Its id, as `penstock status` shows it."),
    dispatcher: str = typer.Option(
        "127.0.0.1:5050",
        metavar="HOST:PORT[,HOST:PORT...]",
        help="The dispatcher, and its standbys: the one that serves answers.",
    ),
    timeout: float = typer.Option(5.0, min=0.1, help="Seconds to wait for the answer."),
) -> None:
    """Lets a retired worker work again.

    A failover decision (NODE_FAILOVER) retires a worker: it gets nothing more, until its process is
    started anew, or this command says that it is sound.

    Exits with 3 when the dispatcher cannot be reached, 7 when no such worker is retired.
    """
    # Not at the head: gRPC takes longer to load than other commands take to run.
    from ..client.status import readmit_worker
    from ..worker.link import parse_addresses

    parse_addresses(dispatcher)  # whose error names the option
    readmit_worker(dispatcher, worker, timeout)
    typer.echo(f"worker {worker} may work again")

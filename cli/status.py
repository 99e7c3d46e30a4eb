"""`penstock status`: what a cluster is doing, who is missing and since when."""

from __future__ import annotations

import json as jsonlib
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def status(
    dispatcher: str = typer.Option(
        "127.0.0.1:5050",
        metavar="HOST:PORT[,HOST:PORT...]",
        help="The dispatcher, and its standbys: the one that serves answers.",
    ),
    json: bool = typer.Option(False, "--json", help="Print the whole picture as one JSON object."),
    timeout: float = typer.Option(5.0, min=0.1, help="Seconds to wait for the answer."),
) -> None:
    """Shows workers, jobs, epochs and what is waited for.

    Exits with 3 when the dispatcher cannot be reached.
    """
    # Not at the head: gRPC takes longer to load than other commands take to run.
    from ..client.status import fetch_status
    from ..worker.link import parse_addresses

    parse_addresses(dispatcher)  # whose error names the option
    picture = fetch_status(dispatcher, timeout)
    if json:
        typer.echo(jsonlib.dumps(picture))
    else:
        print_status(picture, Console())


def print_status(picture: dict[str, Any], console: Console) -> None:
    """Prints a status document for people."""
    console.print(f"dispatcher: term {picture['term']}, up {picture['uptime_s']:.0f} s")
    restored = f"{picture['restored_attempts']} attempts began at a checkpoint"
    cached = f"{picture['cached_attempts']} read a cache"
    made = f"{picture['recomputed_elements']} elements recomputed"
    console.print(f"in this term: {made}, {restored}, {cached}")
    workers = Table("worker", "address", "state", "attempts", "heartbeat s ago", title="Workers")
    for worker in picture["workers"]:
        heartbeat = worker.get("last_heartbeat_s")
        workers.add_row(
            worker["id"],
            escape(worker["address"]),
            escape(_state_of(worker)),
            str(worker.get("attempts", "")),
            "" if heartbeat is None else f"{heartbeat:.1f}",
        )
    console.print(workers)
    columns = ("job", "name", "state", "stream", "epoch", "splits", "elements", "recomputed")
    jobs = Table(*columns, title="Jobs")
    for job in picture["jobs"]:
        for number, stream in enumerate(job["streams"]):
            epoch = stream.get("epoch")
            jobs.add_row(
                job["id"],
                escape(job["name"] or "-"),
                job["state"],
                str(number),
                "-" if epoch is None else str(epoch),
                f"{stream.get('delivered_splits', 0)}/{stream['splits']}",
                str(stream.get("delivered_elements", 0)),
                str(job["recomputed_elements"]) if number == 0 else "",
            )
    console.print(jobs)
    if picture["groups"]:
        _print_groups(picture["groups"], console)
    if picture["cache"]["stores"]:
        _print_cache(picture["cache"], console)
    for job in picture["jobs"]:
        if job["bad_elements"]["elements"]:
            count = len(job["bad_elements"]["elements"])
            console.print(f"job {job['id']} leaves out {count} bad elements (penstock quarantine)")
    _print_failover(picture["failover"], console)
    for text in picture["waiting"]:
        console.print(f"[yellow]waiting:[/yellow] {escape(text)}")


def _print_failover(failover: dict[str, Any], console: Console) -> None:
    """The last decisions about faults, who is retired, and what was wrong with extensions."""
    if failover["decisions"]:
        decisions = Table("fault", "job", "decided", "by", "what failed", title="Faults")
        for made in failover["decisions"]:
            reason = f" ({made['reason']})" if made["reason"] else ""
            decisions.add_row(
                str(made["fault"]),
                made["job"] or "-",
                escape(made["strategy"] + reason),
                escape(made["source"]),
                escape(made["text"]),
            )
        console.print(decisions)
    for text in failover["probes"]:
        console.print(f"cross-check: {escape(text)}")
    for made in failover["verdicts"]:
        detail = f" ({made['detail']})" if made["detail"] else ""
        console.print(
            f"cross-check: verdict {made['verdict']}{escape(detail)}: {escape(made['text'])}"
        )
    for spent in failover["budgets"]:
        console.print(
            f"job {spent['job'] or '-'} used {spent['strategy']} {spent['used']} times,"
            f" {spent['left']} left"
        )
    for who in failover["retired"]:
        where = escape(f"{who['address']}, {who['reason']}")
        console.print(f"retired: worker {who['worker']} at {where}")
    for problem in failover["problems"]:
        console.print(f"[red]failover extension:[/red] {escape(problem)}")


def _print_groups(groups: list[dict[str, Any]], console: Console) -> None:
    columns = ("group", "resizes", "consumer", "state", "job", "epoch", "committed")
    table = Table(*columns, title="Consumers")
    for group in groups:
        for consumer in group["consumers"]:
            at = consumer["committed"]
            table.add_row(
                escape(group["name"]),
                str(group["generation"] - 1),
                f"{consumer['rank']} of {group['world']}",
                consumer["state"],
                consumer["job"] or "-",
                f"{consumer['progress']:.2f}",
                "-" if at is None else f"epoch {at['epoch']}, {at['consumed']} elements",
            )
    console.print(table)


def _print_cache(cache: dict[str, Any], console: Console) -> None:
    stores = Table("store", "workers", "cache key", "segments", title="Caches")
    for store in cache["stores"]:
        workers = ", ".join(store["workers"]) or "nobody's now"
        for key, segments in store["segments"].items() or [("-", 0)]:
            stores.add_row(store["store"][:12], workers, key[:12], str(segments))
    console.print(stores)
    for decision in cache["decisions"]:
        answer = "on" if decision["on"] else "off"
        console.print(f"cache {decision['key'][:12]}: {answer}, {escape(decision['reason'])}")


def _state_of(worker: dict[str, Any]) -> str:
    """The state in words: why it was lost, and what it would come back as."""
    if worker["state"] != "lost":
        limited = f", limited: {worker['limited']}" if worker["limited"] else ""
        return f"{worker['state']}{limited}"
    place = ", replaced" if worker["replaced"] else ""
    return f"lost{place}: {worker['reason']}"

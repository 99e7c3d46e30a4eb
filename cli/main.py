"""Puts the sub-commands together and turns penstock's errors into exit codes."""

from __future__ import annotations

import sys

import typer

from .. import __version__
from ..errors import PenstockError
from .audit import audit_command
from .bench import bench
from .cache import app as cache_app
from .demo import demo
from .diagnose import diagnose
from .dispatcher import dispatcher
from .explain import explain_command
from .faults import faults
from .health import health
from .incidents import incidents, repair
from .journal import app as journal_app
from .quarantine import app as quarantine_app
from .readmit import readmit
from .security import forget_environment
from .soak import soak
from .status import status
from .worker import worker

#: Commands that start a cluster of their own, and end it.
_OWN_CLUSTER = ("bench", "demo", "faults", "soak")

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="""Feeds model training from preprocessing workers: every element exactly once, in a
    reproducible order, verified by hash, whatever dies.

    Try [bold]penstock demo[/bold] first. A cluster of your own is one
    [bold]penstock dispatcher[/bold], any number of [bold]penstock worker[/bold], and
    [bold]dataset.apply(penstock.distribute("HOST:5050"))[/bold] in the trainer.

    Exit codes: 0 done, 1 a check failed, 2 bad usage, 3 cannot reach or bind an address,
    4 the pipeline cannot run, 5 the data is not what it should be, 6 the journal cannot be
    trusted, 7 refused, 130 interrupted.""",
    rich_markup_mode="rich",
)

app.command()(demo)
app.command()(dispatcher)
app.command()(worker)
app.command()(status)
app.command()(health)
app.command()(readmit)
app.command()(soak)
app.command()(faults)
app.command("explain")(explain_command)
app.command("audit")(audit_command)
app.command()(bench)
app.command()(diagnose)
app.command()(incidents)
app.command()(repair)
app.add_typer(journal_app, name="journal")
app.add_typer(cache_app, name="cache")
app.add_typer(quarantine_app, name="quarantine")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    if context.invoked_subcommand in _OWN_CLUSTER:
        forget_environment()


def main() -> None:
    """Runs the command line; never returns."""
    try:
        app()
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)

"""Options that daemons have in common: certificates and tokens. Commands read the environment."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..security.settings import VARIABLES

TlsCa = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        envvar=VARIABLES[0],
        help="PEM file of the authorities whose certificates are trusted; whoever connects must "
        "have one of theirs (docs/security.md).",
    ),
]
TlsCert = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        envvar=VARIABLES[1],
        help="PEM file of this daemon's certificate, of the name that it is reached by.",
    ),
]
TlsKey = Annotated[
    str,
    typer.Option(
        metavar="FILE", envvar=VARIABLES[2], help="PEM file of the certificate's private key."
    ),
]
TokenFile = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        envvar=VARIABLES[3],
        help="File of the token that every daemon, trainer and command of the cluster must show.",
    ),
]


def forget_environment() -> None:
    """For commands that start a cluster of their own, which the settings of another do not fit."""
    for variable in VARIABLES:
        os.environ.pop(variable, None)

"""`penstock explain MODULE:FUNCTION`: what of a pipeline would run where, and why."""

from __future__ import annotations

import importlib
import json as json_module
import sys
from typing import Annotated, Any

import typer

from ..errors import UsageError
from .quiet import load_tensorflow


def load_dataset(target: str) -> Any:
    """The dataset that a `MODULE:FUNCTION` returns, looked up from the current directory.

    Raises:
        UsageError: there is no such module or function, or it does not return a dataset.
    """
    module_name, colon, function_name = target.partition(":")
    if not (module_name and colon and function_name):
        raise UsageError(
            f"{target!r} is not of the form MODULE:FUNCTION, for example train:dataset"
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"cannot import {module_name!r} of {target!r}: {error}") from error
    function: Any = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        raise UsageError(f"{module_name!r} has no function {function_name!r}")
    try:
        dataset = function()
    except TypeError as error:
        raise UsageError(f"{target} must be callable without arguments: {error}") from error
    import tensorflow as tf  # only this command needs it

    if not isinstance(dataset, tf.data.Dataset):
        raise UsageError(f"{target} returned {type(dataset).__name__}, not a tf.data.Dataset")
    return dataset


def explain_command(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:FUNCTION", help="A function that returns a dataset.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    lanes: Annotated[int | None, typer.Option(help="The job's lanes; 1 keeps one order.")] = None,
    exact: Annotated[
        bool, typer.Option(help="Demand a local run's result, even where it costs parallelism.")
    ] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on what a replay cannot reproduce.")
    ] = False,
) -> None:
    """Show what runs on the workers and what at the client, how it splits, and why."""
    load_tensorflow()  # seconds, that other commands need not pay
    from ..graph import explain

    dataset = load_dataset(target)
    explanation = explain(dataset, lanes=lanes, exact=exact, strict=strict)
    if json:
        typer.echo(json_module.dumps(explanation.to_dict(), indent=2))
    else:
        typer.echo(str(explanation))

"""Looks inside the user functions of a graph: what they read, what they draw, what cannot ship."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import capture
from .ops import BENIGN_STATEFUL, FILE_READERS, PYTHON_OPS, Kind, canonical, classify, is_dataset_op

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .ir import Graph

_RESOURCE = 20  # DataType.DT_RESOURCE
_UID = re.compile(r"_\d+$")


def function_names(node: Any) -> Iterator[str]:
    """The library functions that a node's attributes name."""
    for key in sorted(node.attr):  # a protobuf map has no order of its own
        attribute = node.attr[key]
        if attribute.HasField("func"):
            yield attribute.func.name
        for item in attribute.list.func:
            yield item.name


def plain_name(function: str) -> str:
    """A library function's name without TensorFlow's decoration: `map_parse`, `filter_lambda`."""
    name = _UID.sub("", function.removeprefix("__inference_"))
    return name.removeprefix("Dataset_").removeprefix("tf_data_experimental_")


def bodies(graph: Graph, names: Iterable[str]) -> Iterator[Any]:
    """The FunctionDefs reachable from these function names, each once, callers first."""
    todo, done = list(names), set()
    while todo:
        name = todo.pop(0)
        if name in done or name not in graph.functions:
            continue
        done.add(name)
        body = graph.functions[name]
        yield body
        for node in body.node_def:
            todo.extend(function_names(node))


def reads_files(graph: Graph, name: str) -> bool:
    """Whether a flat_map or interleave opens files in its function."""
    return any(
        canonical(node.op) in FILE_READERS
        for body in bodies(graph, function_names(graph.nodes[name]))
        for node in body.node_def
    )


def calls_functions(graph: Graph, name: str) -> bool:
    """Whether a node runs a user function."""
    return next(function_names(graph.nodes[name]), None) is not None


@dataclass(frozen=True)
class Finding:
    """An op of the graph that cannot ship, or whose results a replay cannot reproduce."""

    #: The op's GraphDef name.
    op: str
    #: Where it is: `map_parse`, or the dataset op itself.
    where: str
    #: Whether it makes shipping impossible (otherwise only replay by value).
    fatal: bool
    #: The Python function behind a py_function, if known.
    function: str | None = None
    #: Draws random numbers (rather than having some unknown state).
    random: bool = False


def findings(graph: Graph, names: Iterable[str]) -> list[Finding]:
    """What is not shippable or not replayable in these nodes and in the functions they run."""
    found: list[Finding] = []
    for name in names:
        node = graph.nodes[name]
        if is_dataset_op(node.op) and classify(node.op).kind is Kind.REFUSED:
            found.append(Finding(node.op, node.op, fatal=True))
        if node.op == "Const" and node.attr["dtype"].type == _RESOURCE:
            held = node.attr["value"].tensor.resource_handle_val[0].name
            found.append(Finding("resource", held, fatal=True))
        for body in bodies(graph, function_names(node)):
            where = plain_name(body.signature.name)
            found.extend(_in_body(body, where))
    return list(dict.fromkeys(found))


def _in_body(body: Any, where: str) -> Iterator[Finding]:
    for node in body.node_def:
        if node.op in PYTHON_OPS:
            token = node.attr["token"].s
            yield Finding(node.op, where, True, capture.python_function_name(token))
        elif is_dataset_op(node.op):
            if classify(node.op).kind is Kind.REFUSED:
                yield Finding(node.op, where, fatal=True)
        elif node.op not in BENIGN_STATEFUL and _is_stateful(node.op):
            random = "Random" in node.op or "Uniform" in node.op or "Normal" in node.op
            random = random or node.op in {"Multinomial", "SampleDistortedBoundingBoxV2"}
            yield Finding(node.op, where, fatal=False, random=random)


def _is_stateful(op: str) -> bool:
    definition = capture.op_def(op)
    return definition is None or bool(definition.is_stateful)


def refusal(finding: Finding) -> str:
    """What to tell the user about something that cannot ship, and what to do instead."""
    if finding.op in PYTHON_OPS and "generator" not in finding.where:
        what = f"py_function {finding.function!r}" if finding.function else "a py_function"
        return (
            f"{what} ({finding.op}, in {finding.where}) is Python code of this process and cannot "
            "run on a worker: rewrite it with TensorFlow ops, or apply it after distribute(...)"
        )
    if finding.op == "resource":
        return (
            f"a function captures {finding.where!r}, an object that only exists in this process "
            "(an iterator, for example): pass what it holds as a tensor, or zip the dataset in"
        )
    if finding.op.startswith("DataService"):
        return (
            f"the dataset reads from a tf.data service ({finding.op}): distribute the pipeline "
            "below it instead"
        )
    if finding.op == "GeneratorDataset" or "generator" in finding.where:
        return (
            "from_generator (GeneratorDataset) is Python code of this process and cannot run on a "
            "worker: write its elements to files (TFRecord) and read those, build the dataset "
            "from tensors, or apply it after distribute(...)"
        )
    return f"{finding.op} (in {finding.where}) cannot be sent to another process"

"""What a split's result depends on outside of its graph: the files that it reads.

A cached split is worth nothing once its files have changed. Their sizes and times of change are
asked for, not their content. Names that a function computes are not known here.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from .ir import base_name, const_value
from .ops import FILE_READERS, canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .forms import Half
    from .split import SplitTable

#: To ask for more files than this would take longer than it is worth.
_FILES_MAX = 65536


def stamp(halves: Sequence[Half], table: SplitTable, split: int) -> str | None:
    """A digest of the state of the files that a split reads.

    Args:
        halves: the stream's head and tail.
        table: how the source is divided; frozen.
        split: which one.

    Returns:
        A hexadecimal digest; "0" if no file is known that the split reads; None if one cannot be
        asked, or there are too many.
    """
    try:
        names = _files_of(halves, table, split)
        found = list(itertools.islice(_states(names), _FILES_MAX + 1))
    except (tf.errors.OpError, OSError, UnicodeError):
        return None
    if len(found) > _FILES_MAX:
        return None
    if not found:
        return "0"
    content = "\0".join(f"{name}\0{length}\0{changed_ns}" for name, length, changed_ns in found)
    return hashlib.blake2b(content.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _states(names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(name, size, time of change) of files, and of those in directories."""
    for name in names:
        size, changed_ns, is_directory = _state(name)
        if is_directory:
            inside = sorted(tf.io.gfile.listdir(name))
            yield from _states([os.path.join(name, entry) for entry in inside])
        else:
            yield name, size, changed_ns


def _state(name: str) -> tuple[int, int, bool]:
    if "://" in name:
        found = tf.io.gfile.stat(name)
        return int(found.length), int(found.mtime_nsec), bool(found.is_directory)
    # TensorFlow knows the time of change of a local file to the second only.
    local = os.stat(name)
    return local.st_size, local.st_mtime_ns, S_ISDIR(local.st_mode)


def _files_of(halves: Sequence[Half], table: SplitTable, split: int) -> list[str]:
    columns = string_columns(halves)
    if table.mode == "files":
        start, stop = table.bounds(split)
        return _decoded(columns[0][start:stop].numpy()) if columns else []
    head = halves[0].graph
    opens = _opens_files(head)
    found: list[str] = []
    if table.mode == "index":
        positions = tf.constant(list(table.positions(split, 0, 0)), tf.int64)
        for column in columns if opens else ():
            found += _existing(_decoded(tf.gather(column, positions).numpy()))
        return found
    nodes = {node.name: node for node in head.node}
    for node in head.node:
        op = canonical(node.op)
        if op in FILE_READERS or op == "LoadDataset":
            found += _texts(nodes[base_name(node.input[0])])
        elif op == "TensorSliceDataset" and opens:
            for tensor in node.input:
                found += _existing(_texts(nodes[base_name(tensor)]))
    return found


def string_columns(halves: Sequence[Half]) -> list[Any]:
    """The rows of the sources that may be names of files."""
    tensors = [tensor for half in halves for rows in half.rows for tensor in rows.tensors]
    return [tensor for tensor in tensors if tensor.dtype == tf.string and tensor.shape.rank == 1]


def _opens_files(graph: Any) -> bool:
    """Whether a function of the graph opens files."""
    return any(
        node.op == "ReadFile" or canonical(node.op) in FILE_READERS
        for body in graph.library.function
        for node in body.node_def
    )


def _texts(node: Any) -> list[str]:
    """The strings that a constant holds."""
    value = const_value(node)
    if value is None:
        return []
    return _decoded([text for text in np.ravel(np.asarray(value, object)) if type(text) is bytes])


def _decoded(names: Any) -> list[str]:
    return [name.decode() for name in names]


def _existing(names: list[str]) -> list[str]:
    """The names, if they look like those of files: the first one is."""
    return names if names and tf.io.gfile.exists(names[0]) else []

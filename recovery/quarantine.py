"""Quarantine: batches that were skipped, kept with the error that they were skipped for.

A directory for each batch, `step-NUMBER-DIGITS`, written under another name, fsynced and renamed:
`batch.npz` has the arrays (`numpy.load(..., allow_pickle=False)` reads it), `error.json` what
happened, the names of the arrays, and leaves that are no arrays. An array of strings is two:
`NAME.lengths` and `NAME.bytes`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InSituError, UsageError
from .batches import as_array, leaves, pieces_of
from .tracebacks import summary_of

_TEXT_CHARS_MAX = 2000


class Quarantine:
    """A directory of batches that were skipped.

    Args:
        directory: made, with mode 0700, if it is not there.

    Raises:
        UsageError: it cannot be made or written to.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        if not isinstance(directory, (str, os.PathLike)):
            raise UsageError(f"quarantine must be the path of a directory, not {directory!r:.80}")
        self._directory = Path(os.fsdecode(directory))
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError(f"quarantine must be a directory: {error}") from error
        if not os.access(self._directory, os.W_OK):
            raise UsageError(f"quarantine {self._directory} cannot be written to")

    def store(self, step: int, batch: Any, about: dict[str, Any]) -> Path:
        """Stores a batch, durably.

        Args:
            step: number of the step.
            batch: what it was given.
            about: what happened; values that JSON has.

        Returns:
            the directory.

        Raises:
            InSituError: it could not be written.
        """
        try:
            return self._store(step, batch, about)
        except OSError as failure:
            raise InSituError(f"quarantine failed: {failure}") from failure

    def _store(self, step: int, batch: Any, about: dict[str, Any]) -> Path:
        arrays, plain = _parts(batch)
        final = self._directory / f"step-{step:08}-{secrets.token_hex(4)}"
        fresh = final.with_name(f".{final.name}.new")
        fresh.mkdir(mode=0o700)
        try:
            with (fresh / "batch.npz").open("wb") as file:
                np.savez(file, **{f"a{at}": part for at, part in enumerate(arrays.values())})
                os.fsync(file.fileno())
            document = {**about, "step": step, "arrays": list(arrays), "plain": plain}
            with (fresh / "error.json").open("w") as text:
                json.dump(document, text, indent=1)
                text.flush()
                os.fsync(text.fileno())
            fresh.rename(final)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return final


def load_arrays(directory: Path) -> dict[str, Any]:
    """The arrays of a batch in quarantine, by the names that its leaves had."""
    names = json.loads((directory / "error.json").read_text())["arrays"]
    with np.load(directory / "batch.npz", allow_pickle=False) as stored:
        return {name: stored[f"a{at}"] for at, name in enumerate(names)}


def _parts(batch: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays of a batch, and what is none as text, each by the name of its leaf."""
    arrays: dict[str, Any] = {}
    plain: dict[str, str] = {}
    for name, leaf in leaves(batch):
        try:
            array = as_array(leaf)
        except Exception as failure:  # a tensor that has no value, or whose device is lost
            plain[name] = f"it cannot be read: {summary_of(failure)}"
            continue
        if array is None:
            plain[name] = repr(leaf)[:_TEXT_CHARS_MAX]
        elif array.dtype.hasobject:
            lengths, rows = pieces_of(array)
            arrays[f"{name}.lengths"] = lengths.reshape(array.shape)
            arrays[f"{name}.bytes"] = np.frombuffer(b"".join(rows), np.uint8)
        elif array.dtype.isbuiltin == 1:
            arrays[name] = array
        else:
            # numpy's file format has no name for types of others, such as bfloat16.
            arrays[f"{name}.{array.dtype.name}"] = np.ascontiguousarray(array).view(np.uint8)
    return arrays, plain

"""Batches in quarantine, stored and read back."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from penstock.errors import InSituError, UsageError
from penstock.recovery.quarantine import Quarantine, load_arrays


def test_a_batch_is_kept_with_its_error(tmp_path: Path) -> None:
    batch = {
        "x": np.array([[1.0, np.nan]]),
        "names": np.array([b"a\0", b"", b"bcd"], object),
        "half": np.array([1.5], ml_dtypes.bfloat16),
        "id": 17,
    }
    kept = Quarantine(tmp_path / "deep" / "kept").store(50, batch, {"error": "loss is NaN"})
    about = json.loads((kept / "error.json").read_text())
    assert about["error"] == "loss is NaN"
    assert about["step"] == 50
    assert about["plain"] == {"batch['id']": "17"}
    arrays = load_arrays(kept)
    np.testing.assert_array_equal(arrays["batch['x']"], batch["x"])
    assert arrays["batch['names'].lengths"].tolist() == [2, 0, 3]
    assert arrays["batch['names'].bytes"].tobytes() == b"a\0bcd"
    half = arrays["batch['half'].bfloat16"].view(ml_dtypes.bfloat16)
    assert half.tolist() == [1.5]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert [path.name for path in kept.parent.iterdir()] == [kept.name], "nothing half done"


def test_what_cannot_be_read_any_more_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    class Lost:
        def __array__(self, *_: object) -> None:
            raise RuntimeError("the device is lost")

    kept = Quarantine(tmp_path).store(1, {"x": Lost(), "y": np.arange(2)}, {"error": "-"})
    about = json.loads((kept / "error.json").read_text())
    assert about["plain"] == {"batch['x']": "it cannot be read: RuntimeError: the device is lost"}
    assert load_arrays(kept)["batch['y']"].tolist() == [0, 1]


def test_a_quarantine_that_cannot_be_written_is_an_error_of_its_own(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path / "kept")
    (tmp_path / "kept").rmdir()
    with pytest.raises(InSituError, match=r"quarantine failed: .*No such file"):
        kept.store(1, 2, {"error": "-"})


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="quarantine must be a directory"):
        Quarantine(tmp_path / "file")
    with pytest.raises(UsageError, match="quarantine must be the path"):
        Quarantine(3)  # type: ignore[arg-type]

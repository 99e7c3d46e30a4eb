"""`penstock quarantine` names what is wrong with an element's name before it asks anybody."""

from __future__ import annotations

import pytest

from penstock.cli.quarantine import retry_command
from penstock.errors import UsageError


@pytest.mark.parametrize(
    ("element", "said"),
    [
        ("j1/0/0/0", "must be JOB/STREAM/EPOCH/SPLIT/ELEMENT"),
        ("j1/0/0/x/0", "must be JOB/STREAM/EPOCH/SPLIT/ELEMENT"),
        ("j1/0/0/0/" + "9" * 5000, "must be JOB/STREAM/EPOCH/SPLIT/ELEMENT"),
        ("j1/4294967296/0/0/0", r"stream must be 0 to 2\*\*32 - 1, not 4294967296"),
        ("j1/0/0/0/18446744073709551616", r"element must be 0 to 2\*\*64 - 1"),
    ],
)
def test_a_name_that_no_element_has_is_refused(element: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        retry_command(element, "127.0.0.1:1")

"""Settings for every test: Hypothesis profiles, chosen by HYPOTHESIS_PROFILE or by CI."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from .papers import Papers, issue

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline: on a shared machine the time of one example says nothing about the code.
common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=50, **common)
settings.register_profile("ci", max_examples=200, derandomize=True, print_blob=True, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# A shell's background job ignores SIGINT, and would hand that down to the processes that tests
# interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Certificates, made once."""
    return issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that runs in this process takes the log for itself; the next test wants it back."""
    root = logging.getLogger("penstock")
    handlers, level, propagate = list(root.handlers), root.level, root.propagate
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    root.propagate = propagate

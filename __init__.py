"""penstock: a fault-tolerant input data service for model training.

tf.data pipelines run on preprocessing workers, a journaling dispatcher deals the work, and the
trainer reads a normal `tf.data.Dataset`. Every element arrives exactly once, in an order that
depends on neither the number of workers nor on which of them died, verified by hash.

    dataset = dataset.apply(penstock.distribute("dispatcher:5050", job_name="train"))

The names below are the whole public API. They are loaded when first used, so that importing
penstock (for the dispatcher, or a trainer without TensorFlow) costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors
    from .client import elastic
    from .client.arrays import ArrayIterator
    from .client.audit import audit
    from .client.dataset import distribute
    from .client.embedded import LocalCluster
    from .client.groundtruth import digest_of
    from .client.in_situ import InSituSession
    from .client.keras_callbacks import keras_callbacks
    from .client.keras_in_situ import keras_in_situ
    from .client.ranks import RankArbiter
    from .client.reader import Reader
    from .client.torch_data import TorchDataset, TorchLoader
    from .client.tracking import InputState
    from .graph import cache_here, explain
    from .proto.position import Position
    from .recovery.failover import FailoverExtension, FailureInfo
    from .recovery.in_situ import in_situ
    from .recovery.policy import Backoff, RecoveryPolicy, RecoveryRule
    from .recovery.strategy import FailoverStrategy
    from .security.settings import Security
    from .timing import Timing

__version__ = "0.1.0"

__all__ = [
    "ArrayIterator",
    "Backoff",
    "FailoverExtension",
    "FailoverStrategy",
    "FailureInfo",
    "InSituSession",
    "InputState",
    "LocalCluster",
    "Position",
    "RankArbiter",
    "Reader",
    "RecoveryPolicy",
    "RecoveryRule",
    "Security",
    "Timing",
    "TorchDataset",
    "TorchLoader",
    "__version__",
    "audit",
    "cache_here",
    "digest_of",
    "distribute",
    "elastic",
    "errors",
    "explain",
    "in_situ",
    "keras_callbacks",
    "keras_in_situ",
]

_HOMES = {
    "ArrayIterator": "client.arrays",
    "Backoff": "recovery.policy",
    "InSituSession": "client.in_situ",
    "FailoverExtension": "recovery.failover",
    "FailoverStrategy": "recovery.strategy",
    "FailureInfo": "recovery.failover",
    "InputState": "client.tracking",
    "LocalCluster": "client.embedded",
    "Position": "proto.position",
    "RankArbiter": "client.ranks",
    "Reader": "client.reader",
    "RecoveryPolicy": "recovery.policy",
    "RecoveryRule": "recovery.policy",
    "Security": "security.settings",
    "Timing": "timing",
    "TorchDataset": "client.torch_data",
    "TorchLoader": "client.torch_data",
    "audit": "client.audit",
    "cache_here": "graph",
    "digest_of": "client.groundtruth",
    "distribute": "client.dataset",
    "explain": "graph",
    "in_situ": "recovery.in_situ",
    "keras_callbacks": "client.keras_callbacks",
    "keras_in_situ": "client.keras_in_situ",
}


_MODULES = {"elastic": ".client.elastic", "errors": ".errors"}


def __getattr__(name: str) -> Any:
    """Imports a public name from its module at first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name], __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The module of a function may carry its name (client.audit.audit): look past the submodule.
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

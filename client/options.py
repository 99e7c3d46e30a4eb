"""The options of a job, checked: every error names the argument and what it accepts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..proto.position import Consumer
from ..proto.spec import numpy_dtype
from ..recovery.extensions import find_extension
from ..security.settings import Security
from ..timing import Timing
from .lanes import DEFAULT_MEMORY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.spec import ComponentSpec

DEFAULT_LANES = 16
BAD_POLICIES = ("fail", "skip", "quarantine")
CACHE_MODES = ("off", "put", "on", "auto")
#: Bytes and elements of a block at most, where lanes have to mix what is in different splits.
_BLOCK_MIXING = 256 << 10, 256
#: The same where a block need not be cut out of a piece for that: as large as the pieces.
_BLOCK_MIXED = 4 << 20, 4096
_BLOCK_UNKNOWN = 16


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job is consumed; see `distribute` for what each of them means."""

    job_name: str | None = None
    seed: int | None = None
    lanes: int | None = None
    block: int | None = None
    ordered: bool = False
    deterministic: bool = True
    attempts_max: int = 3
    ledger: Path | None = None
    memory_limit: int = DEFAULT_MEMORY_LIMIT
    cache: str | None = None
    cache_dir: Path | None = None
    failover_extension: str = ""
    on_bad_element: str = "fail"
    max_bad: int = 10
    timing: Timing = field(default_factory=Timing)
    consumer: Consumer | None = None
    security: Security | None = None


def default_block(
    components: Sequence[ComponentSpec], *, mixed: bool = False, blended: bool = False
) -> int:
    """Elements of a block, a power of two: about 256 KiB worth, 1 to 256; 16 when unknown.

    Args:
        components: types of an element.
        mixed: the order of the lanes' turns does not matter, so there may be few: about 4 MiB
            worth, 1 to 4096.
        blended: the pipeline mixes elements of different splits, which a block longer than 1
            would keep apart; where `mixed`, it need not.
    """
    if blended and not mixed:
        return 1
    most_bytes, most = _BLOCK_MIXED if mixed else _BLOCK_MIXING
    nbytes = 0
    for spec in components:
        if spec.dtype == "string" or spec.static_shape is None:
            return _BLOCK_UNKNOWN
        size = numpy_dtype(spec.dtype).itemsize
        for dimension in spec.static_shape:
            size *= dimension
        nbytes += size
    worth = max(1, min(most, most_bytes // max(1, nbytes)))
    return 1 << (worth.bit_length() - 1)


def checked_options(
    *,
    job_name: object = None,
    seed: object = None,
    lanes: object = None,
    block: object = None,
    ordered: object = False,
    deterministic: object = True,
    attempts_max: object = 3,
    ledger: object = None,
    memory_limit: object = DEFAULT_MEMORY_LIMIT,
    cache: object = None,
    cache_dir: object = None,
    failover_extension: object = None,
    on_bad_element: object = "fail",
    max_bad: object = 10,
    timing: object = None,
    consumer: object = None,
    security: object = None,
) -> JobOptions:
    """The options of a job, from arguments of whatever type.

    Raises:
        UsageError: one has a value that is not accepted; the message names it.
    """
    if job_name is not None and (not isinstance(job_name, str) or not job_name):
        raise UsageError(f"job_name must be a string that is not empty, or None, not {job_name!r}")
    if cache is not None and cache not in CACHE_MODES:
        raise UsageError(f"cache must be one of {', '.join(CACHE_MODES)}, or None, not {cache!r}")
    if timing is not None and not isinstance(timing, Timing):
        raise UsageError(f"timing must be a penstock.Timing, not {timing!r}")
    attempts = _number("attempts_max", attempts_max, 1, 1 << 16)
    memory = _number("memory_limit", memory_limit, 1 << 16, 1 << 50)
    assert attempts is not None
    bad = _number("max_bad", max_bad, 0, 10_000)
    assert memory is not None
    assert bad is not None
    return JobOptions(
        job_name=job_name,
        seed=_number("seed", seed, 0, (1 << 64) - 1, optional=True),
        lanes=_number("lanes", lanes, 1, 1 << 16, optional=True),
        block=_number("block", block, 1, 1 << 30, optional=True),
        ordered=checked_flag("ordered", ordered),
        deterministic=checked_flag("deterministic", deterministic),
        attempts_max=attempts,
        ledger=_directory("ledger", ledger),
        memory_limit=memory,
        cache=None if cache is None else str(cache),
        cache_dir=_directory("cache_dir", cache_dir),
        failover_extension=_extension(failover_extension),
        on_bad_element=_bad_policy(on_bad_element, attempts),
        max_bad=bad,
        timing=timing or Timing(),
        consumer=checked_consumer(consumer, job_name),
        security=None if security is None else Security.of(security),
    )


def checked_flag(name: str, value: object) -> bool:
    """A truth value.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {value!r}")
    return value


def _bad_policy(policy: object, attempts_max: int) -> str:
    """What is done about elements that cannot be produced."""
    if policy not in BAD_POLICIES:
        raise UsageError(f"on_bad_element must be one of {', '.join(BAD_POLICIES)}, not {policy!r}")
    if policy != "fail" and attempts_max < 2:
        raise UsageError(
            f"attempts_max must be 2 or more with on_bad_element={policy!r}, not {attempts_max}:"
            " only a second attempt names the element"
        )
    return str(policy)


def _extension(name: object) -> str:
    """The name of a failover class, which must be there; the dispatcher makes the object."""
    if name is None:
        return ""
    if not isinstance(name, str):
        raise UsageError(f"failover_extension must be 'module::Class', or None, not {name!r}")
    find_extension(name, "failover_extension")
    return name


def checked_consumer(value: object, job_name: str | None) -> Consumer | None:
    """(rank, world), and the group's generation if it is known.

    Raises:
        UsageError: it is none of these, or names a rank that there is not.
    """
    if value is None:
        return None
    numbers = [
        number.__index__()
        for number in (value if isinstance(value, (tuple, list)) else ())
        if hasattr(number, "__index__") and not isinstance(number, bool)
    ]
    whole = isinstance(value, (tuple, list)) and len(numbers) == len(value) in (2, 3)
    if not whole or min(numbers) < 0 or not numbers[0] < numbers[1] < 1 << 16:
        raise UsageError(
            "consumer must be (rank, world), two whole numbers with 0 <= rank < world, or None,"
            f" not {value!r:.80}"
        )
    if job_name is None:
        raise UsageError("consumer needs the job_name that all consumers share")
    return Consumer(*numbers)


def _directory(name: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise UsageError(f"{name} must be the path of a directory, or None, not {value!r}")
    return Path(os.fsdecode(value))


def _number(
    name: str, value: object, least: int, most: int, *, optional: bool = False
) -> int | None:
    if value is None and optional:
        return None
    # numpy's integers are welcome, truth values and floats are mistakes.
    number = value.__index__() if hasattr(value, "__index__") else None
    if number is None or isinstance(value, bool) or not least <= number <= most:
        alternative = ", or None" if optional else ""
        raise UsageError(
            f"{name} must be a whole number from {least} to {most}{alternative}, not {value!r}"
        )
    return int(number)

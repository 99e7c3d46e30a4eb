"""Runs many seeds: `python tests/sim/run.py --seeds 20000 --start 0 --jobs 2 [--json]`.

Prints progress, and every seed that broke an invariant with its story; exit code 1 if one did.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

from penstock.tests.sim.batch import Batch, run_batch

_BATCH = 50
_PROGRESS_S = 10.0


def main() -> int:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")
    options = parser.parse_args()
    began_s = shown_s = time.monotonic()
    total = Batch()
    end = options.start + options.seeds
    with ProcessPoolExecutor(options.jobs) as pool:
        futures: list[Future[Batch]] = [
            pool.submit(run_batch, first, min(end, first + _BATCH))
            for first in range(options.start, end, _BATCH)
        ]
        for future in as_completed(futures):
            batch = future.result()
            total.add(batch)
            for story in batch.failed.values():
                sys.stderr.write(story + "\n\n")
            if time.monotonic() - shown_s > _PROGRESS_S:
                shown_s = time.monotonic()
                sys.stderr.write(f"{total.runs} runs, {len(total.failed)} failed\n")
    seconds = time.monotonic() - began_s
    report(total, seconds, as_json=options.json)
    return 1 if total.failed else 0


def report(total: Batch, seconds: float, *, as_json: bool) -> None:
    """The summary."""
    if as_json:
        content = {
            "runs": total.runs,
            "failed": sorted(total.failed),
            "seconds": round(seconds, 1),
            "events": total.events,
            "virtual_seconds": round(total.virtual_s),
            "elements": total.elements,
            "pieces": total.pieces,
            "woven": total.woven,
            "restored": total.restored,
            "records": total.records,
            "recoveries": total.recoveries,
            "faults": dict(total.faults),
            "errors": dict(total.errors),
            "strategies": dict(total.strategies),
        }
        print(json.dumps(content))
        return
    print(
        f"{total.runs} runs in {seconds:.0f} s, {total.events} events,"
        f" {total.virtual_s / 3600:.1f} h of virtual time, {total.elements} elements checked,"
        f" {total.recoveries} recoveries of the journal, {total.restored} from checkpoints"
    )
    print("faults:", _listed(total.faults))
    print("decided about faults:", _listed(total.strategies))
    print("errors that trainers deserved:", _listed(total.errors))
    print("failed seeds:", ", ".join(map(str, sorted(total.failed))) or "none")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.most_common()) or "none"


if __name__ == "__main__":
    sys.exit(main())

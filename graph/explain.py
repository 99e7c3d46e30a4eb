"""A plan in words, for `penstock explain` and the log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .analysis import analyse

if TYPE_CHECKING:
    from .plan import Plan

_TITLES = {
    "split": "splits",
    "worker": "on the workers",
    "client": "at the client",
    "cache": "cached",
    "move": "moved",
    "order": "order",
    "random": "random numbers",
    "replay": "not replayable",
}


@dataclass(frozen=True)
class Explanation:
    """What runs where, and why: `str()` for people, `to_dict()` for programs."""

    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON-able values."""
        plan = self.plan
        return {
            "fingerprint": plan.fingerprint,
            "ordered": plan.ordered,
            "lanes": plan.lanes,
            "cardinality": plan.cardinality,
            "element_spec": repr(plan.element_spec),
            "rebatch": plan.rebatch,
            "streams": [
                {
                    "fingerprint": stream.fingerprint,
                    "source": stream.source,
                    "steps": list(stream.steps),
                    "num_splits": stream.num_splits,
                    "bytes": len(stream.blob),
                    "shuffled": stream.shuffled,
                    "replayable": stream.replayable,
                    "components": [
                        {"dtype": c.dtype, "shape": None if c.shape is None else list(c.shape)}
                        for c in stream.components
                    ],
                    "cache": None if stream.cache is None else asdict(stream.cache),
                }
                for stream in plan.streams
            ],
            "client_steps": list(plan.client_steps),
            "notes": [
                {"kind": note.kind, "where": note.where, "text": note.text} for note in plan.notes
            ],
        }

    def __str__(self) -> str:
        plan = self.plan
        lines = [f"dataset {plan.fingerprint[:12]}: {plan.element_spec}"]
        for number, stream in enumerate(plan.streams):
            facts = [f"{stream.num_splits} split{'s' if stream.num_splits != 1 else ''}"]
            facts += ["shuffled"] if stream.shuffled else []
            facts += [] if stream.replayable else ["not replayable"]
            lines.append(f"stream {number}: {stream.source} ({', '.join(facts)})")
            lines.append(f"  workers run: {' > '.join(stream.steps)}")
            if stream.cache is not None:
                rest = ", which is all" if stream.cache.whole else ""
                lines.append(f"  can be cached: {stream.cache.where}{rest}")
        lines.append(f"client runs: {' > '.join(plan.client_steps) or 'nothing more'}")
        lines.append("order: the source's, one lane" if plan.ordered else "order: mixed by lanes")
        for kind, title in _TITLES.items():
            chosen = [note for note in plan.notes if note.kind == kind]
            if chosen:
                lines.append(f"{title}:")
                lines.extend(f"  {note.where}: {note.text}" for note in chosen)
        return "\n".join(lines)


def explain(
    ds: Any,
    *,
    lanes: int | None = None,
    exact: bool = True,
    strict: bool = False,
    cache: bool = False,
) -> Explanation:
    """Analyses a dataset and explains the plan; see `analyse` for the arguments and errors."""
    return Explanation(analyse(ds, lanes=lanes, exact=exact, strict=strict, cache=cache))

"""Analysis of tf.data pipelines: what runs on the workers, how it splits, what the client does.

Theory of operation. `analyse` takes a dataset's GraphDef (`capture`, `ir`) and

1. *rewrites* it so that more of it is local (`moves`): repeats float up, takes sink;
2. *cuts* it (`cut`) with the table of ops (`ops`): bottom up, each op extends the part below it
   for as long as running it split by split is the same as running it once. Each part is a stream;
3. makes each part a *template* (`template`): deterministic, seeds and source rows left open;
4. writes the template, rows and split table into a blob (`split`).

A worker reads the blob (`load_stream`) and fills in one split's rows and seeds: the permutation of
the source and the seeds of the ops are functions of (seed, epoch, split) alone (`seeds`). The
client re-applies what is above the cut to the streams' elements (`Plan.apply_suffix`, `suffix`), so
that the result is that of a local run, whatever the ops.
"""

from .analysis import analyse
from .explain import Explanation, explain
from .plan import Note, Plan, Stream
from .spec import unbatched
from .split import LoadedStream, load_stream

__all__ = [
    "Explanation",
    "LoadedStream",
    "Note",
    "Plan",
    "Stream",
    "analyse",
    "explain",
    "load_stream",
    "unbatched",
]

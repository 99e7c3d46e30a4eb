"""Analysis of tf.data pipelines: what runs on the workers, how it splits, what the client does.

Theory of operation. `analyse` takes a dataset's GraphDef (`capture`, `ir`) and

1. *rewrites* it so that more of it is local (`moves`): repeats float up, takes sink;
2. *cuts* it (`cut`) with the table of ops (`ops`): bottom up, each op extends the part below it
   for as long as running it split by split is the same as running it once. Each part is a stream;
3. makes each part a *template* (`streams`, `template`): deterministic, seeds and source rows left
   open. A part with a cache point (`points`) becomes two: a *head*, the same in every epoch and
   every job, which may be cached, and the *tail* that follows it. Random ops in functions become
   stateless, keyed by the number of the element (`keyed`, `stateless`, `generators`);
4. writes the templates, rows and split table into a blob (`split`).

A worker reads the blob (`loaded`) and fills in one split's rows and seeds (`forms`): the
permutation of the source and the seeds of the ops are functions of (seed, epoch, split) alone
(`seeds`), those of a head of the split. It can put a writer between head and tail, or a reader in
the head's place (`cached`, `tee`). The client re-applies what is above the cut to the streams'
elements (`Plan.apply_suffix`, `suffix`), so that the result is that of a local run, whatever the
ops.
"""

from .analysis import analyse
from .cached import LoadedCache
from .cutting import cut, is_cut
from .explain import Explanation, explain
from .loaded import LoadedStream, load_stream
from .marks import cache_here
from .plan import CachePoint, Note, Plan, Stream
from .spec import flat_specs, pack_element, singles, unbatched

__all__ = [
    "CachePoint",
    "Explanation",
    "LoadedCache",
    "LoadedStream",
    "Note",
    "Plan",
    "Stream",
    "analyse",
    "cache_here",
    "cut",
    "explain",
    "flat_specs",
    "is_cut",
    "load_stream",
    "pack_element",
    "singles",
    "unbatched",
]

"""The worker: runs attempts (one run of one split each) and serves their chunks to clients.

Theory of operation. `attempts.AttemptBook` is the pure core: it alone knows which attempts are
held, which chunks wait for an acknowledgement, who fetches what and who may produce. It has no
clock, no I/O and no threads; `messages` holds the words in and out of it. Around it:

- `exchange` guards the book with one lock and lets threads wait for what it decides;
- `producers` runs one thread an attempt, which takes its graph from `datasets` and makes chunks
  with `pipeline`; `iterators` has all that TensorFlow does for it;
- `recorder` begins a run from a checkpoint and takes new ones, when `checkpointing` (pure) says so;
  `keeper` is the thread that brings them to `checkpoints`, the files, as `checkpoint_file` has it;
- `cached` lets a run read its split's segment, or write it, through `segment_io`; `cache` finishes
  segments and tells the dispatcher; `segments` is the directory (`segment`, `partial`, `leftover`,
  `cache_files`, `cache_room`), and `segment_file` what stands in a file;
- `stream` listens on TCP and a Unix socket, with a reader and a sender thread a `connection`;
- `last_words` says in a file what runs, for the process after this one;
- `agent` keeps the long poll with the dispatcher going over a `link`, and puts the book right;
- `server` puts these together into a process.

The dispatcher may die at any time: what runs goes on running and being served.
"""

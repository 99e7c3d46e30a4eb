"""A stream in a worker: a blob that was read, and the datasets of its splits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack

from ..errors import UsageError
from .cached import CachedStream, load_cache
from .fed import FedStream, fed_stream
from .forms import Form, Half, joined
from .spec import components_of, fixed_bytes
from .split import VERSION, SplitTable
from .stamps import stamp, string_columns

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..proto.spec import ComponentSpec
    from .cached import LoadedCache

    Arrays = tuple[NDArray[Any], ...]


class LoadedStream:
    """A stream in a worker: makes the dataset of any of its splits. Thread-safe."""

    def __init__(self, content: dict[str, Any], cache_key: str = "") -> None:
        """From an unpacked blob; use `load_stream`."""
        below = content.get("head")
        self._table = replace(SplitTable(*content["table"]), frozen=below is not None)
        self._cached: CachedStream | None = None
        self._cache: LoadedCache | None = None
        if below is None:
            half = Half.load(content)
            self._halves = [half]
            # The half's graph is the form's from here on.
            self._form = Form(half.graph, self._halves, self._table)
        else:
            head = Half.load(below)
            half = Half.load(content, head=head)
            self._halves = [head, half]
            self._form = Form(joined(head.graph, half.graph), self._halves, self._table)
            if cache_key:
                self._cache = load_cache(cache_key, below["whole"], head.spec)
                if not self._cache.whole:
                    self._cached = CachedStream(head, half, self._table, self._cache)
        self._spec = half.spec

    @property
    def num_splits(self) -> int:
        """How many splits the stream has."""
        return self._table.count

    @property
    def components(self) -> tuple[ComponentSpec, ...]:
        """The flat dense components of an element."""
        return components_of(self._spec)

    @property
    def fixed_element_bytes(self) -> int | None:
        """The size of every element, where dtypes and shapes fix it."""
        return fixed_bytes(self._spec)

    @property
    def cache(self) -> LoadedCache | None:
        """What is cached of the stream, if it has a cache point."""
        return self._cache

    def split_dataset(self, split: int, *, seed: int, epoch: int) -> Any:
        """The elements of one split, as flat tuples of dense tensors, in their one order."""
        self._table.check(split)
        return self._form.dataset(self._spec, split, seed=seed, epoch=epoch)

    def fed(self) -> FedStream | None:
        """The stream as one whose splits are fed to one iterator; None if it cannot be one."""
        return fed_stream(self._form, self._spec)

    def put_dataset(
        self, split: int, *, seed: int, epoch: int, size: int, write: Callable[[int, Arrays], None]
    ) -> Any:
        """The elements of `split_dataset`; what passes the cache point is written, too.

        The state of an iterator holds what has passed the cache point and not come out yet. An
        iterator that is restored goes on to write at the element after that.

        Args:
            split: which one.
            seed: of the job.
            epoch: of the job.
            size: how many elements to write at a time.
            write: is given the index in the head of the first element, and one array for each of
                the head's components: of `size` elements, or of those that are left at the end, or
                if the head is not stackable, of a single one without a leading dimension. Called
                in order, from TensorFlow's threads. It may keep the arrays and must not change
                them. What it raises is the error of the dataset.

        Raises:
            UsageError: the stream has no tail that could run apart from what is cached.
        """
        self._table.check(split)
        return self._apart().put(split, seed=seed, epoch=epoch, size=size, write=write)

    def get_dataset(
        self, split: int, *, seed: int, epoch: int, chunks: int, read: Callable[[int], Arrays]
    ) -> Any:
        """The elements of `split_dataset`, made by the tail from what is read.

        Args:
            split: which one.
            seed: of the job.
            epoch: of the job.
            chunks: how many chunks the split's head has been divided into.
            read: gives the elements of chunk 0, 1, …: one array for each of the head's components,
                with a leading dimension; if the head is not stackable, those of element 0, 1, …,
                without one. Called from TensorFlow's threads, again for the same chunk by an
                iterator that is restored in it. What it raises is the error of the dataset.

        Raises:
            UsageError: the stream has no tail that could run apart from what is cached.
        """
        self._table.check(split)
        return self._apart().get(split, seed=seed, epoch=epoch, chunks=chunks, read=read)

    def stamp(self, split: int) -> str | None:
        """A hexadecimal digest of names, sizes and times of change of the files of a split.

        "0" if it reads none that is known; None if one cannot be asked: then nothing should be
        cached.

        Raises:
            UsageError: the stream has no cache point.
        """
        self._table.check(split)
        if self._cache is None:
            raise UsageError("the stream has no cache point")
        return stamp(self._halves, self._table, split)

    def describe_split(self, split: int) -> str:
        """What a split reads, for messages: file names, or a range of the source."""
        self._table.check(split)
        table = self._table
        if table.mode == "one":
            return "the whole source"
        start, stop = table.bounds(split)
        if table.mode == "files":
            for column in string_columns(self._halves):
                names = column[start:stop].numpy()
                return ", ".join(name.decode(errors="replace") for name in names)
        what = "positions of the permuted source" if table.permute else "elements of the source"
        return f"{what} [{start}, {stop})"

    def _apart(self) -> CachedStream:
        if self._cached is None:
            raise UsageError("nothing of the stream follows a cache point")
        return self._cached


def load_stream(blob: bytes) -> LoadedStream:
    """Reads the blob of a stream.

    Raises:
        UsageError: the blob is of another version of the format, or is not one at all.
    """
    try:
        envelope = msgpack.unpackb(blob)
        version, body = envelope["version"], envelope.get("body", b"")
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise UsageError(f"not the blob of a stream: {error}") from error
    if version != VERSION:
        raise UsageError(f"the stream's blob is of version {version}, this is {VERSION}")
    return LoadedStream(msgpack.unpackb(body), envelope.get("cache_key", ""))

"""TensorFlow takes over the memory that a frame was read into, and gives it back."""

from __future__ import annotations

import gc
import io
import weakref

import numpy as np

from penstock.proto.chunk import Chunk, decode, encode
from penstock.proto.wire import FrameType, aligned_empty, encode_frame, read_frame


def test_tensorflow_adopts_the_receive_buffer_and_lets_go_of_it() -> None:
    import tensorflow as tf

    images = np.arange(4 * 32 * 32 * 3, dtype=np.float32).reshape(4, 32, 32, 3)
    labels = np.arange(4, dtype=np.int64)
    header, buffers = encode(Chunk.from_stacked(0, [images, labels]), {"attempt": 1})
    data = b"".join(encode_frame(FrameType.CHUNK, header, buffers))
    buffer: list[np.ndarray] = []

    def allocate(nbytes: int) -> memoryview:
        buffer.append(np.frombuffer(aligned_empty(nbytes), np.uint8))
        return buffer[0].data

    frame = read_frame(io.BytesIO(data).readinto, allocate=allocate)
    assert frame is not None
    chunks = [decode(frame.header, frame.payload)]
    addresses = [array.ctypes.data for array in next(chunks[0].runs())[1]]
    dataset = tf.data.Dataset.from_generator(
        lambda: (arrays for _, arrays in chunks.pop().runs()),
        output_signature=(
            tf.TensorSpec((None, 32, 32, 3), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    tensors = next(iter(dataset))
    assert [np.asarray(memoryview(tensor)).ctypes.data for tensor in tensors] == addresses
    assert (tensors[0].numpy() == images).all()

    dead = weakref.ref(buffer.pop())
    del frame
    gc.collect()
    assert dead() is not None, "the tensors live in this memory"
    del tensors, dataset
    gc.collect()
    assert dead() is None, "nothing holds the buffer any more: it could be used again"


def test_every_tensorflow_dtype_has_a_name() -> None:
    import tensorflow as tf

    from penstock.proto.spec import dtype_name

    seen = set()
    for number in range(1, 60):
        try:
            dtype = tf.as_dtype(number)
        except TypeError:
            continue
        if dtype in (tf.resource, tf.variant):
            continue
        assert dtype_name(np.dtype(dtype.as_numpy_dtype)) == dtype.name
        seen.add(dtype.name)
    assert {"string", "bfloat16", "float8_e5m2", "int4", "qint32"} <= seen

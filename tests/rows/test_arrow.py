"""Arrow's C data interface as a consumer in C sees it: what is shared, and when it is given back (SPEC 14.9)."""

from __future__ import annotations

import ctypes
import errno
import gc
import signal
from collections.abc import Iterator
from threading import Thread
from typing import Any

import numpy as np
import pytest

from sgfast.rows.arrow import Array, Field, schema_capsule, stream_capsule


class Schema(ctypes.Structure):
    pass


class Data(ctypes.Structure):
    pass


class Stream(ctypes.Structure):
    pass


RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Schema._fields_ = [
    ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p), ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.POINTER(Schema)), ("release", RELEASE), ("private_data", ctypes.c_void_p),
]  # fmt: skip
Data._fields_ = [
    ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Data))), ("dictionary", ctypes.POINTER(Data)), ("release", RELEASE),
    ("private_data", ctypes.c_void_p),
]  # fmt: skip
Stream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)), ("release", RELEASE),
    ("private_data", ctypes.c_void_p),
]  # fmt: skip

FIELDS = [Field("n", b"S", False), Field("word", b"u", True)]


class Held:
    """Buffers of which Python says whether somebody still holds them: a bytearray cannot grow while it is exported."""

    def __init__(self) -> None:
        self.buffers = [
            bytearray(np.array([7, 8, 9], np.uint16).tobytes()), bytearray(b"\x05"),
            bytearray(np.array([1, 0, 0], np.int32).tobytes()), bytearray(np.array([0, 2, 3], np.int32).tobytes()),
            bytearray(b"abc"),
        ]  # fmt: skip

    def batch(self) -> list[Array]:
        numbers, valid, codes, offsets, text = self.buffers
        return [Array(3, (None, numbers)), Array(3, (valid, codes), Array(2, (None, offsets, text)))]

    def held(self) -> list[bool]:
        return [is_held(buffer) for buffer in self.buffers]


def is_held(buffer: bytearray) -> bool:
    try:
        buffer.append(0)
    except BufferError:
        return True
    buffer.pop()
    return False


def pointer(capsule: object, name: bytes, kind: Any) -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.cast(get(capsule, name), ctypes.POINTER(kind))


def taken(capsule: object) -> Stream:
    """The stream moved out of its capsule, as a consumer does."""
    source = pointer(capsule, b"arrow_array_stream", Stream)
    stream = Stream()
    ctypes.memmove(ctypes.byref(stream), source, ctypes.sizeof(Stream))
    source.contents.release = RELEASE()
    return stream


def next_of(stream: Stream) -> Data:
    data = Data()
    assert stream.get_next(ctypes.addressof(stream), ctypes.addressof(data)) == 0
    return data


def release(struct: Any) -> None:
    struct.release(ctypes.addressof(struct))
    assert not struct.release


def test_a_schema_says_names_and_types() -> None:
    capsule = schema_capsule(FIELDS)
    schema = pointer(capsule, b"arrow_schema", Schema).contents
    children = [schema.children[n].contents for n in range(schema.n_children)]
    assert (schema.format, [child.name for child in children]) == (b"+s", [b"n", b"word"])
    assert [(child.format, child.flags) for child in children] == [(b"S", 2), (b"i", 2)]
    assert not children[0].dictionary and children[1].dictionary.contents.format == b"u"
    release(schema)
    del capsule
    gc.collect()


def test_buffers_are_shared_and_given_back_when_released() -> None:
    held = Held()
    stream = taken(stream_capsule(FIELDS, iter([held.batch()])))
    assert not any(held.held())
    data = next_of(stream)
    assert all(held.held()) and (data.length, data.n_children, data.n_buffers) == (3, 2, 1)
    numbers, words = (data.children[n].contents for n in range(2))
    assert (numbers.n_buffers, numbers.null_count, words.n_buffers, words.null_count) == (2, 0, 2, -1)
    assert not numbers.buffers[0]
    address = ctypes.addressof((ctypes.c_char * 1).from_buffer(held.buffers[0]))
    assert numbers.buffers[1] == address
    assert ctypes.string_at(words.dictionary.contents.buffers[2], 3) == b"abc"
    # The end of the stream is an array without `release`.
    assert not next_of(stream).release
    release(stream)
    assert all(held.held())
    release(data)
    gc.collect()
    assert not any(held.held())


def test_a_column_that_was_moved_away_outlives_its_table() -> None:
    held = Held()
    stream = taken(stream_capsule(FIELDS, iter([held.batch()])))
    data = next_of(stream)
    moved = Data()
    ctypes.memmove(ctypes.byref(moved), data.children[1], ctypes.sizeof(Data))
    data.children[1].contents.release = RELEASE()
    release(data)
    release(stream)
    assert held.held() == [False, True, True, True, True]
    assert ctypes.string_at(moved.dictionary.contents.buffers[2], 3) == b"abc"
    # Whoever holds it may be another thread.
    thread = Thread(target=release, args=(moved,))
    thread.start()
    thread.join()
    assert not any(held.held())


def test_what_nobody_takes_is_given_back() -> None:
    held = Held()
    given = [False]

    class Batches:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> list[Array]:
            return held.batch()

        def __del__(self) -> None:
            given[0] = True

    capsule = stream_capsule(FIELDS, Batches())
    release(next_of(pointer(capsule, b"arrow_array_stream", Stream).contents))
    assert not any(held.held()) and given == [False]
    del capsule
    assert given == [True]


def test_an_error_on_the_way_is_an_error_with_its_text() -> None:
    held = Held()

    def batches(error: BaseException) -> Iterator[list[Array]]:
        yield held.batch()
        raise error

    wrong = [held.batch()[:1]]
    for source, code, text in (
        (batches(ValueError("no \udce4 words")), errno.EIO, b"no \\udce4 words"),
        (batches(MemoryError()), errno.ENOMEM, b"MemoryError"),
        (iter([held.batch(), *wrong]), errno.EIO, b"a batch has another number of columns than the table"),
        (iter([held.batch(), [Array(3, (None, "text"))] * 2]), errno.EIO, b"bytes-like"),
        (iter([held.batch(), [Array(3, (None, b"", b"", b""))] * 2]), errno.EIO, b"too many buffers"),
    ):
        stream = taken(stream_capsule(FIELDS, source))
        release(next_of(stream))
        assert stream.get_last_error(ctypes.addressof(stream)) is None
        data = Data()
        assert stream.get_next(ctypes.addressof(stream), ctypes.addressof(data)) == code
        assert not data.release and text in stream.get_last_error(ctypes.addressof(stream))
        release(stream)
    gc.collect()
    assert not any(held.held())


def test_an_interrupt_while_a_batch_is_made_stays_an_interrupt() -> None:
    def batches() -> Iterator[list[Array]]:
        raise KeyboardInterrupt
        yield

    stream, data = taken(stream_capsule(FIELDS, batches())), Data()
    # A suite that runs in the background has interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            assert stream.get_next(ctypes.addressof(stream), ctypes.addressof(data)) == errno.EIO
            for _ in range(100):
                str(data)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not data.release
    release(stream)

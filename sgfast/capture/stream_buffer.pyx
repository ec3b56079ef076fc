"""A window that slides over a binary stream: whole records are parsed in place, the tail moves to the front.

The window starts at 512 KiB, which the second-level cache of common machines holds. It doubles when a record takes
more than half of it, so never beyond twice the bytes that arrived, whatever a length field claims. There may be two of
them, in turn.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memmove

from sgfast.capture.scan cimport LONGEST_RECORD

from sgfast.capture.streams import wait_until_readable


cdef enum:
    FIRST_CAPACITY = 512 * 1024                 # bytes
    LAST_CAPACITY = 2 * LONGEST_RECORD


cdef class StreamBuffer:
    """The bytes of ``stream`` (``readinto``, unbuffered) that have been read and not yet taken."""

    def __cinit__(self, stream, *, bint two_windows=False):
        self.stream = stream
        self.two_windows = two_windows
        self._allocate(FIRST_CAPACITY)

    cdef int _allocate(self, Py_ssize_t capacity) except -1:
        # Moves the window to the front of new memory. The old one stays as it is for whoever holds it.
        self.other = None
        return self._move_to(memoryview(bytearray(capacity)), capacity)

    cdef int _move_to(self, object memory, Py_ssize_t capacity) except -1:
        cdef uint8_t* data = <uint8_t*>PyByteArray_AS_STRING(memory.obj)
        if self.end > self.start:
            memcpy(data, self.data + self.start, <size_t>(self.end - self.start))
        self.memory = memory
        self.data = data
        self.capacity = capacity
        self.data_offset += self.start
        self.end -= self.start
        self.start = 0
        self.handed_out = False
        return 0

    cdef int _make_room(self) except -1:
        cdef Py_ssize_t length = self.end - self.start
        # A move never costs more than what was taken since the last one, even for streams of single bytes.
        cdef bint full = self.end == self.capacity
        if full and self.start < length and self.capacity < LAST_CAPACITY:
            self._allocate(min(self.capacity * 2, LAST_CAPACITY))
        elif self.start > 0 and (full or self.start >= length):
            if self.two_windows and self.handed_out:
                memory = self.other if self.other is not None else memoryview(bytearray(self.capacity))
                self.other = self.memory
                self._move_to(memory, self.capacity)
                return 0
            memmove(self.data, self.data + self.start, <size_t>length)
            self.data_offset += self.start
            self.start = 0
            self.end = length
        if self.end == self.capacity:
            raise MemoryError("a record outgrew the window")
        return 0

    cdef bint fill(self) except -1:
        cdef object count
        cdef Py_ssize_t room, got
        if self.ended:
            return False
        self._make_room()
        room = self.capacity - self.end
        while True:
            PyErr_CheckSignals()
            try:
                count = self.stream.readinto(self.memory[self.end:])
            except InterruptedError:
                continue
            except BlockingIOError:
                count = None
            if count is not None:
                break
            wait_until_readable(self.stream)
        got = count
        if not 0 <= got <= room:
            raise OSError(f"the stream claims {got} bytes for a buffer of {room}")
        self.end += got
        self.bytes_read += got
        self.ended = got == 0
        return got > 0

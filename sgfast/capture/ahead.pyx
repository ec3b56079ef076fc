"""Windows of a capture file that are read before they are needed. ``ahead.pxd`` explains how."""

import io
import os
import stat

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport int64_t, uint8_t

from sgfast.core.base.file_reads cimport FileReads, Read


cdef enum:
    WORTHWHILE = 4      # windows; in a smaller file little is gained


@cython.no_gc_clear     # __dealloc__ needs everything
cdef class WindowsAhead:
    """The windows of ``stream`` from ``position`` on, up to the last whole one in ``size`` bytes."""

    def __cinit__(self, FileReads reads not None, stream, int64_t position, int64_t size):
        self.reads = reads
        self.stream = stream
        self.descriptor = stream.fileno()
        self.taken = position
        self.end = size
        self.memories = []

    @staticmethod
    def begin(FileReads reads not None, stream):
        """None if ``stream`` is no regular file, or has only a little left."""
        if not isinstance(stream, io.FileIO):
            return None
        try:
            found = os.fstat(stream.fileno())
            position = stream.tell()
        except OSError:     # a pipe
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size - position < WORTHWHILE * WINDOW:
            return None
        return WindowsAhead(reads, stream, position, found.st_size)

    def __dealloc__(self):
        if self.memories is not None:
            self.drop_all()

    cdef bint has_more(self):
        cdef Py_ssize_t count = len(self.memories)
        return count < AHEAD and self.taken + (count + 1) * WINDOW <= self.end

    cdef bint ask(self, object memory) except -1:
        cdef Py_ssize_t count = len(self.memories)
        cdef uint8_t* to = <uint8_t*>PyByteArray_AS_STRING(memory.obj) + HEADROOM
        cdef Read* read = self.reads.want(self.descriptor, to, WINDOW, self.taken + count * WINDOW)
        if read == NULL:
            return False
        self.asked[count] = read
        self.memories.append(memory)
        return True

    cdef object take(self):
        cdef Py_ssize_t got, i
        if not self.memories:
            return None
        with nogil:
            got = self.reads.finish(self.asked[0])
        memory = self.memories.pop(0)
        for i in range(len(self.memories)):
            self.asked[i] = self.asked[i + 1]
        if got < WINDOW:
            return None
        self.taken += WINDOW
        return memory

    cdef int stop(self) except -1:
        self.drop_all()
        self.stream.seek(self.taken)
        return 0

    cdef int drop_all(self) except -1:
        cdef Py_ssize_t count = len(self.memories)
        cdef Py_ssize_t i
        with nogil:
            for i in range(count):
                self.reads.drop(self.asked[i])
        self.memories.clear()
        return 0

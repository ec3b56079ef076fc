"""Windows of a capture file that are read before they are needed. ``ahead.pxd`` explains how."""

import io
import os
import stat

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint8_t

from sgfast.core.base.file_reads cimport FileReads

cdef extern from *:
    """
    #include <unistd.h>
    """
    int close(int descriptor) nogil

cdef enum:
    WORTHWHILE = 4      # windows; in a smaller file little is gained


@cython.no_gc
cdef class WindowsAhead:
    """The windows of a file from ``position`` on, up to the last whole one in ``size`` bytes. ``descriptor``: the file,
    which this closes.
    """

    def __cinit__(self, FileReads reads not None, int descriptor, int64_t position, int64_t size):
        self.reads = reads
        self.descriptor = descriptor
        self.taken = position
        self.end = size

    @staticmethod
    def begin(FileReads reads not None, stream):
        """The windows of ``stream``; None if it is no regular file, or has only a little left."""
        if not isinstance(stream, io.FileIO):
            return None
        try:
            found = os.fstat(stream.fileno())
            position = stream.tell()
            if not stat.S_ISREG(found.st_mode) or found.st_size - position < WORTHWHILE * WINDOW:
                return None
            return WindowsAhead(reads, os.dup(stream.fileno()), position, found.st_size)
        except OSError:     # a pipe, or too many open files
            return None

    def __dealloc__(self):
        self.drop_all()
        close(self.descriptor)

    cdef bint has_more(self) noexcept:
        return self.count < AHEAD and self.taken + (self.count + 1) * WINDOW <= self.end

    cdef bint ask(self, object memory) except -1:
        cdef uint8_t* to = <uint8_t*>PyByteArray_AS_STRING(memory.obj) + HEADROOM
        self.asked[self.count] = self.reads.want(self.descriptor, to, WINDOW, self.taken + self.count * WINDOW)
        if self.asked[self.count] == NULL:
            return False
        Py_INCREF(memory)
        self.memories[self.count] = <PyObject*>memory
        self.count += 1
        return True

    cdef object take(self):
        cdef Py_ssize_t got, i
        if self.count == 0:
            return None
        with nogil:
            got = self.reads.finish(self.asked[0])
        memory = <object>self.memories[0]
        Py_DECREF(memory)
        self.count -= 1
        for i in range(self.count):
            self.asked[i] = self.asked[i + 1]
            self.memories[i] = self.memories[i + 1]
        if got < WINDOW:
            return None
        self.taken += WINDOW
        return memory

    cdef void drop_all(self) noexcept:
        cdef Py_ssize_t i
        with nogil:
            self.reads.drop(self.asked, self.count)
        for i in range(self.count):
            Py_DECREF(<object>self.memories[i])
        self.count = 0

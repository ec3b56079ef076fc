# Windows of a capture file that are read before they are needed, by whichever thread is idle (file_reads.pxd).

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t

from sgfast.core.base.file_reads cimport FileReads, Read

cdef enum:
    WINDOW = 512 * 1024     # bytes
    # Bytes before a window, for a record that begins in the window before it. Linux hands out packets of 64 KiB, and
    # headers come on top.
    HEADROOM = 128 * 1024
    AHEAD = 4               # windows


# As threads read into the memories, the garbage collector must not let go of them: it does not know them.
cdef class WindowsAhead:
    cdef FileReads reads
    cdef int descriptor     # a duplicate: threads still read after the stream has closed its own
    cdef int64_t taken      # offset in the file behind the last window that was taken, bytes
    cdef int64_t end        # size of the file when this was made, bytes
    # Those asked for, in order, and memoryviews of HEADROOM + WINDOW bytes.
    cdef Py_ssize_t count
    cdef Read* asked[AHEAD]
    cdef PyObject* memories[AHEAD]

    # Whether one more window may be asked for.
    cdef bint has_more(self) noexcept
    # Asks for the next window. False if there is no place for the read.
    cdef bint ask(self, object memory) except -1
    # Waits for the next window and returns its memory. Returns None if no window was asked for, or if the file has
    # become shorter.
    cdef object take(self)
    cdef void drop_all(self) noexcept

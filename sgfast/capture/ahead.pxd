# Windows of a capture file that are read before they are needed, by whichever thread is idle (file_reads.pxd). Whoever
# walks over the records does not wait for the kernel to copy them then.

from libc.stdint cimport int64_t

from sgfast.core.base.file_reads cimport FileReads, Read

cdef enum:
    WINDOW = 512 * 1024     # bytes
    # Bytes before a window, for the part of a record that is in the window before it.
    HEADROOM = 64 * 1024
    AHEAD = 4               # windows


cdef class WindowsAhead:
    cdef FileReads reads
    cdef object stream
    cdef int descriptor
    cdef int64_t taken      # offset in the file behind the last window that was taken, bytes
    cdef int64_t end        # size of the file when this was made, bytes
    # Those asked for, in order. Each memory has at least HEADROOM + WINDOW bytes.
    cdef Read* asked[AHEAD]
    cdef list memories

    # Whether one more window may be asked for.
    cdef bint has_more(self)
    # Asks for the next window. False if there is no place for the read.
    cdef bint ask(self, object memory) except -1
    # Waits for the next window, and returns its memory. None if nothing was asked for, or if the file has become
    # shorter.
    cdef object take(self)
    # The stream goes on behind the last window that was taken.
    cdef int stop(self) except -1
    # After this the file may be closed.
    cdef int drop_all(self) except -1

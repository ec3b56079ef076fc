# Windows of a capture file that are read before they are needed, by whichever thread is idle (file_reads.pxd).
#
# After a core has read a window, the window's bytes are in its cache. So the thread that reads a window also finds its
# records. On another core, each record would be a cache miss.
#
# A record may begin in one window and end in the next. So the thread has to guess where the first record of its window
# begins. The reader goes through the windows in order, and knows where that record begins. If the guess was right, the
# reader uses the records that were found. Otherwise it finds them itself.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t

from sgfast.capture.pcap cimport PcapFormat
from sgfast.capture.pcapng cimport PcapngFormat
from sgfast.capture.scan cimport Scan
from sgfast.core.base.file_reads cimport FileReads, Read
from sgfast.core.base.frames cimport BatchPool, FrameBatch, Preparation

cdef enum:
    # Bytes. The window, its frames and their preparation fit in the second-level cache of common machines.
    WINDOW = 256 * 1024
    # Bytes before a window, for a record that begins in the window before it. Linux hands out packets of 64 KiB, and
    # headers come on top.
    HEADROOM = 128 * 1024
    AHEAD = 4               # windows
    MOST_LATE = 4           # windows


cdef struct Window:
    Read* asked
    PyObject* memory        # a memoryview of HEADROOM + WINDOW bytes
    # Memory for the records that are found; NULL if none are to be found. The first frame is left free. It is for the
    # record that begins in the window before and ends in this one.
    PyObject* batch
    Scan scan
    const PcapFormat* pcap  # or NULL
    PcapngFormat pcapng     # the reader's state when the window was requested
    const Preparation* preparation      # preparation of the records that are found, or NULL
    void* prepared
    # The thread that read the window sets these:
    const uint8_t* first    # the first of the records found, or NULL


# As threads read into the memories, the garbage collector must not let go of them: it does not know them.
cdef class WindowsAhead:
    cdef FileReads reads
    cdef int descriptor     # a duplicate: threads still read after the stream has closed its own
    cdef int64_t taken      # offset in the file behind the last window that was taken, bytes
    cdef int64_t end        # size of the file when this was made, bytes
    # The format of the file: one of these two. Both are NULL if threads are not to find records.
    cdef const PcapFormat* pcap
    cdef const PcapngFormat* pcapng
    cdef uint32_t vpc       # Frame.vpc
    cdef BatchPool pool
    cdef const Preparation* preparation     # preparation of records, or NULL
    # A ring: the requested windows are `count` places from `oldest` on.
    cdef Py_ssize_t oldest
    cdef Py_ssize_t count
    cdef Window* windows[AHEAD]
    cdef Window[AHEAD + MOST_LATE] all
    # Windows that nobody uses at the moment.
    cdef Window* spare[AHEAD + MOST_LATE]
    cdef int spares
    # Windows that a thread has not read in time. It may still write to them.
    cdef Window* late[MOST_LATE]
    cdef int late_count
    cdef readonly bint is_late      # the window that was to be taken is late: read it again
    # The records found in the window that was taken last. `batch` is None if there are none. `found` is valid until the
    # next call of `ask`.
    cdef FrameBatch batch
    cdef const Window* found

    # Whether one more window may be requested.
    cdef bint has_more(self) noexcept
    # Asks for the next window. False if there is no place for the read.
    cdef bint ask(self, object memory) except -1
    # Waits for the next window and returns its memory. Returns None if no window was requested, or if the file has
    # become shorter. Unless the call is `patient`, it also returns None, and sets `is_late`, if the read takes long.
    cdef object take(self, bint patient)
    # Reads a late window once more, with other memory.
    cdef object read_again(self, object memory)
    cdef int fill_in(self, Window* window, object memory) except -1
    cdef object taken_as(self, Window* window, Py_ssize_t got)
    cdef void forget_late(self) noexcept
    cdef void drop_all(self) noexcept
    cdef void let_go(self, Window* window) noexcept

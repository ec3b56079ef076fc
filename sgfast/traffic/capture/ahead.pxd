# Windows of a capture file that any idle thread reads before they are needed (file_reads.pxd).
#
# After a core has read a window, the window's bytes are in its cache. So the thread that reads a window also finds the
# records in it. On another core, each record would be a cache miss.
#
# A record may begin in one window and end in the next. So the thread must guess where the first record of its window
# begins. The reader goes through the windows in order, and knows the place of that record. If the guess is right, the
# reader uses the records that the thread found. Otherwise the reader finds the records itself.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t

from sgfast.traffic.capture.pcap cimport PcapFormat
from sgfast.traffic.capture.pcapng cimport PcapngFormat
from sgfast.traffic.capture.scan cimport Scan
from sgfast.core.base.file_reads cimport FileReads, Read
from sgfast.core.base.frames cimport BatchPool, FrameBatch, Preparation

cdef enum:
    # Bytes. The window, its frames and their preparation fit in the second-level cache of common machines.
    WINDOW = 256 * 1024
    # Bytes before a window, for a record that begins in the window before it. Linux passes on packets of up to 64 KiB,
    # plus headers.
    HEADROOM = 128 * 1024
    AHEAD = 4               # the largest number of windows requested at a time
    MOST_LATE = 4           # the largest number of windows that are late at a time


cdef struct Window:
    Read* asked
    PyObject* memory        # a memoryview of HEADROOM + WINDOW bytes
    # Memory for the records that are found; NULL if the thread must not look for records. The first frame is left free,
    # for the record that begins in the window before and ends in this one.
    PyObject* batch
    Scan scan
    const PcapFormat* pcap  # or NULL
    PcapngFormat pcapng     # the reader's state when the window was requested
    const Preparation* preparation      # preparation of the records found, or NULL
    void* prepared
    # Set by the thread that read the window:
    const uint8_t* first    # the first record found, or NULL


# Threads read into the memory of the windows, so the garbage collector, which does not see threads, must not free it.
cdef class WindowsAhead:
    cdef FileReads reads
    cdef int descriptor     # a duplicate: threads still read after the stream has closed its own descriptor
    cdef int64_t taken      # offset in the file behind the last window that was taken, bytes
    cdef int64_t end        # size of the file when this object was made, bytes
    # The format of the file: one of these pointers is set. Both are NULL if threads must not look for records.
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
    # Windows that are not in use.
    cdef Window* spare[AHEAD + MOST_LATE]
    cdef int spares
    # Windows that a thread has not read in time. The thread may still write to them.
    cdef Window* late[MOST_LATE]
    cdef int late_count
    cdef readonly bint is_late      # the next window is late: read it again
    # The records found in the window that was taken last. `batch` is None if there are none. `found` is valid until the
    # next call of `ask`.
    cdef FrameBatch batch
    cdef const Window* found

    # Whether one more window may be requested.
    cdef bint has_more(self) noexcept
    # Requests the next window. Returns False if there is no place for the read.
    cdef bint ask(self, object memory) except -1
    # Waits for the next window and returns its memory. Returns None if no window was requested, or if the file has
    # become shorter. Unless the call is `patient`, it also returns None, and sets `is_late`, if the read takes long.
    cdef object take(self, bint patient)
    # Reads a late window again, into other memory. Returns that memory, as `take` does.
    cdef object read_again(self, object memory)
    cdef int fill_in(self, Window* window, object memory) except -1
    cdef object taken_as(self, Window* window, Py_ssize_t got)
    cdef void forget_late(self) noexcept
    cdef void drop_all(self) noexcept
    cdef void let_go(self, Window* window) noexcept

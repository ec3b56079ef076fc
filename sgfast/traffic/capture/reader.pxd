# The capture reader. With this file Cython code can call next_batch without an attribute lookup.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from sgfast.traffic.capture.ahead cimport WindowsAhead
from sgfast.traffic.capture.interfaces cimport InterfaceMarks
from sgfast.traffic.capture.pcap cimport PcapFormat
from sgfast.traffic.capture.pcapng cimport PcapngFormat
from sgfast.traffic.capture.scan cimport Scan
from sgfast.core.base.file_reads cimport FileReads
from sgfast.core.base.frames cimport BatchPool, FrameBatch


cdef enum Form:
    PCAP
    PCAPNG
    SNOOP


cdef class StreamBuffer:
    # data[start:end] holds the bytes that were read but not consumed. Consuming bytes advances `start`. `memory` owns
    # `data`: keep a reference to it as long as pointers into the window are in use.
    cdef object stream
    cdef object memory          # a memoryview, which also keeps its bytearray from being resized
    cdef uint8_t* data
    cdef Py_ssize_t capacity    # bytes
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    cdef int64_t data_offset    # offset of data[0] in the stream
    cdef int64_t bytes_read
    cdef bint ended
    # With several windows, returned bytes stay where they are while an object refers to their memory.
    cdef bint lasting
    cdef bint handed_out        # bytes were returned since the window last moved
    cdef list windows           # memory of the current capacity
    cdef WindowsAhead ahead     # or None

    # Waits for at least one more byte. Returns False at the end of the stream. May move the window's bytes. `need`: the
    # size of the record at `start`, if it is known.
    cdef bint fill(self, int64_t need=*) except -1
    cdef int _make_room(self) except -1
    cdef int _allocate(self, Py_ssize_t capacity) except -1
    cdef object _free_window(self)
    cdef int _move_to(self, object memory, Py_ssize_t capacity, Py_ssize_t start) except -1
    # Starts reading windows ahead if the stream is a large file.
    cdef int read_ahead(self, FileReads reads) except -1
    cdef bint _next_window(self) except -1


cdef class CaptureReader:
    cdef readonly str name
    cdef readonly object damage     # None until the end
    cdef readonly Py_ssize_t packets
    cdef readonly Py_ssize_t found_ahead
    cdef public uint32_t number     # this capture's number among all captures read, from 1, for Frame.position; 0: none
    cdef public object sample       # looks at each batch, or None
    cdef StreamBuffer buffer
    cdef FrameBatch batch           # the batch that is filled next; None with a pool
    cdef BatchPool pool             # source of batches that last, or None
    cdef Scan scan
    cdef PcapFormat pcap
    cdef PcapngFormat pcapng
    cdef Form form
    cdef InterfaceMarks interfaces  # or None
    cdef object decompressed        # the decompressing stream between file and buffer, or None
    cdef Py_ssize_t head_end        # length of the file header, bytes
    cdef bint is_part
    cdef bint is_behind_zeros       # the last packet was a record of zeros
    cdef bint owns_stream
    cdef bint at_end
    cdef bint is_closed
    cdef bint busy

    # Returns None at the end. Frames are valid until the next call, or with `lasting` while an object refers to them.
    cpdef FrameBatch next_batch(self)
    cdef FrameBatch _next_batch(self)
    cdef int _read_head(self) except -1
    cdef int _find_form(self, str name) except -1
    cdef bint _decompress(self, str name) except -1
    cdef int _look_at_buffer(self) except -1
    cdef int _scan(self, FrameBatch batch, Py_ssize_t most) except -1
    cdef void _find_ahead(self, bint prepares) noexcept
    cdef void _add_found(self, WindowsAhead ahead, FrameBatch batch) noexcept
    cdef int _end_damaged(self, str cause) except -1

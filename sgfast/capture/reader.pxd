# The capture reader. Cython code calls next_batch without a look-up.

from sgfast.capture.interfaces cimport InterfaceMarks
from sgfast.capture.pcap cimport PcapFormat
from sgfast.capture.pcapng cimport PcapngFormat
from sgfast.capture.scan cimport Scan
from sgfast.capture.stream_buffer cimport StreamBuffer
from sgfast.core.base.frames cimport FrameBatch


cdef enum Form:
    PCAP
    PCAPNG
    SNOOP


cdef class CaptureReader:
    cdef readonly str name
    cdef readonly object damage     # None until the end
    cdef readonly Py_ssize_t packets
    cdef StreamBuffer buffer
    cdef FrameBatch batch
    cdef FrameBatch other_batch     # the one that is not filled next, or None: there is one batch
    cdef Scan scan
    cdef PcapFormat pcap
    cdef PcapngFormat pcapng
    cdef Form form
    cdef InterfaceMarks interfaces  # or None
    cdef object decompressed        # the stream between file and buffer, or None
    cdef Py_ssize_t head_end        # bytes of the file's head
    cdef bint is_part
    cdef bint owns_stream
    cdef bint at_end
    cdef bint busy

    # None at the end. The frames are valid until the next call; with `two_batches`, until the next but one.
    cpdef FrameBatch next_batch(self)
    cdef FrameBatch _next_batch(self)
    cdef int _read_head(self) except -1
    cdef int _find_form(self, str name) except -1
    cdef bint _decompress(self, str name) except -1
    cdef int _look_at_buffer(self) except -1
    cdef int _scan(self) except -1
    cdef int _end_damaged(self, str cause) except -1

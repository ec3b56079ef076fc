# The pcapng format: sections of blocks. Interfaces belong to their section.

from libc.stdint cimport int64_t, uint32_t

from sgfast.capture.interfaces cimport InterfaceMarks
from sgfast.capture.link_types cimport LinkKind
from sgfast.capture.scan cimport Scan
from sgfast.capture.timestamps cimport Resolution


cdef enum:
    MOST_SPANS = 64


cdef struct Span:
    int64_t start               # bytes of the capture
    int64_t end


cdef struct Interface:
    Resolution resolution
    uint32_t link_type
    LinkKind kind
    uint32_t snaplen        # bytes, 0 for no limit
    uint32_t vpc            # Frame.vpc of its packets


cdef struct PcapngFormat:
    bint big_endian             # of the current section
    uint32_t interface_count    # in the current section
    uint32_t interface_room
    Interface* interfaces
    int64_t last_time_ns        # of the last packet, for blocks that carry no time
    bint met_timeless           # such a block came
    # What the current section began with and described, blocks that follow each other as one; too many: a count beyond.
    Py_ssize_t preamble_count
    Span preamble[MOST_SPANS]
    bint met_ip                 # a packet came that may hold IP
    uint32_t other_link_type    # of the last packet that cannot


# Takes the section header block at scan.next, whose type has been seen.
cdef void scan_section_header(PcapngFormat* format, Scan* scan) noexcept nogil

# Takes blocks from scan.next until the frames are full or the bytes end. `marks`: whose interfaces are, or None.
cdef void scan_blocks(PcapngFormat* format, Scan* scan, InterfaceMarks marks) noexcept nogil

cdef void free_interfaces(PcapngFormat* format) noexcept nogil

# The pcap format: a file header of 24 bytes, then records of a header and the captured bytes.

from libc.stdint cimport uint32_t

from sgfast.capture.scan cimport Scan


cdef enum LengthOrder:
    CAPTURED_FIRST      # since version 2.4
    WIRE_FIRST          # until version 2.2
    LENGTHS_UNKNOWN     # version 2.3 was written both ways: the smaller one is the captured length


cdef struct PcapFormat:
    bint big_endian
    LengthOrder length_order
    uint32_t link_type
    uint32_t fraction_ns        # nanoseconds per unit of a record's second time field
    Py_ssize_t file_header      # bytes
    Py_ssize_t record_header    # bytes


# Whether the four bytes at p are one of the magic numbers; if so, format knows byte order and record layout.
cdef bint is_pcap_magic(const unsigned char* p, PcapFormat* format) noexcept nogil

# Takes the file header at scan.next.
cdef void scan_file_header(PcapFormat* format, Scan* scan) noexcept nogil

# Takes records from scan.next until the frames are full or the bytes end.
cdef void scan_records(const PcapFormat* format, Scan* scan) noexcept nogil

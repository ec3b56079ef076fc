# Solaris's snoop format (RFC 1761), version 2, with Ethernet frames. All numbers are big-endian.
#
#     file header     0 magic, 8 bytes | 8 version u32 | 12 data link u32
#     record          0 wire u32 | 4 captured u32 | 8 record length u32 | 12 drops u32
#                     16 seconds u32 | 20 microseconds u32 | 24 bytes, padding

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sgfast.traffic.capture.byte_order cimport load_u32
from sgfast.traffic.capture.scan cimport LONGEST_RECORD, STOP_FULL, STOP_NOT, Scan, stop_damaged, stop_for_more
from sgfast.traffic.capture.timestamps cimport NS_PER_SECOND
from sgfast.core.base.frames cimport Frame
from sgfast.core.wire.next_header cimport LINK_ETHERNET


cdef enum:
    FILE_HEADER = 16            # bytes
    RECORD_HEADER = 24
    VERSION = 2
    DATA_LINK_IEEE_802_3 = 0
    DATA_LINK_ETHERNET = 4


cdef inline void scan_snoop_header(Scan* scan) noexcept nogil:
    # Consumes the file header at scan.next. The caller has checked the magic number.
    cdef const uint8_t* p = scan.next
    cdef uint32_t version, data_link
    scan.count = 0
    scan.stop = STOP_NOT
    if scan.end - p < FILE_HEADER:
        stop_for_more(scan, FILE_HEADER)
        return
    version = load_u32(p + 8, True)
    if version != VERSION:
        stop_damaged(scan, b"snoop version {} is not supported ({} is)", version, VERSION)
        return
    data_link = load_u32(p + 12, True)
    if data_link != DATA_LINK_ETHERNET and data_link != DATA_LINK_IEEE_802_3:
        stop_damaged(scan, b"data link type {} is not supported (Ethernet, {}, is)", data_link, DATA_LINK_ETHERNET)
        return
    scan.next = p + FILE_HEADER


cdef inline void scan_snoop_records(Scan* scan) noexcept nogil:
    # Consumes records from scan.next on until the frames are full or the bytes run out.
    cdef const uint8_t* p = scan.next
    cdef const uint8_t* end = scan.end
    cdef uint32_t vpc = scan.vpc
    cdef Frame* frame = scan.frames
    cdef const Frame* frames_end = scan.frames + scan.capacity
    cdef uint32_t captured, wire, total
    cdef uint64_t position = scan.position
    scan.stop = STOP_FULL
    while frame < frames_end:
        if end - p < RECORD_HEADER:
            stop_for_more(scan, RECORD_HEADER)
            break
        wire = load_u32(p, True)
        captured = load_u32(p + 4, True)
        total = load_u32(p + 8, True)
        if total > <uint32_t>LONGEST_RECORD:
            stop_damaged(scan, b"a record length of {} bytes, more than {}", total, LONGEST_RECORD)
            break
        if total < RECORD_HEADER or captured > total - RECORD_HEADER:
            stop_damaged(scan, b"a captured length of {} bytes in a record of {}", captured, total)
            break
        if <Py_ssize_t>total > end - p:
            stop_for_more(scan, total)
            break
        frame.data = p + RECORD_HEADER
        frame.time_ns = (<int64_t>load_u32(p + 16, True) * NS_PER_SECOND + <int64_t>load_u32(p + 20, True) * 1000)
        frame.captured = captured
        frame.wire = wire if wire > captured else captured
        frame.link_type = LINK_ETHERNET
        frame.vpc = vpc
        frame.position = position
        frame += 1
        position += 1
        p += total
    scan.count = frame - scan.frames
    scan.next = p

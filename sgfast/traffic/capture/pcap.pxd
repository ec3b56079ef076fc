# The pcap format (draft-ietf-opsawg-pcap): micro- and nanoseconds, both byte orders, and the variants by Kuznetzov and
# by IXIA.
#
#     file header     0 magic u32 | 4 major u16 | 6 minor u16 | 8 reserved | 16 snaplen u32 | 20 link type u32
#                     [24 IXIA: length of all records u32]
#     record          0 seconds u32 | 4 fraction u32 | 8 captured u32 | 12 wire u32 | [16 Kuznetzov: 8 more] | bytes
#
# The snapshot length is not enforced, because longer records are common. The link type is the low 16 bits of its field;
# the other bits describe frame check sequences.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from sgfast.traffic.capture.byte_order cimport load_u16, load_u32
from sgfast.traffic.capture.scan cimport (
    LONGEST_GUESSED,
    LONGEST_RECORD,
    STOP_FULL,
    STOP_NOT,
    Scan,
    prefetch_later,
    stop_at_link_type,
    stop_damaged,
    stop_for_more,
)
from sgfast.traffic.capture.timestamps cimport NS_PER_SECOND
from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport unlikely
from sgfast.core.wire.link cimport LINK_WITH_IP, canonical_link_type, kind_of_link


cdef enum:
    FILE_HEADER = 24            # bytes
    IXIA_FILE_HEADER = 28
    RECORD_HEADER = 16
    KUZNETZOV_RECORD_HEADER = 24
    FARTHEST = 1 << 20          # seconds between records that may follow each other


cdef enum LengthOrder:
    CAPTURED_FIRST      # version 2.4 and later
    WIRE_FIRST          # up to version 2.2
    LENGTHS_UNKNOWN     # version 2.3 was written both ways: the smaller length is the captured one


cdef struct PcapFormat:
    bint big_endian
    LengthOrder length_order
    uint32_t link_type
    uint32_t fraction_ns        # nanoseconds per unit of a record's `fraction`
    Py_ssize_t file_header      # bytes
    Py_ssize_t record_header    # bytes


cdef inline bint is_pcap_magic(const unsigned char* p, PcapFormat* format) noexcept nogil:
    # Whether the four bytes at p are a pcap magic number. If so, sets the byte order and the record layout in `format`.
    cdef int big_endian
    cdef uint32_t magic
    for big_endian in range(2):
        magic = load_u32(p, big_endian)
        format.big_endian = big_endian
        format.fraction_ns = 1000
        format.file_header = FILE_HEADER
        format.record_header = RECORD_HEADER
        if magic == <uint32_t>0xA1B2C3D4:
            return True
        if magic == <uint32_t>0xA1B23C4D:
            format.fraction_ns = 1
            return True
        if magic == <uint32_t>0xA1B2CD34:
            format.record_header = KUZNETZOV_RECORD_HEADER
            return True
        # IXIA's hardware counts nanoseconds, its software microseconds. The extra length field is not needed.
        if magic == <uint32_t>0x1C0001AC or magic == <uint32_t>0x1C0001AB:
            format.file_header = IXIA_FILE_HEADER
            format.fraction_ns = 1 if magic == <uint32_t>0x1C0001AC else 1000
            return True
    return False


cdef inline void scan_file_header(PcapFormat* format, Scan* scan) noexcept nogil:
    # Consumes the file header at scan.next.
    cdef const uint8_t* p = scan.next
    cdef uint16_t major, minor
    scan.count = 0
    scan.stop = STOP_NOT
    if scan.end - p < format.file_header:
        stop_for_more(scan, <uint64_t>format.file_header)
        return
    major = load_u16(p + 4, format.big_endian)
    minor = load_u16(p + 6, format.big_endian)
    # DG/UX wrote version 543.0.
    if not ((major == 2 and minor <= 4) or (major == 543 and minor == 0)):
        stop_damaged(scan, b"pcap version {}.{} is not supported (2.0 to 2.4 are)", major, minor)
        return
    if major == 543 or minor < 3:
        format.length_order = WIRE_FIRST
    elif minor == 3:
        format.length_order = LENGTHS_UNKNOWN
    else:
        format.length_order = CAPTURED_FIRST
    format.link_type = canonical_link_type(load_u32(p + 20, format.big_endian) & 0xFFFF)
    if kind_of_link(format.link_type) != LINK_WITH_IP:
        stop_at_link_type(scan, format.link_type)
        return
    scan.next = p + format.file_header


cdef inline bint begins_a_file(const uint8_t* p) noexcept nogil:
    # Whether an apparent empty record is the header of another pcap file, as in the output of `cat FILE FILE`.
    cdef PcapFormat format
    return (is_pcap_magic(p, &format) and load_u16(p + 4, format.big_endian) == 2
            and load_u16(p + 6, format.big_endian) <= 4)


# Zeros ----------------------------------------------------------------------------------------------------------------
#
# After a crash, or if a file gets its size before its content, a capture ends in zeros that no program wrote. They look
# like empty records, but are packets only if other bytes follow them. Such bytes may be gigabytes away, and a pipe
# cannot be read in advance. So a scan passes records of zeros and only counts their bytes (`Scan.zeros`), through any
# number of windows. When the scan finds another byte, it returns that many empty packets. If the capture ends before,
# the reader reports the zeros as damage. Every byte is checked once, and only after a header of zeros.

cdef inline const uint8_t* first_not_zero(const uint8_t* p, const uint8_t* end) noexcept nogil:
    # Returns the first byte from `p` on that is not zero, or `end`.
    cdef uint64_t word
    while end - p >= 8:
        memcpy(&word, p, 8)
        if word != 0:
            break
        p += 8
    while p < end and p[0] == 0:
        p += 1
    return p


cdef inline Frame* take_zeros(
    const PcapFormat* format, Scan* scan, Frame* frame, const Frame* frames_end
) noexcept nogil:
    # Passes the records of zeros at scan.next. Returns the place of the next frame. If `scan.zeros` is not 0 then, the
    # scan must end: there is no room for frames of zeros, or no other byte has followed yet.
    cdef const uint8_t* first_byte = first_not_zero(scan.next, scan.end)
    cdef Py_ssize_t passed = first_byte - scan.next
    passed -= passed % format.record_header
    scan.zeros += passed
    scan.next += passed
    if first_byte == scan.end:
        stop_for_more(scan, <uint64_t>format.record_header)
        return frame
    while scan.zeros > 0 and frame < frames_end:
        frame.data = scan.next
        frame.time_ns = 0
        frame.captured = frame.wire = 0
        frame.link_type = format.link_type
        frame.vpc = scan.vpc
        frame.position = scan.position + <uint64_t>(frame - scan.frames)
        frame += 1
        scan.zeros -= format.record_header
    return frame


# Records --------------------------------------------------------------------------------------------------------------

cdef inline void scan_in_order(const PcapFormat* format, Scan* scan, bint big_endian) noexcept nogil:
    cdef const uint8_t* p = scan.next
    cdef const uint8_t* end = scan.end
    cdef uint32_t vpc = scan.vpc
    cdef Frame* frame = scan.frames
    cdef const Frame* frames_end = scan.frames + scan.capacity
    cdef Py_ssize_t header = format.record_header
    cdef LengthOrder length_order = format.length_order
    cdef uint32_t link_type = format.link_type
    cdef uint32_t fraction_ns = format.fraction_ns
    cdef uint32_t captured, wire
    cdef uint64_t position = scan.position
    scan.stop = STOP_FULL
    if scan.zeros > 0:
        frame = take_zeros(format, scan, frame, frames_end)
        p = scan.next
        if scan.zeros > 0:
            frames_end = frame
        position = scan.position + <uint64_t>(frame - scan.frames)
    while frame < frames_end:
        if end - p < header:
            stop_for_more(scan, header)
            break
        captured = load_u32(p + 8, big_endian)
        wire = load_u32(p + 12, big_endian)
        if length_order != CAPTURED_FIRST and (length_order == WIRE_FIRST or captured > wire):
            captured, wire = wire, captured
        if unlikely(captured - 1 >= <uint32_t>LONGEST_RECORD):      # 0 - 1 wraps around
            if captured > 0:
                stop_damaged(scan, b"a captured length of {} bytes, more than {}", captured, LONGEST_RECORD)
                break
            if wire == 0 and begins_a_file(p):
                stop_damaged(scan, b"another pcap file begins here: give the files one by one, or merge them first "
                             b"(mergecap -w OUT.pcapng FILE...)", 0, 0)
                break
            if wire == 0 and first_not_zero(p, p + header) == p + header:
                scan.next = p
                frame = take_zeros(format, scan, frame, frames_end)
                position = scan.position + <uint64_t>(frame - scan.frames)
                p = scan.next
                if scan.zeros > 0:
                    break
                continue
        if <Py_ssize_t>captured > end - p - header:
            stop_for_more(scan, <uint64_t>header + captured)
            break
        prefetch_later(p, header + <Py_ssize_t>captured)
        frame.data = p + header
        frame.time_ns = (<int64_t>load_u32(p, big_endian) * NS_PER_SECOND
                         + <int64_t>load_u32(p + 4, big_endian) * fraction_ns)
        frame.captured = captured
        frame.wire = wire if wire > captured else captured
        frame.link_type = link_type
        frame.vpc = vpc
        frame.position = position
        frame += 1
        position += 1
        p += header + <Py_ssize_t>captured
    scan.count = frame - scan.frames
    scan.next = p


cdef inline void scan_records(const PcapFormat* format, Scan* scan) noexcept nogil:
    # Consumes records from scan.next on until the frames are full or the bytes run out. Compilers make one loop for
    # each byte order.
    if format.big_endian:
        scan_in_order(format, scan, True)
    else:
        scan_in_order(format, scan, False)


cdef inline Py_ssize_t length_if_record(const void* pcap, const uint8_t* first, const uint8_t* p) noexcept nogil:
    # The LengthIfRecord function of pcap. `pcap` points to a PcapFormat. The times of the records at `first` and at `p`
    # must be near each other, too.
    cdef const PcapFormat* format = <const PcapFormat*>pcap
    cdef uint32_t captured = load_u32(p + 8, format.big_endian)
    cdef uint32_t wire = load_u32(p + 12, format.big_endian)
    cdef uint32_t later = load_u32(p, format.big_endian) - load_u32(first, format.big_endian)
    if not 0 < captured <= <uint32_t>LONGEST_GUESSED or not captured <= wire <= <uint32_t>LONGEST_GUESSED:
        return 0
    if later + <uint32_t>FARTHEST > <uint32_t>2 * FARTHEST:
        return 0
    if load_u32(p + 4, format.big_endian) >= <uint32_t>NS_PER_SECOND // format.fraction_ns:
        return 0
    return format.record_header + <Py_ssize_t>captured

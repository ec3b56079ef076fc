# The pcapng format (draft-ietf-opsawg-pcapng): both byte orders, any number of sections and interfaces.
#
#     block           0 type u32 | 4 total length u32 | body | total length u32 again; a multiple of 4
#     section header  8 byte-order magic u32 | 12 major u16 | 14 minor u16 | 16 section length i64 | options
#     interface       8 link type u16 | 10 reserved | 12 snaplen u32 | 16 options
#     enhanced packet 8 interface u32 | 12 time high u32 | 16 low u32 | 20 captured u32 | 24 wire u32 | 28 bytes
#     packet          8 interface u16 | 10 drops u16 | the rest as in an enhanced packet; obsolete
#     simple packet   8 wire u32 | 12 bytes; belongs to interface 0 and has no time
#
# Other blocks are skipped. Section lengths are ignored, because sections are contiguous anyway. Packets on interfaces
# whose link type carries no IP are returned, too (SPEC 3.1: not-ip); PcapngFormat records whether any may hold IP.

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from sgfast.traffic.capture.byte_order cimport load_u16, load_u32, load_u64
from sgfast.traffic.capture.interfaces cimport InterfaceMarks
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
from sgfast.traffic.capture.timestamps cimport Resolution, resolution_of, ticks_to_ns
from sgfast.core.base.frames cimport Frame
from sgfast.core.wire.link cimport LINK_UNKNOWN, LINK_WITH_IP, LinkKind, canonical_link_type, kind_of_link


cdef enum:
    BLOCK_INTERFACE = 1
    BLOCK_PACKET = 2
    BLOCK_SIMPLE_PACKET = 3
    BLOCK_ENHANCED_PACKET = 6
    BLOCK_SECTION_HEADER = 0x0A0D0D0A   # the same value in both byte orders

    BYTE_ORDER_MAGIC = 0x1A2B3C4D

    # Minimum total block lengths, bytes.
    SHORTEST_BLOCK = 12
    SHORTEST_SIMPLE_PACKET = 16
    SHORTEST_INTERFACE = 20
    SHORTEST_SECTION_HEADER = 28
    SHORTEST_PACKET = 32        # enhanced or obsolete packet block

    OPTION_END = 0
    OPTION_IF_NAME = 2
    OPTION_IF_TSRESOL = 9
    OPTION_IF_TSOFFSET = 14

    MICROSECONDS = 6            # default of if_tsresol

    MAX_INTERFACES = 1048576    # per section; so many take 48 MiB
    MAX_SPANS = 64              # in a section's preamble
    MAX_COPIED = 64             # interfaces that are copied for another thread


cdef struct Span:
    int64_t start               # byte offset in the capture
    int64_t end


cdef struct Interface:
    Resolution resolution
    uint32_t link_type
    LinkKind kind
    uint32_t snaplen        # bytes; 0: no limit
    uint32_t vpc            # copied to Frame.vpc of the interface's packets


cdef struct PcapngFormat:
    uint32_t changes            # section headers and interface descriptions read
    bint stops_at_changes       # stop a scan before a section header or an interface description
    bint big_endian             # byte order of the current section
    uint32_t interface_count    # in the current section
    uint32_t interface_room
    Interface* interfaces
    int64_t last_time_ns        # time of the last packet, for blocks that carry no time
    bint has_timeless_blocks    # a block without a time was read
    # Places of the section header and interface descriptions of the current section; adjacent blocks share a span. A
    # count above MAX_SPANS means that there were too many spans to store.
    Py_ssize_t preamble_count
    Span preamble[MAX_SPANS]
    bint has_ip                 # a packet was read that may hold IP
    uint32_t other_link_type    # link type of the last packet that cannot hold IP


cdef inline void free_interfaces(PcapngFormat* format) noexcept nogil:
    free(format.interfaces)
    format.interfaces = NULL
    format.interface_count = format.interface_room = 0


cdef inline uint32_t _whole_block(Scan* scan, const uint8_t* p, bint big_endian) noexcept nogil:
    # Returns the total length of the block at p, of which at least SHORTEST_BLOCK bytes are available. If the block is
    # incomplete or its two length fields disagree, stops the scan and returns 0.
    cdef uint32_t total = load_u32(p + 4, big_endian)
    cdef uint32_t trailer
    if total < SHORTEST_BLOCK:
        stop_damaged(scan, b"a block length of {} bytes, less than {}", total, SHORTEST_BLOCK)
        return 0
    if total & 3:
        stop_damaged(scan, b"a block length of {} bytes, which is not a multiple of 4", total, 0)
        return 0
    if total > <uint32_t>LONGEST_RECORD:
        stop_damaged(scan, b"a block length of {} bytes, more than {}", total, LONGEST_RECORD)
        return 0
    if scan.end - p < <Py_ssize_t>total:
        stop_for_more(scan, total)
        return 0
    trailer = load_u32(p + total - 4, big_endian)
    if trailer != total:
        stop_damaged(scan, b"block lengths of {} bytes before and {} bytes after the block", total, trailer)
        return 0
    return total


cdef inline void _add_to_preamble(PcapngFormat* format, const Scan* scan, uint32_t total) noexcept nogil:
    # Adds the block at scan.next to the preamble, because it affects how later blocks are read.
    cdef int64_t start = scan.data_offset + (scan.next - scan.data)
    cdef Py_ssize_t count = format.preamble_count
    cdef Span* span = format.preamble
    if count > MAX_SPANS:
        return
    span += count
    if count > 0 and (span - 1).end == start:
        (span - 1).end = start + total
        return
    if count < MAX_SPANS:
        span.start = start
        span.end = start + total
    format.preamble_count += 1


cdef inline void scan_section_header(PcapngFormat* format, Scan* scan) noexcept nogil:
    # Consumes the section header block at scan.next. The caller has checked the block type.
    cdef const uint8_t* p = scan.next
    cdef bint big_endian
    cdef uint32_t total
    cdef uint16_t major, minor
    scan.count = 0
    scan.stop = STOP_NOT
    if scan.end - p < SHORTEST_BLOCK:
        stop_for_more(scan, SHORTEST_SECTION_HEADER)
        return
    if load_u32(p + 8, False) == BYTE_ORDER_MAGIC:
        big_endian = False
    elif load_u32(p + 8, True) == BYTE_ORDER_MAGIC:
        big_endian = True
    else:
        stop_damaged(scan, b"a section header without byte-order magic", 0, 0)
        return
    total = _whole_block(scan, p, big_endian)
    if total == 0:
        return
    if total < SHORTEST_SECTION_HEADER:
        stop_damaged(scan, b"a section header of {} bytes, less than {}", total, SHORTEST_SECTION_HEADER)
        return
    major = load_u16(p + 12, big_endian)
    minor = load_u16(p + 14, big_endian)
    # Some programs write version 1.2 but mean 1.0.
    if major != 1 or (minor != 0 and minor != 2):
        stop_damaged(scan, b"pcapng version {}.{} is not supported (1.0 is)", major, minor)
        return
    format.big_endian = big_endian
    format.preamble_count = 0
    _add_to_preamble(format, scan, total)
    format.changes += 1
    format.interface_count = 0
    scan.next = p + total


cdef inline bint _add_interface(PcapngFormat* format, Scan* scan, uint32_t total, InterfaceMarks marks) noexcept nogil:
    # Adds the interface of the complete interface description block at scan.next.
    cdef const uint8_t* p = scan.next
    cdef bint big_endian = format.big_endian
    cdef Py_ssize_t at = 16
    cdef Py_ssize_t options_end = <Py_ssize_t>total - 4
    cdef Py_ssize_t padded
    cdef uint16_t code, length
    cdef uint8_t if_tsresol = MICROSECONDS
    cdef int64_t if_tsoffset = 0
    cdef const uint8_t* if_name = NULL
    cdef uint16_t name_length = 0
    cdef uint32_t room
    cdef Interface* interfaces
    if total < SHORTEST_INTERFACE:
        stop_damaged(scan, b"an interface description of {} bytes, less than {}", total, SHORTEST_INTERFACE)
        return False
    while options_end - at >= 4:
        code = load_u16(p + at, big_endian)
        length = load_u16(p + at + 2, big_endian)
        at += 4
        if code == OPTION_END:
            break
        padded = (<Py_ssize_t>length + 3) & ~<Py_ssize_t>3
        if padded > options_end - at:
            stop_damaged(scan, b"an interface option of {} bytes where {} are left", length, options_end - at)
            return False
        if code == OPTION_IF_TSRESOL:
            if length != 1:
                stop_damaged(scan, b"an if_tsresol option of {} bytes instead of {}", length, 1)
                return False
            if_tsresol = p[at]
        elif code == OPTION_IF_TSOFFSET:
            if length != 8:
                stop_damaged(scan, b"an if_tsoffset option of {} bytes instead of {}", length, 8)
                return False
            if_tsoffset = <int64_t>load_u64(p + at, big_endian)
        elif code == OPTION_IF_NAME:
            if_name = p + at
            name_length = length
        at += padded
    if format.interface_count == format.interface_room:
        if format.interface_count >= MAX_INTERFACES:
            stop_damaged(scan, b"more than {} interfaces in a section", MAX_INTERFACES, 0)
            return False
        room = format.interface_room * 2 if format.interface_room else 8
        interfaces = <Interface*>realloc(format.interfaces, <size_t>room * sizeof(Interface))
        if interfaces == NULL:
            stop_damaged(scan, b"no memory for {} interfaces", room, 0)
            return False
        format.interfaces = interfaces
        format.interface_room = room
    interfaces = format.interfaces + format.interface_count
    interfaces.link_type = canonical_link_type(load_u16(p + 8, big_endian))
    interfaces.kind = kind_of_link(interfaces.link_type)
    interfaces.snaplen = load_u32(p + 12, big_endian)
    interfaces.resolution = resolution_of(if_tsresol, if_tsoffset)
    interfaces.vpc = 0 if marks is None else marks.vpc_of(if_name, name_length, format.interface_count)
    if interfaces.vpc == 0:
        interfaces.vpc = scan.vpc
    format.interface_count += 1
    format.changes += 1
    _add_to_preamble(format, scan, total)
    return True


cdef inline const Interface* _interface(PcapngFormat* format, Scan* scan, uint32_t number) noexcept nogil:
    # Returns interface `number`. If the interface does not exist or its link type is not supported, stops the scan and
    # returns NULL.
    cdef const Interface* interface
    if number >= format.interface_count:
        if format.interface_count == 0:
            stop_damaged(scan, b"a packet before any interface description", 0, 0)
        else:
            stop_damaged(scan, b"interface {} in a section of {} interfaces", number, format.interface_count)
        return NULL
    interface = format.interfaces + number
    if interface.kind == LINK_UNKNOWN:
        stop_at_link_type(scan, interface.link_type)
        return NULL
    if interface.kind == LINK_WITH_IP:
        format.has_ip = True
    else:
        format.other_link_type = interface.link_type
    return interface


cdef inline bint _take_packet(
    PcapngFormat* format, Scan* scan, Frame* frame, uint32_t total, bint obsolete,
) noexcept nogil:
    # Reads the complete enhanced or obsolete packet block at scan.next into `frame`.
    cdef const uint8_t* p = scan.next
    cdef bint big_endian = format.big_endian
    cdef uint32_t captured, wire
    cdef const Interface* interface
    if total < SHORTEST_PACKET:
        stop_damaged(scan, b"a packet block of {} bytes, less than {}", total, SHORTEST_PACKET)
        return False
    interface = _interface(format, scan, load_u16(p + 8, big_endian) if obsolete else load_u32(p + 8, big_endian))
    if interface == NULL:
        return False
    captured = load_u32(p + 20, big_endian)
    wire = load_u32(p + 24, big_endian)
    if captured > total - SHORTEST_PACKET:
        stop_damaged(scan, b"a captured length of {} bytes in a block that holds {}", captured,
                     total - SHORTEST_PACKET)
        return False
    frame.data = p + 28
    frame.time_ns = ticks_to_ns(
        (<uint64_t>load_u32(p + 12, big_endian) << 32) | load_u32(p + 16, big_endian), &interface.resolution,
    )
    format.last_time_ns = frame.time_ns
    frame.captured = captured
    frame.wire = wire if wire > captured else captured
    frame.link_type = interface.link_type
    frame.vpc = interface.vpc
    return True


cdef inline bint _take_simple_packet(PcapngFormat* format, Scan* scan, Frame* frame, uint32_t total) noexcept nogil:
    # A simple block has no captured length, which is the minimum of snapshot length, wire length and room in the block.
    cdef const uint8_t* p = scan.next
    cdef bint big_endian = format.big_endian
    cdef uint32_t captured, wire
    cdef const Interface* interface
    if total < SHORTEST_SIMPLE_PACKET:
        stop_damaged(scan, b"a simple packet block of {} bytes, less than {}", total, SHORTEST_SIMPLE_PACKET)
        return False
    interface = _interface(format, scan, 0)
    if interface == NULL:
        return False
    wire = load_u32(p + 8, big_endian)
    captured = min(wire, total - SHORTEST_SIMPLE_PACKET, interface.snaplen if interface.snaplen else UINT32_MAX)
    format.has_timeless_blocks = True
    frame.data = p + 12
    frame.time_ns = format.last_time_ns
    frame.captured = captured
    frame.wire = wire
    frame.link_type = interface.link_type
    frame.vpc = interface.vpc
    return True


cdef inline void scan_blocks(PcapngFormat* format, Scan* scan, InterfaceMarks marks) noexcept nogil:
    # Consumes blocks from scan.next on until the frames are full or the bytes run out. `marks` maps interfaces to VPCs,
    # or is None.
    cdef const uint8_t* p
    cdef uint32_t block_type, total
    cdef Frame* frame = scan.frames
    cdef const Frame* frames_end = scan.frames + scan.capacity
    cdef uint64_t position = scan.position
    scan.stop = STOP_FULL
    while frame < frames_end:
        frame.position = position
        # scan.next points to the next block. If that block holds a packet, it is stored in `frame`.
        p = scan.next
        if scan.end - p < SHORTEST_BLOCK:
            stop_for_more(scan, SHORTEST_BLOCK)
            break
        block_type = load_u32(p, format.big_endian)
        if block_type == BLOCK_SECTION_HEADER:
            if format.stops_at_changes:
                break
            scan_section_header(format, scan)
            if scan.stop != STOP_NOT:
                break
            scan.stop = STOP_FULL
            continue
        total = _whole_block(scan, p, format.big_endian)
        if total == 0:
            break
        prefetch_later(p, total)
        if block_type == BLOCK_ENHANCED_PACKET:
            if not _take_packet(format, scan, frame, total, False):
                break
            frame += 1
            position += 1
        elif block_type == BLOCK_SIMPLE_PACKET:
            if not _take_simple_packet(format, scan, frame, total):
                break
            frame += 1
            position += 1
        elif block_type == BLOCK_PACKET:
            if not _take_packet(format, scan, frame, total, True):
                break
            frame += 1
            position += 1
        elif block_type == BLOCK_INTERFACE:
            if format.stops_at_changes:
                break
            if not _add_interface(format, scan, total, marks):
                break
        scan.next = p + total
    scan.count = frame - scan.frames


# Finding packets in another thread ------------------------------------------------------------------------------------

cdef inline bint copy_for_another_thread(PcapngFormat* copy, const PcapngFormat* format) noexcept nogil:
    # Copies the state that a thread needs to read packets up to the next section header or interface description.
    # `copy` keeps its own memory for interfaces. Returns False if there are too many interfaces or there is no memory.
    cdef Interface* interfaces = copy.interfaces
    if format.interface_count > MAX_COPIED:
        return False
    if interfaces == NULL:
        interfaces = <Interface*>realloc(NULL, MAX_COPIED * sizeof(Interface))
        if interfaces == NULL:
            return False
    memcpy(interfaces, format.interfaces, format.interface_count * sizeof(Interface))
    copy[0] = format[0]
    copy.interfaces = interfaces
    copy.interface_room = MAX_COPIED
    copy.stops_at_changes = True
    copy.has_ip = copy.has_timeless_blocks = False
    copy.other_link_type = 0
    return True


cdef inline void add_from_another_thread(PcapngFormat* format, const PcapngFormat* copy) noexcept nogil:
    # Brings `format` to the state that it would have if it had read the packets that `copy` has read.
    format.last_time_ns = copy.last_time_ns
    format.has_timeless_blocks = format.has_timeless_blocks or copy.has_timeless_blocks
    format.has_ip = format.has_ip or copy.has_ip
    if copy.other_link_type:
        format.other_link_type = copy.other_link_type


cdef inline Py_ssize_t length_if_packet(const void* pcapng, const uint8_t* first, const uint8_t* p) noexcept nogil:
    # The LengthIfRecord function of pcapng. `pcapng` points to a PcapngFormat. Only enhanced packet blocks are found.
    cdef const PcapngFormat* format = <const PcapngFormat*>pcapng
    cdef uint32_t total = load_u32(p + 4, format.big_endian)
    if load_u32(p, format.big_endian) != BLOCK_ENHANCED_PACKET or total & 3:
        return 0
    if not SHORTEST_PACKET <= total <= LONGEST_GUESSED or load_u32(p + 20, format.big_endian) > total - SHORTEST_PACKET:
        return 0
    return total if load_u32(p + 8, format.big_endian) < format.interface_count else 0

"""Read the headers of frames, and make a list of packets for each shard. ``parsing.pxd`` explains the design."""

from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.string cimport memset

from sgfast.core.base.frames cimport Frame, Preparation
from sgfast.core.base.intrinsics cimport likely, take_over, unlikely
from sgfast.core.base.types cimport READ_FRAGMENT, READ_ICMP_ERROR, READ_TRACKED
from sgfast.core.wire.header_rows cimport read_header
from sgfast.core.wire.ip cimport read_frame, read_quote

cdef enum:
    AT_ONCE = 16            # packets that are read before they are put into lists
    EARLY = 64              # the number of packets by which cache lines are requested early
    HEADERS = 48            # bytes of a frame that are read for plain TCP in IPv4
    LINE = 64               # bytes


cdef int shard_of(const Parser* parser, const Packet* p) noexcept nogil:
    cdef Packet quoted
    cdef uint32_t hash_value = p.hash
    if unlikely(p.parse_result != READ_TRACKED):
        if p.parse_result != READ_ICMP_ERROR:
            return 0        # the packet has no connection
        memset(&quoted, 0, sizeof(Packet))
        if not read_quote(&parser.wire, p, &quoted.key, &quoted.digest, &quoted.hash, &quoted.source_high):
            return 0
        hash_value = quoted.hash
    return shard_of_hash(hash_value, parser.shards)


cdef inline int list_of(const Parser* parser, const Packet* p, Parsed* block) noexcept nogil:
    # Returns the number of the list to which the packet belongs.
    if likely(p.parse_result == READ_TRACKED):
        return shard_of_hash(p.hash, parser.shards)
    if p.parse_result == READ_FRAGMENT:
        block.borrowed = True
        return parser.shards
    block.borrowed |= p.parse_result == READ_ICMP_ERROR
    return shard_of(parser, p)


cdef inline void ask_early(
    const Frame* frames, Packet* packets, Py_ssize_t at, Py_ssize_t count, bint is_near
) noexcept nogil:
    # Requests the cache lines that parsing packet `at` needs, and those of a later frame. Some of these addresses may
    # be behind the last frame or behind the packet's bytes. That does no harm, as no byte is read or written.
    cdef const Frame* frame
    if at >= count:
        return
    take_over(&packets[at])
    if frames != NULL and not is_near:
        frame = &frames[at]
        take_over(&frame[EARLY].position)
        take_over(frame.data)
        take_over(&frame.data[HEADERS - 1])


cdef inline void parse(
    const Parser* parser, const Frame* frames, const HeaderRow* rows, Py_ssize_t start, Py_ssize_t count, Parsed* block,
    bint is_near
) noexcept nogil:
    # Parses the packets from `start` on. `is_near`: whether the frames are in this core's cache.
    cdef uint16_t* ends[MOST_LISTS]     # places where the next packet of each list is linked
    cdef Packet* packets = block.packets
    cdef Py_ssize_t end, i
    cdef int number
    block.borrowed = False
    for number in range(parser.shards + 1):
        ends[number] = &block.first[number]
    for i in range(start, start + EARLY):
        ask_early(frames, packets, i, count, is_near)
    while start < count:
        end = min(start + <Py_ssize_t>AT_ONCE, count)
        for i in range(start, end):
            ask_early(frames, packets, i + EARLY, count, is_near)
            if frames != NULL:
                read_frame(&parser.wire, &frames[i], &packets[i])
            else:
                read_header(&parser.wire, &rows[i], &packets[i])
        for i in range(start, end):
            number = list_of(parser, &packets[i], block)
            ends[number][0] = <uint16_t>i
            ends[number] = &block.next[i]
        start = end
    for number in range(parser.shards + 1):
        ends[number][0] = NO_PACKET


cdef void parse_block(
    const Parser* parser, const Frame* frames, const HeaderRow* rows, Py_ssize_t count, Parsed* block
) noexcept nogil:
    if frames != NULL:
        parse(parser, frames, NULL, 0, count, block, False)
    else:
        parse(parser, NULL, rows, 0, count, block, False)


# Ahead of the caller --------------------------------------------------------------------------------------------------

cdef size_t size_of_prepared(const Preparation* preparation, Py_ssize_t capacity) noexcept nogil:
    cdef const Parser* parser = <const Parser*>preparation
    cdef size_t blocks = (capacity + BLOCK - 1) // BLOCK
    return (
        LINE + capacity * (sizeof(Packet) + sizeof(int64_t) + sizeof(uint16_t)) + sizeof(Prepared)
        + blocks * (sizeof(Parsed) + 2 * sizeof(bint) + (parser.shards + 1) * sizeof(uint16_t))
    )


cdef void prepare(
    const Preparation* preparation, const Frame* frames, Py_ssize_t count, Py_ssize_t capacity, void* memory
) noexcept nogil:
    cdef const Parser* parser = <const Parser*>preparation
    cdef Prepared* prepared = <Prepared*>memory
    cdef Py_ssize_t blocks = (capacity + BLOCK - 1) // BLOCK
    cdef Packet* packets
    cdef int64_t* now
    cdef uint16_t* indices
    cdef Parsed* block
    cdef Py_ssize_t number, start, end, i
    prepared.frames = frames
    prepared.count = count
    prepared.blocks = <Parsed*>&prepared[1]
    prepared.unused = <bint*>&prepared.blocks[blocks]
    prepared.in_order = &prepared.unused[blocks]
    packets = <Packet*>((<size_t>&prepared.in_order[blocks] + LINE - 1) // LINE * LINE)
    now = <int64_t*>&packets[capacity]
    indices = <uint16_t*>&now[capacity]
    for number in range((count + BLOCK - 1) // BLOCK):
        start = number * BLOCK
        end = min(start + <Py_ssize_t>BLOCK, count)
        block = &prepared.blocks[number]
        block.packets = &packets[start]
        block.now = &now[start]
        block.next = &indices[start]
        block.first = &indices[capacity + number * (parser.shards + 1)]
        parse(parser, &frames[start], NULL, 1 if number == 0 else 0, end - start, block, True)
        prepared.unused[number] = True
        prepared.in_order[number] = True
        for i in range(max(start, 1) + 1, end):
            if unlikely(frames[i].time_ns < frames[i - 1].time_ns):
                prepared.in_order[number] = False
                break


cdef void parse_first(const Parser* parser, Prepared* prepared) noexcept nogil:
    cdef Parsed* block = &prepared.blocks[0]
    cdef int number
    read_frame(&parser.wire, prepared.frames, &block.packets[0])
    number = list_of(parser, &block.packets[0], block)
    block.next[0] = block.first[number]
    block.first[number] = 0


cdef Preparation preparation_of_frames() noexcept nogil:
    cdef Preparation preparation = Preparation(size_of_prepared, prepare)
    return preparation

# Reads the headers of frames, and makes a list of packets for each shard. This needs no state that changes from packet
# to packet. So the thread that reads a part of the file also parses it, while the bytes are in its cache (`Prepared`).
# Frames from other sources, and header rows, are parsed when they are in a block (workers.pxd).

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.frames cimport Frame, Preparation
from sgfast.core.base.types cimport HeaderRow, Packet
from sgfast.core.wire.ip cimport WireContext

cdef enum:
    MOST_JOBS = 64
    MOST_LISTS = 2 * MOST_JOBS + 1
    BLOCK = 1024            # packets
    NO_PACKET = 0xFFFF      # the end of a list


cdef inline int shard_of_hash(uint32_t hash_value, int shards) noexcept nogil:
    # Uses other bits than the tables: there the lowest bits select the bucket, and the highest eight are the tag.
    return <int>((<uint64_t>(hash_value * <uint32_t>0x9E3779B1 >> 8 & 0xFFFF) * <uint64_t>shards) >> 16)


cdef struct Parser:
    Preparation preparation     # for the threads that find frames; must be the first field
    WireContext wire            # the context of all shards
    int shards


# Up to BLOCK packets in order, and lists of them.
cdef struct Parsed:
    Packet* packets         # [BLOCK]
    int64_t* now            # [BLOCK]: engine time, nanoseconds; set by the thread that runs the clock
    uint16_t* first         # by shard, and then for fragments: the index of the next packet to judge, or NO_PACKET
    uint16_t* next          # [BLOCK]: the index of the next packet of the same list, or NO_PACKET
    bint borrowed           # judging some packet needs the bytes of its frame


# The packets of a batch, in blocks. The thread that reads a window leaves out the batch's first frame, because that
# frame begins in the window before. The caller adds it (`parse_first`).
cdef struct Prepared:
    const Frame* frames     # the frames of the batch
    Py_ssize_t count
    Parsed* blocks
    bint* unused            # by block: no Workers have taken the block
    bint* in_order          # by block: no timestamp is earlier than the one before


cdef int shard_of(const Parser* parser, const Packet* p) noexcept nogil
# One of `frames` and `rows` is NULL. `count` is up to BLOCK.
cdef void parse_block(
    const Parser* parser, const Frame* frames, const HeaderRow* rows, Py_ssize_t count, Parsed* block) noexcept nogil
# Adds the first frame of a prepared batch, which is in its first block.
cdef void parse_first(const Parser* parser, Prepared* prepared) noexcept nogil
cdef Preparation preparation_of_frames() noexcept nogil

# A batch of captured frames, which a capture reader passes to the data plane. Neither of these depends on the other.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    POSITION_BITS = 40
    # Link type of a frame that stands for packets of a flow log's record: RecordCounts, and then an IP packet. No
    # capture can have it, as files have 16 bits for a link type.
    LINK_RECORD = 0x1FFFF


# The packets and bytes that a frame of LINK_RECORD stands for. Both are 0 if it only keeps its connection alive.
cdef struct RecordCounts:
    uint64_t packets
    uint32_t nbytes
    uint8_t is_answer       # the log says that the other end opened the connection
    uint8_t spare[3]


cdef struct Frame:
    const uint8_t* data     # the first captured byte, at the link layer
    int64_t time_ns         # capture timestamp, nanoseconds since the Unix epoch
    uint32_t captured       # bytes readable at `data`
    uint32_t wire           # original length in bytes according to the capture; at least `captured`
    uint32_t link_type      # LINKTYPE_ value, www.tcpdump.org/linktypes.html
    uint16_t vpc            # 1 + the number of the packet's VPC; 0 for none
    uint16_t cut_by_tunnel  # whether a tunnel carried only the beginning of the packet (SPEC 9.12)
    # This plus FrameBatch.position_base is: number of the capture << POSITION_BITS | number of the packet in the
    # capture. Both numbers count from 1. If the capture's number is 0, neither number is known.
    uint64_t position


# The preparation of frames: the thread that finds frames reads their headers for the engine, before the engine gets the
# frames. `size`: bytes of memory for a batch of `capacity` frames. `prepare` gets all frames of a batch but the first.
cdef struct Preparation:
    size_t (*size)(const Preparation*, Py_ssize_t capacity) noexcept nogil
    void (*prepare)(
        const Preparation*, const Frame* frames, Py_ssize_t count, Py_ssize_t capacity, void* memory) noexcept nogil


cdef inline bint is_of_record(const Frame* frame) noexcept nogil:
    return frame.link_type == LINK_RECORD and frame.captured >= sizeof(RecordCounts)


cdef inline uint64_t packets_of(const Frame* frame) noexcept nogil:
    # Returns the packets that a frame stands for.
    return (<const RecordCounts*>frame.data).packets if is_of_record(frame) else 1


cdef class FrameBatch:
    # The object that fills the batch owns the frame bytes. They stay valid until the batch is filled again. A `lasting`
    # batch is not filled again while another object refers to it.
    cdef Frame* frames
    cdef uint64_t position_base     # added to the position of each frame (Frame.position)
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t capacity
    cdef readonly bint lasting
    cdef object keep_alive
    # Frames may have been prepared for an engine with these FileReads. Code that changes frames must set this to None.
    cdef object prepared_for
    cdef void* prepared

    # Leaves out all frames from index `count` on. Frames before it may have moved to other places.
    cdef void keep_first(self, Py_ssize_t count) noexcept
    # Allocates the memory in which an engine prepares this batch. Raises MemoryError.
    cdef int make_room_for(self, const Preparation* preparation) except -1
    # Adds `position_base` to the position of each frame, and sets `position_base` to 0.
    cdef void make_positions_absolute(self) noexcept nogil


cdef class BatchPool:
    cdef Py_ssize_t capacity
    cdef list batches

    # Returns a batch to fill, to which no other object refers.
    cdef FrameBatch take(self)

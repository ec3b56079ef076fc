# A batch of captured frames, passed from a capture reader to the data plane. Neither depends on the other.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef enum:
    POSITION_BITS = 40


cdef struct Frame:
    const uint8_t* data     # the first captured byte, at the link layer
    int64_t time_ns         # capture timestamp, nanoseconds since the Unix epoch
    uint32_t captured       # bytes readable at data
    uint32_t wire           # original length in bytes, as the capture says; at least `captured`
    uint32_t link_type      # LINKTYPE_ value, www.tcpdump.org/linktypes.html
    uint32_t vpc            # 1 + the number of the VPC that the packet belongs to; 0 for none
    # The sum of this and FrameBatch.position_base is: number of the capture << POSITION_BITS | number of the packet in
    # it. Both numbers count from 1. If the first one is 0, neither is known.
    uint64_t position


# The preparation of frames: whoever finds frames reads their headers as the engine wants, before the engine gets them.
# `size`: bytes of memory that a batch of `capacity` frames takes. `prepare` gets all frames of a batch but the first.
cdef struct Preparation:
    size_t (*size)(const Preparation*, Py_ssize_t capacity) noexcept nogil
    void (*prepare)(
        const Preparation*, const Frame* frames, Py_ssize_t count, Py_ssize_t capacity, void* memory) noexcept nogil


cdef class FrameBatch:
    # Whoever fills the batch owns the frame bytes. They stay valid until it is filled again. A `lasting` batch is not
    # filled again while somebody refers to it.
    cdef Frame* frames
    cdef uint64_t position_base     # is added to the position of each frame (Frame.position)
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t capacity
    cdef readonly bint lasting
    cdef object keep_alive
    # Frames may have been prepared, for an engine with these FileReads. Set this to None when you change frames.
    cdef object prepared_for
    cdef void* prepared

    # Leaves out all frames from index `count` on. Others may have taken the places of some before them.
    cdef void keep_first(self, Py_ssize_t count) noexcept
    # Allocates the memory in which an engine prepares this batch. Raises MemoryError.
    cdef int make_room_for(self, const Preparation* preparation) except -1
    # Adds `position_base` to the position of each frame, and sets it to 0.
    cdef void make_positions_absolute(self) noexcept nogil


cdef class BatchPool:
    cdef Py_ssize_t capacity
    cdef list batches

    # A batch to fill, to which nobody else refers.
    cdef FrameBatch take(self)

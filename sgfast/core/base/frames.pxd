# A batch of captured frames: what a capture reader hands to the data plane. Neither knows the other.

from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef struct Frame:
    const uint8_t* data     # the first captured byte, at the link layer
    int64_t time_ns         # since the Unix epoch, as the capture says
    uint32_t captured       # bytes readable at data
    uint32_t wire           # bytes on the wire, as the capture says; at least captured
    uint32_t link_type      # LINKTYPE_ value, www.tcpdump.org/linktypes.html
    uint32_t vpc            # whose the packet is, where packets are dealt out to VPCs: a number + 1, 0: nobody's


cdef class FrameBatch:
    # The bytes belong to whoever fills the batch and stay valid until it is filled again.
    cdef Frame* frames
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t capacity
    cdef object keep_alive

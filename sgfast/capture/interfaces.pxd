# Maps the interfaces of a pcapng file to VPCs.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef struct VpcOfInterface:
    const uint8_t* key
    uint32_t length         # bytes in the key
    uint32_t vpc            # as in Frame.vpc


cdef struct VpcTable:
    VpcOfInterface* entries     # sorted by key: memcmp order, a prefix first
    Py_ssize_t count


cdef class InterfaceMarks:
    cdef VpcTable names
    cdef VpcTable numbers   # the keys are uint32_t in native byte order
    cdef list keys          # keeps the key bytes alive

    # Looks up an interface by its name (`length` bytes, or NULL) and its number in its section. Returns a value as in
    # Frame.vpc: 0 means no VPC.
    cdef uint32_t vpc_of(self, const uint8_t* name, uint16_t length, uint32_t number) noexcept nogil
    cdef int fill(self, VpcTable* table, dict vpcs) except -1

# Maps the interfaces of a pcapng file to VPCs.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef class InterfaceMarks:
    cdef dict vpcs          # names as bytes, and numbers, to values as in Frame.vpc

    # Returns the VPC of the interface with this name (`length` bytes, or NULL) and this number in its section, as in
    # Frame.vpc: 0 means no VPC. Files describe few interfaces, so this function may take Python's lock.
    cdef uint32_t vpc_of(self, const uint8_t* name, uint16_t length, uint32_t number) noexcept with gil

"""Map the interfaces of a pcapng file to VPCs. The pcapng reader looks up each interface that the file describes."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef class InterfaceMarks:
    """``vpcs`` maps each interface to the 0-based number of the VPC that its packets belong to.

    An interface is given by its name (option if_name) or by its 0-based number in its section. A match by name takes
    precedence over a match by number.
    """

    def __cinit__(self, dict vpcs not None):
        self.vpcs = {key.encode() if isinstance(key, str) else key: vpc + 1 for key, vpc in vpcs.items()}

    cdef uint32_t vpc_of(self, const uint8_t* name, uint16_t length, uint32_t number) noexcept with gil:
        cdef bytes given
        if name != NULL:
            # Some programs include C's terminating zero in the option.
            given = (<const char*>name)[:length]
            if vpc := self.vpcs.get(given.partition(b"\0")[0]):
                return vpc
        return self.vpcs.get(number, 0)

"""Map the interfaces of a pcapng file to VPCs. The pcapng reader looks up each interface that the file describes."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef class InterfaceMarks:
    """The VPCs of interfaces: ``vpcs`` maps each interface to the number, from 0, of its packets' VPC.

    An interface is named by its name (option if_name) or by its number, from 0, in its section. A match by name takes
    precedence over a match by number.
    """

    def __cinit__(self, dict vpcs not None):
        self.vpcs = {key.encode() if isinstance(key, str) else key: vpc + 1 for key, vpc in vpcs.items()}

    cdef uint32_t vpc_of(self, const uint8_t* name, uint16_t length, uint32_t number) noexcept with gil:
        cdef bytes name_bytes
        if name != NULL:
            # Some programs include C's terminating zero in the option.
            name_bytes = (<const char*>name)[:length]
            if vpc := self.vpcs.get(name_bytes.partition(b"\0")[0]):
                return vpc
        return self.vpcs.get(number, 0)

"""Map the interfaces of a pcapng file to VPCs. The pcapng reader looks up each interface that the file describes."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

import sys


cdef int _order(const VpcOfInterface* interface, const uint8_t* key, uint32_t length) noexcept nogil:
    # Negative, 0 or positive if the interface's key sorts before, equals or sorts after `key`.
    cdef int found = memcmp(interface.key, key, min(interface.length, length))
    return found if found else (interface.length > length) - (interface.length < length)


cdef uint32_t _find(const VpcTable* table, const uint8_t* key, uint32_t length) noexcept nogil:
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = table.count
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) // 2
        if _order(&table.entries[middle], key, length) < 0:
            low = middle + 1
        else:
            high = middle
    if low < table.count and _order(&table.entries[low], key, length) == 0:
        return table.entries[low].vpc
    return 0


cdef class InterfaceMarks:
    """``vpcs`` maps each interface to the 0-based number of the VPC that its packets belong to.

    An interface is given by its name (option if_name) or by its 0-based number in its section. A match by name takes
    precedence over a match by number.
    """

    def __cinit__(self, dict vpcs not None):
        self.keys = []
        self.fill(&self.names, {key.encode(): vpc for key, vpc in vpcs.items() if isinstance(key, str)})
        self.fill(&self.numbers, {
            key.to_bytes(4, sys.byteorder): vpc for key, vpc in vpcs.items() if not isinstance(key, str)
        })

    def __dealloc__(self):
        free(self.names.entries)
        free(self.numbers.entries)

    cdef int fill(self, VpcTable* table, dict vpcs) except -1:
        cdef VpcOfInterface* interface
        table.entries = <VpcOfInterface*>calloc(max(len(vpcs), 1), sizeof(VpcOfInterface))
        if table.entries == NULL:
            raise MemoryError
        for key in sorted(vpcs):
            self.keys.append(key)
            interface = &table.entries[table.count]
            interface.key = <const uint8_t*>PyBytes_AS_STRING(key)
            interface.length = <uint32_t>PyBytes_GET_SIZE(key)
            interface.vpc = vpcs[key] + 1
            table.count += 1
        return 0

    cdef uint32_t vpc_of(self, const uint8_t* name, uint16_t length, uint32_t number) noexcept nogil:
        cdef const uint8_t* end
        cdef uint32_t vpc = 0
        if name != NULL:
            # Some programs include C's terminating zero in the option.
            end = <const uint8_t*>memchr(name, 0, length)
            vpc = _find(&self.names, name, <uint32_t>(end - name) if end != NULL else length)
        return vpc if vpc else _find(&self.numbers, <const uint8_t*>&number, sizeof(number))

"""Whose packets are, by interface: what a reader of pcapng files asks when an interface is described."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

import sys


cdef int _order(const Mark* mark, const uint8_t* key, uint32_t length) noexcept nogil:
    # Below, at or above 0, as the mark's key comes before the other, is the same, or comes after it.
    cdef int found = memcmp(mark.key, key, min(mark.length, length))
    return found if found else (mark.length > length) - (mark.length < length)


cdef uint32_t _find(const Marks* table, const uint8_t* key, uint32_t length) noexcept nogil:
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = table.count
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) // 2
        if _order(&table.marks[middle], key, length) < 0:
            low = middle + 1
        else:
            high = middle
    if low < table.count and _order(&table.marks[low], key, length) == 0:
        return table.marks[low].vpc
    return 0


cdef class InterfaceMarks:
    """``vpcs``: by interface, the number of the VPC its packets are of, from 0 on.

    Interfaces are names, as in the option if_name, or numbers: which they are in their section, from 0 on. What a name
    says goes before what a number says.
    """

    def __cinit__(self, dict vpcs not None):
        self.keys = []
        self.fill(&self.names, {mark.encode(): vpc for mark, vpc in vpcs.items() if isinstance(mark, str)})
        self.fill(&self.numbers, {
            mark.to_bytes(4, sys.byteorder): vpc for mark, vpc in vpcs.items() if not isinstance(mark, str)
        })

    def __dealloc__(self):
        free(self.names.marks)
        free(self.numbers.marks)

    cdef int fill(self, Marks* table, dict vpcs) except -1:
        cdef Mark* mark
        table.marks = <Mark*>calloc(max(len(vpcs), 1), sizeof(Mark))
        if table.marks == NULL:
            raise MemoryError
        for key in sorted(vpcs):
            self.keys.append(key)
            mark = &table.marks[table.count]
            mark.key = <const uint8_t*>PyBytes_AS_STRING(key)
            mark.length = <uint32_t>PyBytes_GET_SIZE(key)
            mark.vpc = vpcs[key] + 1
            table.count += 1
        return 0

    cdef uint32_t whose(self, const uint8_t* name, uint16_t length, uint32_t number) noexcept nogil:
        cdef const uint8_t* end
        cdef uint32_t vpc = 0
        if name != NULL:
            # Some programs write the 0 that ends a string in C, too.
            end = <const uint8_t*>memchr(name, 0, length)
            vpc = _find(&self.names, name, <uint32_t>(end - name) if end != NULL else length)
        return vpc if vpc else _find(&self.numbers, <const uint8_t*>&number, sizeof(number))

# Whose packets are, by the interface of a pcapng file that they came in on.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef struct Mark:
    const uint8_t* key
    uint32_t length         # of the key, bytes
    uint32_t vpc            # as in Frame.vpc


cdef struct Marks:
    Mark* marks             # keys ascending, as memcmp has them, then by length
    Py_ssize_t count


cdef class InterfaceMarks:
    cdef Marks names
    cdef Marks numbers      # keys are uint32_t
    cdef list keys          # keeps their bytes

    # Of an interface with this name, of `length` bytes, and this number in its section; 0: nobody's.
    cdef uint32_t whose(self, const uint8_t* name, uint16_t length, uint32_t number) noexcept nogil
    cdef int fill(self, Marks* table, dict vpcs) except -1

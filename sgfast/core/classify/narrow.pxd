# A narrow array holds unsigned numbers of 16 bits. A wide array holds numbers of 32 bits, because one of them needs
# more than 16. Few arrays are wide. These arrays are most of a policy's memory. `narrow` in classifier.pyx makes them.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from sgfast.core.base.intrinsics cimport likely


cdef inline uint32_t number_at(const void* numbers, bint wide, uint64_t n) noexcept nogil:
    if likely(not wide):
        return (<const uint16_t*>numbers)[n]
    return (<const uint32_t*>numbers)[n]


cdef inline const void* place_of(const void* numbers, bint wide, uint64_t n) noexcept nogil:
    return <const char*>numbers + (n << (2 if wide else 1))

# Unaligned loads in the byte order of a capture. Compilers make a single load of each function, plus a swap.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef inline uint16_t load_u16(const uint8_t* p, bint big_endian) noexcept nogil:
    if big_endian:
        return <uint16_t>((<uint32_t>p[0] << 8) | p[1])
    return <uint16_t>((<uint32_t>p[1] << 8) | p[0])


cdef inline uint32_t load_u32(const uint8_t* p, bint big_endian) noexcept nogil:
    if big_endian:
        return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]
    return (<uint32_t>p[3] << 24) | (<uint32_t>p[2] << 16) | (<uint32_t>p[1] << 8) | p[0]


cdef inline uint64_t load_u64(const uint8_t* p, bint big_endian) noexcept nogil:
    if big_endian:
        return (<uint64_t>load_u32(p, True) << 32) | load_u32(p + 4, True)
    return (<uint64_t>load_u32(p + 4, False) << 32) | load_u32(p, False)

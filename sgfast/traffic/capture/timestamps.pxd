# Converts timestamps of any resolution to nanoseconds since the Unix epoch. Results saturate at +-2^62 (year 2116).
#
# Fractions of a nanosecond are dropped. A resolution is 10^-e or 2^-e seconds, with e from 0 to 127.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef enum:
    NS_PER_SECOND = 1000000000


cdef enum Conversion:
    MULTIPLY    # base 10, ticks of 1 ns or longer
    DIVIDE      # base 10, shorter ticks
    SHIFT       # base 2


cdef struct Resolution:
    Conversion conversion
    uint32_t exponent       # SHIFT: a tick is 2^-exponent s
    uint64_t factor         # MULTIPLY: ns per tick; DIVIDE: ticks per ns
    uint64_t max_ticks      # MULTIPLY: the largest number of ticks that does not saturate
    int64_t offset_ns       # added to every timestamp, within +-2^62


cdef inline uint64_t max_ns() noexcept nogil:
    return (<uint64_t>1) << 62


cdef inline uint64_t power_of_ten(uint32_t exponent) noexcept nogil:
    # exponent <= 19
    cdef uint64_t power = 1
    while exponent > 0:
        power *= 10
        exponent -= 1
    return power


cdef inline Resolution resolution_of(uint8_t if_tsresol, int64_t if_tsoffset) noexcept nogil:
    # The parameters are pcapng options. if_tsresol: an octet whose top bit means base 2. if_tsoffset: seconds.
    cdef Resolution resolution
    cdef uint32_t exponent = if_tsresol & 0x7F
    cdef int64_t max_seconds = <int64_t>(max_ns() // NS_PER_SECOND)
    resolution.exponent = exponent
    resolution.factor = 1
    resolution.max_ticks = 0
    if if_tsresol & 0x80:
        resolution.conversion = SHIFT
    elif exponent <= 9:
        resolution.conversion = MULTIPLY
        resolution.factor = power_of_ten(9 - exponent)
        resolution.max_ticks = max_ns() // resolution.factor
    elif exponent <= 28:
        resolution.conversion = DIVIDE
        resolution.factor = power_of_ten(exponent - 9)
    else:
        # 2^64 such ticks are less than a nanosecond, so the result is always 0, as for 2^-127.
        resolution.conversion = SHIFT
        resolution.exponent = 127
    if if_tsoffset > max_seconds:
        resolution.offset_ns = <int64_t>max_ns()
    elif if_tsoffset < -max_seconds:
        resolution.offset_ns = -<int64_t>max_ns()
    else:
        resolution.offset_ns = if_tsoffset * NS_PER_SECOND
    return resolution


cdef inline uint64_t binary_ticks_to_ns(uint64_t ticks, uint32_t exponent) noexcept nogil:
    # Returns ticks * 10^9 / 2^exponent. The product has up to 96 bits: it is high * 2^32 + (low mod 2^32).
    cdef uint64_t low = <uint64_t><uint32_t>ticks * <uint64_t>NS_PER_SECOND
    cdef uint64_t high = (ticks >> 32) * <uint64_t>NS_PER_SECOND + (low >> 32)
    if exponent >= 96:
        return 0
    if exponent >= 32:
        return high >> (exponent - 32)
    if high >> (30 + exponent):
        return max_ns()
    return (high << (32 - exponent)) | (<uint64_t><uint32_t>low >> exponent)


cdef inline int64_t ticks_to_ns(uint64_t ticks, const Resolution* resolution) noexcept nogil:
    cdef uint64_t ns
    cdef int64_t offset_ns = resolution.offset_ns
    if resolution.conversion == MULTIPLY:
        ns = ticks * resolution.factor if ticks <= resolution.max_ticks else max_ns()
    elif resolution.conversion == DIVIDE:
        ns = ticks // resolution.factor
    else:
        ns = binary_ticks_to_ns(ticks, resolution.exponent)
    if ns > max_ns():
        ns = max_ns()
    if offset_ns > 0 and ns > max_ns() - <uint64_t>offset_ns:
        return <int64_t>max_ns()
    return <int64_t>ns + offset_ns

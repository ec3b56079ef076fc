# Text written by hand: words, numbers, times and addresses.
#
# Each function writes at `at`, where its caller has made room, and returns where the text ends.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from sgfast.core.base.intrinsics cimport unlikely

cdef enum:
    NS_PER_SECOND = 1000000000


cdef inline char* put_word(char* at, const char* word) noexcept nogil:
    # Of a literal, whose length the compiler knows.
    cdef size_t length = strlen(word)
    memcpy(at, word, length)
    return at + length


cdef inline const char* pair_of(uint32_t n) noexcept nogil:
    # Two digits, n < 100.
    cdef const char* pairs = (
        b"00010203040506070809101112131415161718192021222324"
        b"25262728293031323334353637383940414243444546474849"
        b"50515253545556575859606162636465666768697071727374"
        b"75767778798081828384858687888990919293949596979899"
    )
    return pairs + 2 * n


cdef inline char* put_number(char* at, uint64_t n) noexcept nogil:
    # At most 20 bytes.
    cdef char* end = at + 1
    cdef char* digit
    cdef uint64_t rest = n
    while rest >= 10000:
        rest //= 10000
        end += 4
    end += (rest >= 10) + (rest >= 100) + (rest >= 1000)
    digit = end
    while n >= 100:
        digit -= 2
        memcpy(digit, pair_of(<uint32_t>(n % 100)), 2)
        n //= 100
    if n >= 10:
        memcpy(at, pair_of(<uint32_t>n), 2)
    else:
        at[0] = <char>(c'0' + n)
    return end


cdef inline char* put_time(char* at, int64_t time_ns) noexcept nogil:
    # SPEC 10.3: seconds with nine decimals. At most 21 bytes.
    cdef uint64_t distance = <uint64_t>time_ns
    cdef uint32_t decimals
    cdef int i
    if unlikely(time_ns < 0):
        distance = 0 - distance
        at[0] = c'-'
        at += 1
    at = put_number(at, distance // NS_PER_SECOND)
    decimals = <uint32_t>(distance % NS_PER_SECOND)
    at[0] = c'.'
    for i in range(8, 0, -2):
        memcpy(at + i, pair_of(decimals % 100), 2)
        decimals //= 100
    at[1] = <char>(c'0' + decimals)
    return at + 10


cdef inline char* put_ipv4(char* at, const uint8_t* address) noexcept nogil:
    # At most 15 bytes, and one more that is written to.
    cdef uint32_t octet
    cdef int i
    for i in range(4):
        octet = address[i]
        if octet >= 100:
            at[0] = <char>(c'0' + octet // 100)
            memcpy(at + 1, pair_of(octet % 100), 2)
            at += 3
        elif octet >= 10:
            memcpy(at, pair_of(octet), 2)
            at += 2
        else:
            at[0] = <char>(c'0' + octet)
            at += 1
        at[0] = c'.'
        at += 1
    return at - 1


cdef inline char* put_ipv6(char* at, const uint8_t* address, bint dotted) noexcept nogil:
    # RFC 5952, as Python's ipaddress does: the first of the longest runs of two or more zero groups becomes "::".
    # `dotted`: the end of an IPv4-mapped address is written as IPv4. At most 39 bytes.
    cdef const char* digits = b"0123456789abcdef"
    cdef uint32_t groups[8]
    cdef int zeros = -1             # where the longest run begins
    cdef int most = 1               # its length, if there is one
    cdef int run = 0
    cdef int i, shift
    for i in range(8):
        groups[i] = <uint32_t>address[2 * i] << 8 | address[2 * i + 1]
        run = 0 if groups[i] else run + 1
        if run > most:
            most = run
            zeros = i + 1 - run
    if dotted and zeros == 0 and most == 5 and groups[5] == 0xFFFF:
        return put_ipv4(put_word(at, b"::ffff:"), address + 12)
    i = 0
    while i < 8:
        # Of "::" one colon stands before the zeros and one after them; at either end there is no group to bring it.
        if i or zeros == 0:
            at[0] = c':'
            at += 1
        if i == zeros:
            i += most
            if i == 8:
                at[0] = c':'
                at += 1
            continue
        shift = 12
        while shift and not groups[i] >> shift:
            shift -= 4
        while shift >= 0:
            at[0] = digits[groups[i] >> shift & 15]
            at += 1
            shift -= 4
        i += 1
    return at

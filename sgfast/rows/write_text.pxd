# Functions that format words, numbers, times and addresses without Python objects.
#
# Each function writes its text at `at`, where the caller has made room, and returns the end of the text.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from sgfast.core.base.intrinsics cimport ctz32, load16, load32, unlikely

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdio.h>
    #include <string.h>
    /* The octets of IPv4 addresses as text, each with a dot behind it. Filled when the module is loaded. */
    static struct sg_octet { char text[4]; uint32_t length; } sg_octets[256];
    __attribute__((constructor)) static void sg_write_octets(void) {
        char text[16];
        for (int n = 0; n < 256; n++) {
            sg_octets[n].length = (uint32_t)snprintf(text, sizeof text, "%d.", n);
            memcpy(sg_octets[n].text, text, 4);
        }
    }
    """
    ctypedef struct Octet "struct sg_octet":
        char text[4]
        uint32_t length
    const Octet octets "sg_octets"[256]

cdef enum:
    NS_PER_SECOND = 1000000000


# The leading digits of the last number that was written. The next number of a column often begins with the same digits,
# which are then copied.
cdef struct Leading:
    uint64_t number             # 0: none
    size_t length
    char text[24]


cdef inline char* put_word(char* at, const char* word) noexcept nogil:
    # `word` is a literal, so the compiler knows its length.
    cdef size_t length = strlen(word)
    memcpy(at, word, length)
    return at + length


cdef inline const char* pair_of(uint32_t n) noexcept nogil:
    # The two digits of n, which is below 100.
    cdef const char* pairs = (
        b"00010203040506070809101112131415161718192021222324"
        b"25262728293031323334353637383940414243444546474849"
        b"50515253545556575859606162636465666768697071727374"
        b"75767778798081828384858687888990919293949596979899"
    )
    return pairs + 2 * n


cdef inline char* put_short(char* at, uint32_t n) noexcept nogil:
    # Writes a number below 100,000. It has no branches, because a processor cannot predict how many digits a port has.
    # The text has 1 to 5 bytes. The function always writes 8 bytes, so bytes behind the text are overwritten.
    cdef uint32_t last = n % 10000
    cdef int missing = (n < 10) + (n < 100) + (n < 1000) + (n < 10000)
    cdef uint64_t digits = (
        c'0' + n // 10000 | <uint64_t>load16(pair_of(last // 100)) << 8 | <uint64_t>load16(pair_of(last % 100)) << 24
    )
    digits >>= 8 * missing
    memcpy(at, &digits, 8)
    return at + 5 - missing


cdef inline char* put_four(char* at, uint32_t n) noexcept nogil:
    # The four digits of n, which is below 10,000.
    memcpy(at, pair_of(n // 100), 2)
    memcpy(at + 2, pair_of(n % 100), 2)
    return at + 4


cdef inline char* put_number(char* at, uint64_t n) noexcept nogil:
    # The text has 1 to 20 bytes. Up to 7 bytes behind it are overwritten (`put_short`).
    if n < 100000:
        return put_short(at, <uint32_t>n)
    return put_four(put_number(at, n // 10000), <uint32_t>(n % 10000))


cdef inline char* put_leading(char* at, uint64_t n, Leading* leading) noexcept nogil:
    # Writes the text of put_number, for a number above 0 with at most 16 digits. Always writes 16 bytes, so text behind
    # it is overwritten.
    if unlikely(n != leading.number):
        leading.number = n
        leading.length = put_number(leading.text, n) - leading.text
    memcpy(at, leading.text, 16)
    return at + leading.length


cdef inline char* put_next_number(char* at, uint64_t n, Leading* leading) noexcept nogil:
    # Writes the text of put_number, and overwrites nothing after 20 bytes. It is faster if the last number had the same
    # leading digits, as in a column of row numbers.
    if unlikely(n < 10000):
        return put_short(at, <uint32_t>n)
    return put_four(put_leading(at, n // 10000, leading), <uint32_t>(n % 10000))


cdef inline char* put_time(char* at, int64_t time_ns, Leading* leading) noexcept nogil:
    # Seconds with nine decimals (SPEC 10.3). Writes at most 21 bytes.
    cdef uint64_t distance = <uint64_t>time_ns
    cdef uint64_t seconds
    cdef uint32_t decimals
    if unlikely(time_ns < 0):
        distance = 0 - distance
        at[0] = c'-'
        at += 1
    seconds = distance // NS_PER_SECOND
    at = put_leading(at, seconds, leading) if seconds else put_short(at, 0)
    decimals = <uint32_t>(distance % NS_PER_SECOND)
    at[0] = c'.'
    at[1] = <char>(c'0' + decimals // 100000000)
    decimals %= 100000000
    return put_four(put_four(at + 2, decimals // 10000), decimals % 10000)


cdef inline char* put_ipv4(char* at, const uint8_t* address) noexcept nogil:
    # The text has at most 15 bytes. Up to three more bytes behind it are overwritten. No branches, as in `put_short`.
    cdef int i
    for i in range(4):
        memcpy(at, octets[address[i]].text, 4)
        at += octets[address[i]].length
    return at - 1


cdef inline char hex_digit(uint8_t n) noexcept nogil:
    return <char>(n + c'0' + (n > 9) * (c'a' - c'0' - 10))


cdef inline char* put_group(char* at, uint32_t group, const char* digits) noexcept nogil:
    # Writes the last one to four of the digits, and a colon. No branches. Always writes 8 bytes.
    cdef int missing = (group < 0x10) + (group < 0x100) + (group < 0x1000)
    cdef uint64_t text = (load32(digits) | <uint64_t>c':' << 32) >> 8 * missing
    memcpy(at, &text, 8)
    return at + 5 - missing


cdef inline char* put_ipv6(char* at, const uint8_t* address, bint dotted) noexcept nogil:
    # Writes RFC 5952 as Python's ipaddress does: the first of the longest runs of two or more zero groups becomes "::".
    # `dotted`: write the end of an IPv4-mapped address as IPv4. The text has at most 39 bytes. Up to seven more bytes
    # behind it are overwritten.
    cdef char digits[32]
    cdef uint32_t groups[8]
    cdef uint32_t zeros = 0         # bit i is set if group i is zero
    cdef uint32_t runs              # bit i is set if a run of `length` zero groups begins with group i
    cdef int length = 2
    cdef int first, i
    for i in range(16):
        digits[2 * i] = hex_digit(address[i] >> 4)
        digits[2 * i + 1] = hex_digit(address[i] & 15)
    for i in range(8):
        groups[i] = <uint32_t>address[2 * i] << 8 | address[2 * i + 1]
        zeros |= <uint32_t>(groups[i] == 0) << i
    runs = zeros & zeros >> 1
    if not runs:
        for i in range(8):
            at = put_group(at, groups[i], &digits[4 * i])
        return at - 1
    if dotted and zeros & 0x3F == 0x1F and groups[5] == 0xFFFF:
        return put_ipv4(put_word(at, b"::ffff:"), address + 12)
    while runs & zeros >> length:
        runs &= zeros >> length
        length += 1
    first = ctz32(runs)
    for i in range(first):
        at = put_group(at, groups[i], &digits[4 * i])
    # Each group wrote a colon behind it. If no group is before the zeros, or none after them, one colon is missing or
    # too many.
    at = put_word(at, b":") if first else put_word(at, b"::")
    for i in range(first + length, 8):
        at = put_group(at, groups[i], &digits[4 * i])
    return at if first + length == 8 else at - 1

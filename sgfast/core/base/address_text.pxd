# Parses textual addresses into bytes in network order. Accepted text is read exactly as by Python's ipaddress. Text
# that these functions do not accept may still be a valid address.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset


cdef inline bint read_ipv4_text(const uint8_t* text, Py_ssize_t length, uint8_t* address) noexcept nogil:
    # Reads four decimal numbers up to 255 without leading zeros, exactly the text that ipaddress accepts.
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t start
    cdef uint32_t value
    cdef int n
    for n in range(4):
        if n:
            if at == length or text[at] != c".":
                return False
            at += 1
        start = at
        value = 0
        while at < length and at - start < 3 and c"0" <= text[at] <= c"9":
            value = value * 10 + text[at] - c"0"
            at += 1
        if at == start or value > 255 or (text[start] == c"0" and at - start > 1):
            return False
        address[n] = <uint8_t>value
    return at == length


cdef inline int hex_digit(uint8_t letter) noexcept nogil:
    if c"0" <= letter <= c"9":
        return letter - c"0"
    letter |= 0x20
    if c"a" <= letter <= c"f":
        return letter - c"a" + 10
    return -1


cdef inline bint read_ipv6_text(const uint8_t* text, Py_ssize_t length, uint8_t* address) noexcept nogil:
    # Reads groups of up to four hexadecimal digits, where "::" replaces one or more zero groups. Scopes and dotted IPv4
    # tails are not supported.
    cdef Py_ssize_t at = 0
    cdef int groups = 0
    cdef int gap = -1       # number of groups before "::"; -1 without one
    cdef int digits, i
    cdef uint32_t value
    memset(address, 0, 16)
    if length >= 2 and text[0] == c":" and text[1] == c":":
        gap = 0
        at = 2
    while at < length:
        value = 0
        digits = 0
        while at < length and digits < 4 and hex_digit(text[at]) >= 0:
            value = value << 4 | <uint32_t>hex_digit(text[at])
            digits += 1
            at += 1
        if digits == 0 or groups == 8:
            return False
        address[2 * groups] = <uint8_t>(value >> 8)
        address[2 * groups + 1] = <uint8_t>value
        groups += 1
        if at == length:
            break
        if text[at] != c":":
            return False
        at += 1
        if at == length:
            return False
        if text[at] == c":":
            if gap >= 0:
                return False
            gap = groups
            at += 1
    if gap < 0:
        return groups == 8
    if groups == 8:
        return False
    for i in range(2 * groups - 1, 2 * gap - 1, -1):    # move the groups after "::" to the end
        address[i + 16 - 2 * groups] = address[i]
        address[i] = 0
    return True

# Formats words, numbers, times and addresses without Python objects.
#
# Each function writes at `at`, where the caller has made room, and returns the end of the text.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from sgfast.core.base.intrinsics cimport load16, unlikely

cdef enum:
    NS_PER_SECOND = 1000000000


# The leading digits of the number that was written last. Most numbers of a column begin with the same digits as the one
# before.
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


cdef inline const char* octet_text(uint8_t octet) noexcept nogil:
    # Four bytes: the digits of an octet of an IPv4 address, and a dot behind them.
    cdef const char* octets = (
        b"0.  1.  2.  3.  4.  5.  6.  7.  8.  9.  10. 11. 12. 13. 14. 15. 16. 17. 18. 19. 20. 21. 22. 23. "
        b"24. 25. 26. 27. 28. 29. 30. 31. 32. 33. 34. 35. 36. 37. 38. 39. 40. 41. 42. 43. 44. 45. 46. 47. "
        b"48. 49. 50. 51. 52. 53. 54. 55. 56. 57. 58. 59. 60. 61. 62. 63. 64. 65. 66. 67. 68. 69. 70. 71. "
        b"72. 73. 74. 75. 76. 77. 78. 79. 80. 81. 82. 83. 84. 85. 86. 87. 88. 89. 90. 91. 92. 93. 94. 95. "
        b"96. 97. 98. 99. 100.101.102.103.104.105.106.107.108.109.110.111.112.113.114.115.116.117.118.119."
        b"120.121.122.123.124.125.126.127.128.129.130.131.132.133.134.135.136.137.138.139.140.141.142.143."
        b"144.145.146.147.148.149.150.151.152.153.154.155.156.157.158.159.160.161.162.163.164.165.166.167."
        b"168.169.170.171.172.173.174.175.176.177.178.179.180.181.182.183.184.185.186.187.188.189.190.191."
        b"192.193.194.195.196.197.198.199.200.201.202.203.204.205.206.207.208.209.210.211.212.213.214.215."
        b"216.217.218.219.220.221.222.223.224.225.226.227.228.229.230.231.232.233.234.235.236.237.238.239."
        b"240.241.242.243.244.245.246.247.248.249.250.251.252.253.254.255."
    )
    return octets + 4 * octet


cdef inline char* put_short(char* at, uint32_t n) noexcept nogil:
    # Writes a number below 100,000. It has no branches, because a processor cannot predict how many digits a port has.
    # The text has 1 to 5 bytes. The function always writes 8, so what is behind the text is overwritten.
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
    # Like put_number, for a number above 0 with at most 16 digits. Always writes 16 bytes, so what is behind the text
    # is overwritten.
    if unlikely(n != leading.number):
        leading.number = n
        leading.length = put_number(leading.text, n) - leading.text
    memcpy(at, leading.text, 16)
    return at + leading.length


cdef inline char* put_next_number(char* at, uint64_t n, Leading* leading) noexcept nogil:
    # Writes what put_number writes, and overwrites nothing after 20 bytes. It is faster if the last number had the same
    # leading digits, as in a column that counts the rows.
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
    # The text has at most 15 bytes. Up to three more bytes behind it are overwritten. Without branches, as above.
    cdef int i
    for i in range(4):
        memcpy(at, octet_text(address[i]), 4)
        at += 2 + (address[i] >= 10) + (address[i] >= 100)
    return at - 1


cdef inline char* put_ipv6(char* at, const uint8_t* address, bint dotted) noexcept nogil:
    # RFC 5952, as Python's ipaddress does: the first of the longest runs of two or more zero groups becomes "::".
    # `dotted`: write the end of an IPv4-mapped address as IPv4. Writes at most 39 bytes.
    cdef const char* digits = b"0123456789abcdef"
    cdef uint32_t groups[8]
    cdef int zeros = -1             # start of the longest run
    cdef int longest = 1            # length of the longest run, if there is one
    cdef int run = 0
    cdef int i, shift
    for i in range(8):
        groups[i] = <uint32_t>address[2 * i] << 8 | address[2 * i + 1]
        run = 0 if groups[i] else run + 1
        if run > longest:
            longest = run
            zeros = i + 1 - run
    if dotted and zeros == 0 and longest == 5 and groups[5] == 0xFFFF:
        return put_ipv4(put_word(at, b"::ffff:"), address + 12)
    i = 0
    while i < 8:
        # A colon comes before every group but the first, and before the zeros even if they come first. Zeros at the end
        # take a second colon.
        if i or zeros == 0:
            at[0] = c':'
            at += 1
        if i == zeros:
            i += longest
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

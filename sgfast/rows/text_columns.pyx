"""The columns of text that NumPy cannot build."""

from ipaddress import IPv6Address

import numpy as np

from libc.stdint cimport int32_t, uint8_t

from sgfast.core.base.intrinsics cimport unlikely
from sgfast.rows.write_text cimport put_ipv4, put_ipv6

cdef enum:
    ADDRESS_BYTES = 40          # more than the text of any address

mapped_is_dotted = str(IPv6Address("::ffff:1.2.3.4")).endswith(".4")


def address_texts(const uint8_t[:, ::1] addresses not None, const uint8_t[::1] families not None):
    """Format addresses (n x 16 bytes, IPv4 in the first four) as text.

    Returns ``(offsets, text)``: n + 1 int32 and bytes. Text number i lies between offsets i and i + 1. It is empty if
    the family is neither 4 nor 6. Raises ValueError for other shapes or more than 2^24 addresses.
    """
    cdef Py_ssize_t n = families.shape[0]
    cdef Py_ssize_t i
    if addresses.shape[0] != n or addresses.shape[1] != 16 or n > 1 << 24:
        raise ValueError("each address needs 16 bytes and a family, and there may be at most 2^24")
    offsets = np.zeros(n + 1, dtype=np.int32)
    text = np.empty(n * ADDRESS_BYTES + ADDRESS_BYTES, dtype=np.uint8)
    cdef int32_t[::1] ends = offsets
    cdef uint8_t[::1] room = text
    cdef char* start = <char*>&room[0]
    cdef char* at = start
    with nogil:
        for i in range(n):
            if families[i] == 4:
                at = put_ipv4(at, &addresses[i, 0])
            elif families[i] == 6:
                at = put_ipv6(at, &addresses[i, 0], mapped_is_dotted)
            ends[i + 1] = <int32_t>(at - start)
    return offsets, text[: ends[n]]


def dictionary_codes(
    const int32_t[::1] numbers not None, const uint8_t[::1] there not None, const int32_t[::1] words not None,
    Py_ssize_t count,
):
    """Encode numbers with a dictionary of only the words that occur: return ``(codes, valid, used_words)``.

    ``words`` maps each number to one of ``count`` words; negative means none. A row is null if ``there`` is 0, its
    number is negative, or its number has no word. ``codes``: int32, 0 in null rows. ``valid``: a bitmap of the rows
    that are not null, lowest bit first. ``used_words``: the word for each code. Raises IndexError for numbers and words
    out of range, and ValueError for arrays of different lengths.
    """
    cdef Py_ssize_t n = numbers.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t wrong = -1
    cdef int32_t word
    cdef int32_t used = 0
    if there.shape[0] != n:
        raise ValueError("numbers and flags must have equal lengths")
    made_codes = np.zeros(n, dtype=np.int32)
    made_valid = np.zeros((n + 7) // 8, dtype=np.uint8)
    made_words = np.zeros(count, dtype=np.int32)
    made_places = np.full(count, -1, dtype=np.int32)
    cdef int32_t[::1] codes = made_codes
    cdef uint8_t[::1] valid = made_valid
    cdef int32_t[::1] used_words = made_words
    cdef int32_t[::1] places = made_places
    with nogil:
        for i in range(n):
            if not there[i] or numbers[i] < 0:
                continue
            if unlikely(numbers[i] >= words.shape[0]):
                wrong = i
                break
            word = words[numbers[i]]
            if word < 0:
                continue
            if unlikely(word >= count):
                wrong = i
                break
            if unlikely(places[word] < 0):
                places[word] = used
                used_words[used] = word
                used += 1
            codes[i] = places[word]
            valid[i >> 3] |= <uint8_t>(1 << (i & 7))
    if wrong >= 0:
        raise IndexError(f"name number {numbers[wrong]} is out of range")
    return made_codes, made_valid, made_words[:used]

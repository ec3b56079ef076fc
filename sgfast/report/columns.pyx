"""Columns for Arrow that NumPy cannot make."""

import numpy as np

from libc.stdint cimport int32_t, uint8_t

from sgfast.core.base.intrinsics cimport unlikely
from sgfast.report.rows cimport mapped_is_dotted
from sgfast.report.write_text cimport put_ipv4, put_ipv6

cdef enum:
    ADDRESS_BYTES = 40          # more than the text of one takes


def address_texts(const uint8_t[:, ::1] addresses not None, const uint8_t[::1] families not None):
    """Addresses (n x 16 bytes, IPv4 in the first four) as text: ``(offsets, text)``, n + 1 int32 and bytes, the n-th of
    them between offsets n and n + 1. Of a family that is neither 4 nor 6 it is empty. ValueError for other shapes, or
    more than 2^24 addresses.
    """
    cdef Py_ssize_t n = families.shape[0]
    cdef Py_ssize_t i
    if addresses.shape[0] != n or addresses.shape[1] != 16 or n > 1 << 24:
        raise ValueError("addresses are 16 bytes each, with a family, and at most 2^24")
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
    """Numbers as codes of a dictionary of what comes up alone: ``(codes, valid, kept)``.

    ``words``: by number, which of the ``count`` words it is; negative: none. ``codes``: int32, 0 where there is
    nothing: where ``there`` is 0, or a number negative. ``valid``: a bitmap of where there is something, lowest bit
    first. ``kept``: by code, which word it is. IndexError for a number or word that is too high, ValueError for arrays
    that are not equally long.
    """
    cdef Py_ssize_t n = numbers.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t wrong = -1
    cdef int32_t word
    cdef int32_t used = 0
    if there.shape[0] != n:
        raise ValueError("numbers and where they are must be equally many")
    made_codes = np.zeros(n, dtype=np.int32)
    made_valid = np.zeros((n + 7) // 8, dtype=np.uint8)
    made_kept = np.zeros(count, dtype=np.int32)
    made_places = np.full(count, -1, dtype=np.int32)
    cdef int32_t[::1] codes = made_codes
    cdef uint8_t[::1] valid = made_valid
    cdef int32_t[::1] kept = made_kept
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
                kept[used] = word
                used += 1
            codes[i] = places[word]
            valid[i >> 3] |= <uint8_t>(1 << (i & 7))
    if wrong >= 0:
        raise IndexError(f"there is no name number {numbers[wrong]}")
    return made_codes, made_valid, made_kept[:used]

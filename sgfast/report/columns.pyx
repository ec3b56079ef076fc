"""Columns for Arrow that NumPy cannot make."""

import numpy as np

from libc.stdint cimport int32_t, uint8_t

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

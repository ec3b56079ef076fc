"""NumPy dtypes of the rows that the data plane exports. Every number is little-endian."""

import numpy as np

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from sgfast.core.base.types cimport HeaderRow, ResultRow
from sgfast.core.conntrack.table cimport EventRow, FlowRow, RememberedRow
from sgfast.core.fragments.datagrams cimport ResolvedRow
from sgfast.core.pipeline.plane cimport RuleCount
from sgfast.core.tallies.disconnects cimport CutRow
from sgfast.core.tallies.tally cimport TallyRow

_SIDE = np.dtype([("instance", "<i4"), ("rule", "<i4"), ("verdict", "u1"), ("reason", "u1"), ("spare", "<u2")])
RESULT_DTYPE = np.dtype(
    [("verdict", "u1"), ("reason", "u1"), ("spare", "<u2"), ("egress", _SIDE), ("ingress", _SIDE)]
)
RESOLVED_DTYPE = np.dtype([("number", "<u8"), ("result", RESULT_DTYPE)])
HEADER_DTYPE = np.dtype([
    ("time_ns", "<i8"), ("src", "u1", (16,)), ("dst", "u1", (16,)), ("wire", "<u4"), ("sport", "<u2"),
    ("dport", "<u2"), ("family", "u1"), ("protocol", "u1"), ("tcp_flags", "u1"), ("icmp_type", "u1"),
    ("icmp_code", "u1"), ("has_ports", "u1"), ("has_icmp", "u1"), ("spare", "u1"), ("icmp_id", "<u4"),
])
_ENDS = [
    ("initiator", "u1", (16,)), ("responder", "u1", (16,)), ("ports", "<u4"), ("icmp", "<u2"), ("family", "u1"),
    ("protocol", "u1"), ("has_ports", "u1"), ("spare", "u1"),
]
FLOW_DTYPE = np.dtype([
    ("number", "<u8"), ("first_ns", "<i8"), ("last_ns", "<i8"), ("bytes", "<u8", (2,)), ("packets", "<u8", (2,)),
    *_ENDS, ("rule", "<i4", (2,)), ("instance", "<i4", (2,)), ("verdict", "u1"), ("reason", "u1"), ("answer", "u1"),
    ("side_end", "u1", (2,)), ("denied_out", "u1"), ("counted_for", "<i4"),
])
EVENT_DTYPE = np.dtype([("time_ns", "<i8"), ("place", "<u8"), *FLOW_DTYPE.descr, ("kind", "u1"), ("how", "u1")])
REMEMBERED_DTYPE = np.dtype([
    *_ENDS, ("rule", "<i4", (2,)), ("instance", "<i4", (2,)), ("deadline", "<i8", (2,)), ("state", "u1", (2,)),
    ("status", "u1"), ("denied", "u1"), ("recorded", "u1"), ("number", "<u8"), ("first_ns", "<i8"),
    ("bytes", "<u8", (2,)), ("packets", "<u8", (2,)),
])
CUT_DTYPE = np.dtype([
    ("cut_ns", "<i8"), ("again_ns", "<i8"), ("packets", "<u8"), ("bytes", "<u8"), *_ENDS, ("rule", "<i4", (2,)),
    ("change", "<u4"), ("previous", "<u4"), ("fate", "u1"), ("turned", "u1"), ("finished", "u1"),
    ("spare_too", "u1"),
])
TALLY_DTYPE = np.dtype([
    ("peer", "u1", (16,)), ("instance", "<i4"), ("port_key", "<u2"), ("protocol", "u1"), ("reason", "u1"),
    ("inbound", "u1"), ("family", "u1"), ("has_ports", "u1"), ("has_icmp", "u1"), ("rule", "<i4"),
    ("packets", "<u8"), ("connections", "<u8"), ("bytes", "<u8"), ("first_ns", "<i8"), ("last_ns", "<i8"),
    ("number", "<u8"), ("endings", "<u8", (2,)),
])
RULE_COUNT_DTYPE = np.dtype([("connections", "<u8"), ("packets", "<u8"), ("bytes", "<u8")])

assert RESULT_DTYPE.itemsize == sizeof(ResultRow)
assert RESOLVED_DTYPE.itemsize == sizeof(ResolvedRow)
assert HEADER_DTYPE.itemsize == sizeof(HeaderRow)
assert FLOW_DTYPE.itemsize == sizeof(FlowRow)
assert EVENT_DTYPE.itemsize == sizeof(EventRow)
assert REMEMBERED_DTYPE.itemsize == sizeof(RememberedRow)
assert CUT_DTYPE.itemsize == sizeof(CutRow)
assert TALLY_DTYPE.itemsize == sizeof(TallyRow)
assert RULE_COUNT_DTYPE.itemsize == sizeof(RuleCount)


cdef object copied_rows(const uint8_t* data, Py_ssize_t nbytes, dtype):
    copy = np.empty(nbytes, dtype=np.uint8)
    cdef uint8_t[::1] view = copy
    if nbytes:
        memcpy(&view[0], data, nbytes)
    return copy.view(dtype)


cdef uint8_t* bytes_of_rows(array, dtype, Py_ssize_t least, str problem) except? NULL:
    cdef uint8_t[::1] view
    if array.dtype != dtype or not array.flags.c_contiguous or len(array) < least:
        raise ValueError(problem)
    if len(array) == 0:
        return NULL
    view = array.view(np.uint8).reshape(-1)
    return &view[0]

"""The common base of the text row writers.

Stored texts, names by number, a buffer, and the loops over rows. Rows are composed in the buffer, which is written when
it is full. No Python object is created per packet: words and names are escaped once and then copied.
"""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_INCREF, Py_XDECREF
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from sgfast.core.base.intrinsics cimport unlikely
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport NO_VERDICT, REASON_COUNT, VERDICT_COUNT, SideRow
from sgfast.core.conntrack.table cimport SIDE_END_COUNT

from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import REASONS, VERDICTS
from sgfast.tables.row_schema import ANSWERS, ENDS

cdef enum:
    WRITE_BYTES = 1 << 18       # written when the buffer holds at least this much
    FIRST_BYTES = WRITE_BYTES + 4 * ROW_BYTES

ROOM_FOR_A_ROW = ROW_BYTES - SHORT_BYTES        # the last text may overwrite the rest

assert len(VERDICTS) == VERDICT_COUNT and len(REASONS) == REASON_COUNT
assert len(ANSWERS) == ANSWER_COUNT and len(ENDS) == SIDE_END_COUNT

cdef Text keep_text(bytes text, list kept):
    cdef Text stored
    kept.append(text)
    stored.text = PyBytes_AS_STRING(text)
    stored.length = PyBytes_GET_SIZE(text)
    memset(stored.start, 0, SHORT_BYTES)
    memcpy(stored.start, stored.text, min(stored.length, <size_t>SHORT_BYTES))
    return stored


cdef class NameTexts:
    def __cinit__(self, names, encode, bytes none):
        self.names = names
        self.encode = encode
        self.kept = []
        self.none = keep_text(none, self.kept)
        self.count = len(names)
        self.texts = <Text*>allocate_pages((self.count + 1) * sizeof(Text))
        if self.texts == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.texts)

    cdef const Text* encoded(self, int32_t number) except NULL:
        if number < 0:
            return &self.none
        if number >= self.count:
            raise IndexError(f"name number {number} is out of range")
        self.texts[number] = keep_text(self.encode(self.names[number]), self.kept)
        return &self.texts[number]


cdef const uint8_t[::1] row_bytes(rows, dtype):
    if rows.dtype != dtype or rows.ndim != 1:
        raise ValueError(f"rows must be a one-dimensional array of dtype {dtype}")
    return np.ascontiguousarray(rows).view(np.uint8)


cdef inline bint is_known(const SideRow* row) noexcept nogil:
    return (row.verdict < VERDICT_COUNT and row.reason < REASON_COUNT) or row.verdict == NO_VERDICT


cdef class RowWriter:
    def __dealloc__(self):
        Py_XDECREF(self.rows)

    def begin(self, names):
        self.instances = NameTexts(names.instances, self.encode, self.none)
        self.rules = NameTexts(names.rules, self.encode, self.none)
        self.packets = names.packets

    def close(self):
        """Write the head if no row was written."""
        if self.head is not None:
            self.used = 0
            self.flush()

    cdef int set_up(self, sink, encode, bytes none, head) except -1:
        self.sink = sink
        self.encode = encode
        self.none = none
        self.head = head
        self.instances = NameTexts((), encode, none)
        self.rules = NameTexts((), encode, none)
        return 0

    cdef char* room(self, size_t need) except NULL:
        # Returns the place for the next row of at most `need` bytes.
        if unlikely(self.size - self.used < need):
            self.resize(max(2 * self.size, self.used + need, <size_t>FIRST_BYTES))
        return self.data + self.used

    cdef int resize(self, size_t size) except -1:
        self.size = 0
        if self.rows == NULL:
            rows = PyBytes_FromStringAndSize(NULL, size)
            Py_INCREF(rows)
            self.rows = <PyObject*>rows
        else:
            _PyBytes_Resize(&self.rows, size)       # NULL if it fails
        self.data = PyBytes_AS_STRING(<object>self.rows)
        self.size = size
        return 0

    cdef int end_row(self, char* at, bint last) except -1:
        self.used = at - self.data
        if self.used >= WRITE_BYTES or last:
            self.flush()
        return 0

    cdef int flush(self) except -1:
        rows = None
        if self.used:
            self.resize(self.used)
            rows = <object>self.rows
            Py_CLEAR(self.rows)
            self.size = self.used = 0
        if self.head is not None:
            self.sink(self.head)
            self.head = None
        if rows is not None:
            self.sink(rows)
        return 0

    cdef int packet_names(self, const ResultRow* row, const Text** names) except -1:
        if unlikely(
            row.verdict >= VERDICT_COUNT or row.reason >= REASON_COUNT
            or not is_known(&row.egress) or not is_known(&row.ingress)
        ):
            raise IndexError("a verdict or reason is out of range")
        names[0] = self.instances.at(row.egress.instance)
        names[1] = self.rules.at(row.egress.rule)
        names[2] = self.instances.at(row.ingress.instance)
        names[3] = self.rules.at(row.ingress.rule)
        return 0

    cdef int flow_names(self, const FlowRow* row, const Text** names) except -1:
        if unlikely(
            row.verdict >= VERDICT_COUNT or row.reason >= REASON_COUNT or row.answer >= ANSWER_COUNT
            or row.side_end[0] >= SIDE_END_COUNT or row.side_end[1] >= SIDE_END_COUNT
        ):
            raise IndexError("a verdict, reason, answer or end is out of range")
        names[0] = self.instances.at(row.instance[0])
        names[1] = self.rules.at(row.rule[0])
        names[2] = self.instances.at(row.instance[1])
        names[3] = self.rules.at(row.rule[1])
        return 0


cdef const uint8_t[::1] header_bytes(headers):
    return row_bytes(headers, HEADER_DTYPE)


cdef const uint8_t[::1] result_bytes(results, Py_ssize_t n):
    # `n`: number of header rows.
    cdef const uint8_t[::1] found = row_bytes(results, RESULT_DTYPE)
    if found.shape[0] != n * <Py_ssize_t>sizeof(ResultRow):
        raise ValueError("results must have one row per header")
    return found


cdef class PacketRows(RowWriter):
    """A ``PacketSink`` that writes rows of text.

    Raises ValueError for arrays of another dtype or length and IndexError for numbers out of range.
    """

    def write(self, headers not None, results not None):
        cdef const uint8_t[::1] header_rows = header_bytes(headers)
        cdef Py_ssize_t n = header_rows.shape[0] // <Py_ssize_t>sizeof(HeaderRow)
        cdef const uint8_t[::1] result_rows = result_bytes(results, n)
        cdef const ResultRow* result
        cdef const Text* names[4]
        cdef char* at
        cdef Py_ssize_t i
        self.used = 0
        for i in range(n):
            result = <const ResultRow*>&result_rows[i * sizeof(ResultRow)]
            self.packet_names(result, names)
            at = self.room(ROW_BYTES + names_length(names))
            self.packets += 1
            at = self.put_packet(at, <const HeaderRow*>&header_rows[i * sizeof(HeaderRow)], result, names)
            self.end_row(at, i == n - 1)

    cdef char* put_packet(
        self, char* at, const HeaderRow* header, const ResultRow* result, const Text** names
    ) noexcept nogil:
        return at


cdef class FlowRows(RowWriter):
    """A ``FlowSink`` that writes rows of text.

    Raises ValueError for an array of another dtype and IndexError for numbers out of range.
    """

    def write(self, flows not None):
        cdef const uint8_t[::1] flow_rows = row_bytes(flows, FLOW_DTYPE)
        cdef Py_ssize_t n = flow_rows.shape[0] // <Py_ssize_t>sizeof(FlowRow)
        cdef const FlowRow* row
        cdef const Text* names[4]
        cdef char* at
        cdef Py_ssize_t i
        self.used = 0
        for i in range(n):
            row = <const FlowRow*>&flow_rows[i * sizeof(FlowRow)]
            self.flow_names(row, names)
            at = self.put_flow(self.room(ROW_BYTES + names_length(names)), row, names)
            self.end_row(at, i == n - 1)

    cdef char* put_flow(self, char* at, const FlowRow* row, const Text** names) noexcept nogil:
        return at

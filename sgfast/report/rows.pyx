"""The common base of the text row writers.

The writers store texts, names by number and a buffer, and loop over rows. Rows are composed in the buffer, which is
written when it is full. No Python object is created per packet: words and names are escaped once and then copied.
"""

from functools import partial
from itertools import zip_longest

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_INCREF, Py_XDECREF
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from sgfast.core.base.intrinsics cimport likely, unlikely
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport NO_VERDICT, REASON_COUNT, VERDICT_COUNT, SideRow
from sgfast.core.conntrack.table cimport SIDE_END_COUNT

from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import REASONS, VERDICTS
from sgfast.rows.row_schema import ANSWERS, ENDS, groups_text

cdef enum:
    WRITE_BYTES = 1 << 18       # the buffer is written when it holds at least this much
    FIRST_BYTES = WRITE_BYTES + 4 * ROW_BYTES
    ROWS_AHEAD = 8              # the names of the row this many rows ahead are prefetched

ROOM_FOR_A_ROW = ROW_BYTES - SHORT_BYTES        # a row's last text may overwrite the remaining bytes

assert len(VERDICTS) == VERDICT_COUNT and len(REASONS) == REASON_COUNT
assert len(ANSWERS) == ANSWER_COUNT and len(ENDS) == SIDE_END_COUNT

cdef Text keep_text(bytes text, list encoded_texts):
    cdef Text stored
    encoded_texts.append(text)
    stored.text = PyBytes_AS_STRING(text)
    stored.length = PyBytes_GET_SIZE(text)
    memset(stored.start, 0, SHORT_BYTES)
    memcpy(stored.start, stored.text, min(stored.length, <size_t>SHORT_BYTES))
    return stored


cdef class NameTexts:
    def __cinit__(self, names, encode, bytes none not None):
        self.names = names
        self.encode = encode
        self.encoded_texts = []
        self.count = len(names)
        self.all_texts = <Text*>allocate_pages((self.count + 1) * sizeof(Text))
        if self.all_texts == NULL:
            raise MemoryError
        self.all_texts[0] = keep_text(none, self.encoded_texts)
        self.texts = &self.all_texts[1]

    def __dealloc__(self):
        free(self.all_texts)

    cdef const Text* encoded(self, int32_t number) except NULL:
        if number >= self.count:
            raise IndexError(f"name number {number} is out of range")
        if self.find(number) == NULL:
            self.texts[number] = keep_text(self.encode(self.names[number]), self.encoded_texts)
        return self.find(number)


cdef const uint8_t[::1] row_bytes(rows, dtype):
    if rows.dtype != dtype or rows.ndim != 1:
        raise ValueError(f"rows must be a one-dimensional array of dtype {dtype}")
    return np.ascontiguousarray(rows).view(np.uint8)


cdef inline bint is_known(const SideRow* row) noexcept nogil:
    return (row.verdict < VERDICT_COUNT and row.reason < REASON_COUNT) or row.verdict == NO_VERDICT


cdef inline bint is_known_result(const ResultRow* row) noexcept nogil:
    return (
        row.verdict < VERDICT_COUNT and row.reason < REASON_COUNT and is_known(&row.egress) and is_known(&row.ingress)
    )


cdef inline bint is_known_flow(const FlowRow* row) noexcept nogil:
    return (
        row.verdict < VERDICT_COUNT and row.reason < REASON_COUNT and row.answer < ANSWER_COUNT
        and row.side_end[0] < SIDE_END_COUNT and row.side_end[1] < SIDE_END_COUNT
    )


# These functions take numbers by value. A field of a packed struct may be unaligned, so no pointer may refer to it.
cdef inline void numbers_of_flow(const FlowRow* row, int32_t* instances, int32_t* rules) noexcept nogil:
    instances[0], instances[1] = row.instance[0], row.instance[1]
    rules[0], rules[1] = row.rule[0], row.rule[1]


cdef inline void numbers_of(const ResultRow* row, int32_t* instances, int32_t* rules) noexcept nogil:
    instances[0], instances[1] = row.egress.instance, row.ingress.instance
    rules[0], rules[1] = row.egress.rule, row.ingress.rule


cdef class RowWriter:
    def __cinit__(self, *arguments, **options):
        # Composing rows needs these objects, even if `set_up` was not called.
        self.instances = self.rules = NameTexts((), None, b"")

    def __dealloc__(self):
        Py_XDECREF(self.rows)

    def begin(self, names):
        """Take the names that the numbers in rows stand for."""
        self.instances = self.instance_texts(names.instances, names.groups)
        self.rules = NameTexts(names.rules, self.encode, self.none)
        self.packets = names.packets

    def close(self):
        """Write the head, of files that have one, if no row was written."""
        if self.head is not None:
            self.used = 0
            self.flush()

    cdef int set_up(self, sink, encode, bytes none, head) except -1:
        self.sink = sink
        self.encode = encode
        self.none = none
        self.head = head
        self.instances = self.instance_texts((), ())
        self.rules = NameTexts((), encode, none)
        return 0

    cdef NameTexts instance_texts(self, instances, groups):
        return NameTexts(instances, self.encode, self.none)

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

    cdef int write_rows(self, const uint8_t* first, const uint8_t* second, Py_ssize_t n) except -1:
        if self.busy:
            raise RuntimeError("a writer of rows is used by two threads at a time; give each a writer of its own")
        self.busy = True
        try:
            return self.compose(first, second, n)
        finally:
            self.busy = False

    cdef int compose(self, const uint8_t* first, const uint8_t* second, Py_ssize_t n) except -1:
        cdef Py_ssize_t row_number = 0
        self.used = 0
        while row_number < n:
            with nogil:
                while row_number < n and self.used < WRITE_BYTES and self.put_row(first, second, row_number, n):
                    row_number += 1
            if self.used >= WRITE_BYTES or row_number == n:
                self.flush()
            else:
                self.prepare(first, second, row_number)
        return 0

    cdef char* room(self, size_t need) except NULL:
        if unlikely(self.size - self.used < need):
            self.resize(max(2 * self.size, self.used + need, <size_t>FIRST_BYTES))
        return self.data + self.used

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
        cdef int32_t instances[2]
        cdef int32_t rules[2]
        if unlikely(not is_known_result(row)):
            raise IndexError("a verdict or reason is out of range")
        numbers_of(row, instances, rules)
        return self.encode_names(instances, rules, names)

    cdef int encode_names(self, const int32_t* instances, const int32_t* rules, const Text** names) except -1:
        cdef int i
        for i in range(2):
            names[2 * i] = self.instances.encoded(instances[i])
            names[2 * i + 1] = self.rules.encoded(rules[i])
        return 0

    cdef bint put_row(self, const uint8_t* first, const uint8_t* second, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
        return False

    cdef int prepare(self, const uint8_t* first, const uint8_t* second, Py_ssize_t i) except -1:
        return 0


cdef const uint8_t[::1] header_bytes(headers):
    return row_bytes(headers, HEADER_DTYPE)


cdef const uint8_t[::1] result_bytes(results, Py_ssize_t n):
    # `n`: number of header rows.
    cdef const uint8_t[::1] row_results = row_bytes(results, RESULT_DTYPE)
    if row_results.shape[0] != n * <Py_ssize_t>sizeof(ResultRow):
        raise ValueError("results must have one row per header")
    return row_results


cdef class PacketRows(RowWriter):
    """A ``PacketSink`` that writes rows of text.

    Raises ValueError for arrays of another dtype or length and IndexError for numbers out of range.
    """

    def write(self, headers not None, results not None):
        """Write some packets."""
        cdef const uint8_t[::1] header_rows = header_bytes(headers)
        cdef Py_ssize_t n = header_rows.shape[0] // <Py_ssize_t>sizeof(HeaderRow)
        cdef const uint8_t[::1] result_rows = result_bytes(results, n)
        if n:
            self.write_rows(&header_rows[0], &result_rows[0], n)

    cdef bint put_row(self, const uint8_t* first, const uint8_t* second, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
        cdef const HeaderRow* header = &(<const HeaderRow*>first)[i]
        cdef const ResultRow* result = &(<const ResultRow*>second)[i]
        cdef const Text* names[4]
        cdef int32_t instances[2]
        cdef int32_t rules[2]
        if likely(i + ROWS_AHEAD < n):
            numbers_of(&result[ROWS_AHEAD], instances, rules)
            self.fetch_names(instances, rules)
        numbers_of(result, instances, rules)
        if unlikely(not is_known_result(result) or not self.is_ready(instances, rules, names)):
            return False
        self.packets += 1
        self.used = self.put_packet(self.data + self.used, header, result, names) - self.data
        return True

    cdef int prepare(self, const uint8_t* first, const uint8_t* second, Py_ssize_t i) except -1:
        cdef const Text* names[4]
        self.packet_names(&(<const ResultRow*>second)[i], names)
        self.room(ROW_BYTES + names_length(names))
        return 0

    cdef char* put_packet(
        self, char* at, const HeaderRow* header, const ResultRow* result, const Text** names
    ) noexcept nogil:
        return at


def _with_groups(encode, bytes before_groups, of_instance):
    name, groups = of_instance
    return encode(name) + before_groups + encode(groups_text(groups))


cdef class FlowRows(RowWriter):
    """A ``FlowSink`` that writes rows of text.

    Raises ValueError for an array of another dtype and IndexError for numbers out of range.
    """

    cdef int set_up_flows(self, sink, encode, bytes none, head, bytes before_groups) except -1:
        self.before_groups = before_groups
        return self.set_up(sink, encode, none, head)

    cdef NameTexts instance_texts(self, instances, groups):
        encode = partial(_with_groups, self.encode, self.before_groups)
        return NameTexts(
            [*zip_longest(instances, groups, fillvalue=())], encode, self.none + self.before_groups + self.none
        )

    def write(self, flows not None):
        """Write some connections."""
        cdef const uint8_t[::1] flow_rows = row_bytes(flows, FLOW_DTYPE)
        cdef Py_ssize_t n = flow_rows.shape[0] // <Py_ssize_t>sizeof(FlowRow)
        if n:
            self.write_rows(&flow_rows[0], NULL, n)

    cdef bint put_row(self, const uint8_t* first, const uint8_t* second, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
        cdef const FlowRow* row = &(<const FlowRow*>first)[i]
        cdef const Text* names[4]
        cdef int32_t instances[2]
        cdef int32_t rules[2]
        if likely(i + ROWS_AHEAD < n):
            numbers_of_flow(&row[ROWS_AHEAD], instances, rules)
            self.fetch_names(instances, rules)
        numbers_of_flow(row, instances, rules)
        if unlikely(not is_known_flow(row) or not self.is_ready(instances, rules, names)):
            return False
        self.used = self.put_flow(self.data + self.used, row, names) - self.data
        return True

    cdef int prepare(self, const uint8_t* first, const uint8_t* second, Py_ssize_t i) except -1:
        cdef const FlowRow* row = &(<const FlowRow*>first)[i]
        cdef const Text* names[4]
        cdef int32_t instances[2]
        cdef int32_t rules[2]
        if not is_known_flow(row):
            raise IndexError("a verdict, reason, answer or end is out of range")
        numbers_of_flow(row, instances, rules)
        self.encode_names(instances, rules, names)
        self.room(ROW_BYTES + names_length(names))
        return 0

    cdef char* put_flow(self, char* at, const FlowRow* row, const Text** names) noexcept nogil:
        return at

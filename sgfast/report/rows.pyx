"""The common base of the row writers.

For text: stored texts, names by number, a buffer, and the loops over rows. Rows are composed in the buffer, which is
written when it is full. No Python object is created per packet: words and names are escaped once and then copied.
For Parquet: the columns that NumPy cannot build.
"""

from ipaddress import IPv6Address

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc, free, realloc

from sgfast.core.base.intrinsics cimport unlikely
from sgfast.core.base.types cimport NO_VERDICT, REASON_COUNT, VERDICT_COUNT, SideRow
from sgfast.core.conntrack.table cimport SIDE_END_COUNT
from sgfast.report.write_text cimport put_ipv4, put_ipv6

from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import REASONS, VERDICTS

cdef enum:
    WRITE_BYTES = 1 << 18       # written when the buffer holds at least this much
    ADDRESS_BYTES = 40          # more than any address takes

#: By number in a row; the order of SideEnd in ``core/conntrack/table.pxd``.
ENDS = (
    None, "open", "closed", "reset", "timeout", "evicted", "reopened", "denied", "disconnected", "removed", "forgotten",
)
ANSWERS = ("silent", "answered", "refused")

ROOM_FOR_A_ROW = ROW_BYTES

assert len(VERDICTS) == VERDICT_COUNT and len(REASONS) == REASON_COUNT
assert len(ANSWERS) == ANSWER_COUNT and len(ENDS) == SIDE_END_COUNT

mapped_is_dotted = str(IPv6Address("::ffff:1.2.3.4")).endswith(".4")

# Rows of text --------------------------------------------------------------------------------------------------------

cdef Text keep_text(bytes text, list kept):
    cdef Text stored
    kept.append(text)
    stored.text = PyBytes_AS_STRING(text)
    stored.length = PyBytes_GET_SIZE(text)
    return stored


cdef class NameTexts:
    def __cinit__(self, names, encode, bytes none):
        self.names = names
        self.encode = encode
        self.kept = []
        self.none = keep_text(none, self.kept)
        self.count = len(names)
        self.texts = <Text*>calloc(self.count + 1, sizeof(Text))
        if self.texts == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.texts)

    cdef const Text* at(self, int32_t number) except NULL:
        if number < 0:
            return &self.none
        if unlikely(number >= self.count):
            raise IndexError(f"name number {number} is out of range")
        if unlikely(self.texts[number].text == NULL):
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
        free(self.data)

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
        cdef size_t size
        cdef char* grown
        if unlikely(self.size - self.used < need):
            size = max(2 * self.size, self.used + need)
            grown = <char*>realloc(self.data, size)
            if grown == NULL:
                raise MemoryError
            self.data = grown
            self.size = size
        return self.data + self.used

    cdef int end_row(self, char* at, bint last) except -1:
        self.used = at - self.data
        if self.used >= WRITE_BYTES or last:
            self.flush()
        return 0

    cdef int flush(self) except -1:
        rows = PyBytes_FromStringAndSize(self.data, self.used) if self.used else b""
        self.used = 0
        if self.head is not None:
            self.sink(self.head)
            self.head = None
        if rows:
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


# Parquet columns -----------------------------------------------------------------------------------------------------

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
    """Encode numbers with a dictionary of only the words that occur: return ``(codes, valid, kept)``.

    ``words`` maps each number to one of ``count`` words; negative means none. A row is null if ``there`` is 0, the
    number is negative or it has no word. ``codes``: int32, 0 in null rows. ``valid``: a bitmap of the rows that are not
    null, lowest bit first. ``kept``: the word for each code. Raises IndexError for numbers and words out of range, and
    ValueError for arrays of different lengths.
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
        raise IndexError(f"name number {numbers[wrong]} is out of range")
    return made_codes, made_valid, made_kept[:used]

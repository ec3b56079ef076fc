# What the writers of rows of text have in common: pieces of it, names by number, a buffer, and the loops over rows.

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.string cimport memcpy

from sgfast.core.base.types cimport HeaderRow, ResultRow
from sgfast.core.conntrack.table cimport FlowRow

cdef enum:
    ANSWER_COUNT = 3
    ROW_BYTES = 1024            # more than any row takes, names and frames apart; the longest is measured in a test

# Later versions of Python write ::ffff:1.2.3.4, earlier ones ::ffff:102:304.
cdef bint mapped_is_dotted


# Text that comes up again and again, escaped once.
cdef struct Piece:
    const char* text            # NULL: not made yet
    size_t length


# Good for as long as `kept` is.
cdef Piece keep(bytes text, list kept)


cdef inline char* put_piece(char* at, const Piece* piece) noexcept nogil:
    memcpy(at, piece.text, piece.length)
    return at + piece.length


cdef class NamePieces:
    # Names by number, each spelled when it is first needed; of a negative number: `none`.
    cdef object names
    cdef object spell
    cdef list kept
    cdef Piece none
    cdef Piece* pieces
    cdef Py_ssize_t count

    cdef const Piece* at(self, int32_t number) except NULL


cdef class RowWriter:
    # Rows are put together in a buffer that goes to `sink` when it is full.
    cdef object sink
    cdef object head            # bytes that come before the first row; None once they were written
    cdef object spell           # name -> bytes
    cdef bytes none             # instead of a name, where there is none
    cdef NamePieces instances
    cdef NamePieces rules
    cdef uint64_t packets       # written, and before
    cdef char* data
    cdef size_t used
    cdef size_t size

    cdef int set_up(self, sink, spell, bytes none, head) except -1
    cdef char* room(self, size_t need) except NULL
    cdef int end_row(self, char* at, bint last) except -1
    cdef int flush(self) except -1
    # The four names a row has: instance and rule of the egress side, of the ingress side. IndexError for a row with a
    # number that stands for nothing.
    cdef int packet_names(self, const ResultRow* row, const Piece** names) except -1
    cdef int flow_names(self, const FlowRow* row, const Piece** names) except -1


cdef inline size_t names_length(const Piece** names) noexcept nogil:
    return names[0].length + names[1].length + names[2].length + names[3].length


# ValueError for arrays of another dtype or length.
cdef const uint8_t[::1] header_bytes(headers)
cdef const uint8_t[::1] result_bytes(results, Py_ssize_t n)


cdef class PacketRows(RowWriter):
    cdef char* put_packet(
        self, char* at, const HeaderRow* header, const ResultRow* result, const Piece** names
    ) noexcept nogil


cdef class FlowRows(RowWriter):
    cdef char* put_flow(self, char* at, const FlowRow* row, const Piece** names) noexcept nogil

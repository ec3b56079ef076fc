# The common base of the text row writers: stored texts, names by number, a buffer, and the loops over rows.

from cpython.object cimport PyObject
from cython cimport final
from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.string cimport memcpy

from sgfast.core.base.intrinsics cimport likely, prefetch
from sgfast.core.base.types cimport HeaderRow, ResultRow
from sgfast.core.conntrack.table cimport FlowRow
from sgfast.rows.write_text cimport Leading

cdef enum:
    ANSWER_COUNT = 4
    ROW_BYTES = 1024            # more than any row takes without names and frames; a test measures the longest row
    SHORT_BYTES = 48            # pads a Text to a cache line


# A text that is used repeatedly. It is escaped once.
cdef struct Text:
    const char* text            # NULL: not encoded yet
    size_t length
    char start[SHORT_BYTES]     # a copy of the text's first bytes


# The result is valid as long as `encoded_texts`, which receives a reference to `text`.
cdef Text keep_text(bytes text, list encoded_texts)


cdef inline char* put_text(char* at, const Text* text) noexcept nogil:
    # Copying a fixed length needs no call. Up to SHORT_BYTES bytes from `at` on are overwritten.
    if likely(text.length <= SHORT_BYTES):
        memcpy(at, text.start, SHORT_BYTES)
    else:
        memcpy(at, text.text, text.length)
    return at + text.length


@final
cdef class NameTexts:
    # Names by number, encoded on first use. A negative number means no name; its text is `none`.
    cdef object names
    cdef object encode
    cdef list encoded_texts
    cdef Text* all_texts        # the text in place of a missing name; behind it the names' texts
    cdef Text* texts            # the text of each name, by its number
    cdef Py_ssize_t count

    cdef inline const Text* find(self, int32_t number) noexcept nogil:
        # Returns NULL if the name is not encoded yet. There is no branch for a missing name, because a processor cannot
        # predict which side of a row has none.
        cdef Py_ssize_t place = max(number, -1)
        if likely(place < self.count and self.texts[place].text != NULL):
            return &self.texts[place]
        return NULL

    cdef inline void fetch(self, int32_t number) noexcept nogil:
        # Prefetches the text that `find` reads.
        if likely(number < self.count):
            prefetch(&self.texts[max(number, -1)])

    # Returns the text of a name. Raises IndexError for a number out of range.
    cdef const Text* encoded(self, int32_t number) except NULL


cdef inline size_t names_length(const Text** names) noexcept nogil:
    return names[0].length + names[1].length + names[2].length + names[3].length


cdef class RowWriter:
    # Collects rows in a bytes object, and passes the object to `sink` when it is full.
    cdef object sink
    cdef object head            # bytes before the first row; None after they were written
    cdef object encode          # function: name -> bytes
    cdef bytes none             # written in place of a missing name
    cdef NameTexts instances
    cdef NameTexts rules
    cdef uint64_t packets       # number of packets so far, including those before this file
    cdef Leading number         # leading digits of the last packet's number
    cdef Leading seconds[2]     # seconds of the last row's times
    cdef PyObject* rows         # the bytes object; NULL if there is none
    cdef char* data             # its bytes
    cdef size_t used
    cdef size_t size
    cdef bint busy              # whether a thread is composing rows

    cdef int set_up(self, sink, encode, bytes none, head) except -1
    # Returns the texts that rows have for instances, by number. `groups`: those of each instance.
    cdef NameTexts instance_texts(self, instances, groups)
    cdef int resize(self, size_t size) except -1
    # Returns the place for a row of at most `need` bytes.
    cdef char* room(self, size_t need) except NULL
    cdef int end_row(self, char* at, bint last) except -1
    cdef int flush(self) except -1
    # Finds the four names of a row: instance and rule of the egress side, then of the ingress side. IndexError for
    # numbers out of range.
    cdef int packet_names(self, const ResultRow* row, const Text** names) except -1
    cdef int encode_names(self, const int32_t* instances, const int32_t* rules, const Text** names) except -1
    # Composes rows without Python's global lock. Steps that need the lock are done in between: a new name is encoded,
    # and the buffer grows or is written. `second`: the results that belong to headers, or NULL. Raises RuntimeError if
    # another thread is composing rows.
    cdef int write_rows(self, const uint8_t* first, const uint8_t* second, Py_ssize_t n) except -1
    cdef int compose(self, const uint8_t* first, const uint8_t* second, Py_ssize_t n) except -1
    # Appends row `i` of `n` rows. Returns False if `prepare` must be called first.
    cdef bint put_row(self, const uint8_t* first, const uint8_t* second, Py_ssize_t i, Py_ssize_t n) noexcept nogil
    # Encodes the names of a row, and makes room for the row. Raises IndexError if a number in the row is out of range.
    cdef int prepare(self, const uint8_t* first, const uint8_t* second, Py_ssize_t i) except -1

    cdef inline void fetch_names(self, const int32_t* instances, const int32_t* rules) noexcept nogil:
        cdef int side
        for side in range(2):
            self.instances.fetch(instances[side])
            self.rules.fetch(rules[side])

    cdef inline bint is_ready(
        self, const int32_t* instances, const int32_t* rules, const Text** names
    ) noexcept nogil:
        # Finds the four names of a row. Returns False if a name is not encoded yet, or the buffer is too full.
        names[0] = self.instances.find(instances[0])
        names[1] = self.rules.find(rules[0])
        names[2] = self.instances.find(instances[1])
        names[3] = self.rules.find(rules[1])
        if names[0] == NULL or names[1] == NULL or names[2] == NULL or names[3] == NULL:
            return False
        return self.size - self.used >= ROW_BYTES + names_length(names)


# These functions raise ValueError for arrays of another dtype or length.
cdef const uint8_t[::1] header_bytes(headers)
cdef const uint8_t[::1] result_bytes(results, Py_ssize_t n)


cdef class PacketRows(RowWriter):
    cdef char* put_packet(
        self, char* at, const HeaderRow* header, const ResultRow* result, const Text** names
    ) noexcept nogil


cdef class FlowRows(RowWriter):
    # In a row, the groups of an instance come right after its name. Name and groups are written as one text.
    cdef bytes before_groups    # what is written between the two

    cdef int set_up_flows(self, sink, encode, bytes none, head, bytes before_groups) except -1
    cdef char* put_flow(self, char* at, const FlowRow* row, const Text** names) noexcept nogil

"""Read lines of words, such as AWS's flow logs, into rows of RECORD_DTYPE (``columns.py``), and number repeated words.

A tokenizer takes only lines that are surely sound. It leaves every other line to its caller, who reads that line slowly
and says what is wrong with it. So both agree on every line that the tokenizer takes, and only one of them has messages.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sgfast.core.base.address_text cimport read_ipv4_text, read_ipv6_text
from sgfast.core.base.intrinsics cimport fold, load64
from sgfast.clouds.logs.record_row cimport Row

import os

from sgfast.clouds.logs.columns import RECORD_DTYPE


cdef extern from "string.h" nogil:
    void* memchr(const void* memory, int byte, size_t length) noexcept


assert RECORD_DTYPE.itemsize == sizeof(Row)
assert RECORD_DTYPE.fields["conn_state"][1] == 154


# Numbers of words ----------------------------------------------------------------------------------------------------

cdef enum:
    MOST_WORDS = 1 << 20
    MOST_TEXT = 64 << 20        # bytes of all words together
    LONGEST_WORD = 1 << 10

cdef struct Word:
    size_t at                   # in the text of all words
    uint32_t length
    uint32_t mark
    uint8_t is_idle             # an interface with an interval without traffic


cdef class WordNumbers:
    """Numbers for words of a log, from 0 in the order of their first appearance.

    At most 1,048,576 words are numbered, of 1,024 bytes each and 64 MiB in all. Every other word is unknown: -1.
    """

    cdef Word* words
    cdef int32_t* slots         # numbers of words + 1; 0: free
    cdef uint8_t* text
    cdef size_t text_length, text_capacity, mask
    cdef int32_t count
    cdef uint64_t secret[4]     # without it, a log could have words that all share a slot

    def __cinit__(self):
        cdef const uint8_t[::1] secret = os.urandom(sizeof(self.secret))
        memcpy(self.secret, &secret[0], sizeof(self.secret))
        self.mask = 1023
        self.words = <Word*>malloc(512 * sizeof(Word))
        self.slots = <int32_t*>calloc(1024, sizeof(int32_t))
        self.text_capacity = 1 << 14
        self.text = <uint8_t*>malloc(self.text_capacity)
        if self.words == NULL or self.slots == NULL or self.text == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.words)
        free(self.slots)
        free(self.text)

    cdef int32_t number(self, const uint8_t* word, size_t length) noexcept nogil:
        # Returns the number of a word, which is new or known; -1 if it is not numbered.
        cdef uint64_t mark
        cdef size_t slot
        cdef Word* numbered_word
        if length > LONGEST_WORD:
            return -1
        mark = hash_of(self.secret, word, length)
        slot = <size_t>mark & self.mask
        while self.slots[slot]:
            numbered_word = &self.words[self.slots[slot] - 1]
            if (
                numbered_word.mark == <uint32_t>mark and numbered_word.length == length
                and memcmp(self.text + numbered_word.at, word, length) == 0
            ):
                return self.slots[slot] - 1
            slot = (slot + 1) & self.mask
        return self._add(word, length, <uint32_t>mark)

    cdef int32_t _add(self, const uint8_t* word, size_t length, uint32_t mark) noexcept nogil:
        cdef uint8_t* text
        cdef size_t slot
        if self.count == MOST_WORDS or self.text_length + length > MOST_TEXT:
            return -1
        # Half of the slots stay free.
        if <size_t>self.count * 2 > self.mask and not self._grow():
            return -1
        if self.text_length + length > self.text_capacity:
            text = <uint8_t*>realloc(self.text, 2 * self.text_capacity)
            if text == NULL:
                return -1
            self.text = text
            self.text_capacity *= 2
        memcpy(self.text + self.text_length, word, length)
        self.words[self.count] = Word(self.text_length, <uint32_t>length, mark, False)
        self.text_length += length
        self.count += 1
        slot = mark & self.mask
        while self.slots[slot]:
            slot = (slot + 1) & self.mask
        self.slots[slot] = self.count
        return self.count - 1

    cdef bint _grow(self) noexcept nogil:
        cdef size_t mask = 2 * self.mask + 1
        cdef int32_t* slots = <int32_t*>calloc(mask + 1, sizeof(int32_t))
        cdef Word* words = <Word*>realloc(self.words, (mask + 1) / 2 * sizeof(Word))
        cdef size_t slot
        cdef int32_t n
        if words != NULL:
            self.words = words
        if words == NULL or slots == NULL:
            free(slots)
            return False
        for n in range(self.count):
            slot = words[n].mark & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = n + 1
        free(self.slots)
        self.slots = slots
        self.mask = mask
        return True

    def number_of(self, bytes word):
        """Return the word's number."""
        return self.number(word, len(word))

    cdef void _note_idle(self, int32_t number) noexcept nogil:
        if number >= 0:
            self.words[number].is_idle = True

    def note_idle(self, bytes word):
        """Note that an interface had an interval without traffic."""
        self._note_idle(self.number(word, len(word)))

    @property
    def idle(self):
        """The interfaces that had an interval without traffic."""
        return [self[number] for number in range(self.count) if self.words[number].is_idle]

    def __len__(self):
        return self.count

    def __getitem__(self, int32_t number):
        if not 0 <= number < self.count:
            raise IndexError(number)
        cdef Word* word = &self.words[number]
        return self.text[word.at:word.at + word.length].decode("utf-8", "replace")


cdef inline uint64_t hash_of(const uint64_t* secret, const uint8_t* word, size_t length) noexcept nogil:
    cdef uint64_t h = secret[0] ^ length
    cdef uint64_t rest[2]
    while length >= 16:
        h = fold(load64(word) ^ h, load64(word + 8) ^ secret[1])
        word += 16
        length -= 16
    memset(rest, 0, sizeof(rest))
    memcpy(rest, word, length)
    h = fold(rest[0] ^ h, rest[1] ^ secret[2])
    return fold(h, secret[3] | 1)


# Lines ---------------------------------------------------------------------------------------------------------------

cdef enum Handler:
    SKIPPED
    SRC, DST, PKT_SRC, PKT_DST, SPORT, DPORT, PROTOCOL, PACKETS, BYTES, START, END
    ACTION, STATUS, DIRECTION, FLAGS, INTERFACE, INSTANCE, RULE

#: The columns that a tokenizer reads, by the name of the field; it skips all others.
HANDLERS = {
    "srcaddr": SRC, "dstaddr": DST, "pkt-srcaddr": PKT_SRC, "pkt-dstaddr": PKT_DST, "srcport": SPORT, "dstport": DPORT,
    "protocol": PROTOCOL, "packets": PACKETS, "bytes": BYTES, "start": START, "end": END, "action": ACTION,
    "log-status": STATUS, "flow-direction": DIRECTION, "tcp-flags": FLAGS, "interface-id": INTERFACE,
    "instance-id": INSTANCE, "reject-reason": RULE,
}

cdef enum Kind:
    OF_WORD, SEPARATOR, LINE_END, DOUBTFUL

cdef enum Answer:
    WANTS_MORE, IS_FULL, LEAVES_LINE, TAKEN, NODATA, SKIPDATA

MORE, FULL, LEFT = WANTS_MORE, IS_FULL, LEAVES_LINE

cdef enum:
    NO_NUMBER = -2
    MOST_FIELDS = 1 << 12
    LONGEST_LINE = 1 << 16

# By byte. Python's str.split separates words at some controls and letters beyond ASCII, too: such lines are left.
cdef uint8_t[256] kinds
memset(kinds, OF_WORD, 256)
for _byte in range(128, 256):
    kinds[_byte] = DOUBTFUL
for _byte in range(28, 32):
    kinds[_byte] = DOUBTFUL
for _byte in (9, 11, 12, 13, 32):
    kinds[_byte] = SEPARATOR
kinds[10] = LINE_END


cdef inline int64_t number_in(const uint8_t* word, Py_ssize_t length, int64_t most) noexcept nogil:
    # Returns the decimal number, -1 for "-", or NO_NUMBER.
    cdef int64_t value = 0
    cdef Py_ssize_t i
    if length == 1 and word[0] == c"-":
        return -1
    if length > 18:
        return NO_NUMBER
    for i in range(length):
        if not c"0" <= word[i] <= c"9":
            return NO_NUMBER
        value = value * 10 + word[i] - c"0"
    return value if value <= most else NO_NUMBER


cdef inline int address_in(const uint8_t* word, Py_ssize_t length, uint8_t* address) noexcept nogil:
    # Returns 4, 6, or 0 if this is no address.
    memset(address, 0, 16)
    if read_ipv4_text(word, length, address):
        return 4
    if length <= 45 and read_ipv6_text(word, length, address):
        return 6
    return 0


cdef inline bint equals(
    const uint8_t* word, Py_ssize_t length, const char* text, Py_ssize_t text_length
) noexcept nogil:
    return length == text_length and memcmp(word, text, <size_t>length) == 0


cdef inline bint has_port_numbers(int64_t protocol) noexcept nogil:
    # TCP, UDP, DCCP, SCTP, UDP-Lite
    return protocol == 6 or protocol == 17 or protocol == 33 or protocol == 132 or protocol == 136


cdef class Tokenizer:
    """Reader of lines with the fields whose ``handlers`` are given in order, as numbers of HANDLERS or 0.

    ``words`` numbers the interfaces, instances and rules.
    """

    cdef uint8_t[MOST_FIELDS] handlers
    cdef int fields
    cdef WordNumbers words
    #: After ``take``: the line that it left, in the block; the number of the next line; the rows that are filled.
    cdef readonly Py_ssize_t line_start, line_end
    cdef public int64_t line
    cdef readonly Py_ssize_t filled
    cdef readonly int64_t nodata, skipdata

    def __cinit__(self, handlers, WordNumbers words not None):
        if len(handlers) > MOST_FIELDS:
            raise ValueError(f"the records have {len(handlers)} fields, and {MOST_FIELDS} are the most")
        for n, handler in enumerate(handlers):
            self.handlers[n] = handler
        self.fields = len(handlers)
        self.words = words

    def take(self, const uint8_t[::1] block, Py_ssize_t start, rows, Py_ssize_t filled):
        """Read lines of ``block`` from ``start`` into ``rows`` from row ``filled``. The block ends with a line feed.

        Return MORE at the end of the block, FULL if the rows are filled, or LEFT if the line from ``line_start`` to
        ``line_end`` must be read slowly. Go on at ``line_end`` + 1 after that, and at ``line_end`` if rows are full.
        """
        if rows.dtype != RECORD_DTYPE:
            raise ValueError("the rows are no records")
        cdef uint8_t[::1] memory = rows.view("u1")
        cdef Py_ssize_t capacity = memory.shape[0] // <Py_ssize_t>sizeof(Row)
        cdef Py_ssize_t length = block.shape[0]
        cdef int answer
        if not (0 <= start <= length and 0 <= filled <= capacity and capacity):
            raise ValueError("outside of the block or the rows")
        self.filled = filled
        if start == length:
            return WANTS_MORE
        if block[length - 1] != c"\n":
            raise ValueError("the block does not end with a line feed")
        with nogil:
            answer = self._take(&block[0], start, length, <Row*>&memory[0], capacity)
        return answer

    cdef int _take(
        self, const uint8_t* data, Py_ssize_t at, Py_ssize_t length, Row* rows, Py_ssize_t capacity
    ) noexcept nogil:
        cdef const uint8_t* line_end
        cdef int answer
        while at < length:
            if self.filled == capacity:
                self.line_end = at
                return IS_FULL
            # There is a line feed: the block ends with one.
            line_end = <const uint8_t*>memchr(data + at, 10, <size_t>(length - at))
            answer = LEAVES_LINE
            if line_end - data - at < LONGEST_LINE:
                answer = self._read(data + at, &rows[self.filled])
            if answer == TAKEN:
                rows[self.filled].line = self.line
                self.filled += 1
            elif answer == NODATA:
                self.nodata += 1
            elif answer == SKIPDATA:
                self.skipdata += 1
            elif answer == LEAVES_LINE:
                self.line_start = at
                self.line_end = line_end - data
                return LEAVES_LINE
            self.line += 1
            at = line_end - data + 1
        return WANTS_MORE

    cdef int _read(self, const uint8_t* at, Row* row) noexcept nogil:
        # The line ends with a line feed, at which every loop ends.
        cdef int families[4]
        cdef uint8_t* addresses[4]
        cdef const uint8_t* names[3]
        cdef size_t lengths[3]
        cdef int field, handler, status = TAKEN
        cdef bint lacks_value = False         # "-" where a record needs a value
        cdef const uint8_t* word
        cdef Py_ssize_t length
        cdef int64_t number = 0, start = -1, end = -1
        memset(row, 0, sizeof(Row))
        memset(families, 0, sizeof(families))
        memset(lengths, 0, sizeof(lengths))
        addresses[0], addresses[1] = row.src, row.dst
        addresses[2], addresses[3] = row.pkt_src, row.pkt_dst
        row.packets = row.bytes = row.packets_back = row.bytes_back = -1
        row.protocol = row.tcp_flags = row.icmp_type = row.icmp_code = -1
        row.conn_state = -1
        for field in range(self.fields):
            while kinds[at[0]] == SEPARATOR:
                at += 1
            word = at
            while kinds[at[0]] == OF_WORD:
                at += 1
            length = at - word
            if length == 0 or kinds[at[0]] == DOUBTFUL:
                return LEAVES_LINE
            handler = self.handlers[field]
            if handler == SKIPPED:
                continue
            if handler <= PKT_DST:
                if length == 1 and word[0] == c"-":
                    lacks_value |= handler <= DST
                    continue
                families[handler - SRC] = address_in(word, length, addresses[handler - SRC])
                if not families[handler - SRC]:
                    return LEAVES_LINE
            elif handler == ACTION:
                if equals(word, length, b"ACCEPT", 6):
                    row.action = 1
                elif equals(word, length, b"REJECT", 6):
                    row.action = 2
                elif length == 1 and word[0] == c"-":
                    lacks_value = True
                else:
                    return LEAVES_LINE
            elif handler == STATUS:
                if equals(word, length, b"OK", 2):
                    status = TAKEN
                elif equals(word, length, b"NODATA", 6):
                    status = NODATA
                elif equals(word, length, b"SKIPDATA", 8):
                    status = SKIPDATA
                else:
                    return LEAVES_LINE
            elif handler == DIRECTION:
                if equals(word, length, b"ingress", 7):
                    row.direction = 1
                elif equals(word, length, b"egress", 6):
                    row.direction = 2
            elif handler >= INTERFACE:
                names[handler - INTERFACE] = word
                lengths[handler - INTERFACE] = <size_t>length
            else:
                number = number_in(word, length, most_of(handler))
                if number == NO_NUMBER:
                    return LEAVES_LINE
                if handler == SPORT:
                    row.sport = <uint16_t>(number if number > 0 else 0)
                elif handler == DPORT:
                    row.dport = <uint16_t>(number if number > 0 else 0)
                elif handler == PACKETS:
                    row.packets = number
                elif handler == BYTES:
                    row.bytes = number
                elif handler == FLAGS:
                    row.tcp_flags = <int16_t>number
                else:
                    lacks_value |= number < 0
                    if handler == PROTOCOL:
                        row.protocol = <int16_t>number
                    elif handler == START:
                        start = number
                    else:
                        end = number
        while kinds[at[0]] == SEPARATOR:
            at += 1
        if kinds[at[0]] != LINE_END:
            return LEAVES_LINE
        if status == NODATA:
            self.words._note_idle(self._number(names[0], lengths[0]))
        if status != TAKEN:
            return status
        if lacks_value or families[0] != families[1] or (start >= 0 and 0 <= end < start):
            return LEAVES_LINE
        if (families[2] and families[2] != families[0]) or (families[3] and families[3] != families[0]):
            return LEAVES_LINE
        row.interface = self._number(names[0], lengths[0])
        row.instance = self._number(names[1], lengths[1])
        row.rule = self._number(names[2], lengths[2])
        row.family = <uint8_t>families[0]
        row.has_pkt = <uint8_t>((families[2] != 0) | (families[3] != 0) << 1)
        row.has_ports = has_port_numbers(row.protocol) and (row.sport | row.dport) != 0
        row.start_ns = start * 1000000000 if start >= 0 else -1
        row.end_ns = end * 1000000000 if end >= 0 else -1
        return TAKEN

    cdef int32_t _number(self, const uint8_t* word, size_t length) noexcept nogil:
        # Returns the number of a word, or -1 if the record has none.
        if length == 0 or (length == 1 and word[0] == c"-"):
            return -1
        return self.words.number(word, length)


cdef inline int64_t most_of(int handler) noexcept nogil:
    if handler == SPORT or handler == DPORT:
        return 65535
    if handler == PROTOCOL or handler == FLAGS:
        return 255
    if handler == START or handler == END:
        return 8589934592
    return 999999999999999999

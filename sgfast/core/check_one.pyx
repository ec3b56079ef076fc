"""Judge one packet given as Python arguments: the usual case of ``Engine.check``."""

from ipaddress import IPv4Address, IPv6Address

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.unicode cimport (
    PyUnicode_1BYTE_DATA,
    PyUnicode_1BYTE_KIND,
    PyUnicode_CheckExact,
    PyUnicode_GET_LENGTH,
    PyUnicode_KIND,
)
from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.string cimport memcpy, memset

from sgfast.core.base.address_text cimport read_ipv4_text, read_ipv6_text
from sgfast.core.base.types cimport (
    PROTO_DCCP,
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_SCTP,
    PROTO_TCP,
    PROTO_UDP,
    PROTO_UDPLITE,
    HeaderRow,
    ResultRow,
)
from sgfast.core.dataplane cimport DataPlane

cdef enum:
    # Limit of cached results; some 5 MB at most.
    MAX_CACHED = 1 << 14
    WIRE_BYTES = 64         # as in `sgfast.header`
    ECHO_REQUEST = 8
    ECHO_REQUEST_V6 = 128

# The clock of the data plane has this range before and after 1970.
cdef int64_t MAX_TIME_NS = <int64_t>1 << 62

#: Read by tests.
KEPT_AT_MOST = MAX_CACHED


# Reading arguments. The functions below run no Python code of the caller and raise no error. Arguments that are out of
# range, or not of exactly the expected type, are left to the caller. --------------------------------------------------

cdef inline bint is_plain_text(object text) noexcept:
    return PyUnicode_CheckExact(text) and PyUnicode_KIND(text) == PyUnicode_1BYTE_KIND


cdef inline bint read_whole(object number, int64_t low, int64_t high, int64_t* value) except -1:
    cdef int overflow = 0
    if not PyLong_CheckExact(number):
        return False
    value[0] = PyLong_AsLongLongAndOverflow(number, &overflow)
    return overflow == 0 and low <= value[0] <= high


cdef inline bint read_u16(object number, uint16_t* value) except -1:
    cdef int64_t whole
    if not read_whole(number, 0, 0xFFFF, &whole):
        return False
    value[0] = <uint16_t>whole
    return True


cdef inline bint read_u8(object number, uint8_t* value) except -1:
    cdef int64_t whole
    if not read_whole(number, 0, 0xFF, &whole):
        return False
    value[0] = <uint8_t>whole
    return True


cdef inline int read_packed(bytes packed, uint8_t* out) noexcept:
    cdef Py_ssize_t length = PyBytes_GET_SIZE(packed)
    if length != 4 and length != 16:
        return 0
    memcpy(out, PyBytes_AS_STRING(packed), length)
    return 4 if length == 4 else 6


cdef int read_address(object address, uint8_t* out) except -1:
    # Returns the IP version, or 0 if the address cannot be read. `out`: 16 bytes, zeroed.
    cdef const uint8_t* text
    cdef Py_ssize_t length
    if is_plain_text(address):
        text = PyUnicode_1BYTE_DATA(address)
        length = PyUnicode_GET_LENGTH(address)
        if read_ipv4_text(text, length, out):
            return 4
        return 6 if read_ipv6_text(text, length, out) else 0
    if PyBytes_CheckExact(address):
        return read_packed(address, out)
    if type(address) is IPv4Address or type(address) is IPv6Address:
        return read_packed(address.packed, out)
    return 0


cdef class SingleChecks:
    """Judge packets one at a time, with ``plane``.

    ``protocols``: protocol number by lower-case name; ``flags``: bit of a TCP flag by upper-case letter.
    ``names``: the packed IPv4 and IPv6 address of an instance, or None, by each word for it that was met.
    """
    cdef DataPlane plane
    cdef dict protocols
    cdef uint8_t[256] flag
    cdef dict cache     # by the bytes of a result row: the value passed to `keep` for it
    cdef public dict names

    def __cinit__(self, DataPlane plane not None, dict protocols not None, dict flags not None):
        self.plane = plane
        self.protocols = protocols
        self.cache = {}
        self.names = {}
        for letter, bit in flags.items():
            self.flag[<uint8_t>ord(letter)] = bit
            self.flag[<uint8_t>ord(letter.lower())] = bit

    def __len__(self):
        return len(self.cache)

    cdef bint read_named(self, dict names, object end, int family, uint8_t* out) except -1:
        # Reads an address, or an instance's address, of one IP version.
        cdef int address_family
        memset(out, 0, 16)
        address_family = read_address(end, out)
        if address_family:
            return address_family == family
        if not PyUnicode_CheckExact(end):
            return False
        # `get` returns a new reference, as in `check`.
        addresses = names.get(end)
        if addresses is None:
            return False
        packed = addresses[family == 6]
        return packed is not None and read_packed(packed, out) != 0

    cdef bint read_ends(self, HeaderRow* row, object src, object dst, bint prefers_ipv6) except -1:
        cdef dict names = self.names
        cdef int family
        for family in (6, 4) if prefers_ipv6 else (4, 6):
            if self.read_named(names, src, family, row.src) and self.read_named(names, dst, family, row.dst):
                row.family = family
                return True
        return False

    cdef bint read_arguments(
        self, HeaderRow* row, object src, object dst, object protocol, object sport, object dport, object flags,
        object icmp_type, object icmp_code, object icmp_id, object time_ns
    ) except -1:
        cdef uint16_t source_port = 0
        cdef uint16_t destination_port, identifier
        cdef uint8_t kind = 0
        cdef uint8_t code = 0
        cdef uint8_t bits = 0
        cdef uint8_t bit
        cdef const uint8_t* letters
        cdef Py_ssize_t i
        cdef int64_t number, time
        cdef PyObject* named = NULL
        memset(row, 0, sizeof(HeaderRow))
        if PyUnicode_CheckExact(protocol):
            named = PyDict_GetItemWithError(self.protocols, protocol)
            if named == NULL or not read_whole(<object>named, 0, 0xFF, &number):
                return False
        elif not read_whole(protocol, 0, 0xFF, &number):
            return False
        row.family = read_address(src, row.src)
        if not row.family or read_address(dst, row.dst) != row.family:
            if not self.read_ends(row, src, dst, number == PROTO_ICMPV6):
                return False
        if named != NULL and number == PROTO_ICMP and row.family == 6:
            number = PROTO_ICMPV6
        if not (
            read_u16(icmp_id, &identifier) and read_whole(time_ns, -MAX_TIME_NS, MAX_TIME_NS, &time)
            and is_plain_text(flags)
        ):
            return False
        letters = PyUnicode_1BYTE_DATA(flags)
        for i in range(PyUnicode_GET_LENGTH(flags)):
            bit = self.flag[letters[i]]
            if not bit:
                return False
            bits |= bit
        row.time_ns = time
        row.wire = WIRE_BYTES
        row.protocol = <uint8_t>number
        if number in (PROTO_TCP, PROTO_UDP, PROTO_DCCP, PROTO_SCTP, PROTO_UDPLITE):
            if icmp_type is not None or icmp_code is not None or not read_u16(dport, &destination_port):
                return False
            if sport is not None and not read_u16(sport, &source_port):
                return False
            row.sport = source_port
            row.dport = destination_port
            row.has_ports = True
            if number == PROTO_TCP:
                row.tcp_flags = bits
        elif sport is not None or dport is not None:
            return False
        elif number == (PROTO_ICMPV6 if row.family == 6 else PROTO_ICMP):
            if icmp_type is None:
                kind = ECHO_REQUEST_V6 if row.family == 6 else ECHO_REQUEST
            elif not read_u8(icmp_type, &kind):
                return False
            if icmp_code is not None and (icmp_type is None or not read_u8(icmp_code, &code)):
                return False
            row.icmp_type = kind
            row.icmp_code = code
            row.icmp_id = identifier
            row.has_icmp = True
        elif icmp_type is not None or icmp_code is not None:
            return False
        return True

    def check(self, src, dst, protocol, sport, dport, flags, icmp_type, icmp_code, icmp_id, time_ns):
        """Judge a packet; the arguments are those of ``Engine.check``.

        Return the value passed to ``keep`` for an equal result, or else the result as bytes, a row of RESULT_DTYPE.
        Return None, and judge nothing, if an argument is out of range or of another type than exactly str, bytes, int,
        IPv4Address or IPv6Address.
        """
        cdef HeaderRow header
        cdef ResultRow result
        if not self.read_arguments(
            &header, src, dst, protocol, sport, dport, flags, icmp_type, icmp_code, icmp_id, time_ns
        ):
            return None
        memset(&result, 0, sizeof(ResultRow))
        self.plane.judge_one(&header, &result)
        row = PyBytes_FromStringAndSize(<const char*>&result, sizeof(ResultRow))
        # `get` returns a new reference. Without a GIL, another thread may clear the cache at the same time.
        return self.cache.get(row, row)

    def keep(self, bytes row not None, words not None):
        """Cache the value that ``check`` later returns for the result ``row``. Some thousand results are cached."""
        if len(self.cache) >= MAX_CACHED:
            self.cache.clear()
        self.cache[row] = words

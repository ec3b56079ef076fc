"""Save incomplete datagrams as an array, and load them: a part of ``snapshot``."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from sgfast.core.base.key cimport digest_key, hash_key
from sgfast.core.base.types cimport (
    ALLOW,
    DENY,
    NO_SLOT,
    NO_VERDICT,
    READ_NOT_IP,
    REASON_COUNT,
    STEP_COUNT,
    VERDICT_COUNT,
    ResultRow,
)
from sgfast.core.classify.classifier cimport Classifier
from sgfast.core.dataplane cimport DataPlane
from sgfast.core.dtypes cimport copied_rows
from sgfast.core.fragments.datagrams cimport (
    BLOCK_WORDS,
    BLOCKS,
    FRAGMENT_NS,
    MAX_DATAGRAMS,
    MAX_FRAGMENTS,
    NO_DATAGRAM,
    BlockSet,
    Datagram,
    DatagramKey,
    Fragments,
    HeldFragment,
    ResolvedRow,
    init_fragments,
    make_store,
    next_block,
    restore_datagram,
)
from sgfast.core.parallel.parsing cimport shard_of_hash

from sgfast.core.dtypes import RESULT_DTYPE


cdef packed struct DatagramRow:
    DatagramKey key
    uint64_t number
    int64_t deadline
    uint32_t pieces
    uint32_t total
    uint32_t end
    ResultRow result
    # Fields of the first fragment:
    uint32_t ports
    uint16_t port_key
    uint16_t sport
    uint16_t dport
    uint8_t protocol
    uint8_t kind
    uint8_t read
    uint8_t step
    uint8_t has_ports
    uint8_t has_icmp
    uint8_t spoiled
    uint8_t tallied
    uint64_t starts[BLOCK_WORDS]    # as in Datagram, but every word is valid
    uint64_t ends[BLOCK_WORDS]


DATAGRAM_DTYPE = np.dtype([
    ("addr", "<u8", (4,)), ("identification", "<u4"), ("key_protocol", "u1"), ("ipv6", "u1"), ("source_high", "u1"),
    ("spare", "u1"), ("number", "<u8"), ("deadline", "<i8"), ("pieces", "<u4"), ("total", "<u4"), ("end", "<u4"),
    ("result", RESULT_DTYPE), ("ports", "<u4"), ("port_key", "<u2"), ("sport", "<u2"), ("dport", "<u2"),
    ("protocol", "u1"), ("kind", "u1"), ("read", "u1"), ("step", "u1"), ("has_ports", "u1"), ("has_icmp", "u1"),
    ("spoiled", "u1"), ("tallied", "u1"), ("starts", "<u8", (BLOCK_WORDS,)), ("ends", "<u8", (BLOCK_WORDS,)),
])
assert DATAGRAM_DTYPE.itemsize == sizeof(DatagramRow) and sizeof(DatagramKey) == 40


def save_datagrams(DataPlane plane not None):
    """Return the known datagrams, the oldest first, as DATAGRAM_DTYPE. The caller must hold the plane's lock, and no
    fragment may be held.
    """
    cdef const Fragments* f = plane.fragments
    cdef const Datagram* d
    cdef DatagramRow row
    cdef uint32_t at = f.oldest[0]
    rows = []
    while at != NO_DATAGRAM:
        d = &f.datagrams[at]
        memset(&row, 0, sizeof(DatagramRow))
        row.key = d.key
        row.number, row.deadline, row.pieces, row.total, row.end = d.number, d.deadline, d.fragments, d.total, d.end
        row.result = d.row
        row.ports, row.protocol, row.kind = d.first.key.ports, d.first.protocol, d.first.key.kind
        row.port_key, row.sport, row.dport = d.first.port_key, d.first.sport, d.first.dport
        row.read, row.step = d.first.parse_result, d.first.step
        row.has_ports, row.has_icmp = d.first.has_ports, d.first.has_icmp
        row.spoiled, row.tallied = d.spoiled, d.tallied
        copy_words(&d.starts, <uint8_t*>row.starts)
        copy_words(&d.ends, <uint8_t*>row.ends)
        rows.append(copied_rows(<const uint8_t*>&row, sizeof(DatagramRow), DATAGRAM_DTYPE))
        at = d.newer[0]
    return np.concatenate(rows) if rows else np.empty(0, dtype=DATAGRAM_DTYPE)


def copy_fragments(DataPlane plane not None, DataPlane made not None):
    """Copy all known datagrams, held fragments and results that nobody has taken. ``made``: a new plane with the same
    hash key and as many shards. The caller must hold the lock of ``plane``.
    """
    cdef const Fragments* f = plane.fragments
    cdef Fragments* new = made.fragments
    cdef Fragments store
    cdef uint32_t at = f.oldest[0]
    cdef int i
    if f.datagrams == NULL:
        return
    init_fragments(&store)
    store.resolved = <ResolvedRow*>malloc(f.resolved_count * sizeof(ResolvedRow) + 1)
    if store.resolved == NULL or not make_store(&store):
        free(store.resolved)
        raise MemoryError
    # Without resolved fragments, there is no memory for them, and memcpy takes no null pointer.
    if f.resolved_count:
        memcpy(store.resolved, f.resolved, f.resolved_count * sizeof(ResolvedRow))
    memcpy(store.datagrams, f.datagrams, MAX_DATAGRAMS * sizeof(Datagram))
    memcpy(store.held_store, f.held_store, MAX_FRAGMENTS * sizeof(HeldFragment))
    new[0] = f[0]
    new.resolved, new.datagrams, new.held_store = store.resolved, store.datagrams, store.held_store
    new.resolved_capacity = f.resolved_count
    while at != NO_DATAGRAM:
        for i in range(plane.plane_count):
            if f.datagrams[at].home == plane.planes[i]:
                new.datagrams[at].home = made.planes[i]
        at = f.datagrams[at].newer[0]


# The words of a row are not aligned, so they are copied as bytes.

cdef void copy_words(const BlockSet* blocks, uint8_t* words) noexcept nogil:
    cdef uint64_t word
    cdef uint32_t n
    for n in range(BLOCK_WORDS):
        word = blocks.words[n] if blocks.used[n >> 6] >> (n & 63) & 1 else 0
        memcpy(words + n * sizeof(word), &word, sizeof(word))


cdef void add_words(BlockSet* blocks, const uint8_t* words) noexcept nogil:
    cdef uint64_t word
    cdef uint32_t n
    for n in range(BLOCK_WORDS):
        memcpy(&word, words + n * sizeof(word), sizeof(word))
        if word:
            blocks.used[n >> 6] |= <uint64_t>1 << (n & 63)
            blocks.words[n] = word


cdef bint restore_fragments(Datagram* d, const DatagramRow* row) noexcept nogil:
    # Gives an empty datagram the fragments of a row. Returns False if fragments overlap, or if they do not agree with
    # the row's `pieces` and `end`.
    cdef uint32_t start, end
    cdef uint32_t at = 0
    add_words(&d.starts, <const uint8_t*>row.starts)
    add_words(&d.ends, <const uint8_t*>row.ends)
    while at < BLOCKS:
        start, end = next_block(&d.starts, at), next_block(&d.ends, at)
        if start == BLOCKS and end == BLOCKS:
            break
        if end < start or end == BLOCKS or (start < end and next_block(&d.starts, start + 1) <= end):
            return False
        d.blocks += end - start + 1
        d.fragments += 1
        at = end + 1
    d.end = row.end
    return d.fragments == row.pieces and at == (row.end + 7) // 8


def check_datagrams(rows, int instances, int rules, clock_ns):
    """Return the error in rows of DATAGRAM_DTYPE, or None if ``save_datagrams`` could have made them.
    ``restore_fragments`` checks their fragments.
    """
    result = rows["result"]
    numbers, deadlines = rows["number"].astype(np.int64), rows["deadline"]
    if len(rows) > MAX_DATAGRAMS or rows["pieces"].astype(np.int64).sum() > MAX_FRAGMENTS:
        return "too many datagrams or fragments"
    if (np.diff(numbers) < 0).any() or (np.diff(deadlines) < 0).any() or (deadlines > clock_ns + FRAGMENT_NS).any():
        return "not in order of age"
    if not np.isin(rows["ipv6"], (0, 1)).all() or not np.isin(rows["source_high"], (0, 1)).all() or rows["spare"].any():
        return "an invalid key"
    if rows["addr"][rows["ipv6"] == 0][:, 1:].any() or (rows["end"] > 0xFFFF).any():
        return "an invalid key or end"
    if ((rows["total"] != 0) & (rows["total"] < rows["end"])).any() or (rows["total"] > 0xFFFF).any():
        return "an invalid end"
    if (rows["read"] > READ_NOT_IP).any() or (rows["step"] >= STEP_COUNT).any():
        return "an invalid first fragment"
    if (result["verdict"] >= VERDICT_COUNT).any() or (result["reason"] >= REASON_COUNT).any():
        return "an invalid verdict"
    for name in ("egress", "ingress"):
        side = result[name]
        if not np.isin(side["verdict"], (<int>ALLOW, <int>DENY, <int>NO_VERDICT)).all():
            return "an invalid verdict"
        for field, count in (("instance", instances), ("rule", rules)):
            if ((side[field] < -1) | (side[field] >= count)).any():
                return f"an unknown {field}"
        if ((side["verdict"] != <int>NO_VERDICT) & (side["instance"] < 0)).any():
            return "a side without an instance"
        if (side["reason"] >= REASON_COUNT).any():
            return "an invalid reason"
    if not np.isin(rows["spoiled"], (0, 1)).all() or not np.isin(rows["tallied"], (0, 1)).all():
        return "an invalid flag"
    return None


def load_datagrams(DataPlane plane not None, rows):
    """Load rows of ``save_datagrams`` into a plane that has no datagrams. ValueError if a row is invalid or a datagram
    occurs twice.
    """
    cdef Classifier classifier = plane.classifier
    cdef const uint8_t[::1] view
    cdef const DatagramRow* row
    cdef Datagram d
    cdef Py_ssize_t n
    problem = check_datagrams(rows, classifier.instance_count, classifier.rule_count, plane.clock.now)
    if problem is not None:
        raise ValueError(f"datagrams: {problem}")
    if not len(rows):
        return
    view = np.ascontiguousarray(rows).view(np.uint8)
    for n in range(len(rows)):
        row = <const DatagramRow*>&view[n * <Py_ssize_t>sizeof(DatagramRow)]
        memset(&d, 0, sizeof(Datagram))
        d.key = row.key
        d.number, d.deadline, d.total = row.number, row.deadline, row.total
        d.row = row.result
        if not restore_fragments(&d, row):
            raise ValueError("datagrams: inconsistent fragments")
        memcpy(d.first.key.addr, row.key.addr, sizeof(d.first.key.addr))
        d.first.key.ports, d.first.key.protocol, d.first.key.kind = row.ports, row.protocol, row.kind
        d.first.protocol, d.first.ipv6, d.first.source_high = row.protocol, row.key.ipv6, row.key.source_high
        d.first.port_key, d.first.sport, d.first.dport = row.port_key, row.sport, row.dport
        d.first.parse_result, d.first.step = row.read, row.step
        d.first.has_ports, d.first.has_icmp = row.has_ports, row.has_icmp
        d.first.hint = NO_SLOT
        d.first.digest = digest_key(plane.planes[0].wire.secret, &d.first.key)
        d.first.hash = hash_key(plane.planes[0].wire.secret, d.first.digest, &d.first.key)
        d.home = plane.planes[shard_of_hash(d.first.hash, plane.plane_count)]
        d.known = not row.spoiled
        d.spoiled, d.tallied = row.spoiled, row.tallied
        if not restore_datagram(plane.fragments, &d, plane.planes[0].wire.secret[7]):
            raise ValueError("datagrams: the same datagram twice")

"""Build the longest-prefix-match trie. ``cidr_trie.pxd`` explains its layout and has its look-ups."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import numpy as np

from sgfast.core.base.intrinsics cimport be32, be64


cdef inline uint32_t two_bytes(const uint8_t[:, ::1] prefixes, Py_ssize_t i) noexcept:
    return <uint32_t>prefixes[i, 0] << 8 | prefixes[i, 1]


cdef class CidrTrie:
    """A trie for longest-prefix matches. It is read-only after the constructor has built it.

    ``prefixes``: uint8 array (n, 16), network addresses in network byte order (IPv4 in the first four bytes);
    ``lengths``: uint8 (n,); ``values``: uint32 (n,) below 2**31, the results of look-ups; ``background``: the
    result where no prefix matches. Rows may be in any order; equal prefixes raise ValueError.

    ``earlier``: a trie of the same rows except the ``added`` rows, which must be few. Only the parts under the first
    two bytes of the added rows are built anew. ``added`` are row numbers, and all rows must be in the order of
    addresses, then of lengths.
    """

    def __cinit__(self, bint ipv6, prefixes, lengths, values, uint32_t background, CidrTrie earlier=None, added=()):
        self.ipv6 = ipv6
        cdef const uint8_t[:, ::1] prefix_rows
        cdef const uint8_t[::1] length_rows
        cdef const uint32_t[::1] value_rows
        cdef Py_ssize_t i, n

        prefixes = np.ascontiguousarray(prefixes, dtype=np.uint8).reshape(-1, 16)
        lengths = np.ascontiguousarray(lengths, dtype=np.uint8)
        values = np.ascontiguousarray(values, dtype=np.uint32)
        n = len(prefixes)
        if len(lengths) != n or len(values) != n:
            raise ValueError("prefixes, lengths and values must be equally many")
        if n and int(lengths.max()) > (128 if ipv6 else 32):
            raise ValueError("a prefix is longer than its address")
        # Each rebuilt part leaves its earlier tables unused, so the whole trie is built anew now and then.
        if earlier is not None and earlier.table_count <= 2 * earlier.whole_count + 64:
            prefix_rows, length_rows, value_rows = prefixes, lengths, values
            self.copy_from(earlier)
            for i in added:
                if not 0 <= i < n:
                    raise IndexError("no such row")
                self.build_below(prefix_rows, length_rows, value_rows, i, background)
            return
        # Rows are sorted by address, then by length. So a prefix comes before the longer prefixes inside it.
        halves = prefixes.view(">u8").reshape(-1, 2)
        order = np.lexsort((lengths, halves[:, 1], halves[:, 0]))
        prefixes, lengths, values = prefixes[order], lengths[order], values[order]
        same = (prefixes[1:] == prefixes[: n - 1]).all(axis=1) & (lengths[1:] == lengths[: n - 1])
        if n and same.any():
            raise ValueError("the same prefix occurs twice")
        prefix_rows, length_rows, value_rows = prefixes, lengths, values

        self.trie.root = <uint32_t*>malloc(65536 * sizeof(uint32_t))
        self.trie.cells = <uint32_t*>calloc(1, sizeof(uint32_t))    # find_ipv4 reads the first cell of any trie
        if self.trie.root == NULL or self.trie.cells == NULL:
            raise MemoryError
        for i in range(65536):
            self.trie.root[i] = background
        self.build_root(prefix_rows, length_rows, value_rows, 0, 65536)
        self.whole_count = self.table_count

    cdef int copy_from(self, CidrTrie earlier) except -1:
        cdef size_t root = 65536 * sizeof(uint32_t)
        cdef size_t cells = <size_t>earlier.table_capacity * 256 * sizeof(uint32_t)
        cdef size_t nodes = <size_t>earlier.node_capacity * sizeof(PathNode)
        self.trie.root = <uint32_t*>malloc(root)
        self.trie.cells = <uint32_t*>malloc(max(cells, sizeof(uint32_t)))
        self.trie.nodes = <PathNode*>malloc(max(nodes, 1))
        if self.trie.root == NULL or self.trie.cells == NULL or self.trie.nodes == NULL:
            raise MemoryError
        memcpy(self.trie.root, earlier.trie.root, root)
        self.trie.cells[0] = 0
        if earlier.table_count:
            memcpy(self.trie.cells, earlier.trie.cells, <size_t>earlier.table_count * 256 * sizeof(uint32_t))
        if earlier.node_count:
            memcpy(self.trie.nodes, earlier.trie.nodes, <size_t>earlier.node_count * sizeof(PathNode))
        self.table_count, self.table_capacity = earlier.table_count, earlier.table_capacity
        self.node_count, self.node_capacity = earlier.node_count, earlier.node_capacity
        self.whole_count = earlier.whole_count
        return 0

    cdef int build_root(
        self, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths, const uint32_t[::1] values,
        Py_ssize_t first, uint32_t end
    ) except -1:
        # Adds the rows from `first` on whose first two bytes are below `end`. The root has the values of shorter ones.
        cdef Py_ssize_t n = lengths.shape[0]
        cdef Py_ssize_t last, i
        cdef uint32_t at, cell
        while first < n and two_bytes(prefixes, first) < end:
            at = two_bytes(prefixes, first)
            if lengths[first] <= 16:
                for i in range(1 << (16 - lengths[first])):
                    self.trie.root[at + i] = values[first]
                first += 1
                continue
            last = first + 1
            while last < n and two_bytes(prefixes, last) == at:
                last += 1
            if self.ipv6:
                cell = self.build_ipv6(prefixes, lengths, values, first, last, self.trie.root[at])
            else:
                cell = self.build_ipv4(prefixes, lengths, values, first, last, 2, self.trie.root[at])
            self.trie.root[at] = cell
            first = last
        return 0

    cdef int build_below(
        self, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths, const uint32_t[::1] values,
        Py_ssize_t changed, uint32_t background
    ) except -1:
        # Rebuilds the part of the root that row `changed` lies in or covers, and all tables and nodes below that part.
        cdef int bits = min(<int>lengths[changed], 16)
        cdef uint32_t at = two_bytes(prefixes, changed) >> (16 - bits) << (16 - bits)
        cdef uint32_t end = at + (<uint32_t>1 << (16 - bits))
        cdef uint32_t value = background
        cdef Py_ssize_t i = 0
        while two_bytes(prefixes, i) < at or (two_bytes(prefixes, i) == at and lengths[i] <= bits):
            if lengths[i] <= bits and (two_bytes(prefixes, i) ^ at) >> (16 - lengths[i]) == 0:
                value = values[i]
            i += 1
            if i == lengths.shape[0]:
                break
        cdef uint32_t cell
        for cell in range(at, end):
            self.trie.root[cell] = value
        return self.build_root(prefixes, lengths, values, i, end)

    def __dealloc__(self):
        free(self.trie.root)
        free(self.trie.cells)
        free(self.trie.nodes)

    @property
    def nbytes(self):
        """Memory of the tables, in bytes."""
        return (
            65536 * sizeof(uint32_t)
            + <size_t>self.table_count * 256 * sizeof(uint32_t)
            + <size_t>self.node_count * sizeof(PathNode)
        )

    def find(self, address not None):
        """Return the value of the longest prefix that contains ``address`` (4 or 16 bytes, network byte order)."""
        cdef bytes packed = bytes(address)
        cdef const uint8_t* octets = <const uint8_t*>PyBytes_AS_STRING(packed)
        if PyBytes_GET_SIZE(packed) != (16 if self.ipv6 else 4):
            raise ValueError("the address must be of the trie's family")
        if not self.ipv6:
            return find_ipv4(&self.trie, be32(octets))
        return find_ipv6(&self.trie, be64(octets), be64(octets + 8))

    cdef uint32_t new_table(self, uint32_t fill) except? 0xFFFFFFFF:
        cdef uint32_t capacity, i
        cdef uint32_t* grown
        if self.table_count == self.table_capacity:
            capacity = max(64, self.table_capacity * 2)
            if capacity > 1 << 22:
                raise MemoryError("more than four million address blocks")
            grown = <uint32_t*>realloc(self.trie.cells, <size_t>capacity * 256 * sizeof(uint32_t))
            if grown == NULL:
                raise MemoryError
            self.trie.cells = grown
            self.table_capacity = capacity
        for i in range(256):
            self.trie.cells[self.table_count * 256 + i] = fill
        self.table_count += 1
        return self.table_count - 1

    cdef uint32_t new_node(self) except? 0xFFFFFFFF:
        cdef uint32_t capacity
        cdef PathNode* grown
        if self.node_count == self.node_capacity:
            capacity = max(64, self.node_capacity * 2)
            grown = <PathNode*>realloc(self.trie.nodes, <size_t>capacity * sizeof(PathNode))
            if grown == NULL:
                raise MemoryError
            self.trie.nodes = grown
            self.node_capacity = capacity
        memset(&self.trie.nodes[self.node_count], 0, sizeof(PathNode))
        self.node_count += 1
        return self.node_count - 1

    cdef int fill_cells(
        self, uint32_t table, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths,
        const uint32_t[::1] values, Py_ssize_t first, Py_ssize_t last, int depth
    ) except -1:
        # Adds rows [first, last), which must agree in their first `depth` bytes and be longer. `table` decides byte
        # `depth`.
        cdef Py_ssize_t stop
        cdef uint32_t at, cell, i
        while first < last:
            at = prefixes[first, depth]
            if lengths[first] <= 8 * (depth + 1):
                for i in range(<uint32_t>1 << (8 * (depth + 1) - lengths[first])):
                    self.trie.cells[table * 256 + at + i] = values[first]
                first += 1
                continue
            stop = first + 1
            while stop < last and prefixes[stop, depth] == at:
                stop += 1
            cell = self.trie.cells[table * 256 + at]
            if self.ipv6:
                cell = self.build_ipv6(prefixes, lengths, values, first, stop, cell)
            else:
                cell = self.build_ipv4(prefixes, lengths, values, first, stop, depth + 1, cell)
            self.trie.cells[table * 256 + at] = cell        # by number, as the recursion may have moved tables
            first = stop
        return 0

    cdef uint32_t build_ipv4(
        self, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths, const uint32_t[::1] values,
        Py_ssize_t first, Py_ssize_t last, int depth, uint32_t inherited
    ) except? 0xFFFFFFFF:
        cdef uint32_t table = self.new_table(inherited)
        self.fill_cells(table, prefixes, lengths, values, first, last, depth)
        return <uint32_t>CHILD | table

    cdef uint32_t build_ipv6(
        self, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths, const uint32_t[::1] values,
        Py_ssize_t first, Py_ssize_t last, uint32_t inherited
    ) except? 0xFFFFFFFF:
        cdef uint32_t node = self.new_node()
        cdef uint32_t table
        cdef Py_ssize_t i
        cdef int shortest = 128
        cdef int depth, bits
        for i in range(first, last):
            shortest = min(shortest, <int>lengths[i])
        if last - first == 1:
            bits = shortest
            table = NO_TABLE
        else:
            depth = 0
            while depth < (shortest - 1) // 8 and prefixes[first, depth] == prefixes[last - 1, depth]:
                depth += 1
            bits = 8 * depth
            table = self.new_table(inherited)
            self.fill_cells(table, prefixes, lengths, values, first, last, depth)
            table *= 256
            self.trie.nodes[node].shift = (56 - 8 * depth) if depth < 8 else (64 + 120 - 8 * depth)
        cdef PathNode* here = &self.trie.nodes[node]        # set only now, as the recursion may have moved the nodes
        here.table = table
        here.value = values[first]
        here.fallback = inherited
        for i in range(16):
            here.prefix[i // 8] |= <uint64_t>prefixes[first, i] << (56 - 8 * (i % 8))
        here.mask[0] = 0 if bits == 0 else ~<uint64_t>0 << (64 - min(bits, 64))
        here.mask[1] = 0 if bits <= 64 else ~<uint64_t>0 << (128 - bits)
        return <uint32_t>CHILD | node


def nest_prefixes(halves, lengths, owner, number, Py_ssize_t numbered):
    """Find how prefixes nest.

    The prefixes must be sorted by address, then by length. ``halves``: uint64 (n, 2), an IPv4 address in the upper bits
    of the first half; ``lengths``: uint8 (n,); ``owner``: int32 (n,), -1 for a prefix without an owner; ``number``:
    int32 (n,), distinct numbers below ``numbered``, -1 for none.

    Return five arrays. For each prefix, as int32 (n,): the row of the innermost prefix around it that has an owner, and
    the innermost number at or around it; -1 for none. For each number, as int64: its position in the order of numbers,
    the position after the last number it contains, and the innermost number around it.
    """
    cdef const uint64_t[:, ::1] address = np.ascontiguousarray(halves, dtype=np.uint64)
    cdef const uint8_t[::1] length = np.ascontiguousarray(lengths, dtype=np.uint8)
    cdef const int32_t[::1] owners = np.ascontiguousarray(owner, dtype=np.int32)
    cdef const int32_t[::1] own_number = np.ascontiguousarray(number, dtype=np.int32)
    cdef Py_ssize_t n = address.shape[0]
    cdef int32_t[::1] outer = np.full(n, -1, dtype=np.int32)
    cdef int32_t[::1] inside = np.full(n, -1, dtype=np.int32)
    cdef int64_t[::1] first = np.zeros(numbered, dtype=np.int64)
    cdef int64_t[::1] last = np.zeros(numbered, dtype=np.int64)
    cdef int64_t[::1] around = np.full(numbered, -1, dtype=np.int64)
    cdef Py_ssize_t[129] stack      # the prefixes around the current one, the outermost first
    cdef int depth = 0
    cdef Py_ssize_t i
    cdef int64_t position = 0
    if length.shape[0] != n or owners.shape[0] != n or own_number.shape[0] != n:
        raise ValueError("the arrays must have the same length")
    for i in range(n):
        while depth and not covers(address, length, stack[depth - 1], i):
            depth -= 1
            if own_number[stack[depth]] >= 0:
                last[own_number[stack[depth]]] = position
        if depth:
            outer[i] = <int32_t>stack[depth - 1] if owners[stack[depth - 1]] >= 0 else outer[stack[depth - 1]]
            inside[i] = inside[stack[depth - 1]]
        if own_number[i] >= 0:
            if own_number[i] >= numbered:
                raise ValueError("a number is too large")
            around[own_number[i]] = inside[i]
            first[own_number[i]] = position
            inside[i] = own_number[i]
            position += 1
        if depth == 129:
            raise ValueError("the prefixes are not in order")
        stack[depth] = i
        depth += 1
    while depth:
        depth -= 1
        if own_number[stack[depth]] >= 0:
            last[own_number[stack[depth]]] = position
    return np.asarray(outer), np.asarray(inside), np.asarray(first), np.asarray(last), np.asarray(around)


cdef bint covers(
    const uint64_t[:, ::1] address, const uint8_t[::1] length, Py_ssize_t outer, Py_ssize_t inner
) noexcept:
    cdef int bits = length[outer]
    cdef uint64_t high = address[outer, 0] ^ address[inner, 0]
    cdef uint64_t low = address[outer, 1] ^ address[inner, 1]
    if length[inner] <= bits:
        return False
    if bits == 0:
        return True
    if bits <= 64:
        return high >> (64 - bits) == 0
    return high == 0 and (bits == 64 or low >> (128 - bits) == 0)

# Longest-prefix match: maps an address to the number of the longest prefix that contains it.
#
# The first two bytes of an address index a flat root of 65,536 cells. Below the root, each node decides one more byte
# with a table of 256 cells. A cell is a prefix number, or CHILD | the number of a node. Shorter prefixes are copied
# into every cell that they cover, so a look-up never goes back up.
#
#     IPv4   root[b0 b1] -> table[b2] -> table[b3]                  always three loads
#     IPv6   root[b0 b1] -> node -> node ...                        paths without a branch are skipped: a node
#                                                                   first compares the bytes that were skipped
#
# An IPv6 node with a single prefix has no table: it only compares the address with that prefix.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum:
    CHILD = 0x80000000
    NO_TABLE = 0xFFFFFFFF


cdef struct PathNode:       # 48 bytes
    uint64_t prefix[2]      # the bits that an address must have for this node to decide
    uint64_t mask[2]        # mask of the bits to compare
    uint32_t fallback       # the result if an address does not match
    uint32_t table          # index of the first of the node's 256 cells, or NO_TABLE
    uint32_t value          # the result of a node without a table
    uint32_t shift          # right shift for the deciding byte in its 64-bit half; plus 64 if that is the low half


cdef struct Trie:
    uint32_t* root          # 65,536 cells
    uint32_t* cells         # tables of 256 cells each; there is always a first cell
    PathNode* nodes         # IPv6 only; for IPv4 a node number is a table number


cdef inline const uint32_t* place_below(const Trie* trie, uint32_t cell, uint32_t byte) noexcept nogil:
    # Returns the place of the cell for a byte below another cell, or the first cell if nothing is below that cell.
    return &trie.cells[(cell << 8 | byte) & (0 - (cell >> 31))]


cdef inline uint32_t cell_below(const Trie* trie, uint32_t cell, uint32_t byte) noexcept nogil:
    # Returns the cell below, or the cell itself if nothing is below it. Branch-free, as the depth is unpredictable.
    cdef uint32_t below = 0 - (cell >> 31)
    return (place_below(trie, cell, byte)[0] & below) | (cell & ~below)


cdef inline const uint32_t* place_below_root(const Trie* trie, uint32_t address) noexcept nogil:
    return place_below(trie, trie.root[address >> 16], address >> 8 & 255)


cdef inline uint32_t find_ipv4(const Trie* trie, uint32_t address) noexcept nogil:
    return cell_below(trie, cell_below(trie, trie.root[address >> 16], address >> 8 & 255), address & 255)


cdef inline uint32_t find_ipv6(const Trie* trie, uint64_t high, uint64_t low) noexcept nogil:
    cdef uint32_t cell = trie.root[high >> 48]
    cdef const PathNode* node
    while cell & CHILD:
        node = &trie.nodes[cell & ~<uint32_t>CHILD]
        if ((high ^ node.prefix[0]) & node.mask[0]) | ((low ^ node.prefix[1]) & node.mask[1]):
            return node.fallback
        if node.table == NO_TABLE:
            return node.value
        if node.shift < 64:
            cell = trie.cells[node.table + ((high >> node.shift) & 255)]
        else:
            cell = trie.cells[node.table + ((low >> (node.shift - 64)) & 255)]
    return cell


cdef class CidrTrie:
    cdef Trie trie
    cdef bint ipv6
    cdef uint32_t table_count
    cdef uint32_t table_capacity
    cdef uint32_t node_count
    cdef uint32_t node_capacity
    cdef uint32_t whole_count       # `table_count` after the trie was last built from all prefixes
    cdef int copy_from(self, CidrTrie earlier) except -1
    cdef int build_root(
        self, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths, const uint32_t[::1] values,
        Py_ssize_t first, uint32_t end) except -1
    cdef int build_below(
        self, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths, const uint32_t[::1] values,
        Py_ssize_t changed, uint32_t background) except -1
    cdef uint32_t new_table(self, uint32_t fill) except? 0xFFFFFFFF
    cdef uint32_t new_node(self) except? 0xFFFFFFFF
    cdef uint32_t build_ipv4(
        self, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths, const uint32_t[::1] values,
        Py_ssize_t first, Py_ssize_t last, int depth, uint32_t inherited) except? 0xFFFFFFFF
    cdef uint32_t build_ipv6(
        self, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths, const uint32_t[::1] values,
        Py_ssize_t first, Py_ssize_t last, uint32_t inherited) except? 0xFFFFFFFF
    cdef int fill_cells(
        self, uint32_t table, const uint8_t[:, ::1] prefixes, const uint8_t[::1] lengths,
        const uint32_t[::1] values, Py_ssize_t first, Py_ssize_t last, int depth) except -1

"""The compiled rules as the data plane reads them. ``classifier.pxd`` explains how a rule is found."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

import numpy as np

from sgfast.core.base.intrinsics cimport be32, be64, prefetch
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport HeaderRow
from sgfast.core.classify.cidr_trie cimport place_below_root

cdef enum:
    LAST_RANK = 0x7FFFFFFF          # the rank of NO_RULE_WINS, behind all rules

#: Flag in ``choice``: the other bits are an index in ``lists``.
LIST_FLAG = <uint32_t>SEVERAL_TABLES

cdef const uint32_t* u32(const uint32_t[::1] rows) noexcept:
    return &rows[0] if rows.shape[0] else NULL


cdef const int32_t* i32(const int32_t[::1] rows) noexcept:
    return &rows[0] if rows.shape[0] else NULL


cdef const uint64_t* u64(const uint64_t[::1] rows) noexcept:
    return &rows[0] if rows.shape[0] else NULL


def narrow(numbers):
    """Return numbers from 0 to 4,294,967,295 as a contiguous array of uint16, or of uint32 if one of them needs it."""
    if numbers.dtype == np.uint16 and numbers.flags.c_contiguous:
        return numbers
    return np.ascontiguousarray(numbers, dtype=np.uint16 if numbers.max(initial=0) < 1 << 16 else np.uint32)


cdef const void* first_of(narrow_numbers) except? NULL:
    cdef const uint8_t[::1] view = narrow_numbers.view(np.uint8)
    return &view[0] if view.shape[0] else NULL


cdef bint is_wide(narrow_numbers) except -1:
    return narrow_numbers.itemsize == 4


cdef enum:
    LARGE = 512                 # a trie with more tables, of 1 KiB each, is too large for a core's cache
    MATCHED_AT_ONCE = 32        # headers
    LOOKED_UP_AT_ONCE = 256     # tables


cdef class RuleArrays:
    """The arrays of one rule table, as in ``RuleTable``. Later policies may share these arrays.

    ``peer_class`` and ``service_class``: return values of ``narrow``. ``cells``: for each cell, the number of the
    winning rule plus one; 0 for none. With bit vectors, which are uint64 of shape (classes, words), ``cells`` has the
    rule of each bit.
    """

    def __cinit__(self, peer_class, service_class, uint32_t services, cells, peer_rules=None, service_rules=None):
        if not len(peer_class) or not len(service_class):
            raise ValueError("a rule table has a class of addresses and one of ports")
        narrowed = narrow(peer_class), narrow(service_class), narrow(cells.reshape(-1))
        self.table.peer_class, self.table.wide_peers = first_of(narrowed[0]), is_wide(narrowed[0])
        self.table.service_class, self.table.wide_services = first_of(narrowed[1]), is_wide(narrowed[1])
        self.table.winner, self.table.wide_winners = first_of(narrowed[2]), is_wide(narrowed[2])
        self.table.address_classes, self.table.port_classes = len(peer_class), len(service_class)
        self.table.services = services
        self.has_bit_vectors = peer_rules is not None
        if self.has_bit_vectors:
            narrowed += peer_rules, service_rules
            self.table.words = peer_rules.shape[1]
            self.table.peer_rules = u64(peer_rules.reshape(-1))
            self.table.service_rules = u64(service_rules.reshape(-1))
        self.table.has_narrow_cells = not (self.has_bit_vectors or self.table.wide_peers or self.table.wide_services)
        self.table.is_small = self.table.has_narrow_cells and find_boxes(&self.table)
        self.kept = narrowed

    @property
    def is_small(self):
        return self.table.is_small

    @property
    def cells(self):
        """The constructor's ``cells`` as a flat narrow array, which must not be changed."""
        return self.kept[2]

    @property
    def sizes(self):
        """The size of each array in bytes, by its memory address, as tables may share arrays."""
        return {part.ctypes.data: part.nbytes for part in self.kept}


cdef enum:
    RUNS = 2 * BOXES + 1            # a table with more runs of equal classes is not small


cdef int runs_of(const uint16_t* of_class, uint32_t classes, uint32_t* starts) noexcept nogil:
    # Writes the start of each run of equal numbers, and the end of the last run. Returns the number of runs, or 0 if
    # there are more than RUNS.
    cdef int count = 0
    cdef uint32_t i
    for i in range(classes):
        if i == 0 or unlikely(of_class[i] != of_class[i - 1]):
            if count == RUNS:
                return 0
            starts[count] = i
            count += 1
    starts[count] = classes
    return count


cdef int add_box(RuleTable* table, int count, const Box* more) noexcept nogil:
    # Adds a box to the first `count` boxes, or extends a box with the same rule and services that ends where the new
    # one begins. Returns the number of boxes after that, which exceeds BOXES if the new box does not fit.
    cdef Box* box
    cdef int b
    for b in range(count):
        box = &table.boxes[b]
        if (
            box.rule == more.rule and box.first_service == more.first_service
            and box.more_services == more.more_services and box.first_peer + box.more_peers + 1 == more.first_peer
        ):
            box.more_peers += <uint16_t>(more.more_peers + 1)
            return count
    if count < BOXES:
        table.boxes[count] = more[0]
    return count + 1


cdef bint find_boxes(RuleTable* table) noexcept nogil:
    # Tries to cover all cells that have a rule with `boxes`. Returns whether there are enough boxes.
    cdef uint32_t peers[RUNS + 1]
    cdef uint32_t services[RUNS + 1]
    cdef int peer_runs, service_runs, p, s, end, b
    cdef int count = 0
    cdef Box box
    if table.address_classes > 65536 or table.port_classes > 65536:
        return False
    peer_runs = runs_of(<const uint16_t*>table.peer_class, table.address_classes, peers)
    service_runs = runs_of(<const uint16_t*>table.service_class, table.port_classes, services)
    if peer_runs == 0 or service_runs == 0:
        return False
    for p in range(peer_runs):
        s = 0
        while s < service_runs:
            box.rule = winner_at(table, cell_of(table, peers[p], services[s]))
            end = s + 1
            while end < service_runs and winner_at(table, cell_of(table, peers[p], services[end])) == box.rule:
                end += 1
            if box.rule >= 0:
                box.first_peer, box.more_peers = <uint16_t>peers[p], <uint16_t>(peers[p + 1] - peers[p] - 1)
                box.first_service = <uint16_t>services[s]
                box.more_services = <uint16_t>(services[end] - services[s] - 1)
                count = add_box(table, count, &box)
                if count > BOXES:
                    return False
            s = end
    for b in range(count, BOXES):
        table.boxes[b].rule = NO_RULE_WINS
    return True


cdef class Classifier:
    """The compiled rules, immutable. ``sgfast.rules.compiler`` builds them and defines what every number means.

    ``ipv4``, ``ipv6``: tries to address numbers; ``owner``: int32 and ``address_class``: uint32 by address number;
    ``port_whole``: uint32 (256,) and ``port_maps``: {protocol: narrow (65536,)}; ``address_origin`` and
    ``port_origin``: uint32 by class, the lower class that it was divided from, or itself; ``choice``: uint32
    (instances * 2,) and ``lists``: uint32, as ``Tables`` has them; ``tables``: a RuleArrays for each rule table;
    ``rank``: int32 and ``denies``: uint8 by rule; ``vpc``: int32 by instance; ``peers_start``, ``peers``: int32,
    adjacency of VPCs;
    ``stateless``: uint8 by instance, None if no instance is.
    """

    def __cinit__(
        self, CidrTrie ipv4 not None, CidrTrie ipv6 not None, owner, address_class, address_origin, port_whole,
        dict port_maps, port_origin, choice, lists, list tables, rank, denies, vpc, peers_start, peers, stateless=None
    ):
        cdef Py_ssize_t i
        cdef const uint8_t[::1] denies_rows
        cdef const uint8_t[::1] stateless_rows
        cdef const uint32_t[::1] whole_rows
        self.kept = []
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.tables.ipv4 = ipv4.trie
        self.tables.ipv6 = ipv6.trie
        self.tables.is_large = ipv4.table_count > LARGE
        self.tables.owner = i32(self.keep(owner, np.int32))
        self.tables.address_class = u32(self.keep(address_class, np.uint32))
        self.tables.address_origin = u32(self.keep(address_origin, np.uint32))
        self.tables.port_origin = u32(self.keep(port_origin, np.uint32))
        whole_rows = self.keep(port_whole, np.uint32)
        if len(whole_rows) != 256:
            raise ValueError("a class for each of 256 protocols")
        for i in range(256):
            self.tables.ports.whole[i] = whole_rows[i]
        for protocol, by_port in port_maps.items():
            by_port = narrow(by_port)
            if len(by_port) != 65536:
                raise ValueError("a port map has 65,536 entries")
            self.kept.append(by_port)
            self.tables.ports.by_port[protocol], self.tables.ports.wide[protocol] = first_of(by_port), is_wide(by_port)
        self.tables.choice = u32(self.keep(choice, np.uint32))
        self.tables.lists = u32(self.keep(lists, np.uint32))
        self.tables.rank = i32(self.keep(np.concatenate([[LAST_RANK], rank], dtype=np.int32), np.int32)) + 1
        self.tables.vpc = i32(self.keep(vpc, np.int32))
        self.tables.peers_start = i32(self.keep(peers_start, np.int32))
        self.tables.peers = i32(self.keep(peers, np.int32))
        denies = self.keep(denies, np.uint8)
        denies_rows = denies
        self.tables.denies = &denies_rows[0] if len(denies) else NULL
        self.rule_count = len(denies)
        self.instance_count = len(vpc)
        if stateless is not None and len(vpc):
            stateless = self.keep(stateless, np.uint8)
            if len(stateless) != len(vpc):
                raise ValueError("one byte for each instance")
            stateless_rows = stateless
            self.tables.stateless = &stateless_rows[0]
        self.tables.tables = <RuleTable*>allocate_pages(max(len(tables), 1) * sizeof(RuleTable))
        if self.tables.tables == NULL:
            raise MemoryError
        for i, arrays in enumerate(tables):
            self.tables.tables[i] = (<RuleArrays?>arrays).table
        self.rule_arrays = list(tables)

    def __dealloc__(self):
        free(self.tables.tables)

    def keep(self, rows, dtype):
        """Return ``rows`` as a flat contiguous array that lives as long as the classifier."""
        rows = np.ascontiguousarray(rows, dtype=dtype).reshape(-1)
        self.kept.append(rows)
        return rows

    @property
    def nbytes(self):
        """Memory of the tables, in bytes. Arrays that tables share count once."""
        sizes = {rows.ctypes.data: rows.nbytes for rows in self.kept}
        for arrays in self.rule_arrays:
            sizes.update(arrays.sizes)
        return self.ipv4.nbytes + self.ipv6.nbytes + sum(sizes.values())

    def owner_of(self, bytes address not None):
        """Return the number of the instance that owns ``address`` (4 or 16 bytes), or -1."""
        cdef CidrTrie trie = self.ipv6 if len(address) == 16 else self.ipv4
        return self.tables.owner[<uint32_t>trie.find(address)]

    def owners_of(self, peers, families):
        """Return the numbers of the instances that own addresses, as int32; -1 for an address without an owner.

        ``peers``: uint8 of shape (n, 16), IPv4 in the first four bytes. ``families``: uint8 of shape (n,); other
        families than 4 and 6 have no owner.
        """
        cdef const uint8_t[:, ::1] addresses = np.ascontiguousarray(peers)
        cdef const uint8_t[::1] family = np.ascontiguousarray(families)
        cdef CidrTrie trie4 = self.ipv4
        cdef CidrTrie trie6 = self.ipv6
        cdef Py_ssize_t n
        owners = np.full(len(peers), -1, dtype=np.int32)
        cdef int32_t[::1] owner_numbers = owners
        if addresses.shape[0] != family.shape[0] or addresses.shape[1] != 16:
            raise ValueError("not one address of 16 bytes for each family")
        for n in range(owner_numbers.shape[0]):
            if family[n] == 4:
                owner_numbers[n] = self.tables.owner[find_ipv4(&trie4.trie, be32(&addresses[n, 0]))]
            elif family[n] == 6:
                owner_numbers[n] = self.tables.owner[
                    find_ipv6(&trie6.trie, be64(&addresses[n, 0]), be64(&addresses[n, 8]))
                ]
        return owners

    def rule_for(self, int instance, bint inbound, bytes peer not None, uint8_t protocol, uint16_t port_key):
        """Return the number of the winning rule for an opener, or -1 (SPEC 4.8).

        ``port_key`` is the destination port, or ICMP type * 256 + code.
        """
        if not 0 <= instance < self.instance_count:
            raise IndexError("no such instance")
        cdef CidrTrie trie = self.ipv6 if len(peer) == 16 else self.ipv4
        return find_rule(
            &self.tables, self.tables.choice[instance * 2 + inbound], <uint32_t>trie.find(peer), protocol, port_key
        )

    def match(self, headers not None, winners not None):
        """Find the rules that would win if each packet were an opener, regardless of connections (SPEC 4.8).

        ``headers``: HEADER_DTYPE (n,). ``winners``: int32 (n, 2), filled with the rule numbers of the egress and the
        ingress side; -1 where no rule matches, -2 where there is no such side.
        """
        cdef Py_ssize_t n = len(headers)
        cdef Py_ssize_t i = 0
        cdef const uint8_t[::1] view
        cdef int32_t[:, ::1] out = winners
        cdef const HeaderRow* rows
        if n == 0:
            return
        if headers.dtype.itemsize != sizeof(HeaderRow) or not headers.flags.c_contiguous or winners.shape != (n, 2):
            raise ValueError("headers must be a contiguous array of HEADER_DTYPE, winners int32 with two columns")
        view = headers.view(np.uint8).reshape(-1)
        rows = <const HeaderRow*>&view[0]
        with nogil:
            while i < n:
                match_headers(&self.tables, &rows[i], min(n - i, <Py_ssize_t>MATCHED_AT_ONCE), &out[i, 0])
                i += MATCHED_AT_ONCE


cdef struct LookUp:                 # look-up of a packet's peer and service in one of an instance's tables
    const RuleTable* table
    uint32_t address_class
    uint32_t port_class
    const void* cell                # NULL: `winner_in` must find the winner
    int32_t* winner


cdef void match_headers(const Tables* t, const HeaderRow* rows, Py_ssize_t n, int32_t* winners) noexcept nogil:
    # Makes the look-ups in steps, so that the cache misses of one step overlap.
    cdef uint32_t ends[MATCHED_AT_ONCE][2]
    cdef LookUp small[LOOKED_UP_AT_ONCE]
    cdef LookUp others[LOOKED_UP_AT_ONCE]
    cdef const HeaderRow* row
    cdef const uint32_t* numbers
    cdef LookUp* look_up
    cdef int32_t instance
    cdef uint32_t address_class, port_class, choice, k
    cdef uint16_t port_key
    cdef Py_ssize_t small_count = 0
    cdef Py_ssize_t other_count = 0
    cdef Py_ssize_t i
    cdef int end
    if t.is_large:
        for i in range(n):
            # IPv6 rows do not need these cache lines, but loading them does no harm.
            prefetch(place_below_root(&t.ipv4, be32(rows[i].src)))
            prefetch(place_below_root(&t.ipv4, be32(rows[i].dst)))
    for i in range(n):
        row = &rows[i]
        if row.family == 6:
            ends[i][0] = find_ipv6(&t.ipv6, be64(row.src), be64(row.src + 8))
            ends[i][1] = find_ipv6(&t.ipv6, be64(row.dst), be64(row.dst + 8))
        else:
            ends[i][0] = find_ipv4(&t.ipv4, be32(row.src))
            ends[i][1] = find_ipv4(&t.ipv4, be32(row.dst))
        if t.is_large:
            prefetch(&t.owner[ends[i][0]])
            prefetch(&t.owner[ends[i][1]])
    for i in range(n):
        row = &rows[i]
        port_key = <uint16_t>(row.icmp_type << 8 | row.icmp_code) if row.has_icmp else row.dport
        port_class = find_port_class(&t.ports, row.protocol, port_key)
        for end in range(2):
            instance = t.owner[ends[i][end]]
            winners[2 * i + end] = -2
            if instance < 0:
                continue
            choice = t.choice[instance * 2 + end]
            address_class = t.address_class[ends[i][1 - end]]
            if not choice & SEVERAL_TABLES:
                winners[2 * i + end] = winner_in(t, &t.tables[choice], address_class, port_class)
                continue
            winners[2 * i + end] = NO_RULE_WINS
            numbers = t.lists + (choice & ~<uint32_t>SEVERAL_TABLES)
            for k in range(numbers[0] + numbers[1]):
                if k < numbers[0]:
                    if small_count == LOOKED_UP_AT_ONCE:
                        look_up_small(t, small, small_count)
                        small_count = 0
                    look_up = &small[small_count]
                    small_count += 1
                else:
                    if other_count == LOOKED_UP_AT_ONCE:
                        look_up_together(t, others, other_count)
                        other_count = 0
                    look_up = &others[other_count]
                    other_count += 1
                look_up.table = &t.tables[numbers[2 + k]]
                prefetch(look_up.table)
                look_up.address_class = address_class
                look_up.port_class = port_class
                look_up.winner = &winners[2 * i + end]
    look_up_small(t, small, small_count)
    look_up_together(t, others, other_count)


cdef inline void let_win(const Tables* t, int32_t* winner, int32_t rule) noexcept nogil:
    cdef int32_t best = winner[0]
    winner[0] = rule if t.rank[rule] < t.rank[best] else best


cdef void look_up_small(const Tables* t, const LookUp* waiting, Py_ssize_t n) noexcept nogil:
    cdef const LookUp* look_up
    cdef Py_ssize_t i
    for i in range(n):
        look_up = &waiting[i]
        let_win(t, look_up.winner, winner_in_boxes(t, look_up.table, look_up.address_class, look_up.port_class))


cdef void look_up_together(const Tables* t, LookUp* waiting, Py_ssize_t n) noexcept nogil:
    cdef LookUp* look_up
    cdef const RuleTable* table
    cdef int32_t rule
    cdef Py_ssize_t i
    for i in range(n):
        look_up = &waiting[i]
        table = look_up.table
        look_up.address_class = address_class_in(t, table, look_up.address_class)
        look_up.port_class = port_class_in(t, table, look_up.port_class)
        if likely(table.has_narrow_cells):
            prefetch(&(<const uint16_t*>table.peer_class)[look_up.address_class])
            prefetch(&(<const uint16_t*>table.service_class)[look_up.port_class])
    for i in range(n):
        look_up = &waiting[i]
        table = look_up.table
        look_up.cell = NULL
        if likely(table.has_narrow_cells):
            look_up.cell = cell_of(table, look_up.address_class, look_up.port_class)
            prefetch(look_up.cell)
    for i in range(n):
        look_up = &waiting[i]
        if likely(look_up.cell != NULL):
            rule = winner_at(look_up.table, look_up.cell)
        else:
            rule = winner_in(t, look_up.table, look_up.address_class, look_up.port_class)
        let_win(t, look_up.winner, rule)


def divide(of_class, Py_ssize_t count, list matching):
    """Divide joined classes until each of several sets of classes consists of whole joined classes.

    ``of_class``: uint32 (n,), the joined class of each class, below ``count``; it is changed in place. ``matching``:
    sets of different classes, as int64. Return three results: for each joined class, the one below ``count`` of which
    it is a part, as int64; the joined classes of the sets, one set after the other, as int32; and the number of joined
    classes of each set.
    """
    cdef uint32_t[::1] joined = of_class
    cdef const int64_t[::1] classes
    cdef Py_ssize_t room = max(joined.shape[0], count)      # there are never more joined classes than classes
    cdef int64_t[::1] sizes = np.bincount(of_class, minlength=room)
    cdef int64_t[::1] inside = np.zeros(room, dtype=np.int64)
    cdef int64_t[::1] origin = np.arange(room)
    cdef uint32_t[::1] touched = np.zeros(room, dtype=np.uint32)
    cdef uint32_t[::1] part = np.zeros(room, dtype=np.uint32)
    cdef Py_ssize_t i, n
    cdef uint32_t joined_class
    if sizes.shape[0] > room:
        raise ValueError("a joined class is too large")
    for classes in matching:
        n = 0
        for i in range(classes.shape[0]):
            if not 0 <= classes[i] < joined.shape[0]:
                raise IndexError("no such class")
            joined_class = joined[classes[i]]
            if inside[joined_class] == 0:
                touched[n] = joined_class
                n += 1
            inside[joined_class] += 1
        for i in range(n):
            joined_class = touched[i]
            part[joined_class] = joined_class
            if inside[joined_class] < sizes[joined_class]:
                part[joined_class] = <uint32_t>count
                origin[count] = origin[joined_class]
                sizes[count] = inside[joined_class]
                sizes[joined_class] -= inside[joined_class]
                count += 1
            inside[joined_class] = 0
        for i in range(classes.shape[0]):
            joined[classes[i]] = part[joined[classes[i]]]
    classes_of_sets = [np.zeros(0, dtype=np.int32)]
    for classes in matching:
        n = 0
        for i in range(classes.shape[0]):
            joined_class = joined[classes[i]]
            if inside[joined_class] == 0:
                inside[joined_class] = 1
                touched[n] = joined_class
                n += 1
        for i in range(n):
            inside[touched[i]] = 0
        classes_of_sets.append(np.array(touched[:n], dtype=np.int32))
    sizes_of_sets = [len(classes_of_set) for classes_of_set in classes_of_sets[1:]]
    return np.asarray(origin)[:count], np.concatenate(classes_of_sets), sizes_of_sets

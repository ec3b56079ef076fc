"""Network interfaces in flow logs: the addresses that all records of an interface share tell whose interface it is.

The own address of an interface is an end of each of its records. If it is the only one, the interface is known by it.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import numpy as np

from sgfast.core.base.intrinsics cimport be64, fold, load64
from sgfast.traffic.flow_logs.conversation_table cimport ConversationTable
from sgfast.clouds.logs.record_row cimport Row
from sgfast.traffic.flow_logs.openers cimport INTERFACES_SHOWN, NO_INTERFACE, UNUSED, Conversation
from sgfast.traffic.flow_logs.record_packets cimport NAT_GATEWAY, NS, OTHER_OWNER, Waiting

cdef enum:
    MOST_INTERFACES = 1 << 20       # as many as words are numbered
    MOST_TWINS = 1 << 10            # conversations of one end that are looked at
    NO_END = 0xFFFFFFFF
    NOT_LEFT_OUT = -1

# Clocks of interfaces differ by no more, and neither do the times of one packet in their records.
cdef int64_t NEARLY = 120 * <int64_t>NS
# Any odd numbers with many bits.
cdef uint64_t HOME_KEY = 0x9E3779B97F4A7C15
cdef uint64_t END_KEY = 0xD6E8FEB86659FD93

#: The words for Role.
ROLES = ("", "outside", "other-owner", "perhaps-other-owner")


cdef class Interfaces:
    """The interfaces of the records of ``table``. ``words``: their names by number, which may grow. ``owners``: the
    instances by address, as ``InterfaceOwners`` has them. None: nothing follows from an interface.
    """

    def __cinit__(self, ConversationTable table not None, words=(), owners=None):
        cdef int version
        self.table = table
        self.words = words
        self.owners = owners
        starts = [] if owners is None else list(owners.starts())
        for version in range(2):
            of_version = [start for start in starts if start[0] == (6 if version else 4)]
            self.starts[version] = <Start*>calloc(len(of_version) + 1, sizeof(Start))
            if self.starts[version] == NULL:
                raise MemoryError
            for _, address, is_owned in of_version:
                self.start_count[version] += 1
                self.starts[version][self.start_count[version]] = Start(
                    int.from_bytes(address[:8], "big"), int.from_bytes(address[8:], "big"), is_owned, False
                )

    def __dealloc__(self):
        free(self.interfaces)
        free(self.homes)
        free(self.starts[0])
        free(self.starts[1])
        self.forget_ends()

    # Records come in --------------------------------------------------------------------------------------------------

    cdef bint grow(self, Py_ssize_t number) noexcept nogil:
        # Makes room for an interface. Returns False if that is not possible.
        cdef Py_ssize_t capacity = max(2 * self.capacity, number + 1, 64)
        cdef Py_ssize_t i
        cdef Interface* grown
        if number >= MOST_INTERFACES:
            return False
        grown = <Interface*>realloc(self.interfaces, capacity * sizeof(Interface))
        if grown == NULL:
            return False
        memset(&grown[self.capacity], 0, (capacity - self.capacity) * sizeof(Interface))
        for i in range(self.capacity, capacity):
            grown[i].first_ns = INT64_MAX
        self.interfaces = grown
        self.capacity = capacity
        return True

    cdef void narrow(self, Interface* i, int version, const Row* row) noexcept nogil:
        # Keeps the addresses that may be the interface's own according to this record, too.
        cdef const uint8_t* src = &row.src[0]
        cdef const uint8_t* dst = &row.dst[0]
        cdef uint8_t* first = i.shared[version][0]
        cdef uint8_t* second = i.shared[version][1]
        cdef uint8_t kept[16]
        if i.count[version] == NO_RECORD:
            if row.direction == INGRESS:
                src = dst
            memcpy(first, src, 16)
            i.count[version] = 1
            if row.direction != EGRESS and not same_address(src, dst):
                memcpy(second, dst, 16)
                i.count[version] = 2
        elif i.count[version] == 1:
            i.count[version] = NONE_SHARED
        elif has_own(row, first):
            if has_own(row, second):
                return
            i.count[version] = 1
        elif has_own(row, second):
            memcpy(kept, second, 16)
            memcpy(second, first, 16)
            memcpy(first, kept, 16)
            i.count[version] = 1
        else:
            i.count[version] = NONE_SHARED
        i.is_changed = True
        self.is_changed = True

    cdef void note_ends(self, const Conversation* c) noexcept nogil:
        # Takes the ends of a conversation of which a record does not name its interface.
        cdef int version = c.family == 6
        self.start_of(c.ends, version).is_seen = True
        self.start_of(&c.ends[16], version).is_seen = True

    cdef Start* start_of(self, const uint8_t* address, int version) noexcept nogil:
        # Returns the start of the range that has the address. The first element is the start of all addresses.
        cdef Start* starts = self.starts[version]
        cdef uint64_t high = be64(address)
        cdef uint64_t low = be64(address + 8)
        cdef Py_ssize_t first = 0
        cdef Py_ssize_t last = self.start_count[version]
        cdef Py_ssize_t middle
        while first < last:
            middle = (first + last + 1) >> 1
            if starts[middle].high < high or (starts[middle].high == high and starts[middle].low <= low):
                first = middle
            else:
                last = middle - 1
        return &starts[first]

    # Interfaces are judged --------------------------------------------------------------------------------------------

    def judge(self):
        """Find out what the interfaces are, before records are released."""
        cdef Py_ssize_t number
        cdef Interface* i
        cdef int version
        self.forget_ends()
        if self.owners is None or not self.is_changed:
            return
        self.is_changed = False
        self.has_other_owners = self.has_outside = self.has_perhaps = False
        homes = {}
        for number in range(self.capacity):
            i = &self.interfaces[number]
            if i.count[0] == NO_RECORD and i.count[1] == NO_RECORD:
                continue
            word = self.words[number]
            for version in range(2):
                shared = self.shared_addresses(number, version)
                if i.is_changed:
                    dropped = i.shared[version][1][:16] if version else i.shared[version][1][:4]
                    i.role[version] = ROLES.index(self.owners.role(word, shared, dropped)) if shared else ORDINARY
                self.has_other_owners |= i.role[version] == OF_OTHER_OWNER
                self.has_outside |= i.role[version] == OUTSIDE
                self.has_perhaps |= i.role[version] == PERHAPS_OF_OTHER
                if shared and i.role[version] == ORDINARY and (own := self.owners.own_address(word, shared)):
                    address, is_sure = own
                    if is_sure or address not in homes:
                        homes[address] = (number, is_sure)
            i.is_changed = False
        self.keep_homes(homes)

    cdef int keep_homes(self, dict homes) except -1:
        # Makes a table of the own addresses, each with its interface and whether that is sure.
        cdef uint64_t mask = 1
        cdef uint64_t at
        cdef const uint8_t* bytes_of
        while mask < 2 * <uint64_t>len(homes):
            mask = 2 * mask + 1
        free(self.homes)
        self.homes = <Home*>calloc(mask + 1, sizeof(Home))
        if self.homes == NULL:
            raise MemoryError
        self.home_mask = mask
        for address, (interface, is_sure) in homes.items():
            padded = address.ljust(16, b"\0")
            bytes_of = padded
            at = place_of_home(bytes_of) & mask
            while self.homes[at].is_taken:
                at = (at + 1) & mask
            memcpy(self.homes[at].address, bytes_of, 16)
            self.homes[at].interface = interface
            self.homes[at].is_taken = True
            self.homes[at].is_sure = is_sure
        return 0

    cdef list shared_addresses(self, Py_ssize_t number, int version):
        # Returns the one or two addresses that all records of a version share; None or an empty list without any.
        cdef Interface* i = &self.interfaces[number]
        cdef int length = 16 if version else 4
        if i.count[version] == NO_RECORD:
            return None
        if i.count[version] == NONE_SHARED:
            return []
        return [i.shared[version][k][:length] for k in range(i.count[version])]

    # Records are released ---------------------------------------------------------------------------------------------

    cdef void look_at(self, const Waiting* waiting, Py_ssize_t count) noexcept nogil:
        # Looks at the conversations of records before the first of these is judged.
        cdef Conversation* c
        cdef Py_ssize_t i
        for i in range(count):
            c = &self.table.conversations[waiting[i].conversation]
            if c.alone == NOT_LOOKED:
                c.alone = <uint8_t>self.look(c, &waiting[i], c.family == 6)

    cdef int note_passed_on(self, const Waiting* waiting, Py_ssize_t count) except -1:
        # Counts the records that show that an interface is a NAT gateway's, although no client was logged. A gateway
        # sends each packet of a client on to another peer. Both records have the same server port, packets, bytes and
        # time.
        cdef Py_ssize_t n = 0
        cdef Py_ssize_t k
        cdef const Waiting* w
        cdef const Conversation* c
        cdef uint64_t[::1] keys
        cdef int32_t[::1] numbers
        cdef uint8_t[::1] with_client
        cdef int version, own_end
        cdef bint is_client
        if not self.has_outside:
            return 0
        key_array, number_array, client_array = (np.empty(count, kind) for kind in (np.uint64, np.int32, np.uint8))
        keys, numbers, with_client = key_array, number_array, client_array
        with nogil:
            for k in range(count):
                w = &waiting[k]
                if w.rejected or not 0 <= w.interface < self.capacity:
                    continue
                c = &self.table.conversations[w.conversation]
                version = c.family == 6
                if self.interfaces[w.interface].role[version] != OUTSIDE:
                    continue
                own_end = not same_address(self.interfaces[w.interface].shared[version][0], c.ends)
                is_client = self.start_of(&c.ends[16 * (1 - own_end)], version).is_owned
                keys[n] = place_of_passed(c, w, own_end if is_client else 1 - own_end)
                numbers[n], with_client[n] = w.interface, is_client
                n += 1
        of_clients = client_array[:n].astype(bool)
        passed_on = np.isin(key_array[:n], key_array[:n][~of_clients]) & of_clients
        for k in np.flatnonzero(of_clients):
            self.interfaces[numbers[k]].of_clients += 1
            self.interfaces[numbers[k]].passed_on += passed_on[k]
        return 0

    cdef int cause_of(self, Conversation* c, const Waiting* w) noexcept nogil:
        # Returns why a record is left out because of an interface, or NOT_LEFT_OUT.
        cdef int version = c.family == 6
        cdef int32_t other_interface
        if self.has_other_owners:
            other_interface = self.other_owner(c, w, version)
            if other_interface >= 0:
                self.interfaces[other_interface].left_out += w.is_record
                return OTHER_OWNER
        if c.alone == IS_ORDINARY or not 0 <= w.interface < self.capacity:
            return NOT_LEFT_OUT
        if c.alone == IS_TRANSLATED or (c.alone == IS_OUTSIDE and self.interfaces[w.interface].translated):
            self.interfaces[w.interface].left_out += w.is_record
            return NAT_GATEWAY
        if c.alone == IS_DOUBTFUL:
            self.interfaces[w.interface].doubtful += w.is_record
        return NOT_LEFT_OUT

    cdef int32_t other_owner(self, const Conversation* c, const Waiting* w, int version) noexcept nogil:
        # Returns the interface that had an address of this record's connection at the time, while it is an instance's
        # now; -1 if there is none.
        cdef const Interface* i
        cdef int32_t number = w.interface
        cdef int k
        if 0 <= number < self.capacity and self.interfaces[number].role[version] == OF_OTHER_OWNER:
            return number
        for k in range(INTERFACES_SHOWN):
            number = c.shown_by[k]
            if 0 <= number < self.capacity:
                i = &self.interfaces[number]
                if i.role[version] == OF_OTHER_OWNER and i.first_ns - NEARLY <= w.start_ns <= i.last_ns + NEARLY:
                    return number
        return -1

    cdef int look(self, const Conversation* c, const Waiting* w, int version) noexcept nogil:
        # Returns the value of `Conversation.alone`. A NAT gateway shows a client's connection again, with the gateway's
        # own address in the place of the peer's, and with the same ports.
        cdef Interface* i
        cdef const Home* home
        cdef int end
        if self.owners is None or not 0 <= w.interface < self.capacity:
            return IS_ORDINARY
        if self.has_perhaps and self.is_unexplained(c, version):
            return IS_DOUBTFUL
        if c.shown_by[1] != NO_INTERFACE:
            return IS_ORDINARY
        i = &self.interfaces[w.interface]
        if i.count[version] != 1:
            return IS_ORDINARY
        if same_address(i.shared[version][0], c.ends):
            end = 1
        elif same_address(i.shared[version][0], &c.ends[16]):
            end = 0
        else:
            return IS_ORDINARY
        home = self.home_of(&c.ends[16 * end])
        if home != NULL and home.interface != w.interface and self.has_twin(c, end, home, w):
            i.translated += 1
            return IS_TRANSLATED if i.role[version] == OUTSIDE else IS_DOUBTFUL
        if i.role[version] != OUTSIDE:
            return IS_ORDINARY
        if self.start_of(&c.ends[16 * end], version).is_owned:
            return IS_DOUBTFUL
        return IS_OUTSIDE

    cdef bint is_unexplained(self, const Conversation* c, int version) noexcept nogil:
        # Returns whether a conversation may be that of an instance's former owner: an interface shows it that may have
        # had the address before, and the instance's own interface does not show it.
        cdef const Home* home
        cdef bint is_shown
        cdef bint is_perhaps = False
        cdef int k, end
        for k in range(INTERFACES_SHOWN):
            if 0 <= c.shown_by[k] < self.capacity:
                is_perhaps |= self.interfaces[c.shown_by[k]].role[version] == PERHAPS_OF_OTHER
        if not is_perhaps:
            return False
        for end in range(2):
            home = self.home_of(&c.ends[16 * end])
            is_shown = False
            for k in range(INTERFACES_SHOWN):
                is_shown |= home != NULL and c.shown_by[k] == home.interface
            if not is_shown and self.start_of(&c.ends[16 * end], version).is_owned:
                return True
        return False

    cdef const Home* home_of(self, const uint8_t* address) noexcept nogil:
        cdef uint64_t at
        if self.homes == NULL:
            return NULL
        at = place_of_home(address) & self.home_mask
        while self.homes[at].is_taken:
            if same_address(self.homes[at].address, address):
                return &self.homes[at]
            at = (at + 1) & self.home_mask
        return NULL

    cdef bint has_twin(self, const Conversation* c, int end, const Home* home, const Waiting* w) noexcept nogil:
        # Returns whether the own interface of an end shows a connection with another peer, of the same ports and time.
        cdef const Conversation* twin
        cdef uint32_t number
        cdef int64_t first_ns
        cdef int steps = 0
        cdef int twin_end, way, k
        # A client takes another port for each connection, unless the protocol has none, or one for both ends.
        if not home.is_sure and c.ports[0] == c.ports[1]:
            return False
        if self.end_heads == NULL and not self.link_ends():
            return False
        number = self.end_heads[place_of_end(c, end) & self.end_mask]
        while number != NO_END and steps < MOST_TWINS:
            twin, twin_end = &self.table.conversations[number >> 1], number & 1
            number = self.end_links[number]
            steps += 1
            if (
                twin == c or twin.protocol != c.protocol or twin.vpc != c.vpc or twin.family != c.family
                or twin.ports[twin_end] != c.ports[end] or twin.ports[1 - twin_end] != c.ports[1 - end]
                or not same_address(&twin.ends[16 * twin_end], &c.ends[16 * end])
            ):
                continue
            first_ns = twin.last_ns
            for way in range(2):
                if twin.accepted >> way & 1:
                    first_ns = min(first_ns, twin.first_ns[way])
                if twin.rejected >> way & 1:
                    first_ns = min(first_ns, twin.refused_ns[way])
            if first_ns - NEARLY <= w.end_ns and w.start_ns <= twin.last_ns + NEARLY:
                for k in range(INTERFACES_SHOWN):
                    if twin.shown_by[k] == home.interface:
                        return True
        return False

    cdef bint link_ends(self) noexcept nogil:
        # Returns False if there is no memory.
        cdef uint32_t mask = 1
        cdef uint32_t n, end, at
        cdef const Conversation* c
        while mask < self.table.count:
            mask = 2 * mask + 1
        self.end_heads = <uint32_t*>malloc((<size_t>mask + 1) * sizeof(uint32_t))
        self.end_links = <uint32_t*>malloc((2 * <size_t>self.table.count + 1) * sizeof(uint32_t))
        if self.end_heads == NULL or self.end_links == NULL:
            self.forget_ends()
            return False
        self.end_mask = mask
        memset(self.end_heads, 0xFF, (<size_t>mask + 1) * sizeof(uint32_t))
        for n in range(self.table.count):
            c = &self.table.conversations[n]
            if c.pending == UNUSED or c.shown_by[0] == NO_INTERFACE:
                continue
            for end in range(2):
                at = <uint32_t>(place_of_end(c, end) & mask)
                self.end_links[2 * n + end] = self.end_heads[at]
                self.end_heads[at] = 2 * n + end
        return True

    cdef void forget_ends(self) noexcept nogil:
        free(self.end_heads)
        free(self.end_links)
        self.end_heads = self.end_links = NULL

    # The result -------------------------------------------------------------------------------------------------------

    @property
    def shared(self):
        """The addresses that all records of an interface share, of IPv4 and of IPv6, by the interface's word. None: it
        has no record of this version."""
        return {
            self.words[number]: (self.shared_addresses(number, 0), self.shared_addresses(number, 1))
            for number in range(self.capacity)
            if self.interfaces[number].count[0] != NO_RECORD or self.interfaces[number].count[1] != NO_RECORD
        }

    @property
    def ends_without_interface(self):
        """An address of each range of owners that has an end of a record without an interface."""
        return [
            (
                int(self.starts[version][n].high).to_bytes(8, "big")
                + int(self.starts[version][n].low).to_bytes(8, "big")
            )[:16 if version else 4]
            for version in range(2)
            for n in range(1, self.start_count[version] + 1)
            if self.starts[version][n].is_seen and self.starts[version][n].is_owned
        ]

    @property
    def noticed(self):
        """The interfaces that had an instance's address at another time, and NAT gateways: word, role, addresses, the
        records that were left out because of it, and the others about which it raises a doubt."""
        rows = []
        for number in range(self.capacity):
            left_out, doubtful = self.interfaces[number].left_out, self.interfaces[number].doubtful
            if not (left_out or doubtful):
                continue
            for version in range(2):
                role = ROLES[self.interfaces[number].role[version]]
                if self.interfaces[number].count[version] == 1 and is_gateway(&self.interfaces[number]):
                    role = "nat-gateway"
                if role not in ("", "outside"):
                    addresses = self.shared_addresses(number, version)
                    rows.append((self.words[number], role, addresses, left_out, doubtful))
                    break
        return rows


cdef inline bint is_gateway(const Interface* i) noexcept nogil:
    return i.translated > 0 or 2 * i.passed_on >= i.of_clients > 0


cdef inline uint64_t place_of_passed(const Conversation* c, const Waiting* w, int server) noexcept nogil:
    # Returns a hash that a record has in common with the one of the other connection of a NAT gateway.
    cdef uint64_t to_server = w.way != server
    cdef uint64_t service = <uint64_t>c.ports[server] << 16 | <uint64_t>c.protocol << 8 | to_server
    cdef uint64_t h = fold(w.packets ^ HOME_KEY, w.nbytes ^ END_KEY)
    h = fold(h ^ service * END_KEY, <uint64_t>w.interface ^ HOME_KEY)
    return fold(h ^ END_KEY, <uint64_t>(w.start_ns // NEARLY) ^ HOME_KEY)


cdef inline uint64_t place_of_home(const uint8_t* address) noexcept nogil:
    return fold(load64(address) ^ HOME_KEY, load64(address + 8) ^ END_KEY)


cdef inline uint64_t place_of_end(const Conversation* c, int end) noexcept nogil:
    cdef const uint8_t* address = &c.ends[16 * end]
    cdef uint64_t ports = <uint64_t>c.ports[end] << 32 | <uint64_t>c.ports[1 - end] << 16 | c.protocol
    return fold(load64(address) ^ END_KEY ^ ports * HOME_KEY, load64(address + 8) ^ HOME_KEY)

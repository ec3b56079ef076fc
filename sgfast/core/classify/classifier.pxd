# Finds the winning rule (SPEC 4.8 to 4.11) without testing single rules.
#
# For one instance and direction the local address is fixed, so a rule tests only two properties of a packet: the peer,
# and the protocol with the port. All other work is done before packets arrive:
#
#     peer address --trie--> address number --> owner (instance)
#                                           \-> address class     the same for all instances
#     protocol, port --------port map-------> port class           the same for all instances
#
#     per security group and direction ("rule table"):
#         address class -> peer class,  port class -> service class,  peer class x service class -> winning rule
#
# An instance in several groups has one table joined from the groups' tables, or several tables. Of several winners, the
# rule with the lowest rank wins.
#
# Many groups have only a few rules. A rule wins in one box or a few boxes. A box has all cells of some consecutive
# classes of addresses and some consecutive classes of ports. A small table has at most four boxes, in its first cache
# line. A look-up in a small table reads no other line of it.
#
# A product that is too large for a table is not stored. In its place each peer class and each service class has a
# bitset over the rules in order of precedence, and the first common bit wins (Lucent bit vectors).
#
# A later policy may divide classes. Tables do not change then: for a class that a table does not have, the look-up uses
# the earlier class from which that class was divided.
#
# The cost of a look-up does not depend on the number of rules. The memory does not depend on the number of instances or
# on their combinations of groups.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.base.intrinsics cimport ctz64, likely, unlikely
from sgfast.core.classify.cidr_trie cimport CidrTrie, Trie, find_ipv4, find_ipv6
from sgfast.core.classify.narrow cimport number_at, place_of
from sgfast.core.classify.port_map cimport PortMap, find_port_class

cdef enum:
    NO_RULE_WINS = -1
    SEVERAL_TABLES = 0x80000000     # flag in `choice`
    BOXES = 4


cdef struct Box:                    # a rectangle of a table's cells in which the same rule wins
    uint16_t first_peer             # an address class
    uint16_t more_peers             # number of address classes after `first_peer`
    uint16_t first_service          # a port class
    uint16_t more_services          # number of port classes after `first_service`
    int32_t rule


cdef struct RuleTable:              # two cache lines; a look-up in a small table reads only the first
    uint32_t address_classes        # number of classes in `peer_class`, at least one
    uint32_t port_classes
    uint8_t wide_peers              # whether `peer_class` is wide
    uint8_t wide_services
    uint8_t wide_winners
    uint8_t has_narrow_cells        # no bit vectors, and no wide classes: nearly always true
    uint8_t is_small                # whether `boxes` cover all cells that have a rule
    Box boxes[BOXES]
    # Three narrow arrays (narrow.pxd).
    const void* peer_class          # by address class
    const void* service_class       # by port class
    const void* winner              # rule number + 1, or 0: [peer class][service class]; with bit vectors: by bit
    const uint64_t* peer_rules      # bit vectors: [peer class][words]
    const uint64_t* service_rules   # [service class][words]
    uint32_t services               # number of service classes
    uint32_t words                  # 64-bit words of a bit vector; 0 without bit vectors
    uint64_t spare[2]


cdef struct Tables:
    Trie ipv4
    Trie ipv6
    bint is_large                   # whether `ipv4` is too large for a core's cache
    const int32_t* owner            # instance by address number, -1 for none
    const uint32_t* address_class   # by address number
    const uint32_t* address_origin  # by address class: the lower class that it was divided from, or itself
    PortMap ports
    const uint32_t* port_origin     # by port class
    # By instance * 2 + direction (1: inbound): an index in `tables`, or SEVERAL_TABLES | an index in `lists`. A list
    # begins with the number of its small tables and of its other tables; the indices of these follow in this order.
    const uint32_t* choice
    const uint32_t* lists
    RuleTable* tables
    const int32_t* rank             # by rule; the lowest wins (SPEC 4.10), and rank[NO_RULE_WINS] is the highest
    const uint8_t* denies           # by rule: whether its action is deny
    const int32_t* vpc              # by instance
    # By instance: whether its groups are stateless, so that its filter has rules but no connections. NULL: no group is.
    const uint8_t* stateless
    const int32_t* peers_start      # by VPC: index of its first peer in `peers`; one element more than VPCs
    const int32_t* peers


cdef inline bint is_stateless(const Tables* t, int32_t instance) noexcept nogil:
    return unlikely(t.stateless != NULL) and instance >= 0 and t.stateless[instance]


cdef inline uint32_t find_address(const Tables* t, bint ipv6, uint64_t high, uint64_t low) noexcept nogil:
    # Returns the address number. An IPv4 address is in the low 32 bits of `high`.
    if ipv6:
        return find_ipv6(&t.ipv6, high, low)
    return find_ipv4(&t.ipv4, <uint32_t>high)


cdef inline bint vpcs_connected(const Tables* t, int32_t instance_a, int32_t instance_b) noexcept nogil:
    # Whether two instances are in one VPC, or in two peered VPCs (SPEC 3.6).
    cdef int32_t a = t.vpc[instance_a]
    cdef int32_t b = t.vpc[instance_b]
    cdef int32_t i
    if a == b:
        return True
    for i in range(t.peers_start[a], t.peers_start[a + 1]):
        if t.peers[i] == b:
            return True
    return False


cdef inline uint32_t address_class_in(
    const Tables* t, const RuleTable* table, uint32_t address_class
) noexcept nogil:
    # Returns the class of the table that contains this class.
    while unlikely(address_class >= table.address_classes):
        address_class = t.address_origin[address_class]
    return address_class


cdef inline uint32_t port_class_in(const Tables* t, const RuleTable* table, uint32_t port_class) noexcept nogil:
    while unlikely(port_class >= table.port_classes):
        port_class = t.port_origin[port_class]
    return port_class


cdef inline int32_t winner_in_boxes(
    const Tables* t, const RuleTable* table, uint32_t address_class, uint32_t port_class
) noexcept nogil:
    # Call this only for a small table. The loop has no branch, because a processor cannot predict which box matches.
    # Unused boxes have the rule NO_RULE_WINS. They are compared first, so a used box that matches overrides their rule.
    cdef int32_t rule = NO_RULE_WINS
    cdef const Box* box
    cdef bint matches
    cdef int i
    address_class = address_class_in(t, table, address_class)
    port_class = port_class_in(t, table, port_class)
    for i in range(BOXES - 1, -1, -1):
        box = &table.boxes[i]
        matches = (address_class - box.first_peer <= box.more_peers) & (
            port_class - box.first_service <= box.more_services
        )
        rule = box.rule if matches else rule
    return rule


cdef inline const void* cell_of(const RuleTable* table, uint32_t address_class, uint32_t port_class) noexcept nogil:
    # Returns the place of a cell. The table must have narrow cells.
    return place_of(
        table.winner, table.wide_winners,
        (<const uint16_t*>table.peer_class)[address_class] * <uint64_t>table.services
        + (<const uint16_t*>table.service_class)[port_class]
    )


cdef inline int32_t winner_at(const RuleTable* table, const void* cell) noexcept nogil:
    return <int32_t>number_at(cell, table.wide_winners, 0) - 1


cdef inline int32_t winner_in(
    const Tables* t, const RuleTable* table, uint32_t address_class, uint32_t port_class
) noexcept nogil:
    cdef uint64_t peer, service, common
    cdef uint32_t word
    if table.is_small:
        return winner_in_boxes(t, table, address_class, port_class)
    address_class = address_class_in(t, table, address_class)
    port_class = port_class_in(t, table, port_class)
    if likely(table.has_narrow_cells):
        return winner_at(table, cell_of(table, address_class, port_class))
    peer = number_at(table.peer_class, table.wide_peers, address_class)
    service = number_at(table.service_class, table.wide_services, port_class)
    if table.words == 0:
        return winner_at(table, place_of(table.winner, table.wide_winners, peer * table.services + service))
    for word in range(table.words):
        common = table.peer_rules[peer * table.words + word] & table.service_rules[service * table.words + word]
        if common:
            return winner_at(table, place_of(table.winner, table.wide_winners, word * 64 + ctz64(common)))
    return NO_RULE_WINS


cdef inline int32_t find_rule(
    const Tables* t, uint32_t choice, uint32_t peer_address, uint8_t protocol, uint16_t port_key
) noexcept nogil:
    # Returns the winning rule's number, or NO_RULE_WINS.
    cdef uint32_t address_class = t.address_class[peer_address]
    cdef uint32_t port_class = find_port_class(&t.ports, protocol, port_key)
    cdef const uint32_t* numbers
    cdef int32_t rule
    cdef int32_t best = NO_RULE_WINS
    cdef uint32_t i
    if likely(not choice & SEVERAL_TABLES):
        return winner_in(t, &t.tables[choice], address_class, port_class)
    numbers = t.lists + (choice & ~<uint32_t>SEVERAL_TABLES)
    for i in range(2, numbers[0] + numbers[1] + 2):
        rule = winner_in(t, &t.tables[numbers[i]], address_class, port_class)
        best = rule if t.rank[rule] < t.rank[best] else best
    return best


cdef class RuleArrays:
    cdef RuleTable table
    cdef tuple kept                 # the arrays to which `table` has pointers
    cdef readonly bint has_bit_vectors


cdef class Classifier:
    cdef Tables tables
    cdef readonly Py_ssize_t instance_count
    cdef readonly Py_ssize_t rule_count
    cdef CidrTrie ipv4
    cdef CidrTrie ipv6
    cdef list rule_arrays
    cdef list kept                  # the arrays to which `tables` has pointers

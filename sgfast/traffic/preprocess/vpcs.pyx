"""Split packets by VPC: ``VpcMarks`` determines the VPC of a packet, ``Dealer`` makes one batch for each VPC."""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free

from sgfast.core.base.clock cimport CLOCK_END, MAX_LATE_NS, Clock, advance_clock
from sgfast.core.base.frames cimport FrameBatch
from sgfast.core.base.intrinsics cimport be16, be32, be64
from sgfast.core.classify.cidr_trie cimport CidrTrie, find_ipv4, find_ipv6
from sgfast.core.wire.link cimport find_tags
from sgfast.traffic.preprocess.ip_digest cimport find_ip_packet
from sgfast.traffic.preprocess.tunnels cimport is_vlan


cdef enum:
    # Instead of the number of the VPC that owns an address. Both are greater than any number.
    OWNED_BY_SEVERAL = 0x7FFFFFFE
    OWNED_BY_NONE = 0x7FFFFFFF

SEVERAL_VPCS, NO_VPC_OWNS = OWNED_BY_SEVERAL, OWNED_BY_NONE


cdef class VpcMarks:
    """The VPCs of ``vnis`` (24 bits) and ``vlans`` (12 bits), by number from 0. ValueError if a key is out of range."""

    def __cinit__(self, dict vnis not None, dict vlans not None):
        self.vni_count = len(vnis)
        self.vnis = <uint32_t*>calloc(max(len(vnis), 1), sizeof(uint32_t))
        self.vpc_of_vni = <uint32_t*>calloc(max(len(vnis), 1), sizeof(uint32_t))
        if self.vnis == NULL or self.vpc_of_vni == NULL:
            raise MemoryError
        for n, vni in enumerate(sorted(vnis)):
            if not 0 <= vni < 1 << 24:
                raise ValueError(f"a VNI has 24 bits, not {vni}")
            self.vnis[<Py_ssize_t>n] = vni
            self.vpc_of_vni[<Py_ssize_t>n] = vnis[vni] + 1
        for vlan, vpc in vlans.items():
            if not 0 <= vlan < 4096:
                raise ValueError(f"a VLAN has 12 bits, not {vlan}")
            self.vlans[<uint32_t>vlan] = vpc + 1

    def __dealloc__(self):
        free(self.vnis)
        free(self.vpc_of_vni)

    def add_owners(self, CidrTrie ipv4 not None, CidrTrie ipv6 not None, uint32_t without_ip, tuple of_nobody):
        """Let addresses name the VPC of packets that no mark names.

        Values of the tries, and ``of_nobody`` for IPv4 and IPv6 packets between addresses without an owner: the number
        of a VPC, ``SEVERAL_VPCS``, or in tries ``NO_VPC_OWNS``. ``without_ip``: the VPC of packets without an IP
        address.
        """
        self.ipv4, self.ipv6, self.without_ip = ipv4, ipv6, without_ip
        self.of_nobody[0], self.of_nobody[1] = of_nobody

    cdef uint32_t by_addresses(self, const Frame* frame) noexcept nogil:
        # Returns 0 if no end is owned in one VPC only. The answer is the same in both directions of a connection. Of
        # two VPCs, it is the first one: if they are peered, it sees both, and if not, 10.27 tells of it.
        cdef bint ipv6
        cdef uint32_t length, source, destination
        cdef const uint8_t* ip = find_ip_packet(frame, &ipv6, &length)
        if ip == NULL:
            return self.without_ip + 1
        if ipv6:
            source = find_ipv6(&self.ipv6.trie, be64(ip + 8), be64(ip + 16))
            destination = find_ipv6(&self.ipv6.trie, be64(ip + 24), be64(ip + 32))
        else:
            source = find_ipv4(&self.ipv4.trie, be32(ip + 12))
            destination = find_ipv4(&self.ipv4.trie, be32(ip + 16))
        cdef uint32_t owner = min(source, destination)
        if owner == OWNED_BY_NONE:
            owner = self.of_nobody[ipv6]
        return owner + 1 if owner < OWNED_BY_SEVERAL else 0

    cdef uint32_t by_vni(self, uint32_t vni) noexcept nogil:
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.vni_count
        cdef Py_ssize_t middle
        while low < high:
            middle = (low + high) // 2
            if self.vnis[middle] < vni:
                low = middle + 1
            else:
                high = middle
        return self.vpc_of_vni[low] if low < self.vni_count and self.vnis[low] == vni else 0

    cdef uint32_t by_vlan(self, const Frame* frame) noexcept nogil:
        # Returns the VPC of the innermost tag that maps to a VPC, or 0.
        cdef uint32_t at = 0
        cdef uint32_t ethertype = find_tags(frame, &at)
        cdef uint32_t innermost_vpc = 0
        cdef uint32_t vpc
        while is_vlan(ethertype) and at <= frame.captured and frame.captured - at >= 4:
            vpc = self.vlans[be16(frame.data + at) & 0xFFF]
            innermost_vpc = vpc if vpc else innermost_vpc
            ethertype = be16(frame.data + at + 2)
            at += 4
        return innermost_vpc


cdef class Dealer:
    """Split batches by ``Frame.vpc``: one part for each of ``vpcs`` VPCs, and one for frames without a VPC.

    All parts share one clock (SPEC 9.1), so a packet has the same engine time in its part as in the whole capture.
    """

    cdef Clock clock
    cdef readonly int64_t began_ns      # time of the first packet
    cdef uint32_t vpcs

    def __cinit__(self, uint32_t vpcs):
        self.vpcs = vpcs

    @property
    def times(self):
        """(first, last, late, most_late, restarts): range of the packets' own timestamps, None without packets; number
        of late packets, and the most that one was late, nanoseconds; restarts of the clock.
        """
        cdef Clock* clock = &self.clock
        if not clock.started:
            return None, None, 0, 0, 0
        return clock.earliest, max(clock.latest, clock.raw), clock.late, clock.most_late, clock.restarts

    @property
    def clock_state(self):
        """The state for ``go_on``, or None without packets.

        Its items are the current time, the timestamp that set it, the time of the first packet, the earliest and the
        latest timestamp, the number of late packets, the most that one was late, and the number of restarts.
        """
        cdef Clock* clock = &self.clock
        if not clock.started:
            return None
        return (
            clock.now, clock.raw, self.began_ns, clock.earliest, clock.latest, clock.late, clock.most_late,
            clock.restarts,
        )

    def go_on(self, state not None):
        """Continue from the ``clock_state`` of another dealer. Raises ValueError for an impossible state."""
        possible = all(-CLOCK_END <= time <= CLOCK_END for time in state[:5]) and min(state[5:]) >= 0
        if len(state) != 8 or not possible or state[6] > MAX_LATE_NS:
            raise ValueError("impossible clock state")
        self.clock.now, self.clock.raw, self.began_ns = state[:3]
        self.clock.earliest, self.clock.latest = state[3:5]
        self.clock.late, self.clock.most_late, self.clock.restarts = state[5:]
        self.clock.started = True

    def frames_before(self, FrameBatch batch not None, Py_ssize_t first, int64_t at_ns):
        """Count the frames from ``first`` on that come before ``at_ns`` on the clock, without advancing the clock."""
        cdef Clock clock = self.clock
        cdef Py_ssize_t i
        if first < 0:
            raise ValueError("no such frame")
        for i in range(first, batch.count):
            advance_clock(&clock, batch.frames[i].time_ns)
            if clock.now >= at_ns:
                return i - first
        return max(batch.count - first, 0)

    def deal(self, FrameBatch batch not None, Py_ssize_t first, Py_ssize_t number):
        """Split ``number`` frames from ``first`` on. Return a list of (VPC, batch, positions relative to ``first``).

        VPCs without frames are left out. The VPC is a number, or -1 for frames without a VPC. The parts share the bytes
        of ``batch``. The times of their frames are engine times.
        """
        cdef FrameBatch part
        cdef int64_t[::1] now
        cdef uint32_t[::1] of
        cdef Py_ssize_t[::1] order
        cdef Py_ssize_t i, at, end, number_of_vpc
        if first < 0 or number < 0 or number > batch.count - first:
            raise ValueError("no such frames")
        if number and not self.clock.started:
            advance_clock(&self.clock, batch.frames[first].time_ns)
            self.began_ns = self.clock.now
        now = np.empty(number, dtype=np.int64)
        of = vpcs = np.empty(number, dtype=np.uint32)
        for i in range(number):
            advance_clock(&self.clock, batch.frames[first + i].time_ns)
            now[i] = self.clock.now
            of[i] = batch.frames[first + i].vpc
            if of[i] > self.vpcs:
                raise ValueError("a frame has a VPC number that is out of range")
        order = places = np.argsort(vpcs, kind="stable")
        counts = np.bincount(vpcs, minlength=1)
        parts = []
        at = 0
        for vpc in np.flatnonzero(counts):
            number_of_vpc = counts[vpc]
            end = at + number_of_vpc
            part = FrameBatch(number_of_vpc)
            for i in range(at, end):
                part.frames[i - at] = batch.frames[first + order[i]]
                part.frames[i - at].time_ns = now[order[i]]
            part.count = number_of_vpc
            part.position_base = batch.position_base
            part.keep_alive = batch.keep_alive
            parts.append((int(vpc) - 1, part, places[at:end]))
            at = end
        return parts


def restore_times(FrameBatch part not None, FrameBatch batch not None, const Py_ssize_t[::1] where not None):
    """Set the times of a part's frames back to those in ``batch``; ``where`` holds their positions there."""
    cdef Py_ssize_t i
    if where.shape[0] != part.count:
        raise ValueError("there must be one position per frame")
    for i in range(part.count):
        if not 0 <= where[i] < batch.count:
            raise ValueError("no such frame")
        part.frames[i].time_ns = batch.frames[where[i]].time_ns


def own_times(FrameBatch batch not None, Py_ssize_t first, Py_ssize_t number):
    """Return the capture timestamps of ``number`` frames from ``first`` on, as an array of int64."""
    cdef int64_t[::1] times
    cdef Py_ssize_t i
    if first < 0 or number < 0 or number > batch.count - first:
        raise ValueError("no such frames")
    times_ns = np.empty(number, dtype=np.int64)
    times = times_ns
    for i in range(number):
        times[i] = batch.frames[first + i].time_ns
    return times_ns

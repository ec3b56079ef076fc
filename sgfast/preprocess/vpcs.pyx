"""Packets dealt out to VPCs: ``VpcMarks`` says to which one each belongs, ``Dealer`` makes a batch for each."""

import numpy as np

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free

from sgfast.core.base.clock cimport CLOCK_END, Clock, advance_clock
from sgfast.core.base.frames cimport FrameBatch
from sgfast.core.base.intrinsics cimport be16
from sgfast.core.wire.link cimport find_tags
from sgfast.preprocess.tunnels cimport is_vlan


cdef class VpcMarks:
    """``vnis``, ``vlans``: by number, the VPC's, from 0 on; VNIs have 24 bits, VLANs 12. ValueError for others."""

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
        # Of several tags the innermost that is some VPC's.
        cdef uint32_t at = 0
        cdef uint32_t ethertype = find_tags(frame, &at)
        cdef uint32_t found = 0
        cdef uint32_t vpc
        while is_vlan(ethertype) and at <= frame.captured and frame.captured - at >= 4:
            vpc = self.vlans[be16(frame.data + at) & 0xFFF]
            found = vpc if vpc else found
            ethertype = be16(frame.data + at + 2)
            at += 4
        return found


cdef class Dealer:
    """Deals the frames of batches out to ``vpcs`` VPCs and to nobody, by ``Frame.vpc``.

    Times are told by one clock (SPEC 9.1): whoever judges a part sees when its packets were among all.
    """

    cdef Clock clock
    cdef readonly int64_t began_ns      # the first packet's time
    cdef uint32_t vpcs

    def __init__(self, uint32_t vpcs):
        self.vpcs = vpcs

    @property
    def times(self):
        """(first, last) of the packets' own times, None without packets; how many were late, how many restarts."""
        if not self.clock.started:
            return None, None, 0, 0
        return (
            self.clock.earliest, max(self.clock.latest, self.clock.raw), self.clock.late, self.clock.restarts
        )

    @property
    def clock_state(self):
        """What to go on from (``go_on``): time it is, the packet's own that set it, the first one's, the earliest and
        the latest own ones; how many were late, how many restarts. None without packets.
        """
        cdef Clock* clock = &self.clock
        if not clock.started:
            return None
        return clock.now, clock.raw, self.began_ns, clock.earliest, clock.latest, clock.late, clock.restarts

    def go_on(self, state not None):
        """Goes on from the ``clock_state`` of another one. ValueError for one that cannot be."""
        if not all(-CLOCK_END <= time <= CLOCK_END for time in state[:5]) or min(state[5:]) < 0:
            raise ValueError("a clock that cannot be")
        self.clock.now, self.clock.raw, self.began_ns = state[:3]
        self.clock.earliest, self.clock.latest, self.clock.late, self.clock.restarts = state[3:]
        self.clock.started = True

    def frames_before(self, FrameBatch batch not None, Py_ssize_t first, int64_t at_ns):
        """How many frames from ``first`` on come before ``at_ns`` on the clock, which does not move."""
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
        """A list of (VPC, batch of its frames, where they stand after ``first``) for those that have some.

        The VPC is its number, or -1: nobody's. The frames' bytes are those of ``batch``, their times the clock's.
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
                raise ValueError("a frame is of a VPC that is none")
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
            part.keep_alive = batch.keep_alive
            parts.append((int(vpc) - 1, part, places[at:end]))
            at = end
        return parts


def restore_times(FrameBatch part not None, FrameBatch batch not None, const Py_ssize_t[::1] where not None):
    """Gives the frames of a part that was dealt their own times: those they have in ``batch``, from its first on."""
    cdef Py_ssize_t i
    if where.shape[0] != part.count:
        raise ValueError("as many places as there are frames")
    for i in range(part.count):
        if not 0 <= where[i] < batch.count:
            raise ValueError("no such frame")
        part.frames[i].time_ns = batch.frames[where[i]].time_ns


def own_times(FrameBatch batch not None, Py_ssize_t first, Py_ssize_t number):
    """The times of ``number`` frames from ``first`` on, as the capture says: an array of int64."""
    cdef int64_t[::1] times
    cdef Py_ssize_t i
    if first < 0 or number < 0 or number > batch.count - first:
        raise ValueError("no such frames")
    found = np.empty(number, dtype=np.int64)
    times = found
    for i in range(number):
        times[i] = batch.frames[first + i].time_ns
    return found

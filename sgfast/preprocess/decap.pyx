"""Tunnels, taken off frames: the packet inside is judged. What is a tunnel: ``tunnels.pxd``."""

from libc.stdint cimport uint32_t, uint64_t

from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.preprocess.tunnels cimport KIND_COUNT, NO_TUNNEL, NO_VNI, Kind, peel
from sgfast.preprocess.vpcs cimport VpcMarks

cdef enum:
    # Of one packet: a mirror's tunnel, the provider's, the tenant's, and one more. A bound there must be, or a frame
    # that is nothing but headers costs as much as thousands of packets.
    MOST = 4

MOST_TUNNELS = <int>MOST

#: In the order of ``tunnels.Kind``.
KINDS = ("vxlan", "geneve", "gre", "ipip", "6in4", "erspan", "gtp-u", "mpls", "pppoe")
assert len(KINDS) == <int>KIND_COUNT


cdef class Decapsulation:
    """Takes tunnels of the kinds named off frames, up to ``MOST_TUNNELS`` from each; ``names`` are of ``KINDS``.

    ValueError for a name that is none of them. ``counts``: how many tunnels of each kind were taken off so far;
    ``too_deep``: how many frames still had one inside when so many were off. ``marks``: also say in ``Frame.vpc`` whose
    each packet is: by the VNI of the innermost tunnel of which it is known, else by VLAN, the innermost known one, else
    as the reader said.
    """

    cdef uint32_t wanted
    cdef uint64_t peeled[<int>KIND_COUNT]
    cdef readonly uint64_t too_deep
    cdef VpcMarks marks

    def __init__(self, names, VpcMarks marks=None):
        self.marks = marks
        for name in names:
            if name not in KINDS:
                raise ValueError(f"{name!r} is no kind of tunnel: one of {', '.join(KINDS)}")
            self.wanted |= 1 << <uint32_t>KINDS.index(name)

    @property
    def counts(self):
        return {name: self.peeled[i] for i, name in enumerate(KINDS) if self.peeled[i]}

    def apply(self, FrameBatch batch not None):
        """Rewrites the batch's frames in place: data, lengths and link type. Times and order stay."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(batch.count):
                self.take_off(&batch.frames[i])

    cdef void take_off(self, Frame* frame) noexcept nogil:
        cdef bint marked = self.marks is not None
        cdef uint32_t by_vni = 0
        cdef uint32_t by_vlan = 0
        cdef uint32_t vni, vpc
        cdef Frame deeper
        cdef Kind kind
        cdef int n
        for n in range(MOST + 1):
            if marked:
                vpc = self.marks.by_vlan(frame)
                by_vlan = vpc if vpc else by_vlan
            if n == MOST:
                deeper = frame[0]
                self.too_deep += peel(&deeper, self.wanted, &vni) != NO_TUNNEL
                break
            kind = peel(frame, self.wanted, &vni)
            if kind == NO_TUNNEL:
                break
            self.peeled[<int>kind] += 1
            if marked and vni != NO_VNI:
                vpc = self.marks.by_vni(vni)
                by_vni = vpc if vpc else by_vni
        if marked:
            frame.vpc = by_vni if by_vni else by_vlan if by_vlan else frame.vpc

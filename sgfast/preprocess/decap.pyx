"""Remove tunnel headers from frames, so that the inner packet is judged. ``tunnels.pxd`` defines the tunnel kinds."""

from libc.stdint cimport uint32_t, uint64_t

from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.preprocess.tunnels cimport KIND_COUNT, NO_TUNNEL, NO_VNI, Kind, peel
from sgfast.preprocess.vpcs cimport VpcMarks

cdef enum:
    # Limit for the tunnels of one packet: one by a mirror, one by the provider, one by the tenant, and one in reserve.
    # Without a limit, a frame made of headers only would cost as much as thousands of packets.
    MOST = 4

MOST_TUNNELS = <int>MOST

#: The names of tunnel kinds, in the order of ``tunnels.Kind``.
KINDS = ("vxlan", "geneve", "gre", "ipip", "6in4", "erspan", "gtp-u", "mpls", "pppoe")
assert len(KINDS) == <int>KIND_COUNT


cdef class Decapsulation:
    """Remove tunnels of the kinds ``names`` (out of ``KINDS``) from frames, up to ``MOST_TUNNELS`` from each frame.

    Raises ValueError for an unknown name. ``counts``: tunnels removed so far, by kind. ``too_deep``: frames with more
    than ``MOST_TUNNELS`` tunnels. With ``marks``, ``apply`` also sets ``Frame.vpc``: to the VPC of the innermost tunnel
    with a known VNI, or else of the innermost known VLAN. If none is known, the value set by the reader stays.
    """

    cdef uint32_t wanted
    cdef uint64_t peeled[<int>KIND_COUNT]
    cdef readonly uint64_t too_deep
    cdef VpcMarks marks

    def __cinit__(self, names, VpcMarks marks=None):
        self.marks = marks
        for name in names:
            if name not in KINDS:
                raise ValueError(f"{name!r} is not a kind of tunnel: use {', '.join(KINDS)}")
            self.wanted |= 1 << <uint32_t>KINDS.index(name)

    @property
    def counts(self):
        return {name: self.peeled[i] for i, name in enumerate(KINDS) if self.peeled[i]}

    def apply(self, FrameBatch batch not None):
        """Rewrite data, lengths and link types of the batch's frames in place. Times and order do not change."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(batch.count):
                self.decapsulate(&batch.frames[i])

    cdef void decapsulate(self, Frame* frame) noexcept nogil:
        cdef bint marked = self.marks is not None
        cdef uint32_t by_vni = 0
        cdef uint32_t by_vlan = 0
        cdef uint32_t vni, vpc
        cdef Frame inner
        cdef Kind kind
        cdef int n
        for n in range(MOST + 1):
            if marked:
                vpc = self.marks.by_vlan(frame)
                by_vlan = vpc if vpc else by_vlan
            if n == MOST:
                inner = frame[0]
                self.too_deep += peel(&inner, self.wanted, &vni) != NO_TUNNEL
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

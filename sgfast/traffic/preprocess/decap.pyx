"""Remove tunnel headers from frames, so that the inner packet is judged. ``tunnels.pxd`` defines the tunnel kinds."""

from libc.stdint cimport uint32_t, uint64_t

from typing import get_args

from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.core.wire.next_header cimport ETHERTYPE_NONE, LINK_ETHERNET
from sgfast.traffic.preprocess.tunnels cimport (
    KIND_COUNT,
    MPLS,
    NO_TUNNEL,
    NO_VNI,
    VXLAN,
    Kind,
    ip_version_ethertype,
    looks_like_ethernet,
    peel,
)
from sgfast.traffic.preprocess.vpcs cimport VpcMarks

from sgfast.traffic.preprocess import TunnelKind

cdef enum:
    # Limit for the tunnels of one packet: one by a mirror, one by the provider, one by the tenant, and one in reserve.
    # Without a limit, a frame made of headers only would cost as much as thousands of packets.
    MOST = 4
    VXLAN_HAS_VNI = 8       # in the first byte of a VXLAN header, set in all (RFC 7348)
    # Packets at the beginning of which each one is looked at for tunnels. Later, one of LOOK_EVERY is.
    LOOKED_AT = 1 << 15
    LOOK_EVERY = 1 << 8

MOST_TUNNELS = <int>MOST
TUNNELS_LOOKED_AT = <int>LOOKED_AT
TUNNELS_LOOK_EVERY = <int>LOOK_EVERY

#: The names of tunnel kinds, in the order of ``tunnels.Kind``.
KINDS = get_args(TunnelKind)
assert len(KINDS) == <int>KIND_COUNT


cdef uint32_t kinds_in(names) except? 0:
    # The bits of these kinds. Raises ValueError for an unknown name.
    cdef uint32_t kind_bits = 0
    for name in names:
        if name not in KINDS:
            raise ValueError(f"{name!r} is not a kind of tunnel: use {', '.join(KINDS)}")
        kind_bits |= 1 << <uint32_t>KINDS.index(name)
    return kind_bits


cdef class Decapsulation:
    """Remove tunnels of the kinds ``names`` (out of ``KINDS``) from frames, up to ``MOST_TUNNELS`` from each frame.

    Raises ValueError for an unknown name. ``counts``: tunnels removed so far, by kind. ``too_deep``: frames with more
    than ``MOST_TUNNELS`` tunnels. With ``marks``, ``apply`` also sets ``Frame.vpc``: to the VPC of the innermost tunnel
    with a known VNI, or else of the innermost known VLAN. If none is known, the value set by the reader stays, or the
    addresses say it.
    """

    cdef uint32_t kinds
    cdef uint64_t peeled[<int>KIND_COUNT]
    cdef readonly uint64_t too_deep
    cdef VpcMarks marks

    def __cinit__(self, names, VpcMarks marks=None):
        self.marks = marks
        self.kinds = kinds_in(names)

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
        frame.cut_by_tunnel = False
        for n in range(MOST + 1):
            if marked:
                vpc = self.marks.by_vlan(frame)
                by_vlan = vpc if vpc else by_vlan
            if n == MOST:
                inner = frame[0]
                self.too_deep += peel(&inner, self.kinds, &vni) != NO_TUNNEL
                break
            kind = peel(frame, self.kinds, &vni)
            if kind == NO_TUNNEL:
                break
            self.peeled[<int>kind] += 1
            if marked and vni != NO_VNI:
                vpc = self.marks.by_vni(vni)
                by_vni = vpc if vpc else by_vni
        if marked:
            frame.vpc = by_vni if by_vni else by_vlan if by_vlan else frame.vpc
            if frame.vpc == 0 and self.marks.ipv4 is not None:
                frame.vpc = self.marks.by_addresses(frame)


cdef inline bint is_plausible(const Frame* inner, Kind kind) noexcept nogil:
    # Whether the content of a tunnel looks like a packet. The tunnel may be something else that has its port.
    if kind == VXLAN and not (inner.data - 8)[0] & VXLAN_HAS_VNI:
        return False
    if inner.link_type == LINK_ETHERNET:
        return looks_like_ethernet(inner.data, inner.captured)
    # Below MPLS labels in UDP, four bits alone say that there is IP. Many texts have them, but no length that fits.
    return inner.captured > 0 and ip_version_ethertype(inner.data[0]) != ETHERTYPE_NONE and not (
        kind == MPLS and inner.cut_by_tunnel
    )


cdef inline uint64_t sampled(uint64_t run) noexcept nogil:
    # The number of the packet that is looked at in a run of LOOK_EVERY packets. Its place in the run varies, as traffic
    # has periods.
    return run * LOOK_EVERY + (run * <uint64_t>0x9E3779B97F4A7C15 >> 40) % LOOK_EVERY


cdef class TunnelSample:
    """Count packets that are in tunnels of other kinds than ``removed``, by the outermost of these tunnels.

    ``looked_at``: packets that those stand for that were looked at. One that is looked at later than LOOKED_AT stands
    for LOOK_EVERY packets.
    """

    cdef uint32_t kinds
    cdef uint64_t packets_of_kind[<int>KIND_COUNT]
    cdef readonly uint64_t looked_at
    cdef uint64_t packets       # in all batches so far

    def __cinit__(self, removed):
        self.kinds = ~kinds_in(removed)

    @property
    def counts(self):
        return {name: self.packets_of_kind[i] for i, name in enumerate(KINDS) if self.packets_of_kind[i]}

    def look(self, FrameBatch batch not None):
        """Look at some packets of the next batch."""
        cdef uint64_t begin = self.packets
        cdef uint64_t end = begin + <uint64_t>batch.count
        cdef uint64_t number = begin
        with nogil:
            while number < min(end, <uint64_t>LOOKED_AT):
                self.look_at(&batch.frames[number - begin], 1)
                number += 1
            number = sampled(number // LOOK_EVERY)
            while number < end:
                if number >= max(begin, <uint64_t>LOOKED_AT):
                    self.look_at(&batch.frames[number - begin], LOOK_EVERY)
                number = sampled(number // LOOK_EVERY + 1)
        self.packets = end

    cdef void look_at(self, const Frame* frame, uint64_t packets) noexcept nogil:
        cdef Frame inner = frame[0]
        cdef uint32_t vni
        cdef Kind kind = peel(&inner, self.kinds, &vni)
        self.looked_at += packets
        if kind != NO_TUNNEL and is_plausible(&inner, kind):
            self.packets_of_kind[<int>kind] += packets

"""Tunnels, taken off frames: the packet inside is judged. What is a tunnel: ``tunnels.pxd``."""

from libc.stdint cimport uint32_t, uint64_t

from sgfast.core.frames cimport Frame, FrameBatch
from sgfast.stages.tunnels cimport KIND_COUNT, NO_TUNNEL, Kind, peel

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
    ``too_deep``: how many frames still had one inside when so many were off.
    """

    cdef uint32_t wanted
    cdef uint64_t peeled[<int>KIND_COUNT]
    cdef readonly uint64_t too_deep

    def __init__(self, names):
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
        cdef Frame deeper
        cdef Kind kind
        cdef int _
        for _ in range(MOST):
            kind = peel(frame, self.wanted)
            if kind == NO_TUNNEL:
                return
            self.peeled[<int>kind] += 1
        deeper = frame[0]
        if peel(&deeper, self.wanted) != NO_TUNNEL:
            self.too_deep += 1

# Which VPC a packet belongs to, by what marks it in a capture (SPEC 7.1).

from libc.stdint cimport uint32_t

from sgfast.core.base.frames cimport Frame


cdef class VpcMarks:
    cdef uint32_t vlans[4096]           # by VLAN: the VPC's number + 1, 0 for none; as in Frame.vpc
    cdef uint32_t* vnis                 # ascending
    cdef uint32_t* vpc_of_vni
    cdef Py_ssize_t vni_count

    cdef uint32_t by_vlan(self, const Frame* frame) noexcept nogil
    cdef uint32_t by_vni(self, uint32_t vni) noexcept nogil

# Determines the VPC of a packet by its VNI or VLAN (SPEC 7.1).

from libc.stdint cimport uint32_t

from sgfast.core.base.frames cimport Frame


cdef class VpcMarks:
    cdef uint32_t vlans[4096]           # by VLAN, as in Frame.vpc: number of the VPC plus 1, or 0 for none
    cdef uint32_t* vnis                 # sorted
    cdef uint32_t* vpc_of_vni
    cdef Py_ssize_t vni_count

    cdef uint32_t by_vlan(self, const Frame* frame) noexcept nogil
    cdef uint32_t by_vni(self, uint32_t vni) noexcept nogil

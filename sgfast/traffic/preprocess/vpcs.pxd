# Determines the VPC of a packet by its VNI, its VLAN or its addresses (SPEC 7.4).

from libc.stdint cimport uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.classify.cidr_trie cimport CidrTrie


cdef class VpcMarks:
    cdef uint32_t vlans[4096]           # by VLAN, as in Frame.vpc: number of the VPC plus 1, or 0 for none
    cdef uint32_t* vnis                 # sorted
    cdef uint32_t* vpc_of_vni
    cdef Py_ssize_t vni_count
    cdef CidrTrie ipv4                  # the VPC that owns each address; None: addresses name no VPC
    cdef CidrTrie ipv6
    cdef uint32_t without_ip            # the VPC of packets without addresses
    cdef uint32_t[2] of_nobody          # the VPC of IPv4 and IPv6 packets between addresses that no VPC owns

    cdef uint32_t by_vlan(self, const Frame* frame) noexcept nogil
    cdef uint32_t by_vni(self, uint32_t vni) noexcept nogil
    cdef uint32_t by_addresses(self, const Frame* frame) noexcept nogil

# Headers between the link header and IP: VLAN, MPLS and PPPoE tags, LLC, SNAP and PPP's protocol field. The functions
# follow the conventions of next_header.pxd.

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.intrinsics cimport be32
from sgfast.core.wire.next_header cimport (
    ETHERTYPE_CUT,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_NONE,
    LINK_ETHERNET,
    LONGEST_8023,
    NEXT_LINK,
    NEXT_PPP_PROTOCOL,
    holds,
    ip_version,
    read_ethertype,
    skip,
)

cdef enum:
    ETHERTYPE_VLAN = 0x8100
    ETHERTYPE_QINQ = 0x88A8
    ETHERTYPE_QINQ_OLD = 0x9100     # before 802.1ad
    ETHERTYPE_QINQ_OLDER = 0x9200
    ETHERTYPE_MPLS = 0x8847
    ETHERTYPE_MPLS_UPSTREAM = 0x8848
    ETHERTYPE_PPPOE_SESSION = 0x8864

    LLC_UNNUMBERED = 0x03           # control byte of an unnumbered frame, poll bit cleared
    LLC_POLL = 0x10
    SAP_IP = 0x06
    SAP_SNAP = 0xAA
    SAP_OSI = 0xFE

    OUI_ETHERNET = 0x000000
    OUI_BRIDGE_TUNNEL = 0x0000F8    # an EtherType follows, too (802.1H)
    OUI_BRIDGED = 0x0080C2          # a complete frame follows (RFC 2427, RFC 2684)
    BRIDGED_ETHERNET_FCS = 0x0001
    BRIDGED_ETHERNET = 0x0007
    ATM_BRIDGE_PAD = 2              # padding bytes before a frame bridged over ATM

    NLPID_SNAP = 0x80
    NLPID_IPV6 = 0x8E
    NLPID_IPV4 = 0xCC
    NLPID_PPP = 0xCF


cdef inline uint32_t read_snap(const Frame* frame, uint32_t* at, uint32_t bridge_pad) noexcept nogil:
    # 0 OUI (3 bytes) | 3 protocol u16
    cdef uint32_t oui
    cdef uint32_t protocol = read_ethertype(frame, at, 3, 5)
    if protocol == ETHERTYPE_CUT:
        return ETHERTYPE_CUT
    oui = be32(frame.data + at[0] - 5) >> 8
    if oui == OUI_ETHERNET or oui == OUI_BRIDGE_TUNNEL:
        return protocol
    if oui == OUI_BRIDGED and (protocol == BRIDGED_ETHERNET or protocol == BRIDGED_ETHERNET_FCS):
        at[0] += bridge_pad
        return NEXT_LINK | LINK_ETHERNET
    return ETHERTYPE_NONE


cdef inline uint32_t read_nlpid(const Frame* frame, uint32_t* at, uint32_t bridge_pad) noexcept nogil:
    # 0 NLPID, OSI's network layer protocol identifier (RFC 2427)
    cdef uint8_t nlpid
    if not holds(frame, at[0], 1):
        return ETHERTYPE_CUT
    nlpid = frame.data[at[0]]
    at[0] += 1
    if nlpid == NLPID_IPV4:
        return ETHERTYPE_IPV4
    if nlpid == NLPID_IPV6:
        return ETHERTYPE_IPV6
    if nlpid == NLPID_SNAP:
        return read_snap(frame, at, bridge_pad)
    if nlpid == NLPID_PPP:
        return NEXT_PPP_PROTOCOL
    return ETHERTYPE_NONE


cdef inline uint32_t read_llc(const Frame* frame, uint32_t* at, uint32_t bridge_pad) noexcept nogil:
    # 0 destination SAP | 1 source SAP | 2 control
    cdef const uint8_t* header = frame.data + at[0]
    if not holds(frame, at[0], 3):
        return ETHERTYPE_CUT
    at[0] += 3
    if header[0] != header[1] or header[2] & ~LLC_POLL != LLC_UNNUMBERED:
        return ETHERTYPE_NONE
    if header[0] == SAP_SNAP:
        return read_snap(frame, at, bridge_pad)
    if header[0] == SAP_IP:
        return ETHERTYPE_IPV4
    if header[0] == SAP_OSI:
        return read_nlpid(frame, at, bridge_pad)
    return ETHERTYPE_NONE


cdef inline uint32_t read_mpls(const Frame* frame, uint32_t* at, uint32_t ethertype) noexcept nogil:
    # Reads one label. MPLS has no protocol field, so after the last label the first byte of the payload decides.
    cdef uint32_t start = at[0]
    if not holds(frame, start, 4):
        return ETHERTYPE_CUT
    at[0] = start + 4
    return ip_version(frame, start + 4, ETHERTYPE_NONE) if frame.data[start + 2] & 1 else ethertype


cdef inline uint32_t read_ppp_protocol(const Frame* frame, uint32_t* at) noexcept nogil:
    # The field has two bytes, or only one (compressed, RFC 1661) if the first byte is odd.
    cdef uint32_t start = at[0]
    cdef uint32_t protocol
    if not holds(frame, start, 1):
        return ETHERTYPE_CUT
    protocol = frame.data[start]
    if protocol & 1:
        at[0] = start + 1
    else:
        protocol = read_ethertype(frame, at, 0, 2)
        if protocol == ETHERTYPE_CUT:
            return ETHERTYPE_CUT
    if protocol == 0x0021:
        return ETHERTYPE_IPV4
    if protocol == 0x0057:
        return ETHERTYPE_IPV6
    if protocol == 0x0281 or protocol == 0x0283:
        return ETHERTYPE_MPLS
    return ETHERTYPE_NONE


cdef inline uint32_t read_tag(const Frame* frame, uint32_t* at, uint32_t ethertype) noexcept nogil:
    if ethertype == ETHERTYPE_VLAN or ethertype == ETHERTYPE_QINQ:
        return read_ethertype(frame, at, 2, 4)
    if ethertype == ETHERTYPE_QINQ_OLD or ethertype == ETHERTYPE_QINQ_OLDER:
        return read_ethertype(frame, at, 2, 4)
    if ethertype == ETHERTYPE_MPLS or ethertype == ETHERTYPE_MPLS_UPSTREAM:
        return read_mpls(frame, at, ethertype)
    if ethertype == ETHERTYPE_PPPOE_SESSION:
        return skip(frame, at, 6, NEXT_PPP_PROTOCOL)
    if ethertype <= LONGEST_8023:
        return read_llc(frame, at, 0)
    return ETHERTYPE_NONE

"""The table of link types, and the loop that walks from header to header until it reaches IP.

This is a module of its own and not inlined: the common case, IP directly in Ethernet, never gets here.
"""

from libc.stdint cimport uint32_t

from sgfast.core.wire.capture_headers cimport (
    read_cooked,
    read_cooked_2,
    read_enc,
    read_erf,
    read_ipnet,
    read_juniper_ethernet,
    read_loop,
    read_nflog,
    read_null,
    read_pflog,
    read_pktap,
    read_ppi,
)
from sgfast.core.wire.ieee80211 cimport read_80211, read_avs, read_data_frame, read_prism, read_radiotap
from sgfast.core.wire.link_headers cimport (
    read_arcnet,
    read_arcnet_linux,
    read_atm,
    read_c_hdlc,
    read_directed_c_hdlc,
    read_directed_frame_relay,
    read_directed_ppp,
    read_docsis,
    read_ethernet,
    read_fddi,
    read_fibre_channel,
    read_firewire,
    read_frame_relay,
    read_infiniband,
    read_long_tagged_ethernet,
    read_multilink_frame_relay,
    read_ppp,
    read_pppd,
    read_prepended_tag,
    read_raw,
    read_raw_ipv4,
    read_raw_ipv6,
    read_raw_mpls,
    read_raw_pppoe,
    read_slip,
    read_slip_bsdos,
    read_sunatm,
    read_tagged_ethernet,
    read_token_ring,
)
from sgfast.core.wire.next_header cimport (
    ETHERTYPE_CUT,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_NONE,
    LONGEST_8023,
    NEXT_80211_PADDED,
    NEXT_LINK,
    NEXT_LLC,
    NEXT_PPP_PROTOCOL,
    HeaderReader,
    holds,
)
from sgfast.core.wire.tags cimport read_llc, read_ppp_protocol, read_tag


cdef enum:
    HIGHEST_LINK_TYPE = 511     # the last row of the table

    # Limit for headers and tags before IP, including the outermost header. A frame with more is malformed: extra
    # wrapping must not get a packet past the filter. Linux pushes at most 30 MPLS labels at once, and combinations of
    # radio, tunnel and bridge headers need five or six.
    MAX_HEADERS = 40


cdef struct LinkType:
    HeaderReader reader     # NULL: not supported
    uint32_t min_length     # bytes; with fewer captured, the reader is not called
    LinkKind kind
    uint32_t alias_of       # the LINKTYPE_ number that this number stands for, or 0


cdef LinkType link_types[HIGHEST_LINK_TYPE + 1]

#: Names for messages, of the link types that occur in practice.
LINK_TYPE_NAMES = {}


def link_type_name(link_type):
    """``LINKTYPE_RAW (101)``, or just the number if the link type has no name here."""
    name = LINK_TYPE_NAMES.get(link_type)
    return f"LINKTYPE_{name} ({link_type})" if name else str(link_type)


cdef LinkType* _row(uint32_t number) except NULL:
    if number > HIGHEST_LINK_TYPE:
        raise ValueError(f"the table has no room for link type {number}")
    if link_types[number].kind != LINK_UNKNOWN or link_types[number].alias_of:
        raise ValueError(f"the table has link type {number} twice")
    return &link_types[number]


cdef int _with_ip(uint32_t number, str name, uint32_t min_length, HeaderReader reader, uint32_t alias_of=0) except -1:
    cdef LinkType* row = _row(number)
    row.reader = reader
    row.min_length = min_length
    row.kind = LINK_WITH_IP
    row.alias_of = alias_of
    if name is not None:
        LINK_TYPE_NAMES[number] = name
    return 0


cdef int _without_ip(uint32_t number, str name) except -1:
    _row(number).kind = LINK_WITHOUT_IP
    LINK_TYPE_NAMES[number] = name
    return 0


cdef int _unsupported(uint32_t number, str name) except -1:
    _row(number)
    LINK_TYPE_NAMES[number] = name
    return 0


# The link types known here (www.tcpdump.org/linktypes.html): LINKTYPE_ number, name, minimum header length and reader.

_with_ip(0, "NULL", 4, read_null)
_with_ip(1, "ETHERNET", 14, read_ethernet)
_with_ip(6, "IEEE802_5", 14, read_token_ring)
_with_ip(7, "ARCNET_BSD", 3, read_arcnet)
_with_ip(8, "SLIP", 16, read_slip)
_with_ip(9, "PPP", 2, read_ppp)
_with_ip(10, "FDDI", 13, read_fddi)
_with_ip(50, "PPP_HDLC", 2, read_ppp)
_with_ip(51, "PPP_ETHER", 0, read_raw_pppoe)
_with_ip(100, "ATM_RFC1483", 3, read_atm)
_with_ip(101, "RAW", 0, read_raw)
_with_ip(102, "SLIP_BSDOS", 24, read_slip_bsdos)
_with_ip(104, "C_HDLC", 4, read_c_hdlc)
_with_ip(105, "IEEE802_11", 2, read_80211)
_with_ip(106, "ATM_CLIP", 3, read_atm)
_with_ip(107, "FRELAY", 3, read_frame_relay)
_with_ip(108, "LOOP", 4, read_loop)
_with_ip(109, "ENC", 12, read_enc)
_with_ip(113, "LINUX_SLL", 16, read_cooked)
_with_ip(117, "PFLOG", 4, read_pflog)
_with_ip(119, "IEEE802_11_PRISM", 8, read_prism)
_with_ip(122, "IP_OVER_FC", 16, read_fibre_channel)
_with_ip(123, "SUNATM", 4, read_sunatm)
_with_ip(127, "IEEE802_11_RADIOTAP", 8, read_radiotap)
_with_ip(129, "ARCNET_LINUX", 5, read_arcnet_linux)
_with_ip(138, "APPLE_IP_OVER_IEEE1394", 18, read_firewire)
_with_ip(143, "DOCSIS", 6, read_docsis)
_with_ip(163, "IEEE802_11_AVS", 8, read_avs)
_with_ip(166, "PPP_PPPD", 2, read_pppd)
_with_ip(178, "JUNIPER_ETHER", 4, read_juniper_ethernet)
_with_ip(182, "MFR", 2, read_multilink_frame_relay)
_with_ip(192, "PPI", 8, read_ppi)
_with_ip(197, "ERF", 16, read_erf)
_with_ip(204, "PPP_WITH_DIR", 1, read_directed_ppp)
_with_ip(205, "C_HDLC_WITH_DIR", 1, read_directed_c_hdlc)
_with_ip(206, "FRELAY_WITH_DIR", 1, read_directed_frame_relay)
_with_ip(219, "MPLS", 0, read_raw_mpls)
_with_ip(226, "IPNET", 24, read_ipnet)
_with_ip(228, "IPV4", 0, read_raw_ipv4)
_with_ip(229, "IPV6", 0, read_raw_ipv6)
_with_ip(239, "NFLOG", 4, read_nflog)
_with_ip(242, "IPOIB", 44, read_infiniband)
_with_ip(258, "PKTAP", 12, read_pktap)
_with_ip(276, "LINUX_SLL2", 20, read_cooked_2)
_with_ip(281, "DSA_TAG_BRCM", 18, read_tagged_ethernet)
_with_ip(282, "DSA_TAG_BRCM_PREPEND", 4, read_prepended_tag)
_with_ip(284, "DSA_TAG_DSA", 18, read_tagged_ethernet)
_with_ip(285, "DSA_TAG_EDSA", 22, read_long_tagged_ethernet)

# On some systems libpcap writes its own DLT_ numbers. Those for raw IP also occur inside frames (PKTAP).
_with_ip(12, None, 0, read_raw, alias_of=101)
_with_ip(14, None, 0, read_raw, alias_of=101)
_row(11).alias_of = 100
_row(19).alias_of = 106

# Telephone signalling, serial and field buses, USB, Bluetooth, CAN, and sockets other than IP.
_without_ip(114, "LTALK")
_without_ip(139, "MTP2_WITH_PHDR")
_without_ip(140, "MTP2")
_without_ip(141, "MTP3")
_without_ip(142, "SCCP")
_without_ip(144, "LINUX_IRDA")
_without_ip(165, "BACNET_MS_TP")
_without_ip(177, "LINUX_LAPD")
_without_ip(186, "USB")
_without_ip(187, "BLUETOOTH_HCI_H4")
_without_ip(189, "USB_LINUX")
_without_ip(190, "CAN20B")
_without_ip(201, "BLUETOOTH_HCI_H4_WITH_PHDR")
_without_ip(220, "USB_LINUX_MMAPPED")
_without_ip(227, "CAN_SOCKETCAN")
_without_ip(231, "DBUS")
_without_ip(248, "SCTP")
_without_ip(249, "USBPCAP")
_without_ip(251, "BLUETOOTH_LE_LL")
_without_ip(253, "NETLINK")
_without_ip(254, "BLUETOOTH_LINUX_MONITOR")
_without_ip(255, "BLUETOOTH_BREDR_BB")
_without_ip(256, "BLUETOOTH_LE_LL_WITH_PHDR")
_without_ip(265, "ISO_14443")
_without_ip(266, "USB_DARWIN")
_without_ip(271, "VSOCK")
_without_ip(272, "NORDIC_BLE")
_without_ip(288, "USB_2_0")

# Link types with unknown content, or with IP that no reader here can find.
_unsupported(3, "AX25")
for _number in range(16):
    _unsupported(147 + _number, f"USER{_number}")
_unsupported(169, "GPRS_LLC")
_unsupported(195, "IEEE802_15_4_WITHFCS")
_unsupported(224, "FC_2")
_unsupported(230, "IEEE802_15_4_NOFCS")
_unsupported(240, "NETANALYZER")
_unsupported(247, "INFINIBAND")
_unsupported(252, "WIRESHARK_UPPER_PDU")
_unsupported(283, "IEEE802_15_4_TAP")


#: LINKTYPE_ numbers that are supported, and those whose frames never hold IP, for callers in Python.
LINK_TYPES = tuple([number for number in range(HIGHEST_LINK_TYPE + 1) if link_types[number].kind == LINK_WITH_IP])
LINK_TYPES_WITHOUT_IP = tuple(
    [number for number in range(HIGHEST_LINK_TYPE + 1) if link_types[number].kind == LINK_WITHOUT_IP]
)
#: Minimum header length by supported link type; a shorter frame is malformed.
MIN_HEADER_LENGTHS = {number: link_types[number].min_length for number in LINK_TYPES}


cdef uint32_t canonical_link_type(uint32_t number) noexcept nogil:
    cdef uint32_t alias_of = link_types[number].alias_of if number <= HIGHEST_LINK_TYPE else 0
    return alias_of if alias_of else number


cdef LinkKind kind_of_link(uint32_t link_type) noexcept nogil:
    return link_types[link_type].kind if link_type <= HIGHEST_LINK_TYPE else LINK_UNKNOWN


cdef uint32_t read_link(const Frame* frame, uint32_t* at, uint32_t number) noexcept nogil:
    cdef const LinkType* row
    if number > HIGHEST_LINK_TYPE:
        return ETHERTYPE_NONE
    row = &link_types[number]
    if row.reader == NULL:
        return ETHERTYPE_NONE
    return row.reader(frame, at) if holds(frame, at[0], row.min_length) else <uint32_t>ETHERTYPE_CUT


cdef uint32_t find_ip(const Frame* frame, uint32_t* offset) noexcept nogil:
    return walk(frame, offset, False)


cdef uint32_t find_tags(const Frame* frame, uint32_t* offset) noexcept nogil:
    return walk(frame, offset, True)


cdef uint32_t walk(const Frame* frame, uint32_t* offset, bint to_tags) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t headers = 0
    cdef uint32_t header = NEXT_LINK | frame.link_type if frame.link_type <= 0xFFFF else <uint32_t>ETHERTYPE_NONE
    while True:
        if at > frame.captured:
            return ETHERTYPE_CUT
        if header == ETHERTYPE_IPV4 or header == ETHERTYPE_IPV6 or (to_tags and LONGEST_8023 < header < ETHERTYPE_NONE):
            offset[0] = at
            return header
        if header == ETHERTYPE_NONE or header == ETHERTYPE_CUT:
            return header
        if headers == MAX_HEADERS:
            return ETHERTYPE_CUT
        headers += 1
        if header < ETHERTYPE_NONE:
            header = read_tag(frame, &at, header)
        elif header == NEXT_LLC:
            header = read_llc(frame, &at, 0)
        elif header == NEXT_PPP_PROTOCOL:
            header = read_ppp_protocol(frame, &at)
        elif header == NEXT_80211_PADDED:
            header = read_data_frame(frame, &at, True)
        else:
            header = read_link(frame, &at, header & 0xFFFF)

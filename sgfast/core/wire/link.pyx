"""The table of link types, and the loop that walks from header to header until it reaches IP.

This module is separate and not inlined: the common case, IP directly in Ethernet, does not need it.
"""

from libc.stdint cimport uint32_t

from sgfast.core.base.frames cimport LINK_RECORD, RecordCounts
from sgfast.core.base.intrinsics cimport be16
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
    read_docsis,
    read_ethernet,
    read_fddi,
    read_frame_relay,
    read_multilink_frame_relay,
    read_ppp,
    read_sunatm,
    read_token_ring,
)
from sgfast.core.wire.next_header cimport (
    ETHERTYPE_AT,
    ETHERTYPE_CUT,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_NONE,
    LINK_C_HDLC,
    LINK_ETHERNET,
    LINK_FRAME_RELAY,
    LINK_PPP,
    LONGEST_8023,
    NEXT_80211_PADDED,
    NEXT_IP,
    NEXT_LINK,
    NEXT_LLC,
    NEXT_PPP_PROTOCOL,
    HeaderReader,
    holds,
    ip_version,
)
from sgfast.core.wire.tags cimport ETHERTYPE_MPLS, ETHERTYPE_PPPOE_SESSION, read_llc, read_ppp_protocol, read_tag


cdef enum:
    HIGHEST_LINK_TYPE = 511     # the last row of the table

    # Limit for headers and tags before IP, including the outermost header. A frame with more headers is malformed:
    # extra wrapping must not hide a packet from the filter. Linux pushes at most 30 MPLS labels at once, and
    # combinations of radio, tunnel and bridge headers need five or six headers.
    MAX_HEADERS = 40


cdef struct LinkType:
    HeaderReader reader     # NULL: the header has a fixed length and form, or the type is not supported
    uint32_t min_length     # bytes; if fewer were captured, the reader is not called
    uint32_t after          # without a reader: the type of the next header; this header has `min_length` bytes
    LinkKind kind
    uint32_t alias_of       # the LINKTYPE_ number with the same meaning, or 0


cdef LinkType link_types[HIGHEST_LINK_TYPE + 1]

#: Names of the link types that occur in practice, for messages.
LINK_TYPE_NAMES = {}


def link_type_name(link_type):
    """Return ``LINKTYPE_RAW (101)``, or just the number if the link type has no name in the table."""
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


cdef int _fixed(uint32_t number, str name, uint32_t length, uint32_t after, uint32_t alias_of=0) except -1:
    _with_ip(number, name, length, NULL, alias_of)
    link_types[number].after = after
    return 0


cdef int _without_ip(uint32_t number, str name) except -1:
    _row(number).kind = LINK_WITHOUT_IP
    LINK_TYPE_NAMES[number] = name
    return 0


cdef int _unsupported(uint32_t number, str name) except -1:
    _row(number)
    LINK_TYPE_NAMES[number] = name
    return 0


# The supported link types (www.tcpdump.org/linktypes.html): LINKTYPE_ number, name, minimum header length and reader;
# or LINKTYPE_ number, name, length of the header and type of the next header.

_with_ip(0, "NULL", 4, read_null)
_with_ip(1, "ETHERNET", 14, read_ethernet)
_with_ip(6, "IEEE802_5", 14, read_token_ring)
_with_ip(7, "ARCNET_BSD", 3, read_arcnet)
_fixed(8, "SLIP", 16, NEXT_IP)
_with_ip(9, "PPP", 2, read_ppp)
_with_ip(10, "FDDI", 13, read_fddi)
_with_ip(50, "PPP_HDLC", 2, read_ppp)
_fixed(51, "PPP_ETHER", 0, ETHERTYPE_PPPOE_SESSION)
_with_ip(100, "ATM_RFC1483", 3, read_atm)
_fixed(101, "RAW", 0, NEXT_IP)
_fixed(102, "SLIP_BSDOS", 24, NEXT_IP)
_fixed(104, "C_HDLC", 4, ETHERTYPE_AT | 2)
_with_ip(105, "IEEE802_11", 2, read_80211)
_with_ip(106, "ATM_CLIP", 3, read_atm)
_with_ip(107, "FRELAY", 3, read_frame_relay)
_with_ip(108, "LOOP", 4, read_loop)
_with_ip(109, "ENC", 12, read_enc)
_with_ip(113, "LINUX_SLL", 16, read_cooked)
_with_ip(117, "PFLOG", 4, read_pflog)
_with_ip(119, "IEEE802_11_PRISM", 8, read_prism)
_fixed(122, "IP_OVER_FC", 16, NEXT_LLC)
_with_ip(123, "SUNATM", 4, read_sunatm)
_with_ip(127, "IEEE802_11_RADIOTAP", 8, read_radiotap)
_with_ip(129, "ARCNET_LINUX", 5, read_arcnet_linux)
_fixed(138, "APPLE_IP_OVER_IEEE1394", 18, ETHERTYPE_AT | 16)
_with_ip(143, "DOCSIS", 6, read_docsis)
_with_ip(163, "IEEE802_11_AVS", 8, read_avs)
_fixed(166, "PPP_PPPD", 2, NEXT_PPP_PROTOCOL)
_with_ip(178, "JUNIPER_ETHER", 4, read_juniper_ethernet)
_with_ip(182, "MFR", 2, read_multilink_frame_relay)
_with_ip(192, "PPI", 8, read_ppi)
_with_ip(197, "ERF", 16, read_erf)
_fixed(204, "PPP_WITH_DIR", 1, NEXT_LINK | LINK_PPP)
_fixed(205, "C_HDLC_WITH_DIR", 1, NEXT_LINK | LINK_C_HDLC)
_fixed(206, "FRELAY_WITH_DIR", 1, NEXT_LINK | LINK_FRAME_RELAY)
_fixed(219, "MPLS", 0, ETHERTYPE_MPLS)
_with_ip(226, "IPNET", 24, read_ipnet)
_fixed(228, "IPV4", 0, ETHERTYPE_IPV4)
_fixed(229, "IPV6", 0, ETHERTYPE_IPV6)
_with_ip(239, "NFLOG", 4, read_nflog)
_fixed(242, "IPOIB", 44, ETHERTYPE_AT | 40)
_with_ip(258, "PKTAP", 12, read_pktap)
_with_ip(276, "LINUX_SLL2", 20, read_cooked_2)
_fixed(281, "DSA_TAG_BRCM", 18, ETHERTYPE_AT | 16)
_fixed(282, "DSA_TAG_BRCM_PREPEND", 4, NEXT_LINK | LINK_ETHERNET)
_fixed(284, "DSA_TAG_DSA", 18, ETHERTYPE_AT | 16)
_fixed(285, "DSA_TAG_EDSA", 22, ETHERTYPE_AT | 20)

# On some systems libpcap writes its own DLT_ numbers. Its numbers for raw IP also occur inside frames (PKTAP).
_fixed(12, None, 0, NEXT_IP, alias_of=101)
_fixed(14, None, 0, NEXT_IP, alias_of=101)
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


#: The supported LINKTYPE_ numbers, and the numbers whose frames never hold IP, for callers in Python.
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
    if row.kind != LINK_WITH_IP:
        return ETHERTYPE_NONE
    if not holds(frame, at[0], row.min_length):
        return ETHERTYPE_CUT
    if row.reader != NULL:
        return row.reader(frame, at)
    at[0] += row.min_length
    if row.after == NEXT_IP:
        return ip_version(frame, at[0], ETHERTYPE_CUT)
    if row.after & ETHERTYPE_AT:
        return be16(frame.data + at[0] - row.min_length + (row.after & 0xFF))
    return row.after


cdef uint32_t find_ip(const Frame* frame, uint32_t* offset) noexcept nogil:
    return walk(frame, offset, False)


cdef uint32_t find_tags(const Frame* frame, uint32_t* offset) noexcept nogil:
    return walk(frame, offset, True)


cdef uint32_t walk(const Frame* frame, uint32_t* offset, bint to_tags) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t headers = 0
    cdef uint32_t header = NEXT_LINK | frame.link_type if frame.link_type <= 0xFFFF else <uint32_t>ETHERTYPE_NONE
    if frame.link_type == LINK_RECORD:
        at = sizeof(RecordCounts)
        header = ip_version(frame, at, ETHERTYPE_CUT)
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

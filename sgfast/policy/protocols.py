"""IP protocol names and numbers (SPEC 2.1): the keywords of IANA's "Assigned Internet Protocol Numbers" registry."""

from __future__ import annotations

#: The number and the keyword of each protocol, in lower case. Reports print these keywords. If SPEC 2.1 and everyday
#: use differ from IANA's keyword, this list has the everyday name, and ``_ALIASES`` has IANA's keyword.
_KEYWORDS = """
0 hopopt          1 icmp            2 igmp            3 ggp             4 ipv4            5 st
6 tcp             7 cbt             8 egp             9 igp             10 bbn-rcc-mon    11 nvp-ii
12 pup            13 argus          14 emcon          15 xnet           16 chaos          17 udp
18 mux            19 dcn-meas       20 hmp            21 prm            22 xns-idp        23 trunk-1
24 trunk-2        25 leaf-1         26 leaf-2         27 rdp            28 irtp           29 iso-tp4
30 netblt         31 mfe-nsp        32 merit-inp      33 dccp           34 3pc            35 idpr
36 xtp            37 ddp            38 idpr-cmtp      39 tp++           40 il             41 ipv6
42 sdrp           43 ipv6-route     44 ipv6-frag      45 idrp           46 rsvp           47 gre
48 dsr            49 bna            50 esp            51 ah             52 i-nlsp         53 swipe
54 narp           55 min-ipv4       56 tlsp           57 skip           58 icmpv6         59 ipv6-nonxt
60 ipv6-opts      62 cftp           64 sat-expak      65 kryptolan      66 rvd            67 ippc
69 sat-mon        70 visa           71 ipcv           72 cpnx           73 cphb           74 wsn
75 pvp            76 br-sat-mon     77 sun-nd         78 wb-mon         79 wb-expak       80 iso-ip
81 vmtp           82 secure-vmtp    83 vines          84 iptm           85 nsfnet-igp     86 dgp
87 tcf            88 eigrp          89 ospf           90 sprite-rpc     91 larp           92 mtp
93 ax.25          94 ipip           95 micp           96 scc-sp         97 etherip        98 encap
100 gmtp          101 ifmp          102 pnni          103 pim           104 aris          105 scps
106 qnx           107 a/n           108 ipcomp        109 snp           110 compaq-peer   111 ipx-in-ip
112 vrrp          113 pgm           115 l2tp          116 ddx           117 iatp          118 stp
119 srp           120 uti           121 smp           122 sm            123 ptp           124 isis
125 fire          126 crtp          127 crudp         128 sscopmce      129 iplt          130 sps
131 pipe          132 sctp          133 fc            134 rsvp-e2e-ignore                 135 mobility-header
136 udplite       137 mpls-in-ip    138 manet         139 hip           140 shim6         141 wesp
142 rohc          143 ethernet      144 aggfrag       145 nsh         146 homa            147 bit-emu
"""

#: Other accepted names: IANA's own, and names in Linux's /etc/protocols.
_ALIASES = {
    "ipv6-icmp": 58,
    "icmp6": 58,
    "ospfigp": 89,
    "udp-lite": 136,
    "ipencap": 4,
    "mobile": 55,
    "ttp": 84,
    "mobility header": 135,
    "isis over ipv4": 124,
}

_words = _KEYWORDS.split()
_NAMES: dict[int, str] = {int(number): name for number, name in zip(_words[::2], _words[1::2], strict=True)}

#: Protocol numbers by name, in lower case.
PROTOCOL_NUMBERS: dict[str, int] = {name: number for number, name in _NAMES.items()} | _ALIASES

#: The names of ICMP types, by protocol number.
ICMP_NAMES: dict[int, dict[int, str]] = {
    1: {
        0: "echo-reply", 3: "unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request", 9: "router-advert",
        10: "router-solicit", 11: "time-exceeded", 12: "parameter-problem", 13: "timestamp-request",
        14: "timestamp-reply", 15: "information-request", 16: "information-reply", 17: "mask-request",
        18: "mask-reply",
    },
    58: {
        1: "unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request",
        129: "echo-reply", 130: "mld-query", 131: "mld-report", 132: "mld-done", 133: "router-solicit",
        134: "router-advert", 135: "neighbour-solicit", 136: "neighbour-advert", 137: "redirect",
        143: "mld2-report",
    },
}  # fmt: skip


#: Names of services by their usual ports of TCP or UDP.
SERVICES = {
    20: "ftp-data", 21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 53: "dns", 80: "http", 123: "ntp", 143: "imap",
    389: "ldap", 443: "https", 445: "smb", 465: "smtps", 514: "syslog", 587: "submission", 636: "ldaps", 993: "imaps",
    1433: "mssql", 1521: "oracle", 2049: "nfs", 3306: "mysql", 3389: "rdp", 5432: "postgresql", 5672: "amqp",
    6379: "redis", 8080: "http-alt", 9092: "kafka", 9200: "elasticsearch", 11211: "memcached", 27017: "mongodb",
}  # fmt: skip

#: The ICMP type of a ping, by IP version.
ECHO_REQUEST = {4: 8, 6: 128}

#: The usual protocols, which spelling suggestions prefer: for "tpc" they suggest "tcp" and not "xtp".
USUAL_PROTOCOLS = ("all", "tcp", "udp", "icmp", "icmpv6", "gre", "sctp", "esp", "ah", "udplite", "dccp")


def protocol_name(number: int) -> str | None:
    """Return the name that reports print for a protocol number (SPEC 10.3), or None."""
    return _NAMES.get(number)

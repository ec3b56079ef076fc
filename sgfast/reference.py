"""SPEC.md as plain, slow, obvious Python: the oracle the fast engine is checked against, packet by packet.

How to read it, from top to bottom; each part is one part of SPEC:

1. the words it answers with: ``SideVerdict``, ``PacketVerdict``;
2. reading a frame: ``parse_frame`` has the IP header found (``reference_link``), reads it and the transport header into
   a ``Packet`` and notes what is wrong with it (SPEC 3.1, 3.4), without deciding anything;
3. naming a connection: ``flow_of`` and ``quoted_flow`` (SPEC 5.1, 4.6);
4. the TCP table (SPEC 5.4);
5. what the table of connections holds: ``Connection``, ``Moot``, ``Entry`` (SPEC 5.8, 9.2); what is judged: ``Case``;
6. ``ReferenceEngine``: ``process_frame`` is section 3, ``_judge_side`` section 4, ``apply`` section 6,
   ``_judge_fragment`` section 9.4 (with ``reference_fragments``), the rest what they need;
7. the order of the sides (SPEC 3.7), and whose address is whose (SPEC 7.1).

A connection or moot mark whose deadline has come does not exist; whoever looks one up checks, and nothing else depends
on when it is really removed (``_sweep``). All times are integer nanoseconds. "R3" and the like are the architect's
rulings on SPEC's open ends.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from sgfast.errors import PolicyError
from sgfast.policy.changes import Change, RemoveInstance, apply_changes
from sgfast.policy.model import (
    DCCP,
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Network,
    Policy,
    Rule,
)
from sgfast.reference_fragments import Datagram, Datagrams, Fragment
from sgfast.reference_link import MALFORMED, NOT_IP, find_ip

Address = IPv4Address | IPv6Address
End = tuple[Address, int | None]
"""One end of a connection: its address, and its port where the protocol has ports."""

NANOSECONDS = 10**9
LATE_AT_MOST = 60 * NANOSECONDS  # SPEC 9.1
LEAST_OPENERS_SEEN = 1 << 20  # remembered however small the table is: they are no connections (SPEC 5.8, 9.3)
ENDLESS = 1 << 32  # more bytes than any packet has


# --- 1 The answer (SPEC 10.3)


@dataclass
class SideVerdict:
    """What one side said (SPEC 4), and the rule it stands on."""

    instance: str
    verdict: str
    reason: str
    rule: str | None
    #: The group it stands in: an id may be another rule's once its own is gone.
    group: str | None = None


@dataclass
class PacketVerdict:
    """What became of a packet; everything that cannot be known is None."""

    verdict: str
    reason: str | None
    egress: SideVerdict | None = None
    ingress: SideVerdict | None = None
    src: str | None = None
    dst: str | None = None
    protocol: int | None = None
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    #: "opened", "inferred" or "denied" if a connection, or an attempt at one, begins here (R15).
    began: str | None = None
    #: Ids of the rules that created a connection on a side with this packet.
    created: tuple[str, ...] = ()
    #: State, direction and kind of packet, the TCP table's answer; of the side that decided.
    tcp_transition: tuple[str, str, str] | None = None
    #: The verdict is that of the datagram's first fragment (SPEC 9.4): whatever it says, nothing was opened here.
    of_first_fragment: bool = False


@dataclass(frozen=True)
class Applied:
    """What a change of the policy did (SPEC 6)."""

    #: Tuples of which at least one side's live connection became disconnected.
    disconnected: int = 0


# --- 2 Reading a frame (SPEC 3.1, 3.4; R7)

HOP_BY_HOP = 0
FRAGMENT_HEADER = 44
EXTENSION_HEADERS = (HOP_BY_HOP, 43, FRAGMENT_HEADER, 60, 135, 139, 140)
#: Options in a hop-by-hop header: a byte of padding, and the length of a packet that IPv6's own field cannot tell.
PAD1, JUMBO_PAYLOAD = 0, 0xC2
#: Bytes of payload that IPv6's own field can tell.
MOST_WITHOUT_JUMBO = 0xFFFF
#: Bytes of transport header without which a packet cannot be judged (SPEC 3.4).
HEADER_NEEDED = {TCP: 20, UDP: 8, UDPLITE: 8, SCTP: 12, DCCP: 12}

#: ICMP queries and the reply to each (SPEC 5.6).
ICMP_REPLY_TO = {4: {8: 0, 13: 14, 15: 16, 17: 18}, 6: {128: 129}}
ICMPV4_ERRORS = (3, 4, 5, 11, 12)


@dataclass
class Packet:
    """What a frame's headers say."""

    version: int
    src: Address
    dst: Address
    protocol: int
    hop_limit: int
    #: Why the packet cannot be judged: malformed, truncated or fragment (SPEC 3.4, R12); None if nothing is wrong.
    problem: str | None = None
    #: Its place in its datagram, if it is but a part of one; of nested ones the outermost.
    fragment: Fragment | None = None
    #: Bytes of the IP payload behind all extension headers, by the IP header; and those of them that were captured.
    payload_length: int = 0
    payload: bytes = b""
    #: The IP header is sound, all of it was captured, and the payload begins with a transport header.
    has_transport: bool = False
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_identifier: int = 0
    tcp_flags: int = 0

    @property
    def is_later_fragment(self) -> bool:
        return self.fragment is not None and self.fragment.offset > 0

    @property
    def is_icmp(self) -> bool:
        """ICMP in IPv4 or ICMPv6 in IPv6; each inside the other is just some protocol."""
        return self.protocol == (ICMP if self.version == 4 else ICMPV6)

    @property
    def can_open(self) -> bool:
        """Whether this packet is one that starts a connection if there is none (SPEC 5.4, 5.6, 5.7)."""
        if self.protocol == TCP:
            return tcp_kind(self.tcp_flags) == "syn"
        if self.icmp_type is not None:
            return icmp_role(self.version, self.icmp_type) in ("query", "one-way")
        return True


def number(data: bytes, offset: int, size: int) -> int:
    """The big-endian number there; the caller has checked that it is there."""
    return int.from_bytes(data[offset : offset + size], "big")


def icmp_role(version: int, icmp_type: int) -> str:
    """query, reply, error or one-way (SPEC 4.6, 5.6)."""
    if icmp_type in ICMP_REPLY_TO[version]:
        return "query"
    if icmp_type in ICMP_REPLY_TO[version].values():
        return "reply"
    is_error = icmp_type in ICMPV4_ERRORS if version == 4 else icmp_type < 128
    return "error" if is_error else "one-way"


def parse_frame(data: bytes, wire_length: int, link_type: int) -> Packet | str:
    """The packet in a frame; or ``NOT_IP``, or ``MALFORMED`` if even its addresses cannot be read."""
    found = find_ip(data, link_type)
    if isinstance(found, str):
        return found
    offset, version = found
    ip = data[offset:]
    if len(ip) < (20 if version == 4 else 40) or ip[0] >> 4 != version:
        return MALFORMED
    rest_of_frame = max(wire_length, len(data)) - offset
    packet = read_ipv4(ip, rest_of_frame) if version == 4 else read_ipv6(ip, rest_of_frame)
    if packet.fragment is not None and packet.fragment.is_impossible:
        packet.problem, packet.fragment, packet.has_transport = MALFORMED, None, False
    if packet.has_transport:
        packet.problem = read_transport(packet)
    return packet


def read_ipv4(ip: bytes, rest_of_frame: int) -> Packet:
    """``ip`` is what was captured from the IP header on, at least 20 bytes, of ``rest_of_frame`` bytes on the wire."""
    packet = Packet(4, IPv4Address(ip[12:16]), IPv4Address(ip[16:20]), protocol=ip[9], hop_limit=ip[8])
    header_length = (ip[0] & 15) * 4
    total_length = number(ip, 2, 2) or rest_of_frame  # 0: segmentation offload (SPEC 3.4)
    if header_length < 20 or total_length < header_length or total_length > rest_of_frame:
        packet.problem = "malformed"
        return packet
    packet.payload_length = total_length - header_length
    more, offset = number(ip, 6, 2) & 0x2000, (number(ip, 6, 2) & 0x1FFF) * 8
    if more or offset:
        datagram = (4, packet.src, packet.dst, packet.protocol, number(ip, 4, 2))
        packet.fragment = Fragment(datagram, offset, packet.payload_length, bool(more), header_length)
    if not packet.is_later_fragment:
        packet.payload = ip[header_length:total_length]  # without padding
        packet.has_transport = True
    return packet


def read_ipv6(ip: bytes, rest_of_frame: int) -> Packet:
    """As ``read_ipv4``, from 40 bytes on."""
    packet = Packet(6, IPv6Address(ip[8:24]), IPv6Address(ip[24:40]), protocol=ip[6], hop_limit=ip[7])
    is_quote = rest_of_frame == ENDLESS  # whose lengths claim nothing
    claimed = number(ip, 4, 2)
    packet.payload_length = claimed or rest_of_frame - 40
    jumbo = jumbo_length(ip[40:]) if packet.protocol == HOP_BY_HOP and not is_quote else None
    if jumbo is not None:
        packet.payload_length = jumbo
        if claimed or jumbo <= MOST_WITHOUT_JUMBO:
            packet.problem = "malformed"
    packet.payload = ip[40 : 40 + packet.payload_length]  # without padding
    if packet.payload_length > rest_of_frame - 40:
        packet.problem = "malformed"
    is_too_long_for_fragments = packet.payload_length > MOST_WITHOUT_JUMBO and not is_quote  # RFC 2675
    while packet.problem is None and not packet.is_later_fragment and packet.protocol in EXTENSION_HEADERS:
        if packet.protocol == FRAGMENT_HEADER and is_too_long_for_fragments:
            packet.problem = "malformed"
        else:
            packet.problem = step_over_extension_header(packet)
    if packet.is_later_fragment:
        packet.payload = b""  # nothing reads it, and the packet may be held back
    packet.has_transport = packet.problem is None and not packet.is_later_fragment
    return packet


def jumbo_length(header: bytes) -> int | None:
    """The length of a jumbogram (RFC 2675), from the hop-by-hop header there, which the capture may have cut.

    None: it tells none. 0: what it tells makes no sense.
    """
    if len(header) < 2 or len(header) < (header[1] + 1) * 8:
        return None
    options = header[2 : (header[1] + 1) * 8]
    while options:
        if options[0] == JUMBO_PAYLOAD:
            return number(options, 2, 4) if len(options) >= 6 and options[1] == 4 else 0
        is_alone = options[0] == PAD1 or len(options) == 1  # a byte without a length
        options = options[1 if is_alone else 2 + options[1] :]
    return None


def step_over_extension_header(packet: Packet) -> str | None:
    """Take one IPv6 extension header off the payload, or say why not (SPEC 3.4)."""
    payload = packet.payload
    length = 8  # the least, and a fragment header's always
    if packet.protocol != FRAGMENT_HEADER and len(payload) >= 2:
        length = (payload[1] + 1) * 8
    if length > packet.payload_length:
        return "malformed"
    if length > len(payload):
        return "truncated"
    is_fragment_header = packet.protocol == FRAGMENT_HEADER
    packet.protocol = payload[0]
    packet.payload = payload[length:]
    packet.payload_length -= length
    return note_fragment(packet, payload) if is_fragment_header else None


def note_fragment(packet: Packet, header: bytes) -> str | None:
    """What an IPv6 fragment header, now off the payload, says; and why the packet cannot be judged with it, if so."""
    more, offset = number(header, 2, 2) & 1, number(header, 2, 2) & 0xFFF8
    if packet.fragment is not None:
        # A first fragment of a fragment: what it is part of will be judged by what there is, and must begin here.
        return "fragment" if offset else None
    if more or offset:  # otherwise the packet is whole ("atomic")
        datagram = (6, packet.src, packet.dst, number(header, 4, 4))
        packet.fragment = Fragment(datagram, offset, packet.payload_length, bool(more))
    return None


def read_transport(packet: Packet) -> str | None:
    """Read ports, flags, ICMP fields; say what is wrong with the transport header, if anything (SPEC 3.4)."""
    payload = packet.payload
    needed = 8 if packet.is_icmp else HEADER_NEEDED.get(packet.protocol, 0)
    read_ports_or_icmp(packet)
    if packet.payload_length < needed:
        return "malformed"
    if len(payload) < needed:
        return "truncated"
    if packet.protocol == TCP:
        packet.tcp_flags = payload[13]
        data_offset = (payload[12] >> 4) * 4
        if data_offset < 20 or data_offset > packet.payload_length:
            return "malformed"
    if packet.protocol == UDP:
        udp_length = number(payload, 4, 2)
        # A first fragment carries the length of the whole datagram.
        if udp_length < 8 or (udp_length > packet.payload_length and packet.fragment is None):
            return "malformed"
    return None


def read_ports_or_icmp(packet: Packet) -> None:
    """As far as they were captured: a header that is cut later still shows them (SPEC 10.3)."""
    payload = packet.payload
    if packet.is_icmp and len(payload) >= 2:
        packet.icmp_type, packet.icmp_code = payload[0], payload[1]
        packet.icmp_identifier = number(payload, 4, 2) if len(payload) >= 6 else 0
    if packet.protocol in PORT_PROTOCOLS and len(payload) >= 4:
        packet.sport, packet.dport = number(payload, 0, 2), number(payload, 2, 2)


def is_infrastructure(packet: Packet) -> bool:
    """DHCP, neighbour discovery, multicast listener discovery (SPEC 3.2)."""
    if not packet.has_transport:
        return False
    payload = packet.payload
    if packet.protocol == UDP and len(payload) >= 4:
        ports = {number(payload, 0, 2), number(payload, 2, 2)}
        return ports == ({67, 68} if packet.version == 4 else {546, 547})
    if packet.version == 6 and packet.protocol == ICMPV6 and len(payload) >= 1:
        return (133 <= payload[0] <= 137 and packet.hop_limit == 255) or payload[0] in (130, 131, 132, 143)
    return False


# --- 3 Naming a connection (SPEC 5.1)


@dataclass(frozen=True)
class Flow:
    """The key of a packet's connection, and the ends the packet goes from and to."""

    key: Hashable
    sender: End
    receiver: End


def flow_of(packet: Packet) -> Flow | None:
    """The packet's connection; None for an ICMP error, which has none of its own."""
    src, dst, kind = packet.src, packet.dst, packet.icmp_type
    sender, receiver = (src, packet.sport), (dst, packet.dport)
    if kind is None:
        return Flow(("two-way", packet.protocol, frozenset((sender, receiver))), sender, receiver)
    role = icmp_role(packet.version, kind)
    if role == "query":
        return Flow(("query", src, dst, packet.icmp_identifier, kind), sender, receiver)
    if role == "reply":
        query = next(query for query, reply in ICMP_REPLY_TO[packet.version].items() if reply == kind)
        return Flow(("query", dst, src, packet.icmp_identifier, query), sender, receiver)
    if role == "one-way":
        return Flow(("one-way", src, dst, kind, packet.icmp_code), sender, receiver)
    return None


def quoted_flow(error: Packet) -> Flow | None:
    """The connection of the packet quoted in an ICMP error; None if the quote does not tell (SPEC 4.6, R10)."""
    quote = error.payload[8:]
    if len(quote) < (20 if error.version == 4 else 40) or quote[0] >> 4 != error.version:
        return None
    # The quote is shorter than its length field says: clear that, then it means the rest of the frame.
    if error.version == 4:
        quoted = read_ipv4(quote[:2] + bytes(2) + quote[4:], ENDLESS)
    else:
        quoted = read_ipv6(quote[:4] + bytes(2) + quote[6:], ENDLESS)
    needed = 8 if quoted.is_icmp else 4 if quoted.protocol in PORT_PROTOCOLS else 0
    if not quoted.has_transport or len(quoted.payload) < needed:
        return None
    read_ports_or_icmp(quoted)
    return flow_of(quoted)


# --- 4 TCP (SPEC 5.4; R1)

FIN, SYN, RST, ACK, URG = 0x01, 0x02, 0x04, 0x10, 0x20
#: Flag sets Linux takes for valid, without PSH, ECE and CWR; and the row of the table for each.
TCP_KINDS = {SYN: "syn", SYN | URG: "syn", SYN | ACK: "synack", RST: "rst", RST | ACK: "rst"}
TCP_KINDS |= {FIN | ACK: "fin", FIN | ACK | URG: "fin", ACK: "ack", ACK | URG: "ack"}

# States: syn sent, syn received, established, FIN-WAIT, CLOSE-WAIT, LAST-ACK, TIME-WAIT, closed, and SYN sent by both.
# Answers that are no states: IG allowed, but nothing changes; IV invalid.
TCP_TABLE_TEXT = """
                    SS SR ES FW CW LA TW CL S2
    original syn    SS IG IG IG IG IG SS SS S2
    original synack IV SR IV IV IV IV IV IV SR
    original fin    IV FW FW LA LA LA TW CL IV
    original ack    IV ES ES CW CW TW TW CL IV
    original rst    CL CL CL CL CL CL CL CL CL
    reply    syn    S2 IV IV IV IV IV SS IV S2
    reply    synack SR IG IG IG IG IG IG IG SR
    reply    fin    IV FW FW LA LA LA TW CL IV
    reply    ack    IG SR ES CW CW TW TW CL IG
    reply    rst    CL CL CL CL CL CL CL CL CL
"""
TCP_STATES, *TCP_ROWS = (line.split() for line in TCP_TABLE_TEXT.strip().splitlines())
TCP_TABLE = {(row[0], row[1]): dict(zip(TCP_STATES, row[2:], strict=True)) for row in TCP_ROWS}
#: The state of a connection inferred from a packet in its middle (SPEC 9.3).
INFERRED_STATE = {"synack": "SR", "ack": "ES", "fin": "FW"}


def tcp_kind(flags: int) -> str | None:
    """The table's row for these flags; None if Linux calls them invalid."""
    return TCP_KINDS.get(flags & (FIN | SYN | RST | ACK | URG))


# --- 5 What is remembered, and what is judged


@dataclass(frozen=True)
class Opener:
    """A packet that starts a connection, or the one that an inferred connection must have started with."""

    version: int
    protocol: int
    initiator: End
    responder: End
    #: It leaves the instance of the side that judges it.
    outbound: bool
    icmp_type: int | None
    icmp_code: int | None
    #: State of the connection if the rules allow it.
    state: str
    inferred: bool

    @property
    def own(self) -> Address:
        """The address at the instance's end."""
        return self.initiator[0] if self.outbound else self.responder[0]

    @property
    def peer(self) -> Address:
        """The address at the other end."""
        return self.responder[0] if self.outbound else self.initiator[0]


class GroupRule(NamedTuple):
    """A rule, and the group it stands in."""

    group: str
    rule: Rule


@dataclass
class Connection:
    """A connection as one side sees it (SPEC 5)."""

    opener: Opener
    #: A state of TCP_STATES, or "icmp", or for everything else "one-way" or "both-ways" (SPEC 5.2).
    state: str
    #: The rule it was opened with, as it was then (SPEC 6.5).
    rule: GroupRule
    deadline: int
    #: Has had an allowed packet in reply direction.
    replied: bool
    #: A change of the policy has cut it (SPEC 6.3): it denies its key until its deadline.
    disconnected: bool = False


@dataclass
class Moot:
    """What follows on this key would not have happened (SPEC 9.2)."""

    initiator: End
    deadline: int


@dataclass
class Entry:
    """All that is known under one key: a tuple, in the words of SPEC 5.8."""

    #: By the name of the side's instance.
    sides: dict[str, Connection] = field(default_factory=dict)
    moot: Moot | None = None
    #: Number of the latest packet that created a connection here, forgot a finished one, or made the key moot.
    created: int = 0
    #: A packet in reply direction was allowed since the tuple began.
    answered: bool = False
    #: The tuple began with a denied opener, and none was allowed since (SPEC 10.4).
    began_denied: bool = False

    def live_sides(self, now: int) -> list[Connection]:
        return [connection for connection in self.sides.values() if now < connection.deadline]

    def is_moot(self, now: int) -> bool:
        return self.moot is not None and now < self.moot.deadline

    def is_live(self, now: int) -> bool:
        return self.is_moot(now) or bool(self.live_sides(now))

    def is_evictable(self, now: int) -> bool:
        """Moot, or never replied to (SPEC 5.8, R5); asked of live ones."""
        return self.is_moot(now) or not self.answered


@dataclass(frozen=True)
class Side:
    """Whose filter judges the packet, and who is at the other end (SPEC 1)."""

    instance: Instance
    leaving: bool
    peer: Address
    peer_instance: Instance | None

    def allow(self, reason: str, named: GroupRule) -> SideVerdict:
        return SideVerdict(self.instance.name, "allow", reason, named.rule.id, named.group)

    def deny(self, reason: str, named: GroupRule | None = None) -> SideVerdict:
        if named is None:
            return SideVerdict(self.instance.name, "deny", reason, None)
        return SideVerdict(self.instance.name, "deny", reason, named.rule.id, named.group)


@dataclass
class Case:
    """The packet being judged, and what its judgement did apart from the verdict."""

    packet: Packet
    flow: Flow
    now: int
    created: list[str] = field(default_factory=list)
    #: A finished connection was forgotten for this opener (SPEC 4.4).
    forgot_old: bool = False
    #: An opener was denied, by SPEC 3.6, by rules, or because the table is full.
    opener_denied: bool = False
    #: The same, but not because the table is full: what makes a key moot (SPEC 9.2).
    opener_refused: bool = False
    transition: tuple[str, str, str] | None = None


# --- 6 The engine


class Clock:
    """What time it is, as the packets tell (SPEC 9.1, R6)."""

    def __init__(self) -> None:
        self.late = self.restarts = 0
        self.first: int | None = None
        self.now: int | None = None
        self._offset = 0

    def advance(self, time_ns: int) -> int:
        """What it says after a packet of that time."""
        if self.now is None:
            self.now = self.first = time_ns
        time_ns += self._offset
        if time_ns >= self.now:
            self.now = time_ns
        elif self.now - time_ns <= LATE_AT_MOST:
            self.late += 1
        else:
            self._offset += self.now - time_ns
            self.restarts += 1
        return self.now


class ReferenceEngine:
    """Judges the frames of a capture one by one, in capture order, under a policy that may change between them."""

    def __init__(
        self, policy: Policy, *, mode: str = "verbatim", midstream: str = "deny", vpc: str | None = None,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        """``clock``: one that others go by, too, who judge other packets of the same capture."""
        if mode not in ("verbatim", "causal") or midstream not in ("deny", "infer", "allow"):
            raise ValueError(f"unknown mode {mode!r} or midstream {midstream!r}")
        self.policy = policy
        self.mode = mode
        self.midstream = midstream
        self.vpc = vpc
        self.clock = clock or Clock()
        self._packets = 0
        self._entries: dict[Hashable, Entry] = {}
        self._sweep_at = 1000
        #: Keys whose opener was seen, the latest last (R3).
        self._openers_seen: dict[Hashable, None] = {}
        #: Keys whose opener was denied and left no entry behind: until when a retry is the same attempt (R15).
        self._attempts: dict[Hashable, int] = {}
        self._datagrams: Datagrams[Packet, PacketVerdict] = Datagrams()
        #: Verdicts of packets that were pending, by packet number; for ``resolved``.
        self._resolved: list[tuple[int, PacketVerdict]] = []
        self._owners: dict[Address, Instance | None] = {}
        self._own_prefixes, self._peers_prefixes = visible_prefixes(policy, vpc)
        seconds = policy.settings.timeouts  # SPEC 5.2
        self._tcp_established = nanoseconds(seconds.tcp_established)
        self._unidirectional = nanoseconds(seconds.unidirectional)
        self._timeout = {state: nanoseconds(seconds.tcp_other) for state in TCP_STATES} | {
            "ES": self._tcp_established,
            "FW": nanoseconds(seconds.tcp_fin_wait),
            "icmp": nanoseconds(seconds.icmp),
            "one-way": self._unidirectional,
            "both-ways": nanoseconds(seconds.bidirectional),
        }

    # --- Section 3: what happens to a packet

    def process_frame(
        self, time_ns: int, data: bytes, *, wire_length: int | None = None, link_type: int = 1
    ) -> PacketVerdict:
        """Judge the next frame of the capture. Never raises, whatever the bytes.

        A fragment that came before its datagram's first is ``pending`` until ``resolved`` tells of it (SPEC 9.4).
        """
        self._packets += 1
        now = self.clock.advance(time_ns)
        self._sweep_now_and_then(now)
        self._give_up(self._datagrams.take_over(now, self._packets))
        packet = parse_frame(data, len(data) if wire_length is None else wire_length, link_type)
        if isinstance(packet, str):  # SPEC 3.1
            return PacketVerdict("not-ip", None) if packet == NOT_IP else PacketVerdict("deny", MALFORMED)
        if packet.fragment is not None:
            return with_headers(packet, self._judge_fragment(packet, packet.fragment, now))
        return with_headers(packet, self._judge_packet(packet, now))

    def _judge_packet(self, packet: Packet, now: int) -> PacketVerdict:
        if self.policy.settings.infrastructure == "exempt" and is_infrastructure(packet):  # SPEC 3.2
            return PacketVerdict("exempt", None)
        sides = self._sides(packet)  # SPEC 3.3
        if isinstance(sides, str):
            return PacketVerdict(sides, None)
        egress, ingress = sides
        if packet.problem is not None:  # SPEC 3.4, R12
            return deny_at_once(egress, ingress, packet.problem)
        if self.mode == "causal" and self._is_moot(packet, now):  # SPEC 3.5
            return PacketVerdict("moot", "opener-denied")
        # SPEC 3.6
        isolated = egress and ingress and not self.policy.connected(egress.instance.vpc, ingress.instance.vpc)
        flow = flow_of(packet)
        if flow is None:
            if isolated:
                return deny_at_once(egress, ingress, "vpc-isolated")
            return both_sides(egress, ingress, lambda side: self._judge_icmp_error(side, packet, now))

        case = Case(packet, flow, now)
        had_entry = self._live_entry(flow.key, now) is not None
        if isolated:
            verdict = deny_at_once(egress, ingress, "vpc-isolated")
            if packet.can_open:
                case.opener_denied = case.opener_refused = True
                self._note_opener(case)
        else:
            verdict = both_sides(egress, ingress, lambda side: self._judge_side(side, case))
        self._settle_moot(case, verdict)
        verdict.began = self._began(case, verdict, had_entry)
        verdict.created = tuple(case.created)
        verdict.tcp_transition = case.transition
        return verdict

    def _sides(self, packet: Packet) -> tuple[Side | None, Side | None] | str:
        """The egress and the ingress side, at least one of them; or the verdict where there is none (SPEC 3.3)."""
        source = self._owner(packet.src)
        destination = None if is_multicast_or_broadcast(packet.dst) else self._owner(packet.dst)
        if source is None and destination is None:
            return "out-of-scope"
        if source is destination:
            return "local"
        egress = Side(source, True, packet.dst, destination) if source else None
        ingress = Side(destination, False, packet.src, source) if destination else None
        return egress, ingress

    def _owner(self, address: Address) -> Instance | None:
        """The instance an address belongs to (SPEC 2.6, 7.1)."""
        if address not in self._owners:
            if len(self._owners) > 1_000_000:
                self._owners.clear()
            own = longest_prefix_owner(self._own_prefixes, address)
            self._owners[address] = own or longest_prefix_owner(self._peers_prefixes, address)
        return self._owners[address]

    # --- Section 4: one side's judgement

    def _judge_icmp_error(self, side: Side, error: Packet, now: int) -> SideVerdict:
        """SPEC 4.6, R10: the connection must be this side's, so this side's instance has an end of it."""
        if self._is_stateless(side):
            return self._judge_by_rules_alone(side, error)
        quoted = quoted_flow(error)
        if quoted is not None and quoted.sender[0] == error.dst:
            connection = self._connection(side, quoted, now)
            if connection is not None and not connection.disconnected:
                return side.allow("related", connection.rule)
        return side.deny("invalid")

    def _judge_side(self, side: Side, case: Case) -> SideVerdict:
        case.transition = None
        if self._is_stateless(side):
            return self._judge_statelessly(side, case)
        connection = self._connection(side, case.flow, case.now)  # SPEC 4.1
        if connection is not None and connection.disconnected:  # SPEC 4.2, 6.4
            return side.deny("disconnected", connection.rule)
        if case.packet.protocol == TCP and tcp_kind(case.packet.tcp_flags) is None:  # SPEC 4.5, 4.7
            return side.deny("invalid")
        if connection is None:
            return self._judge_unknown(side, case)
        if case.packet.protocol == TCP:
            return self._judge_known_tcp(side, case, connection)
        # Every packet is valid for a connection of another protocol (SPEC 4.3, 5.6, 5.7).
        if case.flow.sender != connection.opener.initiator:
            self._note_reply(connection, case)
            if connection.state == "one-way":
                connection.state = "both-ways"
        connection.deadline = case.now + self._timeout[connection.state]
        return side.allow("established", connection.rule)

    def _judge_known_tcp(self, side: Side, case: Case, connection: Connection) -> SideVerdict:
        """SPEC 4.3 to 4.5, 5.4, 5.5."""
        kind = tcp_kind(case.packet.tcp_flags) or ""
        direction = "original" if case.flow.sender == connection.opener.initiator else "reply"
        old, new = connection.state, TCP_TABLE[direction, kind][connection.state]
        transition = case.transition = (old, f"{direction} {kind}", new)
        if old in ("TW", "CL") and new == "SS":  # SPEC 4.4, 5.5: a new opener for a finished connection
            self._forget(side, case.flow)
            if not case.forgot_old:
                self._entries[case.flow.key].answered = False
                self._entries[case.flow.key].created = self._packets
            case.forgot_old = True
            verdict = self._judge_unknown(side, case)
            case.transition = transition
            return verdict
        if new == "IV":  # SPEC 4.5
            return side.deny("invalid")
        if kind == "rst" and not connection.replied:  # SPEC 5.4: refused
            self._forget(side, case.flow)
            return side.allow("established", connection.rule)
        if direction == "reply":
            self._note_reply(connection, case)
        is_retransmitted_syn = kind == "syn" and new == old
        if new != "IG" and not is_retransmitted_syn:
            connection.state = new
            connection.deadline = case.now + self._timeout[new]
        return side.allow("established", connection.rule)

    def _note_reply(self, connection: Connection, case: Case) -> None:
        connection.replied = True
        self._entries[case.flow.key].answered = True

    def _judge_unknown(self, side: Side, case: Case) -> SideVerdict:
        """There is no connection (SPEC 4.7, 4.8)."""
        packet = case.packet
        if packet.can_open:
            self._note_opener(case)
            state = "SS" if packet.protocol == TCP else "icmp" if packet.is_icmp else "one-way"
            if packet.protocol == TCP:
                case.transition = ("NO", "original syn", state)
            opener = Opener(
                packet.version, packet.protocol, case.flow.sender, case.flow.receiver, side.leaving,
                packet.icmp_type, packet.icmp_code, state, inferred=False,
            )  # fmt: skip
            return self._judge_opener(side, case, opener)
        if packet.protocol != TCP:
            return side.deny("invalid")
        if self._may_infer(case):
            return self._judge_opener(side, case, self._inferred_opener(side, case))
        return side.deny("midstream")

    def _judge_opener(self, side: Side, case: Case, opener: Opener) -> SideVerdict:
        """The rules, and room in the table, decide whether there will be a connection (SPEC 4.8, 5.8)."""
        winner = self._winning_rule(side, opener)
        if winner is None or winner.rule.action == "deny":
            case.opener_denied = True
            case.opener_refused = case.opener_refused or not opener.inferred
            return side.deny("no-rule") if winner is None else side.deny("deny-rule", winner)
        entry = self._entry_to_create_in(case.flow.key, case.now)
        if entry is None:
            case.opener_denied = True
            return side.deny("table-full")
        deadline = case.now + self._timeout[opener.state]
        entry.sides[side.instance.name] = Connection(opener, opener.state, winner, deadline, opener.inferred)
        entry.answered |= opener.inferred
        case.created.append(winner.rule.id)
        return side.allow("inferred" if opener.inferred else "rule", winner)

    # --- Stateless groups, as Neutron has them: no connections, every packet meets the rules of its direction

    def _is_stateless(self, side: Side) -> bool:
        return any(not self.policy.group_by_name[name].stateful for name in side.instance.security_groups)

    def _judge_by_rules_alone(self, side: Side, packet: Packet) -> SideVerdict:
        as_opener = Opener(
            packet.version, packet.protocol, (packet.src, packet.sport), (packet.dst, packet.dport), side.leaving,
            packet.icmp_type, packet.icmp_code, state="", inferred=False,
        )  # fmt: skip
        winner = self._winning_rule(side, as_opener)
        if winner is None:
            return side.deny("no-rule")
        return side.deny("deny-rule", winner) if winner.rule.action == "deny" else side.allow("rule", winner)

    def _judge_statelessly(self, side: Side, case: Case) -> SideVerdict:
        """A denied SYN makes its key moot as anywhere (SPEC 9.2). Of other protocols nothing tells a request from its
        answer: had the answer been denied, the requests would have been sent all the same."""
        verdict = self._judge_by_rules_alone(side, case.packet)
        if case.packet.can_open:
            self._note_opener(case)
            if verdict.verdict == "deny":
                case.opener_denied = True
                case.opener_refused = case.opener_refused or case.packet.protocol == TCP
        return verdict

    # --- Rules (SPEC 4.9 to 4.11)

    def _winning_rule(self, side: Side, opener: Opener) -> GroupRule | None:
        groups = [group for group in self.policy.security_groups if group.name in side.instance.security_groups]
        matching = [
            GroupRule(group.name, rule) for group in groups for rule in group.rules if self._matches(rule, side, opener)
        ]
        # SPEC 4.10; of equals, min takes the first.
        return min(matching, key=lambda named: (named.rule.priority, named.rule.action != "deny"), default=None)

    def _matches(self, rule: Rule, side: Side, opener: Opener) -> bool:
        dport = opener.responder[1] or 0
        return (
            rule.direction == ("outbound" if opener.outbound else "inbound")
            and rule.ethertype == opener.version
            and rule.protocol in (None, opener.protocol)
            and (rule.ports is None or any(first <= dport <= last for first, last in rule.ports))
            and rule.icmp_type in (None, opener.icmp_type)
            and rule.icmp_code in (None, opener.icmp_code)
            and self._peer_matches(rule, side)
        )

    def _peer_matches(self, rule: Rule, side: Side) -> bool:
        if rule.peer is None:
            return True
        if isinstance(rule.peer, GroupPeer):
            return self._is_reachable_member(rule.peer.name, side)
        if isinstance(rule.peer, AddressGroupPeer):
            return any(side.peer in network for network in self.policy.address_group_by_name[rule.peer.name].addresses)
        return side.peer in rule.peer

    def _is_reachable_member(self, group: str, side: Side) -> bool:
        """Whether the peer is an instance in that group, in the same region and an accessible VPC (SPEC 4.11)."""
        peer = side.peer_instance
        if peer is None or group not in peer.security_groups:
            return False
        vpcs = self.policy.vpc_by_name
        same_region = vpcs[peer.vpc].region == vpcs[side.instance.vpc].region
        return same_region and self.policy.connected(peer.vpc, side.instance.vpc)

    # --- Connections older than the capture (SPEC 9.3, R3)

    def _note_opener(self, case: Case) -> None:
        if case.packet.protocol != TCP or self.midstream == "deny":
            return
        self._openers_seen.pop(case.flow.key, None)
        self._openers_seen[case.flow.key] = None
        if len(self._openers_seen) > max(self.policy.settings.max_connections, LEAST_OPENERS_SEEN):
            del self._openers_seen[next(iter(self._openers_seen))]

    def _may_infer(self, case: Case) -> bool:
        if self.midstream == "deny" or tcp_kind(case.packet.tcp_flags) not in INFERRED_STATE:
            return False
        within_window = case.now - (self.clock.first or 0) < self._tcp_established
        return case.flow.key not in self._openers_seen and (within_window or self.midstream == "allow")

    def _inferred_opener(self, side: Side, case: Case) -> Opener:
        kind = tcp_kind(case.packet.tcp_flags) or ""
        sender, receiver = case.flow.sender, case.flow.receiver
        sender_initiated = kind != "synack" and (sender[1] or 0) >= (receiver[1] or 0)
        initiator, responder = (sender, receiver) if sender_initiated else (receiver, sender)
        case.transition = ("NO", f"{'original' if sender_initiated else 'reply'} {kind}", INFERRED_STATE[kind])
        return Opener(
            case.packet.version, TCP, initiator, responder, side.leaving == sender_initiated, None, None,
            INFERRED_STATE[kind], inferred=True,
        )  # fmt: skip

    # --- Section 9.4: fragments

    def _judge_fragment(self, packet: Packet, fragment: Fragment, now: int) -> PacketVerdict:
        datagram = self._datagrams.find(fragment)
        if datagram is not None and datagram.is_contradicted_by(fragment):
            self._give_up([datagram])
            datagram.fragments.clear()
            datagram.spoiled = True
        if datagram is not None and datagram.spoiled:
            return self._deny_fragment(packet)
        if datagram is not None and datagram.verdict is not None and fragment in datagram.fragments:
            return as_first(datagram.verdict)
        while not self._datagrams.has_room(fragment):
            self._give_up([self._datagrams.take_oldest()])  # it may be this one's own: then another one begins
        datagram = self._datagrams.remember(fragment, now)
        if not packet.is_later_fragment:
            verdict = datagram.verdict = self._judge_packet(packet, now)
            for packet_number, later in datagram.take_pending():
                self._resolved.append((packet_number, with_headers(later, as_first(verdict))))
        elif datagram.verdict is not None:
            verdict = as_first(datagram.verdict)
        else:
            datagram.pending.append((self._packets, packet))
            return PacketVerdict("pending", None)
        if datagram.is_whole:
            self._datagrams.forget(fragment)
        return verdict

    def _give_up(self, datagrams: Iterable[Datagram[Packet, PacketVerdict]]) -> None:
        """Their first fragment comes too late, if at all, or their parts contradict each other."""
        for datagram in datagrams:
            for packet_number, packet in datagram.take_pending():
                self._resolved.append((packet_number, with_headers(packet, self._deny_fragment(packet))))

    def _deny_fragment(self, packet: Packet) -> PacketVerdict:
        """What no filter sees is not denied even so (SPEC 3.3)."""
        sides = self._sides(packet)
        return PacketVerdict(sides, None) if isinstance(sides, str) else deny_at_once(*sides, "fragment")

    def resolved(self) -> list[tuple[int, PacketVerdict]]:
        """Those that were pending and are no longer: number, from 1, of the packet and its verdict; in that order.

        Each is told of once.
        """
        told, self._resolved = sorted(self._resolved, key=lambda numbered: numbered[0]), []
        return told

    def finish(self) -> None:
        """The capture ends: what is pending is given up."""
        self._give_up(self._datagrams.take_waiting())

    # --- Section 6: changes while traffic flows

    def apply(self, changes: Change | Iterable[Change], now_ns: int) -> Applied:
        """Change the policy before the next packet: all of the changes as one, or PolicyError and nothing at all.

        ``now_ns`` is the time at which that happens, on the clock of SPEC 9.1; it does not move the clock.
        """
        listed = list(changes) if isinstance(changes, Iterable) else [changes]
        changed = apply_changes(self.policy, listed)
        if changed.policy is self.policy:
            return Applied()
        self._give_up(self._datagrams.take_over(now_ns, self._packets))  # by the policy that was
        # The last thing that may be refused; nothing has changed so far.
        self._own_prefixes, self._peers_prefixes = visible_prefixes(changed.policy, self.vpc)
        self._owners = {}
        self.policy = changed.policy
        self._forget_lost_sides({change.instance for change in listed if isinstance(change, RemoveInstance)})
        if changed.only_words:
            return Applied()        # "changing only a description: no change" (SPEC 6.3)
        concerned = changed.instances
        disconnected = [self._disconnect_sides(entry, concerned, now_ns) for entry in self._entries.values()]
        return Applied(sum(disconnected))

    def _forget_lost_sides(self, deleted: set[str]) -> None:
        """SPEC 6.6. An instance that was deleted is another one even if there is one of its name again."""
        for entry in self._entries.values():
            for name, connection in list(entry.sides.items()):
                owner = self._owner(connection.opener.own)
                # Nor does a filter see what both ends of which are its own instance's now: it is local (SPEC 3.3).
                is_local = owner is not None and owner is self._owner(connection.opener.peer)
                if name in deleted or owner is None or owner.name != name or is_local:
                    del entry.sides[name]

    def _disconnect_sides(self, entry: Entry, concerned: set[str], now: int) -> bool:
        """SPEC 6.3, 6.7; whether there was any to disconnect."""
        to_disconnect = [
            connection
            for name, connection in entry.sides.items()
            if now < connection.deadline and not connection.disconnected and self._is_cut(name, connection, concerned)
        ]
        for connection in to_disconnect:
            connection.disconnected = True
        return bool(to_disconnect)

    def _is_cut(self, name: str, connection: Connection, concerned: set[str]) -> bool:
        """What the policy says about a connection of the instance of that name; ``concerned`` are those of SPEC 6.3."""
        on_change = self.policy.settings.on_change
        if on_change == "cut-inbound":
            return name in concerned and not connection.opener.outbound
        if on_change == "cut-unmatched":
            return not self._would_open_today(self.policy.instance_by_name[name], connection.opener)
        return False

    def _would_open_today(self, instance: Instance, opener: Opener) -> bool:
        """Whether the instance's rules allow the opener of one of its connections. Of a query's code nothing is known
        any more; it is 0."""
        if opener.icmp_type is not None and icmp_role(opener.version, opener.icmp_type) == "query":
            opener = replace(opener, icmp_code=0)
        is_no_instance = opener.outbound and is_multicast_or_broadcast(opener.peer)  # SPEC 3.3
        peer_instance = None if is_no_instance else self._owner(opener.peer)
        winner = self._winning_rule(Side(instance, opener.outbound, opener.peer, peer_instance), opener)
        return winner is not None and winner.rule.action == "allow"

    # --- Causal mode (SPEC 9.2, R4)

    def _is_moot(self, packet: Packet, now: int) -> bool:
        own_flow = flow_of(packet)
        flow = own_flow or quoted_flow(packet)
        entry = self._live_entry(flow.key, now) if flow is not None else None
        if entry is None or entry.moot is None or not entry.is_moot(now):
            return False
        if own_flow is None:
            return True
        entry.moot.deadline = now + self._unanswered_timeout(packet)
        return own_flow.sender != entry.moot.initiator or (packet.protocol == TCP and not packet.can_open)

    def _settle_moot(self, case: Case, verdict: PacketVerdict) -> None:
        """After the judgement: a key is no longer moot, or becomes it."""
        packet, now = case.packet, case.now
        entry = self._live_entry(case.flow.key, now)
        both_live = entry is not None and len(entry.live_sides(now)) == 2  # only after a change of the policy (R16)
        if entry is not None and (verdict.verdict == "allow" or both_live):
            entry.moot = None
        if verdict.verdict == "allow" or both_live:
            return
        may_be_moot = packet.protocol == TCP or (packet.protocol in PORT_PROTOCOLS and packet.sport != packet.dport)
        is_moot = entry is not None and entry.is_moot(now)
        if self.mode != "causal" or not case.opener_refused or not may_be_moot or is_moot:
            return
        entry = self._entry_to_create_in(case.flow.key, now)
        if entry is not None:
            entry.moot = Moot(case.flow.sender, now + self._unanswered_timeout(packet))

    def _unanswered_timeout(self, packet: Packet) -> int:
        if packet.protocol == TCP:
            return self._tcp_established
        return self._timeout["icmp"] if packet.is_icmp else self._unidirectional

    # --- Beginnings (SPEC 10.2; R15)

    def _began(self, case: Case, verdict: PacketVerdict, had_entry: bool) -> str | None:
        key, now = case.flow.key, case.now
        begins = bool(case.created or case.opener_denied) and (not had_entry or case.forgot_old)
        entry = self._live_entry(key, now)
        if verdict.verdict == "allow":
            # A denied attempt whose key opens after all is over.
            if not begins and not (case.created and entry is not None and entry.began_denied):
                return None
            if entry is not None:
                entry.began_denied = False
            self._attempts.pop(key, None)
            return "inferred" if verdict.reason == "inferred" else "opened"
        if entry is not None:
            entry.began_denied |= begins
            return "denied" if begins else None
        is_retry = now < self._attempts.get(key, now)
        if is_retry or case.opener_denied:
            self._attempts[key] = now + self._unanswered_timeout(case.packet)
        return "denied" if begins and not is_retry else None

    # --- The table (SPEC 5.8, R5)

    def live_tuples(self) -> int:
        return sum(entry.is_live(self.clock.now or 0) for entry in self._entries.values())

    def _live_entry(self, key: Hashable, now: int) -> Entry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and entry.is_live(now) else None

    def _connection(self, side: Side, flow: Flow, now: int) -> Connection | None:
        """This side's connection, if there is one; at its deadline there is none (SPEC 4.1)."""
        entry = self._entries.get(flow.key)
        connection = entry.sides.get(side.instance.name) if entry is not None else None
        return connection if connection is not None and now < connection.deadline else None

    def _forget(self, side: Side, flow: Flow) -> None:
        del self._entries[flow.key].sides[side.instance.name]

    def _entry_to_create_in(self, key: Hashable, now: int) -> Entry | None:
        """The key's entry, for something new to be put in; None if the table is full."""
        entry = self._live_entry(key, now)
        if entry is None:
            if not self._make_room(now):
                return None
            entry = self._entries[key] = Entry()
        entry.created = self._packets
        return entry

    def _make_room(self, now: int) -> bool:
        limit = self.policy.settings.max_connections
        if len(self._entries) >= limit:
            self._sweep(now)
        if len(self._entries) < limit:
            return True
        evictable = [key for key, entry in self._entries.items() if entry.is_evictable(now)]
        if not evictable:
            return False
        del self._entries[min(evictable, key=lambda key: self._entries[key].created)]
        return True

    def _sweep(self, now: int) -> None:
        """Remove what no longer exists; for memory's sake only."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry.is_live(now)}
        self._attempts = {key: deadline for key, deadline in self._attempts.items() if now < deadline}

    def _sweep_now_and_then(self, now: int) -> None:
        if len(self._entries) + len(self._attempts) >= self._sweep_at:
            self._sweep(now)
            self._sweep_at = 1000 + 2 * (len(self._entries) + len(self._attempts))


# --- 7 Sides and addresses


def both_sides(egress: Side | None, ingress: Side | None, judge: Callable[[Side], SideVerdict]) -> PacketVerdict:
    """Egress first; the ingress side sees only what egress allowed (SPEC 3.7). There is at least one (SPEC 3.3)."""
    egress_verdict = judge(egress) if egress else None
    if egress_verdict and (ingress is None or egress_verdict.verdict == "deny"):
        return PacketVerdict(egress_verdict.verdict, egress_verdict.reason, egress=egress_verdict)
    assert ingress is not None
    ingress_verdict = judge(ingress)
    return PacketVerdict(ingress_verdict.verdict, ingress_verdict.reason, egress_verdict, ingress_verdict)


def as_first(verdict: PacketVerdict) -> PacketVerdict:
    """What the first fragment's verdict is to the others."""
    return PacketVerdict(verdict.verdict, verdict.reason, verdict.egress, verdict.ingress, of_first_fragment=True)


def with_headers(packet: Packet, verdict: PacketVerdict) -> PacketVerdict:
    """The verdict, and what the packet it is about says of itself."""
    verdict.src, verdict.dst, verdict.protocol = str(packet.src), str(packet.dst), packet.protocol
    verdict.sport, verdict.dport = packet.sport, packet.dport
    verdict.icmp_type, verdict.icmp_code = packet.icmp_type, packet.icmp_code
    return verdict


def deny_at_once(egress: Side | None, ingress: Side | None, reason: str) -> PacketVerdict:
    """A denial before section 4 stands on the first side there is (SPEC 10.3, R9)."""
    return both_sides(egress, None if egress else ingress, lambda side: side.deny(reason))


def nanoseconds(seconds: float) -> int:
    return max(1, round(seconds * NANOSECONDS))


def is_multicast_or_broadcast(address: Address) -> bool:
    """SPEC 3.3, R13."""
    return any(address in network for network in NEVER_AN_INSTANCE)


NEVER_AN_INSTANCE = (IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"), IPv6Network("ff00::/8"))

Prefixes = list[tuple[Network, Instance]]


def longest_prefix_owner(prefixes: Prefixes, address: Address) -> Instance | None:
    """SPEC 2.6."""
    owners = [(prefix.prefixlen, instance) for prefix, instance in prefixes if address in prefix]
    return max(owners, key=lambda owner: owner[0])[1] if owners else None


def visible_prefixes(policy: Policy, vpc: str | None) -> tuple[Prefixes, Prefixes]:
    """Where to look an address up, and where if it is not there: a VPC's own, and its peers' (SPEC 7.1, R14)."""
    everything = [(prefix, instance) for instance in policy.instances for prefix in instance.addresses]
    if vpc is None:
        refuse_overlaps(everything)
        return everything, []
    if vpc not in policy.vpc_by_name:
        raise PolicyError(f"{policy.origin}: there is no VPC {vpc!r}")
    own = [(prefix, instance) for prefix, instance in everything if instance.vpc == vpc]
    own_set = {prefix for prefix, _ in own}
    peers = [
        (prefix, instance)
        for prefix, instance in everything
        if instance.vpc != vpc and policy.connected(vpc, instance.vpc) and not own_set.intersection(supernets(prefix))
    ]
    refuse_overlaps(peers)
    return own, peers


def supernets(prefix: Network) -> list[Network]:
    """All prefixes that contain this one, itself included."""
    return [prefix.supernet(new_prefix=length) for length in range(prefix.prefixlen + 1)]


def refuse_overlaps(prefixes: Prefixes) -> None:
    """No address may belong to instances of two VPCs (SPEC 7.1)."""
    owners: dict[Network, list[Instance]] = {}
    for prefix, instance in prefixes:
        owners.setdefault(prefix, []).append(instance)
    if len({instance.vpc for _, instance in prefixes}) < 2:
        return
    for prefix, instance in prefixes:
        for outer in supernets(prefix):
            for other in owners.get(outer, ()):
                if other.vpc != instance.vpc:
                    raise PolicyError(
                        f"{prefix} of {instance.name!r} (VPC {instance.vpc!r}) overlaps {outer} of {other.name!r} "
                        f"(VPC {other.vpc!r}): say which VPC the capture was taken in, with --vpc"
                    )

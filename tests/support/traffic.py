"""Random policies and traffic for the differential tests: Hypothesis draws the policy and a seed, NumPy the packets.

Traffic consists of many conversations. Most of their packets are valid, so that connections exist. Some packets are
odd: unusual flags, answers without a request, errors that quote other packets, broken headers, and silences just below
and above every timeout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import frames as wire
import numpy as np
from captures import pcap_head, pcap_record
from datagrams import Datagram, cut
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from sgfast import Policy
from sgfast.policy.model import (
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Network,
    Rule,
    SecurityGroup,
    Settings,
    Timeouts,
    Vpc,
)

SECOND = 10**9
PORTS = (22, 80, 443, 5432, 1, 65535, 0, 8080)
NETWORKS = {
    4: ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/25", "10.0.1.0/24", "198.51.100.0/24", "198.51.100.7/32",
        "10.0.0.5/32", "128.0.0.0/1", "198.51.100.128/31"),
    6: ("::/0", "2001:db8::/32", "2001:db8::/64", "2001:db8:0:1::/64", "2001:db8:9::/48", "2001:db8:9::7/128",
        "2001:db8::5/128", "8000::/1", "2001:db8:9::80/127", "2001:db8::/33"),
}  # fmt: skip
OUTSIDE = {
    4: ("198.51.100.7", "198.51.100.128", "198.51.100.129", "198.51.100.130", "10.0.0.200", "203.0.113.1", "10.0.1.77"),
    6: ("2001:db8:9::7", "2001:db8:9::80", "2001:db8:9::81", "2001:db8:9::82", "2001:db8::200", "2a00::1",
        "2001:db8:0:1::77"),
}  # fmt: skip
ODD_DESTINATIONS = {4: ("224.0.0.251", "255.255.255.255", "10.0.0.255"), 6: ("ff02::fb", "ff05::2")}
GROUPS = ("alpha", "beta", "gamma")
#: For ``routed``: the group that rules name, and each choice of its routers' VPCs and networks.
ROUTERS = "routers"
ROUTED: tuple[tuple[tuple[str, str], ...], ...] = (
    (("red", "10.0.0.0/25"), ("red", "10.0.0.0/28"), ("red", "2001:db8::/64")),
    (("red", "10.0.0.0/25"), ("green", "10.0.1.0/24"), ("green", "10.0.1.0/29"), ("green", "2001:db8:0:1::/80")),
    (("red", "0.0.0.0/0"), ("red", "10.0.0.0/8"), ("red", "::/0"), ("red", "2001:db8::/33"), ("red", "10.0.0.4/30")),
)  # fmt: skip


# Policies


@st.composite
def rules(draw: st.DrawFn, group: str, number: int) -> Rule:
    family = draw(st.sampled_from((4, 4, 6)))
    icmp = 1 if family == 4 else 58
    protocol = draw(st.sampled_from((None, 6, 6, 6, 17, 17, icmp, icmp, 132, 33, 136, 47, 50)))
    ports = icmp_type = icmp_code = None
    if protocol in (6, 17, 132, 33, 136) and draw(st.integers(0, 3)):
        bounds = draw(st.lists(st.tuples(st.sampled_from(PORTS[:7]), st.sampled_from((0, 0, 1, 400))), min_size=1,
                               max_size=3))  # fmt: skip
        ports = _disjoint([(first, min(first + more, 65535)) for first, more in bounds])
    if protocol == icmp and draw(st.booleans()):
        icmp_type = draw(st.sampled_from((8, 13, 128, 9, 144, 0)))
        icmp_code = draw(st.sampled_from((None, 0, 1)))
    peer = draw(
        st.one_of(
            st.none(),
            st.sampled_from(NETWORKS[family]).map(ip_network),
            st.sampled_from(GROUPS).map(GroupPeer),
            st.just(AddressGroupPeer("offices")),
        )
    )
    direction = draw(st.sampled_from(("inbound", "inbound", "outbound")))
    return Rule(
        id=f"{group}/{direction}/{number}", direction=direction, ethertype=family, protocol=protocol, ports=ports,
        icmp_type=icmp_type, icmp_code=icmp_code, peer=peer,
        action=draw(st.sampled_from(("allow", "allow", "deny"))), priority=draw(st.sampled_from((1, 1, 2, 100))),
    )  # fmt: skip


def _disjoint(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Draw three groups, up to six instances in up to three VPCs, short timeouts, and sometimes a tiny table."""
    groups = []
    # Some groups are occasionally stateless. All groups of an instance are stateful, or all are stateless.
    stateless = draw(st.sampled_from(((),) * 9 + (("gamma",), ("beta", "gamma"), GROUPS)))
    for name in GROUPS:
        # Most groups have rules that allow any traffic. Otherwise no connection would ever be established.
        base = [
            Rule(id=f"{name}/open/{n}", direction=direction, ethertype=family)
            for n, (direction, family) in enumerate((("outbound", 4), ("outbound", 6), ("inbound", 4), ("inbound", 6)))
            if draw(st.integers(0, 9)) < (9 if direction == "outbound" else 6)
        ]
        drawn = [draw(rules(name, n)) for n in range(draw(st.integers(2, 9)))]
        listed = tuple(drawn + base if draw(st.booleans()) else base + drawn)
        groups.append(SecurityGroup(name, listed, stateful=name not in stateless))
    regions = draw(st.sampled_from((("", "", ""), ("", "north", ""), ("north", "south", "north"))))
    vpcs = tuple(Vpc(name, region) for name, region in zip(("red", "green", "blue"), regions, strict=True))
    peerings = frozenset(
        frozenset(pair) for pair in (("red", "green"), ("green", "blue"), ("red", "blue")) if draw(st.integers(0, 2))
    )
    instances = []
    for n in range(draw(st.integers(1, 6))):
        hosts = (f"10.0.{n % 2}.{5 + n}/32", f"2001:db8:0:{n % 2}::{5 + n}/128")
        addresses: list[Network] = list(map(ip_network, hosts))
        if draw(st.integers(0, 5)) == 0:
            addresses += [ip_network(f"10.{n + 1}.0.0/16"), ip_network(f"2001:db8:{n + 0x100:x}::/48")]
        kinds = [kind for kind in (stateless, tuple(set(GROUPS) - set(stateless))) if kind]
        kind = draw(st.sampled_from([sorted(kind) for kind in kinds]))
        members = draw(st.lists(st.sampled_from(kind), min_size=1, max_size=3, unique=True))
        vpc = draw(st.sampled_from(("red", "red", "red", "green", "blue")))
        instances.append(Instance(f"i{n}", vpc, tuple(addresses), tuple(members)))
    if draw(st.booleans()):
        # A router owns the addresses of a network that no other instance owns.
        instances.append(Instance("router", "red", (ip_network("10.0.0.0/24"),), ("alpha",)))
        instances = [
            i if i.name == "router" or not i.addresses[0].subnet_of(ip_network("10.0.0.0/24"))  # type: ignore[arg-type]
            else Instance(i.name, "red", i.addresses, i.security_groups)
            for i in instances
        ]  # fmt: skip
    brief, briefer, briefest = (20, 3, 2, 3, 8, 4), (2, 5, 3, 1.5, 1, 2), (0.001, 1, 1, 1, 1, 1)
    timeouts = draw(st.sampled_from(((), (), brief, brief, briefer, briefest)).map(lambda seconds: Timeouts(*seconds)))
    return Policy(
        vpcs=vpcs,
        peerings=peerings,
        address_groups=(AddressGroup("offices", tuple(map(ip_network, ("198.51.100.0/25", "2001:db8:9::/121")))),),
        security_groups=tuple(groups),
        instances=tuple(instances),
        settings=Settings(
            profile="aws",  # the profile that allows port 0; the policies are otherwise the same under every profile
            timeouts=timeouts,
            max_connections=draw(st.sampled_from((1_000_000,) * 11 + (40, 5, 1))),
            infrastructure=draw(st.sampled_from(("exempt", "by-role", "filtered"))),
        ),
    )


def routed(policy: Policy, rng: np.random.Generator) -> Policy:
    """Add routers to a policy. Their networks contain each other and instances. Some routers are in a group that rules
    name as peer, and whose members may include all addresses in their networks (SPEC 4.14).
    """

    def pick(items: Any) -> Any:
        return items[int(rng.integers(len(items)))]

    named = [
        replace(group, rules=(
            *(Rule(f"{group.name}/{ROUTERS}/{direction}/{n}", direction, family, peer=GroupPeer(ROUTERS),   # type: ignore[arg-type]
                   action=pick(("allow", "deny")), priority=pick((1, 2)))
              for n, (direction, family) in enumerate((("inbound", 4), ("inbound", 6), ("outbound", 4)))
              if rng.integers(2)),
            *group.rules,
        )) for group in policy.security_groups
    ]  # fmt: skip
    of_routers = tuple(
        Rule(f"{ROUTERS}/{direction}/{family}", direction, family)  # type: ignore[arg-type]
        for direction in ("inbound", "outbound")
        for family in (4, 6)
    )
    instances = list(policy.instances)
    for n, (vpc, written) in enumerate(pick(ROUTED)):
        network: Any = ip_network(written)
        # Instances inside the network move to the router's VPC, because no address may belong to two VPCs.
        instances = [
            replace(each, vpc=vpc) if any(a.version == network.version and a.subnet_of(network) for a in each.addresses)
            else each for each in instances
        ]  # fmt: skip
        instances.append(Instance(f"{ROUTERS}{n}", vpc, (network,), (pick((ROUTERS, ROUTERS, *GROUPS)),)))
    return replace(
        policy,
        security_groups=(*named, SecurityGroup(ROUTERS, of_routers)),
        instances=tuple(instances),
        settings=replace(policy.settings, group_members=pick(("by-address", "by-address", "by-owner"))),
    )


def drawn(seed_value: int, examples: int) -> Callable[[Callable[[Policy, int], None]], Callable[[], None]]:
    """Run a test for ``examples`` policies and seeds. They are the same in each run, so that failures are
    reproducible."""

    def decorate(test: Callable[[Policy, int], None]) -> Any:
        @seed(seed_value)
        @settings(
            max_examples=examples, database=None, deadline=None, phases=(Phase.generate,), print_blob=False,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(policies(), st.integers(0, 2**32 - 1))
        @wraps(test)
        def run(policy: Policy, case_seed: int) -> None:
            note(f"case seed {case_seed}")
            print(f"case seed {case_seed}")
            test(policy, case_seed)

        return run

    return decorate


# Traffic


def stateful(policy: Policy) -> Policy:
    """Make all groups stateful, for tests of connections, which stateless groups do not have."""
    return replace(policy, security_groups=tuple(replace(group, stateful=True) for group in policy.security_groups))


@dataclass
class Conversation:
    family: int
    protocol: int
    #: Address and port of the two ends; end 0 sends the first packet.
    ends: tuple[tuple[str, int], tuple[str, int]]
    identifier: int
    last_ns: int
    script: tuple[tuple[int, str], ...]
    step: int = 0
    last_frame: bytes = b""
    last_way: int = 0


@dataclass
class Traffic:
    """Frames in capture order."""

    frames: list[bytes] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    wire_lengths: list[int] = field(default_factory=list)


# A complete TCP conversation: the sending end and the flags of each packet.
TCP_SCRIPT = ((0, "S"), (1, "SA"), (0, "A"), *(((0, "PA"), (1, "A"), (1, "PA"), (0, "A")) * 5), (0, "FA"), (1, "A"),
              (1, "FA"), (0, "A"), (1, "A"), (0, "A"))  # fmt: skip
# Both ends send a SYN at the same time, and the conversation ends soon after.
TCP_BOTH_OPEN = ((0, "S"), (1, "S"), (1, "S"), (0, "S"), (0, "SA"), (1, "SA"), (0, "A"), (1, "A"), (0, "FA"), (1, "FA"),
                 (0, "A"), (1, "A"))  # fmt: skip
TCP_ODD = ("S", "S", "SA", "A", "FA", "FA", "R", "RA", "", "SF", "SR", "F", "FPU", "SU", "AU", "FAU", "SE", "P", "RF",
           "SAEC")  # fmt: skip
PROTOCOLS = (6, 6, 6, 6, 6, 17, 17, 17, 1, 1, 132, 33, 136, 47, 50, 253)


class Crowd:
    """Draw traffic that a policy's rules apply to. All draws come from ``rng``, so a seed determines the traffic."""

    def __init__(self, policy: Policy, rng: np.random.Generator, *, fragments: bool = False, few: bool = False) -> None:
        """``fragments``: some packets are fragmented. ``few``: use two addresses of each family inside and two
        outside."""
        self.policy = policy
        self.fragments = fragments
        self.rng = rng
        self._draws: list[int] = []
        self.now = 1_700_000_000 * SECOND + int(rng.integers(0, SECOND))
        self.start = self.now
        self.inside: dict[int, list[str]] = {4: [], 6: []}
        for instance in policy.instances:
            for network in instance.addresses:
                size = network.num_addresses
                hosts = [network[0], network[-1]] if size < 3 else [network[1], network[57 % size]]
                self.inside[network.version] += sorted({str(host) for host in hosts})
        #: The instance that each inside address was taken from. Other addresses get an object that equals nothing.
        self.instance: defaultdict[str, Any] = defaultdict(object)
        for instance in policy.instances:
            for network in instance.addresses:
                for host in self.inside[network.version]:
                    if ip_address(host) in network:
                        self.instance.setdefault(host, instance.name)
        self.outside = OUTSIDE
        if few:
            self.inside = {family: hosts[:2] for family, hosts in self.inside.items()}
            self.outside = {family: hosts[:2] for family, hosts in OUTSIDE.items()}
        self.conversations: list[Conversation] = []
        #: Fragments that are not sent yet.
        self.pieces: list[bytes] = []
        t = policy.settings.timeouts
        self.patience = round(min(t.tcp_other, t.tcp_established) * SECOND)
        self.silences = [
            round(seconds * SECOND) + nudge
            for seconds in (t.tcp_established, t.tcp_fin_wait, t.tcp_other, t.icmp, t.bidirectional, t.unidirectional)
            for nudge in (-1, 0, 1)
        ]

    def below(self, n: int) -> int:
        if not self._draws:
            self._draws = self.rng.integers(0, 1 << 40, 4096).tolist()
        return self._draws.pop() % n

    def pick(self, items: Any) -> Any:
        return items[self.below(len(items))]

    def address(self, family: int) -> str:
        roll = self.below(20)
        if roll < 12 and self.inside[family]:
            return str(self.pick(self.inside[family]))
        return str(self.pick(ODD_DESTINATIONS[family])) if roll == 19 else str(self.pick(self.outside[family]))

    def begin(self) -> Conversation:
        family = 4 if self.below(3) else 6
        protocol = self.pick(PROTOCOLS)
        if protocol == 1 and (self.below(8) if family == 6 else not self.below(12)):
            protocol = 58
        client, server = self.address(family), self.address(family)
        if self.inside[family] and self.below(20):
            # Usually at least one end is inside, and the ends are different instances. Otherwise no filter judges.
            if self.below(2):
                server = str(self.pick(self.inside[family]))
            else:
                client = str(self.pick(self.inside[family]))
            while self.instance[server] == self.instance[client] and self.below(30):
                client = self.address(family)
        service = self.pick(PORTS)
        port = service if not self.below(15) else self.pick((1024, 40000, 40001, 65535, 30000 + self.below(30)))
        if protocol == 17 and not self.below(12):
            port, service = (68, 67) if family == 4 else (546, 547)
        conversation = Conversation(
            family, protocol, ((client, port), (server, service)), self.below(4), self.now,
            TCP_SCRIPT if self.below(8) else TCP_BOTH_OPEN,
        )  # fmt: skip
        if not self.below(6):
            conversation.step = 1 + self.below(8)  # began before the capture
        return conversation

    def _transport(self, c: Conversation, way: int, odd: bool) -> wire.Layer:
        (_, sport), (_, dport) = (c.ends[way], c.ends[1 - way])
        payload = bytes(self.below(3) * 4)
        if c.protocol == 6:
            flags = self.pick(TCP_ODD) if odd else c.script[c.step % len(c.script)][1]
            offset = self.pick((4, 5, 6, 15)) if odd and not self.below(8) else 5
            return wire.tcp(sport, dport, flags, payload, data_offset=offset)
        if c.protocol == 17:
            length = self.pick((0, 7, 8, 9, 2000)) if odd and not self.below(4) else None
            return wire.udp(sport, dport, payload, length=length)
        if c.protocol in (132, 33, 136):
            return {132: wire.sctp, 33: wire.dccp, 136: wire.udplite}[c.protocol](sport, dport, payload)
        if c.protocol == 1:
            kind = self.pick((0, 8, 13, 14, 15, 16, 17, 18, 9, 10, 3, 5, 4, 11, 12, 42)) if odd else (8, 0)[way]
            return wire.icmp(kind, self.below(2) if odd else 0, c.identifier, payload)
        if c.protocol == 58:
            kinds = (1, 2, 127, 128, 129, 130, 131, 133, 134, 135, 137, 143, 144, 255)
            kind = self.pick(kinds) if odd else (128, 129)[way]
            return wire.icmpv6(kind, self.below(2) if odd else 0, c.identifier, payload)
        return wire.other(c.protocol, payload)

    def _ip(self, family: int, src: str, dst: str, layer: wire.Layer, odd: bool) -> wire.Layer:
        options: dict[str, Any] = {}
        roll = self.below(6) if odd else 99
        if family == 4:
            if roll == 0:
                options["total_length"] = self.pick((0, 19, 20, 21, 28, 39, 40, 60, 5000))
            elif roll == 1:
                options["header_words"] = self.pick((4, 5, 6, 15))
            elif roll == 2 and self.fragments:
                options["fragment_offset"] = self.pick((0, 1, 8, 185))
                options["more_fragments"] = bool(self.below(2))
            return wire.ipv4(src, dst, layer, **options)
        if roll == 0:
            options["payload_length"] = self.pick((0, 7, 8, 19, 20, 28, 5000))
        elif roll == 1:
            parts = (wire.fragment(0, True), wire.fragment(8, False)) if self.fragments else (wire.extension(135),) * 2
            options["extensions"] = [
                self.pick((wire.extension(0), wire.extension(60, 16), wire.extension(43, 8, claimed_size=800),
                           wire.fragment(0, False), *parts))
                for _ in range(1 + self.below(3))
            ]  # fmt: skip
        if layer.protocol == 58 and self.below(2):
            options["hop_limit"] = 255
        return wire.ipv6(src, dst, layer, **options)

    def _link(self, packet: wire.Layer) -> bytes:
        roll = self.below(60)
        if roll == 0:
            return wire.ethernet(wire.vlan(packet))
        if roll == 1:
            return wire.ethernet(wire.vlan(wire.vlan(packet), tpid=0x88A8))
        if roll == 2:
            return wire.ethernet(wire.mpls(packet, 1 + self.below(3)))
        if roll == 3:
            return wire.ethernet(wire.pppoe(packet))
        if roll < 6:
            return wire.ethernet(packet, self.pick((0x0806, 0x86DD, 0x0800, 0x88CC, 0x0026)))
        return wire.ethernet(packet, padding=self.below(2) * 6)

    def _quoting(self, c: Conversation) -> bytes:
        """Return an ICMP error about the conversation's last packet, usually from its destination to its source."""
        outer = c.last_frame[14:]
        family = outer[0] >> 4 if outer else 0
        if family not in (4, 6):
            return c.last_frame
        source, destination = (str(ip_address(end)) for end in wire.ends_of(outer))
        sender = self.pick((destination, destination, destination, self.pick(OUTSIDE[family]),
                            self.pick(self.inside[family] or OUTSIDE[family])))  # fmt: skip
        receiver = source if self.below(8) else self.address(family)
        size = self.pick((28, 28, 28, 20, 24, 22, 64)) if family == 4 else self.pick((1232, 1232, 48, 44, 40, 42))
        if family == 4:
            error = wire.icmp_error(self.pick((3, 3, 4, 5, 11, 12)), self.below(3), outer, quoted_bytes=size)
        else:
            error = wire.icmpv6_error(self.pick((1, 1, 2, 3, 4, 100)), self.below(3), outer, quoted_bytes=size)
        return wire.ethernet(self._ip(family, sender, receiver, error, not self.below(30)))

    def _cut(self, c: Conversation, way: int) -> list[bytes]:
        """Return a packet in fragments, most of which are valid."""
        layer = self._transport(c, way, False)
        layer = wire.Layer(layer + bytes(8 * (1 + self.below(12))), layer.protocol)
        whole = Datagram(c.ends[way][0], c.ends[1 - way][0], layer, self.below(5))
        spelled = cut(len(layer), *(8 * (1 + self.below(8)) for _ in range(1 + self.below(3))))
        roll = self.below(8)
        if roll == 0:
            spelled.pop(self.below(len(spelled)))
        elif roll == 1:
            spelled.insert(self.below(len(spelled) + 1), self.pick(spelled))
        elif roll == 2:
            first = 8 * self.below(6)
            spelled.insert(self.below(len(spelled) + 1), f"{first}-{first + 1 + self.below(24)}{self.pick(('', '+'))}")
        if self.below(2):
            order = self.rng.permutation(len(spelled))
            spelled = [spelled[n] for n in order]
        return [self._link(whole.piece(word)) for word in spelled]

    def draw(self, count: int) -> Traffic:
        traffic = Traffic()
        for _ in range(count):
            if self.pieces and self.below(3):
                frame = self.pieces.pop(0 if self.below(8) else self.below(len(self.pieces)))
                self.now += self.pick((0, 1000, 1000, 2_000_000))
                if not self.below(200):
                    self.now += self.pick((29 * SECOND, 30 * SECOND - 1, 30 * SECOND))
                traffic.frames.append(frame)
                traffic.times_ns.append(self.now)
                traffic.wire_lengths.append(len(frame))
                continue
            if not self.conversations or (self.below(30) == 0 and len(self.conversations) < 60):
                self.conversations.append(self.begin())
            if self.below(400) == 0:
                self.conversations.pop(self.below(len(self.conversations)))
                continue
            c = self.conversations[self.below(len(self.conversations))]
            self._pass_time(c)
            roll = self.below(100)
            if self.fragments and roll == 99 and len(self.pieces) < 20:
                way = c.script[c.step % len(c.script)][0] if c.protocol == 6 else c.step % 2
                self.pieces += self._cut(c, way)
                c.step += 1
                continue
            if roll < 4 and c.last_frame:
                frame = self._quoting(c)
            else:
                if self.now - c.last_ns >= self.patience and self.below(4):
                    c.step = 0  # restarts the conversation after a silence
                closing = c.protocol == 6 and c.step % len(c.script) >= len(c.script) - 6
                odd = roll < (40 if closing else 10)
                way = c.script[c.step % len(c.script)][0] if c.protocol == 6 else c.step % 2
                if odd:
                    way = self.below(2)
                frame = self._link(self._ip(c.family, c.ends[way][0], c.ends[1 - way][0],
                                            self._transport(c, way, odd), odd and not self.below(3)))  # fmt: skip
                if not odd:
                    c.step += 1
                elif self.below(40) == 0:
                    c.step = self.below(len(c.script))
                c.last_frame, c.last_way = frame, way
            c.last_ns = self.now
            wire_length = len(frame)
            if self.below(60) == 0:
                frame = frame[: self.below(len(frame) + 1)]
            if self.below(300) == 0:
                wire_length = max(len(frame), wire_length + self.pick((-8, 4, 1000)))
            traffic.frames.append(frame)
            traffic.times_ns.append(self.now + self._jitter())
            traffic.wire_lengths.append(wire_length)
        return traffic

    def _pass_time(self, c: Conversation) -> None:
        roll = self.below(1000)
        if roll < 12:
            # Go to a time just before, at or after a timeout of this conversation, unless that time is past.
            self.now = max(self.now, c.last_ns + self.pick(self.silences))
        elif roll < 14:
            self.now += self.pick((SECOND, 61 * SECOND, 700 * SECOND, 86400 * SECOND))
        elif roll < 800:
            self.now += self.below(2_000_000)

    def _jitter(self) -> int:
        roll = self.below(2000)
        if roll == 0:
            return -self.pick((1, SECOND, 60 * SECOND, 60 * SECOND + 1, 3600 * SECOND))
        return 0


def pcap_of(traffic: Traffic) -> bytes:
    records = [
        pcap_record(frame, time=(time_ns // SECOND, time_ns % SECOND // 1000), wire=wire)
        for frame, time_ns, wire in zip(traffic.frames, traffic.times_ns, traffic.wire_lengths, strict=True)
    ]
    return pcap_head() + b"".join(records)


def as_capture(folder: Path, traffic: Traffic) -> Path:
    path = folder / "traffic.pcap"
    path.write_bytes(pcap_of(traffic))
    return path

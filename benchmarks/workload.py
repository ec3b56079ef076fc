"""Policies and captures for the benchmarks, drawn with NumPy from a seed, with the results that replays must give.

    policy = make_policy()                            1,000 rules in 100 groups, 10,000 instances
    made = make_capture(WORKLOADS["one-side-10k"], policy, folder, packets=10_000_000)
    replay(policy, [made.path]).verdicts["allow"] == made.expected["allow"]

A flow is drawn from a rule that allows it: a rule of one of its instance's groups, and a peer and a port of that rule.
The verdicts for a capture are therefore known without running any engine. To add a workload, add a line to
``WORKLOADS``. To add a kind of traffic, add a branch to ``_steps``.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from ipaddress import IPv4Network, IPv6Network
from itertools import count
from math import comb
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgfast import HEADER_DTYPE, Policy, load
from sgfast.policy.model import TCP, UDP, GroupPeer, Instance, Quotas, Rule, SecurityGroup

Rows = NDArray[Any]
Family = Literal[4, 6]

# Policies ------------------------------------------------------------------------------------------------------------

#: The first instance's address; further instances have the following addresses.
FIRST_INSTANCE = {4: int(IPv4Network("10.32.1.0/32")[0]), 6: int(IPv6Network("2001:db8:32::100/128")[0])}
#: The addresses outside the account. All CIDRs in rules are within this range, and peers of rules that allow any
#: address are drawn from all of it.
OUTSIDE = {4: IPv4Network("128.0.0.0/2"), 6: IPv6Network("2600::/12")}
#: The number of sites that contain all CIDRs. CIDRs nest in sites like the subnets of companies.
SITES = 16
SITE_LENGTH = {4: 16, 6: 32}
#: Prefix lengths, by the purpose of a rule.
LENGTHS = {
    4: {"site": (16, 18, 20), "subnet": (20, 22, 24), "host": (28, 30, 32)},
    6: {"site": (32, 36, 40), "subnet": (44, 48, 56), "host": (60, 64, 128)},
}
#: A TCP port that no rule names, so that flows to it are denied.
DENIED_PORT = 7
#: The client ports, which are Linux's range. They are above every port in a rule, so that no two flows share a key.
CLIENT_PORTS = (32768, 61000)


#: The minimum and maximum number of groups of an instance that is in several.
SEVERAL_GROUPS = (2, 5)
#: The group that rules name as peer if ``make_policy`` is called with ``members``. The group has no rules.
SOURCE_GROUP = "sources"


def make_policy(
    rules: int = 1_000,
    groups: int = 100,
    instances: int = 10_000,
    *,
    family: Family = 4,
    sets: int = 0,
    members: int = 0,
    seed: int = 1,
) -> Policy:
    """Return a policy with ``rules`` in ``groups`` of equal size.

    All rules are allow rules, so that flows drawn from a rule are allowed. Rules have the ids that a document would
    give them (SPEC 2.5), so that ``policy_text`` can be parsed into an equal policy.
    ``sets``: the number of different sets of groups; each instance is in all groups of one set. 0: each instance is in
    one group.
    ``members``: the number of instances, at most all, in the one group that all rules with a group as peer name. 0:
    these rules name various groups.
    """
    if rules % groups or rules < 4 * groups or instances < 2 * groups:
        raise ValueError("rules are a multiple of groups, at least 4 for each; at least 2 instances for each")
    if members == 1:
        raise ValueError("a source group of one member has no flows to that member")
    rng = np.random.default_rng((seed, 1))
    sites = [_subnet(rng, OUTSIDE[family], SITE_LENGTH[family]) for _ in range(SITES)]
    names = [f"group-{number}" for number in range(groups)]
    source = SOURCE_GROUP if members else None
    made = [
        SecurityGroup(name, tuple(_rules(rng, name, names, sites, family, rules // groups, source))) for name in names
    ]
    chosen = _sets(np.random.default_rng((seed, 5)), names, sets) if sets else [(name,) for name in names]
    of_instance = [chosen[n % len(chosen)] for n in range(instances)]
    if members:
        made.append(SecurityGroup(SOURCE_GROUP))
        # The members are spread evenly over all instances, so that all groups have some and few are neighbours.
        for n in np.linspace(0, instances, min(members, instances), endpoint=False).astype(int):
            of_instance[n] += (SOURCE_GROUP,)
    network: type[IPv4Network] | type[IPv6Network] = IPv4Network if family == 4 else IPv6Network
    owned = tuple(
        Instance(f"i-{n}", "default", (network(FIRST_INSTANCE[family] + n),), of) for n, of in enumerate(of_instance)
    )
    quotas = Quotas(security_groups=len(made), rules_per_group=max(len(group.rules) for group in made))
    # A policy made by a program is checked at its first use. Check it now, outside the measurement.
    return load(Policy(security_groups=tuple(made), instances=owned, quotas=quotas))


def _sets(rng: np.random.Generator, names: list[str], wanted: int) -> list[tuple[str, ...]]:
    """Draw different sets of a few ``names`` each, in the order of ``names``."""
    few, most = SEVERAL_GROUPS[0], min(SEVERAL_GROUPS[1], len(names))
    possible = sum(comb(len(names), size) for size in range(few, most + 1))
    if wanted > possible:
        raise ValueError(f"{len(names)} groups make {possible} sets of {few} to {most}, not {wanted}")
    drawn: dict[tuple[str, ...], None] = {}
    while len(drawn) < wanted:
        chosen = rng.choice(len(names), rng.integers(few, most + 1), replace=False)
        drawn[tuple(names[n] for n in sorted(chosen))] = None
    return list(drawn)


def _rules(
    rng: np.random.Generator,
    group: str,
    groups: list[str],
    sites: list[Any],
    family: Family,
    wanted: int,
    source: str | None,
) -> Iterator[Rule]:
    """Yield the usual rules of a group of servers: everything outbound; inbound from members, for services and for
    administration. ``source`` is the only group that a rule may name as peer; None: any group.
    """

    def cidr(kind: str) -> Any:
        return _subnet(rng, sites[rng.integers(SITES)], int(rng.choice(LENGTHS[family][kind])))

    def other() -> GroupPeer:
        return GroupPeer(source or groups[rng.integers(len(groups))])

    def inbound(n: int, protocol: int | None, ports: tuple[tuple[int, int], ...] | None, peer: Any) -> Rule:
        return Rule(f"{group}/inbound/{n}", "inbound", family, protocol, ports, peer=peer)

    yield Rule(f"{group}/outbound/1", "outbound", family)
    yield inbound(1, None, None, GroupPeer(source or group))
    for n in count(2):
        if n == wanted:
            return
        low = int(rng.integers(1024, 32000))
        match n if n < 10 else n % 8 + 2:
            case 2:
                yield inbound(n, TCP, ((443, 443),) if n == 2 else ((low, low),), None)
            case 3:
                yield inbound(n, TCP, ((22, 22),), cidr("host"))
            case 4:
                yield inbound(n, TCP, ((low, low + int(rng.integers(1, 500))),), cidr("subnet"))
            case 5:
                yield inbound(n, TCP, ((80, 80), (8000, 8000 + int(rng.integers(1, 100)))), cidr("site"))
            case 6:
                yield inbound(n, TCP, ((5432, 5432),) if n == 6 else ((low, low),), other())
            case 7:
                yield inbound(n, UDP, ((53, 53), (low, low + 100)), cidr("site"))
            case 8:
                yield inbound(n, UDP, ((low, low),), other())
            case _:
                yield inbound(n, 1 if family == 4 else 58, None, cidr("site"))


def _subnet(rng: np.random.Generator, network: Any, length: int) -> Any:
    """Draw a random subnet of ``network``."""
    width = network.max_prefixlen
    more = int(rng.integers(1 << min(length - network.prefixlen, 62)))
    return type(network)((int(network.network_address) | more << (width - length), length))


def policy_text(policy: Policy) -> str:
    """Return a policy made by ``make_policy`` as a document."""
    protocols = {None: "all", TCP: "tcp", UDP: "udp", 1: "icmp", 58: "icmpv6"}
    lines = ["version: 1", "security_groups:"]
    for group in policy.security_groups:
        lines += [f"  - name: {group.name}", "    rules:"]
        for rule in group.rules:
            line = f"direction: {rule.direction}, ethertype: IPv{rule.ethertype}, protocol: {protocols[rule.protocol]}"
            if rule.ports is not None:
                line += ', ports: "' + ",".join(f"{first}-{last}" for first, last in rule.ports) + '"'
            if rule.peer is not None:
                peer = rule.peer.name if isinstance(rule.peer, GroupPeer) else f'"{rule.peer}"'
                line += f", {'source' if rule.direction == 'inbound' else 'destination'}: {peer}"
            lines.append(f"      - {{{line}}}")
    lines.append("instances:")
    lines += [
        f'  - {{name: {i.name}, addresses: ["{i.addresses[0].network_address}"], security_groups: '
        f"[{', '.join(i.security_groups)}]}}"
        for i in policy.instances
    ]
    return "\n".join(lines) + "\n"


# Flows ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flows:
    """Connections, one row each. Addresses are bytes in network order, (n, 4) or (n, 16)."""

    client: Rows
    server: Rows
    client_port: Rows
    server_port: Rows

    def __len__(self) -> int:
        return len(self.client)


def draw_flows(
    policy: Policy,
    wanted: int,
    *,
    family: Family = 4,
    two_sides: bool = False,
    denied: bool = False,
    foreign: float = 0.0,
    seed: int = 1,
) -> Flows:
    """Draw ``wanted`` different TCP connections to instances, which are chosen with equal probability.

    Each connection matches an inbound rule of one of its instance's groups. ``policy`` must have no deny rules. With
    ``two_sides`` only rules with a group as peer are used and clients are members of it; otherwise clients are outside.
    With ``denied`` connections go to a port that no rule allows. ``foreign`` is the share of connections that match a
    rule of any group instead, and may be denied.
    """
    rng = np.random.default_rng((seed, 2))
    rules = _Openable(policy, family, two_sides)
    kept = np.empty((0, 6), dtype=np.uint64)
    while len(kept) < wanted:
        drawn = rules.draw(rng, wanted - len(kept) + wanted // 1000, foreign)
        kept = np.concatenate([kept, drawn])
        _, first = np.unique(_mixed(kept[:, :5]), return_index=True)  # the server's port does not count
        kept = kept[np.sort(first)[:wanted]]
    server_port = np.full(wanted, DENIED_PORT) if denied else kept[:, 5]
    return Flows(
        _packed(kept[:, 0], kept[:, 1], family),
        _packed(kept[:, 2], kept[:, 3], family),
        kept[:, 4].astype(np.uint16),
        server_port.astype(np.uint16),
    )


class _Openable:
    """The inbound TCP rules from which flows can be drawn, as arrays with a row for each rule and port range."""

    def __init__(self, policy: Policy, family: Family, two_sides: bool) -> None:
        number = {group.name: n for n, group in enumerate(policy.security_groups)}
        ruled = {group.name for group in policy.security_groups if group.rules}
        #: For each instance, the start and the number of its groups with rules in ``ruling``.
        self.ruling = np.array([number[name] for i in policy.instances for name in i.security_groups if name in ruled])
        self.ruling_count = np.array([sum(name in ruled for name in i.security_groups) for i in policy.instances])
        self.ruling_start = np.cumsum(self.ruling_count) - self.ruling_count
        self.groups = len(ruled)
        addresses = [int(i.addresses[0].network_address) for i in policy.instances]
        self.high, self.low = _halves(addresses)
        self.members: list[list[int]] = [[] for _ in number]
        for n, instance in enumerate(policy.instances):
            for name in instance.security_groups:
                self.members[number[name]].append(n)
        self.two_sides = two_sides
        rows: list[tuple[int, int, int, int, int]] = []
        starts = [0]
        for group in policy.security_groups:
            for rule in group.rules:
                if (rule.direction, rule.ethertype) != ("inbound", family) or rule.protocol not in (TCP, None):
                    continue
                if isinstance(rule.peer, GroupPeer) != two_sides:
                    continue
                for first, last in rule.ports or ((1024, 32000),):
                    if isinstance(rule.peer, GroupPeer):
                        rows.append((first, last, number[rule.peer.name], 0, 0))
                    else:
                        peer: Any = rule.peer or OUTSIDE[family]
                        rows.append((first, last, -1, int(peer.network_address), int(peer.hostmask)))
            starts.append(len(rows))
        self.starts = np.array(starts)
        self.first, self.last, self.peer_group = (np.array([row[n] for row in rows]) for n in range(3))
        self.base = _halves([row[3] for row in rows])
        self.free = _halves([row[4] for row in rows])

    def draw(self, rng: np.random.Generator, n: int, foreign: float) -> Rows:
        """Draw an array (n, 6): client address (high, low half), server address (high, low), client port, server
        port."""
        instance = rng.integers(0, len(self.ruling_count), n)
        group = self.ruling[self.ruling_start[instance] + rng.integers(0, self.ruling_count[instance])]
        if foreign:
            group = np.where(rng.random(n) < foreign, rng.integers(0, self.groups, n), group)
        rule = rng.integers(self.starts[group], self.starts[group + 1])
        drawn = np.empty((n, 6), dtype=np.uint64)
        if self.two_sides:
            client = self._member(rng, self.peer_group[rule], instance)
            drawn[:, 0], drawn[:, 1] = self.high[client], self.low[client]
        else:
            for half in (0, 1):
                noise = rng.integers(0, 1 << 64, n, dtype=np.uint64)
                drawn[:, half] = self.base[half][rule] | (noise & self.free[half][rule])
        drawn[:, 2], drawn[:, 3] = self.high[instance], self.low[instance]
        drawn[:, 4] = rng.integers(*CLIENT_PORTS, n)
        drawn[:, 5] = rng.integers(self.first[rule], self.last[rule] + 1)
        return drawn

    def _member(self, rng: np.random.Generator, group: Rows, but: Rows) -> Rows:
        """Draw a member of the group for each row, other than the instance in ``but``."""
        sizes = np.array([len(members) for members in self.members])
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        members = np.concatenate(self.members).astype(np.int64)  # an empty group would turn the array into floats
        place = rng.integers(0, sizes[group])
        found = members[starts[group] + place]
        other = members[starts[group] + (place + 1) % sizes[group]]
        return np.where(found == but, other, found)


def _halves(values: list[int]) -> tuple[Rows, Rows]:
    mask = (1 << 64) - 1
    return np.array([v >> 64 for v in values], dtype=np.uint64), np.array([v & mask for v in values], dtype=np.uint64)


def _packed(high: Rows, low: Rows, family: Family) -> Rows:
    if family == 4:
        return low.astype(">u4").view(np.uint8).reshape(-1, 4)
    return np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(-1, 16)


def _mixed(rows: Rows) -> Rows:
    """Return a hash of each row, to find equal flows."""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def header_rows(flows: Flows) -> Rows:
    """Return each flow's opener as a row of ``HEADER_DTYPE``."""
    width = flows.client.shape[1]
    rows = np.zeros(len(flows), dtype=HEADER_DTYPE)
    rows["src"][:, :width], rows["dst"][:, :width] = flows.client, flows.server
    rows["sport"], rows["dport"], rows["has_ports"] = flows.client_port, flows.server_port, 1
    rows["family"], rows["protocol"], rows["tcp_flags"], rows["wire"] = 4 if width == 4 else 6, TCP, 2, 64
    return rows


# Captures ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """A kind of capture.

    ``traffic``: ``connections``: the handshakes of all flows, then data in both directions of random flows;
    ``openers``: each packet opens another connection, with a million alive at a time; ``expiry``: each packet opens a
    connection, the last packet after all other connections have timed out; ``denied``: only SYNs, which no rule allows.
    ``popularity``: the distribution that random flows are drawn from.
    ``sets``, ``members``: arguments of ``make_policy``.
    ``sizes``: the sizes of frames with data, with their shares; empty: data frames have the size of other frames.
    ``scale``: the factor for the number of packets: above 1 for many flows, below 1 for large frames.
    """

    name: str
    title: str
    flows: int
    family: Family = 4
    two_sides: bool = False
    traffic: Literal["connections", "openers", "expiry", "denied"] = "connections"
    popularity: Literal["uniform", "zipf"] = "uniform"
    sets: int = 0
    members: int = 0
    sizes: tuple[tuple[int, float], ...] = ()
    scale: float = 1.0

    def packets_of(self, wanted: int) -> int:
        return max(1, int(wanted * self.scale))

    def flows_in(self, packets: int) -> int:
        """Return the number of flows in a capture with that many packets, which is below ``flows`` if it is short."""
        return packets if self.traffic in ("openers", "expiry") else max(1, min(self.flows, packets // 10))

    def with_room(self, policy: Policy) -> Policy:
        """Return ``policy`` with room for all flows in its connection table, if the default is too small."""
        if self.flows <= policy.settings.max_connections // 2:
            return policy
        return replace(policy, settings=replace(policy.settings, max_connections=2 * self.flows))

    def expected(self, packets: int) -> dict[str, int]:
        """Return the numbers of verdicts and connections that a replay must find."""
        denied = self.traffic == "denied"
        return {
            "allow": 0 if denied else packets,
            "deny": packets if denied else 0,
            "opened": 0 if denied else self.flows_in(packets),
        }


#: The frames of the "simple IMIX" that vendors use: IP packets of 40, 576 and 1,500 bytes, 7 : 4 : 1.
INTERNET_MIX = ((64, 7 / 12), (590, 4 / 12), (1514, 1 / 12))

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("one-side-100", "100 flows", 100),
        Workload("one-side-10k", "10,000 flows", 10_000),
        Workload("one-side-1m", "1,000,000 flows", 1_000_000),
        # Each flow has as many packets as one of the million above.
        Workload("one-side-5m", "5,000,000 flows", 5_000_000, scale=5),
        Workload("zipf-1m", "1,000,000 flows, Zipf popularity", 1_000_000, popularity="zipf"),
        Workload("large-10k", "10,000 flows, data in 1,500-byte packets", 10_000, sizes=((1514, 1.0),), scale=0.1),
        Workload("mix-10k", "10,000 flows, an internet-like mix", 10_000, sizes=INTERNET_MIX, scale=0.25),
        Workload("two-sides-10k", "10,000 flows, both ends instances", 10_000, two_sides=True),
        Workload("two-sides-1m", "1,000,000 flows, both ends instances", 1_000_000, two_sides=True),
        Workload("sets-10k", "10,000 flows, 100 sets of 2 to 5 groups", 10_000, sets=100),
        Workload("source-10", "10,000 flows, from a group of 10", 10_000, two_sides=True, members=10),
        Workload("source-10k", "10,000 flows, from a group of 10,000", 10_000, two_sides=True, members=10_000),
        Workload("ipv6-10k", "10,000 flows, IPv6", 10_000, family=6),
        Workload("openers", "each packet opens a connection, 1,000,000 alive", 0, traffic="openers"),
        Workload("expiry", "each opens a connection, one more when all timed out", 0, traffic="expiry", scale=0.1),
        Workload("denied", "10,000 flows, each packet a denied opener", 10_000, traffic="denied"),
    )
}

SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
_START_SECONDS = 1_700_000_000
#: Microseconds between packets. An opener's connection lives for 30 s (SPEC 5.2, ``tcp_other``), so an interval of
#: 30 us keeps a million connections alive.
_INTERVAL_US = {"connections": 1, "openers": 30, "expiry": 1, "denied": 1}
#: The silence before the last packet of ``expiry``, longer than any timeout.
_IDLE_US = 3_600_000_000
_CHUNK_PACKETS = 1_000_000
#: The number of frames that are resized at once.
_CHUNK_FRAMES = 50_000

_RECORD = [("seconds", "<u4"), ("microseconds", "<u4"), ("captured", "<u4"), ("wire", "<u4")]
_ETHERNET = [("macs", "u1", (12,)), ("ethertype", ">u2")]
_IPV4 = [
    ("version", "u1"), ("tos", "u1"), ("length", ">u2"), ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"),
    ("protocol", "u1"), ("checksum", ">u2"), ("src", "u1", (4,)), ("dst", "u1", (4,)),
]  # fmt: skip
_IPV6 = [
    ("version", "u1"), ("flow_label", "u1", (3,)), ("length", ">u2"), ("protocol", "u1"), ("ttl", "u1"),
    ("src", "u1", (16,)), ("dst", "u1", (16,)),
]  # fmt: skip
_TCP = [
    ("sport", ">u2"), ("dport", ">u2"), ("seq", ">u4"), ("ack", ">u4"), ("offset", "u1"), ("flags", "u1"),
    ("window", ">u2"), ("tcp_checksum", ">u2"), ("urgent", ">u2"),
]  # fmt: skip
#: Record layouts by IP version. IPv4 frames have 64 bytes: 54 of headers, the rest padding. IPv6 frames have 74 bytes.
RECORDS = {
    4: np.dtype(_RECORD + _ETHERNET + _IPV4 + _TCP + [("padding", "u1", (10,))]),
    6: np.dtype(_RECORD + _ETHERNET + _IPV6 + _TCP),
}
_RECORD_BYTES = np.dtype(_RECORD).itemsize
_ETHERNET_BYTES = np.dtype(_ETHERNET).itemsize
FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


@dataclass(frozen=True)
class Capture:
    """A capture file and the results that a replay of it must have."""

    workload: Workload
    path: Path
    packets: int
    flows: int
    #: The average frame size.
    frame_bytes: int
    expected: dict[str, int]


def make_capture(workload: Workload, policy: Policy, folder: Path, *, packets: int, seed: int = 1) -> Capture:
    """Write the capture into ``folder``, or reuse it. Its file name depends on everything that determines its content.
    """
    flows = workload.flows_in(packets)
    key = hashlib.sha256(policy_text(policy).encode() + _own_source()).hexdigest()[:10]
    path = folder / f"{workload.name}-{packets}-{flows}-{seed}-{key}.pcap"
    if not path.exists():
        _write_capture(workload, policy, path, packets, flows, seed)
    frame_bytes = round((path.stat().st_size - len(FILE_HEADER)) / packets) - _RECORD_BYTES
    return Capture(workload, path, packets, flows, frame_bytes, workload.expected(packets))


def _write_capture(workload: Workload, policy: Policy, path: Path, packets: int, flows: int, seed: int) -> None:
    """Write the capture to a temporary file and rename it to ``path`` when it is complete."""
    drawn = draw_flows(
        policy, flows, family=workload.family, two_sides=workload.two_sides, denied=workload.traffic == "denied",
        seed=seed,
    )  # fmt: skip
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(FILE_HEADER)
            rng = np.random.default_rng((seed, 3))
            for records in _records(workload, drawn, packets, rng):
                for piece in _resized(records, workload.sizes, rng) if workload.sizes else (records,):
                    file.write(piece.data)
            file.flush()
            os.fsync(file.fileno())  # so that later write-back does not disturb measurements
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


@cache
def _own_source() -> bytes:
    return Path(__file__).read_bytes()


def _steps(workload: Workload, flows: int, packet: Rows, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
    """Return for each packet number its flow, whether the client sends it, and its TCP flags."""
    stage = packet // flows
    if workload.popularity == "uniform":
        drawn = rng.integers(0, flows, len(packet))
    else:
        up_to, flow_of_rank = _zipf(flows)
        drawn = flow_of_rank[np.searchsorted(up_to, rng.random(len(packet)) * up_to[-1], side="right")]
    flow = np.where(stage == 0, packet % flows, drawn)
    if workload.traffic != "connections":
        return flow, np.ones(len(packet), dtype=bool), np.full(len(packet), SYN)
    flow = np.where(stage < 3, packet % flows, flow)
    from_client = np.where(stage < 3, stage != 1, rng.random(len(packet)) < 0.5)
    return flow, from_client, np.select([stage == 0, stage == 1], [SYN, SYN_ACK], ACK)


@lru_cache(maxsize=1)
def _zipf(flows: int) -> tuple[Rows, Rows]:
    """Return the cumulative popularity by rank under Zipf's law, where rank n has 1/n, and the flow of each rank.

    Ranks are random, because flows that are opened one after another may be neighbours in a table.
    """
    return np.cumsum(1 / np.arange(1, flows + 1)), np.random.default_rng((flows, 4)).permutation(flows)


def _resized(records: Rows, sizes: tuple[tuple[int, float], ...], rng: np.random.Generator) -> Iterator[Rows]:
    """Yield IPv4 frames as bytes, where frames with data get one of ``sizes``. The data is zero."""
    smallest = records.itemsize - _RECORD_BYTES
    lengths, shares = np.array([size for size, _ in sizes]), np.array([share for _, share in sizes])
    assert lengths.min() >= smallest
    for start in range(0, len(records), _CHUNK_FRAMES):
        chunk = records[start : start + _CHUNK_FRAMES]
        length = np.where(chunk["flags"] == ACK, rng.choice(lengths, len(chunk), p=shares), smallest)
        chunk["captured"] = chunk["wire"] = length
        chunk["length"] = np.where(length == smallest, chunk["length"], length - _ETHERNET_BYTES)
        ends = np.cumsum(length + _RECORD_BYTES)
        placed = np.zeros(ends[-1], dtype=np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(placed, records.itemsize, writeable=True)
        windows[ends - length - _RECORD_BYTES] = chunk.view(np.uint8).reshape(len(chunk), -1)
        yield placed


def _records(workload: Workload, flows: Flows, packets: int, rng: np.random.Generator) -> Iterator[Rows]:
    for start in range(0, packets, _CHUNK_PACKETS):
        packet = np.arange(start, min(packets, start + _CHUNK_PACKETS), dtype=np.int64)
        microseconds = packet * _INTERVAL_US[workload.traffic]
        if workload.traffic == "expiry":
            microseconds[packet == packets - 1] += _IDLE_US
        yield records(flows, *_steps(workload, len(flows), packet, rng), microseconds)


def records(flows: Flows, flow: Rows, from_client: Rows, flags: Rows, microseconds: Rows) -> Rows:
    """Return TCP packets as capture records, in an array of ``RECORDS``.

    For each packet, ``flow`` is its row in ``flows``, ``from_client`` whether the client sends it, ``flags`` its TCP
    flags, and ``microseconds`` its time since the start.
    """
    family = 4 if flows.client.shape[1] == 4 else 6
    addresses = np.concatenate([flows.client, flows.server])
    ports = np.concatenate([flows.client_port, flows.server_port])
    source = np.where(from_client, flow, flow + len(flows))
    destination = np.where(from_client, flow + len(flows), flow)
    made = np.zeros(len(flow), dtype=RECORDS[family])
    made["seconds"] = _START_SECONDS + microseconds // 1_000_000
    made["microseconds"] = microseconds % 1_000_000
    made["captured"] = made["wire"] = made.itemsize - _RECORD_BYTES
    if family == 4:
        made["ethertype"], made["version"], made["length"] = 0x0800, 0x45, 40
    else:
        made["ethertype"], made["version"], made["length"] = 0x86DD, 0x60, 20
    made["ttl"], made["protocol"] = 64, TCP
    made["src"], made["dst"] = addresses[source], addresses[destination]
    made["sport"], made["dport"] = ports[source], ports[destination]
    made["offset"], made["flags"], made["window"] = 0x50, flags, 65535
    return made

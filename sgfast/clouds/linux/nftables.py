"""Export a policy as a file for ``nft -f`` (SPEC 13.10): the filter of one machine, or of instances behind interfaces.

Each instance has two chains for each direction. ``before/...`` runs before the kernel looks up the connection, and
``side/...`` judges. A chain ``rules/...`` has the rules of one group, direction, priority and action. All instances of
a VPC share the chains of rules.

The kernel tracks the connections. Each instance has a conntrack zone of its own, because each instance has connections
of its own (SPEC 3.7).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal
from zlib import crc32

from sgfast.base.errors import ExportError
from sgfast.clouds.linux.address_sets import MAX_RANGES, views
from sgfast.clouds.linux.nft_table import TABLE, Chain, Elements, NftTable, difference
from sgfast.policy.matching import precedence
from sgfast.policy.model import (
    AH,
    DCCP,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Instance,
    Policy,
    Rule,
    SecurityGroup,
    Timeouts,
)
from sgfast.policy.ranges import Range
from sgfast.policy.rule_text import ports_text
from sgfast.policy.yaml_nodes import shown_origin
from sgfast.rules.addresses import ADDRESS, addresses_of

Interfaces = Mapping[str, str | None]
"""The host's interface behind which each instance is. None: the instance is the machine itself, with all interfaces
but ``lo``.
"""

CutKind = Literal["ports", "icmp", "other"]
"""The protocols of a set of connection keys (SPEC 5.1): with ports, ICMP, all other protocols."""

#: The highest timeout in seconds that all kernels accept. Some kernels store it as milliseconds in 31 bits.
MAX_TIMEOUT = 2_147_483
#: The limit for the rules in one file. nft and the kernel need about a kilobyte of memory for each rule.
MAX_RULES = 1_000_000
#: The first conntrack zone of sgfast. Other programs use low numbers. The hash of an instance's name chooses its zone.
#: There are far more zones than instances, so two names rarely have the same hash.
FIRST_ZONE = 0x1000
ZONES = 0x10000 - FIRST_ZONE
MAX_INSTANCES = 5000
#: The bit of a conntrack mark that is set once the rules have allowed the connection's opener.
OPENED = 0x40000000

_FAMILIES = (4, 6)
_IP = {4: "ip", 6: "ip6"}
_CUT_KEYS: dict[tuple[CutKind, int], str] = {
    ("ports", 4): "ip saddr . ip daddr . meta l4proto . th sport . th dport",
    ("ports", 6): "ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport",
    # The identifier of any ICMP query, by its offset. nft's own name for it works for echo only.
    ("icmp", 4): "ip saddr . ip daddr . icmp type . @th,32,16",
    ("icmp", 6): "ip6 saddr . ip6 daddr . icmpv6 type . @th,32,16",
    ("other", 4): "ip saddr . ip daddr . meta l4proto",
    ("other", 6): "ip6 saddr . ip6 daddr . meta l4proto",
}
_PORTS_OF = {TCP: "tcp", UDP: "udp", SCTP: "sctp", DCCP: "dccp", UDPLITE: "udplite"}
_WAYS: tuple[tuple[Direction, str, str], ...] = (("inbound", "in", "saddr"), ("outbound", "out", "daddr"))

_NONE_LEFT = f"no filter is left: end the loaded one with nft delete table {TABLE}"

_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")

#: Packets of DHCP and of IPv6's helpers, by their sender (SPEC 3.2, 3.11).
_FROM_CLIENT = (
    "meta nfproto ipv4 udp sport 68 udp dport 67", "meta nfproto ipv6 udp sport 546 udp dport 547",
)  # fmt: skip
_FROM_SERVER = (
    "meta nfproto ipv4 udp sport 67 udp dport 68", "meta nfproto ipv6 udp sport 547 udp dport 546",
)  # fmt: skip
_NEIGHBOURS = (
    "icmpv6 type { 133, 134, 135, 136, 137 } ip6 hoplimit 255", "icmpv6 type { 130, 131, 132, 143 }",
)  # fmt: skip


def ruleset(policy: Policy, interfaces: Interfaces, version: str) -> str:
    """Return the file that loads the filter of a policy. It replaces any table of sgfast that is loaded.

    Raises ExportError if nftables cannot express the policy, AmbiguousAddress if peers have the same addresses.
    """
    _check(interfaces, policy)
    notes = [
        "Load it with nft -f FILE: all of it takes effect at once, in the place of what was loaded before.",
        *_kernel_settings(policy),
        *_two_passes(interfaces),
    ]
    return _head(policy.origin, interfaces, version, notes) + _Writer(policy, interfaces).table.text()


def update(old: Policy, new: Policy, interfaces: Interfaces, version: str) -> str:
    """Return the file that changes the loaded filter of ``old`` into the filter of ``new``. ``interfaces``: the
    instances on the host that are in either policy.

    Raises ExportError if nftables cannot express the policy, AmbiguousAddress if peers have the same addresses.
    """
    _check(interfaces, old, new)
    for policy, advice in (
        (old, "no filter is loaded that can be changed: load the whole file"),
        (new, _NONE_LEFT),
    ):
        if not any(name in policy.instance_by_name for name in interfaces):
            raise ExportError(
                shown_origin(policy.origin), f"there is no instance {', '.join(map(repr, interfaces))}, so {advice}"
            )
    before, after = zones(old, interfaces), zones(new, interfaces)
    for name in after:
        if before.get(name, after[name]) != after[name]:
            raise ExportError(
                shown_origin(new.origin),
                f"instance {name!r}: loses its place in the kernel's table to another one with a similar "
                "checksum of its name: load the whole file, which ends the connections of this instance",
            )
    notes = [
        f"It makes the filter of this policy out of that of {shown_origin(old.origin)}, which must be loaded, at once.",
        *(_kernel_settings(new) if old.settings != new.settings else ()),
        *_after_update(new),
    ]
    tables = (_Writer(policy, interfaces).table for policy in (old, new))
    return _head(new.origin, interfaces, version, notes) + difference(*tables)


def cut_set(kind: CutKind, family: int, instance: str) -> str:
    """Return the name of the set of keys that an instance denies until they time out, because a change of the policy
    disconnected the connections with these keys.
    """
    return f"cut/{instance}/{kind}{family}"


def zones(policy: Policy, interfaces: Interfaces) -> dict[str, int | None]:
    """Return the conntrack zone of each instance. None: the kernel's default zone, for the machine itself.

    The hash of its name determines an instance's zone, so that zones stay the same when other instances are added or
    removed. If the zone is taken by an instance whose name sorts before, the next free zone is used.
    """
    zones: dict[str, int | None] = {}
    taken_zones = set()
    for name in sorted(name for name in interfaces if name in policy.instance_by_name):
        number = crc32(name.encode()) % ZONES
        while number in taken_zones:
            number = (number + 1) % ZONES
        taken_zones.add(number)
        zones[name] = None if interfaces[name] is None else FIRST_ZONE + number
    return zones


# Comments of the file -------------------------------------------------------------------------------------------------


def _head(origin: str, interfaces: Interfaces, version: str, notes: Iterable[str]) -> str:
    instances = [
        f"  {name}: this machine" if device is None else f"  {name}: behind {device}"
        for name, device in interfaces.items()
    ]
    lines = [f"Made by sgfast {version} from {shown_origin(origin)}, for nftables: the filter of", *instances, *notes]
    return "".join(f"# {line}\n" for line in lines)


def _kernel_settings(policy: Policy) -> Iterator[str]:
    """Yield the lines about settings of the whole network namespace, which nft cannot change."""
    timeouts = policy.settings.timeouts
    yield "These settings of the kernel belong to it. nft cannot make them:"
    for name, value in {
        "tcp_be_liberal": 1,
        "tcp_ignore_invalid_rst": 1,
        "checksum": 0,
        "max": policy.settings.max_connections,
        "icmp_timeout": int(timeouts.icmp),
        "icmpv6_timeout": int(timeouts.icmp),
        # The two timeouts of UDP are for UDP-Lite, whose timeouts nft cannot set.
        "udp_timeout": int(timeouts.unidirectional),
        "udp_timeout_stream": int(timeouts.bidirectional),
        "gre_timeout": int(timeouts.unidirectional),
        "gre_timeout_stream": int(timeouts.bidirectional),
        "generic_timeout": int(timeouts.bidirectional),
    }.items():
        yield f"  sysctl -w net.netfilter.nf_conntrack_{name}={value}"


def _two_passes(interfaces: Interfaces) -> Iterator[str]:
    if len(interfaces) > 1:
        yield "A packet between two of these instances has to pass this host twice, as the kernel looks connections up"
        yield "once for each pass: from one interface to the network, and from the network to the other interface. One"
        yield "that goes from one to the other at once is dropped. The counter one_pass has how many."


def _after_update(policy: Policy) -> Iterator[str]:
    if policy.settings.on_change == "keep":
        yield "Connections stay as they are (on_change: keep), but for those of instances and addresses that are gone."
        yield "These are told to conntrack afterwards:"
    else:
        yield f"What becomes of connections (on_change: {policy.settings.on_change}) is told to conntrack afterwards:"
    yield "list them with conntrack -L -o extended, and have sgfast write the commands (--connections FILE)."


# Policies that are refused --------------------------------------------------------------------------------------------


def _check(interfaces: Interfaces, *policies: Policy) -> None:
    origin = shown_origin(policies[-1].origin)
    for name in interfaces:
        if not any(name in policy.instance_by_name for policy in policies):
            raise ExportError(origin, f"there is no instance {name!r}, so {_NONE_LEFT}")
    devices = [device for device in interfaces.values() if device is not None]
    if not interfaces:
        raise ExportError(origin, "name the instance, or several instances with their interfaces")
    if len(devices) < len(interfaces) and len(interfaces) > 1:
        raise ExportError(origin, "a machine is one instance: give each of several an interface")
    if len(interfaces) > MAX_INSTANCES:
        raise ExportError(origin, f"{len(interfaces):,} instances on one host, and {MAX_INSTANCES:,} is the limit")
    for device, number in Counter(devices).items():
        if not _INTERFACE.fullmatch(device):
            raise ExportError(
                f"interface {device!r}", "Linux has no such name: it takes 1 to 15 letters, digits and _ . : @ -"
            )
        if number > 1:
            raise ExportError(f"interface {device!r}", "belongs to two instances: give each an interface of its own")
    for policy in policies:
        _check_timeouts(policy)


def _check_timeouts(policy: Policy) -> None:
    for name in Timeouts.__dataclass_fields__:
        value = getattr(policy.settings.timeouts, name)
        if value != int(value) or value > MAX_TIMEOUT:
            raise ExportError(
                shown_origin(policy.origin),
                f"settings.timeouts.{name}: is {value}, and the kernel takes whole seconds up to "
                f"{MAX_TIMEOUT:,}: change the timeout",
            )


# The table ------------------------------------------------------------------------------------------------------------


@dataclass
class _Writer:
    policy: Policy
    interfaces: Interfaces
    table: NftTable = field(default_factory=NftTable)
    #: The chains of rules by VPC, group and way ("in" or "out"). Each has its precedence and its name.
    rules: dict[tuple[str, str, str], list[tuple[int, bool, str]]] = field(default_factory=dict)
    #: The number of address ranges in all sets so far.
    ranges: int = 0

    def __post_init__(self) -> None:
        self.here = [self.policy.instance_by_name[n] for n in self.interfaces if n in self.policy.instance_by_name]
        self.views = views(self.policy, (instance.vpc for instance in self.here))
        self.zones = zones(self.policy, self.interfaces)
        used = {(instance.vpc, name) for instance in self.here for name in instance.security_groups}
        #: The groups whose rules are needed, each with the VPC of the instances that it filters.
        self.groups = [
            (vpc, group) for vpc in self.views for group in self.policy.security_groups if (vpc, group.name) in used
        ]
        self._check_rules()
        self._check_owned_once()
        self._sets()
        self.table.chains["open"] = Chain(tuple(self._open()))
        self._infrastructure()
        for vpc, group in self.groups:
            self._rules(vpc, group)
        for instance in self.here:
            self._instance(instance)
        if any(self.interfaces[instance.name] is None for instance in self.here):
            self._hooks_of_machine()
        else:
            self._hooks_of_host()

    def _check_rules(self) -> None:
        rules = sum(len(group.rules) for _, group in self.groups)
        if rules > MAX_RULES:
            raise ExportError(
                shown_origin(self.policy.origin),
                f"these instances have {rules:,} rules together, and {MAX_RULES:,} is the limit: "
                "export fewer instances",
            )
        problems = [
            f"security group {group.name!r}, rule {rule.id!r}: Linux looks through the AH header "
            "of IPv6 and cannot match it: leave the rule out, or write an IPv4 rule"
            for _, group in self.groups for rule in group.rules if rule.protocol == AH and rule.ethertype == 6
        ]
        if problems:
            raise ExportError(shown_origin(self.policy.origin), *problems)

    def _check_owned_once(self) -> None:
        """Refuse instances with a common address: the host finds a packet's instance by its destination alone."""
        ranges = sorted(
            (family, *addresses, instance.name)
            for instance in self.here for family in _FAMILIES
            for addresses in self.views[instance.vpc].of_instance(family, instance)
        )
        for (family, _, last, name), (next_family, first, _, other_name) in pairwise(ranges):
            if family == next_family and first <= last:
                raise ExportError(
                    shown_origin(self.policy.origin),
                    f"instances {name!r} and {other_name!r} of two VPCs have the address "
                    f"{ADDRESS[family](first)}, and one host cannot tell their packets apart: export each VPC's "
                    "instances for a network namespace of their own",
                )

    # Sets

    def _sets(self) -> None:
        """Make the sets that the rules need: members of groups, address groups, and isolated addresses."""
        groups: dict[str, set[str]] = {vpc: set() for vpc in self.views}
        address_groups = set()
        for vpc, group in self.groups:
            for rule in group.rules:
                match rule.peer:
                    case GroupPeer(name):
                        groups[vpc].add(name)
                    case AddressGroupPeer(name):
                        address_groups.add(name)
        for vpc, view in self.views.items():
            members = view.members(groups[vpc])
            for name in sorted(groups[vpc]):
                for family in _FAMILIES:
                    self._set(family, f"members{family}/{vpc}/{name}", members.get((name, family), ()))
            for family in _FAMILIES:
                self._set(family, f"isolated{family}/{vpc}", view.isolated(family))
        for address_group in self.policy.address_groups:
            if address_group.name in address_groups:
                for family in _FAMILIES:
                    ranges = addresses_of(address_group.addresses, family)
                    self._set(family, f"addresses{family}/{address_group.name}", ranges)

    def _set(self, family: int, name: str, ranges: Iterable[Range]) -> None:
        elements = tuple(_range_text(family, addresses) for addresses in ranges)
        self.ranges += len(elements)
        if self.ranges > MAX_RANGES:
            raise ExportError(
                shown_origin(self.policy.origin),
                f"the sets of this file have more than {MAX_RANGES:,} ranges of addresses, which "
                "is the limit: export fewer instances",
            )
        self.table.sets[name] = Elements("set", f"type ipv{family}_addr", elements)

    # Chains

    def _open(self) -> Iterator[str]:
        """Yield the statements for an opener that the rules allow."""
        # nftables stops this rule at a packet without a conntrack entry, and continues with the next rule.
        yield f"ct mark set ct mark | {OPENED:#x}"
        for protocol, name, policy in _timeouts(self.policy.settings.timeouts):
            self.table.timeouts[name] = f"protocol {_PORTS_OF[protocol]}; policy = {{ {policy} }};"
            yield f'meta l4proto {protocol} ct timeout set "{name}"'
        yield "accept"

    def _infrastructure(self) -> None:
        """Make the chains for the packets of SPEC 3.2 and 3.11. Other chains jump to them twice: before the kernel
        looks up the connection, and after the look-up, when ``notrack`` has no effect.
        """
        accepted: dict[str, tuple[str, ...]] = {"in": (), "out": ()}
        denied: tuple[str, ...] = ()
        match self.policy.settings.infrastructure:
            case "exempt":
                every = (*_FROM_CLIENT, *_FROM_SERVER, *_NEIGHBOURS)
                accepted = {"in": every, "out": every}
            case "by-role":
                accepted["out"] = (*_FROM_CLIENT, "icmpv6 type { 130, 133, 135, 136 }")
                accepted["in"] = (*_FROM_SERVER, "icmpv6 type { 130, 134, 135, 136 }")
                denied = (*_FROM_SERVER, "icmpv6 type 134")
        for way, lines in accepted.items():
            drops = [f"{line} drop" for line in denied] if way == "out" else []
            self.table.chains[f"infrastructure/{way}"] = Chain((*drops, *(f"{line} notrack accept" for line in lines)))

    def _rules(self, vpc: str, group: SecurityGroup) -> None:
        rules: dict[str, list[str]] = {}
        for direction, way, side in _WAYS:
            chains = set()
            for rule in group.rules:
                if rule.direction == direction:
                    verdict = "goto open" if rule.action == "allow" else "drop"
                    text = f'{_match(rule, vpc, side)} {verdict} comment "{rule.id}"'
                    name = f"rules/{vpc}/{group.name}/{way}/{rule.priority}/{rule.action}"
                    rules.setdefault(name, []).append(text)
                    chains.add((*precedence(rule), name))
            self.rules[vpc, group.name, way] = sorted(chains)
        self.table.chains.update((name, Chain(tuple(lines))) for name, lines in rules.items())

    def _instance(self, instance: Instance) -> None:
        groups = [group for group in self.policy.security_groups if group.name in instance.security_groups]
        stateful = all(group.stateful for group in groups)
        zone = self.zones[instance.name]
        cut = []
        if stateful and self.policy.settings.on_change in ("cut-inbound", "cut-unmatched"):
            cut = [(key, cut_set(kind, family, instance.name)) for (kind, family), key in _CUT_KEYS.items()]
        self.table.sets.update((name, Elements("set", f"typeof {key}", flags="timeout")) for key, name in cut)
        for direction, way, side in _WAYS:
            before = [f"jump infrastructure/{way}"]
            for family in _FAMILIES:
                before.append(f"{_IP[family]} {side} @isolated{family}/{instance.vpc} drop")
            # Packets of disconnected connections are dropped early, so that they prolong no deadline (SPEC 6.4).
            before += [f"{key} @{name} drop" for key, name in cut]
            if not stateful:
                before.append("notrack")
            else:
                # The kernel makes no entry for these ICMP types. They have no replies, so the rules alone can judge.
                before.append("icmp type != { 0, 3, 4, 5, 8, 11-18 } notrack accept")
                before.append("icmpv6 type 130-255 notrack accept")
                if zone is not None:
                    before.append(f"ct zone set {zone}")
            self.table.chains[f"before/{way}/{instance.name}"] = Chain(tuple(before))
            judge = [f"jump infrastructure/{way}"]
            if direction == "inbound":
                judge += ["ip daddr { 224.0.0.0/4, 255.255.255.255 } accept", "ip6 daddr ff00::/8 accept"]
            if stateful:
                judge += [
                    "ct state invalid drop",
                    "ct state established accept",
                    f"meta l4proto {{ {ICMP}, {ICMPV6} }} ct state related accept",
                    # Until the first reply, the kernel's state of all packets of the initiator is "new".
                    f"ct mark & {OPENED:#x} != 0 accept",
                    "ct state new,related tcp flags & (fin | syn | rst | ack) != syn drop",
                ]
            # Chains are in the order of SPEC 4.10.
            chains = sorted(chain for group in groups for chain in self.rules[instance.vpc, group.name, way])
            judge += (f"jump {name}" for _, _, name in chains)
            self.table.chains[f"side/{way}/{instance.name}"] = Chain((*judge, "drop"))

    # Base chains

    def _hooks_of_machine(self) -> None:
        name = self.here[0].name
        for hook, way, lo, priority in (
            ("prerouting", "before/in", "iifname", -300), ("output", "before/out", "oifname", -300),
            ("input", "side/in", "iifname", 0), ("output", "side/out", "oifname", 0),
        ):  # fmt: skip
            chain = "raw_output" if (hook, priority) == ("output", -300) else hook
            self._hook(chain, hook, priority, f'{lo} "lo" accept', f"jump {way}/{name}")

    def _hooks_of_host(self) -> None:
        devices = {instance.name: self.interfaces[instance.name] for instance in self.here}
        for family in _FAMILIES:
            elements = sorted(
                (addresses, instance.name)
                for instance in self.here for addresses in self.views[instance.vpc].of_instance(family, instance)
            )  # fmt: skip
            texts = tuple(
                f"{_range_text(family, addresses)} : goto before/in/{name}" for addresses, name in elements
            )
            self.table.sets[f"owners{family}"] = Elements("map", f"type ipv{family}_addr : verdict", texts)
        to = ("ip daddr vmap @owners4", "ip6 daddr vmap @owners6")
        self._hook("before", "prerouting", -300, f"iifname vmap {_by_device(devices, 'goto before/out')}", *to)
        self._hook("before_output", "output", -300, *to)
        # The rules must see the addresses that the instances see. The first hook therefore runs before the kernel
        # rewrites destinations (NAT), and the second hook runs after that.
        self._hook("from_instances", "prerouting", -150, f"iifname vmap {_by_device(devices, 'goto side/out')}")
        self._hook("to_instances", "postrouting", 0, f"oifname vmap {_by_device(devices, 'goto side/in')}")
        if len(devices) > 1:
            listed = "{ " + ", ".join(f'"{device}"' for device in devices.values()) + " }"
            rule = f'iifname {listed} oifname {listed} counter drop comment "one_pass"'
            self._hook("one_pass", "forward", 0, rule)

    def _hook(self, chain: str, hook: str, priority: int, *rules: str) -> None:
        self.table.chains[chain] = Chain(rules, f"type filter hook {hook} priority {priority}; policy accept;")


def _by_device(devices: Mapping[str, str | None], verdict: str) -> str:
    return "{ " + ", ".join(f'"{device}" : {verdict}/{name}' for name, device in devices.items()) + " }"


def _match(rule: Rule, vpc: str, side: str) -> str:
    parts = [_peer(rule, vpc, side)]
    if rule.ports is not None and rule.protocol is not None:
        parts.append(f"{_PORTS_OF[rule.protocol]} dport {{ {ports_text(rule.ports, listed=None)} }}")
    elif rule.icmp_type is not None:
        name = "icmp" if rule.ethertype == 4 else "icmpv6"
        parts.append(f"{name} type {rule.icmp_type}")
        if rule.icmp_code is not None:
            parts.append(f"{name} code {rule.icmp_code}")
    elif rule.protocol is not None:
        parts.append(f"meta l4proto {rule.protocol}")
    return " ".join(parts)


def _peer(rule: Rule, vpc: str, side: str) -> str:
    match_start = f"{_IP[rule.ethertype]} {side}"
    match rule.peer:
        case None:
            return f"meta nfproto ipv{rule.ethertype}"
        case GroupPeer(name):
            return f"{match_start} @members{rule.ethertype}/{vpc}/{name}"
        case AddressGroupPeer(name):
            return f"{match_start} @addresses{rule.ethertype}/{name}"
        case network:
            return f"{match_start} {network}" if network.prefixlen else f"meta nfproto ipv{rule.ethertype}"


def _timeouts(timeouts: Timeouts) -> Iterator[tuple[int, str, str]]:
    """Yield the timeouts that nftables can set itself: protocol, name, value."""
    unestablished, established = int(timeouts.tcp_other), int(timeouts.tcp_established)
    fin_wait = int(timeouts.tcp_fin_wait)
    states = dict.fromkeys(
        ("syn_sent", "syn_sent2", "syn_recv", "close_wait", "last_ack", "time_wait", "close"), unestablished
    )
    # The kernel would use shorter timeouts while an acknowledgement is missing. SPEC 5.2 does not.
    states |= {"established": established, "fin_wait": fin_wait, "retrans": established, "unack": established}
    text = ", ".join(f"{state} : {seconds}" for state, seconds in states.items())
    yield TCP, f"tcp-{established}-{fin_wait}-{unestablished}", text
    bidirectional, unidirectional = int(timeouts.bidirectional), int(timeouts.unidirectional)
    name = f"udp-{bidirectional}-{unidirectional}"
    yield UDP, name, f"unreplied : {unidirectional}, replied : {bidirectional}"


def _range_text(family: int, addresses: Range) -> str:
    first, last = map(ADDRESS[family], addresses)
    return str(first) if first == last else f"{first}-{last}"

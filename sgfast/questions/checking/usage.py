"""Collect how traffic uses each rule in a replay, and find rules that are much wider than all their uses."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address

import numpy as np

from sgfast.engine import REASONS
from sgfast.policy.matching import Kind
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, AddressGroupPeer, GroupPeer, Peer, Policy, Rule
from sgfast.policy.profiles import PROFILES
from sgfast.policy.ranges import union
from sgfast.policy.rule_text import rule_text
from sgfast.questions.checking.codes import WIDER_THAN_USED, Finding, RuleUse
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.replaying.narrowest_rules import RuleSizes
from sgfast.questions.replaying.results import Names, Rows

# The package comes first, so that a thread that imports it does not deadlock with one that imports this module.
from sgfast.questions.suggesting import Limits
from sgfast.questions.suggesting.needs import Need, NeededService
from sgfast.questions.suggesting.observing import ends_of, kind_of
from sgfast.questions.suggesting.rules import Drafter

#: The most combinations of rule, peer and port that are kept, of about 150 bytes each. A rule with too many of them
#: is not narrow anyway.
MOST_USES = 200_000
#: The most combinations of rule, two ends and port whose connections are counted separately, of about 250 bytes each.
MOST_COUNTED = 100_000
#: Fewer connections than this do not show what a rule is for.
FEWEST_CONNECTIONS = 10
#: The used part of a rule must be this many times smaller than the rule. A rule is rarely meant for so small a part.
TIMES_NARROWER = 1000
#: The most rules that are suggested in the place of one.
MOST_INSTEAD = 4
#: The most ranges of ports in a rule; with more, the rule has one range, from the lowest to the highest port.
MOST_RANGES = 8
#: Prefix lengths to which addresses are widened, for IPv4 and IPv6. The first pair that needs few rules is used.
BLOCKS = ((24, 64), (16, 48), (8, 32))
_KIND_DTYPE = np.dtype([
    ("peer", "u1", (16,)), ("rule", "<i4"), ("region", "<i4"), ("instance", "<i4"), ("port", "<i4"), ("protocol", "u1"),
    ("spare", "u1", (3,)),
])  # fmt: skip
_RULE = slice(16, 20)
#: The reasons for which a side allows an opener by its rules.
_BY_RULE = (REASONS.index("rule"), REASONS.index("inferred"))
_ENDS_DTYPE = np.dtype([
    ("initiator", "u1", (16,)), ("responder", "u1", (16,)), ("instance", "<i4", (2,)), ("rule", "<i4"), ("port", "<i4"),
    ("family", "u1"), ("protocol", "u1"), ("spare", "u1", (2,)),
])  # fmt: skip


class Openers:
    """A ``PacketSink`` that collects the ways in which packets used each rule to open connections.

    Connections would not show all ways: while a connection lasts, openers from its other end belong to it, and so do
    openers that another rule allows.
    """

    #: Packets that stand for several do not matter.
    takes_records = True

    def __init__(self, policy: Policy) -> None:
        regions = {vpc.name: vpc.region for vpc in policy.vpcs}
        #: By instance: the region. In keys, the number of a region's first instance means the region.
        self._regions = {instance.name: regions[instance.vpc] for instance in policy.instances}
        self._region_of = np.zeros(0, dtype=np.int32)
        self._outbound = {
            rule.id for group in policy.security_groups for rule in group.rules if rule.direction == "outbound"
        }
        #: Whether each rule is outbound, by rule number.
        self._is_outbound = np.zeros(0, dtype=bool)
        self._names: Sequence[str] = ()
        #: The ways in which each rule was used, by rule number, as bytes of ``_KIND_DTYPE``.
        self._kinds: dict[int, set[bytes]] = {}
        self._kept_kinds = 0
        #: The numbers of the rules that were used in too many ways to be kept.
        self.too_many: set[int] = set()

    def begin(self, names: Names) -> None:
        self._names = names.instances
        firsts: dict[str, int] = {}
        numbers = [firsts.setdefault(self._regions.get(name, ""), n) for n, name in enumerate(self._names)]
        self._region_of = np.array(numbers, dtype=np.int32)
        self._is_outbound = np.array([rule in self._outbound for rule in names.rules], dtype=bool)

    def write(self, headers: Rows, results: Rows) -> None:
        protocol = headers["protocol"]
        is_icmp = protocol == np.where(headers["family"] == 6, ICMPV6, ICMP)
        has_ports, has_type = headers["has_ports"] != 0, headers["has_icmp"] != 0
            # Later fragments have the result of their first fragment, but neither ports nor types.
        is_whole = has_ports | has_type | ~(is_icmp | np.isin(protocol, tuple(PORT_PROTOCOLS)))
        for side, other_side, peer in (("egress", "ingress", "dst"), ("ingress", "egress", "src")):
            opens = np.isin(results[side]["reason"], _BY_RULE) & is_whole
            if not opens.any():
                continue
            packets, sides = headers[opens], results[opens]
            keys = np.zeros(len(packets), dtype=_KIND_DTYPE)
            keys["peer"], keys["protocol"], keys["rule"] = packets[peer], packets["protocol"], sides[side]["rule"]
            keys["region"] = self._region_of[sides[side]["instance"]]
            keys["instance"] = sides[other_side]["instance"]
            # An inferred opener may have gone in the other direction (SPEC 9.3).
            is_forward = self._is_outbound[keys["rule"]] == (side == "egress")
            keys["port"] = np.where(is_forward, packets["dport"], packets["sport"])
            keys["port"][~has_ports[opens]] = -1
            keys["port"][is_icmp[opens]] = packets["icmp_type"][is_icmp[opens]]
            for key in np.unique(keys.view(f"V{_KIND_DTYPE.itemsize}")):
                self._keep(key.tobytes())

    def _keep(self, key: bytes) -> None:
        rule = int.from_bytes(key[_RULE], "little")
        if rule in self.too_many:
            return
        kinds = self._kinds.setdefault(rule, set())
        self._kept_kinds += key not in kinds
        kinds.add(key)
        if self._kept_kinds > MOST_USES:
            largest = max(self._kinds, key=lambda number: len(self._kinds[number]))
            self._kept_kinds -= len(self._kinds.pop(largest))
            self.too_many.add(largest)

    def of_rule(self, number: int, rule: Rule) -> list[Need]:
        """Return the ways in which a rule was used, in order. Instances are named by any instance of their region."""
        rule_needs = []
        for key in sorted(self._kinds.get(number, ())):
            row = np.frombuffer(key, _KIND_DTYPE)[0]
            peer = row["peer"][: 4 if rule.ethertype == 4 else 16].tobytes()
            owner = self._names[row["instance"]] if row["instance"] >= 0 else None
            port = None if row["port"] < 0 else int(row["port"])
            service = NeededService(rule.direction, rule.ethertype, int(row["protocol"]), port)
            rule_needs.append(Need(self._names[row["region"]], service, peer, owner))
        return rule_needs


class Uses:
    """A ``FlowSink`` that counts the connections that used each rule. ``openers`` must be a sink of the same replay."""

    def __init__(self, policy: Policy) -> None:
        self.openers = Openers(policy)
        self._names: Sequence[str] = ()
        #: By rule number: the connections that used the rule.
        self.totals: Counter[int] = Counter()
        #: The time of the last packet of any connection that used a rule, by rule number.
        self.last_ns: dict[int, int] = {}
        #: By rule number and bytes of ``_ENDS_DTYPE``: the connections, as far as there is room.
        self._counts: dict[int, Counter[bytes]] = {}
        self._counted = 0

    def begin(self, names: Names) -> None:
        self._names = names.instances

    def write(self, flows: Rows) -> None:
        for side in (0, 1):
            used = flows[flows["rule"][:, side] >= 0]
            if len(used):
                self._count(used, side)

    def _count(self, used: Rows, side: int) -> None:
        ends = ends_of(used, _ENDS_DTYPE)
        ends["rule"] = used["rule"][:, side]
        rules, places = np.unique(used["rule"][:, side], return_inverse=True)
        latest = np.full(len(rules), np.iinfo(np.int64).min)
        np.maximum.at(latest, places, used["last_ns"])
        for rule, last_ns in zip(rules.tolist(), latest.tolist(), strict=True):
            self.last_ns[rule] = max(last_ns, self.last_ns.get(rule, last_ns))
        end_keys, counts = np.unique(ends.view(f"V{_ENDS_DTYPE.itemsize}"), return_counts=True)
        for key, rule, count in zip(
            end_keys, end_keys.view(_ENDS_DTYPE)["rule"].tolist(), counts.tolist(), strict=True
        ):
            self.totals[rule] += count
            counted = self._counts.setdefault(rule, Counter())
            octets = key.tobytes()
            if octets in counted:
                counted[octets] += count
            elif self._counted < MOST_COUNTED:
                self._counted += 1
                counted[octets] = count

    def connections(self, number: int) -> dict[Kind, int]:
        """Return the connections that used a rule, as far as there was room to count them separately."""
        counts = self._counts.get(number, Counter())
        return {kind_of(np.frombuffer(key, _ENDS_DTYPE)[0], self._names): count for key, count in counts.items()}


def rule_uses(result: ReplayResult, uses: Uses) -> tuple[RuleUse, ...]:
    """Return the use of each rule that connections used, in the order of the document."""
    policy = result.policy
    of_rule: dict[str, list[int]] = defaultdict(list)
    for number, hits in enumerate(result.rules):
        if number in uses.last_ns:
            of_rule[policy._first_twin(hits.rule).id].append(number)
    rule_uses = []
    for hits in result.rules:
        numbers = of_rule.get(hits.rule.id, [])
        if numbers:
            kinds: Counter[Kind] = Counter()
            for number in numbers:
                kinds.update(uses.connections(number))
            rule_uses.append(RuleUse(
                hits.rule, hits.group, sum(uses.totals[number] for number in numbers),
                max(uses.last_ns[number] for number in numbers), kinds,
            ))  # fmt: skip
    return tuple(rule_uses)


def wider_than_used(result: ReplayResult, uses: Uses) -> tuple[list[Finding], int]:
    """Return the findings, and the number of rules that were used in too many ways to be examined."""
    policy, narrower = result.policy, _Narrower(result.policy)
    # By rule: the numbers of it and of its twin (SPEC 2.16), if they were used. Deny rules and the rules of stateless
    # groups have no connections (SPEC 4.13).
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number, hits in enumerate(result.rules):
        if hits.connections:
            numbers[policy._first_twin(hits.rule).id].append(number)
    findings = []
    skipped = 0
    for of_rule in numbers.values():
        count = sum(uses.totals[number] for number in of_rule)
        if count < FEWEST_CONNECTIONS:
            continue
        if not uses.openers.too_many.isdisjoint(of_rule):
            skipped += 1
            continue
        halves = [result.rules[number].rule for number in of_rule]
        choices = [
            narrower.than(half, uses.openers.of_rule(number, half))
            for half, number in zip(halves, of_rule, strict=True)
        ]
        if all(choices):
            instead = tuple(rule for rules in choices for rule in rules)
            rule = policy._first_twin(halves[0])
            would_do = _would_do(instead, policy)
            text = f"{rule_text(rule, policy)}: {count:,} connections used it, for which {would_do}"
            used = {kind: number for half in of_rule for kind, number in uses.connections(half).items()}
            findings.append(Finding(
                WIDER_THAN_USED, text, group=result.rules[of_rule[0]].group, rule=rule.id, connections=count,
                instead=instead, used=used,
            ))  # fmt: skip
    return findings, skipped


def _would_do(rules: Sequence[Rule], policy: Policy) -> str:
    texts = [*dict.fromkeys(rule_text(rule, policy) for rule in rules)]
    return f"{texts[0]} would do" if len(texts) == 1 else f"these would do: {'; '.join(texts)}"


class _Narrower:
    def __init__(self, policy: Policy) -> None:
        self._size = RuleSizes(policy).of
        self._first_port = PROFILES[policy.settings.profile].first_port
        self._drafters = [Drafter(policy, Limits(max_prefix=block)) for block in BLOCKS]

    def than(self, rule: Rule, uses: Sequence[Need]) -> tuple[Rule, ...]:
        """Return rules that would allow these uses, if the rules are few and much narrower; else none."""
        if not uses or any(use.service.protocol == (ICMPV6 if rule.ethertype == 4 else ICMP) for use in uses):
            return ()  # only a rule for all protocols matches ICMP of the other IP version
        ports = (use.service.port or 0 for use in uses if use.service.protocol in PORT_PROTOCOLS)
        if any(port < self._first_port for port in ports):
            return ()  # only a rule without ports matches a port that no rule can name
        for instead in self._choices(rule, uses):
            if len(instead) <= MOST_INSTEAD:
                is_narrower = sum(map(self._size, instead)) * TIMES_NARROWER <= self._size(rule)
                return tuple(instead) if is_narrower else ()
        return ()

    def _choices(self, rule: Rule, uses: Sequence[Need]) -> Iterable[list[Rule]]:
        """Yield rules in place of one, each time for wider blocks of addresses; at last with the rule's own peer.

        A peer with a name is kept, because somebody chose it. Any address as a peer is kept, too, if a public address
        used it: public clients change.
        """
        of_protocol: defaultdict[int, list[Need]] = defaultdict(list)
        for use in uses:
            of_protocol[use.service.protocol].append(use)
        is_public = rule.peer is None and any(
            use.peer_instance is None and ip_address(use.peer).is_global for use in uses
        )
        if not (is_public or isinstance(rule.peer, GroupPeer | AddressGroupPeer)):
            # The new rules must allow no more than the rule. Otherwise they could allow openers that were denied.
            within = rule.peer
            for drafter in self._drafters:
                yield [
                    narrowed_rule
                    for protocol, protocol_needs in of_protocol.items()
                    for peer, ports in drafter.terms(protocol_needs, within)
                    for narrowed_rule in _rules(rule, protocol, peer, ports)
                ]
        yield [
            narrowed_rule
            for protocol, protocol_needs in of_protocol.items()
            for narrowed_rule in _rules(rule, protocol, rule.peer, {use.service.port for use in protocol_needs})
        ]


def _rules(rule: Rule, protocol: int, peer: Peer, ports: Iterable[int | None]) -> list[Rule]:
    """Return the rules for one peer, and for the ports or ICMP types that the peer used with a protocol."""
    numbers = sorted(-1 if port is None else port for port in ports)
    rule_of_peer = replace(rule, protocol=protocol, peer=peer, wording=frozenset())
    if protocol == (ICMP if rule.ethertype == 4 else ICMPV6):
        return [replace(rule_of_peer, icmp_type=number, icmp_code=rule.icmp_code) for number in numbers]
    if numbers[0] < 0:
        return [replace(rule_of_peer, ports=rule.ports)]
    ranges = union((number, number) for number in numbers)
    if len(ranges) > MOST_RANGES:
        low, high = numbers[0], numbers[-1]
        own_ports = rule.ports or ((low, high),)
        ranges = tuple((max(low, first), min(high, last)) for first, last in own_ports if first <= high and low <= last)
    return [replace(rule_of_peer, ports=ranges)]

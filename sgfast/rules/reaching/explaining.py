"""Explain why a packet that opens a connection is allowed or denied.

For each side, report the winning rule, or the rules that nearly matched and the fields in which they differ. The
verdict is that of an engine without connections. ``policy.matching`` compares rules and packet. The *nearest* rules are
the allow rules of the side's groups and direction that differ in the fewest fields. Deny rules are excluded, because
matching one would not have allowed the packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from operator import index
from typing import Literal

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.base.evidence import SOUND, Evidence, EvidenceCode, EvidenceReason, known_codes
from sgfast.base.notebook import Shown, html_table, html_text
from sgfast.base.spelling import did_you_mean
from sgfast.core.base.reasons import ReasonWord
from sgfast.policy.assumed_instances import with_assumed
from sgfast.policy.loaded_policy import having
from sgfast.policy.lookup import find, similar, vpc_name
from sgfast.policy.matching import Address, End, Packet, RuleInGroup, compare, rules_of
from sgfast.policy.model import (
    ICMP,
    ICMPV6,
    Action,
    Direction,
    GroupPeer,
    Instance,
    Network,
    Policy,
    Rule,
    called,
)
from sgfast.policy.networks import is_multicast_address
from sgfast.policy.other_vpcs import elsewhere_text, home_vpc, owners_elsewhere, owners_text
from sgfast.policy.protocols import ECHO_REQUEST, PROTOCOL_NUMBERS, SERVICES, USUAL_PROTOCOLS
from sgfast.policy.rule_text import check_packet_fields, protocol_text, rule_name
from sgfast.rows.verdicts import Verdict, VerdictWord
from sgfast.rules.compiler import CompiledPolicy, compile_policy
from sgfast.rules.reaching.filters import Filters, filters_about
from sgfast.rules.reaching.misfits import Misfit, misfit_of
from sgfast.rules.reaching.services import SingleService

_VERDICTS = {"allow": "allowed", "deny": "denied"}
#: The maximum number of an instance's prefixes that are searched for an address it owns. Each search visits all
#: instances.
_SEARCHED_PREFIXES = 10


@dataclass(frozen=True, slots=True)
class NearMiss:
    """An allow rule that does not match the packet, and the fields in which they differ.

    ``group``: the name of the security group.
    ``rule``: the rule.
    ``misfits``: the fields that do not match.
    """

    group: str
    rule: Rule
    misfits: tuple[Misfit, ...]


@dataclass(frozen=True, slots=True)
class ExplainedSide:
    """Decision of one instance's rules about the packet.

    ``instance``: the instance whose filter it is.
    ``direction``: ``outbound`` for the sender's filter, ``inbound`` for the receiver's.
    ``reached``: whether this filter judged the packet (SPEC 3.6, 3.7). If not, ``verdict`` is the verdict it would have
    given.
    ``verdict``: the verdict of this filter.
    ``reason``: its reason.
    ``winner``: the rule that decides; None if no rule matches.
    ``also_match``: other matching rules, in order of precedence.
    ``nearest``: the nearest rules, which all differ in equally many fields, in document order. Empty if any rule
    matches.
    """

    instance: Instance
    direction: Direction
    reached: bool
    verdict: Action
    reason: ReasonWord
    winner: RuleInGroup | None
    also_match: tuple[RuleInGroup, ...]
    nearest: tuple[NearMiss, ...]


@dataclass(frozen=True, slots=True)
class Explanation(Shown):
    """Explanation of why one packet that opens a connection is allowed or denied.

    ``policy``: the policy that the answer is about.
    ``vpc``: the VPC in which addresses were looked up.
    ``source``: the end that sends the packet.
    ``destination``: the end that the packet goes to.
    ``protocol``: the IP protocol number.
    ``port``: the destination port; None if the protocol has no ports.
    ``sport``: the source port of the query; None: any.
    ``icmp_type``: the ICMP type; None for other protocols.
    ``icmp_code``: the ICMP code; None for other protocols.
    ``verdict``: ``allow``, ``deny`` or ``cannot-tell``: allowed, unless an instance of a VPC that is not peered has the
    address of an end.
    ``reason``: the reason of the verdict; None if no filter judges the packet.
    ``note``: an explanation beyond the reason; may be empty.
    ``egress``: the decision at the source's filter; None if the source is not an instance.
    ``ingress``: the decision at the destination's filter; None if the destination is not an instance.
    ``choices``: notes, as full sentences, about: an address chosen among several; an assumed end; an end that counts as
    a member of a group that its instance is not in; an address that belongs to an instance of a VPC that is not peered.
    ``assumed``: the assumed machines. ``policy`` contains them; the policy passed by the caller does not.
    ``evidence``: whether an end may be an instance of a VPC that is not peered (SPEC 12.1).
    """

    policy: Policy
    vpc: str
    source: End
    destination: End
    protocol: int
    port: int | None
    sport: int | None
    icmp_type: int | None
    icmp_code: int | None
    verdict: VerdictWord | Literal["cannot-tell"]
    reason: ReasonWord | None
    note: str
    egress: ExplainedSide | None
    ingress: ExplainedSide | None
    choices: tuple[str, ...]
    assumed: tuple[Instance, ...] = ()
    evidence: Evidence = SOUND

    @property
    def allowed(self) -> bool:
        """Whether the verdict is ``allow``."""
        return self.verdict == "allow"

    def __repr__(self) -> str:
        return f"<Explanation: {sentence(self)}>"

    def _repr_html_(self) -> str:
        rows = []
        for side in (self.egress, self.ingress):
            if side is not None:
                verdict = side.verdict if side.reached else f"would be {side.verdict}"
                rule = side.winner.rule.id if side.winner else None
                near = [f"{miss.rule.id} (other {', '.join(m.field for m in miss.misfits)})" for miss in side.nearest]
                rows.append((side.instance.name, side.direction, verdict, side.reason, rule, "; ".join(near)))
        head = ("instance", "direction", "verdict", "reason", "rule", "nearest rules")
        return "".join(map(html_text, (sentence(self), *self.choices))) + html_table(head, rows)


def explain(
    policy: Policy,
    source: str,
    destination: str,
    protocol: str | int,
    *,
    port: int | None = None,
    sport: int | None = None,
    icmp_type: int | None = None,
    icmp_code: int | None = None,
    vpc: str | None = None,
    as_if_in: Sequence[str] = (),
    accept_evidence: Sequence[EvidenceCode] = (),
) -> Explanation:
    """Explain the verdict for a packet that would open a connection.

    ``source`` and ``destination`` are addresses, or instances by name, id or label (SPEC 2.12). ``port`` is the
    destination port, for protocols with ports. ``sport``, the source port, only matters for DHCP. Without ``icmp_type``
    the packet is a ping. ``vpc`` is as for ``Engine``; None: the VPC of the source's instance, or else that of the
    destination's (SPEC 12.1). ``as_if_in`` makes an end without an instance an assumed machine in these groups:
    ``"GROUP=ADDRESS"``, or ``"GROUP"`` if only one end has no instance (SPEC 10.13). ``accept_evidence``: ``other-vpc``
    takes an address for that of a machine outside, although an instance of another VPC has it (SPEC 12.1).

    Raises PolicyError if the policy cannot be used or a name is unknown, ArgumentError for an impossible packet.
    """
    accepted, base = known_codes(accept_evidence), policy
    ends = [_instance_or_address(base, text) for text in (source, destination)] if as_if_in else []
    addresses = [end for end in ends if isinstance(end, Address) and not is_multicast_address(end)]
    policy, assumed = with_assumed(base, as_if_in, vpc=vpc, candidates=addresses)
    named = [_address_or_instance(policy, text) for text in (source, destination)]
    filters = filters_about(policy, vpc_name(policy, vpc) or home_vpc(policy, *named), named, base)
    sport = None if sport is None else int(index(sport))
    number = packet_service(protocol, port, sport, icmp_type, icmp_code).protocol
    choices: list[str] = []
    src, dst = _ends(filters, (source, destination), named, number, choices)
    for machine in assumed:
        if machine not in (src.instance, dst.instance):
            raise ArgumentError(f"{machine.addresses[0].network_address} is neither the source nor the destination")
        groups = ", ".join(called(policy.group_by_name[name]) for name in machine.security_groups)
        choices.append(f"{machine.name} is assumed: a machine as if in {groups}, which the policy does not have.")
    version = src.address.version
    if number == ICMP and version == 6:
        number = ICMPV6
    elif number == ICMPV6 and version == 4:
        raise ArgumentError("icmpv6 between IPv4 addresses: use icmp")
    if number in (ICMP, ICMPV6):
        icmp_type = ECHO_REQUEST[version] if icmp_type is None else icmp_type
        icmp_code = icmp_code or 0
    service = SingleService(number, port, icmp_type, icmp_code)
    return explain_opener(policy, filters, src, dst, service, sport, choices, assumed, accepted)


def packet_service(
    protocol: str | int, port: int | None, sport: int | None, icmp_type: int | None, icmp_code: int | None
) -> SingleService:
    """Return the service of a packet with these fields. Raises ArgumentError if there is no such packet."""
    number = PROTOCOL_NUMBERS.get(protocol.lower()) if isinstance(protocol, str) else protocol
    if number is None or not 0 <= number <= 255:
        hint = did_you_mean(str(protocol), USUAL_PROTOCOLS) or did_you_mean(str(protocol), PROTOCOL_NUMBERS)
        ports = [port for port, name in SERVICES.items() if name == str(protocol).lower()]
        if ports:
            hint = f"; {protocol} is a service: tcp or udp, with port {ports[0]}"
        raise ArgumentError(
            f"unknown protocol {protocol!r:.80}: use one of IANA's names, or a number from 0 to 255{hint}"
        )
    check_packet_fields(number, port, sport, icmp_type, icmp_code)
    for field, value, top in (
        ("a port", port, 65535), ("a port", sport, 65535), ("an ICMP type", icmp_type, 255),
        ("an ICMP code", icmp_code, 255),
    ):  # fmt: skip
        if value is not None and not 0 <= value <= top:
            raise ArgumentError(f"{field} must be 0 to {top}, not {value}")
    return SingleService(number, port, icmp_type, icmp_code)


def explain_addresses(
    compiled: CompiledPolicy, vpc: str | None, source: Address, destination: Address, protocol: int,
    port: int | None, icmp_type: int | None, icmp_code: int | None,
) -> Explanation:  # fmt: skip
    """Explain a packet between two addresses as an engine of this compiled policy and VPC sees them."""
    filters = Filters(compiled, vpc)
    receiver = None if is_multicast_address(destination) else filters.owner(destination)
    src, dst = End(source, filters.owner(source)), End(destination, receiver)
    return explain_opener(
        compiled.policy, filters, src, dst, SingleService(protocol, port, icmp_type, icmp_code)
    )


def explain_opener(
    policy: Policy, filters: Filters, src: End, dst: End, service: SingleService, sport: int | None = None,
    choices: Sequence[str] = (), assumed: tuple[Instance, ...] = (), accepted: Sequence[EvidenceCode] = (),
) -> Explanation:  # fmt: skip
    """Explain one packet as ``explain`` does. The filters may know fewer instances than the policy."""
    owners_vpcs = (end.instance.vpc for end in (src, dst) if end.instance is not None)
    vpc = filters.vpc or next(owners_vpcs, policy.vpcs[0].name)
    protocol, port, icmp_type, icmp_code = service
    judging, to = _judging(filters, src, dst)
    verdict = judging.judge(src.address, to, service, sport)
    packet = Packet(src.address.version, protocol, port, icmp_type, icmp_code)
    sides: list[ExplainedSide | None] = [None, None]
    warnings, reasons = [], []
    for end in (src, dst):
        if owners := _elsewhere(policy, vpc, end):
            text = elsewhere_text(policy, vpc, end.address, owners)
            warnings.append(f"{text[0].upper()}{text[1:]}.")
            if verdict.verdict == "allow":
                command = f"write {owners[0].name}, or --accept-evidence other-vpc if {end.address} is outside"
                reasons.append(EvidenceReason("other-vpc", "no", 1, 1.0, text, command))
    evidence = Evidence.of(reasons).accepting(accepted)
    word: VerdictWord | Literal["cannot-tell"] = verdict.verdict
    reason = verdict.reason
    if evidence.conclusive == "no":
        word, reason = "cannot-tell", None
    if verdict.verdict in ("allow", "deny"):
        for n, (direction, here, other_end) in enumerate((("outbound", src, dst), ("inbound", dst, src))):
            if here.instance is not None:
                side = _side(policy, verdict, direction, here.instance, other_end, packet)  # type: ignore[arg-type]
                sides[n] = side
                warnings += _members_by_address(policy, other_end, (side.winner, *side.also_match))
    return Explanation(
        policy, vpc, src, dst, protocol, port, sport, icmp_type, icmp_code, word, reason,
        _note(policy, verdict, src, dst), sides[0], sides[1], (*choices, *dict.fromkeys(warnings)), assumed, evidence,
    )  # fmt: skip


def _judging(filters: Filters, src: End, dst: End) -> tuple[Filters, Address]:
    """Return the filters that judge the packet, and the destination's address in them.

    If the ends are instances of VPCs that are not peered, other instances may have the same addresses, and both ends
    may have the same one. The returned filters therefore know only these two instances, and equal addresses are made
    different. They have no rules, because no rule applies to the packet.
    """
    source, destination, policy = src.instance, dst.instance, filters.policy
    if source is None or destination is None or policy.connected(source.vpc, destination.vpc):
        return filters, dst.address
    to = dst.address
    if to == src.address:
        to = type(to)(int(to) ^ 1)
    isolated_instances = tuple(
        replace(instance, addresses=(ip_network(address.packed),))
        for instance, address in ((source, src.address), (destination, to))
    )
    groups = tuple(replace(group, rules=()) for group in policy.security_groups)
    return Filters(compile_policy(having(policy, instances=isolated_instances, security_groups=groups)), None), to


def _elsewhere(policy: Policy, vpc: str, end: End) -> list[Instance]:
    """Return the owners of the end's address in VPCs that are not peered with ``vpc``, or [] if the end has an
    instance."""
    counts = end.instance is not None or is_multicast_address(end.address)
    return [] if counts else owners_elsewhere(policy, vpc, end.address)


def service_of(explained: Explanation) -> str:
    """Format the packet's service, such as ``tcp/5432`` or ``icmp type 8 code 0``."""
    text = protocol_text(explained.protocol)
    if explained.port is not None:
        text += f"/{explained.port}"
    if explained.sport is not None:
        text += f" (source port {explained.sport})"
    if explained.icmp_type is not None:
        text += f" type {explained.icmp_type} code {explained.icmp_code}"
    return text


def sentence(explained: Explanation) -> str:
    """Format the packet, its verdict and the deciding rule in one line without a full stop."""
    source, destination = (_called(explained, end) for end in (explained.source, explained.destination))
    return f"{service_of(explained)} from {source} to {destination} is {_decision(explained)}"


def _called(explained: Explanation, end: End) -> str:
    if end.instance is not None:
        return f"{end.address} ({called(end.instance)})"
    policy, vpc = explained.policy, explained.vpc
    owners = _elsewhere(policy, vpc, end)
    if not owners:
        return str(end.address)
    return f"{end.address} (no instance in VPC {_vpc_called(policy, vpc)}; {owners_text(policy, owners)})"


def _vpc_called(policy: Policy, vpc: str) -> str:
    return called(policy.vpc_by_name[vpc])


def _rule_called(policy: Policy, named_rule: RuleInGroup | NearMiss) -> str:
    return rule_name(policy, policy._first_twin(named_rule.rule), named_rule.group)


def _decision(explained: Explanation) -> str:
    sides = [side for side in (explained.egress, explained.ingress) if side is not None]
    policy = explained.policy
    if explained.verdict not in ("allow", "deny", "cannot-tell") or explained.note:
        return f"{_VERDICTS.get(explained.verdict, explained.verdict)}: {explained.note}"
    if explained.verdict in ("allow", "cannot-tell"):
        rules = [_rule_called(policy, side.winner) for side in sides if side.winner is not None]
        allowed = f"allowed by {' and '.join(rules)}" if rules else "allowed without a rule"
        if explained.allowed:
            return allowed
        for end in (explained.source, explained.destination):
            if owners := _elsewhere(policy, explained.vpc, end):
                return f"{allowed}, but denied if {end.address} is {called(owners[0])}: nobody can tell which"
    side = next(side for side in sides if side.verdict == "deny")
    if side.winner is not None:
        return f"denied by {_rule_called(policy, side.winner)}"
    if not side.nearest:
        return f"denied: no {side.direction} rule of {called(side.instance)} allows anything"
    nearest = side.nearest[0]
    *first_fields, last = (misfit.field for misfit in nearest.misfits)
    return (
        f"denied: no {side.direction} rule of {called(side.instance)} matches; "
        f"the nearest is {_rule_called(policy, nearest)}, "
        f"which misses on {', '.join(first_fields)}{' and ' if first_fields else ''}{last}"
    )


# The packet ----------------------------------------------------------------------------------------------------------


def _ends(
    filters: Filters, texts: tuple[str, str], named: Sequence[Address | Instance], protocol: int, choices: list[str]
) -> tuple[End, End]:
    """Return both ends with addresses of one IP version, adding notes to ``choices``."""
    allowed_families = {6} if protocol == ICMPV6 else {4, 6}
    families = [
        {network.version for network in end.addresses} if isinstance(end, Instance) else {end.version} for end in named
    ]
    common = families[0] & families[1]
    if not common:
        have = " and ".join(
            f"{text} {'has' if isinstance(end, Instance) else 'is'} IPv{' and IPv'.join(map(str, sorted(family)))}"
            for text, end, family in zip(texts, named, families, strict=True)
        )
        raise ArgumentError(f"source and destination have no IP version in common: {have}")
    if not common & allowed_families:
        raise ArgumentError("icmpv6 between IPv4 addresses: use icmp")
    family = min(common & allowed_families)
    ends = []
    for named_end in named:
        if isinstance(named_end, Instance):
            # If the VPC in question does not see the instance, its address is looked up in its own VPC.
            own_filters = filters
            if not _is_visible(filters, named_end):
                own_filters = filters_about(filters.policy, named_end.vpc, [named_end])
            ends.append(End(_own_address(own_filters, named_end, family, choices), named_end))
        else:
            ends.append(End(named_end, filters.owner(named_end)))
    if is_multicast_address(ends[1].address):
        ends[1] = End(ends[1].address, None)
    for text, named_end, other_end in zip(texts, named, reversed(ends), strict=True):
        if not isinstance(named_end, Instance) or _is_visible(filters, named_end):
            continue
        if other_end.instance is None or filters.policy.connected(named_end.vpc, other_end.instance.vpc):
            raise PolicyError(
                f"{filters.policy.origin}: the instance {text!r} is in VPC {named_end.vpc!r}, which is not peered with "
                f"{filters.vpc!r}: name another VPC (--vpc), or none"
            )
    return ends[0], ends[1]


def _is_visible(filters: Filters, instance: Instance) -> bool:
    return filters.vpc is not None and filters.policy.connected(instance.vpc, filters.vpc)


def _address_or_instance(policy: Policy, text: str) -> Address | Instance:
    named_end = _instance_or_address(policy, text)
    if named_end is None:
        hint = similar(policy, "instance", text)
        message = f"{text[:80]!r} is neither an address nor an instance of the policy{hint}"
        raise PolicyError(f"{policy.origin}: {message}")
    return named_end


def _instance_or_address(policy: Policy, text: str) -> Address | Instance | None:
    """Return the instance with this name, id or label, or else the address, or None if the text is neither (SPEC 2.12).
    """
    try:
        name = find(policy, "instance", text)
    except PolicyError as error:
        raise PolicyError(f"{policy.origin}: {error}") from None
    if name is not None:
        return policy.instance_by_name[name]
    try:
        return ip_address(text)
    except ValueError:
        return None


def _own_address(filters: Filters, instance: Instance, family: int, choices: list[str]) -> Address:
    """Return the first address of a family that the instance owns. Other instances may own parts of its prefixes
    (SPEC 2.6).
    """
    networks = [network for network in instance.addresses if network.version == family]
    searched = 0
    for network in networks:
        searched += network.num_addresses > 1
        if searched > _SEARCHED_PREFIXES:
            break
        for address in _candidates(filters.policy, network):
            if filters.owner(address) is instance:
                if len(instance.addresses) > 1 or network.num_addresses > 1:
                    choices.append(f"{called(instance)} has several addresses; {address} was used.")
                return address
    raise PolicyError(
        f"{filters.policy.origin}: every IPv{family} address of {instance.name!r} belongs to another instance's longer "
        "prefix, or is not visible from this VPC: give an address instead"
    )


def _candidates(policy: Policy, network: Network) -> Iterator[Address]:
    """Yield candidate addresses of a prefix: its first ones and the one right after each nested prefix. If any address
    of the prefix has no other owner, one of the candidates has none.
    """
    if network.num_addresses > 2:
        yield network.network_address + 1
    yield network.network_address
    if network.num_addresses == 1:
        return
    first, last = int(network.network_address), int(network.broadcast_address)
    for instance in policy.instances:
        for owned_network in instance.addresses:
            if owned_network.version == network.version and first <= int(owned_network.network_address):
                behind = int(owned_network.broadcast_address) + 1
                if behind <= last:
                    yield network.network_address + (behind - first)


# The rules -----------------------------------------------------------------------------------------------------------


def _side(
    policy: Policy, verdict: Verdict, direction: Direction, here: Instance, other_end: End, packet: Packet
) -> ExplainedSide:
    judged = verdict.egress if direction == "outbound" else verdict.ingress
    if verdict.reason == "infrastructure" or (judged is not None and judged.reason == "infrastructure"):
        # No rule is evaluated. The receiver's filter allows packets that only a sender's filter denies (SPEC 3.11).
        allows = judged is None or judged.verdict == "allow"
        return ExplainedSide(
            here, direction, judged is not None, "allow" if allows else "deny", "infrastructure", None, (), ()
        )
    # Isolation is reported on the first side, which did not apply rules either (SPEC 3.6).
    reached = judged is not None and judged.reason != "vpc-isolated"
    # A stateless filter applies rules to every packet, even to one that cannot open a connection.
    stateless = not all(policy.group_by_name[name].stateful for name in here.security_groups)
    if judged.reason == "invalid" if judged is not None else verdict.reason == "invalid" and not stateless:
        return ExplainedSide(here, direction, judged is not None, "deny", "invalid", None, (), ())
    matching, nearest = compare(policy, rules_of(policy, here, direction), here, other_end, packet)
    winner = matching[0] if matching else None
    allows = winner is not None and winner.rule.action == "allow"
    misses = []
    for close_rule, fields in () if matching else nearest:
        misfits = tuple(misfit_of(policy, close_rule.rule, field, here, other_end, packet) for field in fields)
        misses.append(NearMiss(close_rule.group, close_rule.rule, misfits))
    return ExplainedSide(
        here, direction, reached, "allow" if allows else "deny",
        "no-rule" if winner is None else "rule" if allows else "deny-rule",
        winner, tuple(matching[1:]), tuple(misses),
    )  # fmt: skip


def _members_by_address(policy: Policy, other_end: End, matching: Sequence[RuleInGroup | None]) -> Iterator[str]:
    """Explain why rules that name a group match an address whose owner is not in it (SPEC 4.14)."""
    if other_end.instance is None:
        return
    network = ip_network(other_end.address.packed)
    for matching_rule in matching:
        peer = matching_rule.rule.peer if matching_rule is not None else None
        if not isinstance(peer, GroupPeer) or peer.name in other_end.instance.security_groups:
            continue
        for holder in policy._holders(other_end.instance.vpc, network):
            if peer.name in holder.security_groups:
                around = next(network for network in holder.addresses if other_end.address in network)
                yield (
                    f"{other_end.address} counts as a member of {called(policy.group_by_name[peer.name])}: "
                    f"{called(holder)}, which is in that group, has {around} (settings.group_members: by-address)."
                )
                break


def _note(policy: Policy, verdict: Verdict, src: End, dst: End) -> str:
    match verdict.verdict, verdict.reason:
        case "out-of-scope", _:
            return "neither end is an instance of the policy: no filter sees the packet"
        case "local", _:
            owner = called(src.instance) if src.instance else "?"
            return f"both addresses belong to {owner}: the packet passes no filter"
        case "exempt", _:
            return "infrastructure traffic, which is not filtered (settings.infrastructure)"
        case _, "infrastructure":
            return (
                "an instance must not be a DHCP server or a router: what it sends as one is dropped before any rule "
                "(settings.infrastructure)"
            )
        case _, "vpc-isolated":
            assert src.instance is not None and dst.instance is not None
            return (
                f"VPC {_vpc_called(policy, src.instance.vpc)} and VPC {_vpc_called(policy, dst.instance.vpc)} are not "
                "peered: the packet is dropped before any rule"
            )
        case _, "invalid":
            return (
                "a packet of this ICMP type cannot open a connection: a reply needs its query, an error a connection "
                "it is about; no rule applies"
            )
    return ""

"""Find out how far captured traffic can carry an answer: the thresholds of SPEC 10.27."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import get_mixed_type_key, ip_address, ip_network
from typing import TYPE_CHECKING

import numpy as np

from sgfast.base.evidence import LISTED_NETWORKS, MOSTLY, Evidence, EvidenceReason, level_of
from sgfast.engine import REASONS, Engine
from sgfast.policy.model import Policy
from sgfast.policy.networks import is_multicast_address
from sgfast.policy.other_vpcs import owners_elsewhere
from sgfast.policy.ranges import covers, lowest
from sgfast.rules.addresses import ADDRESS, range_of
from sgfast.traffic.flow_logs.log_records import CAUSES, LeftOutCause, UndecidedCause

if TYPE_CHECKING:
    from sgfast.core.accounting import AccountingPlane
    from sgfast.traffic.flow_logs.log_records import LogRecords
    from sgfast.traffic.packet_selection import PacketsLeftOut

#: Verdicts of packets that no filter judges.
NOT_JUDGED = frozenset(("out-of-scope", "not-ip", "exempt"))
#: Share from which a cause makes a part of the answer uncertain. From ``MOSTLY`` on, the whole answer is.
SOME = 0.01
#: The same share of connections, of which only one direction was seen.
SOME_ONE_WAY = 0.1


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Connections and denied attempts with addresses that only instances of other, unpeered VPCs own."""

    connections: int = 0
    #: The lowest such address as a number, after its IP version; the VPC that it was looked up in, its owner, and the
    #: owner's VPC.
    lowest: tuple[int, int, str, str, str] | None = None

    def __add__(self, other: Elsewhere) -> Elsewhere:
        addresses = [address for address in (self.lowest, other.lowest) if address is not None]
        return Elsewhere(self.connections + other.connections, min(addresses, default=None))


@dataclass(frozen=True, slots=True)
class Isolated:
    """Connections and denied attempts between instances whose VPCs are not peered."""

    connections: int = 0
    #: The lowest address of a peer as a number, after its IP version; its owner and the instance at the other end, each
    #: followed by its VPC.
    lowest: tuple[int, int, str, str, str, str] | None = None

    def __add__(self, other: Isolated) -> Isolated:
        addresses = [address for address in (self.lowest, other.lowest) if address is not None]
        return Isolated(self.connections + other.connections, min(addresses, default=None))


@dataclass(frozen=True, slots=True)
class Observed:
    """Facts that an engine counted about its packets. Facts of a replay's parts can be added."""

    #: Connections and denied attempts of which packets of both ends were seen.
    two_way: int = 0
    #: Answered connections of which only packets of the initiator were seen; these packets show the answer.
    one_way: int = 0
    #: Packets whose headers or addresses the capture cut off, or their tunnel.
    truncated: int = 0
    #: Packets out of scope by the network of each of their addresses: /24, or /64 of IPv6.
    networks: dict[str, int] = field(default_factory=dict)
    #: Packets in ``truncated`` that their tunnel cut.
    cut_by_tunnel: int = 0
    #: Malformed packets that are not in ``truncated``.
    malformed: int = 0
    elsewhere: Elsewhere = Elsewhere()
    isolated: Isolated = Isolated()

    def __add__(self, other: Observed) -> Observed:
        networks = dict(self.networks)
        for network, packets in other.networks.items():
            networks[network] = networks.get(network, 0) + packets
        return Observed(
            self.two_way + other.two_way, self.one_way + other.one_way, self.truncated + other.truncated, networks,
            self.cut_by_tunnel + other.cut_by_tunnel, self.malformed + other.malformed,
            self.elsewhere + other.elsewhere, self.isolated + other.isolated,
        )  # fmt: skip


def observed_by(plane: AccountingPlane) -> Observed:
    """Return the facts of a data plane."""
    counters = plane.counters
    truncated = counters["reasons"][REASONS.index("truncated")] + counters["no_addresses"]
    rows, _ = plane.tallies["outside"]
    networks = {}
    for row in rows[np.argsort(-rows["packets"].astype(np.int64), kind="stable")]:
        if row["family"]:
            length, prefix = (16, 64) if row["family"] == 6 else (4, 24)
            networks[str(ip_network((row["peer"][:length].tobytes(), prefix)))] = int(row["packets"])
    malformed = counters["reasons"][REASONS.index("malformed")] - counters["no_addresses"]
    return Observed(
        counters["two_way"], counters["one_way"], truncated, networks, counters["cut_by_tunnel"], malformed
    )


def elsewhere_of(engine: Engine) -> Elsewhere:
    """Return what an engine counted about addresses that only VPCs own that it does not see."""
    policy, vpc = engine.policy, engine.vpc
    total, lowest = 0, None
    if vpc is None or len(policy._connected_vpcs[vpc]) == len(policy.vpcs):
        return Elsewhere()
    tallies = engine.dataplane.tallies
    rows = np.concatenate([tallies[name][0] for name in ("began", "denials")])
    rows = rows[engine.compiled.classifier.owners_of(rows["peer"], rows["family"]) < 0]
    for version, length in ((4, 4), (6, 16)):
        chosen, owned = rows[(rows["family"] == version) & (rows["connections"] > 0)], policy._owned_ranges[version]
        peers, places = np.unique(np.ascontiguousarray(chosen["peer"]).view("S16").ravel(), return_inverse=True)
        counts = np.bincount(places, chosen["connections"])
        for peer, connections in zip(peers.tolist(), counts.tolist(), strict=True):
            packed = peer.ljust(16, b"\0")[:length]
            number = int.from_bytes(packed)
            if covers(owned, number, number) and not is_multicast_address(address := ip_address(packed)):
                total += int(connections)
                if lowest is None:
                    owner = owners_elsewhere(policy, vpc, address)[0]
                    lowest = version, number, vpc, owner.name, owner.vpc
    return Elsewhere(total, lowest)


def isolated_by(engine: Engine) -> Isolated:
    """Return what an engine denied because VPCs are not peered."""
    rows, _ = engine.dataplane.tallies["denials"]
    rows = rows[(rows["reason"] == REASONS.index("vpc-isolated")) & (rows["connections"] > 0)]
    owners = engine.compiled.classifier.owners_of(rows["peer"], rows["family"])
    rows, owners = rows[owners >= 0], owners[owners >= 0]
    if not len(rows):
        return Isolated()
    peers = np.ascontiguousarray(rows["peer"]).view("S16").ravel()
    first = np.lexsort((rows["instance"], peers, rows["family"]))[0]
    row, owner, here = rows[first], engine.instances[owners[first]], engine.instances[rows["instance"][first]]
    number = int.from_bytes(row["peer"][: 4 if row["family"] == 4 else 16].tobytes())
    lowest = int(row["family"]), number, owner.name, owner.vpc, here.name, here.vpc
    return Isolated(int(rows["connections"].sum()), lowest)


@dataclass(frozen=True, slots=True)
class TrafficFacts:
    """Facts about the packets of a replay or a comparison, from which its evidence follows."""

    packets: int
    #: Packets that are IP, and those of them that no instance's filter sees.
    ip: int
    out_of_scope: int
    #: Packets that touch an instance, and those of them whose two ends are the same instance.
    judged: int
    local: int
    #: Connections and denied attempts.
    connections: int
    #: Whether all filters are stateful. Nobody follows what stateless ones allow.
    is_stateful: bool
    #: None: no packet was judged yet.
    observed: Observed | None
    #: Reasons that reading the captures gave.
    doubts: Sequence[EvidenceReason]
    left_out: PacketsLeftOut | None
    policy: Policy
    #: The VPC in which all addresses are looked up. None: all VPCs, or that of each packet's mark.
    vpc: str | None
    #: The fate of the records that the packets were made of; None for captures.
    records: LogRecords | None = None


def evidence_of(traffic: TrafficFacts) -> Evidence:
    """Return the evidence of captured traffic, with the reasons of SPEC 10.27."""
    if not traffic.packets:
        return Evidence((_no_packets(traffic.left_out, traffic.records),))
    observed = traffic.observed or Observed(two_way=1)
    # A tunnel often has packets of one direction only, even if the traffic inside has both.
    in_tunnels = any(doubt.code == "tunnels" and doubt.level == "no" for doubt in traffic.doubts)
    shows_answers = traffic.records is None or traffic.records.shows_answers
    directions = _directions(traffic, observed) if (
        traffic.judged > traffic.local and not in_tunnels and shows_answers
    ) else ()
    return Evidence.of([
        *_scope(traffic, observed), *_truncated(traffic, observed), *directions,
        *_elsewhere(traffic, observed.elsewhere), *_isolated(traffic, observed.isolated), *traffic.doubts,
    ])  # fmt: skip


def interrupted(packets: int, last_ns: int | None) -> EvidenceReason:
    """Return the reason that an interrupt gives. ``packets`` were judged before, the latest at ``last_ns``."""
    last = f"{np.datetime64(last_ns or 0, 'ns')}Z"
    sentence = f"an interrupt ended the reading after packet {packets:,}, at {last}: what follows was not judged"
    command = f"the same command without an interrupt, or with --end {last} for an answer about the time before it"
    return EvidenceReason("interrupted", "partly", 0, 0.0, sentence, command)


def _no_packets(left_out: PacketsLeftOut | None, records: LogRecords | None) -> EvidenceReason:
    total = 0 if left_out is None else left_out.total
    if total:
        sentence = f"no packet is left of {total:,}: options leave them out"
        return EvidenceReason("no-packets", "no", 0, 0.0, sentence, "sgfast replay without --start, --end and --filter")
    if records is not None:
        return EvidenceReason("no-packets", "no", 0, 0.0, *_why_none(records))
    sentence = "the captures have no packets"
    return EvidenceReason("no-packets", "no", 0, 0.0, sentence, "tcpdump -i any -s 0 -w CAPTURE.pcap")


def _why_none(records: LogRecords) -> tuple[str, str]:
    """Return why no record was judged, and what would help."""
    causes: list[tuple[UndecidedCause | LeftOutCause, int]] = [*records.undecided.items(), *records.left_out.items()]
    fate, number = max(causes, key=lambda cause: cause[1], default=("no-data", 0))
    if records.rejected and records.rejected >= number:
        sentence = f"no record could be judged: the cloud rejected the traffic of {records.rejected:,}"
        return sentence, "flow logs of accepted traffic, too"
    if not number:
        return "the logs have no records", "flow logs of a time with traffic"
    command = "flow logs of a time with traffic"
    if fate == "time-window":
        command = "the same without --start and --end"
    elif fate in records.undecided:
        command = "a capture"
    return f"no record of the logs could be judged (of {number:,}: {CAUSES[fate]})", command


def _scope(traffic: TrafficFacts, observed: Observed) -> Iterator[EvidenceReason]:
    by_address = sorted(observed.networks, key=lambda network: get_mixed_type_key(ip_network(network)))
    most_first = sorted(by_address, key=lambda network: -observed.networks[network])
    listed = [(network, observed.networks[network]) for network in most_first[:LISTED_NETWORKS]]
    outside, share = traffic.out_of_scope, _share(traffic.out_of_scope, traffic.ip)
    command = "the policy of these networks, or --filter \"not net NETWORK\" if their packets belong to others"
    owner_words = ""
    if (vpc_of_network := _vpc_that_owns(traffic, [network for network, _ in listed])) is not None:
        network, vpc = vpc_of_network
        owner_words = f", but VPC {vpc}, which is not peered with {traffic.vpc}, has instances in {network}"
        command = f"sgfast replay POLICY CAPTURE --vpc {vpc}"
    if not traffic.judged:
        vpc_words = ", and the right --vpc" if traffic.vpc is not None else ""
        question = owner_words or f": is this the right policy{vpc_words}?"
        sentence = f"no packet touches an instance's address{question}"
        yield EvidenceReason("no-instance", "no", outside, share, sentence, command, tuple(listed))
    elif share >= MOSTLY:
        sentence = f"{100 * share:.0f} % of the IP packets are between addresses that no instance has{owner_words}"
        yield EvidenceReason("out-of-scope", "partly", outside, share, sentence, command, tuple(listed))


def _vpc_that_owns(traffic: TrafficFacts, networks: list[str]) -> tuple[str, str] | None:
    """Return the first network that has an instance of a VPC that is not seen, and the VPC."""
    policy = traffic.policy
    if traffic.vpc is None:
        return None
    seen_vpcs = set(policy._connected_vpcs.get(traffic.vpc, ()))     # in a comparison, perhaps only NEW has the VPC
    unseen = [instance for instance in policy.instances if instance.vpc not in seen_vpcs]
    for network in map(ip_network, networks if unseen else ()):
        if lowest(policy._owned_ranges[network.version], *range_of(network)) is None:
            continue
        for instance in unseen:
            if any(address.prefixlen and address.overlaps(network) for address in instance.addresses):
                return str(network), instance.vpc
    return None


def _truncated(traffic: TrafficFacts, observed: Observed) -> Iterator[EvidenceReason]:
    cut = observed.truncated - observed.cut_by_tunnel
    share = _share(cut, traffic.packets)
    if share >= SOME:
        sentence = f"the capture cut {cut:,} packets ({100 * share:.0f} %) within their headers"
        command = "tcpdump -s 0 -w CAPTURE.pcap, which keeps whole packets"
        yield EvidenceReason("truncated", level_of(share), cut, share, sentence, command)
    cut, share = observed.cut_by_tunnel, _share(observed.cut_by_tunnel, traffic.packets)
    if share >= SOME:
        sentence = f"the mirror cut {cut:,} packets ({100 * share:.0f} %) within their headers"
        command = (
            "the mirror's option for the length of packets, such as aws ec2 modify-traffic-mirror-session "
            "--traffic-mirror-session-id ID --remove-fields packet-length"
        )
        yield EvidenceReason("mirror-cut", level_of(share), cut, share, sentence, command)
    share = _share(observed.malformed, traffic.packets)
    if share >= SOME:
        sentence = (
            f"{observed.malformed:,} packets ({100 * share:.0f} %) contradict themselves: perhaps a tool cut them, and "
            "lost their length"
        )
        command = "tcpdump -s 0 -w CAPTURE.pcap, and no tool that rewrites the capture"
        yield EvidenceReason("malformed", "partly", observed.malformed, share, sentence, command)


def _directions(traffic: TrafficFacts, observed: Observed) -> Iterator[EvidenceReason]:
    one_way, two_way = observed.one_way, observed.two_way
    if traffic.records is not None:
        # Frames of records cannot tell it: there are some that no record has.
        one_way, two_way = traffic.records.one_way, traffic.records.two_way
    share = _share(one_way, one_way + two_way)
    command = "a filter of tcpdump or --filter without dst and src, on an interface that both directions pass"
    observations, source_noun = "packets", "captures"
    if traffic.records is not None:
        command, observations, source_noun = "flow logs of whole interfaces, without a filter", "records", "logs"
    if traffic.is_stateful and not two_way and observed.truncated < MOSTLY * traffic.packets:
        sentence = "no connection has packets of both ends: perhaps the captures have only one direction of the traffic"
        if traffic.records is not None:
            sentence = "no connection has records of both directions: perhaps the logs have only one of them"
        yield EvidenceReason("one-direction", "no", traffic.packets, 1.0, sentence, command)
    elif share >= SOME_ONE_WAY:
        sentence = (
            f"{100 * share:.0f} % of the connections that were answered have {observations} of only one direction in "
            f"the {source_noun}"
        )
        yield EvidenceReason("one-direction", level_of(share), one_way, share, sentence, command)


def _elsewhere(traffic: TrafficFacts, elsewhere: Elsewhere) -> Iterator[EvidenceReason]:
    if elsewhere.lowest is not None:
        version, number, vantage_vpc, owner, vpc = elsewhere.lowest
        address, noun = ADDRESS[version](number), "connection has" if elsewhere.connections == 1 else "connections have"
        sentence = (
            f"{address} is instance {owner} of VPC {vpc}, which is not peered with {vantage_vpc}, so nobody can tell "
            f"whether {owner} or another machine was there ({elsewhere.connections:,} {noun} such addresses)"
        )
        command = (
            f"sgfast replay POLICY CAPTURE --vpc {vpc}, a peering of {vantage_vpc} and {vpc} in the policy, or "
            "--accept-evidence other-vpc if it was another machine"
        )
        share = min(_share(elsewhere.connections, traffic.connections), 1.0)
        yield EvidenceReason("other-vpc", "partly", elsewhere.connections, share, sentence, command)


def _isolated(traffic: TrafficFacts, isolated: Isolated) -> Iterator[EvidenceReason]:
    if isolated.lowest is not None:
        version, number, owner, vpc, far_end, near_vpc = isolated.lowest
        noun = "connection is" if isolated.connections == 1 else "connections are"
        sentence = (
            f"{ADDRESS[version](number)} is instance {owner} of VPC {vpc}, which is not peered with {near_vpc}, the "
            f"VPC of {far_end}, so nobody can tell whether the policy lacks the peering or another machine was there "
            f"({isolated.connections:,} {noun} between such instances)"
        )
        command = (
            f"a peering of {near_vpc} and {vpc} in the policy, or --vpc {near_vpc} --accept-evidence other-vpc if it "
            "was another machine"
        )
        share = min(_share(isolated.connections, traffic.connections), 1.0)
        yield EvidenceReason("other-vpc", "partly", isolated.connections, share, sentence, command)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

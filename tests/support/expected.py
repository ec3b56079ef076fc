"""Draw random expectations of small policies, and find the packets they are about by trying every packet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from itertools import product

from all_openers import ADDRESSES, SERVICES, Service, Truth
from checked_policies import GRE, GROUPS, TCP, UDP, networks
from hypothesis import strategies as st

from sgfast.policy.expectations import Expectation
from sgfast.policy.matching import Address, End
from sgfast.policy.model import ICMP, ICMPV6, Instance, Policy
from sgfast.rules.reaching.proving import Seen

#: The meaning of services, independent of the tested code.
MEANING: dict[str, Callable[[Service], bool]] = {
    "all": lambda service: True,
    "tcp": lambda service: service[0] == TCP,
    "tcp/1": lambda service: service[:2] == (TCP, 1),
    "udp/2-9": lambda service: service[0] == UDP and 2 <= (service[1] or 0) <= 9,
    "icmp": lambda service: service[0] in (ICMP, ICMPV6),
    "icmp/8/1": lambda service: service == (ICMP, None, 8, 1),
    "gre": lambda service: service[0] == GRE,
}


@st.composite
def files(draw: st.DrawFn, policy: Policy) -> str:
    """Draw a file with a few expectations."""
    places = ["any", "internet", "some", *GROUPS, *policy.instance_by_name]
    place = st.one_of(st.sampled_from(places), networks(4).map(str), networks(6).map(str))
    ends = st.lists(place, min_size=1, max_size=3)
    services = st.lists(st.sampled_from(sorted(MEANING)), min_size=1, max_size=2)
    items = st.fixed_dictionaries(
        {"from": ends, "to": ends, "service": services, "verdict": st.sampled_from(("allow", "deny"))}
    )
    return json.dumps({"expect": draw(st.lists(items, min_size=1, max_size=4))})


def packets(policy: Policy) -> Iterator[Seen]:
    """Yield every opener of the universe that a filter judges, with its verdict (SPEC 12.1)."""
    truth = Truth(policy)
    for packet, verdict in truth.verdicts.items():
        source = End(packet.source, truth.owner(packet.vpc, packet.source, False))
        destination = End(packet.destination, truth.owner(packet.vpc, packet.destination, True))
        yield Seen(source, destination, *packet.service, "allow" if verdict == "allow" else "deny")
    for source_vpc, target_vpc in product(policy.vpcs, policy.vpcs):
        if policy.connected(source_vpc.name, target_vpc.name):
            continue
        for family in (4, 6):
            senders, receivers = _own(truth, source_vpc.name, family, False), _own(truth, target_vpc.name, family, True)
            for source, destination, service in product(senders, receivers, SERVICES[family]):
                yield Seen(source, destination, *service, "deny")


def _own(truth: Truth, vpc: str, family: int, is_destination: bool) -> list[End]:
    ends = [End(address, truth.owner(vpc, address, is_destination)) for address in ADDRESSES[family]]
    return [end for end in ends if end.instance is not None and end.instance.vpc == vpc]


def is_proved_about(policy: Policy, expectation: Expectation, packet: Seen) -> bool:
    """Return whether an expectation is proved for the packet. Between VPCs that are not peered, this requires that the
    expectation names instances or their groups, because addresses may belong to other machines there (SPEC 12.1).
    """
    here, there = packet.source.instance, packet.destination.instance
    is_isolated = here is not None and there is not None and not policy.connected(here.vpc, there.vpc)
    return is_about(policy, expectation, packet, only_names=is_isolated)


def is_about(policy: Policy, expectation: Expectation, packet: Seen, *, only_names: bool = False) -> bool:
    def at(word: str, end: End) -> bool:
        is_name = word in policy.group_by_name or word in policy.instance_by_name
        return (is_name or not only_names) and _is_at(policy, word, end.address, end.instance)

    return (
        any(at(word.text, packet.source) for word in expectation.sources)
        and any(at(word.text, packet.destination) for word in expectation.destinations)
        and any(MEANING[word.text](packet[2:6]) for word in expectation.services)
    )


def _is_at(policy: Policy, word: str, address: Address, owner: Instance | None) -> bool:
    if word in policy.group_by_name:
        return owner is not None and word in owner.security_groups
    if word in policy.instance_by_name:
        return owner is not None and word == owner.name
    if word == "internet":
        return owner is None and address.is_global and not address.is_multicast
    if word == "any":
        return True
    named = policy.address_group_by_name[word].addresses if word == "some" else [ip_network(word)]
    return any(address in network for network in named)

"""Draw random policies of a small universe, and find findings by their code."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from hypothesis import strategies as st

from sgfast import Policy
from sgfast.base.errors import PolicyError
from sgfast.policy.model import AddressGroup, AddressGroupPeer, GroupPeer, Instance, Rule, SecurityGroup, Settings, Vpc
from sgfast.questions.checking import CheckResult
from sgfast.reference.engine import ReferenceEngine

#: The networks that contain all networks of rules and instances. Tests add one address for all others.
BLOCKS = {4: ip_network("10.0.0.0/30"), 6: ip_network("2001:db8::/126")}
#: Port ranges of rules. Ports 0, 1, 2 to 9 and higher ones are distinguished.
RANGES = (((0, 0),), ((1, 1),), ((2, 9),), ((0, 9),), ((1, 1), (3, 9)), ((1, 65535),), ((0, 65535),))
TCP, UDP, GRE = 6, 17, 47
GROUPS = ("a", "b", "c")


@st.composite
def networks(draw: st.DrawFn, family: int) -> Any:
    block = BLOCKS[family]
    length = block.prefixlen + draw(st.sampled_from((0, 1, 1, 2, 2, 2)))
    return draw(st.sampled_from(list(block.subnets(new_prefix=length))))


@st.composite
def rules(draw: st.DrawFn, group: str, number: int) -> Rule:
    family = draw(st.sampled_from((4, 4, 4, 6)))
    icmp = 1 if family == 4 else 58
    protocol = draw(st.sampled_from((None, TCP, TCP, TCP, UDP, icmp)))
    ports = icmp_type = icmp_code = None
    if protocol in (TCP, UDP) and draw(st.integers(0, 3)):
        ports = draw(st.sampled_from(RANGES))
    if protocol == icmp and draw(st.booleans()):
        icmp_type = draw(st.sampled_from((8, 9)))
        icmp_code = draw(st.sampled_from((None, 1)))
    peer = draw(
        st.one_of(
            st.none(), networks(family), networks(family), st.sampled_from(GROUPS).map(GroupPeer),
            st.just(AddressGroupPeer("some")),
        )
    )  # fmt: skip
    return Rule(
        f"{group}/{number}", draw(st.sampled_from(("inbound", "inbound", "outbound"))), family, protocol, ports,
        icmp_type, icmp_code, peer, draw(st.sampled_from(("allow", "allow", "allow", "deny"))),
        draw(st.sampled_from((1, 1, 2))),
    )  # fmt: skip


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    groups = tuple(
        SecurityGroup(name, tuple(draw(rules(name, n)) for n in range(draw(st.integers(0, 5))))) for name in GROUPS
    )
    vpcs = (Vpc("v"), Vpc("w", draw(st.sampled_from(("", "north")))), Vpc("x"))
    peerings = frozenset(
        frozenset(pair) for pair in (("v", "w"), ("w", "x"), ("v", "x")) if draw(st.integers(0, 2)) == 0
    )
    instances = []
    owned = set()
    for n in range(draw(st.integers(0, 5))):
        vpc = draw(st.sampled_from(("v", "v", "v", "w", "x")))
        drawn = draw(st.lists(st.one_of(networks(4), networks(4), networks(6)), min_size=1, max_size=2, unique=True))
        addresses = [each for each in drawn if (vpc, each) not in owned]
        owned.update((vpc, each) for each in addresses)
        members = draw(st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3, unique=True))
        if addresses:
            instances.append(Instance(f"i{n}", vpc, tuple(addresses), tuple(members)))
    networks_of_group = draw(st.lists(st.one_of(networks(4), networks(6)), max_size=3, unique=True))
    # This profile allows port 0. The policies are otherwise the same under every profile.
    settings = Settings("aws", group_members=draw(st.sampled_from(("by-owner", "by-address"))))
    if draw(st.booleans()):
        # A network of one member of group c contains all addresses of VPC v (SPEC 4.14).
        around = tuple(block for block in BLOCKS.values() if ("v", block) not in owned)
        instances += [Instance("wide", "v", around, ("c",))] if around else []
        rule = Rule("a/wide", draw(st.sampled_from(("inbound", "outbound"))), 4, peer=GroupPeer("c"))
        groups = (replace(groups[0], rules=(*groups[0].rules, rule)), *groups[1:])
    return Policy(vpcs, peerings, (AddressGroup("some", tuple(networks_of_group)),), groups, tuple(instances), settings)


def by_code(checked: CheckResult, code: str) -> set[tuple[str, str]]:
    return {(finding.group or "", finding.rule or "") for finding in checked.findings if finding.code == code}


def views_exist(policy: Policy) -> bool:
    """Return whether each VPC's addresses are unambiguous (SPEC 7.1)."""
    try:
        for vpc in policy.vpcs:
            ReferenceEngine(policy, vpc=vpc.name)
    except PolicyError:
        return False
    return True

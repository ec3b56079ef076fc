"""One packet that contradicts what somebody says about all packets between two ends (SPEC 12.1 to 12.4)."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Literal

import pytest
from all_openers import ENDS, QUERIED_SERVICES, Truth
from checked_policies import policies, views_exist
from effort import some
from hypothesis import HealthCheck, Phase, assume, given, note, seed, settings
from hypothesis import strategies as st
from workload import make_policy

from sgfast import Engine
from sgfast.base.errors import AmbiguousAddress, SgfastError, TooMuch
from sgfast.clouds.loading import parse_policy
from sgfast.policy.matching import End
from sgfast.policy.model import Policy
from sgfast.rules.reaching import relation
from sgfast.rules.reaching.contradiction import Opener, first_contradiction
from sgfast.rules.reaching.ends import ANY, named_end
from sgfast.rules.reaching.services import SingleService, named_service


def name_of(end: End) -> str | None:
    return None if end.instance is None else end.instance.name


def judged(policy: Policy, opener: Opener) -> str:
    """By the engine."""
    engine = Engine(policy, vpc=opener.vpc)
    return engine.check(
        opener.source.address, opener.destination.address, opener.service.protocol,
        sport=None if opener.service.port is None else 40000, dport=opener.service.port,
        icmp_type=opener.service.icmp_type, icmp_code=opener.service.icmp_code,
    ).verdict  # fmt: skip


@seed(2020)
@settings(max_examples=some(25, 10_000), deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(
    policies(), st.sampled_from(ENDS), st.sampled_from(ENDS), st.sampled_from(QUERIED_SERVICES),
    st.sampled_from(("allow", "deny")),
)  # fmt: skip
def test_a_contradiction_is_found_exactly_if_some_packet_contradicts(
    policy: Policy, source: str, destination: str, service: str, wanted: Literal["allow", "deny"]
) -> None:
    assume(views_exist(policy))
    note(f"{source} to {destination}: {service} {wanted}")
    try:
        ends = named_end(policy, source), named_end(policy, destination)
    except SgfastError:
        assume(False)
    services = named_service(service)
    found = first_contradiction(policy, *ends, services, wanted)
    truth = Truth(policy)
    wrong = [
        packet for packet, verdict in truth.verdicts.items()
        if verdict != wanted and packet.is_one_of(services) and truth.is_between(packet, *ends)
    ]  # fmt: skip
    if found is not None and found.vpc is not None:
        assert judged(policy, found) == ("deny" if wanted == "allow" else "allow")
    if found is None:
        assert wrong == []
    elif found.vpc is None:
        # The VPCs are not peered, so no rule is asked (SPEC 3.6).
        assert wanted == "allow"
        source_, destination_ = found.source.instance, found.destination.instance
        assert source_ is not None and destination_ is not None
        # Only instances that are named are isolated; an address may be another machine's there (SPEC 12.1).
        assert source_.name in ends[0].instances and destination_.name in ends[1].instances
        assert not policy.connected(source_.vpc, destination_.vpc)
    elif wanted == "deny" and service != "all":
        # If something is allowed, some packet of the universe is, too.
        assert wrong


# By hand -------------------------------------------------------------------------------------------------------------

VPCS = """
version: 1
vpcs: [a, b, c]
peerings: [[a, b]]
security_groups:
  - name: open
    rules:
      - {direction: inbound, protocol: tcp, ports: "22,4321", source: 0.0.0.0/0}
      - {direction: inbound, protocol: udp, ports: 67}
      - {direction: inbound, ethertype: IPv6, protocol: all}
      - {direction: outbound, protocol: all}
      - {direction: outbound, ethertype: IPv6, protocol: all}
instances:
  - {name: in-a, vpc: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [open]}
  - {name: in-b, vpc: b, addresses: [10.0.1.5, "2001:db8::6"], security_groups: [open]}
  - {name: in-c, vpc: c, addresses: [10.0.0.5], security_groups: [open]}
  - {name: nat, vpc: c, addresses: [0.0.0.0/0], security_groups: [open]}
""".replace("vpcs: [a, b, c]", "vpcs: [{name: a}, {name: b}, {name: c}]")


def asked(policy: Policy, source: str, destination: str, service: str, wanted: Any) -> Opener | None:
    ends = named_end(policy, source), named_end(policy, destination)
    return first_contradiction(policy, *ends, named_service(service), wanted)


def test_instances_and_well_known_ports_are_the_examples() -> None:
    policy = parse_policy(VPCS)
    found = asked(policy, "any", "in-b", "tcp", "deny")
    source, destination = (
        End(ip_address(address), policy.instance_by_name[name])
        for address, name in (("10.0.0.5", "in-a"), ("10.0.1.5", "in-b"))
    )
    assert found == Opener(source, destination, "a", SingleService(6, 22))
    assert judged(policy, found) == "allow"
    found = asked(policy, "any", "in-b", "tcp/1-21,1000-5000", "deny")
    assert found is not None
    assert found.service.port == 4321


def test_services_of_which_only_some_are_allowed_contradict_both_answers() -> None:
    policy = parse_policy(VPCS)
    opened, denied = (asked(policy, "in-a", "in-b", "tcp/22,23", wanted) for wanted in ("deny", "allow"))
    assert opened is not None
    assert denied is not None
    assert ((opened.service.port, judged(policy, opened)), (denied.service.port, judged(policy, denied))) == (
        (22, "allow"), (23, "deny")
    )  # fmt: skip


def test_of_rules_of_one_priority_a_deny_wins_wherever_it_stands() -> None:
    deny = "{direction: inbound, protocol: tcp, ports: 22, action: deny}"
    for before, after in ((deny + ", ", ""), ("", ", " + deny)):
        policy = parse_policy(
            f"""version: 1
security_groups:
  - {{name: web, rules: [{before}{{direction: inbound, protocol: tcp}}{after}]}}
instances: [{{name: web-1, addresses: [10.0.0.5], security_groups: [web]}}]
"""
        )
        assert asked(policy, "any", "web-1", "tcp/22", "deny") is None
        assert asked(policy, "any", "web-1", "tcp/23", "deny") is not None


def test_an_address_that_only_another_vpc_owns_belongs_to_no_instance() -> None:
    policy = parse_policy(VPCS)
    # Seen from VPC b, 10.0.0.5 is in-a; in-c has it in a VPC of its own.
    found = asked(policy, "10.0.0.5", "in-b", "tcp/22", "deny")
    assert found is not None
    assert (name_of(found.source), found.vpc) == ("in-a", "a")
    assert asked(policy, "in-c", "in-b", "tcp/22", "deny") is None
    isolated = asked(policy, "in-c", "in-b", "tcp/22", "allow")
    assert isolated is not None
    assert (name_of(isolated.source), name_of(isolated.destination), isolated.vpc) == ("in-c", "in-b", None)


def test_only_an_instance_that_is_named_is_isolated_and_its_address_may_be_another_machine() -> None:
    policy = parse_policy(VPCS.replace("in-c, vpc: c, addresses: [10.0.0.5]", "in-c, vpc: c, addresses: [10.9.0.9]"))
    for source, destination in (("in-c", "in-a"), ("group:open", "in-a"), ("in-a", "in-c")):
        isolated = asked(policy, source, destination, "tcp/22", "allow")
        assert isolated is not None and isolated.vpc is None
        assert asked(policy, "in-c", "in-a", "tcp/22", "deny") is None
    notes: list[str] = []
    named = named_end(policy, "10.9.0.9"), named_end(policy, "in-a")
    assert first_contradiction(policy, *named, named_service("tcp/22"), "allow", notes) is None
    assert notes == [
        "no instance that VPC a sees has 10.9.0.9: it is in-c's in VPC c, which is not peered; it is judged as an "
        "address that no instance owns, and nobody can tell whether it is one (write in-c to ask about the instance)"
    ]
    # Everybody is asked about, and nobody in particular.
    assert asked(policy, "any", "in-a", "tcp/22", "allow") is None


def test_a_multicast_destination_is_no_instance_though_a_prefix_covers_it() -> None:
    policy = parse_policy(VPCS)
    # The gateway owns everything: as a sender also 224.0.0.1, as a receiver not.
    found = asked(policy, "in-c", "224.0.0.0/4", "tcp/80", "deny")
    assert found is not None
    assert (name_of(found.destination), judged(policy, found)) == (None, "allow")
    found = asked(policy, "224.0.0.0/4", "in-c", "tcp/22", "deny")
    assert found is not None
    assert (name_of(found.source), judged(policy, found)) == ("nat", "allow")
    assert asked(policy, "in-c", "198.51.100.7", "tcp/80", "allow") is not None  # the gateway lets nobody in there


def test_an_instance_does_not_open_connections_to_itself() -> None:
    policy = parse_policy(VPCS)
    assert asked(policy, "in-a", "in-a", "all", "deny") is None
    assert asked(policy, "in-a", "in-a", "all", "allow") is None
    assert asked(policy, "group:open", "in-a", "tcp/80", "allow") is not None


def test_what_opens_nothing_and_what_no_filter_judges_is_no_opener() -> None:
    policy = parse_policy(VPCS)
    for service in ("icmpv6 echo-reply", "icmpv6/1", "icmpv6 neighbour-solicit", "icmpv6 mld-query"):
        assert asked(policy, "in-a", "in-b", service, "deny") is None, service
    assert asked(policy, "in-a", "in-b", "icmpv6 echo-request", "deny") is not None
    assert asked(policy, "198.51.100.7", "203.0.113.9", "all", "deny") is None
    found = asked(policy, "in-a", "in-b", "udp/67", "deny")  # no DHCP: that comes from port 68
    assert found is not None
    assert judged(policy, found) == "allow"
    roles = replace(policy, settings=replace(policy.settings, infrastructure="by-role"))
    assert asked(roles, "in-a", "in-b", "icmpv6 redirect", "deny") is not None
    assert asked(roles, "in-a", "in-b", "icmpv6 neighbour-solicit", "deny") is None
    filtered = replace(policy, settings=replace(policy.settings, infrastructure="filtered"))
    assert asked(filtered, "in-a", "in-b", "icmpv6 neighbour-solicit", "deny") is not None


def test_two_peers_that_own_one_address_are_an_error() -> None:
    policy = parse_policy(VPCS.replace("[[a, b]]", "[[a, b], [b, c]]"))
    for destination in ("any", "10.0.0.5"):
        with pytest.raises(AmbiguousAddress, match="from VPC 'b' these two peers cannot be distinguished"):
            asked(policy, "in-b", destination, "all", "deny")


@pytest.mark.parametrize("bound", ["MAX_VIEWED", "MAX_MASK_BYTES", "MAX_CELLS", "MAX_PAINTED", "MAX_PAIRS"])
def test_what_would_take_too_long_is_refused_before_it_is_done(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = parse_policy(VPCS)
    monkeypatch.setattr(relation, bound, 1)
    with pytest.raises(TooMuch, match=r"^<policy>: an answer about all packets would take too long: .*; ask "):
        asked(policy, "any", "any", "all", "allow")


def test_a_large_policy_is_judged_as_the_engine_judges_it() -> None:
    policy = make_policy(rules=100, groups=10, instances=200, seed=3)
    rng = random.Random(5)
    engine = Engine(policy)
    wrong = 0
    for n in range(some(15, 2000)):
        group, other = rng.choice(policy.security_groups), rng.choice(policy.security_groups)
        rule = rng.choice([rule for rule in group.rules if rule.direction == "inbound" and rule.ports])
        service = named_service(f"{'tcp' if rule.protocol == 6 else 'udp'}/{rule.ports[0][0]}")
        sources = rng.choice([ANY, named_end(policy, other.name), named_end(policy, "internet")])
        wanted = rng.choice(("allow", "deny"))
        found = first_contradiction(policy, sources, named_end(policy, group.name), service, wanted)
        if found is not None:
            protocol, port, *_ = found.service
            ends = found.source.address, found.destination.address
            verdict = engine.check(*ends, protocol, sport=None if port is None else 40000 + n, dport=port)
            assert verdict.verdict == ("deny" if wanted == "allow" else "allow"), found
            wrong += 1
    assert wrong > 4

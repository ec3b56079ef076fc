"""Instances in several VPCs (SPEC 3.6, 7). ``scenario`` says how to read a table."""

from __future__ import annotations

import pytest
from peers_and_filter import (
    RED,
    vpcs,
)
from scenario import (
    openers,
    policy_of,
    run,
)

from sgfast.base.errors import PolicyError
from sgfast.engine import Engine
from sgfast.reference.engine import ReferenceEngine


def test_unpeered_vpcs_are_isolated_before_any_rule_and_any_state() -> None:
    engine = run(vpcs(), """
        tcp r:40000 > n:22 S  -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        tcp n:22 > r:40000 SA -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        gre n > r             -> deny vpc-isolated
        icmp n > r 8/0        -> deny vpc-isolated
        error n > r about tcp r:40000 > n:22 S -> deny vpc-isolated
        tcp r:40000 > b:22 S  -> allow rule; egress allow rule; ingress allow rule
    """)  # fmt: skip
    assert engine.dataplane.counters["live_tuples"] == 1


def test_isolated_opener_makes_moot_in_causal_mode() -> None:
    run(vpcs(), """
        tcp r:40000 > n:22 S  -> deny vpc-isolated
        tcp n:22 > r:40000 SA -> moot opener-denied; egress -; ingress -
        tcp r:40000 > n:22 A  -> moot opener-denied
        tcp r:40000 > n:22 S  -> deny vpc-isolated
        # not an opener: nothing to be moot
        tcp n:40000 > r:23 A  -> deny vpc-isolated
        tcp r:23 > n:40000 A  -> deny vpc-isolated
        error n > r about tcp r:40000 > n:22 S -> moot opener-denied
        # the rules allow everything, but no packet gets so far
        gre r > n             -> deny vpc-isolated
        gre n > r             -> moot opener-denied; egress -; ingress -
        icmp r > n 8/0        -> deny vpc-isolated
        icmp n > r 0/0        -> moot opener-denied
    """, mode="causal", midstream="infer")  # fmt: skip


def test_named_vpc_sees_itself_and_its_peers() -> None:
    script = """
        tcp 10.1.0.5:4 > 10.2.0.5:22 -> {}
        tcp 10.2.0.5:4 > 10.3.0.5:22 -> {}
        tcp 10.1.0.5:4 > 10.3.0.5:22 -> {}
        tcp 10.1.0.5:4 > 10.9.0.5:22 -> {}
    """
    both, first, second, none = (
        "allow rule; egress allow rule; ingress allow rule", "allow rule; ingress -", "allow rule; egress -",
        "out-of-scope",
    )  # fmt: skip
    openers(vpcs(), script.format(both, both, "deny vpc-isolated", first))
    openers(vpcs(), script.format(both, both, "deny vpc-isolated", first), vpc="blue")
    # green is not red's peer: its address is somewhere outside
    openers(vpcs(), script.format(both, first, first, first), vpc="red")
    openers(vpcs(), script.format(second, both, second, none), vpc="green")


def test_address_owned_in_two_vpcs_needs_the_vpcs_name() -> None:
    policy = policy_of(vpcs(red=RED, green=RED))
    for make in (Engine, ReferenceEngine):
        with pytest.raises(PolicyError, match=r"(?s)'[rn]'.*'[rn]'.*--vpc"):
            make(policy)
    # green and red do not see each other
    openers(policy, f"tcp 10.2.0.5:4 > {RED}:22 -> allow rule; egress allow rule; ingress allow rule", vpc="red")
    openers(policy, f"tcp 203.0.113.9:4 > {RED}:22 -> allow rule; egress -", vpc="green")
    # blue sees both
    for make in (Engine, ReferenceEngine):
        with pytest.raises(PolicyError, match=r"(?s)'[rn]'.*'[rn]'"):
            make(policy, vpc="blue")


@pytest.mark.parametrize(("red", "green"), [
    ("10.1.0.0/16", "10.1.2.3"), ("10.1.2.3", "10.1.0.0/16"), ("10.1.0.0/16", "10.1.0.0/17"),
    ("0.0.0.0/0", "10.3.0.5"), ('"2001:db8::/32"', '"2001:db8:ffff::/48"'), ('"::/0"', '"ffff::/128"'),
])  # fmt: skip
def test_prefixes_that_overlap_in_two_vpcs_are_an_error(red: str, green: str) -> None:
    policy = policy_of(vpcs(red=red, green=green, blue='"fd00::1"' if ":" not in red else "10.2.0.5"))
    for make in (Engine, ReferenceEngine):
        with pytest.raises(PolicyError, match=r"'[rn]'"):
            make(policy)
        make(policy, vpc="red")
        make(policy, vpc="green")
        with pytest.raises(PolicyError, match=r"'[rn]'"):
            make(policy, vpc="blue")


def test_own_prefix_shadows_what_lies_inside_of_it() -> None:
    policy = vpcs(red="10.0.0.0/8", blue="10.2.0.5, 11.0.0.5")
    # 10.2.0.5 is one of red's own; 11.0.0.5 is blue's still
    openers(policy, """
        tcp 10.1.0.1:4 > 10.2.0.5:22    -> local
        tcp 10.1.0.1:4 > 11.0.0.5:22    -> allow rule; egress allow rule; ingress allow rule
        tcp 11.0.0.5:4 > 10.2.0.5:22    -> allow rule; egress allow rule; ingress allow rule
        tcp 203.0.113.9:4 > 10.2.0.5:22 -> allow rule; egress -
    """, vpc="red")  # fmt: skip
    # seen from blue it is blue's, and the rest of red's network is red's
    openers(policy.replace("10.3.0.5", "12.0.0.5"), """
        tcp 10.2.0.4:4 > 10.2.0.5:22    -> allow rule; egress allow rule; ingress allow rule
        tcp 10.2.0.5:4 > 11.0.0.5:22    -> local
    """, vpc="blue")  # fmt: skip


def test_unknown_vpc_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(PolicyError, match=r"purple.*red, blue, green"):
        Engine(policy_of(vpcs()), vpc="purple")
    with pytest.raises(PolicyError, match="purple"):
        ReferenceEngine(policy_of(vpcs()), vpc="purple")

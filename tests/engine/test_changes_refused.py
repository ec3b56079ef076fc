"""Changes of peerings and address groups, in a full table, and those that are refused (SPEC 6.1, 6.9, 3.6, 5.8)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from scenario import run, run_both_families
from shop_changes import (
    CHANGES,
    SHOP,
    TLS,
    VPCS,
    handshake,
    on_change,
)

from sgfast.policy.changes import (
    AddAddress,
    AddMember,
    AddPeering,
    AddRule,
    Change,
    RemoveGroup,
    RemoveInstance,
    RemoveMember,
    RemovePeering,
    RemoveRule,
)
from sgfast.policy.model import GroupPeer


def room_for(connections: int) -> str:
    return f"settings: {{max_connections: {connections}}}\n"


# --- SPEC 3.6, 7: peerings added and removed


PEERINGS: dict[str, Change | list[Change]] = {
    "apart": RemovePeering("blue", "red"),
    "together": AddPeering("blue", "red"),
    "swap": [RemovePeering("blue", "red"), AddPeering("blue", "green")],
    "touch": AddRule("g", TLS),
    "closed": [RemoveRule("g", "g/inbound/1"), RemoveRule("g", "g/inbound/2")],
}


@pytest.mark.parametrize("policy", [VPCS + on_change(what) for what in ("cut-inbound", "keep")])
def test_peering_that_goes_isolates_and_disconnects_nothing(policy: str) -> None:
    """SPEC 6.9."""
    run_both_families(policy, handshake("r:40000", "b:80") + handshake("r:40002", "b:80") + """
        @10  apply apart                -> 0 disconnected
        @11  tcp r:40002 > b:80 PA      -> deny vpc-isolated
        @11  tcp r:40000 > b:80 PA      -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        @11  tcp b:80 > r:40000 PA      -> deny vpc-isolated
        @11  tcp r:40001 > b:80 S       -> deny vpc-isolated
        @11  error b > r about tcp r:40000 > b:80 PA -> deny vpc-isolated
        @599 apply together             -> 0 disconnected
        @600-1ns tcp r:40000 > b:80 PA  -> allow established; egress allow established; ingress allow established
        # what isolation denies prolongs nothing
        @600 tcp r:40002 > b:80 PA      -> deny midstream
        @600 tcp r:40002 > b:80 S       -> allow rule
    """, changes=PEERINGS)  # fmt: skip


def test_change_that_makes_an_address_ambiguous_is_refused() -> None:
    """SPEC 6.10, 7.3."""
    policy = VPCS.replace("10.3.0.5", "10.1.0.5")
    run(policy, handshake("r:40000", "b:80") + """
        # blue would see 10.1.0.5 in red and in green
        @1 apply green            -> refused
        @2 tcp r:40000 > b:80 PA  -> allow established; egress allow established; ingress allow established
        @2 apply swap             -> 0 disconnected
        @3 tcp n:40000 > b:80 PA  -> deny midstream; egress deny midstream; ingress -
        # to b's side it is the same connection: n has the address r had
        @3 tcp n:40000 > b:80 S   -> allow established; egress allow rule; ingress allow established
    """, changes=PEERINGS | {"green": AddPeering("blue", "green")}, vpc="blue")  # fmt: skip
    run(VPCS, handshake("r:40000", "b:80") + """
        @1 apply twice            -> refused
        @1 apply inside           -> refused
        @2 tcp r:40000 > b:80 PA  -> allow established; egress allow established; ingress allow established
    """, changes={
        "twice": AddAddress("n", ip_network("10.1.0.5/32")), "inside": AddAddress("n", ip_network("10.1.0.0/24")),
    })  # fmt: skip


# --- Address groups


# --- SPEC 5.8: cut connections still occupy table entries


def test_table_full_of_cut_connections_has_no_room_until_their_deadlines() -> None:
    run_both_families(SHOP + room_for(2), handshake() + """
        @0   udp client:1 > web:53       -> allow rule
        @0   udp web:53 > client:1       -> allow established
        @1   apply touch                 -> 2 disconnected
        @2   udp client:2 > web:53       -> deny table-full
        @2   udp web:3 > client:53       -> deny table-full
        @180 udp client:2 > web:53       -> allow rule
        @180 udp web:53 > client:2       -> allow established
        @450 udp client:1 > web:53       -> allow rule
        @450 udp web:53 > client:1       -> allow established
        @600-1ns udp client:3 > web:53   -> deny table-full
        @600 udp client:3 > web:53       -> allow rule
    """, changes=CHANGES)  # fmt: skip


# --- SPEC 6.1: changes are rejected as a whole


@pytest.mark.parametrize("bad", [
    AddMember("nope", "web"),
    RemoveRule("w", "w/inbound/99"),
    RemoveMember("w", "web"),
    RemoveGroup("w"),
    AddAddress("web", ip_network("10.0.0.6/32")),
    AddRule("d", replace(TLS, peer=GroupPeer("nope"))),
    RemoveInstance("nope"),
])  # fmt: skip
def test_refused_change_changes_nothing_even_as_the_last_of_several(bad: Change) -> None:
    good: list[Change] = [
        *CHANGES["no-http"], *CHANGES["8080"], RemoveInstance("twin"), AddMember("spare", "db"),
        RemoveRule("d", "d/outbound/1"),
    ]  # fmt: skip
    for what in ("cut-inbound", "cut-unmatched", "keep"):
        run_both_families(SHOP + on_change(what), handshake() + handshake(server="twin:80") + """
            @0 udp client:1 > db:53         -> allow rule
            @1 apply bad                    -> refused
            @1 apply last                   -> refused
            @1 apply first                  -> refused
            @2 tcp client:40000 > web:80 A  -> allow established
            @2 tcp client:40000 > twin:80 A -> allow established
            @2 udp client:1 > db:53         -> allow established
            @2 tcp client:40001 > web:80 S  -> allow rule
            @2 tcp client:40001 > web:8080 S -> deny no-rule
            @2 tcp db:1 > client:80 S       -> allow rule
        """, changes={"bad": bad, "last": [*good, bad], "first": [bad, *good]})  # fmt: skip

"""Connections that changes leave alone or make a filter forget (SPEC 6.5, 6.6). ``scenario`` explains the tables."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from scenario import policy_of, run, run_both_families
from shop_changes import (
    CHANGES,
    SHOP,
    TOUCH,
    WEB,
    handshake,
    on_change,
)

from sgfast.policy.changes import (
    AddAddress,
    AddInstance,
    Change,
    RemoveAddress,
    RemoveInstance,
)

# --- SPEC 6.5: outbound persists


# --- Connections with two sides, of which one is cut


def test_of_two_sides_only_the_one_of_the_changed_group_is_cut() -> None:
    run_both_families(SHOP, handshake("db:40000", "web:80") + """
        @1   apply touch                -> 1 disconnected
        @2   tcp db:40000 > web:80 PA   -> deny disconnected; egress allow established; ingress deny disconnected
        @2   tcp web:80 > db:40000 PA   -> deny disconnected; egress deny disconnected; ingress -
        @2   tcp db:40000 > web:80 SF   -> deny invalid; egress deny invalid; ingress -
        # errors to db need db's side and the sender's
        @2   error router > db about tcp db:40000 > web:80 PA -> allow related
        @2   error web > db about tcp db:40000 > web:80 PA    -> deny invalid; egress deny invalid; ingress -
        @2   error router > web about tcp web:80 > db:40000 A -> deny invalid
        @600 tcp db:40000 > web:80 PA   -> deny midstream; egress allow established; ingress deny midstream
        # db's side has seen all of db's packets
        @1200-1ns tcp db:40000 > web:80 PA -> deny midstream; egress allow established; ingress deny midstream
    """, changes=CHANGES)  # fmt: skip


# --- SPEC 6.6: what is forgotten


@pytest.mark.parametrize("policy", [SHOP, *(SHOP + on_change(what) for what in ("keep", "cut-unmatched"))])
def test_instance_deleted_and_added_in_one_go_is_another_one_though_nothing_else_differs(policy: str) -> None:
    """SPEC 6.11. The last instance of a policy has the same number before and after."""
    for instance in (WEB, policy_of(SHOP).instances[-1]):
        run_both_families(policy, f"""
            @0 udp client:9 > {instance.name}:53 -> allow rule
            @0 udp {instance.name}:53 > client:9 -> allow established
            @1 apply anew                        -> 0 disconnected
            @1 error router > {instance.name} about udp {instance.name}:53 > client:9 -> deny invalid
            @1 udp client:9 > {instance.name}:53 -> allow rule
        """, changes={"anew": [RemoveInstance(instance.name), AddInstance(instance)]})  # fmt: skip


#: web has a second address, which it loses.
TWO = SHOP.replace("addresses: [10.0.0.5,", "addresses: [10.0.0.5, 10.0.0.15,")
TAKEN, GIVEN = (change("web", ip_network("10.0.0.15/32")) for change in (RemoveAddress, AddAddress))


def test_address_that_is_taken_forgets_its_connections_cut_or_not_and_no_others() -> None:
    run(TWO, handshake() + handshake(server="10.0.0.15:80") + """
        @1 apply taken                       -> 0 disconnected
        @2 tcp client:40000 > 10.0.0.15:80 A -> out-of-scope
        @2 tcp client:40000 > web:80 A       -> allow established
        @3 apply given
        @4 tcp client:40000 > 10.0.0.15:80 A -> deny midstream
        @4 tcp client:40000 > 10.0.0.15:80 S -> allow rule
        @4 tcp client:40000 > web:80 A       -> allow established
        @4 udp db:1 > 10.0.0.15:53           -> allow rule
        @5 apply touch                       -> 3 disconnected
        @5 tcp client:40000 > 10.0.0.15:80 S -> deny disconnected
        @5 udp db:1 > 10.0.0.15:53           -> deny disconnected
        @6 apply taken                       -> 0 disconnected
        @6 apply given                       -> 0 disconnected
        @6 tcp client:40000 > 10.0.0.15:80 S -> allow rule
        @6 udp db:1 > 10.0.0.15:53           -> allow rule; egress allow established; ingress allow rule
        # taken and given back in one go, it was never away (SPEC 6.11)
        @7 apply both                        -> 0 disconnected
        @7 tcp 10.0.0.15:80 > client:40000 SA -> allow established
    """, changes={"taken": TAKEN, "given": GIVEN, "touch": TOUCH, "both": [TAKEN, GIVEN]})  # fmt: skip


def test_connection_that_was_local_for_a_while_is_forgotten() -> None:
    """SPEC 6.11: so is it for errors that quote it. The other end's connection stays where it is another instance's."""
    peer = ip_network("203.0.113.9/32")
    changes: dict[str, Change | list[Change]] = {
        "own": AddAddress("web", peer), "not-own": RemoveAddress("web", peer),
    }
    run(SHOP, """
        @0 udp client:1 > web:53      -> allow rule
        @0 udp web:53 > client:1      -> allow established
        @0 udp db:53 > client:2       -> allow rule
        @1 apply own                  -> 0 disconnected
        @2 udp client:1 > web:53      -> local
        @2 udp db:53 > client:2       -> deny no-rule; egress allow established; ingress deny no-rule
        @3 apply not-own              -> 0 disconnected
        @4 error client > web about udp web:53 > client:1 -> deny invalid
        @4 udp client:1 > web:53      -> allow rule
        @4 udp db:53 > client:2       -> allow established
    """, changes=changes)  # fmt: skip


PREFIXES = SHOP + '  - {name: router, addresses: [10.7.0.0/16, "2001:db8:7::/48"], security_groups: [w]}\n'


@pytest.mark.parametrize(("address", "neighbour", "longer", "wider", "narrower"), [
    ("10.7.1.9", "10.7.2.9", "10.7.1.0/24", "10.0.0.0/8", "10.7.1.8/31"),
    ("[2001:db8:7:1::9]", "[2001:db8:7:2::9]", "2001:db8:7:1::/64", "2001:db8::/44", "2001:db8:7:1::8/127"),
])  # fmt: skip
def test_longest_prefix_takes_an_address_away(
    address: str, neighbour: str, longer: str, wider: str, narrower: str
) -> None:
    changes: dict[str, Change] = {
        "longer": AddAddress("db", ip_network(longer)),
        "not-longer": RemoveAddress("db", ip_network(longer)),
        "wider": AddAddress("db", ip_network(wider)),
        "own": AddAddress("router", ip_network(narrower)),
        "not-wide": RemoveAddress("router", next(
            prefix for prefix in policy_of(PREFIXES).instance_by_name["router"].addresses
            if prefix.overlaps(ip_network(longer))
        )),
    }  # fmt: skip
    both_hosts = handshake(server=f"{address}:80") + handshake(server=f"{neighbour}:80")
    run(PREFIXES, both_hosts + f"""
        @1 apply longer                         -> 0 disconnected
        @2 tcp client:40000 > {address}:80 A    -> deny midstream
        @2 tcp client:40000 > {address}:80 S    -> deny no-rule
        @2 tcp client:40000 > {neighbour}:80 A  -> allow established
        # what was forgotten does not come back
        @3 apply not-longer                     -> 0 disconnected
        @3 tcp client:40000 > {address}:80 A    -> deny midstream
        @3 tcp client:40000 > {address}:80 S    -> allow rule
        @3 tcp client:40000 > {neighbour}:80 A  -> allow established
    """, changes=changes)  # fmt: skip
    run(PREFIXES, both_hosts + f"""
        # less specific, of another; more specific, of the same: nobody loses anything
        @1 apply wider                          -> 0 disconnected
        @1 apply own                            -> 0 disconnected
        @2 tcp client:40000 > {address}:80 A    -> allow established
        @2 tcp client:40000 > {neighbour}:80 A  -> allow established
        @3 apply longer                         -> 0 disconnected
        @3 tcp client:40000 > {address}:80 A    -> allow established
        # the instance loses the wide prefix, and keeps the address because the narrow prefix contains it
        @4 apply not-wide                       -> 0 disconnected
        @4 tcp client:40000 > {address}:80 A    -> allow established
        @4 tcp client:40000 > {neighbour}:80 A  -> deny midstream
    """, changes=changes)  # fmt: skip

"""What changes leave alone, and what they make a filter forget (SPEC 6.5, 6.6). ``scenario`` explains the tables."""

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
    RemoveRule,
)

# --- SPEC 6.5: outbound persists


def test_outbound_persists_in_both_families_and_opens_no_more_when_it_is_over() -> None:
    run_both_families(SHOP, """
        @0   udp web:4000 > client:53 -> allow rule
        @0   ping web > client        -> allow rule
        @1   apply no-out             -> 0 disconnected
        @1   error router > web about udp web:4000 > client:53 -> allow related
        @29  udp client:53 > web:4000 -> allow established
        @29  pong client > web        -> allow established
        @208 udp web:4000 > client:53 -> allow established
        @208 ping web > client        -> deny no-rule
        @388 udp web:4000 > client:53 -> deny no-rule
    """, changes=CHANGES)  # fmt: skip


def test_connection_reopened_from_the_other_end_is_outbound_then() -> None:
    run_both_families(SHOP, handshake() + """
        @1 tcp client:40000 > web:80 FA -> allow established
        @1 tcp web:80 > client:40000 FA -> allow established
        @1 tcp client:40000 > web:80 A  -> allow established
        @2 tcp web:80 > client:40000 S  -> allow rule
        @3 apply touch                  -> 0 disconnected
        @3 tcp client:40000 > web:80 SA -> allow established
    """, changes=CHANGES)  # fmt: skip


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


def test_two_sides_cut_one_after_the_other_count_twice_and_at_once_count_once() -> None:
    policy = SHOP + on_change("cut-unmatched")
    no_out = [RemoveRule("d", "d/outbound/1"), RemoveRule("d", "d/outbound/2")]
    run_both_families(policy, handshake("db:40000", "web:80") + """
        @1 apply no-http              -> 1 disconnected
        @2 tcp db:40000 > web:80 PA   -> deny disconnected; egress allow established; ingress deny disconnected
        @3 apply db-no-out            -> 1 disconnected
        @4 tcp db:40000 > web:80 PA   -> deny disconnected; egress deny disconnected; ingress -
    """, changes=CHANGES | {"db-no-out": no_out})  # fmt: skip
    run_both_families(policy, handshake("db:40000", "web:80") + """
        @1 apply all                  -> 1 disconnected
        @4 tcp db:40000 > web:80 PA   -> deny disconnected; egress deny disconnected; ingress -
        @4 tcp web:80 > db:40000 PA   -> deny disconnected; egress deny disconnected; ingress -
    """, changes={"all": [*CHANGES["no-http"], *no_out]})  # fmt: skip


def test_new_egress_connection_of_a_cut_key_gets_no_further() -> None:
    run_both_families(SHOP, """
        @0   udp db:1 > web:53 -> allow rule; egress allow rule; ingress allow rule
        @0   udp db:2 > web:53 -> allow rule
        @5   udp web:53 > db:2 -> allow established
        @20  apply touch       -> 2 disconnected
        # db's side is over at 30 s, web's too; db's second at 185 s
        @30  udp db:1 > web:53 -> allow rule; egress allow rule; ingress allow rule
        @30  udp db:2 > web:53 -> deny disconnected; egress allow established; ingress deny disconnected
        @185-1ns udp web:53 > db:2 -> deny disconnected; egress deny disconnected; ingress -
        @185 udp db:2 > web:53 -> allow rule; egress allow established; ingress allow rule
    """, changes=CHANGES)  # fmt: skip
    # db has an unanswered SYN that expires before web's side does.
    run_both_families(SHOP, handshake("db:40000", "web:80") + """
        @1  tcp db:40000 > web:80 FA -> allow established
        @1  tcp web:80 > db:40000 FA -> allow established
        @1  tcp db:40000 > web:80 A  -> allow established
        @20 apply touch              -> 1 disconnected
        # TIME-WAIT on db's side: a new opener there, cut on web's
        @25 tcp db:40000 > web:80 S  -> deny disconnected; egress allow rule; ingress deny disconnected
        @31-1ns tcp db:40000 > web:80 S -> deny disconnected; egress allow established; ingress deny disconnected
        @31 tcp db:40000 > web:80 S  -> allow rule; egress allow established; ingress allow rule
    """, changes=CHANGES)  # fmt: skip


# --- SPEC 6.6: what is forgotten


def test_instance_that_is_deleted_is_nobody_and_comes_back_as_another() -> None:
    run_both_families(SHOP, handshake() + """
        @0 tcp web:50000 > client:443 S  -> allow rule
        @0 tcp client:443 > web:50000 SA -> allow established
        @1 apply gone                    -> 0 disconnected
        @2 tcp client:40000 > web:80 A   -> out-of-scope
        @3 apply back                    -> 0 disconnected
        @4 tcp client:40000 > web:80 A   -> deny midstream
        @4 tcp client:443 > web:50000 A  -> deny midstream
        @4 tcp client:40000 > web:80 S   -> allow rule
    """, changes={"gone": RemoveInstance("web"), "back": AddInstance(WEB)})  # fmt: skip


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


def test_deleted_instance_leaves_the_other_ends_side_as_it_is() -> None:
    run_both_families(SHOP, handshake("db:40000", "web:80") + handshake("web:40001", "db:5432") + """
        @1 apply gone                  -> 0 disconnected
        # web is a stranger now, and db goes on with it
        @2 tcp db:40000 > web:80 PA    -> allow established; egress allow established; ingress -
        @2 tcp web:80 > db:40000 PA    -> allow established; egress -; ingress allow established
        @2 tcp web:40001 > db:5432 PA  -> allow established; egress -; ingress allow established
        @2 tcp web:40002 > db:5432 S   -> deny no-rule
        @3 apply back
        @4 tcp db:40000 > web:80 PA    -> deny midstream; egress allow established; ingress deny midstream
    """, changes={"gone": RemoveInstance("web"), "back": AddInstance(WEB)})  # fmt: skip


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


def test_address_that_moves_to_another_instance_is_met_by_its_filter() -> None:
    run(TWO, """
        @0 udp client:1 > 10.0.0.15:53 -> allow rule w/inbound/3
        @0 udp 10.0.0.15:53 > client:1 -> allow established
        @1 apply moves                 -> 0 disconnected
        @1 udp 10.0.0.15:53 > client:1 -> allow rule d/outbound/1
        @2 udp client:1 > 10.0.0.15:53 -> allow established d/outbound/1
        @2 udp client:2 > 10.0.0.15:53 -> allow rule d/inbound/3
        @3 apply touch                 -> 0 disconnected
        @3 udp client:2 > 10.0.0.15:53 -> allow established
    """, changes={"moves": [TAKEN, AddAddress("db", TAKEN.address)], "touch": TOUCH})  # fmt: skip


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


def test_address_added_makes_a_stranger_known() -> None:
    run_both_families(SHOP, handshake() + """
        @0 udp other:1 > client:2      -> out-of-scope
        @1 apply client-is-db          -> 0 disconnected
        @2 tcp client:40000 > web:80 A -> deny midstream; egress deny midstream; ingress -
        @2 tcp web:80 > client:40000 A -> deny midstream; egress allow established; ingress deny midstream
        @2 udp other:1 > client:53     -> allow rule
    """, changes={"client-is-db": [
        AddAddress("db", ip_network("203.0.113.9/32")), AddAddress("db", ip_network("2001:db8:ff::9/128")),
    ]})  # fmt: skip

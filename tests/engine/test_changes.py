"""Connections that changes cut, keep or forget, and changes that are refused (SPEC 6). ``scenario`` explains tables."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from scenario import policy_of, run, run_both_families
from shop_changes import CHANGES, SHOP, TLS, VPCS, WEB, handshake, new, on_change

from sgfast.policy.changes import (
    AddAddress,
    AddGroup,
    AddInstance,
    AddMember,
    AddPeering,
    AddRule,
    Change,
    ModifyRule,
    RemoveAddress,
    RemoveGroup,
    RemoveInstance,
    RemoveMember,
    RemovePeering,
    RemoveRule,
)
from sgfast.policy.model import GroupPeer, SecurityGroup

# --- SPEC 6.3: whose connections are cut, and which


def test_joining_and_leaving_cut_all_inbound_of_all_members_before_or_after() -> None:
    lives = """
        @0 udp client:1 > web:53  -> allow rule
        @0 udp client:1 > twin:53 -> allow rule
        @0 udp client:1 > db:53   -> allow rule
        @0 udp web:2 > client:2   -> allow rule
        @0 udp db:2 > client:2    -> allow rule
    """
    outbound = """
        @2 udp client:2 > web:2 -> allow established
        @2 udp client:2 > db:2  -> allow established
    """
    cut, on = "deny disconnected", "allow established"
    for name, changes, (web, twin, db) in [
        ("joins", [AddMember("w", "db")], (cut, cut, cut)),
        ("joins-other", [AddMember("d", "web")], (cut, on, cut)),
        ("joins-empty", [AddMember("spare", "web")], (cut, on, on)),
        ("leaves", [AddMember("spare", "web"), RemoveMember("w", "web")], (cut, cut, on)),
        ("arrives", [AddInstance(new("late", "w", "10.0.0.8"))], (cut, cut, on)),
        ("arrives-in-two", [AddInstance(new("late", "d w", "10.0.0.8"))], (cut, cut, cut)),
        ("arrives-elsewhere", [AddInstance(new("late", "spare", "10.0.0.8"))], (on, on, on)),
        ("goes", [RemoveInstance("twin")], (cut, "out-of-scope", on)),
    ]:
        count = (web, twin, db).count(cut)
        run_both_families(SHOP, lives + f"""
            @1 apply {name}           -> {count} disconnected
            @2 udp client:1 > web:53  -> {web}
            @2 udp client:1 > twin:53 -> {twin}
            @2 udp client:1 > db:53   -> {db}
        """ + outbound, changes={name: changes})  # fmt: skip


def test_who_leaves_is_cut_though_nobody_is_in_the_group_any_more() -> None:
    run_both_families(SHOP, """
        @0 apply joins            -> 0 disconnected
        @1 udp client:1 > web:53  -> allow rule
        @1 udp client:1 > twin:53 -> allow rule
        @2 apply leaves           -> 1 disconnected
        @3 udp client:1 > web:53  -> deny disconnected
        @3 udp client:1 > twin:53 -> allow established
    """, changes={"joins": [AddMember("spare", "web")], "leaves": [RemoveMember("spare", "web")]})  # fmt: skip


def test_what_changes_nothing_cuts_nothing() -> None:
    rule = policy_of(SHOP).group_by_name["w"].rules[0]
    changes: dict[str, Change | list[Change]] = {
        "description": ModifyRule("w", "w/inbound/1", replace(rule, description="the shop")),
        "same-rule": ModifyRule("w", "w/inbound/1", rule),
        "same-rule-by-another-id": ModifyRule("w", "w/inbound/1", replace(rule, id="mine")),
        "member": AddMember("w", "web"),
        "same-twice": [AddMember("w", "web"), ModifyRule("w", "w/inbound/1", rule)],
        "nothing": [],
        "new-group": AddGroup(SecurityGroup("g", (replace(TLS, id="g/inbound/1", peer=GroupPeer("w")),))),
        "no-group": RemoveGroup("spare"),
        "address": AddAddress("web", ip_network("10.9.9.9/32")),
    }
    for policy in (SHOP, SHOP + on_change("cut-unmatched"), SHOP + on_change("keep")):
        for name in changes:
            run_both_families(policy, handshake() + f"""
                @1 apply {name}                -> 0 disconnected
                @2 tcp client:40000 > web:80 A -> allow established
                @2 tcp web:80 > client:40000 A -> allow established
            """, changes=changes)  # fmt: skip


def test_change_is_no_packet_and_does_not_move_the_clock() -> None:
    """SPEC 6.9."""
    engine = run(SHOP, """
        @0     apply touch             -> 0 disconnected
        # the first packet of the capture comes now, and its window of inference ends at 700 s
        @100   udp client:1 > web:53   -> allow rule
        @110   apply touch             -> 1 disconnected
        @109   udp client:2 > web:53   -> allow rule
        @139-1ns udp client:2 > web:53 -> allow established
        @700-1ns tcp client:9 > web:80 A -> allow inferred
        @700   tcp client:8 > web:80 A -> deny midstream
    """, changes=CHANGES, midstream="infer")  # fmt: skip
    assert engine.dataplane.counters["late"] == 0


def test_change_before_the_clock_comes_at_the_clocks_time() -> None:
    """SPEC 6.9. What has ended by then is not cut, even if nothing has looked at it since."""
    run_both_families(SHOP, handshake() + """
        @600+1ns udp client:1 > web:53       -> allow rule
        @599     apply no-http               -> 1 disconnected
        @600+1ns udp client:1 > web:53       -> deny disconnected
        @600+1ns tcp client:40000 > web:80 S -> deny no-rule
    """, changes=CHANGES)  # fmt: skip


def test_change_after_the_clock_cuts_what_a_packet_in_between_would_belong_to() -> None:
    """SPEC 6.9. It does not count, because it has ended at the time of the change."""
    run_both_families(SHOP, handshake() + """
        @700    apply no-http               -> 0 disconnected
        @599    tcp client:40000 > web:80 A -> deny disconnected
    """, changes=CHANGES)  # fmt: skip


def test_change_after_the_window_of_inference_leaves_it_to_the_clock_what_was_seen() -> None:
    """SPEC 6.9, 9.3. The connection goes, and its opener stays remembered."""
    run(SHOP, """
        @0    tcp client:9 > web:80 S     -> allow rule
        @700  apply gone                  -> 0 disconnected
        @700  apply back                  -> 0 disconnected
        @1    tcp client:9 > web:80 A     -> deny midstream
        @1    tcp client:8 > web:80 A     -> allow inferred
    """, changes={
        "gone": RemoveAddress("web", ip_network("10.0.0.5/32")), "back": AddAddress("web", ip_network("10.0.0.5/32")),
    }, midstream="infer")  # fmt: skip


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


# --- SPEC 3.6, 7: peerings added and removed


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
    """, changes={
        "green": AddPeering("blue", "green"), "swap": [RemovePeering("blue", "red"), AddPeering("blue", "green")],
    }, vpc="blue")  # fmt: skip
    run(VPCS, handshake("r:40000", "b:80") + """
        @1 apply twice            -> refused
        @1 apply inside           -> refused
        @2 tcp r:40000 > b:80 PA  -> allow established; egress allow established; ingress allow established
    """, changes={
        "twice": AddAddress("n", ip_network("10.1.0.5/32")), "inside": AddAddress("n", ip_network("10.1.0.0/24")),
    })  # fmt: skip


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

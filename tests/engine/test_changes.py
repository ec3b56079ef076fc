"""Changes while traffic flows, clause by clause (SPEC 6). ``scenario`` explains how to read a table.

Most tables use ``SHOP``: ``web`` and ``twin`` in group ``w``, ``db`` in group ``d``, and strangers outside. ``TOUCH``
changes ``w``'s rules without affecting any verdict in the tables.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from scenario import policy_of, run, run_both_families

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
    SetAddressGroup,
)
from sgfast.policy.model import GroupPeer, Instance, Rule, SecurityGroup


def both(rule: str) -> str:
    """The rule in both families."""
    return f"{{{rule}}}, {{{rule}, ethertype: IPv6}}"


HTTP = both("direction: inbound, protocol: tcp, ports: 80")
DNS = both("direction: inbound, protocol: udp, ports: 53")
PING = both("direction: inbound, protocol: icmp")
SQL = both("direction: inbound, protocol: tcp, ports: 5432, source: w")
OUT = both("direction: outbound, protocol: all")
SHOP = f"""
security_groups:
  - {{name: w, rules: [{HTTP}, {DNS}, {PING}, {OUT}]}}
  - {{name: d, rules: [{SQL}, {DNS}, {OUT}]}}
  - {{name: spare}}
instances:
  - {{name: web, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [w]}}
  - {{name: twin, addresses: [10.0.0.4, "2001:db8::4"], security_groups: [w]}}
  - {{name: db, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [d]}}
"""
TLS = Rule("", "inbound", 4, 6, ((4433, 4433),))
TOUCH = AddRule("w", TLS)
CHANGES: dict[str, Change | list[Change]] = {
    "touch": TOUCH,
    "no-http": [RemoveRule("w", "w/inbound/1"), RemoveRule("w", "w/inbound/2")],
    "no-dns": [RemoveRule("w", "w/inbound/3"), RemoveRule("w", "w/inbound/4")],
    "no-out": [RemoveRule("w", "w/outbound/1"), RemoveRule("w", "w/outbound/2")],
    "8080": [AddRule("w", replace(TLS, ethertype=family, ports=((8080, 8080),))) for family in (4, 6)],
}  # fmt: skip


def on_change(what: str) -> str:
    return f"settings: {{on_change: {what}}}\n"


def room_for(connections: int) -> str:
    return f"settings: {{max_connections: {connections}}}\n"


def new(name: str, groups: str, *addresses: str, vpc: str = "default") -> Instance:
    return Instance(name, vpc, tuple(map(ip_network, addresses)), tuple(groups.split()))


WEB = new("web", "w", "10.0.0.5", "2001:db8::5")


def handshake(client: str = "client:40000", server: str = "web:80") -> str:
    return f"""
        @0 tcp {client} > {server} S  -> allow rule
        @0 tcp {server} > {client} SA -> allow established
        @0 tcp {client} > {server} A  -> allow established
    """


# --- SPEC 6.2: new connections are judged by the new rules


def test_new_connections_meet_the_new_rules_at_once() -> None:
    run_both_families(SHOP, """
        @1 tcp client:1 > web:8080    -> deny no-rule
        @2 apply 8080                 -> 0 disconnected
        @2 tcp client:1 > web:8080    -> allow rule
        @2 tcp web:9 > client:80      -> allow rule
        @2 apply no-out
        @2 tcp web:10 > client:80     -> deny no-rule
        @2 apply no-http
        @2 tcp client:2 > web:80      -> deny no-rule
        @2 tcp client:2 > web:8080    -> allow rule
    """, changes=CHANGES)  # fmt: skip


def test_modified_rule_is_judged_by_what_it_says_now() -> None:
    old = policy_of(SHOP).group_by_name["w"].rules[0]
    closed = ModifyRule("w", "w/inbound/1", replace(old, action="deny"))
    moved = ModifyRule("w", "w/inbound/1", replace(old, ports=((81, 81),)))
    run(SHOP, """
        tcp client:1 > web:80 -> allow rule w/inbound/1
        apply closed          -> 1 disconnected
        tcp client:2 > web:80 -> deny deny-rule w/inbound/1
        apply moved           -> 0 disconnected
        tcp client:3 > web:80 -> deny no-rule
        tcp client:3 > web:81 -> allow rule w/inbound/1
    """, changes={"closed": closed, "moved": moved})  # fmt: skip


def test_rule_added_later_has_an_id_never_used() -> None:
    again = AddRule("w", replace(TLS, ports=((80, 80),)))
    gone = RemoveRule("w", "w/inbound/7")
    run(SHOP, """
        apply no-http
        apply again
        tcp client:1 > web:80 -> allow rule w/inbound/7
        apply gone            -> 1 disconnected
        apply again
        tcp client:1 > web:80 -> deny disconnected w/inbound/7
        tcp client:2 > web:80 -> allow rule w/inbound/8
    """, changes=CHANGES | {"again": again, "gone": gone})  # fmt: skip


# --- SPEC 6.3: whose connections are cut, and which


def test_every_change_of_a_groups_rules_cuts_inbound_of_all_its_instances() -> None:
    out = Rule("", "outbound", 4, 17, ((9, 9),))
    old = policy_of(SHOP).group_by_name["w"].rules[4]
    changes: dict[str, Change] = {
        "add-inbound": TOUCH,
        "add-outbound": AddRule("w", out),
        "remove": RemoveRule("w", "w/inbound/5"),
        "remove-outbound": RemoveRule("w", "w/outbound/2"),
        "modify": ModifyRule("w", "w/inbound/5", replace(old, priority=7)),
    }
    for name in changes:
        run_both_families(SHOP, handshake() + handshake("other:40000", "twin:80") + f"""
            @1 udp client:9 > db:53          -> allow rule
            @1 tcp web:50000 > client:443 S  -> allow rule
            @2 apply {name}                  -> 2 disconnected
            @3 tcp client:40000 > web:80 A   -> deny disconnected; egress -; ingress deny disconnected
            @3 tcp web:80 > client:40000 A   -> deny disconnected; egress deny disconnected; ingress -
            @3 tcp other:40000 > twin:80 A   -> deny disconnected
            @3 udp client:9 > db:53          -> allow established
            @3 tcp client:443 > web:50000 SA -> allow established
        """, changes=changes)  # fmt: skip


def test_groups_that_merely_name_the_group_are_not_cut() -> None:
    changes: dict[str, Change] = {"touch": TOUCH, "leaves": RemoveInstance("twin"), "joins": AddMember("w", "guest")}
    guest = '  - {name: guest, addresses: [10.0.0.7, "2001:db8::7"], security_groups: [spare]}\n'
    for name in changes:
        run_both_families(SHOP + guest, handshake("web:40000", "db:5432") + f"""
            @1 apply {name}                 -> 0 disconnected
            @2 tcp web:40000 > db:5432 PA   -> allow established; egress allow established; ingress allow established
            @2 tcp db:5432 > web:40000 PA   -> allow established; egress allow established; ingress allow established
        """, changes=changes)  # fmt: skip


def test_peer_that_left_the_group_keeps_its_connections_and_opens_no_more() -> None:
    run_both_families(SHOP, handshake("web:40000", "db:5432") + """
        @1 apply moves                  -> 0 disconnected
        @2 tcp web:40000 > db:5432 PA   -> allow established; egress allow established; ingress allow established
        @2 tcp web:40001 > db:5432 S    -> deny no-rule; egress deny no-rule; ingress -
        @2 tcp db:1 > twin:80 S         -> allow rule
    """, changes={"moves": [AddMember("spare", "web"), RemoveMember("w", "web")]})  # fmt: skip


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


def test_instance_in_two_groups_is_cut_whole_by_either() -> None:
    policy = SHOP.replace("security_groups: [d]", "security_groups: [d, w]")
    # The connection was allowed in by a rule of d; a change of w cuts it.
    run_both_families(policy, """
        @0 tcp web:1 > db:5432 S -> allow rule
        @1 apply touch           -> 1 disconnected
        @2 tcp web:1 > db:5432 S -> deny disconnected; egress allow established; ingress deny disconnected
    """, changes=CHANGES)  # fmt: skip


def test_every_kind_of_inbound_connection_is_cut() -> None:
    policy = SHOP.replace(PING, both("direction: inbound, protocol: all"))
    for opener, answer in [
        ("tcp client:1 > web:80 S", "tcp web:80 > client:1 SA"),
        ("udp client:1 > web:53", "udp web:53 > client:1"),
        ("udplite client:1 > web:9", "udplite web:9 > client:1"),
        ("sctp client:1 > web:9", "sctp web:9 > client:1"),
        ("dccp client:1 > web:9", "dccp web:9 > client:1"),
        ("gre client > web", "gre web > client"),
        ("ping client > web id=3", "pong web > client id=3"),
    ]:
        for answered in (True, False):
            run_both_families(policy, f"""
                @0 {opener} -> allow rule
                {f'@0 {answer} -> allow established' if answered else ''}
                @1 apply touch -> 1 disconnected
                @2 {opener} -> deny disconnected
                @2 {answer} -> deny disconnected
            """, changes=CHANGES)  # fmt: skip
    run(policy, """
        @0 icmp client > web 9/0 -> allow rule
        @1 apply touch           -> 1 disconnected
        @2 icmp client > web 9/0 -> deny disconnected
        # the other way is another connection
        @2 icmp web > client 9/0 -> allow rule
    """, changes=CHANGES)  # fmt: skip


def test_pings_of_both_ends_with_one_identifier_are_cut_apart() -> None:
    run_both_families(SHOP, """
        @0 ping client > web id=4 -> allow rule
        @0 ping web > client id=4 -> allow rule
        @1 apply touch            -> 1 disconnected
        @2 pong web > client id=4 -> deny disconnected
        @2 pong client > web id=4 -> allow established
        @2 ping web > client id=4 -> allow established
        @2 ping client > web id=4 -> deny disconnected
    """, changes=CHANGES)  # fmt: skip


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


def test_only_what_lives_is_cut_and_counted() -> None:
    run_both_families(SHOP, """
        @0      udp client:1 > web:53 -> allow rule
        @0      udp client:2 > web:53 -> allow rule
        @1      udp web:53 > client:2 -> allow established
        # over at 30 s: what opens then opens under the new rules
        @30     apply no-dns          -> 1 disconnected
        @30     udp client:1 > web:53 -> deny no-rule
        @30     udp client:2 > web:53 -> deny disconnected
        # refused at once: nothing left
        @31     tcp client:3 > web:80 S  -> allow rule
        @31     tcp web:80 > client:3 RA -> allow established
        @31     apply touch              -> 0 disconnected
        @31     tcp client:3 > web:80 S  -> allow rule
    """, changes=CHANGES)  # fmt: skip
    run_both_families(SHOP, """
        @0      udp client:1 > web:53 -> allow rule
        @30-1ns apply no-dns          -> 1 disconnected
        @30-1ns udp client:1 > web:53 -> deny disconnected
        @30     udp client:1 > web:53 -> deny no-rule
    """, changes=CHANGES)  # fmt: skip


def test_what_is_cut_already_does_not_count_again_and_comes_back_with_nothing() -> None:
    run_both_families(SHOP, """
        @0   udp client:1 > web:53 -> allow rule
        @0   udp web:53 > client:1 -> allow established
        @1   apply no-dns          -> 1 disconnected
        @2   apply touch           -> 0 disconnected
        @2   udp client:2 > web:53 -> deny no-rule
        # the rule is back, the connection is not
        @3   apply dns             -> 0 disconnected
        @3   udp client:1 > web:53 -> deny disconnected
        @3   udp client:2 > web:53 -> allow rule
        # a member that leaves and comes back takes it along
        @4   apply out             -> 1 disconnected
        @5   apply back            -> 0 disconnected
        @180-1ns udp client:1 > web:53 -> deny disconnected
        @180 udp client:1 > web:53 -> allow rule
    """, changes=CHANGES | {
        "dns": [AddRule("w", Rule("", "inbound", family, 17, ((53, 53),))) for family in (4, 6)],
        "out": [AddMember("spare", "web"), RemoveMember("w", "web")],
        "back": [AddMember("w", "web"), RemoveMember("spare", "web")],
    })  # fmt: skip


def test_several_changes_are_one() -> None:
    run_both_families(SHOP, """
        @0 udp client:1 > web:53 -> allow rule
        @0 udp client:1 > db:53  -> allow rule
        @0 udp web:2 > db:53     -> allow rule
        @1 apply both            -> 3 disconnected
        @1 udp client:1 > web:53 -> deny disconnected
        @1 udp client:1 > db:53  -> deny disconnected
        @1 udp web:2 > db:53     -> deny disconnected; egress allow established; ingress deny disconnected
        @1 tcp client:9 > web:8080 S -> allow rule
    """, changes={"both": [TOUCH, RemoveRule("d", "d/inbound/1"), *CHANGES["8080"]]})  # fmt: skip


def test_change_comes_before_the_packet_of_its_time() -> None:
    run_both_families(SHOP, handshake() + """
        @5      tcp client:40000 > web:80 A -> allow established
        @5      apply no-http               -> 1 disconnected
        @5      tcp client:40000 > web:80 A -> deny disconnected
        @5      tcp client:40001 > web:80 S -> deny no-rule
        @605-1ns tcp client:40000 > web:80 S -> deny disconnected
        @605    tcp client:40000 > web:80 S -> deny no-rule
    """, changes=CHANGES)  # fmt: skip


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


# --- SPEC 6.4: what a disconnected connection denies, and for how long


def test_icmp_cut_right_after_its_last_packet_is_free_30_seconds_after_it() -> None:
    run_both_families(SHOP, """
        @0      ping client > web -> allow rule
        @10     pong web > client -> allow established
        @10+1ns apply touch       -> 1 disconnected
        @11     ping client > web -> deny disconnected
        @40-1ns ping client > web -> deny disconnected
        @40-1ns pong web > client -> deny disconnected
        @40     ping client > web -> allow rule
        @40     pong web > client -> allow established
    """, changes=CHANGES)  # fmt: skip


def test_cut_connection_keeps_the_deadline_it_had_whatever_comes() -> None:
    run_both_families(SHOP, handshake() + """
        @100    tcp client:40000 > web:80 PA -> allow established
        @200    apply touch                  -> 1 disconnected
        # openers, answers, endings and nonsense, in both directions
        @300    tcp client:40000 > web:80 S    -> deny disconnected
        @300    tcp web:80 > client:40000 S    -> deny disconnected
        @300    tcp web:80 > client:40000 SA   -> deny disconnected
        @300    tcp client:40000 > web:80 A    -> deny disconnected
        @300    tcp client:40000 > web:80 FA   -> deny disconnected
        @300    tcp client:40000 > web:80 R    -> deny disconnected
        @300    tcp web:80 > client:40000 RA   -> deny disconnected
        @300    tcp web:80 > client:40000 SF   -> deny disconnected
        @300    tcp client:40000 > web:80 none -> deny disconnected
        @700-1ns tcp client:40000 > web:80 S   -> deny disconnected
        @700-1ns tcp web:80 > client:40000 PA  -> deny disconnected
        @700    tcp web:80 > client:40000 PA   -> deny midstream
        @700    tcp client:40000 > web:80 S    -> allow rule
        @700    tcp web:80 > client:40000 SA   -> allow established
    """, changes=CHANGES)  # fmt: skip


@pytest.mark.parametrize("steps", [
    ["client:1 > web:80 S"],
    ["client:1 > web:80 S", "web:80 > client:1 SA"],
    ["client:1 > web:80 S", "web:80 > client:1 SA", "client:1 > web:80 A", "web:80 > client:1 FA"],
    ["client:1 > web:80 S", "web:80 > client:1 SA", "client:1 > web:80 R"],
])  # fmt: skip
def test_tcp_of_every_age_is_free_at_the_deadline_of_its_state(steps: list[str]) -> None:
    run_both_families(SHOP, "\n".join(f"@0 tcp {step} -> allow" for step in steps) + """
        @1      apply touch             -> 1 disconnected
        @30-1ns tcp client:1 > web:80 S -> deny disconnected
        @30-1ns tcp web:80 > client:1 A -> deny disconnected
        @30     tcp client:1 > web:80 S -> allow rule
    """, changes=CHANGES)  # fmt: skip


def test_finished_connection_that_is_cut_is_not_reopened_by_a_syn() -> None:
    run_both_families(SHOP, handshake() + """
        @1 tcp client:40000 > web:80 FA -> allow established
        @1 tcp web:80 > client:40000 FA -> allow established
        @1 tcp client:40000 > web:80 A  -> allow established
        @2 apply touch                  -> 1 disconnected
        # TIME-WAIT: either end might have opened anew (SPEC 5.5), had it not been cut
        @3 tcp client:40000 > web:80 S  -> deny disconnected
        @3 tcp web:80 > client:40000 S  -> deny disconnected
        @31-1ns tcp client:40000 > web:80 S -> deny disconnected
        @31 tcp web:80 > client:40000 S -> allow rule
    """, changes=CHANGES)  # fmt: skip


def test_cut_udp_is_free_at_the_deadline_it_had() -> None:
    run_both_families(SHOP, """
        @0   udp client:1 > web:53     -> allow rule
        @0   udp client:2 > web:53     -> allow rule
        @5   udp web:53 > client:2     -> allow established
        @6   apply touch               -> 2 disconnected
        @20  udp client:1 > web:53     -> deny disconnected
        @20  udp client:2 > web:53     -> deny disconnected
        @30-1ns udp client:1 > web:53  -> deny disconnected
        @30  udp client:1 > web:53     -> allow rule
        @185-1ns udp web:53 > client:2 -> deny disconnected
        @185 udp client:2 > web:53     -> allow rule
    """, changes=CHANGES)  # fmt: skip


def test_servers_next_packet_opens_no_outbound_connection_while_the_key_is_cut() -> None:
    run_both_families(SHOP, """
        @0      udp client:4000 > web:53 -> allow rule
        @0      gre web > client         -> allow rule
        @1      apply touch              -> 1 disconnected
        # its own rules would let it out
        @2      udp web:53 > client:4000 -> deny disconnected
        @2      udp web:53 > client:4001 -> allow rule
        @30-1ns udp web:53 > client:4000 -> deny disconnected
        @30     udp web:53 > client:4000 -> allow rule
        # which is outbound: the next change leaves it
        @31     apply touch              -> 0 disconnected
        @31     udp client:4000 > web:53 -> allow established
    """, changes=CHANGES)  # fmt: skip


def test_disconnected_packet_names_the_connections_rule_even_when_that_is_gone() -> None:
    run(SHOP, handshake() + """
        @1   apply no-http                  -> 1 disconnected
        @2   tcp client:40000 > web:80 A    -> deny disconnected w/inbound/1; ingress deny disconnected w/inbound/1
        @2   tcp web:80 > client:40000 none -> deny disconnected w/inbound/1; egress deny disconnected w/inbound/1
        @600 tcp client:40000 > web:80 S    -> deny no-rule
    """, changes=CHANGES)  # fmt: skip


def test_error_about_a_cut_connection_is_invalid() -> None:
    run_both_families(SHOP, """
        @0  udp client:1 > web:53 -> allow rule
        @0  udp web:2 > client:53 -> allow rule
        @1  error web > client about udp client:1 > web:53  -> allow related
        @2  apply touch           -> 1 disconnected
        @3  error web > client about udp client:1 > web:53  -> deny invalid
        @3  error client > web about udp web:53 > client:1  -> deny invalid
        @3  error client > web about udp web:2 > client:53  -> allow related
        # nor does it prolong anything
        @30 udp client:1 > web:53 -> allow rule
        @30 error web > client about udp client:1 > web:53  -> allow related
    """, changes=CHANGES)  # fmt: skip


# --- SPEC 6.5: outbound persists


def test_outbound_persists_under_a_rule_that_is_gone() -> None:
    run(SHOP, """
        @0       tcp web:40000 > client:443 S  -> allow rule w/outbound/1
        @0       tcp client:443 > web:40000 SA -> allow established
        @0       tcp web:40000 > client:443 A  -> allow established
        @1       apply no-out                  -> 0 disconnected
        @600-1ns tcp client:443 > web:40000 PA -> allow established w/outbound/1
        @600     tcp web:40000 > client:443 PA -> allow established w/outbound/1
        @600     error router > web about tcp web:40000 > client:443 PA -> allow related w/outbound/1
        @600     tcp web:40001 > client:443 S  -> deny no-rule
        @1200-1ns tcp web:40000 > client:443 PA -> allow established w/outbound/1
        @1800-1ns tcp web:40000 > client:443 S -> deny no-rule
    """, changes=CHANGES)  # fmt: skip


def test_outbound_persists_in_both_families_and_opens_no_more_when_it_is_over() -> None:
    run_both_families(SHOP, """
        @0   udp web:4000 > client:53 -> allow rule
        @0   ping web > client        -> allow rule
        @1   apply no-out             -> 0 disconnected
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


def test_deleted_and_added_in_one_go_is_another_instance_all_the_same() -> None:
    """SPEC 6.11."""
    for policy in (SHOP, SHOP + on_change("keep"), SHOP + on_change("cut-unmatched")):
        run_both_families(policy, handshake() + """
            @1 apply anew                  -> 0 disconnected
            @1 tcp client:40000 > web:80 A -> deny midstream
            @1 tcp client:40000 > web:80 S -> allow rule
        """, changes={"anew": [RemoveInstance("web"), AddInstance(WEB)]})  # fmt: skip


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


def test_address_that_is_taken_forgets_its_connections_and_no_others() -> None:
    policy = SHOP.replace("addresses: [10.0.0.5,", "addresses: [10.0.0.5, 10.0.0.15,")
    address = ip_network("10.0.0.15/32")
    run(policy, handshake() + handshake(server="10.0.0.15:80") + """
        @1 apply taken                       -> 0 disconnected
        @2 tcp client:40000 > 10.0.0.15:80 A -> out-of-scope
        @2 tcp client:40000 > web:80 A       -> allow established
        @3 apply given
        @4 tcp client:40000 > 10.0.0.15:80 A -> deny midstream
        @4 tcp client:40000 > 10.0.0.15:80 S -> allow rule
        @4 tcp client:40000 > web:80 A       -> allow established
    """, changes={"taken": RemoveAddress("web", address), "given": AddAddress("web", address)})  # fmt: skip


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


def test_cut_connections_are_forgotten_too() -> None:
    policy = SHOP.replace("addresses: [10.0.0.5,", "addresses: [10.0.0.5, 10.0.0.15,")
    address = ip_network("10.0.0.15/32")
    run(policy, handshake(server="10.0.0.15:80") + """
        @1 apply touch                       -> 1 disconnected
        @2 tcp client:40000 > 10.0.0.15:80 S -> deny disconnected
        @3 apply taken                       -> 0 disconnected
        @3 apply given                       -> 0 disconnected
        @3 tcp client:40000 > 10.0.0.15:80 S -> allow rule
    """, changes={
        "touch": TOUCH, "taken": RemoveAddress("web", address), "given": AddAddress("web", address),
    })  # fmt: skip


def test_address_that_moves_to_another_instance_is_met_by_its_filter() -> None:
    policy = SHOP.replace("addresses: [10.0.0.5,", "addresses: [10.0.0.5, 10.0.0.15,")
    address = ip_network("10.0.0.15/32")
    run(policy, """
        @0 udp client:1 > 10.0.0.15:53 -> allow rule w/inbound/3
        @0 udp 10.0.0.15:53 > client:1 -> allow established
        @1 apply moves                 -> 0 disconnected
        @1 udp 10.0.0.15:53 > client:1 -> allow rule d/outbound/1
        @2 udp client:1 > 10.0.0.15:53 -> allow established d/outbound/1
        @2 udp client:2 > 10.0.0.15:53 -> allow rule d/inbound/3
        @3 apply touch                 -> 0 disconnected
        @3 udp client:2 > 10.0.0.15:53 -> allow established
    """, changes={
        "moves": [RemoveAddress("web", address), AddAddress("db", address)], "touch": TOUCH,
    })  # fmt: skip


def test_address_taken_and_given_back_in_one_go_was_never_away() -> None:
    """SPEC 6.11."""
    address = ip_network("10.0.0.15/32")
    policy = SHOP.replace("addresses: [10.0.0.5,", "addresses: [10.0.0.5, 10.0.0.15,")
    run(policy, handshake(server="10.0.0.15:80") + """
        @1 apply both                        -> 0 disconnected
        @1 tcp client:40000 > 10.0.0.15:80 A -> allow established
    """, changes={"both": [RemoveAddress("web", address), AddAddress("web", address)]})  # fmt: skip


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
        # the prefix goes, the address stays with it by the narrower one
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


# --- SPEC 3.6, 7: peerings added and removed

VPCS = f"""
vpcs: [{{name: red}}, {{name: blue}}, {{name: green}}]
peerings: [[red, blue]]
security_groups:
  - {{name: g, rules: [{both("direction: inbound, protocol: all, source: g")}, {OUT}]}}
instances:
  - {{name: r, vpc: red, addresses: [10.1.0.5, "2001:db8:1::5"], security_groups: [g]}}
  - {{name: b, vpc: blue, addresses: [10.2.0.5, "2001:db8:2::5"], security_groups: [g]}}
  - {{name: n, vpc: green, addresses: [10.3.0.5, "2001:db8:3::5"], security_groups: [g]}}
"""
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
    run_both_families(policy, handshake("r:40000", "b:80") + """
        @10  apply apart                -> 0 disconnected
        @11  tcp r:40000 > b:80 PA      -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        @11  tcp b:80 > r:40000 PA      -> deny vpc-isolated
        @11  tcp r:40001 > b:80 S       -> deny vpc-isolated
        @11  error b > r about tcp r:40000 > b:80 PA -> deny vpc-isolated
        @599 apply together             -> 0 disconnected
        @600-1ns tcp r:40000 > b:80 PA  -> allow established; egress allow established; ingress allow established
    """, changes=PEERINGS)  # fmt: skip


def test_packets_that_isolation_denies_do_not_prolong() -> None:
    run_both_families(VPCS, handshake("r:40000", "b:80") + """
        @10  apply apart                -> 0 disconnected
        @599 tcp r:40000 > b:80 PA      -> deny vpc-isolated
        @600 apply together             -> 0 disconnected
        @600 tcp r:40000 > b:80 PA      -> deny midstream
        @600 tcp r:40000 > b:80 S       -> allow rule
    """, changes=PEERINGS)  # fmt: skip


def test_new_peering_lets_openers_meet_the_rules() -> None:
    run_both_families(VPCS, """
        @0 tcp n:1 > b:80 S -> deny vpc-isolated
        @1 apply swap       -> 0 disconnected
        @1 tcp n:1 > b:80 S -> allow rule; egress allow rule; ingress allow rule
        @1 tcp r:1 > b:80 S -> deny vpc-isolated
        # not transitive
        @1 tcp r:1 > n:80 S -> deny vpc-isolated
    """, changes=PEERINGS)  # fmt: skip


def test_connections_of_vpcs_apart_are_cut_like_others() -> None:
    run_both_families(VPCS, handshake("r:40000", "b:80") + """
        @1 apply apart              -> 0 disconnected
        @2 apply touch              -> 1 disconnected
        @3 tcp r:40000 > b:80 PA    -> deny vpc-isolated
        @4 apply together
        @5 tcp r:40000 > b:80 PA    -> deny disconnected; egress allow established; ingress deny disconnected
    """, changes=PEERINGS)  # fmt: skip


def test_a_member_of_a_vpc_that_is_no_peer_any_more_matches_no_group() -> None:
    run_both_families(VPCS + on_change("cut-unmatched"), handshake("r:40000", "b:80") + """
        @1 apply apart              -> 1 disconnected
        @2 apply touch              -> 0 disconnected
        @3 apply closed             -> 0 disconnected
        @4 apply together           -> 0 disconnected
        @5 tcp r:40000 > b:80 PA    -> deny disconnected; egress allow established; ingress deny disconnected
    """, changes=PEERINGS)  # fmt: skip


def test_named_vpc_loses_sight_of_a_vpc_that_is_no_peer_any_more() -> None:
    run_both_families(VPCS, handshake("r:40000", "b:80") + """
        @1 apply apart              -> 0 disconnected
        # blue is outside now (SPEC 7.1): r's own side goes on, and strangers do not get in
        @2 tcp r:40000 > b:80 PA    -> allow established; egress allow established; ingress -
        @2 tcp b:1 > r:80 S         -> deny no-rule; egress -; ingress deny no-rule
        @2 tcp b:1 > n:80 S         -> out-of-scope
        # b's side was forgotten with its address
        @3 apply together           -> 0 disconnected
        @4 tcp r:40000 > b:80 PA    -> deny midstream; egress allow established; ingress deny midstream
        @4 tcp r:40000 > b:80 S     -> allow rule; egress allow established; ingress allow rule
    """, changes=PEERINGS, vpc="red")  # fmt: skip
    run_both_families(VPCS + on_change("cut-unmatched"), handshake("b:40000", "r:80") + handshake("r:1", "b:80") + """
        # a stranger is in no group
        @1 apply apart              -> 1 disconnected
        @2 tcp b:40000 > r:80 PA    -> deny disconnected; egress -; ingress deny disconnected
        @2 tcp b:80 > r:1 PA        -> allow established; egress -; ingress allow established
    """, changes=PEERINGS, vpc="red")  # fmt: skip


def test_own_prefix_of_a_named_vpc_takes_a_peers_address_away() -> None:
    changes: dict[str, Change] = {
        "shadow": AddAddress("r", ip_network("10.2.0.0/24")), "light": RemoveAddress("r", ip_network("10.2.0.0/24")),
    }  # fmt: skip
    run(VPCS, handshake("b:40000", "203.0.113.9:80") + """
        @1 apply shadow                      -> 0 disconnected
        @2 tcp b:40000 > 203.0.113.9:80 PA   -> deny midstream
        @3 apply light                       -> 0 disconnected
        @4 tcp b:40000 > 203.0.113.9:80 PA   -> deny midstream
        @4 tcp b:40000 > 203.0.113.9:80 S    -> allow rule
    """, changes=changes, vpc="red")  # fmt: skip


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


def test_address_group_that_is_set_concerns_new_connections_only() -> None:
    rules = f"""{both("direction: inbound, protocol: tcp, ports: 80, source: offices")}, {OUT}"""
    policy = f"""
address_groups: [{{name: offices, addresses: [203.0.113.0/24, "2001:db8:ff::9"]}}]
security_groups:
  - {{name: w, rules: [{rules}]}}
instances: [{{name: web, addresses: [10.0.0.5, "2001:db8::5"]  , security_groups: [w]}}]
"""
    elsewhere = (ip_network("198.51.100.0/24"), ip_network("2001:db8:ff::10/128"))
    changes: dict[str, Change] = {"moved": SetAddressGroup("offices", elsewhere)}
    for what, count, then in [
        ("cut-inbound", 0, "allow established"), ("keep", 0, "allow established"),
        ("cut-unmatched", 1, "deny disconnected"),
    ]:  # fmt: skip
        run_both_families(policy + on_change(what), "@0 tcp other:1 > web:80 -> deny no-rule" + handshake() + f"""
            @1 apply moved                 -> {count} disconnected
            @2 tcp client:40000 > web:80 A -> {then}
            @2 tcp client:40001 > web:80 S -> deny no-rule
            @2 tcp other:1 > web:80 S      -> allow rule
        """, changes=changes)  # fmt: skip


# --- SPEC 6.7: the setting for what a change does to connections


def test_keep_cuts_nothing() -> None:
    run_both_families(SHOP + on_change("keep"), handshake() + """
        @1 udp web:1 > client:53       -> allow rule
        @1 apply no-http               -> 0 disconnected
        @1 apply no-out                -> 0 disconnected
        @1 apply leaves                -> 0 disconnected
        @2 tcp client:40000 > web:80 A -> allow established
        @2 tcp web:80 > client:40000 A -> allow established
        @2 udp client:53 > web:1       -> allow established
        @2 tcp client:40001 > web:80 S -> deny no-rule
        @2 udp web:2 > client:53       -> deny no-rule
        @3 apply gone                  -> 0 disconnected
        @3 apply back                  -> 0 disconnected
        @3 tcp client:40000 > web:80 A -> deny midstream
    """, changes=CHANGES | {
        "leaves": [AddMember("spare", "web"), RemoveMember("w", "web")],
        "gone": RemoveInstance("web"), "back": AddInstance(WEB),
    })  # fmt: skip


UNMATCHED = SHOP + on_change("cut-unmatched")


def test_unmatched_are_cut_in_both_directions_and_matched_live_on() -> None:
    run_both_families(UNMATCHED, handshake() + """
        @0 udp client:1 > web:53          -> allow rule
        @0 udp web:2 > client:53          -> allow rule
        @0 udp db:3 > client:53           -> allow rule
        # nothing is cut that the rules still allow, whatever else they say
        @1 apply touch                    -> 0 disconnected
        @1 apply no-http                  -> 1 disconnected
        @2 tcp client:40000 > web:80 A    -> deny disconnected
        @2 udp client:1 > web:53          -> allow established
        @3 apply no-out                   -> 1 disconnected
        @3 udp client:53 > web:2          -> deny disconnected
        @3 udp web:2 > client:53          -> deny disconnected
        @3 udp web:53 > client:1          -> allow established
        @3 udp client:53 > db:3           -> allow established
        @4 apply http                     -> 0 disconnected
        @4 tcp client:40000 > web:80 A    -> deny disconnected
        @600 tcp client:40000 > web:80 S  -> allow rule
    """, changes=CHANGES | {
        "http": [AddRule("w", replace(TLS, ethertype=family, ports=((80, 80),))) for family in (4, 6)],
    })  # fmt: skip


def test_connection_another_rule_allows_lives_on_under_the_rule_it_was_opened_with() -> None:
    run(UNMATCHED, handshake() + """
        @1 apply replaced              -> 0 disconnected
        @2 tcp client:40000 > web:80 A -> allow established w/inbound/1
        @2 tcp client:40001 > web:80 S -> allow rule w/inbound/7
    """, changes={
        "replaced": [RemoveRule("w", "w/inbound/1"), AddRule("w", replace(TLS, ports=((80, 99),)))],
    })  # fmt: skip


def test_deny_rule_cuts_what_it_wins_over() -> None:
    deny = replace(TLS, action="deny", ports=((80, 80),), peer=ip_network("203.0.113.0/24"))
    run(UNMATCHED, handshake() + handshake("other:40000") + """
        @1 apply too-late               -> 0 disconnected
        @2 tcp client:40000 > web:80 A  -> allow established
        @3 apply first                  -> 1 disconnected
        @4 tcp client:40000 > web:80 A  -> deny disconnected w/inbound/1
        @4 tcp other:40000 > web:80 A   -> allow established
        @4 tcp client:40001 > web:80 S  -> deny deny-rule w/inbound/8
    """, changes={
        "too-late": AddRule("w", replace(deny, priority=2)), "first": AddRule("w", deny),
    })  # fmt: skip


def test_unmatched_is_asked_of_the_openers_port_not_of_the_last_packets() -> None:
    # web may connect to port 53 only, and accepts connections at port 80 only.
    policy = UNMATCHED.replace(OUT, both("direction: outbound, protocol: udp, ports: 53"), 1)
    run_both_families(policy, handshake() + """
        @0 udp web:4000 > client:53       -> allow rule
        @0 udp client:53 > web:4000       -> allow established
        @1 apply touch                    -> 0 disconnected
        @2 udp client:53 > web:4000       -> allow established
        @2 tcp web:80 > client:40000 A    -> allow established
        @2 apply no-dns                   -> 0 disconnected
        @2 apply no-out                   -> 1 disconnected
        @2 udp client:53 > web:4000       -> deny disconnected
        @2 tcp web:80 > client:40000 A    -> allow established
    """, changes=CHANGES)  # fmt: skip


def test_unmatched_icmp_is_asked_by_type_and_code() -> None:
    only = Rule("", "inbound", 4, 1, icmp_type=8, icmp_code=0)
    router = Rule("", "inbound", 4, 1, icmp_type=9, icmp_code=16)
    all_gone: list[Change] = [RemoveRule("w", "w/inbound/5"), RemoveRule("w", "w/inbound/6")]
    run(UNMATCHED, """
        @0 icmp client > web 8/0 id=1  -> allow rule
        @0 icmp client > web 13/0 id=1 -> allow rule
        # with a query's reply its code is not kept: it counts as 0
        @0 icmp client > web 8/5 id=2  -> allow rule
        @0 icmp client > web 9/0       -> allow rule
        @0 icmp client > web 9/16      -> allow rule
        @1 apply fewer                 -> 2 disconnected
        @2 icmp client > web 8/0 id=1  -> allow established
        @2 icmp web > client 14/0 id=1 -> deny disconnected
        @2 icmp web > client 0/0 id=2  -> allow established
        @2 icmp client > web 9/0       -> deny disconnected
        @2 icmp client > web 9/16      -> allow established
    """, changes={"fewer": [*all_gone, AddRule("w", only), AddRule("w", router)]})  # fmt: skip


def test_unmatched_is_not_asked_where_nothing_changed() -> None:
    policy = UNMATCHED.replace(PING, "{direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 5}")
    rule = policy_of(policy).group_by_name["w"].rules[0]
    words = [ModifyRule("w", rule.id, replace(rule, description=text)) for text in ("one", "other")]
    run(policy, """
        @0 icmp client > web 8/5      -> allow rule
        @1 apply member               -> 0 disconnected
        @1 apply nothing              -> 0 disconnected
        @1 apply words                -> 0 disconnected
        @2 icmp client > web 8/5      -> allow established
        # with code 0 it would not be let in
        @3 apply touch                -> 1 disconnected
        @4 icmp client > web 8/5      -> deny disconnected
    """, changes={"member": AddMember("w", "web"), "nothing": [], "touch": TOUCH, "words": words})  # fmt: skip


def test_unmatched_ping_in_both_families() -> None:
    run_both_families(UNMATCHED, """
        @0 ping client > web id=4 -> allow rule
        @0 ping web > client id=4 -> allow rule
        @0 gre web > client       -> allow rule
        @1 apply no-ping          -> 1 disconnected
        @2 pong web > client id=4 -> deny disconnected
        @2 pong client > web id=4 -> allow established
        @3 apply no-out           -> 2 disconnected
        @3 pong client > web id=4 -> deny disconnected
        @3 gre client > web       -> deny disconnected
    """, changes=CHANGES | {"no-ping": [RemoveRule("w", "w/inbound/5"), RemoveRule("w", "w/inbound/6")]})  # fmt: skip


def test_unmatched_is_asked_of_every_instance_after_any_change() -> None:
    """Rules that name a group no longer match a peer that has left the group or lost its address (SPEC 6.9)."""
    for name, changes in {
        "leaves": [AddMember("spare", "web"), RemoveMember("w", "web")],
        "goes": [RemoveInstance("web")],
        "swaps": [RemoveInstance("web"), AddInstance(replace(WEB, security_groups=("spare",)))],
    }.items():
        run_both_families(UNMATCHED, handshake("web:40000", "db:5432") + handshake("twin:40000", "db:5432") + f"""
            @1 apply {name}                -> 1 disconnected
            @2 tcp db:5432 > web:40000 PA  -> deny disconnected; egress deny disconnected; ingress -
            @2 tcp db:5432 > twin:40000 PA -> allow established
        """, changes={name: changes})  # fmt: skip


def test_unmatched_by_group_in_another_region() -> None:
    policy = VPCS.replace("{name: blue}", "{name: blue, region: far}").replace(
        both("direction: inbound, protocol: all, source: g"),
        both("direction: inbound, protocol: all, source: g") + ", " + both("direction: inbound, protocol: tcp"),
    )
    run_both_families(policy + on_change("cut-unmatched"), handshake("r:40000", "b:80") + """
        @1 apply no-tcp            -> 1 disconnected
        @2 tcp r:40000 > b:80 PA   -> deny disconnected; egress allow established; ingress deny disconnected
        @2 tcp r:40001 > b:80 S    -> deny no-rule; egress allow rule; ingress deny no-rule
    """, changes={"no-tcp": [RemoveRule("g", "g/inbound/3"), RemoveRule("g", "g/inbound/4")]})  # fmt: skip


def test_own_instances_rules_count_not_those_of_the_group_it_was_in() -> None:
    run_both_families(UNMATCHED, handshake() + handshake(server="twin:80") + """
        @0 udp web:1 > client:53       -> allow rule
        @1 apply leaves                -> 2 disconnected
        @2 tcp client:40000 > web:80 A -> deny disconnected
        @2 udp client:53 > web:1       -> deny disconnected
        @2 tcp client:40000 > twin:80 A -> allow established
    """, changes={"leaves": [AddMember("spare", "web"), RemoveMember("w", "web")]})  # fmt: skip


def test_only_the_rules_after_all_changes_of_one_go_count() -> None:
    """SPEC 6.9."""
    run_both_families(UNMATCHED, handshake() + """
        @1 apply changed-mind          -> 0 disconnected
        @2 tcp client:40000 > web:80 A -> allow established
    """, changes={"changed-mind": [
        AddMember("spare", "web"), RemoveMember("w", "web"), AddMember("w", "web"),
    ]})  # fmt: skip


# --- SPEC 9.3: inferred connections


def test_inferred_connections_are_inbound_for_whom_did_not_call() -> None:
    run_both_families(SHOP, """
        @0   tcp web:80 > client:40000 PA   -> allow inferred
        @0   tcp client:443 > web:50000 PA  -> allow inferred
        @1   apply touch                    -> 1 disconnected
        @2   tcp client:40000 > web:80 PA   -> deny disconnected
        @2   tcp web:80 > client:40000 PA   -> deny disconnected
        @2   tcp web:50000 > client:443 PA  -> allow established
        # free at 600 s, when nothing is inferred any more
        @600-1ns tcp web:80 > client:40000 PA -> deny disconnected
        @600 tcp web:80 > client:40000 PA   -> deny midstream
        @600 tcp client:40000 > web:80 S    -> allow rule
    """, changes=CHANGES, midstream="infer")  # fmt: skip


def test_unmatched_is_asked_of_the_inferred_opener() -> None:
    run_both_families(UNMATCHED, """
        @0 tcp web:80 > client:40000 PA   -> allow inferred
        @0 tcp web:99 > client:40000 SA   -> deny no-rule
        @0 tcp client:443 > web:50000 PA  -> allow inferred
        @1 apply touch                    -> 0 disconnected
        @1 apply no-http                  -> 1 disconnected
        @2 tcp web:80 > client:40000 PA   -> deny disconnected
        @3 apply no-out                   -> 1 disconnected
        @3 tcp client:443 > web:50000 PA  -> deny disconnected
    """, changes=CHANGES, midstream="infer")  # fmt: skip


def test_openers_seen_are_none_of_a_changes_business() -> None:
    """SPEC 6.11."""
    run_both_families(SHOP, """
        @0  tcp client:40001 > web:80 S   -> allow rule
        @0  tcp client:40002 > web:8080 S -> deny no-rule
        @0  tcp client:40003 > web:80 FA  -> allow inferred
        @1  apply 8080                -> 2 disconnected
        @2  tcp client:40001 > web:80 A   -> deny disconnected
        # denied when it was seen: nothing is inferred, though the rules would allow it now
        @2  tcp client:40002 > web:8080 A -> deny midstream
        @2  tcp client:40004 > web:8080 A -> allow inferred
        # a SYN that meets a connection, cut or not, is nobody's opener
        @2  tcp client:40003 > web:80 S   -> deny disconnected
        @30 tcp client:40001 > web:80 A   -> deny midstream
        # its opener was never seen
        @30 tcp client:40003 > web:80 A   -> allow inferred
    """, changes=CHANGES, midstream="infer")  # fmt: skip


# --- SPEC 9.2: causal mode

OPEN: dict[str, Change | list[Change]] = {
    "open": [AddRule("w", Rule("", "outbound", family)) for family in (4, 6)],
}  # fmt: skip


def test_packets_of_a_cut_connection_are_disconnected_not_moot() -> None:
    run_both_families(SHOP, handshake() + """
        @0   udp client:1 > web:53        -> allow rule
        @1   apply no-http                -> 2 disconnected
        @2   tcp client:40000 > web:80 S  -> deny disconnected
        @2   tcp web:80 > client:40000 SA -> deny disconnected
        @2   tcp client:40000 > web:80 A  -> deny disconnected
        @2   error web > client about tcp client:40000 > web:80 A -> deny invalid
        # an opener that was denied for being cut makes nothing moot
        @29  udp client:1 > web:53        -> deny disconnected
        @30  udp web:53 > client:1        -> allow rule
        # but one that the rules deny does
        @600 tcp web:80 > client:40000 A  -> deny midstream
        @600 tcp client:40000 > web:80 S  -> deny no-rule
        @601 tcp web:80 > client:40000 A  -> moot opener-denied
        @601 tcp client:40000 > web:80 A  -> moot opener-denied
    """, changes=CHANGES, mode="causal")  # fmt: skip


def test_moot_keys_stay_moot_until_their_opener_is_allowed() -> None:
    """SPEC 6.11."""
    run_both_families(SHOP, """
        @0 tcp client:1 > web:8080 S  -> deny no-rule
        @1 apply 8080                 -> 0 disconnected
        @2 tcp web:8080 > client:1 SA -> moot opener-denied
        @2 tcp client:1 > web:8080 A  -> moot opener-denied
        @3 tcp client:1 > web:8080 S  -> allow rule
        @3 tcp web:8080 > client:1 SA -> allow established
    """, changes=CHANGES, mode="causal")  # fmt: skip
    run_both_families(SHOP, """
        @0 tcp client:1 > web:8080 S  -> deny no-rule
        @1 apply anew                 -> 0 disconnected
        @2 tcp web:8080 > client:1 SA -> moot opener-denied
    """, changes={"anew": [RemoveInstance("web"), AddInstance(WEB)]}, mode="causal")  # fmt: skip


def test_moot_keys_stay_moot_while_their_opener_gets_as_far_as_the_other_filter() -> None:
    """After a change the packet may leave but is denied on arrival, so it was not allowed."""
    policy = SHOP.replace(OUT, both("direction: outbound, protocol: gre"), 1)
    run_both_families(policy, """
        @0 tcp web:40000 > twin:22 S  -> deny no-rule; egress deny no-rule; ingress -
        @1 apply open                 -> 0 disconnected
        @2 tcp twin:22 > web:40000 SA -> moot opener-denied
        @2 tcp web:40000 > twin:22 S  -> deny no-rule; egress allow rule; ingress deny no-rule
        @3 tcp twin:22 > web:40000 SA -> moot opener-denied
        @3 tcp web:40000 > twin:22 A  -> moot opener-denied
        @602 tcp web:40000 > twin:22 A -> moot opener-denied
        @1202 tcp web:40000 > twin:22 A -> deny midstream
    """, changes=OPEN, mode="causal")  # fmt: skip
    run_both_families(VPCS.replace("protocol: all, source: g", "protocol: tcp, ports: 80"), """
        @0 udp r:40000 > b:53         -> deny no-rule; egress allow rule; ingress deny no-rule
        @0 udp r:40000 > n:53         -> deny vpc-isolated
        @1 apply met                  -> 0 disconnected
        @2 udp n:53 > r:40000         -> moot opener-denied
        @2 udp r:40000 > n:53         -> deny no-rule; egress allow rule; ingress deny no-rule
        @2 udp n:53 > r:40000         -> moot opener-denied
    """, changes={"met": AddPeering("red", "green")}, mode="causal")  # fmt: skip


def test_moot_keys_stay_moot_when_an_instance_at_one_end_is_deleted() -> None:
    for name, packet in (("web-gone", "tcp db:40000 > web:22 A"), ("db-gone", "tcp web:22 > db:40000 SA")):
        run_both_families(SHOP, f"""
            @0 tcp db:40000 > web:22 S -> deny no-rule; egress allow rule; ingress deny no-rule
            @1 apply {name}            -> 0 disconnected
            @2 {packet}                -> moot opener-denied
        """, changes={"web-gone": RemoveInstance("web"), "db-gone": RemoveInstance("db")}, mode="causal")  # fmt: skip


def test_opener_denied_on_one_side_is_moot_though_the_other_is_cut() -> None:
    # twin's side has an inbound connection; web's side, which is asked first, has no outbound one.
    run_both_families(SHOP, """
        @0 udp web:1 > twin:53        -> allow rule; egress allow rule; ingress allow rule
        @0 udp twin:53 > web:1        -> allow established
        @1 apply anew-and-shut        -> 1 disconnected
        @2 udp web:1 > twin:53        -> deny no-rule; egress deny no-rule; ingress -
        @2 udp twin:53 > web:1        -> moot opener-denied; egress -; ingress -
        @3 apply open
        @3 udp web:1 > twin:53        -> deny disconnected; egress allow rule; ingress deny disconnected
    """, changes={
        "anew-and-shut": [RemoveInstance("web"), AddInstance(WEB), *CHANGES["no-out"]],
        **OPEN,
    }, mode="causal")  # fmt: skip


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


def test_cut_connection_that_nobody_answered_makes_room() -> None:
    run_both_families(SHOP + room_for(1), """
        @0  udp client:1 > web:53 -> allow rule
        @1  apply touch           -> 1 disconnected
        @2  udp client:1 > web:53 -> deny disconnected
        @3  udp client:2 > web:53 -> allow rule
        # evicted, so forgotten: its key is free
        @4  udp client:1 > web:53 -> allow rule
        @4  udp web:53 > client:1 -> allow established
        @5  udp client:2 > web:53 -> deny table-full
    """, changes=CHANGES)  # fmt: skip


def test_what_is_forgotten_gives_its_place_back() -> None:
    run_both_families(SHOP + room_for(1), handshake() + """
        @1 udp client:1 > twin:53 -> deny table-full
        @2 apply gone             -> 0 disconnected
        @2 udp client:1 > twin:53 -> allow rule
        @2 udp twin:53 > client:1 -> allow established
    """, changes={"gone": RemoveInstance("web")})  # fmt: skip


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

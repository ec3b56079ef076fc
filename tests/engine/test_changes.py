"""What changes cut, and what becomes of that (SPEC 6.2 to 6.4). ``scenario`` says how to read a table."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from scenario import policy_of, run, run_both_families
from shop_changes import (
    CHANGES,
    PING,
    SHOP,
    TLS,
    TOUCH,
    both,
    handshake,
    new,
    on_change,
)

from sgfast.policy.changes import (
    AddAddress,
    AddGroup,
    AddInstance,
    AddMember,
    AddRule,
    Change,
    ModifyRule,
    RemoveAddress,
    RemoveGroup,
    RemoveInstance,
    RemoveMember,
    RemoveRule,
)
from sgfast.policy.model import GroupPeer, Rule, SecurityGroup

# --- SPEC 6.2: new connections are judged by the new rules


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


# --- SPEC 6.3: whose connections are cut, and which


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


# --- SPEC 6.4: what a disconnected connection denies, and for how long


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

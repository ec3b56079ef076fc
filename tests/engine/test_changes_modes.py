"""Changes under each ``on_change``, in causal mode, of inferred connections (SPEC 6.7, 6.13, 9.2, 9.3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from itertools import product
from pathlib import Path

import pytest
from scenario import START_NS, policy_of, run, run_both_families
from shop_changes import (
    CHANGES,
    OUT,
    PING,
    SHOP,
    TLS,
    TOUCH,
    WEB,
    both,
    handshake,
    on_change,
)

from sgfast import load_snapshot, save_snapshot
from sgfast.policy.changes import (
    AddInstance,
    AddMember,
    AddRule,
    Change,
    ModifyRule,
    RemoveInstance,
    RemoveMember,
    RemoveRule,
)
from sgfast.policy.model import Rule

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


UNMATCHED, FORGETTING = SHOP + on_change("cut-unmatched"), SHOP + on_change("forget-unmatched")
HTTP = [AddRule("w", replace(TLS, ethertype=family, ports=((80, 80),))) for family in (4, 6)]
ALL = CHANGES | {"no-sql": [RemoveRule("d", "d/inbound/1"), RemoveRule("d", "d/inbound/2")], "http": HTTP}


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
    """, changes=ALL)  # fmt: skip


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
    echo = Rule("", "inbound", 6, 58, icmp_type=128)
    all_gone: list[Change] = [RemoveRule("w", "w/inbound/5"), RemoveRule("w", "w/inbound/6")]
    run(UNMATCHED, """
        @0 icmp client > web 8/0 id=1  -> allow rule
        @0 icmp client > web 13/0 id=1 -> allow rule
        # with a query's reply its code is not kept: it counts as 0
        @0 icmp client > web 8/5 id=2  -> allow rule
        @0 icmp client > web 9/0       -> allow rule
        @0 icmp client > web 9/16      -> allow rule
        @0 icmpv6 2001:db8:ff::9 > 2001:db8::5 128/0 -> allow rule
        @1 apply fewer                 -> 2 disconnected
        @2 icmp client > web 8/0 id=1  -> allow established
        @2 icmp web > client 14/0 id=1 -> deny disconnected
        @2 icmp web > client 0/0 id=2  -> allow established
        @2 icmp client > web 9/0       -> deny disconnected
        @2 icmp client > web 9/16      -> allow established
        @2 icmpv6 2001:db8:ff::9 > 2001:db8::5 128/0 -> allow established
    """, changes={"fewer": [*all_gone, *(AddRule("w", rule) for rule in (only, router, echo))]})  # fmt: skip


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


def test_unmatched_is_asked_of_every_instance_after_any_change() -> None:
    """Rules that name a group no longer match a peer that has left the group or lost its address (SPEC 6.9)."""
    for (name, changes), (policy, reason) in product({
        "leaves": [AddMember("spare", "web"), RemoveMember("w", "web")],
        "goes": [RemoveInstance("web")],
        "swaps": [RemoveInstance("web"), AddInstance(replace(WEB, security_groups=("spare",)))],
    }.items(), ((UNMATCHED, "disconnected"), (FORGETTING, "midstream"))):
        run_both_families(policy, handshake("web:40000", "db:5432") + handshake("twin:40000", "db:5432") + f"""
            @1 apply {name}                -> 1 disconnected
            @2 tcp db:5432 > web:40000 PA  -> deny {reason}; egress deny {reason}; ingress -
            @2 tcp db:5432 > twin:40000 PA -> allow established
        """, changes={name: changes})  # fmt: skip


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


# --- SPEC 6.13: what no rule matches any more is forgotten


def test_forgotten_connection_meets_the_rules_in_both_directions_and_matched_ones_live_on() -> None:
    run_both_families(FORGETTING, handshake() + """
        @0 udp client:1 > web:53          -> allow rule
        @0 udp web:2 > client:9           -> allow rule
        @1 apply touch                    -> 0 disconnected
        @1 apply no-http                  -> 1 disconnected
        @2 tcp client:40000 > web:80 A    -> deny midstream
        @2 tcp web:80 > client:40000 A    -> deny midstream
        @2 tcp client:40000 > web:80 S    -> deny no-rule
        @2 error web > client about tcp client:40000 > web:80 A -> deny invalid
        @2 udp client:1 > web:53          -> allow established
        @3 apply no-out                   -> 1 disconnected
        @3 udp client:9 > web:2           -> deny no-rule
        @3 udp web:2 > client:9           -> deny no-rule
        @3 udp web:53 > client:1          -> allow established
    """, changes=ALL)  # fmt: skip


def test_key_is_free_at_once_when_the_rules_allow_it_again() -> None:
    run_both_families(FORGETTING, handshake() + """
        @1 apply no-http                  -> 1 disconnected
        @2 apply http                     -> 0 disconnected
        @2 tcp client:40000 > web:80 A    -> deny midstream
        @2 tcp client:40000 > web:80 S    -> allow rule
        @2 tcp web:80 > client:40000 SA   -> allow established
    """, changes=ALL)  # fmt: skip


def test_responder_opens_it_the_other_way_round_and_lets_the_initiator_back_in() -> None:
    run_both_families(FORGETTING, """
        @0 udp client:1 > web:53          -> allow rule
        @0 udp web:53 > client:1          -> allow established
        @1 apply no-dns                   -> 1 disconnected
        @2 udp client:1 > web:53          -> deny no-rule
        @2 udp web:53 > client:1          -> allow rule; egress allow rule
        @2 udp client:1 > web:53          -> allow established
        # The connection is outbound now. So a change asks the outbound rules about it.
        @3 apply touch                    -> 0 disconnected
        @3 apply no-out                   -> 1 disconnected
        @3 udp client:1 > web:53          -> deny no-rule
    """, changes=ALL)  # fmt: skip


def test_only_the_side_whose_rules_no_longer_match_forgets() -> None:
    run_both_families(FORGETTING, handshake("web:40000", "db:5432") + """
        @1 apply no-sql                   -> 1 disconnected
        @2 tcp web:40000 > db:5432 PA     -> deny midstream; egress allow established; ingress deny midstream
        @2 tcp db:5432 > web:40000 PA     -> deny midstream; egress deny midstream; ingress -
        @2 tcp web:40000 > db:5432 S      -> deny no-rule; egress allow established; ingress deny no-rule
    """, changes=ALL)  # fmt: skip


def test_what_was_denied_after_it_was_forgotten_makes_its_key_moot() -> None:
    """SPEC 9.2."""
    run_both_families(FORGETTING, """
        @0 udp client:1 > web:53          -> allow rule
        @0 udp web:53 > client:1          -> allow established
        @1 apply no-dns                   -> 1 disconnected
        @2 udp client:1 > web:53          -> deny no-rule
        @2 udp web:53 > client:1          -> moot opener-denied
        @2 udp client:1 > web:53          -> deny no-rule
        @3 apply dns                      -> 0 disconnected
        @3 udp client:1 > web:53          -> allow rule
        @3 udp web:53 > client:1          -> allow established
    """, mode="causal", changes=ALL | {
        "dns": [AddRule("w", replace(TLS, ethertype=family, protocol=17, ports=((53, 53),))) for family in (4, 6)],
    })  # fmt: skip


@pytest.mark.parametrize("midstream", ["infer", "allow"])
def test_forgotten_connection_is_inferred_again_only_if_nobody_saw_its_opener(midstream: str) -> None:
    """SPEC 9.3."""
    run_both_families(FORGETTING, handshake() + """
        @0 tcp client:40001 > web:80 PA   -> allow inferred
        @1 apply no-http                  -> 2 disconnected
        @2 tcp client:40001 > web:80 PA   -> deny no-rule
        @2 tcp client:40000 > web:80 PA   -> deny midstream
        @3 apply http                     -> 0 disconnected
        @3 tcp client:40001 > web:80 PA   -> allow inferred
        @3 tcp client:40000 > web:80 PA   -> deny midstream
    """, midstream=midstream, changes=ALL)  # fmt: skip


def test_snapshot_keeps_that_changes_forget(tmp_path: Path) -> None:
    """SPEC 9.13: the setting is part of the policy that the snapshot holds."""
    save_snapshot(run(FORGETTING, handshake()), tmp_path / "engine.snapshot")
    resumed = load_snapshot(tmp_path / "engine.snapshot")
    assert resumed.apply(CHANGES["no-http"], START_NS).disconnected == 1
    late = resumed.check("203.0.113.9", "10.0.0.5", "tcp", sport=40000, dport=80, flags="A", time=START_NS / 10**9)
    assert late.reason == "midstream"


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


def test_moot_peers_may_call_as_soon_as_the_rules_allow_it() -> None:
    run_both_families(SHOP.replace(OUT, both("direction: outbound, protocol: tcp"), 1), """
        @0 udp client:123 > web:123   -> deny no-rule
        @0 udp web:123 > client:123   -> moot opener-denied
        @1 apply open
        @1 udp web:123 > client:123   -> allow rule
        @1 udp client:123 > web:123   -> allow established
    """, changes=OPEN, mode="causal")


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


def test_moot_peer_may_not_call_past_a_filter_that_was_cut() -> None:
    run_both_families(SHOP, """
        @0 udp web:53 > twin:53       -> allow rule; egress allow rule; ingress allow rule
        @0 udp twin:53 > web:53       -> allow established
        @1 apply anew-and-shut        -> 1 disconnected
        @2 udp web:53 > twin:53       -> deny no-rule; egress deny no-rule; ingress -
        # web's rules would let this in, but twin's filter does not let it out
        @2 udp twin:53 > web:53       -> moot opener-denied; egress -; ingress -
    """, changes={"anew-and-shut": [RemoveInstance("web"), AddInstance(WEB), *CHANGES["no-out"]]}, mode="causal")

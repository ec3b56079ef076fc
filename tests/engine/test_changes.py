"""Connections that changes cut, and their end (SPEC 6.2 to 6.4). ``scenario`` says how to read a table."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from scenario import policy_of, run, run_both_families
from shop_changes import (
    CHANGES,
    SHOP,
    TLS,
    handshake,
    new,
    on_change,
)

from sgfast.policy.changes import (
    AddAddress,
    AddGroup,
    AddInstance,
    AddMember,
    Change,
    ModifyRule,
    RemoveAddress,
    RemoveGroup,
    RemoveInstance,
    RemoveMember,
)
from sgfast.policy.model import GroupPeer, SecurityGroup

# --- SPEC 6.2: new connections are judged by the new rules


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

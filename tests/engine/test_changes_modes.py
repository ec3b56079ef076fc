"""Changes under each ``on_change``, in causal mode, of inferred connections (SPEC 6.7, 6.13, 9.2, 9.3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from scenario import START_NS, run, run_both_families
from shop_changes import (
    CHANGES,
    SHOP,
    TLS,
    WEB,
    handshake,
    on_change,
)

from sgfast import load_snapshot, save_snapshot
from sgfast.policy.changes import (
    AddInstance,
    AddMember,
    AddRule,
    Change,
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


# --- SPEC 6.13: what no rule matches any more is forgotten


def test_key_is_free_at_once_when_the_rules_allow_it_again() -> None:
    run_both_families(FORGETTING, handshake() + """
        @1 apply no-http                  -> 1 disconnected
        @2 apply http                     -> 0 disconnected
        @2 tcp client:40000 > web:80 A    -> deny midstream
        @2 tcp client:40000 > web:80 S    -> allow rule
        @2 tcp web:80 > client:40000 SA   -> allow established
    """, changes=ALL)  # fmt: skip


def test_only_the_side_whose_rules_no_longer_match_forgets() -> None:
    run_both_families(FORGETTING, handshake("web:40000", "db:5432") + """
        @1 apply no-sql                   -> 1 disconnected
        @2 tcp web:40000 > db:5432 PA     -> deny midstream; egress allow established; ingress deny midstream
        @2 tcp db:5432 > web:40000 PA     -> deny midstream; egress deny midstream; ingress -
        @2 tcp web:40000 > db:5432 S      -> deny no-rule; egress allow established; ingress deny no-rule
    """, changes=ALL)  # fmt: skip


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
    late = resumed.check("203.0.113.9", "10.0.0.5", "tcp", sport=40000, dport=80, flags="A", time_ns=START_NS)
    assert late.reason == "midstream"


# --- SPEC 9.2: causal mode


OPEN: dict[str, Change | list[Change]] = {
    "open": [AddRule("w", Rule("", "outbound", family)) for family in (4, 6)],
}  # fmt: skip


def test_moot_peer_may_not_call_past_a_filter_that_was_cut() -> None:
    run_both_families(SHOP, """
        @0 udp web:53 > twin:53       -> allow rule; egress allow rule; ingress allow rule
        @0 udp twin:53 > web:53       -> allow established
        @1 apply anew-and-shut        -> 1 disconnected
        @2 udp web:53 > twin:53       -> deny no-rule; egress deny no-rule; ingress -
        # web's rules would let this in, but twin's filter does not let it out
        @2 udp twin:53 > web:53       -> moot opener-denied; egress -; ingress -
    """, changes={"anew-and-shut": [RemoveInstance("web"), AddInstance(WEB), *CHANGES["no-out"]]}, mode="causal")

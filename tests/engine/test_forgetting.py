"""``settings.on_change: forget-unmatched`` (SPEC 6.7, 6.13), with the shop of ``test_changes``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import frames as f
import pytest
from scenario import START_NS, policy_of, run, run_both_families
from test_changes import CHANGES, SHOP, TLS, handshake, on_change

from sgfast import load_snapshot, save_snapshot
from sgfast.engine import Engine
from sgfast.policy.changes import AddRule, RemoveRule

FORGETTING = SHOP + on_change("forget-unmatched")
NO_SQL = [RemoveRule("d", "d/inbound/1"), RemoveRule("d", "d/inbound/2")]
HTTP = [AddRule("w", replace(TLS, ethertype=family, ports=((80, 80),))) for family in (4, 6)]
ALL = CHANGES | {"no-sql": NO_SQL, "http": HTTP}


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


def test_fragment_after_the_change_gets_the_verdict_of_its_datagram() -> None:
    """SPEC 9.4: the datagram was judged when its first fragment came."""
    whole = f.udp(1, 53, bytes(32))
    engine = Engine(policy_of(FORGETTING))

    def piece(offset: int, more: bool) -> bytes:
        part = f.other(17, whole[offset * 8 : offset * 8 + 24])
        return f.ethernet(
            f.ipv4("203.0.113.9", "10.0.0.5", part, identification=7, fragment_offset=offset, more_fragments=more)
        )

    def reason(frame: bytes) -> str | None:
        return engine.verdict(engine.process_frames([frame], [START_NS])[0]).reason

    assert reason(piece(0, True)) == "rule"
    assert engine.apply(CHANGES["no-dns"], START_NS).disconnected == 1
    assert reason(piece(3, False)) == "rule"
    assert reason(f.ethernet(f.ipv4("203.0.113.9", "10.0.0.5", whole))) == "no-rule"


def test_snapshot_keeps_that_changes_forget(tmp_path: Path) -> None:
    """SPEC 9.13: the setting is part of the policy that the snapshot holds."""
    engine = run(FORGETTING, handshake())
    save_snapshot(engine, tmp_path / "engine.snapshot")
    resumed = load_snapshot(tmp_path / "engine.snapshot")
    assert resumed.policy.settings.on_change == "forget-unmatched"
    assert resumed.apply(CHANGES["no-http"], START_NS).disconnected == 1
    frame = f.ethernet(f.ipv4("203.0.113.9", "10.0.0.5", f.tcp(40000, 80, "A")))
    assert resumed.verdict(resumed.process_frames([frame], [START_NS])[0]).reason == "midstream"

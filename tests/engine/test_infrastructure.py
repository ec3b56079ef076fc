"""``settings.infrastructure: by-role`` (SPEC 3.11): an instance may be a client, but no DHCP server and no router."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import frames as f
import pytest
from command import sgfast, valid, write_policy
from scenario import from_engine, from_reference, openers, policy_of, run, spelled
from stories import write_story

from sgfast import replay
from sgfast.engine import Engine
from sgfast.reference.engine import ReferenceEngine
from sgfast.report.lines import ConnectionLines

OPEN = ", ".join(
    f"{{direction: {way}, protocol: all, ethertype: IPv{version}}}" for way in ("inbound", "outbound")
    for version in (4, 6)
)  # fmt: skip
#: ``a`` may do nothing by its rules, ``o`` everything. ``l`` is as ``o``, but remembers no connections.
INSTANCES = f"""
security_groups:
  - {{name: closed}}
  - {{name: open, rules: [{OPEN}]}}
  - {{name: loose, stateful: false, rules: [{OPEN}]}}
instances:
  - {{name: a, addresses: [10.0.0.5, "2001:db8::5", 10.0.0.55, "2001:db8::55"], security_groups: [closed]}}
  - {{name: o, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [open]}}
  - {{name: l, addresses: [10.0.0.7, "2001:db8::7"], security_groups: [loose]}}
"""
POLICY = "settings: {infrastructure: by-role}\n" + INSTANCES
#: Who sends what: at {0} what is free, at {1} what is denied, at {2} what the rules say.
SENT = """
    udp 10.0.0.{n}:68 > 255.255.255.255:67          -> {0}
    udp 10.0.0.{n}:68 > 192.0.2.1:67                -> {0}
    udp [2001:db8::{n}]:546 > [ff02::1:2]:547       -> {0}
    icmpv6 2001:db8::{n} > ff02::2 133/0            -> {0}
    icmpv6 2001:db8::{n} > 2001:db8:ff::1 133/0     -> {0}
    icmpv6 2001:db8::{n} > 2001:db8:ff::1 135/0     -> {0}
    icmpv6 2001:db8::{n} > 2001:db8:ff::1 136/0     -> {0}
    icmpv6 2001:db8::{n} > ff02::1 130/0            -> {0}
    udp 10.0.0.{n}:67 > 192.0.2.1:68                -> {1}
    udp 10.0.0.{n}:67 > 255.255.255.255:68          -> {1}
    udp [2001:db8::{n}]:547 > [2001:db8:ff::1]:546  -> {1}
    icmpv6 2001:db8::{n} > ff02::1 134/0            -> {1}
    icmpv6 2001:db8::{n} > 2001:db8:ff::1 134/0     -> {1}
    icmpv6 2001:db8::{n} > 2001:db8:ff::1 137/0     -> {2}
    icmpv6 2001:db8::{n} > ff02::16 131/0           -> {2}
    icmpv6 2001:db8::{n} > ff02::16 132/0           -> {2}
    icmpv6 2001:db8::{n} > ff02::16 143/0           -> {2}
    # these ports mean nothing to the other IP version, nor to TCP
    udp [2001:db8::{n}]:67 > [2001:db8:ff::1]:68    -> {2}
    udp 10.0.0.{n}:547 > 192.0.2.1:546              -> {2}
    tcp 10.0.0.{n}:67 > 192.0.2.1:68                -> {2}
    udp 10.0.0.{n}:67 > 192.0.2.1:67                -> {2}
"""
RECEIVED = """
    udp 192.0.2.1:67 > 10.0.0.{n}:68                -> {0}
    udp [2001:db8:ff::1]:547 > [2001:db8::{n}]:546  -> {0}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 134/0     -> {0}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 135/0     -> {0}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 136/0     -> {0}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 130/0     -> {0}
    udp 192.0.2.1:68 > 10.0.0.{n}:67                -> {2}
    udp [2001:db8:ff::1]:546 > [2001:db8::{n}]:547  -> {2}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 133/0     -> {2}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 137/0     -> {2}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 131/0     -> {2}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 132/0     -> {2}
    icmpv6 2001:db8:ff::1 > 2001:db8::{n} 143/0     -> {2}
"""


@pytest.mark.parametrize(("number", "by_rules"), [(5, "deny no-rule"), (6, "allow rule"), (7, "allow rule")])
def test_each_kind_of_infrastructure_by_who_sends_and_who_receives_it(number: int, by_rules: str) -> None:
    free = "exempt; egress -; ingress -"
    denied = "deny infrastructure; egress deny infrastructure; ingress -"
    openers(POLICY, SENT.format(free, denied, by_rules, n=number))
    openers(POLICY, RECEIVED.format(free, None, by_rules, n=number))


def test_between_instances_the_sender_is_not_asked_and_the_receiver_is() -> None:
    run(POLICY, """
        @0 udp a:68 > o:67    -> allow rule open/inbound/1; egress allow infrastructure; ingress allow rule
        @1 udp a:68 > o:67    -> allow established; egress allow infrastructure; ingress allow established
        @1 udp o:68 > a:67    -> deny no-rule; egress allow infrastructure; ingress deny no-rule
        @1 udp l:68 > o:67    -> allow rule; egress allow infrastructure; ingress allow rule
        @1 udp a:68 > l:67    -> allow rule; egress allow infrastructure; ingress allow rule
        # the answer to what the receiver let in is denied nevertheless
        @2 udp o:67 > a:68    -> deny infrastructure; egress deny infrastructure; ingress -
        @2 udp l:67 > a:68    -> deny infrastructure; egress deny infrastructure; ingress -
        @2 icmpv6 2001:db8::5 > 2001:db8::6 133/0 -> allow rule; egress allow infrastructure; ingress allow rule
        @2 icmpv6 2001:db8::6 > 2001:db8::5 133/0 -> deny no-rule; egress allow infrastructure
        # its own ends
        @3 udp 10.0.0.5:68 > 10.0.0.55:67         -> local
        @3 udp 10.0.0.5:67 > 10.0.0.55:68         -> local
        @3 icmpv6 2001:db8::5 > 2001:db8::55 135/0 -> exempt
    """)  # fmt: skip


def test_vpcs_without_a_peering_come_before_the_receivers_rules_and_after_what_is_denied() -> None:
    policy = POLICY.replace("settings", "vpcs: [{name: red}, {name: blue}]\nsettings").replace(
        "{name: o,", "{name: o, vpc: blue,").replace("{name: a,", "{name: a, vpc: red,").replace(
        "{name: l,", "{name: l, vpc: red,")  # fmt: skip
    openers(policy, """
        udp a:68 > o:67  -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        udp a:67 > o:68  -> deny infrastructure; egress deny infrastructure; ingress -
    """)  # fmt: skip


def both_say(frames: list[bytes], setting: str = "by-role") -> list[str]:
    """Verdicts of frames in order, by the engine (with one thread and with two) and by the reference."""
    policy = policy_of(POLICY.replace("by-role", setting))
    reference = ReferenceEngine(policy)
    expected = [spelled(from_reference(reference.process_frame(0, frame))) for frame in frames]
    for jobs in (1, 2):
        engine = Engine(policy, jobs=jobs)
        rows = engine.process_frames(frames, [0] * len(frames))
        assert [spelled(from_engine(engine, row)) for row in rows] == expected
    return expected


def test_hop_limit_makes_no_difference() -> None:
    frames = [
        f.ethernet(f.ipv6("2001:db8::5", "2001:db8:ff::1", f.icmpv6(kind), hop_limit=hops))
        for kind in (133, 134, 135, 136) for hops in (1, 255)
    ]  # fmt: skip
    assert [said.split(";")[0] for said in both_say(frames)] == (
        ["exempt"] * 2 + ["deny infrastructure"] * 2 + ["exempt"] * 4
    )


def test_fault_behind_the_ports_makes_no_difference_unless_rules_are_asked() -> None:
    broken: Any = {"length": 3}
    said = both_say([
        f.ethernet(f.ipv4("10.0.0.5", "192.0.2.1", f.udp(68, 67, **broken))),
        f.ethernet(f.ipv4("10.0.0.5", "192.0.2.1", f.udp(67, 68, **broken))),
        f.ethernet(f.ipv4("192.0.2.1", "10.0.0.5", f.udp(67, 68, **broken))),
        f.ethernet(f.ipv4("10.0.0.5", "10.0.0.6", f.udp(68, 67, **broken))),
        f.ethernet(f.ipv4("192.0.2.1", "10.0.0.6", f.udp(68, 67, **broken))),
    ])  # fmt: skip
    assert [words.split(";")[0] for words in said] == [
        "exempt", "deny infrastructure", "exempt", "deny malformed", "deny malformed",
    ]  # fmt: skip


@pytest.mark.parametrize("kept", range(14 + 40, 14 + 40 + 9))
def test_packet_that_the_capture_cut_is_known_by_type_and_code(kept: int) -> None:
    """SPEC 3.2: from the second byte behind the IP header on."""
    whole = [
        f.ethernet(f.ipv6("2001:db8::5", "2001:db8:ff::1", f.icmpv6(kind), hop_limit=255)) for kind in (133, 134, 135)
    ]
    policy = policy_of(POLICY)
    engine, reference = Engine(policy), ReferenceEngine(policy)
    for frame, wanted in zip(whole, ("exempt", "deny infrastructure", "exempt"), strict=True):
        told = reference.process_frame(0, frame[:kept], wire_length=len(frame))
        expected = wanted if kept >= 14 + 40 + 2 else "deny truncated"
        assert spelled(from_reference(told)).startswith(expected)
        row = engine.process_frames([frame[:kept]], [0], wire_lengths=[len(frame)])[0]
        assert spelled(from_engine(engine, row)) == spelled(from_reference(told))


def test_fragments_follow_the_first_one() -> None:
    whole = f.udp(547, 546, bytes(56))

    def pieces(src: str, dst: str, number: int) -> list[bytes]:
        return [
            f.ethernet(f.ipv6(src, dst, f.other(17, part), extensions=[f.fragment(at // 8, more, number)]))
            for at, part, more in ((0, whole[:32], True), (32, whole[32:], False))
        ]  # fmt: skip

    said = both_say([*pieces("2001:db8::5", "2001:db8:ff::1", 1), *pieces("2001:db8:ff::1", "2001:db8::5", 2)])
    assert [words.split(";")[0] for words in said] == ["deny infrastructure"] * 2 + ["exempt"] * 2


@pytest.mark.parametrize("setting", ["by-role", "exempt", "filtered"])
def test_first_fragment_of_a_datagram_whose_fragments_contradict_each_other_is_denied_whatever_it_asks(
    setting: str,
) -> None:
    """SPEC 9.4: no kernel puts such a datagram together."""
    whole = f.udp(546, 547, bytes(56))
    frames = [
        f.ethernet(f.ipv6("2001:db8::5", "ff02::1:2", f.other(17, part), extensions=[f.fragment(at // 8, at == 0)]))
        for at, part in ((32, whole[32:48]), (48, whole[48:]), (0, whole[:32]))
    ]  # fmt: skip
    said = both_say(frames, setting)
    assert [words.split(";")[0] for words in said[1:]] == ["deny fragment"] * 2


def test_other_settings_treat_both_ends_alike() -> None:
    answer = f.ethernet(f.ipv4("10.0.0.5", "192.0.2.1", f.udp(67, 68)))
    report = f.ethernet(f.ipv6("2001:db8::5", "ff02::16", f.icmpv6(143), hop_limit=1))
    for setting, wanted in (("exempt", "exempt"), ("filtered", "deny no-rule")):
        assert {words.split(";")[0] for words in both_say([answer, report], setting)} == {wanted}


def test_single_checks_know_the_source_port() -> None:
    engine = Engine(policy_of(POLICY))
    assert engine.check("10.0.0.5", "192.0.2.1", "udp", sport=67, dport=68).reason == "infrastructure"
    assert engine.check("10.0.0.5", "192.0.2.1", "udp", sport=68, dport=67).verdict == "exempt"
    assert engine.check("2001:db8::5", "ff02::1", "icmpv6", icmp_type=134).reason == "infrastructure"


def test_reports_name_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offer = f.ethernet(f.ipv4("10.0.0.5", "255.255.255.255", f.udp(67, 68)))
    asked = f.ethernet(f.ipv4("10.0.0.5", "10.0.0.6", f.udp(68, 67)))
    policy = write_policy(tmp_path, "version: 1\n" + POLICY)
    capture = write_story(tmp_path, [(0.0, offer), (1.0, asked), (2.0, offer)])
    lines: list[bytes] = []
    result = replay(policy, capture, flows=ConnectionLines(lines.append))
    assert result.reasons == {"infrastructure": 2, "rule": 1} and result.connections["denied"] == 0
    assert [(denied.reason, denied.packets, denied.service.instance) for denied in result.denied] == [
        ("infrastructure", 2, "a")
    ]
    [row] = (valid("connection", json.loads(line)) for line in b"".join(lines).splitlines())
    assert row["egress"] is None and row["ingress"]["ended"] == "open"
    verdicts, log, page = tmp_path / "verdicts.json", tmp_path / "flow.log", tmp_path / "page.html"
    told = sgfast(
        capsys, "replay", policy, capture, "--json", "--verdicts", verdicts, "--flow-log", log, "--report", page
    )
    assert valid("summary", json.loads(told.out))["reasons"]["infrastructure"] == 2
    sides = [valid("verdict", json.loads(line))["egress"] for line in verdicts.read_text().splitlines()]
    assert [side["reason"] for side in sides] == ["infrastructure"] * 3
    assert [side["verdict"] for side in sides] == ["deny", "allow", "deny"]
    assert "An instance sent it as a DHCP server or a router, which it must not be." in page.read_text()
    assert log.read_text().count("REJECT") == 1
    same = replay(policy, log, compare_actions=True).actions
    assert same is not None and (same.agreeing, same.disagreeing) == (1, 0)


def test_explain_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = write_policy(tmp_path, "version: 1\n" + POLICY)

    def explained(source: str, destination: str, *more: str) -> Any:
        ends = ("--from", source, "--to", destination)
        return valid("explain", json.loads(sgfast(capsys, "explain", policy, *ends, *more, "--json").out))

    server = ("--protocol", "udp", "--sport", "67", "--port", "68")
    told = explained("a", "o", *server)
    assert (told["verdict"], told["reason"]) == ("deny", "infrastructure") and "DHCP server or a router" in told["note"]
    assert (told["egress"]["reason"], told["egress"]["reached"]) == ("infrastructure", True)
    assert (told["ingress"]["verdict"], told["ingress"]["reached"]) == ("allow", False)
    client = ("--protocol", "udp", "--sport", "68", "--port", "67")
    told = explained("o", "a", *client)
    assert (told["reason"], told["ingress"]["reason"]) == ("no-rule", "no-rule")
    assert (told["egress"]["verdict"], told["egress"]["reason"]) == ("allow", "infrastructure")
    text = sgfast(capsys, "explain", policy, "--from", "o", "--to", "a", *client).out
    assert "no rule is asked about it (settings.infrastructure)" in text
    assert explained("a", "192.0.2.1", *client)["verdict"] == "exempt"

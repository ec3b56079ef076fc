"""A rule is suggested for exactly the filters that are asked about infrastructure (SPEC 3.2, 3.11)."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import write_capture
from frames import Layer, ethernet, icmpv6, ipv4, ipv6, udp

from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import UDP, GroupPeer
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.suggesting import suggest
from sgfast.questions.suggesting.first_expectations import first_expectations

POLICY = """
version: 1
settings: {infrastructure: SETTING}
security_groups: [{name: senders}, {name: receivers}]
instances:
  - {name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [senders]}
  - {name: b, addresses: [10.0.0.6, "2001:db8::6"], security_groups: [receivers]}
"""
INSTANCES = {4: ("10.0.0.5", "10.0.0.6"), 6: ("2001:db8::5", "2001:db8::6")}
STRANGERS = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8:ff::1", "2001:db8:ff::2")}
NOBODY, RECEIVER, BOTH = (), ("receivers",), ("senders", "receivers")
#: Per packet: whose filters are asked with ``by-role``, and with ``exempt`` if the hop limit is not 255.
LINES = {
    "DHCP request": (4, udp(68, 67), RECEIVER, NOBODY),
    "DHCPv6 request": (6, udp(546, 547), RECEIVER, NOBODY),
    "router solicitation": (6, icmpv6(133, 0), RECEIVER, BOTH),
    "DHCP reply": (4, udp(67, 68), NOBODY, NOBODY),
    "DHCPv6 reply": (6, udp(547, 546), NOBODY, NOBODY),
    "router advertisement": (6, icmpv6(134, 0), NOBODY, BOTH),
    "neighbour solicitation": (6, icmpv6(135, 0), NOBODY, BOTH),
    "neighbour advertisement": (6, icmpv6(136, 0), NOBODY, BOTH),
    "MLD query": (6, icmpv6(130, 0), NOBODY, NOBODY),
    "redirect": (6, icmpv6(137, 0), BOTH, BOTH),
    "MLD report": (6, icmpv6(131, 0), BOTH, NOBODY),
    "MLD end": (6, icmpv6(132, 0), BOTH, NOBODY),
    "MLDv2 report": (6, icmpv6(143, 0), BOTH, NOBODY),
    "DHCP from another port": (4, udp(69, 67), BOTH, BOTH),
    "DHCP over IPv6": (6, udp(68, 67), BOTH, BOTH),
}


def packet(family: int, source: str, destination: str, layer: Layer, hop_limit: int) -> bytes:
    if family == 4:
        return ethernet(ipv4(source, destination, layer))
    return ethernet(ipv6(source, destination, layer, hop_limit=hop_limit))


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize(("setting", "hop_limit"), [("by-role", 64), ("exempt", 64), ("exempt", 255), ("filtered", 64)])
def test_each_line_of_the_table_by_who_sends_and_who_receives_it(
    tmp_path: Path, line: str, setting: str, hop_limit: int
) -> None:
    family, layer, by_role, exempt = LINES[line]
    is_discovery = layer.protocol == 58 and exempt == BOTH
    asked = {"by-role": by_role, "exempt": NOBODY if hop_limit == 255 and is_discovery else exempt}.get(setting, BOTH)
    policy = parse_policy(POLICY.replace("SETTING", setting))
    for sender in (INSTANCES[family][0], STRANGERS[family][0]):
        for receiver in (INSTANCES[family][1], STRANGERS[family][1]):
            capture = write_capture(tmp_path, packet(family, sender, receiver, layer, hop_limit))
            found = suggest([capture], instances=policy, unanswered=True)
            is_inside = {"senders": sender in INSTANCES[family], "receivers": receiver in INSTANCES[family]}
            assert found.check.matches and found.check.also_allowed == 0
            assert {each.group for each in found.rules} == {group for group in asked if is_inside[group]}
            for each in found.rules:
                other, address = ("receivers", receiver) if each.group == "senders" else ("senders", sender)
                peer = each.rule.peer
                assert peer.name == other if isinstance(peer, GroupPeer) else str(peer).split("/")[0] == address
                assert isinstance(peer, GroupPeer) == is_inside[other]


@pytest.mark.parametrize("setting", ["by-role", "exempt"])
def test_nothing_is_expected_of_infrastructure(tmp_path: Path, setting: str) -> None:
    """Even if both ends send it: an expectation is about packets that are none (SPEC 12.1)."""
    policy = parse_policy(POLICY.replace("SETTING", setting))
    frames = []
    for family, layer, _, _ in LINES.values():
        back = udp(int.from_bytes(layer[2:4]), int.from_bytes(layer[:2])) if layer.protocol == UDP else layer
        for here, there in (INSTANCES[family], (INSTANCES[family][0], STRANGERS[family][1])):
            frames += [packet(family, here, there, layer, 64), packet(family, there, here, back, 64)]
    found = first_expectations(policy, [write_capture(tmp_path, *frames)], ReplayOptions())
    lines = [line.split("  #")[0].strip() for line in found.text.splitlines() if line.startswith("  - ")]
    assert lines == ['- {from: senders, to: [receivers, 192.0.2.2, "2001:db8:ff::2"], service: udp/67, verdict: allow}']

"""Port 0 exists with the profile aws alone (SPEC 2.2, 2.15)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import frames as f
import pytest
from exports import imported
from policy_texts import error_of

import sgfast
from sgfast import Policy
from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.changes import AddGroup, AddRule, ModifyRule
from sgfast.policy.model import Ports, Rule, SecurityGroup, Settings
from sgfast.policy.profiles import PROFILES
from sgfast.reference.engine import ReferenceEngine

WITHOUT = ("otc", "neutron")


def text_of(ports: str, profile: str, protocol: str = "tcp") -> str:
    return f"""version: 1
settings: {{profile: {profile}}}
security_groups:
  - name: web
    rules:
      - {{id: r, direction: inbound, protocol: {protocol}, ports: {ports}}}
instances:
  - {{name: web-1, addresses: [10.0.0.5], security_groups: [web]}}
"""


def ports_of(policy: Policy) -> Ports | None:
    return policy.security_groups[0].rules[0].ports


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("written", ["0", '"0"', "0-0", '"0,443"', "[0, 443]", "[0, 1-5]", '"443, 0 - 0"'])
def test_a_document_cannot_name_port_0_alone(written: str, profile: str) -> None:
    text = text_of(written, profile)
    if profile == "aws":
        assert (ports_of(parse_policy(text)) or ())[0][0] == 0
        return
    error = error_of(text)
    assert error.startswith("p.yaml:6: security_groups[0].rules[0].ports") and "ports range from 1 to 65535" in error
    assert "aws" in error, "what to do"


@pytest.mark.parametrize("protocol", ["tcp", "udp", "udplite", "sctp", "dccp"])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("written", "kept", "counts", "warned"), [
    ("0-1023", ((0, 1023),), ((1, 1023),), "ports 0-1023 count from port 1 on"),
    ('"0-5,443"', ((0, 5), (443, 443)), ((1, 5), (443, 443)), "ports 0-5,443 count from port 1 on"),
    ("[0-5, 6-9]", ((0, 9),), ((1, 9),), "ports 0-9 count from port 1 on"),
    ("0-65535", None, None, "ports 0-65535 are all ports, as if ports were left out"),
    ('"0-9,10-65535"', None, None, "ports 0-65535 are all ports, as if ports were left out"),
    ("1-65535", ((1, 65535),), ((1, 65535),), ""),
])  # fmt: skip
def test_a_range_from_port_0_counts_from_port_1_on_and_says_so(
    written: str, kept: Ports | None, counts: Ports | None, warned: str, profile: str, protocol: str
) -> None:
    policy = parse_policy(text_of(written, profile, protocol), "p.yaml")
    assert ports_of(policy) == (kept if profile == "aws" else counts)
    if profile == "aws" or not warned:
        assert policy.warnings == ()
    else:
        (warning,) = policy.warnings
        assert warning.startswith(f"p.yaml:6: security_groups[0].rules[0].ports: {warned}") and warning.endswith(".")


@pytest.mark.parametrize(("profile", "written", "port", "verdict"), [
    ("otc", "0-1023", 0, "deny"), ("otc", "0-1023", 1, "allow"), ("neutron", "0-1023", 0, "deny"),
    ("otc", "0-65535", 0, "allow"), ("neutron", "0-65535", 0, "allow"), ("otc", "1-65535", 0, "deny"),
    ("aws", "0-1023", 0, "allow"), ("aws", "0-65535", 0, "allow"), ("aws", "0", 0, "allow"), ("aws", "0", 1, "deny"),
])  # fmt: skip
def test_a_packet_to_port_0(profile: str, written: str, port: int, verdict: str) -> None:
    policy = parse_policy(text_of(written, profile, "udp"))
    assert sgfast.Engine(policy).check("192.0.2.1", "10.0.0.5", "udp", dport=port).verdict == verdict
    frame = f.ethernet(f.ip("192.0.2.1", "10.0.0.5", f.udp(999, port)))
    assert ReferenceEngine(policy).process_frame(0, frame).verdict == verdict
    explained = policy.explain("192.0.2.1", "web-1", f"udp/{port}")
    assert (verdict == "allow") == explained.allowed
    if verdict == "deny" and profile != "aws":
        assert "1-" in str(explained), "the nearest rule says which ports it is for"


@pytest.mark.parametrize("profile", WITHOUT)
def test_a_change_file_is_read_as_a_document_is(profile: str) -> None:
    engine = sgfast.Engine(parse_policy(text_of("443", profile)))
    rule = {"direction": "inbound", "protocol": "tcp"}
    with pytest.raises(PolicyError, match=r"changes\[0\].add_rule.rule.ports: .*ports range from 1 to 65535"):
        engine.apply({"add_rule": {"group": "web", "rule": rule | {"ports": 0}}}, now_ns=0)
    with pytest.raises(PolicyError, match="ports range from 1 to 65535"):
        engine.apply({"modify_rule": {"group": "web", "rule": "r", "set": {"ports": "0,80"}}}, now_ns=0)
    with pytest.raises(PolicyError, match="ports range from 1 to 65535"):
        engine.apply({"add_group": {"name": "g", "rules": [rule | {"ports": [0]}]}}, now_ns=0)
    engine.apply({"modify_rule": {"group": "web", "rule": "r", "set": {"ports": "0-80"}}}, now_ns=0)
    assert ports_of(engine.policy) == ((1, 80),)
    # To write the same in other words cuts nothing (SPEC 6.3).
    assert engine.check("192.0.2.1", "10.0.0.5", "tcp", dport=80).verdict == "allow"
    same = {"modify_rule": {"group": "web", "rule": "r", "set": {"ports": "1-80"}}}
    assert engine.apply(same, now_ns=0).disconnected == 0
    aws = sgfast.Engine(parse_policy(text_of("443", "aws")))
    aws.apply({"modify_rule": {"group": "web", "rule": "r", "set": {"ports": "0,80"}}}, now_ns=0)
    assert ports_of(aws.policy) == ((0, 0), (80, 80))


@pytest.mark.parametrize("ports", [((0, 0),), ((0, 80),), ((0, 0), (443, 443))])
def test_ports_that_a_program_gives_mean_what_they_say_and_are_not_0_alone(ports: Ports) -> None:
    rule = Rule("x", "inbound", 4, 6, ports)
    group = SecurityGroup("g", (rule,))
    for profile in PROFILES:
        made = Policy(security_groups=(group,), settings=PROFILES[profile].settings)
        engine = sgfast.Engine(parse_policy(text_of("443", profile)))
        changes = (AddRule("web", rule), ModifyRule("web", "r", rule), AddGroup(group))
        if profile == "aws" or ports[0] != (0, 0):
            assert sgfast.load(made) is made
            for change in changes[:2]:
                engine.apply(change, now_ns=0)
            assert engine.check("192.0.2.1", "10.0.0.5", "tcp", dport=0).verdict == "allow"
            continue
        with pytest.raises(PolicyError) as caught:
            sgfast.load(made)
        assert str(caught.value).startswith("policy.security_groups[0].rules[0].ports: ports range from 1 to 65535")
        for change in changes:
            with pytest.raises(PolicyError, match=r"^<changes>: changes\[0\].*: ports range from 1 to 65535"):
                engine.apply(change, now_ns=0)


def test_another_profile_holds_for_all_rules_of_the_policy() -> None:
    """``settings.profile`` says what a rule may say. A policy of AWS in which a program changes it is checked again."""
    policy = parse_policy(text_of('"0,80"', "aws"))
    with pytest.raises(PolicyError, match=r"rules\[0\].ports: ports range from 1 to 65535"):
        sgfast.load(replace(policy, settings=Settings(profile="otc")))


def test_a_wrong_profile_is_the_only_error() -> None:
    error = error_of(text_of("0", "oct"))
    assert "settings.profile" in error and "\n" not in error


def neutron_rule(**fields: object) -> dict[str, object]:
    usual = {"id": "r1", "security_group_id": "g", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
    return usual | fields


@pytest.mark.parametrize(("form", "fields", "ports", "note"), [
    ("neutron", {"port_range_min": 0, "port_range_max": 80}, ((1, 80),), "from port 0 on counts from port 1 on"),
    ("neutron", {"port_range_min": 0, "port_range_max": 65535}, None, ""),
    ("neutron", {"port_range_min": 0, "port_range_max": 0}, "left out", "is for port 0 alone"),
    ("neutron", {"port_range_max": 0}, "left out", "is for port 0 alone"),
    ("otc", {"multiport": "0,80"}, ((80, 80),), "from port 0 on counts from port 1 on"),
    ("otc", {"multiport": "0-9,80"}, ((1, 9), (80, 80)), "from port 0 on counts from port 1 on"),
    ("otc", {"multiport": "0"}, "left out", "is for port 0 alone"),
])  # fmt: skip
def test_an_export_with_port_0_is_read_as_the_cloud_takes_it(
    form: str, fields: dict[str, object], ports: Ports | str | None, note: str
) -> None:
    kept = neutron_rule(id="r2", protocol="udp")
    group = {"id": "g", "name": "g", "security_group_rules": [neutron_rule(**fields), kept]}
    made = imported({"security_groups": [group]}, form=form)
    for policy in (made.policy(), parse_policy(made.yaml([]))):
        rules = {rule.id: rule for rule in policy.security_groups[0].rules}
        if ports == "left out":
            assert [*rules] == ["r2"]
        else:
            assert rules["r1"].ports == ports
    said = [text for text in made.policy().warnings if "port 0" in text]
    assert [note in text and "r1" in text for text in said] == ([True] if note else []), said
    assert not any("port" in text for text in parse_policy(made.yaml([])).warnings)


def test_no_rule_is_suggested_for_port_0(tmp_path: Path) -> None:
    def talk(port: int) -> list[bytes]:
        ends = ("192.0.2.1", "10.0.0.5")
        return [f.ip(*ends, f.udp(999, port)), f.ip(*reversed(ends), f.udp(port, 999))]

    capture = tmp_path / "c.pcap"
    capture.write_bytes(f.pcap([*talk(0), *talk(53)]))
    for profile in PROFILES:
        found = sgfast.suggest([capture], instances=parse_policy(text_of("1", profile)))
        assert found.check.matches
        rules = [each.rule for each in found.rules if each.rule.direction == "inbound"]
        left = {each.reason: each.evidence.connections for each in found.left_out}
        if profile == "aws":
            assert [rule.ports for rule in rules] == [((0, 0), (53, 53))] and not left
        else:
            assert [rule.ports for rule in rules] == [((53, 53),)]
            assert left == {"port 0, which no rule can name": 1}

"""``sgfast suggest --keep``: today's policy, whole, and the fewest rules for what it would break (SPEC 10.15)."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import pcap_head, pcap_record
from command import CLIENT, PCAPS, SERVER, SHOP, handshake, valid, write_capture
from command import sgfast as command
from frames import ethernet, ip, tcp, udp
from policy_changes import without_one_port
from scripted_conversations import a_policy, capture, write
from traffic import Crowd, as_capture, drawn

import sgfast
from sgfast import Policy
from sgfast.base.errors import ArgumentError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.rule_text import rule_text
from sgfast.questions.suggesting import Suggestion, keeping, suggest
from sgfast.questions.suggesting.missing import DENY_RULE
from sgfast.questions.suggesting.observing import REFUSED, UNANSWERED

Capsys = pytest.CaptureFixture[str]

CASES = int(os.environ.get("SGFAST_ONE_WAY_CASES", "12"))
#: Reasons for which connections are left out that nobody was seen to answer: these do not break.
NOT_ANSWERED = (UNANSWERED, REFUSED, "perhaps")


def today(rng: np.random.Generator) -> Policy:
    """A random policy in which instances share groups, and rules name groups and deny."""
    document = a_policy(rng)
    for group in document["security_groups"]:
        if rng.random() < 0.4:
            group["rules"].append({"direction": "inbound", "protocol": "tcp", "ports": 80, "source": "g1"})
        if rng.random() < 0.3:
            priority, few = int(rng.integers(1, 101)), {"source": "198.51.100.0/24"} if rng.random() < 0.5 else {}
            denial = {"direction": "inbound", "protocol": "udp", "action": "deny", "priority": priority, **few}
            group["rules"].append(denial)
    for instance in document["instances"]:
        instance["security_groups"] += ["g2"] * (instance["security_groups"] != ["g2"] and rng.random() < 0.4)
    return sgfast.load(document)


def broken(policy: Policy, path: Path) -> Counter[Any]:
    found = sgfast.replay(policy, path).broken
    return Counter({replace(each, connections=0): each.connections for each in found})


def assert_whole(before: Policy, found: Suggestion) -> None:
    """All of the policy is there as it was, in the text that users get, and the new rules come behind the old ones."""
    read, added = parse_policy(found.text), {each.rule for each in found.rules}
    for name in ("vpcs", "peerings", "address_groups", "instances", "settings"):
        assert getattr(read, name) == getattr(before, name)
    for old, new in zip(before.security_groups, read.security_groups, strict=True):
        assert replace(new, rules=old.rules) == replace(old, numbered=None, gone=frozenset())
        assert new.rules[: len(old.rules)] == old.rules and {*new.rules[len(old.rules) :]} <= added
    assert sum(len(group.rules) for group in read.security_groups) == found.kept + len(added)  # type: ignore[operator]


def assert_keeps(before: Policy, path: Path) -> tuple[Suggestion, int]:
    """Nothing breaks but what is told, nothing is closed, no rule is without use. Return how many connections break."""
    found = suggest([path], policy=before, keep=True)
    assert found.check.matches and found.check.allowed == found.check.claimed
    assert_whole(before, found)
    after = broken(found.policy, path)
    told = [each for each in found.left_out if not each.reason.startswith(NOT_ANSWERED)]
    assert after.total() == sum(each.evidence.connections for each in told)
    change = before.diff(found.policy)
    assert not change.closed and bool(change.opened) == bool(found.rules)
    # AWS has no rule for a group and one IP version only, so nothing of these captures needs the other one.
    ids = {each.rule.id for each in found.rules if each.rule.id not in found.policy.twins}
    for what, less in without_one_port(found.policy):
        if what.split()[0] in ids:
            lost = sgfast.load(found.policy).diff(sgfast.load(less), path).newly_denied
            assert broken(less, path).total() > after.total() or any(each.answered for each in lost), what
    return found, after.total()


def test_kept_policy_breaks_nothing_closes_nothing_and_has_no_rule_to_spare(tmp_path: Path) -> None:
    claimed = rules = remaining = 0
    for case in range(CASES):
        rng = np.random.default_rng((20261201, case))
        before, path = today(rng), write(tmp_path / "some.pcap", capture(rng))
        print(f"case {case}")
        found, still = assert_keeps(before, path)
        claimed, rules, remaining = claimed + found.check.claimed, rules + len(found.rules), remaining + still
        assert not before.diff(found.policy, path).newly_denied
        assert broken(before, path).total() == found.check.claimed + still
    assert claimed > CASES and rules > CASES and remaining > 0, "the cases have become too simple"


def test_odd_traffic_of_several_vpcs_breaks_only_what_is_told(tmp_path: Path) -> None:
    """With stateless groups, routers, deny rules and codes of ICMP, and rules that let other connections begin."""
    claimed = Counter[str]()

    @drawn(48, CASES)
    def check(policy: Policy, case_seed: int) -> None:
        before = sgfast.load(replace(policy, settings=replace(policy.settings, max_connections=1_000_000)))
        path = as_capture(tmp_path, Crowd(before, np.random.default_rng(case_seed)).draw(600))
        found, _ = assert_keeps(before, path)
        claimed["all"] += found.check.claimed
        claimed.update({each.reason: each.evidence.connections for each in found.left_out})

    check()
    assert claimed["all"] > CASES and claimed[DENY_RULE] and claimed["denied whatever the rules: vpc-isolated"]


WHOLE = """
version: 1
quotas: {rules_per_group: 2}
settings: {profile: neutron, on_change: keep, timeouts: {icmp: 7}}
vpcs: [{name: v, id: vpc-1, label: the first, vni: 7}, {name: w, region: far}]
peerings: [[v, w]]
address_groups: [{name: offices, id: pl-1, addresses: [192.0.2.0/24, "2001:db8::/64"]}]
security_groups:
  - name: web
    id: sg-1
    label: "web (prod)"
    description: 'said "no"'
    rules:
      - {id: sgr-1, direction: inbound, protocol: tcp, ports: 22, source: {address_group: offices}, description: help}
      - {id: web/inbound/3, direction: inbound, ethertype: IPv6, protocol: icmp, icmp_type: 1, icmp_code: 2,
         action: deny, priority: 9}
  - {name: none, stateful: false}
instances:
  - {name: web-1, id: eni-1, device: i-1, label: one, vpc: v, addresses: [10.0.0.5, 10.9.0.0/16],
     security_groups: [web]}
  - {name: other, vpc: w, addresses: [10.0.0.9], security_groups: [none]}
"""


def test_all_that_a_policy_has_is_kept_and_ids_and_quotas_make_room(tmp_path: Path) -> None:
    before = parse_policy(WHOLE)
    found = suggest([write_capture(tmp_path, *handshake(40000, 443))], policy=before, keep=True, vpc="v")
    assert_whole(before, found)
    assert [(each.rule.id, rule_text(each.rule), each.rule.priority) for each in found.rules] == [
        ("web/inbound/4", f"tcp/443 from {CLIENT}/32", 9)
    ]
    assert found.policy.quotas.rules_per_group == 3
    assert "a group has 3 rules, so quotas.rules_per_group is raised from 2; " in found.warnings[-1]


def test_ids_that_were_ever_used_are_not_used_again(tmp_path: Path) -> None:
    text = WHOLE.replace("sgr-1", "web/inbound/4")
    found = suggest([write_capture(tmp_path, *handshake(40000, 443))], policy=parse_policy(text), keep=True, vpc="v")
    assert [each.rule.id for each in found.rules] == ["web/inbound/5"]


NOTHING_ALLOWED = f"""
version: 1
security_groups: [{{name: web}}]
instances: [{{name: web-1, addresses: [{SERVER}], security_groups: [web]}}]
"""


def test_only_what_was_answered_counts_even_if_only_its_initiator_shows_that(tmp_path: Path) -> None:
    asked = [ethernet(ip(CLIENT, SERVER, tcp(40000 + n, n, "S"))) for n in (81, 82)]
    asked += [ethernet(ip(CLIENT, SERVER, tcp(40082, 82, "A"))), ethernet(ip(CLIENT, SERVER, udp(5000, 514)))]
    path = write_capture(tmp_path, *asked)
    policy = parse_policy(NOTHING_ALLOWED)
    found = suggest([path], policy=policy, keep=True)
    assert [each.rule.ports for each in found.rules] == [((82, 82),)]
    assert sgfast.replay(policy, path).broken[0].connections == found.check.claimed == 1
    assert [(each.reason[:8], each.evidence.connections) for each in found.left_out] == [("perhaps ", 2)]
    both = suggest([path], policy=policy, keep=True, unanswered=True)
    assert sorted(rule_text(each.rule) for each in both.rules) == [
        f"tcp/81-82 from {CLIENT}/32", f"udp/514 from {CLIENT}/32",
    ]  # fmt: skip


def timed(folder: Path, frames: list[tuple[int, bytes]]) -> Path:
    """Write a capture of frames with their seconds."""
    path = folder / "some.pcap"
    records = [pcap_record(frame, time=(second, 1000 * n)) for n, (second, frame) in enumerate(frames)]
    path.write_bytes(pcap_head() + b"".join(records))
    return path


def test_rule_goes_that_is_not_needed_once_another_one_is_there(tmp_path: Path) -> None:
    """The server speaks again after a pause. It opens a connection only where its first one was denied."""
    ask, answer = ((ethernet(ip(*ends, udp(*ports)))) for ends, ports in (
        ((CLIENT, SERVER), (5000, 6000)), ((SERVER, CLIENT), (6000, 5000)),
    ))  # fmt: skip
    path = timed(tmp_path, [(1000, ask), (1001, answer), (1100, answer), (1101, ask)])
    policy = parse_policy(NOTHING_ALLOWED)
    assert broken(policy, path).total() == 2
    found = suggest([path], policy=policy, keep=True)
    assert [rule_text(each.rule) for each in found.rules] == [f"udp/6000 from {CLIENT}/32"]
    assert not broken(found.policy, path) and found.check.claimed == 1


def test_captures_are_replayed_until_nothing_new_breaks(tmp_path: Path) -> None:
    """The server asks with the same ports later: that shows only where the first connection was allowed, and ended."""
    again = [("S", SERVER, 40001), ("SA", CLIENT, 40000), ("A", SERVER, 40001)]
    ports = {CLIENT: 40000, SERVER: 40001}
    frames = [(1000, frame) for frame in handshake(40000, 40001)]
    frames.append((1000, ethernet(ip(CLIENT, SERVER, tcp(40000, 40001, "R")))))
    for flags, sender, port in again:
        other = CLIENT if sender == SERVER else SERVER
        frames.append((1100, ethernet(ip(sender, other, tcp(port, ports[other], flags)))))
    path = timed(tmp_path, frames)
    policy = parse_policy(NOTHING_ALLOWED)
    assert broken(policy, path).total() == 1
    found = suggest([path], policy=policy, keep=True)
    assert [rule_text(each.rule) for each in found.rules] == [
        f"tcp/40001 from {CLIENT}/32", f"tcp/40000 to {CLIENT}/32",
    ]  # fmt: skip
    assert not broken(found.policy, path)


def test_what_still_breaks_is_not_called_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MOST_REPLAYS", 1)
    found = suggest([PCAPS / "shop.pcap"], policy=PCAPS / "shop.proposed.yaml", keep=True)
    assert not found.check.matches and not found.is_reliable


# The command

UNIT = "must be a time with its unit (d, h, m or s), like 30d or 12h, not "
TODAY = ("suggest", SHOP[1], "--policy", PCAPS / "shop.proposed.yaml")


def test_report_has_the_added_rules_alone(capsys: Capsys) -> None:
    told = command(capsys, *TODAY, "--keep")
    assert told.status == 0 and told.out.startswith("Keeps 10 rules, and adds 11\n")
    assert "allows 12 of 12 connections that the added rules are for" in " ".join(told.out.split())
    assert "short-window" not in told.out and "Left out: 3 connections: refused" in told.out
    answer = valid("suggestion", json.loads(command(capsys, *TODAY, "--keep", "--json").out))
    assert (answer["kept"], len(answer["rules"]), answer["check"]["claimed"]) == (10, 11, 12)
    assert json.loads(command(capsys, *TODAY, "--json").out)["kept"] is None
    assert command(capsys, *TODAY, "--keep", "--format", "markdown").out.startswith("### Keeps 10 rules, and adds 11\n")


def test_policy_that_breaks_nothing_gets_no_rule(capsys: Capsys, tmp_path: Path) -> None:
    kept = tmp_path / "kept.yaml"
    assert command(capsys, *TODAY, "--keep", "-o", kept).status == 0
    told = command(capsys, "suggest", SHOP[1], "--policy", kept, "--keep")
    assert told.status == 0 and told.out.startswith("Keeps 21 rules, and adds none\n")
    assert command(capsys, "replay", kept, SHOP[1], "--fail-on", "would-break").status == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "aws"], "--to with --policy needs --keep, with which the script only adds rules, or --remove DURA"),
        (["--keep", "--remove", "30d"], "--keep takes no rule away, and --remove does: leave one of them out"),
        (["--keep", "--from", "allowed"], "leave out --from"),
        (["--keep", "--per", "instance"], "leave out --per instance"),
        (["--remove", "30"], f"--remove: {UNIT}30"),
        (["--remove", "soon", "--to", "aws"], f"--remove: {UNIT}soon"),
        (["--remove", "0d", "--to", "aws"], f"--remove: {UNIT}0d"),
        (["--remove", "30d", "--from", "all"], "--remove is for the connections that --policy would break"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(capsys: Capsys, options: list[str], said: str) -> None:
    refused = command(capsys, *TODAY, *options)
    assert refused.status == 2 and said in refused.one_line() and refused.out == ""


def test_keep_needs_a_policy(capsys: Capsys) -> None:
    assert "--keep needs --policy" in command(capsys, "suggest", SHOP[1], "--keep").one_line()
    for more in ({}, {"policy": SHOP[0], "per": "instance"}, {"policy": SHOP[0], "allowed_only": False}):
        with pytest.raises(ArgumentError, match="keep and remove need a policy, and go without"):
            suggest([SHOP[1]], keep=True, **more)  # type: ignore[arg-type]


def test_rules_are_only_taken_away_by_captures_of_the_time_that_is_named(capsys: Capsys, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text("as it was")
    wanted = (*TODAY, "--to", "aws", "-o", script)
    refused = command(capsys, *wanted, "--remove", "30d")
    assert refused.status == 1 and script.read_text() == "as it was"
    said, cause = refused.messages()
    assert cause == "sgfast: status 1, because of a suggestion that falls short"
    assert "nothing is written: the captures last 13 s and not 30 d" in said
    assert "--accept-evidence short-window" in said
    for enough in (("--remove", "13s"), ("--remove", "30d", "--accept-evidence", "short-window")):
        script.write_text("as it was")
        done = command(capsys, *wanted, *enough)
        assert done.status == 0 and "takes away 2 rules" in script.read_text()
        assert "Keeps 8 rules, adds 11, and takes away 2 that no packet used" in done.out
    only = command(capsys, *wanted, "--keep")
    assert only.status == 0 and "# for AWS: adds 10 rules.\n" in script.read_text()


def test_only_rules_that_nobody_used_are_taken_away_and_used_ones_stay_as_wide_as_they_were(tmp_path: Path) -> None:
    """A used rule for all addresses is not narrowed to those that were seen, and no deny rule goes."""
    document = """
version: 1
security_groups:
  - name: web
    rules:
      - {id: https, direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0}
      - {id: old, direction: inbound, protocol: tcp, ports: 8080, source: 0.0.0.0/0}
      - {id: never, direction: inbound, protocol: tcp, ports: 23, action: deny, source: 0.0.0.0/0}
      - {id: out, direction: outbound, protocol: all}
instances: [{name: web-1, addresses: [10.0.0.5], security_groups: [web]}]
"""
    capture = write_capture(tmp_path, *handshake(4000, 443, "198.51.100.7", "10.0.0.5"),
                            *handshake(4001, 80, "198.51.100.7", "10.0.0.5"))  # fmt: skip
    found = suggest(capture, policy=parse_policy(document), remove="1s", accept_evidence=["short-window"])
    ids = [rule.id for rule in found.policy.security_groups[0].rules]
    assert ids[:2] == ["https", "never"] and len(ids) == 3 and found.check.matches
    assert [each.rule.id for each in found.removed] == ["old", "out"] and found.kept == 2
    assert found.policy.security_groups[0].rules[0].peer is None


def test_a_hub_whose_spokes_share_addresses_leaves_the_traffic_of_a_spoke_without_a_comparison(tmp_path: Path) -> None:
    """From the hub nobody can tell the spokes apart (SPEC 7.1). The packets of a spoke with a mark never meet that."""
    hosts = [("h", "hub", "10.0.0.1"), ("a", "left", "10.1.0.1"), ("b", "left", "10.1.0.2"), ("c", "right", "10.1.0.1")]
    policy = sgfast.load({
        "version": 1,
        "vpcs": [{"name": "hub"}, {"name": "left", "file": "left*"}, {"name": "right", "file": "right*"}],
        "peerings": [["hub", "left"], ["hub", "right"]],
        "security_groups": [{"name": "g", "rules": [{"direction": "outbound", "protocol": "all"}]}],
        "instances": [
            {"name": name, "vpc": vpc, "addresses": [address], "security_groups": ["g"]} for name, vpc, address in hosts
        ],
    })  # fmt: skip
    capture = write_capture(tmp_path, *handshake(40000, 80, "10.1.0.2", "10.1.0.1"), name="left.pcap")
    found = suggest([capture], policy=policy, keep=True)
    assert [rule_text(each.rule, policy) for each in found.rules] == ["tcp/80 from 10.1.0.2/32"]
    (said,) = [each for each in found.warnings if "cannot be distinguished" in each]
    assert found.difference is None and said.startswith("what the suggested policy opens by the rules alone is not")

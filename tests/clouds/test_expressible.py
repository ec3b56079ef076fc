"""Rules are rewritten only where every packet gets the same verdict (SPEC 13.3), and what else is refused (SPEC 13.1,
13.2).
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from checked_policies import policies, views_exist
from command import PCAPS, sgfast, valid
from effort import some
from exported import exportable
from growth import operations
from hypothesis import given, settings

from sgfast import Policy
from sgfast.base.errors import ExportError
from sgfast.cli.export import export as export_command
from sgfast.clouds.aws.export import TARGET
from sgfast.clouds.aws.export import export as export_to_aws
from sgfast.clouds.exporting import texts
from sgfast.clouds.exporting.delta import policy_delta
from sgfast.clouds.exporting.expressible import Target, expressible
from sgfast.clouds.loading import parse_policy
from sgfast.clouds.providers import TargetName
from sgfast.clouds.terraform.provider import Provider
from sgfast.policy.model import SecurityGroup
from sgfast.policy.profiles import PROFILES
from sgfast.policy.rule_text import rule_text
from sgfast.rules.reaching.difference import difference
from sgfast.version import __version__

Capsys = pytest.CaptureFixture[str]
PLAIN = Target("a cloud", "neutron")


def policy_of(*rules: str, more: str = "") -> Policy:
    """A policy with these rules in the group web, and an instance in it."""
    listed = "\n".join(f"      - {{direction: inbound, {rule}}}" for rule in rules)
    return parse_policy(
        f"""
version: 1
quotas: {{rules_per_group: 1000}}
address_groups: [{{name: some, addresses: [192.0.2.0/25, 192.0.2.192/26, "2001:db8::/32"]}}]
security_groups:
  - name: web
    rules:
{listed or "      []"}
  - {{name: db, rules: [{{direction: inbound, protocol: tcp, ports: 1, source: 10.0.0.0/8, action: deny}}]}}
{more or "instances: [{name: web-1, addresses: [10.0.0.5], security_groups: [web]}]"}
"""
    )


def rules_of(policy: Policy, target: Target = PLAIN) -> list[str]:
    return [rule_text(rule) for rule in expressible(policy, target).group_by_name["web"].rules]


@given(policies())
@settings(max_examples=some(25, 3000), deadline=None)
def test_no_packet_gets_another_verdict(policy: Policy) -> None:
    if views_exist(policy):
        # Only the second target has port 0, and only the first one takes wide addresses for members.
        is_neutron = policy.settings.group_members == "by-address"
        target, profile = (PLAIN, PROFILES["neutron"]) if is_neutron else (Target("a cloud", "aws"), PROFILES["aws"])
        policy = exportable(replace(policy, settings=profile.settings), target)
        rewritten = expressible(policy, target)
        assert all(len(rule.ports or (1,)) == 1 for group in rewritten.security_groups for rule in group.rules)
        change = difference(policy, rewritten)
        assert not change.opened and not change.closed


@pytest.mark.parametrize(
    ("written", "said"),
    [
        # Several ranges, and a list of addresses, of which only IPv4 counts.
        (["protocol: tcp, ports: '1,3-4'"], ["tcp/1 from 0.0.0.0/0", "tcp/3-4 from 0.0.0.0/0"]),
        (["protocol: udp, source: some"], ["udp from 192.0.2.0/25", "udp from 192.0.2.192/26"]),
        (["protocol: tcp, ports: 0-65535", "protocol: tcp, priority: 9"], ["tcp from 0.0.0.0/0"] * 2),
        # The deny rule comes after, is about something else, or denies all or a part of it.
        (["protocol: tcp", "protocol: all, action: deny, priority: 2"], ["tcp from 0.0.0.0/0"]),
        (["protocol: tcp, ports: 1-9", "protocol: tcp, ports: 10, action: deny"], ["tcp/1-9 from 0.0.0.0/0"]),
        (["protocol: tcp, source: 10.0.0.0/8", "protocol: tcp, source: 11.0.0.0/8, action: deny"],
         ["tcp from 10.0.0.0/8"]),
        (["protocol: tcp, source: 10.0.0.0/8", "protocol: all, action: deny"], []),
        (["protocol: tcp, source: db", "protocol: all, source: db, action: deny"], []),
        (["protocol: all, source: 10.0.0.0/30", "protocol: all, source: 10.0.0.0/31, action: deny"],
         ["all from 10.0.0.2/31"]),
        (["protocol: tcp, ports: 1-9, source: 10.0.0.0/30", "protocol: tcp, ports: 3, source: 10.0.0.2, action: deny"],
         ["tcp/1-9 from 10.0.0.3/32", "tcp/1-9 from 10.0.0.0/31", "tcp/1-2 from 10.0.0.2/32",
          "tcp/4-9 from 10.0.0.2/32"]),
        (["protocol: icmp, icmp_type: 8", "protocol: icmp, icmp_type: 9, action: deny"],
         ["icmp type 8 from 0.0.0.0/0"]),
        (["protocol: icmp, icmp_type: 8", "protocol: icmp, action: deny"], []),
        (["protocol: tcp, source: some", "protocol: all, source: 192.0.2.128/25, action: deny"],
         ["tcp from 192.0.2.0/25"]),
    ],
)  # fmt: skip
def test_rules_become_others_that_mean_the_same(written: list[str], said: list[str]) -> None:
    policy = policy_of(*written)
    assert sorted(rules_of(policy)) == sorted(said)
    change = difference(policy, expressible(policy, PLAIN))
    assert not change.opened and not change.closed


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (["protocol: all", "protocol: tcp, action: deny"], "web/inbound/2 denies part of it, and what is left is"),
        (["protocol: icmp", "protocol: icmp, icmp_type: 8, action: deny"], "denies part of it, and what is left"),
        (["protocol: icmp, icmp_type: 8", "protocol: icmp, icmp_type: 8, icmp_code: 1, action: deny"], "what is left"),
        (["protocol: tcp, source: web", "protocol: tcp, source: 10.0.0.5, action: deny"], "only of CIDRs can a part"),
        (["protocol: tcp, source: 10.0.0.0/8", "protocol: tcp, source: web, action: deny"], "only of CIDRs can a part"),
    ],
)
def test_what_is_left_of_a_rule_and_no_rule_can_say_is_an_error(written: list[str], reason: str) -> None:
    with pytest.raises(ExportError) as caught:
        expressible(policy_of(*written), PLAIN)
    (problem,) = caught.value.problems
    assert problem.startswith("<policy>: security group 'web', rule web/inbound/1 (") and reason in problem


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ("[web]", ["tcp/1-9 from 10.0.0.0/8"]),
        ("[web, db]", ["tcp/2-9 from 10.0.0.0/8"]),
    ],
)
def test_a_deny_rule_counts_for_those_who_are_in_its_group(groups: str, said: list[str]) -> None:
    instances = f"instances: [{{name: web-1, addresses: [10.0.0.5], security_groups: {groups}}}"
    policy = policy_of("protocol: tcp, ports: 1-9, source: 10.0.0.0/8", more=instances + "]")
    assert rules_of(policy) == said
    other = "{name: w, addresses: [10.0.0.6], security_groups: [web]}"
    both = policy_of("protocol: tcp, ports: 1-9, source: 10.0.0.0/8", more=f"{instances}, {other}]")
    if "db" in groups:
        with pytest.raises(ExportError, match="db/inbound/1 denies part of it, but only for those instances that"):
            expressible(both, PLAIN)
    else:
        assert rules_of(both) == said


BOTH = "instances: [{name: w, addresses: [10.0.0.4/30, '2001:db8::5'], security_groups: [web]}"


def test_a_rule_with_a_group_is_for_both_ip_versions_in_aws() -> None:
    rules = ["protocol: tcp, source: web", "protocol: icmp, source: web"]
    other = "ethertype: IPv6, protocol: tcp, source: web"
    for policy in (policy_of(*rules), policy_of(*rules, other, more=f"{BOTH}]")):
        assert sorted(rules_of(policy, TARGET)) == [
            "icmp from group web, IPv4", "tcp from group web, IPv4", "tcp from group web, IPv6"
        ]  # fmt: skip
        assert expressible(policy, TARGET).warnings == ()


def test_a_rule_for_one_ip_version_names_the_members_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    # An address in the member's prefix is another instance's, and so is in no group of the member's.
    more = f"{BOTH}, {{name: d, addresses: [10.0.0.5], security_groups: [db]}}]"
    policy = policy_of("protocol: tcp, source: web", "protocol: icmp, source: web", more=more)
    said = ["icmp from group web, IPv4", "tcp from 10.0.0.4/32", "tcp from 10.0.0.6/31"]
    assert sorted(rules_of(policy, TARGET)) == said
    written = expressible(policy, TARGET)
    change = difference(policy, written)
    assert not change.opened and not change.closed
    assert written.warnings[1].startswith("So rules for one of them name the addresses of the members of web. Export")
    assert written.warnings[1] in export_to_aws(None, policy).script("0", "")
    # The number of rules that one rule becomes, ports times CIDRs, is bounded.
    policy = policy_of("protocol: tcp, ports: '1,3', source: web", more=more)
    monkeypatch.setattr("sgfast.clouds.exporting.expressible._MOST_PARTS", 4)
    assert len(rules_of(policy, TARGET)) == 4
    monkeypatch.setattr("sgfast.clouds.exporting.expressible._MOST_PARTS", 3)
    error = r"rule web/inbound/1 \(tcp/1,3 from group web, IPv4\): .* it becomes more than 3 rules; add the same rule"
    with pytest.raises(ExportError, match=error):
        expressible(policy, TARGET)


def test_owners_are_computed_once_for_all_vpcs() -> None:
    def work(count: int) -> int:
        vpcs = ", ".join(f"{{name: v{n}}}" for n in range(count))
        groups = ", ".join(
            f"{{name: g{n}, rules: [{{direction: inbound, protocol: tcp, source: g{n}}}]}}" for n in range(count)
        )
        instances = ", ".join(
            f"{{name: i{n}, vpc: v{n}, addresses: [10.0.{n}.1, 'fd00::{n:x}'], security_groups: [g{n}]}}"
            for n in range(count)
        )
        head = f"version: 1\nquotas: {{security_groups: 999}}\nvpcs: [{vpcs}]"
        policy = parse_policy(f"{head}\nsecurity_groups: [{groups}]\ninstances: [{instances}]")
        return operations(lambda: expressible(policy, TARGET))

    assert work(160) < 2.5 * work(80)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("{profile: neutron}", "settings.profile: AWS does not have neutron; leave it out, or write aws"),
        ("{on_change: cut-unmatched}", "settings.on_change: AWS does not have cut-unmatched; leave it out"),
        ("{infrastructure: filtered}", "settings.infrastructure: AWS does not have filtered"),
        ("{timeouts: {icmp: 7}}", "settings.timeouts.icmp: AWS does not have 7; leave it out, or write 30"),
        ("{profile: aws}", ""),
        # The effect of all settings together counts, not how they are written.
        ("{profile: neutron, on_change: keep, infrastructure: exempt, group_members: by-owner, "
         "timeouts: {tcp_fin_wait: 30, tcp_other: 30, bidirectional: 180}}", ""),
        ("{profile: aws, on_change: cut-inbound}", "settings.on_change: AWS does not have cut-inbound; leave it out"),
        # These are timeouts of Nitro v6 (SPEC 6.8).
        ("{profile: aws, timeouts: {tcp_established: 350}}", ""),
        ("{profile: aws, timeouts: {tcp_other: 350}}", "settings.timeouts.tcp_other: AWS does not have 350; leave it"),
        ("{profile: aws, timeouts: {tcp_established: 600}}", "settings.timeouts.tcp_established: AWS does not have"),
        ("{max_connections: 5}", ""),
    ],
)
def test_a_setting_that_is_not_the_clouds_is_an_error(setting: str, error: str) -> None:
    policy = parse_policy(f"version: 1\nsettings: {setting}")
    if not error:
        expressible(policy, TARGET)
        return
    with pytest.raises(ExportError) as caught:
        expressible(policy, TARGET)
    assert any(problem.startswith(f"<policy>: {error}") for problem in caught.value.problems)


def test_what_one_rule_becomes_is_bounded() -> None:
    many = [f"protocol: all, source: '2001:db8:{n:x}000::1', action: deny" for n in range(1, 12)]
    with pytest.raises(ExportError, match=r"rule web/inbound/12 .*: without what .* it becomes more than 1,000 rules"):
        expressible(policy_of(*many, "ethertype: IPv6, protocol: tcp"), PLAIN)
    assert len(rules_of(policy_of(*many[:5], "ethertype: IPv6, protocol: tcp"))) > 400


def test_what_a_policy_becomes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    deny = "protocol: tcp, ports: '2,4', source: 192.0.2.0/24, action: deny"
    policy = policy_of("protocol: tcp, ports: '1,3,5'", deny)
    for bound, beyond, error in (
        ("_MOST_RULES", 2, "a cloud would need more than 2 rules; export fewer groups"),
        ("_MOST_COMPARISONS", 2, "takes more than 2 comparisons with deny rules"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"sgfast.clouds.exporting.expressible.{bound}", beyond)
            with pytest.raises(ExportError, match=error):
                expressible(policy, PLAIN)
            patch.setattr(f"sgfast.clouds.exporting.expressible.{bound}", beyond + 10)
            expressible(policy, PLAIN)


@pytest.mark.parametrize(("target", "peer"), [(TARGET, "many"), (PLAIN, "listed")])
def test_rules_beyond_what_one_may_become_are_not_made(target: Target, peer: str) -> None:
    """300 ranges of ports times 300 CIDRs."""
    addresses = ", ".join(f"10.0.{n // 128}.{n % 128 * 2}" for n in range(300))
    ports = ",".join(str(2 * n) for n in range(1, 301))
    policy = parse_policy(
        f"""
version: 1
address_groups: [{{name: listed, addresses: [{addresses}]}}]
security_groups: [{{name: many, rules: [{{direction: inbound, protocol: tcp, ports: '{ports}', source: {peer}}}]}}]
instances: [{{name: i, addresses: [{addresses}, '2001:db8::5'], security_groups: [many]}}]
"""
    )

    def refused() -> None:
        with pytest.raises(ExportError, match="more than 1,000 rules"):
            expressible(policy, target)

    assert operations(refused) < 150_000


def test_additions_come_before_what_is_taken_and_groups_are_known_by_their_ids() -> None:
    old = policy_of("protocol: tcp, ports: 1", "protocol: tcp, ports: 2")
    new = policy_of("protocol: tcp, ports: 2, id: other, description: the same", "protocol: tcp, ports: 3")
    instance = new.instances[0]
    found = policy_delta(old, replace(new, instances=(replace(instance, security_groups=("db",)),)))
    assert [rule_text(each.rule) for each in found.rules] == ["tcp/3 from 0.0.0.0/0"]
    assert [rule_text(each.rule) for each in found.rules_taken] == ["tcp/1 from 0.0.0.0/0"]
    assert [each.groups for each in found.memberships] == [("web", "db")]
    assert [each.groups for each in found.memberships_taken] == [("db",)]
    web, db = old.security_groups
    renamed = replace(new, security_groups=(replace(web, name="front", id="7"), db), instances=())
    found = policy_delta(replace(old, security_groups=(replace(web, id="7"), db), instances=()), renamed)
    assert not (found.groups or found.groups_deleted or found.rules or found.rules_taken)


def test_the_group_that_no_cloud_deletes_stays() -> None:
    rules = "[{direction: inbound, protocol: tcp, source: g}, {direction: inbound, protocol: tcp, source: h}]"
    groups = f"{{name: default, rules: {rules}}}, {{name: sg-1, label: default}}, {{name: g}}, {{name: h}}"
    old = parse_policy(f"version: 1\nsecurity_groups: [{groups}]")
    new = parse_policy("version: 1\nsecurity_groups: [{name: h}]")
    found = policy_delta(old, new)
    assert [group.name for group in found.groups_deleted] == ["g"]
    # Its rule would keep AWS from deleting the other group.
    assert [(each.group, rule_text(each.rule)) for each in found.rules_taken] == [("default", "tcp from group g, IPv4")]
    assert "Delete the security group g" in [call.about for call in export_to_aws(old, new).calls]


@pytest.mark.parametrize(
    ("old", "error"),
    [
        ("vpcs: [{name: default}, {name: w}]\npeerings: [[default, w]]", "the peering of 'default' and 'w': is in one"),
        ("vpcs: [{name: default, region: north}]", "VPC 'default': is in another region in the old policy"),
        ("instances: [{name: i, addresses: [10.0.0.9], security_groups: [g]}]", "instance 'i': has another VPC"),
        ("security_groups: [{name: g, stateful: false}]", "security group 'g': is stateful in one policy only"),
        ("security_groups: [{name: g, id: x}]", "security group 'g': has the id x in the old policy, and y in"),
    ],
)
def test_what_is_no_group_rule_or_membership_is_not_changed(old: str, error: str) -> None:
    groups = "" if "security_groups: [{" in old else "\nsecurity_groups: [{name: g, id: y}]"
    instances = "instances: [{name: i, addresses: [10.0.0.5], security_groups: [g]}]"
    new = f"version: 1\nsecurity_groups: [{{name: g, id: y}}]\n{instances}"
    with pytest.raises(ExportError, match=error):
        policy_delta(parse_policy(f"version: 1\n{old}{groups}"), parse_policy(new))


# The command


def test_all_rules_that_a_cloud_cannot_have_are_named_at_once(capsys: Capsys, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    rules = "\n".join(f"  - {{direction: inbound, protocol: sctp, ports: {n}}}" for n in range(1, 24))
    policy.write_text(f"version: 1\nsecurity_groups:\n- name: g\n  rules:\n{rules}\n")
    done = sgfast(capsys, "export", policy, "--to", "aws", "-o", tmp_path / "out")
    assert done.status == 2 and done.out == "" and not (tmp_path / "out").exists()
    lines = done.err.splitlines()
    assert len(lines) == 21 and lines[-1] == "sgfast: and 3 more that aws cannot have"
    assert lines[0] == (
        f"sgfast: {policy}: security group 'g', rule g/inbound/1 (sctp/1 from 0.0.0.0/0): "
        "AWS has no ports for this protocol"
    )


def test_calls_keep_to_their_schema_and_say_where_they_come_from(capsys: Capsys, tmp_path: Path) -> None:
    for name, port in (("old", 1), ("new", 2)):
        (tmp_path / name).write_text(
            f"version: 1\nsecurity_groups: [{{name: g, rules: [{{direction: inbound, protocol: tcp, ports: {port}}}]}}]"
        )
    files = [tmp_path / "new", "--since", tmp_path / "old"]
    document = json.loads(sgfast(capsys, "export", *files, "--to", "aws", "--format", "json").out)
    valid("export", document)
    assert document["about"].endswith(f"/new, since {tmp_path}/old for AWS: adds 1 rule, takes away 1 rule.")
    script = sgfast(capsys, "export", *files, "--to", "aws").out
    assert script.startswith(f"#!/bin/sh\n# Made by sgfast {__version__}") and f"/new, since {tmp_path}/old\n" in script
    assert sgfast(capsys, "export", "-", "--since", "-", "--to", "aws").status == 2


def test_a_name_with_line_breaks_does_not_leave_the_comments_of_a_script() -> None:
    evil = "x\ntouch made\n#"
    policy = Policy(security_groups=(SecurityGroup(evil),), settings=PROFILES["neutron"].settings)
    script = texts.cloud_text(None, policy, "openstack", "script", None)
    assert "\n# Make the security group x touch made #\n" in script
    assert shlex.split(script[script.index("make_group '") :].split("\n\n")[0])[1] == evil


def test_diff_exports_what_it_finds_with_the_options_of_export(capsys: Capsys) -> None:
    files = [PCAPS / "shop.yaml", PCAPS / "shop.proposed.yaml"]
    for options in (["terraform"], ["terraform", "--provider", "openstack"], ["aws", "--to-format", "json"]):
        words = [option.replace("--to-format", "--format") for option in options]
        exported = sgfast(capsys, "export", files[1], "--since", files[0], "--to", *words).out
        done = sgfast(capsys, "diff", *files, "--to", *options)
        assert done.status == 0 and done.out == exported != "" and done.err.startswith("By the rules alone: 1 row open")
    for wrong, said in (
        (["--to", "terraform", "--report", "-"], "--to and --report cannot both write to standard output"),
        (["--to", "nftables", "--instance", "web-1", "--instance", "db-1"], "diff takes one --instance;"),
        (["--instance", "web-1"], "--provider, --instance and --interface are for --to TARGET"),
    ):
        refused = sgfast(capsys, "diff", *files, *wrong)
        assert refused.status == 2 and said in refused.one_line()
    assert "where -o is" not in " ".join(sgfast(capsys, "diff", "--help").out.split())


def test_suggest_exports_what_it_finds_with_the_options_of_export(capsys: Capsys, tmp_path: Path) -> None:
    suggested = sgfast(capsys, "suggest", PCAPS / "shop.pcap", "--to", "aws")
    assert suggested.out.startswith("#!/bin/sh\n# Not certain: the captures last 13 s")
    assert f"\n# Made by sgfast {__version__}" in suggested.out
    assert " the suggested policy\n" in suggested.out
    assert "19 rules in 3 groups for 4 instances" in suggested.err
    # The policy that the suggestion starts from is in the cloud already, which gave its rules their ids.
    words = ["suggest", PCAPS / "shop.pcap", "--to"]
    since = sgfast(capsys, *words, "openstack", "--policy", PCAPS / "shop.yaml", "--remove", "5s")
    assert since.status == 2 and "can be taken away only by its id" in since.err and since.out == ""
    words += ["nftables", "--instance", "host-10.0.0.5"]
    assert "hook input" in sgfast(capsys, *words).out
    assert sgfast(capsys, *words, "--instance", "host-10.0.1.9", "-o", tmp_path).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host-10.0.0.5.nft", "host-10.0.1.9.nft"]


def test_the_command_has_the_targets_and_the_providers_of_the_library() -> None:
    choices = {option.name: getattr(option.type, "choices", ()) for option in export_command.params}
    assert (choices["target"], choices["provider"]) == (get_args(TargetName), get_args(Provider))


def test_a_policy_of_a_hundred_groups_is_exported_in_few_calls() -> None:
    rules = ", ".join(f"{{direction: inbound, protocol: tcp, ports: {n}}}" for n in range(1, 51))
    groups = "\n".join(f"  - {{name: g{n}, rules: [{rules}]}}" for n in range(100))
    exported = export_to_aws(None, parse_policy(f"version: 1\nsecurity_groups:\n{groups}\n"))
    calls = exported.document("0")["calls"]
    assert len(calls) == 400


def test_the_undo_is_the_way_back(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 13.1. It lies beside a regular file. Elsewhere, the script says how to make it."""
    for name, port in (("old", 1), ("new", 2)):
        (tmp_path / name).write_text(
            f"version: 1\nsecurity_groups: [{{name: g, rules: [{{direction: inbound, protocol: tcp, ports: {port}}}]}}]"
        )
    there = tmp_path / "new", "--since", tmp_path / "old"
    back = sgfast(capsys, "export", tmp_path / "old", "--since", tmp_path / "new", "--to", "aws").out
    assert sgfast(capsys, "export", *there, "--to", "aws", "-o", tmp_path / "apply.sh").status == 0
    said = "# To take this back, import the account"
    undo = (tmp_path / "apply.undo.sh").read_text()
    assert undo.splitlines() == [line for line in back.splitlines() if not line.startswith(said)]
    assert said not in (tmp_path / "apply.sh").read_text()
    assert sgfast(capsys, "export", *there, "--to", "aws").out.count(said) == 1
    assert sgfast(capsys, "export", *there, "--to", "aws", "-o", "/dev/null").status == 0
    assert not Path("/dev/null.undo").exists()
    for target in ("terraform", "aws"):
        made = sgfast(capsys, "export", tmp_path / "new", "--to", target, "-o", tmp_path / f"{target}.txt")
        assert made.status == 0 and "take this back" not in (tmp_path / f"{target}.txt").read_text()
    assert not [*tmp_path.glob("*.undo.t*")]


def test_what_cannot_lie_beside_its_undo_says_how_to_make_it(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 13.1. Terraform would load a second file of the directory, and nft loads the filter of OLD whole."""
    for name, port in (("old", 1), ("new", 2)):
        (tmp_path / name).write_text(
            "version: 1\n"
            f"security_groups: [{{name: g, rules: [{{direction: inbound, protocol: tcp, ports: {port}}}]}}]\n"
            "instances: [{name: i, addresses: [10.0.0.1], security_groups: [g]}]\n"
        )
    old, new = tmp_path / "old", tmp_path / "new"
    there = new, "--since", old
    terraform = sgfast(capsys, "export", *there, "--to", "terraform", "--provider", "openstack").out
    assert (
        "# To take this back, import the account as now.yaml, and apply what this prints like this file: "
        f"sgfast export {old} --since now.yaml --to terraform --provider openstack\n" in terraform
    )
    said = "# To take this back, load what this prints: "
    for devices in (("--instance", "i"), ("--interface", "i=tap0")):
        filtering = ("--to", "nftables", *devices)
        for text in (
            sgfast(capsys, "export", *there, *filtering).out,
            sgfast(capsys, "diff", old, new, *filtering).out,
        ):
            (line,) = (line for line in text.splitlines() if line.startswith(said))
            assert line == f"{said}sgfast export {old} {' '.join(filtering)}"
        way_back = sgfast(capsys, *line.removeprefix(f"{said}sgfast ").split()).out
        assert way_back == sgfast(capsys, "export", old, *filtering).out and "flush" not in way_back
        assert said not in sgfast(capsys, "export", new, *filtering).out
    diffed = sgfast(capsys, "diff", old, new, "--to", "aws", "--to-format", "json").out
    assert json.loads(diffed)["calls"]


def test_the_way_back_of_a_host_leaves_out_machines_that_are_new(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 13.1: OLD has no filter for them, so a command that names them is an error."""
    text = (
        "version: 1\nsecurity_groups: [{name: g}]\ninstances:\n"
        "  - {name: i, addresses: [10.0.0.1], security_groups: [g]}\n"
    )
    (tmp_path / "old").write_text(text)
    (tmp_path / "new").write_text(text + "  - {name: later, addresses: [10.0.0.2], security_groups: [g]}\n")
    host = ("--to", "nftables", "--interface", "i=tap0", "--interface", "later=tap1")
    made = sgfast(capsys, "export", tmp_path / "new", "--since", tmp_path / "old", *host)
    (line,) = (line for line in made.out.splitlines() if "To take this back" in line)
    assert line.endswith("--to nftables --interface i=tap0")
    assert sgfast(capsys, *line.partition("sgfast ")[2].split()).status == 0

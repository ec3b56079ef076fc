"""References that no file of an export holds (SPEC 2.13)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import sgfast
from neutron import WEB_1, group, groups, ports, rule, tcp
from terraform import plan, resource, state

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.clouds.aws import live as live_aws
from sgfast.clouds.importing.reading import Imported, import_sources
from sgfast.clouds.importing.sources import Account, Source
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.engine import Engine
from sgfast.policy.model import Policy

Capsys = pytest.CaptureFixture[str]
#: Rules whose peers are a group of another account and a list of the cloud's own, and a rule of a group that is gone.
EXPORT = {
    **groups(
        group(
            "sg-web", "web", rule("sg-web", **tcp(80), remote_group_id="sg-elb"),
            rule("sg-web", **tcp(443), remote_address_group_id="ag-mirror"), rule("sg-web", **tcp(22)),
        )
    ),
    **ports(WEB_1),
}  # fmt: skip
GONE = {"security_group_rules": [rule("sg-gone", **tcp(25))]}


def import_(*documents: Any, unresolved: Any = "error") -> Imported:
    sources = [Source(f"{n}.json", document) for n, document in enumerate(documents)]
    return import_sources(sources, unresolved=unresolved)


def reason(policy: Policy, source: str, port: int) -> str | None:
    return Engine(policy).check(source, "10.0.0.5", "tcp", dport=port).reason


def test_one_error_lists_all_of_them_and_what_to_do() -> None:
    with pytest.raises(PolicyError) as caught:
        import_(EXPORT, GONE)
    for said in ("'sg-elb' (see 0.json", "address group 'ag-mirror'", "'sg-gone' (see 1.json", "--unresolved empty"):
        assert said in str(caught.value)
    assert str(caught.value).isprintable() and "prefix list" not in str(caught.value)


def test_nobody_is_in_what_is_taken_for_empty_and_nothing_else_is_lost() -> None:
    export = import_(EXPORT, GONE, unresolved="empty")
    policy = export.policy()
    assert {each.name: len(each.rules) for each in policy.security_groups} == {"web": 3, "sg-elb": 0, "sg-gone": 1}
    (warning,) = (each for each in policy.warnings if "In none of the files" in each)
    assert all(name in warning for name in ("sg-elb", "ag-mirror", "sg-gone"))
    assert [reason(policy, "198.51.100.7", port) for port in (80, 443, 22)] == ["no-rule", "no-rule", "rule"]


def test_a_file_may_say_which_addresses_they_are() -> None:
    known = {"addresses": {"sg-elb": ["10.9.0.0/24", "2001:db8:9::/64"], "ag-mirror": "192.0.2.1-192.0.2.2"}}
    export = import_(EXPORT, known)
    policy = export.policy()
    found = [reason(policy, source, port) for source in ("10.9.0.7", "192.0.2.2", "192.0.2.3") for port in (80, 443)]
    assert found == ["rule", "no-rule", "no-rule", "rule", "no-rule", "no-rule"]
    with pytest.raises(PolicyError, match=r"'sg-gone' \(see 1\.json"):
        import_(EXPORT, GONE, known)


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        ({"sg-web": ["10.0.0.0/8"]}, "2.json: addresses sg-web: the export says itself what this is"),
        ({"sg-elb": [1]}, "2.json: addresses sg-elb: must be a list of addresses"),
        ({"sg-elb": ["10.0.0.0/40"]}, "'10.0.0.0/40': "),
    ],
)
def test_what_a_file_of_addresses_cannot_say(addresses: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError, match=said.replace(".", r"\.")):
        import_(EXPORT, GONE, {"addresses": addresses})


def test_a_file_of_addresses_that_nothing_refers_to_is_told() -> None:
    known = {"addresses": {"sg-elb": "10.9.0.0/24", "ag-mirror": "10.9.0.0/24", "sg-elv": "10.9.0.0/24"}}
    assert "Nothing in the export refers to what a file with addresses names: addresses sg-elv." in import_(
        EXPORT, known
    ).policy().warnings


def test_every_command_with_a_policy_takes_both_options(capsys: Capsys, tmp_path: Path) -> None:
    export = tmp_path / "export.json"
    export.write_text(json.dumps(EXPORT))
    question = ["--from", "198.51.100.7", "--to", "10.0.0.5", "--protocol", "tcp", "--port", "22"]
    explained = ["explain", export, *question, "--json"]
    assert "--unresolved empty" in sgfast(capsys, *explained).one_line()
    options = ["--unresolved", "empty", "--policy-format", "neutron"]
    assert json.loads(sgfast(capsys, *explained, *options).out)["verdict"] == "allow"
    assert sgfast(capsys, "check", export, *options).status == 0
    assert sgfast(capsys, "import", "auto", export, "--unresolved", "empty").status == 0
    assert "state file" in sgfast(capsys, "check", export, "--policy-format", "terraform").one_line()
    for command in ("replay", "diff", "suggest"):
        assert all(option in sgfast(capsys, command, "--help").out for option in ("--unresolved", "--policy-format"))


def test_the_loader_of_the_library_takes_both_too(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(EXPORT))
    with pytest.raises(PolicyError, match="--unresolved empty"):
        load_policy(path, format="neutron")
    assert len(load_policy(path, unresolved="empty").security_groups) == 2
    for wrong, hint in (("emtpy", r" \(did you mean 'empty'\?\)"), ("ignore", ""), (None, "")):
        with pytest.raises(ArgumentError, match=rf"^unresolved must be 'error' or 'empty', not {wrong!r}{hint}$"):
            load_policy(path, unresolved=wrong)     # type: ignore[arg-type]


def test_a_list_of_a_template_that_no_file_holds_may_have_addresses_of_both_versions() -> None:
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "SourcePrefixListId": "pl-63a5400a"}
    groups = {"Web": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"SecurityGroupIngress": [rule]}}}
    template = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": groups}
    known = {"addresses": {"pl-63a5400a": ["52.218.0.0/17", "2a05:d07a:a000::/40"]}}
    (made,) = import_(template, known).policy().security_groups
    assert sorted(rule.ethertype for rule in made.rules if rule.direction == "inbound") == [4, 6]


S3 = "pl-63a5400a"
#: An output of COMMAND, with an address range of each IP version.
ENTRIES = {"Entries": [{"Cidr": "52.218.0.0/17"}, {"Cidr": "2a05:d07a:a000::/40", "Description": "IPv6"}]}
COMMAND = f"aws ec2 get-managed-prefix-list-entries --prefix-list-id {S3}"


def to_s3(form: str) -> Any:
    """Return a document with a group that may send to a list of AWS."""
    if form == "aws":
        sends = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "PrefixListIds": [{"PrefixListId": S3}]}
        return {"SecurityGroups": [{"GroupId": "sg-1", "GroupName": "web", "IpPermissionsEgress": [sends]}]}
    if form == "cloudformation":
        sends = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "DestinationPrefixListId": S3}
        group = {"Type": "AWS::EC2::SecurityGroup", "Properties": {"SecurityGroupEgress": [sends]}}
        return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Web": group}}
    sends = {"from_port": 443, "to_port": 443, "protocol": "tcp", "prefix_list_ids": [S3]}
    group = resource("aws_security_group.web", id="sg-1", name="web", ingress=[], egress=[sends])
    return plan([], [group]) if form == "plan" else state(group)


@pytest.mark.parametrize("form", ["aws", "cloudformation", "plan", "state"])
def test_what_lacks_the_entries_of_a_prefix_list_names_the_command_whose_output_mends_it(
    form: str, capsys: Capsys, tmp_path: Path
) -> None:
    export, entries = tmp_path / "export.json", tmp_path / f"{S3}.json"
    export.write_text(json.dumps(to_s3(form)))
    assert f"add the files that hold it (the entries of a prefix list: {COMMAND} > {S3}.json)" in sgfast(
        capsys, "import", "auto", export
    ).one_line()
    warned = sgfast(capsys, "import", "auto", export, "--unresolved", "empty").err
    assert f"{COMMAND} > {S3}.json): prefix list {S3}." in " ".join(warned.split())
    entries.write_text(json.dumps(ENTRIES))
    for files in ([export, entries], [entries, export], [tmp_path]):
        made = sgfast(capsys, "import", "auto", *files)
        assert made.status == 0, made.err
        policy = parse_policy(made.out, "p.yaml")
        assert [str(each) for each in policy.address_groups[0].addresses] == ["52.218.0.0/17", "2a05:d07a:a000::/40"]
        assert policy.address_groups[0].name == S3 and "Passed over" not in made.err
        assert sorted(rule.ethertype for rule in policy.security_groups[0].rules) == [4, 6]


def test_where_no_file_can_be_added_the_entries_of_a_prefix_list_are_for_the_command_line(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(to_s3("plan")))
    account = Account("AWS (eu-central-1)", [Source("describe-security-groups (eu-central-1)", to_s3("aws"))])
    monkeypatch.setattr(live_aws, "read_account", lambda *_: account)
    told = f": say its addresses with --unresolved GROUP=ADDRESSES (the entries of a prefix list: {COMMAND})"
    for command in (("diff", "--plan", path), ("import", "aws", "--live")):
        assert told in sgfast(capsys, *command).one_line()
    assert sgfast(capsys, "diff", "--plan", path, "--unresolved", f"{S3}=52.218.0.0/17").status == 0


def test_entries_of_prefix_lists_that_contradict_or_end_early_are_errors() -> None:
    known = Source(f"{S3}.json", ENTRIES)
    for other, said in (
        (Source(f"{S3}-b.json", ENTRIES), f"prefix list {S3}: is also in {S3}.json"),
        (Source("0.json", {"addresses": {S3: ["192.0.2.1"]}}), f"is also in {S3}.json"),
        (Source("pl-0123456789.json", ENTRIES | {"NextToken": "x"}), "the list is incomplete"),
        (Source("entries.json", ENTRIES), "has another format than the files before it"),
        (Source("sg.json", EXPORT), "has another format than the files before it"),
    ):
        with pytest.raises(PolicyError, match=re.escape(said)):
            import_sources([Source("plan.json", to_s3("plan")), known, other])


def test_a_group_with_members_here_has_its_members_and_no_other_addresses() -> None:
    inside = {**groups(group("sg-web", "web", rule("sg-web", **tcp(80), remote_group_id="sg-elb"))), **ports(
        WEB_1, WEB_1 | {"id": "p9", "security_groups": ["sg-elb"], "fixed_ips": [{"ip_address": "10.0.0.9"}]},
    )}  # fmt: skip
    with pytest.raises(PolicyError, match="has an instance of the export as a member, port"):
        import_(inside, {"addresses": {"sg-elb": ["192.0.2.1"]}})
    sends = {"security_group_rules": [rule("sg-elb", "egress")]}
    policy = import_(inside, sends, unresolved="empty").policy()
    assert [reason(policy, source, 80) for source in ("10.0.0.9", "192.0.2.1")] == ["rule", "no-rule"]

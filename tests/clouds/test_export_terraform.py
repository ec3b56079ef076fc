"""Configurations for Terraform say what the policy says, in attributes that the providers have (SPEC 13.7)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import sgfast
from effort import some
from exported import GROUPS, assert_same, exportable, kept, random_policy, renamed, seeds
from terraform import Resource, resource, state

from sgfast import Policy
from sgfast.base.errors import ExportError
from sgfast.clouds.exporting.expressible import Target
from sgfast.clouds.importing.reading import import_sources
from sgfast.clouds.importing.sources import Source
from sgfast.clouds.loading import parse_policy
from sgfast.clouds.openstack import export as openstack
from sgfast.clouds.otc.export import OTC_V3
from sgfast.clouds.terraform import export as terraform
from sgfast.clouds.terraform.provider import Provider
from sgfast.policy.model import SecurityGroup
from sgfast.policy.profiles import PROFILES

hcl2 = pytest.importorskip("hcl2")

Blocks = dict[str, dict[str, Any]]

SCHEMAS = json.loads((Path(__file__).parent / "terraform_schemas.json").read_text())
#: Providers without types of ICMP, so that policies have rules for all types only.
TARGETS: dict[Provider, Target] = {
    "aws": terraform.aws.TARGET, "openstack": openstack.OPENSTACK, "opentelekomcloud": OTC_V3,
}  # fmt: skip


class Configuration:
    """The blocks of a file, by address. Every attribute is one of the schema."""

    def __init__(self, text: str) -> None:
        parsed = hcl2.loads(text)
        self.resources = {f"{kind}.{name}": body for kind, name, body in _named(parsed, "resource")}
        self.data = {f"data.{kind}.{name}": body for kind, name, body in _named(parsed, "data")}
        assert len(self.resources) == len(parsed.get("resource", ())), "two blocks have one name"
        for section, blocks in (("resource", self.resources), ("data", self.data)):
            for address, body in blocks.items():
                kind = address.removeprefix("data.").partition(".")[0]
                assert set(body) - {"lifecycle"} <= set(SCHEMAS[section][kind]), address
        self.imports = {_value(each["to"]): _value(each["id"]) for each in parsed.get("import", ())}
        self.removed = [_value(each["from"]) for each in parsed.get("removed", ())]
        assert len(set(self.removed)) == len(self.removed)

    def applied_to(self, before: Configuration) -> Configuration:
        """Replace blocks as the comments tell users to: the new ones take the place of those of the same name."""
        made = Configuration("")
        assert set(self.removed) <= set(before.resources) and not set(self.removed) & set(self.resources)
        kept = {address: body for address, body in before.resources.items() if address not in self.removed}
        made.resources, made.data = kept | self.resources, before.data | self.data
        return made

    def policy(self, policy: Policy) -> Policy:
        """Import the configuration, with network interfaces where the instances of ``policy`` are."""
        made: list[Resource] = []
        for address, body in self.resources.items():
            made.append(resource(address, **self._resolved(body), id=f"id of {address}"))
        for instance in policy.instances:
            addresses = [str(each.network_address) for each in instance.addresses]
            name = instance.name
            if any(address.startswith("aws_") for address in self.resources):
                made.append(
                    resource(
                        f"aws_network_interface.{name}", id=f"id of data.aws_network_interface.{name}",
                        private_ips=addresses[:1], ipv6_addresses=addresses[1:], security_groups=[], tags={},
                    )
                )  # fmt: skip
            for kind in ("openstack_networking_port_v2", "opentelekomcloud_networking_port_v2"):
                if (asked := self.data.get(f"data.{kind}.{name}")) is not None:
                    assert _value(asked["fixed_ip"]) in addresses
                    made.append(
                        resource(
                            f"data.{kind}.{name}", data=True, id=f"id of data.{kind}.{name}", name=name,
                            all_fixed_ips=addresses, all_security_group_ids=[],
                        )
                    )  # fmt: skip
        return import_sources([Source("state.json", state(*made))], "terraform").policy()

    def _resolved(self, body: dict[str, Any]) -> dict[str, Any]:
        return {name: self._reference(_value(value)) for name, value in body.items() if name != "lifecycle"}

    def _reference(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._reference(each) for each in value]
        if isinstance(value, Reference) and value.startswith("var."):
            return "default"
        if isinstance(value, Reference):
            address = value.removesuffix(".id")
            assert address in self.resources or address in self.data, value
            return f"id of {address}"
        return value


class Reference(str):
    pass


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, str) and value.startswith('"'):
        return json.loads(value).replace("$${", "${").replace("%%{", "%{")
    return Reference(value[2:-1]) if isinstance(value, str) else value


def _named(parsed: dict[str, Any], section: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for each in parsed.get(section, ()):
        ((kind, names),) = each.items()
        ((name, body),) = names.items()
        yield kind.strip('"'), name.strip('"'), {key: value for key, value in body.items() if key != "__is_block__"}


def without_icmp_types(policy: Policy) -> Policy:
    groups = [
        replace(group, rules=tuple(rule for rule in group.rules if rule.icmp_type is None))
        for group in policy.security_groups
    ]
    return replace(policy, security_groups=tuple(groups))


@pytest.mark.parametrize("provider", TARGETS)
def test_random_policies_and_their_changes_are_in_the_configuration(provider: Provider) -> None:
    target = TARGETS[provider]
    for pick in seeds(some(4, 200), 2191):
        first, second = (random_policy(pick) for _ in range(2))
        second = renamed(replace(second, instances=first.instances), dict(zip(GROUPS, "abd", strict=True)))
        if provider != "aws":
            first, second = without_icmp_types(first), without_icmp_types(second)
        first, second = exportable(first, target), exportable(second, target)
        before = Configuration(terraform.export(None, first, provider, "0"))
        assert_same(first, before.policy(first), target)
        after = Configuration(terraform.export(first, second, provider, "0")).applied_to(before)
        assert_same(second, after.policy(second), target)
        assert after.resources == Configuration(terraform.export(None, second, provider, "0")).resources
        unchanged = Configuration(terraform.export(second, second, provider, "0"))
        assert not (unchanged.resources or unchanged.removed)


@pytest.mark.parametrize("provider", TARGETS)
def test_kept_policy_only_adds_to_the_configuration(provider: Provider, tmp_path: Path) -> None:
    target, added = TARGETS[provider], 0
    for pick in seeds(some(6, 200), 2192):
        today = random_policy(pick)
        today = exportable(today if provider == "aws" else without_icmp_types(today), target)
        new = kept(today, tmp_path, pick, target)
        if provider != "aws":
            new = without_icmp_types(new)
        before = Configuration(terraform.export(None, today, provider, "0"))
        change = Configuration(terraform.export(today, new, provider, "0"))
        after = change.applied_to(before)
        assert not change.removed and before.resources.items() <= after.resources.items()
        assert_same(new, after.policy(new), target)
        added += len(change.resources)
    assert added > 10


IMPORTED = """
version: 1
settings: {{profile: {profile}}}
vpcs: [{{name: default, id: vpc-0123456789abcdef0}}]
security_groups:
  - name: "9.web"
    id: {group}
    description: It is ${{not}} "a" %{{template}}
    rules:
      - {{direction: inbound, protocol: tcp, ports: 80, id: {rule}}}
      - {{direction: inbound, protocol: tcp, ports: 81}}
instances:
  - {{name: i, id: {instance}, addresses: [10.1.0.16], security_groups: ["9.web"]}}
"""
UUID = "00000000-0000-0000-0000-00000000000"
IDS: dict[Provider, dict[str, str]] = {
    "aws": {"group": "sg-0123456789abcdef0", "rule": "sgr-0123456789abcdef0", "instance": "eni-0123456789abcdef0"},
    "openstack": {"group": f"{UUID}1", "rule": f"{UUID}2", "instance": f"{UUID}3"},
    "opentelekomcloud": {"group": f"{UUID}1", "rule": f"{UUID}2", "instance": f"{UUID}3"},
}


@pytest.mark.parametrize("profile", ["aws", "neutron", "otc"])
def test_what_has_an_id_is_imported_and_is_no_template(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, profile: str
) -> None:
    provider = terraform.PROVIDERS[profile]
    (tmp_path / "policy.yaml").write_text(IMPORTED.format(profile=profile, **IDS[provider]))
    done = sgfast(capsys, "export", tmp_path / "policy.yaml", "--to", "terraform")
    assert done.status == 0 and f"\n# for Terraform, provider {provider}: makes 1 security group, adds 2" in done.out
    made = Configuration(done.out)
    ids = sorted(made.imports.values())
    assert ids == sorted((IDS[provider]["group"], IDS[provider]["rule"]))
    assert set(made.imports) <= set(made.resources) and not made.data
    (group,) = (body for address, body in made.resources.items() if re.search("secgroup_v|aws_sec", address))
    wanted = "It is _{not} _a_ _{template}" if provider == "aws" else 'It is ${not} "a" %{template}'
    assert _value(group["description"]) == wanted
    assert provider == "aws" or ("It is $${not}" in done.out and "%%{template}" in done.out)
    assert f'"{IDS[provider]["instance"]}"' in done.out
    # Since then only the second rule is new, and it names the group by its id.
    (tmp_path / "old.yaml").write_text((tmp_path / "policy.yaml").read_text().replace("ports: 81", "ports: 82"))
    more = sgfast(capsys, "export", tmp_path / "policy.yaml", "--since", tmp_path / "old.yaml", "--to", "terraform")
    since = Configuration(more.out)
    ((address, body),) = since.resources.items()
    assert _value(body["security_group_id"]) == IDS[provider]["group"] and address in made.resources
    assert re.fullmatch(r"\w+\._9_web_inbound_tcp_82_\w+", since.removed[0]) and len(since.removed) == 1


def test_a_text_with_control_characters_has_only_escapes_that_terraform_knows() -> None:
    written = '\b\f\x00\x1b\t\r\n\\b\\\\f "$${a} $$${b} %%{c} é\U0001f600'
    policy = Policy(security_groups=(SecurityGroup("g", description=written),), settings=PROFILES["neutron"].settings)
    text = terraform.export(None, policy, "openstack", "0")
    (line,) = (line for line in text.splitlines() if line.startswith("  description"))
    assert {*re.findall(r"\\(u0{2}[0-9a-f]{2}|.)", line)} == {*'nrt"\\', "u0000", "u0008", "u000c", "u001b"}
    (group,) = Configuration(text).resources.values()
    assert _value(group["description"]) == written


@pytest.mark.parametrize("provider", TARGETS)
def test_an_instance_with_another_name_now_leaves_the_group_it_was_put_into(provider: Provider) -> None:
    text = "version: 1\nsecurity_groups: [{{name: g}}, {{name: h}}]\ninstances: [{{name: {}, {}: [{}]}}]"
    old, new = (
        parse_policy(text.format(name, "addresses: [10.1.0.4], security_groups", of))
        for name, of in ("ig", "jh")
    )
    before = Configuration(terraform.export(None, old, provider, "0"))
    after = Configuration(terraform.export(old, new, provider, "0")).applied_to(before)
    (member,) = (body for address, body in after.resources.items() if re.search("attachment|associate", address))
    groups_now = member.get("security_group_ids", [member.get("security_group_id")])
    assert [_value(each).split(".")[1] for each in groups_now] == ["h"]


@pytest.mark.parametrize(
    ("provider", "rule", "error"),
    [
        ("openstack", "icmp_type: 0", "provider openstack takes type 0 and code 0 for all"),
        ("openstack", "icmp_type: 8, icmp_code: 0", "provider openstack takes type 0 and code 0 for all"),
        ("opentelekomcloud", "icmp_type: 8", "provider opentelekomcloud has no types of ICMP"),
    ],
)
def test_types_of_icmp_that_a_provider_cannot_send_are_an_error(
    provider: Provider, rule: str, error: str
) -> None:
    text = f"version: 1\nsecurity_groups: [{{name: g, rules: [{{direction: inbound, protocol: icmp, {rule}}}]}}]"
    with pytest.raises(ExportError, match=error):
        terraform.export(None, parse_policy(text), provider, "0")


def test_types_of_icmp_are_in_the_fields_of_ports() -> None:
    rules = ", ".join(f"{{direction: inbound, protocol: icmp, icmp_type: 8{code}}}" for code in ("", ", icmp_code: 1"))
    policy = parse_policy(f"version: 1\nsecurity_groups: [{{name: g, rules: [{rules}]}}]")
    text = terraform.export(None, policy, "openstack", "0")
    bodies = [body for body in Configuration(text).resources.values() if "protocol" in body]
    assert [(body["port_range_min"], body["port_range_max"]) for body in bodies] == [(8, 0), (8, 1)]

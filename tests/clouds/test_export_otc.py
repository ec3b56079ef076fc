"""A policy exported to Open Telekom Cloud comes back from a small cloud that stores what it receives (SPEC 13.6)."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from effort import some
from exported import assert_kept_policies_only_add, assert_policies_and_their_changes_come_back, run, seeds

from sgfast import Policy
from sgfast.base.errors import ExportError
from sgfast.clouds.importing.reading import import_sources
from sgfast.clouds.importing.sources import Source
from sgfast.clouds.loading import parse_policy
from sgfast.clouds.openstack import export as openstack
from sgfast.clouds.otc import export as otc


class Cloud:
    """The groups, rules and ports of a project. The cloud gives each new group two rules."""

    def __init__(self, policy: Policy) -> None:
        self.groups: dict[str, Any] = {}
        self.rules: dict[str, Any] = {}
        self._numbers = itertools.count()
        self.ports = {
            (id := self._id()): {
                "id": id, "name": each.name, "network_id": "n", "device_owner": "compute:eu-de-01",
                "fixed_ips": [{"ip_address": str(address.network_address)} for address in each.addresses],
                "security_groups": [],
            }
            for each in policy.instances
        }  # fmt: skip

    def _id(self) -> str:
        return str(uuid.UUID(int=next(self._numbers)))

    def call(self, request: dict[str, Any]) -> Any:
        match request["method"], request["path"].removeprefix("/v3/p/vpc").removeprefix("/v2.0").split("/")[1:]:
            case "POST", ["security-groups"]:
                group = {"id": self._id(), **request["body"]["security_group"]}
                self.groups[group["id"]] = group
                born = [self._add(group["id"], direction=each) for each in ("ingress", "egress")]
                return {"security_group": group | {"security_group_rules": born}}
            case "POST", ["security-group-rules"]:
                body = request["body"]["security_group_rule"]
                assert set(body) >= {"action", "priority"} and body["security_group_id"] in self.groups
                return {"security_group_rule": self._add(body.pop("security_group_id"), **body)}
            case "DELETE", [section, id]:
                del {"security-groups": self.groups, "security-group-rules": self.rules}[section][id]
                self.rules = {key: each for key, each in self.rules.items() if each["security_group_id"] in self.groups}
            case "PUT", ["ports", id]:
                self.ports[id] |= request["body"]["port"]
                assert set(self.ports[id]["security_groups"]) <= set(self.groups)
            case "GET", [path]:
                kind, name, value = re.fullmatch(r"([a-z-]+)\?(\w+)=(.*)", unquote(path)).groups()  # type: ignore[union-attr]
                if kind == "security-groups":
                    return {"security_groups": [each for each in self.groups.values() if each[name] == value]}
                address = {"ip_address": value.removeprefix("ip_address=")}
                return {"ports": [each for each in self.ports.values() if address in each["fixed_ips"]]}
            case unknown:
                raise AssertionError(unknown)
        return None

    def _add(self, group: str, **rule: Any) -> dict[str, Any]:
        made = {"id": self._id(), "security_group_id": group, "ethertype": "IPv4", "enabled": True, **rule}
        self.rules[made["id"]] = made
        return made

    def live(self) -> Policy:
        document = {
            "security_groups": [*self.groups.values()], "security_group_rules": [*self.rules.values()],
            "ports": [*self.ports.values()],
        }  # fmt: skip
        return import_sources([Source("otc.json", document)], "otc").policy()


def applying() -> Callable[[Policy | None, Policy], Policy]:
    """Return a function that applies a change to a cloud, and returns the policy that is there then."""
    cloud = Cloud(Policy())

    def apply(old: Policy | None, new: Policy) -> Policy:
        if old is None:
            cloud.__init__(new)  # type: ignore[misc]
        run(otc.export(old, new, "json").document("0"), {"project": "p"}, cloud.call)
        return cloud.live()

    return apply


def test_random_policies_and_their_changes_come_back_from_the_calls() -> None:
    assert_policies_and_their_changes_come_back(
        seeds(some(20, 1000), 2161), otc.OTC_V3, applying(),
        lambda old, new: otc.export(old, new, "json").calls,
    )  # fmt: skip


def test_kept_policy_only_adds_to_the_cloud(tmp_path: Path) -> None:
    assert_kept_policies_only_add(seeds(some(6, 200), 2162), otc.OTC_V3, tmp_path, applying())


def test_deny_rules_priorities_and_lists_of_ports_are_otcs_own_but_not_its_scripts() -> None:
    policy = parse_policy(
        """
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: "22,80-81", priority: 7}
      - {direction: inbound, protocol: tcp, ports: 22, action: deny, priority: 2}
      - {direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 0, source: web}
"""
    )
    bodies = [
        call.request["body"]["security_group_rule"] for call in otc.export(None, policy, "json").calls
        if "security_group_rule" in call.request.get("body", {})
    ]  # fmt: skip
    assert [(each["action"], each["priority"], each["multiport"]) for each in bodies] == [
        ("allow", 7, "22,80-81"), ("deny", 2, "22"), ("allow", 1, "8-0")
    ]  # fmt: skip
    script = otc.export(None, policy, "script").script("0", openstack.FUNCTIONS)
    assert "--dst-port 80:81" in script and "22" not in script.split("security group rule create", 1)[1]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("security_groups: [{name: default}]", "security group 'default': every project has it already"),
        ("vpcs: [{name: v}, {name: w, region: north}]", "the VPCs are in 2 regions"),
        # All that the profile says is written otherwise, but for port 0.
        ("settings: {profile: aws, on_change: cut-inbound, timeouts: {tcp_established: 600}}\n"
         "security_groups: [{name: g, rules: [{direction: inbound, protocol: tcp, ports: 0-5}]}]", "has no port 0"),
        ("security_groups: [{name: g}]\ninstances: [{name: i, addresses: [10.0.0.0/24], security_groups: [g]}]",
         "instance 'i': has neither the id of a port nor a single address"),
    ],
)  # fmt: skip
def test_what_the_cloud_cannot_be_told_is_an_error(text: str, error: str) -> None:
    with pytest.raises(ExportError, match=error):
        otc.export(None, parse_policy(f"version: 1\n{text}"), "json")


def test_a_rule_without_its_id_cannot_be_taken_away() -> None:
    rule = "rules: [{direction: inbound, protocol: tcp, ports: 1}]"
    old, new = (parse_policy(f"version: 1\nsecurity_groups: [{{name: g, {rules}}}]") for rules in (rule, "rules: []"))
    with pytest.raises(ExportError, match=r"rule g/inbound/1 \(tcp/1 from 0.0.0.0/0\): can be taken away only"):
        openstack.export(old, new, "script")


def test_of_a_rule_that_is_taken_away_as_a_whole_the_rest_stays() -> None:
    rule = "{direction: inbound, protocol: tcp, ports: 1, source: some, id: 00000000-0000-0000-0000-000000000001}"
    old, new = (
        parse_policy(f"version: 1\nsecurity_groups: [{{name: g, rules: [{rule}]}}]\naddress_groups: [{group}]")
        for group in ("{name: some, addresses: [10.0.0.1, 10.0.0.2]}", "{name: some, addresses: [10.0.0.2, 10.0.0.3]}")
    )
    calls = otc.export(old, new, "json").document("0")["calls"]
    bodies = [each.get("body", {"security_group_rule": {}})["security_group_rule"] for each in calls]
    assert [(each["method"], body.get("remote_ip_prefix")) for each, body in zip(calls, bodies, strict=True)] == [
        ("GET", None), ("POST", "10.0.0.3/32"), ("POST", "10.0.0.2/32"), ("DELETE", None)
    ]  # fmt: skip

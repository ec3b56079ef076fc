"""Some files of Terraform and OpenTofu are read; the others get a message that explains why not (SPEC 10.17)."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from exports import error_of, imported, means, warnings_of
from terraform import Resource, resource, state, state_file
from test_import_terraform_aws import MEANING, infrastructure
from test_import_terraform_neutron import openstack_ports

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.reading import load
from sgfast.clouds.loading import load_policy
from sgfast.clouds.terraform.plan import load_plan

GROUP = resource("aws_security_group.g", id="sg-1", name="g", vpc_id="vpc-a", ingress=[], egress=[])


def test_a_state_file_means_what_terraform_shows_of_it() -> None:
    means(imported(state_file(*infrastructure())), MEANING)
    for resources in (infrastructure(), openstack_ports()):
        raw, shown = imported(state_file(*resources)), imported(state(*resources))
        assert raw.draft.document() == shown.draft.document()
        assert raw.policy().warnings == shown.policy().warnings


def host(address: str, number: int) -> Resource:
    private_ip = f"10.0.0.{number}"
    groups = ["sg-1"]
    return resource(address, id=f"i-{number}", private_ip=private_ip, vpc_security_group_ids=groups, tags=None)


def test_instances_of_a_state_file_are_called_as_terraform_calls_them() -> None:
    hosts = [host("aws_instance.one", 1), host("aws_instance.some[0]", 2), host("aws_instance.some[1]", 3)]
    hosts += [host('module.m["k"].aws_instance.x["a"]', 4), host('module.m["k"].aws_instance.x["b c"]', 5)]
    document = state_file(GROUP, *hosts)
    assert [each["instances"][0].get("index_key") for each in document["resources"]] == [None, None, 0, "a"]
    places = imported(document).draft.made.locations["instances"]
    assert [each.of for each in places] == [each["address"] for each in hosts]


def test_what_is_left_of_a_replaced_resource_is_no_instance() -> None:
    document = state_file(GROUP, host("aws_instance.a", 1))
    instances = document["resources"][1]["instances"]
    instances[0]["status"] = "tainted"  # still there until the next apply
    old = host("aws_instance.a", 2)["values"]
    instances.append({"schema_version": 1, "deposed": "00112233", "attributes": old})
    assert [each.name for each in imported(document).policy().instances] == ["i-1"]


OLD = {"version": 3, "terraform_version": "0.11.14", "serial": 2, "lineage": "x", "modules": [{"path": ["root"]}]}
ENCRYPTED = {"meta": {"key_provider.pbkdf2.k": "e30="}, "encrypted_data": "AAAA", "encryption_version": "v0"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (OLD, "is a state file of version 3, but only version 4 is supported: run terraform apply -refresh-only"),
        ({"version": 5, "serial": 2, "lineage": "x"}, "is a state file of version 5, but only version 4 is supported"),
        ({"version": 3, "terraform_version": "1.12.2", "backend": {"type": "s3", "config": {}, "hash": 1}},
         "is a state file of version 3, but only version 4 is supported"),
        ({"serial": 2, "lineage": "x"}, "is a state file of no version, but only version 4 is supported"),
        ({"version": "?", "serial": 2, "lineage": "x"}, "version must be a whole number"),
        ({"serial": 1, "lineage": "x"} | ENCRYPTED, "is encrypted by OpenTofu: give the output of tofu show -json"),
        (ENCRYPTED, "is encrypted by OpenTofu: give the output of tofu show -json"),
        (state_file(GROUP) | {"resources": [{"type": "a", "name": "b", "instances": [{"index_key": 1.5}]}]},
         "index_key must be a string or a whole number"),
        (state_file(GROUP) | {"resources": [{"type": "a", "name": "b", "module": "x y"}]}, "is not a module address"),
    ],
)  # fmt: skip
def test_states_that_are_not_read_say_what_to_run(document: Any, said: str) -> None:
    message = error_of(document)
    assert message.startswith("a.json: ") and said in message
    assert imported(state_file()).policy().security_groups == ()


def test_attributes_from_before_terraform_0_12_are_an_error() -> None:
    document = state_file(GROUP)
    document["resources"][0]["instances"][0] = {"schema_version": 0, "attributes_flat": {"id": "sg-1"}}
    assert "resources[0], instances[0]: attributes_flat is of a provider before Terraform 0.12" in error_of(document)


def test_a_state_file_is_a_policy_by_itself_and_in_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "terraform.tfstate"
    path.write_text(json.dumps(state_file(*infrastructure())))
    (tmp_path / "terraform.tfstate.backup").write_text("{}")
    (tmp_path / "main.tf").write_text("")
    assert load([path]).format.name == "terraform"
    assert len(load_policy(path).instances) == len(load_policy(tmp_path).instances) == 3
    with pytest.raises(PolicyError, match=r"terraform\.tfstate: is not a plan"):
        load_plan(path)


def plan_file(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"\n\x0b")
    return buffer.getvalue()


SHOW = "terraform show -json plan > plan.json, and give plan.json"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("main.tf", b'resource "aws_security_group" "g" {}\n', f"is a configuration, .* {SHOW}"),
        ("main.tf.json", b'{"resource": {"aws_security_group": {"g": {}}}}', f"is a configuration, .* {SHOW}"),
        ("main.tofu", b"", f"is a configuration, .* {SHOW}"),
        ("plan", plan_file("tfplan", "tfstate", "tfconfig/modules.json"), "is a plan file, .* -json PLANFILE > plan"),
        ("plan.json", b'{"@level":"info","@message":"Terraform 1.9.0"}\n{"@level":"info"}\n',
         f"has the messages of terraform plan -json, not the plan: .* {SHOW}"),
        ("plan.json", b'[command]/bin/terraform-bin show -json p\n{"format_version":"1.2"}\n',
         "set terraform_wrapper: false for setup-terraform: run terraform show -json PLANFILE"),
        ("plan", plan_file("something"), "not (YAML|UTF-8)"),
    ],
)  # fmt: skip
def test_what_only_terraform_can_read_says_what_to_run(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    for read in (load_policy, load_plan, lambda path: load([path]), lambda path: load([path], "terraform")):
        with pytest.raises(PolicyError, match=said) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}:") and str(caught.value).isprintable()


def test_resources_of_providers_that_are_not_read_are_counted() -> None:
    others = [
        resource("azurerm_network_security_group.a", id="1"), resource("azurerm_network_security_rule.a", id="2"),
        resource("azurerm_virtual_network.a", id="3"), resource("google_compute_firewall.b", id="4"),
        resource("flexibleengine_networking_secgroup_v2.c", id="5"), resource("random_id.d", id="6"),
        resource("data.alicloud_security_groups.e", data=True, id="7"),
    ]  # fmt: skip
    left_out = (
        "Left out 2 resources about security groups or firewalls because resources of the provider azurerm are not "
        "read.",
        "Left out 1 resource about security groups or firewalls because resources of the provider google are not read.",
        "Left out 1 resource about security groups or firewalls because resources of the provider flexibleengine are "
        "not read.",
    )
    for document in (state(*others), state_file(*others), state(*others, GROUP)):
        policy = imported(document).policy()
        assert warnings_of(policy) == left_out
    assert [group.name for group in policy.security_groups] == ["g"]


def test_groups_that_filter_no_instance_do_not_refuse_a_file() -> None:
    unrelated = [
        resource(f"aws_{kind}.x", id=kind)
        for kind in ("db_security_group", "redshift_security_group", "elasticache_security_group",
                     "vpc_endpoint_security_group_association", "vpc_security_group_vpc_association")
    ]  # fmt: skip
    assert warnings_of(imported(state(GROUP, *unrelated)).policy()) == ()
    policy = imported(state(GROUP, resource("aws_vpc_security_group_rules_exclusive.x", id="x"))).policy()
    assert warnings_of(policy) == (
        "Left out because it is not supported, although its name is about security groups: "
        "resource aws_vpc_security_group_rules_exclusive.x.",
    )


def test_what_filters_beside_groups_is_told() -> None:
    beside = [resource("aws_network_acl.a", id="a"), resource("aws_ec2_transit_gateway_vpc_attachment.t", id="t")]
    assert warnings_of(imported(state(GROUP, *beside)).policy()) == (
        "Not in the policy, although it filters traffic, too: resource aws_network_acl.a.",
        "Not read: VPCs behind a transit gateway do not reach each other in the policy: "
        "resource aws_ec2_transit_gateway_vpc_attachment.t.",
    )

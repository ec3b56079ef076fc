"""Which files of Terraform and OpenTofu are read, and what is said of those that are not (SPEC 10.17)."""

from __future__ import annotations

from exports import imported
from terraform import resource, state

GROUP = resource("aws_security_group.g", id="sg-1", name="g", vpc_id="vpc-a", ingress=[], egress=[])


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
    for document in (state(*others), state(*others, GROUP)):
        policy = imported(document).policy()
        assert policy.warnings == left_out
    assert [group.name for group in policy.security_groups] == ["g"]


def test_groups_that_filter_no_instance_do_not_refuse_a_file() -> None:
    unrelated = [
        resource(f"aws_{kind}.x", id=kind)
        for kind in ("db_security_group", "redshift_security_group", "elasticache_security_group",
                     "vpc_endpoint_security_group_association", "vpc_security_group_vpc_association")
    ]  # fmt: skip
    assert imported(state(GROUP, *unrelated)).policy().warnings == ()
    policy = imported(state(GROUP, resource("aws_vpc_security_group_rules_exclusive.x", id="x"))).policy()
    assert policy.warnings == (
        "Left out because it is not supported, although its name is about security groups: "
        "resource aws_vpc_security_group_rules_exclusive.x.",
    )

"""An import keeps its provider's ids and names, so that people find their machines again (SPEC 2.12, 10.17)."""

from __future__ import annotations

from typing import Any

import pytest
from effort import some
from exports import imported, policy_of
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from neutron import WEB, group, groups, port, ports, rule, tcp
from terraform import LATER, block, plan, refs, resource, state
from test_import_aws import NAMED_ENTRIES, account
from test_import_aws import interface as aws_interface
from test_import_hostile import EXPORTS
from test_import_terraform_aws import infrastructure, inline

from sgfast.policy.lookup import NamedKind, find
from sgfast.policy.model import Policy

_AWS = [account() | {"Reservations": [{"Instances": [{
    "InstanceId": "i-1", "NetworkInterfaces": [aws_interface("eni-6", "vm", ["10.0.0.8"], ["sg-web"])],
}]}]}, NAMED_ENTRIES]  # fmt: skip


def words_of(policy: Policy) -> set[str]:
    """Every word by which the policy's things can be found, and the ids of its rules."""
    things = (*policy.security_groups, *policy.address_groups, *policy.instances, *policy.vpcs)
    words = {word for thing in things for word in (thing.name, thing.id, getattr(thing, "device", ""))}
    return words | {rule.id for group in policy.security_groups for rule in group.rules}


@pytest.mark.parametrize(("export", "ids"), [
    (EXPORTS["neutron"], "sg-web ag p1 s1 sg-2 net-1"),
    (EXPORTS["neutron's rows"], "sg-web sg-3 r1 r2 r9 p9"),
    (EXPORTS["otc"], "69c999ad-0001 69c999ad-0002 ag p1 p2 server-of-p1 server-of-p2 a b"),
    (_AWS, "sg-web sg-db sg-run eni-1 eni-2 eni-3 eni-4 eni-6 i-1 vpc-a vpc-b vpc-c pl-0123456789abcdef0"),
    ([state(*infrastructure())], "sg-web sg-db sg-def eni-1 eni-2 i-1 i-2 i-3 vpc-a vpc-b pl-1 pl-2 sgr-1"),
], ids=["neutron", "rows", "otc", "aws", "terraform"])  # fmt: skip
def test_the_ids_of_all_objects_are_in_the_document(export: list[Any], ids: str) -> None:
    """``policy_of`` also compares the policy with that of the written document."""
    if export is EXPORTS["neutron's rows"]:
        lost = set(ids.split()) - words_of(imported(*export).policy())
    else:
        lost = set(ids.split()) - words_of(policy_of(*export))
    assert lost == set()


@pytest.mark.parametrize(("kind", "word", "name"), [
    ("instance", "p-2", "bastion"), ("instance", "Jump Host", "p-1"), ("instance", "nova-1", "p-1"),
    ("security group", "sg-web", "web"), ("security group", "Büro", "sg-office"), ("instance", "Büro", None),
])  # fmt: skip
def test_people_find_their_machines_by_what_the_cloud_calls_them(kind: NamedKind, word: str, name: str | None) -> None:
    policy = policy_of(
        groups(group(WEB, "web", rule(WEB, **tcp(80))), group("sg-office", "Büro")),
        ports(
            port("p-1", "Jump Host", "10.0.0.5", device_id="nova-1"),
            port("p-2", "bastion", "10.0.0.6", device_id="nova-2"),
        ),
    )
    assert find(policy, kind, word) == name


def test_what_is_called_the_same_here_and_there_is_written_once() -> None:
    """A document stays as small as one written by hand."""
    written = imported(groups(group("web", "web")), ports(port("p1", "p1", "10.0.0.5", groups=("web",)))).yaml([])
    assert "id:" not in written
    assert "label:" not in written
    assert "device:" not in written


@pytest.mark.parametrize(("name", "label"), [
    ("a\nb", r"a\nb"), ("x" * 300, "x" * 254 + "…"), ("\n" * 200, r"\n" * 127 + "…"), ('" # {', '" # {'),
    ("\ud800", r"\ud800"),
])  # fmt: skip
def test_a_name_that_no_policy_can_have_becomes_a_label_that_one_can(name: str, label: str) -> None:
    policy = policy_of(groups(group("g-1", name)))
    assert policy.security_groups[0].label == label


@seed(20261128)
@settings(max_examples=some(20, 500), deadline=None, database=None)
@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=4, unique_by=lambda x: x[0]))
def test_a_document_says_the_same_whatever_the_provider_calls_its_things(called: list[tuple[str, str]]) -> None:
    """``policy_of`` compares the policy with that of the written document."""
    known = [(id, name) for id, name in called if id]
    members = tuple(id for id, _ in known[:1])
    policy_of(
        groups(*(group(id, name) for id, name in known or [("g", "")])),
        ports(*(
            port(id, name, f"10.0.0.{n}", groups=members, device_id=f"{name}{id}") for n, (id, name) in enumerate(known)
        )),
    )  # fmt: skip


def test_an_id_that_no_policy_can_have_is_left_out() -> None:
    made = policy_of(groups(group("g\n1", "fine"), group("x" * 300, "long"))).security_groups
    assert [(each.name, each.id) for each in made] == [("fine", ""), ("long", "")]


def test_what_terraform_has_yet_to_make_has_no_id() -> None:
    later = plan([], [
        resource("aws_security_group.new", id=LATER, name="new group", vpc_id="vpc-a", ingress=[], egress=[]),
        resource("aws_instance.new", id=LATER, vpc_security_group_ids=LATER, private_ip="10.0.0.5",
                 tags={"Name": "new"}),
    ], block("aws_instance.new", vpc_security_group_ids=refs("aws_security_group.new.id")))  # fmt: skip
    policy = policy_of(later)
    assert [(each.id, each.label) for each in policy.security_groups] == [("", "new group")]
    assert [(each.name, each.id, each.device) for each in policy.instances] == [("new", "", "")]


@pytest.mark.parametrize("listed", [False, True])
def test_a_providers_rule_that_becomes_several_gives_them_its_id(listed: bool) -> None:
    """Also if the group lists the same rule, without its id, as a state does."""
    inbound = [inline("tcp", 80, 80, security_groups=["sg-2"])] if listed else []
    policy = policy_of(state(
        resource("aws_security_group.a", id="sg-1", name="a", vpc_id="vpc-a", ingress=inbound, egress=[]),
        resource("aws_security_group.b", id="sg-2", name="b", vpc_id="vpc-a", ingress=[], egress=[]),
        resource("aws_vpc_security_group_ingress_rule.a", id="sgr-7", security_group_rule_id="sgr-7",
                 security_group_id="sg-1", ip_protocol="tcp", from_port=80, to_port=80, prefix_list_id=None,
                 cidr_ipv4=None, referenced_security_group_id="sg-2"),
    ))  # fmt: skip
    assert [(rule.id, rule.ethertype) for rule in policy.security_groups[0].rules] == [("sgr-7", 4), ("sgr-7/2", 6)]


def test_each_network_interface_of_terraforms_servers_knows_its_server() -> None:
    """Also a port that is a resource of its own. An interface without a port has no id: it is the server's second."""
    server = "openstack_compute_instance_v2"
    policy = policy_of(state(
        resource("openstack_networking_secgroup_v2.a", id="sg-1", name="a", delete_default_rules=True),
        resource(
            "openstack_networking_port_v2.p", id="port-1", all_fixed_ips=["10.0.0.7"], security_group_ids=["sg-1"]
        ),
        resource(f"{server}.one", id="nova-1", name="one", security_groups=["a"], network=[
            {"uuid": "n", "fixed_ip_v4": "10.0.0.5"}, {"uuid": "n", "fixed_ip_v4": "10.0.0.6"},
        ]),
        resource(f"{server}.two", id="nova-2", name="two", security_groups=["a"], network=[{"port": "port-1"}]),
    ))  # fmt: skip
    assert [(each.name, each.id, each.device) for each in policy.instances] == [
        ("one", "nova-1", ""), ("one-2", "", "nova-1"), ("two", "port-1", "nova-2"),
    ]  # fmt: skip


@pytest.mark.parametrize("shared", [False, True])
def test_an_id_that_two_share_is_that_of_neither(shared: bool) -> None:
    """Two interfaces of one machine; or two machines, in samples that were written by hand with one interface's id."""
    cards = [aws_interface(f"eni-{1 if shared else n}", f"vm-{n}", [f"10.0.0.{n}"], ["sg-web"]) for n in (1, 2)]
    machines = [{"InstanceId": f"i-{n}", "NetworkInterfaces": [card]} for n, card in enumerate(cards, 1)]
    if not shared:
        machines = [{"InstanceId": "i-1", "NetworkInterfaces": cards}]
    policy = policy_of(
        account() | {"NetworkInterfaces": [], "Reservations": [{"Instances": machines}]}, NAMED_ENTRIES
    )
    if shared:
        found = [(each.name, each.id, each.device) for each in policy.instances]
        assert found == [("vm-1", "", "i-1"), ("vm-2", "", "i-2")]
    else:
        assert policy.also_called["instance"]["i-1"] == ("vm-1", "vm-2")

"""Whatever an export contains, the result is a policy or a one-line error that names the location (SPEC 11)."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest
from effort import some
from exports import changed, error_of, imported, mutations, paths_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from neutron import group, groups, pair, port, ports, rule, tcp
from terraform import plan, resource, state, state_file
from test_import_aws import NAMED_ENTRIES, account
from test_import_aws_shapes import ANSIBLE, HOSTS, OTHERS, RULES
from test_import_aws_transit import everything as transit
from test_import_cloudformation import SHOP
from test_import_neutron import CLI_GROUPS, CLI_PORTS, row
from test_import_otc import DB_1, SUBNETS, VPCS, WEB_1, server, virtual
from test_import_otc import groups as otc_groups
from test_import_otc import rule as otc_rule
from test_import_terraform_aws import infrastructure, nested, new_groups, several
from test_import_terraform_neutron import huawei, openstack_ports, otc, unborn

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.sources import source_of
from sgfast.clouds.loading import parse_policy
from sgfast.policy import yaml_nodes

_WEB = "69c999ad-0001"
_STACK = {"StackId": "a:b:c:d:e:f", "Parameters": [{"ParameterKey": "Env", "ParameterValue": "prod"}]}
#: Exports that together have every key their format reads.
EXPORTS: dict[str, list[Any]] = {
    "neutron": [
        groups(group("sg-web", "web", rule("sg-web", **tcp(80)), rule("sg-web", remote_address_group_id="ag"))),
        {"address_groups": [{"id": "ag", "name": "offices", "addresses": ["203.0.113.0/28", "::1"]}]},
        ports(
            port("p1", "web-1", "10.0.0.5", device_id="s1", **pair("10.0.0.9")),
            port("r1", "", "10.0.0.1", groups=(), device_owner="network:router_interface", device_id="r"),
        ),
        {"routers": [{"id": "r", "name": "r"}], "networks": [{"id": "net-1", "name": "n"}], "subnets": [{"id": "s"}]},
        {"security_group": {"id": "sg-2", "name": "two", "rules": []}},
    ],
    "neutron's rows": [
        [row("r1", "sg-web", "icmp", "type=8:code=0"), row("r2", "sg-web", "tcp", "80:81")], CLI_GROUPS, CLI_PORTS,
        {"id": "p9", "fixed_ips": "ip_address='10.0.0.77'", "security_group_ids": "sg-web",
         "allowed_address_pairs": ""},
        {"id": "sg-3", "name": "n", "rules": "direction='ingress', id='r9', protocol='tcp', port_range_min='22'"},
    ],
    "otc": [
        otc_groups(
            web=[otc_rule(_WEB, "a", protocol="tcp", multiport="22,80-90"), otc_rule(_WEB, "b", priority=7)], db=[]
        ),
        {"address_groups": [
            {"id": "ag", "name": "n", "ip_set": ["10.0.0.1-10.0.0.9"], "ip_extra_set": [{"ip": "::1"}]}
        ]},
        {"ports": [WEB_1, DB_1, virtual("10.0.0.5")]},
        VPCS, SUBNETS,
        {"peerings": [
            {"id": "p", "status": "ACTIVE", "request_vpc_info": {"vpc_id": "v1"}, "accept_vpc_info": {"vpc_id": "v2"}}
        ]},
        {"sub_network_interfaces": [
            {"id": "e", "virsubnet_id": "subnet-1", "private_ip_address": "10.0.0.8", "security_groups": [_WEB]}
        ]},
    ],
    "otc's servers": [otc_groups(web=[]), server(("10.0.0.5", "p1"))],
    "aws": [account(), NAMED_ENTRIES],
    "aws's rules": [RULES, HOSTS, NAMED_ENTRIES],
    "aws by ansible": [ANSIBLE, OTHERS, NAMED_ENTRIES],
    "aws's gateways": transit(),
    "cloudformation": [source_of(SHOP.encode(), "shop.yaml").value, {"Stacks": [_STACK]}],
    "terraform's state": [state(*infrastructure())],
    "terraform's state file": [
        state_file(
            resource("aws_security_group.g", id="sg-1", name="g", vpc_id="vpc-a", ingress=[], egress=[]),
            resource('module.m["k"].aws_instance.x["a"]', id="i", private_ip="10.0.0.4",
                     vpc_security_group_ids=["sg-1"]),
        ),
    ],
    "terraform's references": [plan([], new_groups()[0], *new_groups()[1])],
    "terraform's copies": [plan([], several()[0], *several()[1])],
    "terraform's modules": [nested()],
    "terraform of otc": [state(*otc())],
    "terraform of huawei": [state(*huawei())],
    "terraform of openstack": [state(*openstack_ports())],
    "terraform's plan of otc": [unborn()],
}  # fmt: skip


def form_of(name: str) -> str:
    return name.split()[0].removesuffix("'s")


def outcome(documents: list[Any], form: str) -> str:
    try:
        made = imported(*documents, form=form)
        policy = made.policy()
        parse_policy(made.yaml(["\n\0"]), "again.yaml")
        assert all(warning.isprintable() for warning in policy.warnings)
        return "policy"
    except PolicyError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 1200, message
        return "error"


@pytest.mark.parametrize("name", EXPORTS)
def test_anything_anywhere_is_a_policy_or_a_policy_error(name: str) -> None:
    documents, counted = EXPORTS[name], Counter[str]()
    assert outcome(documents, form_of(name)) == "policy"
    for n, document in enumerate(documents):
        for other in mutations(document):
            counted[outcome([*documents[:n], other, *documents[n + 1 :]], form_of(name))] += 1
    print(counted)
    assert counted["error"] > some(8, 100) and counted["policy"] > some(1, 20), counted


@pytest.mark.parametrize("name", [name for name in EXPORTS if form_of(name) in ("neutron", "otc")])
def test_no_key_of_a_rule_is_overlooked(name: str) -> None:
    """An unknown key in a rule is an error, wherever the rule is."""
    for n, document in enumerate(EXPORTS[name]):
        for path in paths_of(document):
            value = document
            for key in path:
                value = value[key]
            if isinstance(value, dict) and ("direction" in value or "Direction" in value):
                strange = changed(document, path, value | {"only_on_mondays": True})
                message = error_of(*EXPORTS[name][:n], strange, *EXPORTS[name][n + 1 :], form=form_of(name))
                assert "unknown key 'only_on_mondays'" in message


#: Values of any kind, among them ids and keys that mean something in the exports.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.sampled_from(["sg-web", "p1", _WEB, "10.0.0.5"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["id", "name", "rules", "ip_address"]), inner),
    max_leaves=5,
)  # fmt: skip


@given(
    st.sampled_from([name for name in EXPORTS if form_of(name) in ("neutron", "otc")]),
    st.lists(st.tuples(st.integers(0, 10**6), VALUES), min_size=1, max_size=4),
)
@settings(max_examples=some(100, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_values_in_any_places(name: str, changes: list[tuple[int, Any]]) -> None:
    documents: Any = copy.deepcopy(EXPORTS[name])
    for at, to in changes:
        paths = [*paths_of(documents)]
        documents = changed(documents, paths[at % len(paths)], to)
    for form in ("auto", "otc", "neutron"):
        outcome(documents, form)


@given(st.binary(max_size=80) | st.text(alphabet='{}[]",:0-9a& *', max_size=40).map(str.encode))
@settings(max_examples=some(100, 300), deadline=None)
def test_any_bytes(data: bytes) -> None:
    try:
        parse_policy(data, "x.json")
    except PolicyError as error:
        assert str(error).replace("\n", "").isprintable()
    try:
        source_of(data, "x.json")
    except PolicyError as error:
        assert str(error).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested more than 50 levels deep|not JSON"),
        ('{"security_groups": ' + "[" * 60 + "]" * 60 + "}", "nested more than 50 levels deep"),
        ('{"security_groups": [{"id": ' + "9" * 5000 + "}]}", "digits|large|id must be a string"),
        ('{"security_groups": [{"id": "a", "id": "b"}]}', "twice|duplicate key"),
        ('{"security_groups": [{"id": NaN}]}', "NaN"),
        ('{"security_groups": [{"id": "a"}', "x.json:1: not JSON"),
        ("security_groups: &a [*a]\n", "nested more than 50 levels deep|values with aliases"),
        ("a: &a [1]\nb: &b [*a, *a]\nsecurity_groups: [{id: *b}]\n", "unknown key|id must be a string|no export"),
        ('{"security_groups": [{"id": "\\ud800"}]}', "."),
    ],
)
def test_limits(text: str, said: str) -> None:
    for read in (
        lambda: imported(source_of(text.encode("utf-8", "surrogatepass"), "x.json").value, form="neutron").policy(),
        lambda: parse_policy(text, "x.json"),
    ):
        try:
            read()
        except PolicyError as error:
            assert str(error).replace("\n", "").isprintable() and len(str(error)) < 500
    if said != ".":
        with pytest.raises(PolicyError, match=said):
            imported(source_of(text.encode(), "x.json").value, form="neutron").policy()


def test_aliases_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_NODES", 300_000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    text = "\n".join([*lines, "security_groups: [{id: *a11}]"])
    with pytest.raises(PolicyError, match="values with aliases expanded"):
        source_of(text.encode(), "x.yaml")


@pytest.mark.parametrize("key", ["a\tb", "a\u2028b", "x" * 1000])
def test_error_in_the_depth_of_odd_keys_is_one_line_and_ends(key: str) -> None:
    text = f"security_groups: [&a {{{json.dumps(key)}: [1], <<: *a}}]\n"
    with pytest.raises(PolicyError, match="nested more than 50 levels deep") as caught:
        source_of(text.encode(), "x.yaml")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_many_objects_of_one_name_are_quick() -> None:
    """Names, suffixes and references must not take quadratic time."""
    many = [group(f"bad id {n % 7}{' ' * (n // 7 % 50)}{n}", "same") for n in range(20_000)]
    names = [made.name for made in imported(groups(*many)).policy().security_groups]
    assert len(set(names)) == 20_000


def test_short_tags_of_yaml_say_the_same_as_json() -> None:
    text = """
a: !Ref b
c: [!GetAtt d.e, !Sub ["${f}", {f: !If [g, 1, "1"]}], !Condition h, !Not [!Equals [i, null]]]
j: !Base64 {Fn::Join: [",", !GetAZs ""]}
k: !Ref 80
"""
    assert source_of(text.encode(), "a.yaml").value == {
        "a": {"Ref": "b"},
        "c": [
            {"Fn::GetAtt": "d.e"},
            {"Fn::Sub": ["${f}", {"f": {"Fn::If": ["g", 1, "1"]}}]},
            {"Condition": "h"},
            {"Fn::Not": [{"Fn::Equals": ["i", None]}]},
        ],
        "j": {"Fn::Base64": {"Fn::Join": [",", {"Fn::GetAZs": ""}]}},
        "k": {"Ref": "80"},
    }
    for tag in ("!Reff b", "!!python/name:os.system x", "!Foo {a: b}", "!<tag:yaml.org,2002:set> {a}"):
        with pytest.raises(PolicyError, match=r"^a\.yaml:1: a: "):
            source_of(f"a: {tag}".encode(), "a.yaml")

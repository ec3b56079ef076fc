"""Whatever an export contains, the result is a policy or a one-line error that names the location (SPEC 11)."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from effort import some
from exports import error_of, imported
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from neutron import group, groups, pair, port, ports, rule, tcp
from test_import_neutron import TestCommandLine
from test_import_otc import DB_1, WEB_1, TestServers, TestVirtualAddresses, TestVpcs
from test_import_otc import groups as otc_groups
from test_import_otc import rule as otc_rule

from sgfast import parse_policy
from sgfast.errors import PolicyError
from sgfast.policy import yaml_nodes
from sgfast.policy.formats import FORMATS
from sgfast.policy.formats.sources import source_of

_WEB = "69c999ad-0001"
_CLI = TestCommandLine()
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
    "rows": [
        [_CLI.row("r1", "sg-web", "icmp", "type=8:code=0"), _CLI.row("r2", "sg-web", "tcp", "80:81")],
        _CLI.GROUPS,
        _CLI.PORTS,
        {
            "id": "p9",
            "fixed_ips": "ip_address='10.0.0.77'",
            "security_group_ids": "sg-web",
            "allowed_address_pairs": "",
        },
        {"id": "sg-3", "name": "n", "rules": "direction='ingress', id='r9', protocol='tcp', port_range_min='22'"},
    ],
    "otc": [
        otc_groups(
            web=[otc_rule(_WEB, "a", protocol="tcp", multiport="22,80-90"), otc_rule(_WEB, "b", priority=7)], db=[]
        ),
        {
            "address_groups": [
                {"id": "ag", "name": "n", "ip_set": ["10.0.0.1-10.0.0.9"], "ip_extra_set": [{"ip": "::1"}]}
            ]
        },
        {"ports": [WEB_1, DB_1, TestVirtualAddresses().virtual("10.0.0.5")]},
        TestVpcs.VPCS,
        TestVpcs.SUBNETS,
        {
            "peerings": [
                {
                    "id": "p",
                    "status": "ACTIVE",
                    "request_vpc_info": {"vpc_id": "v1"},
                    "accept_vpc_info": {"vpc_id": "v2"},
                }
            ]
        },
        {
            "sub_network_interfaces": [
                {"id": "e", "virsubnet_id": "subnet-1", "private_ip_address": "10.0.0.8", "security_groups": [_WEB]}
            ]
        },
    ],
    "servers": [otc_groups(web=[]), TestServers().server(("10.0.0.5", "p1"))],
}
WRONG: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    10**30,
    10**99,
    1.5,
    float("inf"),
    "",
    "x",
    "\0\x1b[31m\ud800",
    "ä" * 100_000,
    [],
    [[]],
    [None],
    {},
    {"": 1},
    "10.0.0.0/0",
    "0.0.0.0-255.255.255.255",
    "::-ffff::",
    "1" * 5000,
]


def outcome(documents: list[Any], form: str) -> None:
    try:
        made = imported(*documents, form=form)
        policy = made.policy()
        parse_policy(made.yaml(["\n\0"]), "again.yaml")
        assert all(warning.isprintable() for warning in policy.warnings)
    except PolicyError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 1200, message


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += paths_of(child, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], to: Any) -> Any:
    value = copy.deepcopy(value)
    if not path:
        return to
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return value


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_the_exports_are_read_as_they_are(name: str) -> None:
    form = name if name in FORMATS else "neutron" if name == "rows" else "otc"
    assert imported(*EXPORTS[name], form=form).policy().security_groups


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_every_value_of_every_wrong_type(name: str) -> None:
    form = name if name in FORMATS else "neutron" if name == "rows" else "otc"
    documents = EXPORTS[name]
    tried, step = 0, some(3, 1)
    for n, document in enumerate(documents):
        for path in paths_of(document):
            for wrong in WRONG[tried % step :: step]:
                outcome([*documents[:n], changed(document, path, wrong), *documents[n + 1 :]], form)
                tried += 1
    assert tried > some(100, 300)


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_no_key_of_a_rule_is_overlooked(name: str) -> None:
    """An unknown key in a rule is an error, wherever the rule is."""
    form = name if name in FORMATS else "neutron" if name == "rows" else "otc"
    for n, document in enumerate(EXPORTS[name]):
        for path in paths_of(document):
            value = document
            for key in path:
                value = value[key]
            if isinstance(value, dict) and ("direction" in value or "Direction" in value):
                strange = changed(document, path, value | {"only_on_mondays": True})
                message = error_of(*EXPORTS[name][:n], strange, *EXPORTS[name][n + 1 :], form=form)
                assert "unknown key 'only_on_mondays'" in message


@given(
    st.sampled_from(sorted(EXPORTS)),
    st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.text(max_size=8)
                | st.sampled_from(["sg-web", "p1", _WEB, "10.0.0.5"]),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["id", "name", "rules", "ip_address"]), inner)
                ),
                max_leaves=5,
            ),
        ),
        min_size=1,
        max_size=4,
    ),
)
@settings(max_examples=some(100, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_values_in_any_places(name: str, changes: list[tuple[int, Any]]) -> None:
    documents: Any = copy.deepcopy(EXPORTS[name])
    for at, to in changes:
        paths = [path for path in paths_of(documents) if path]
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


def test_json_and_yaml_say_the_same() -> None:
    text = json.dumps(EXPORTS["neutron"][0])
    one, two = source_of(text.encode(), "a"), source_of(f"# YAML\n{text}".encode(), "a")
    assert one.value == two.value


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

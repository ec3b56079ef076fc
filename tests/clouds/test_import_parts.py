"""Any part of an account is imported whole, or what is missing is named: a policy never has fewer rules than the files
hold without a word (SPEC 2.13, 10.17).

Every rule of these random accounts has a description of its own, by which it is counted: in the files by functions that
know nothing of the readers, in the policy, and in what warnings say is left out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from effort import some
from terraform import Resource, resource, state, state_file

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.reading import Imported, import_sources
from sgfast.clouds.importing.sources import Source

GROUPS = [f"sg-{n}" for n in range(5)]
VPCS = [f"vpc-{n}" for n in range(3)]
LISTS = [f"pl-0000000{n}" for n in range(3)]
#: The entries of each prefix list.
ENTRIES = dict(zip(LISTS, (["192.0.2.0/28"], ["192.0.2.16/28", "2001:db8::/48"], ["198.51.100.0/28"]), strict=True))
BOTH = 2
"""Rules that one rule becomes whose peer may have addresses of both IP versions."""
LEFT_OUT = (
    "Left out because the group it names is in a VPC no longer peered", "Left out because it is not enabled",
    "Left out because it names no addresses and no group",
)  # fmt: skip


class Part(NamedTuple):
    """Some files of an account, and what the import has to make of them."""

    files: list[Source]
    #: For each description, the number of rules that a policy gets from it.
    rules: Counter[str]
    #: Ids that some object refers to, and no object has.
    missing: set[str]
    #: Ids that every policy needs. An error may name one of them in place of the expected field.
    needed: set[str]
    #: Number of instances in the files that some group filters.
    instances: int
    #: Whether a rule may be there twice, because each of two files has it.
    may_repeat: bool = False


def account_of(rng: random.Random, kinds: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Rules: description, group, kind of peer, peer. Descriptions and ports are unique."""
    rules = []
    for group in GROUPS:
        for _ in range(rng.randrange(4)):
            kind = rng.choice([*kinds])
            peers = {"group": GROUPS, "list": LISTS, "v4": ["10.0.0.0/8"], "v6": ["2001:db8::/32"]}[kind]
            rules.append((f"rule {len(rules)}", group, kind, rng.choice(peers)))
    return rules


def port_of(description: str) -> int:
    return 1000 + int(description.split()[1])


def some_of(rng: random.Random, items: list[Any]) -> list[Any]:
    """Mostly all of them."""
    return [item for item in items if rng.random() < 0.85]


def left_out(made: Imported) -> int:
    """Count the rules that are left out, according to the warnings."""
    found = 0
    for note in made.draft.made.notes:
        said, _, named = note.partition(": ")
        if said in LEFT_OUT:
            # Each is named as a rule or as a part of its group.
            listed, _, more = named.partition(" and ")
            found += listed.count("security group") + int(more.partition(" ")[0] or 0)
    return found


def described(made: Imported) -> Counter[str]:
    groups = made.draft.document()["security_groups"]
    return Counter(rule["description"] for group in groups for rule in group["rules"] if "description" in rule)


def check(form: str, part: Part) -> str:
    """Import the files, compare, and say what became of them: whole, missing, or refused."""
    try:
        made = import_sources(part.files, form, unresolved="empty")
        made.policy()
    except PolicyError as error:
        assert any(word in str(error) for word in part.needed), error
        return "refused"
    found = described(made)
    gone = part.rules.keys() - found.keys()
    # Two listings may have the rule.
    assert len(gone) <= left_out(made) <= 2 * len(gone), (gone, made.draft.made.notes)
    for description, count in found.items():
        assert count == part.rules[description] or (part.may_repeat and count > part.rules[description]), description
    assert len(made.draft.document()["instances"]) == part.instances
    told = " ".join(made.draft.made.notes)
    assert all(word in told for word in part.missing), (part.missing, told)
    if not part.missing:
        assert described(import_sources(part.files, form)) == found
        return "whole"
    with pytest.raises(PolicyError) as caught:
        import_sources(part.files, form)
    if "has instances, but no security group" not in str(caught.value):
        assert all(f"'{word}'" in str(caught.value) for word in part.missing), (part.missing, caught.value)
    return "missing"


# AWS -----------------------------------------------------------------------------------------------------------------


def aws(rng: random.Random) -> Part:
    rules = account_of(rng, ("group", "list", "v4", "v6"))
    stale = {description for description, *_ in rules if rng.random() < 0.1}

    def peer(description: str, kind: str, other: str) -> tuple[str, dict[str, str]]:
        status = {"PeeringStatus": "deleted"} if description in stale else {}
        return {
            "group": ("UserIdGroupPairs", {"GroupId": other} | status), "v4": ("IpRanges", {"CidrIp": other}),
            "list": ("PrefixListIds", {"PrefixListId": other}), "v6": ("Ipv6Ranges", {"CidrIpv6": other}),
        }[kind]  # fmt: skip

    def permission(description: str, kind: str, other: str) -> dict[str, Any]:
        section, value = peer(description, kind, other)
        port = port_of(description)
        made = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, section: [value | {"Description": description}]}
        return made

    def group(name: str) -> dict[str, Any]:
        own = [permission(description, kind, other) for description, of, kind, other in rules if of == name]
        at = rng.randrange(len(own) + 1)
        vpc = VPCS[GROUPS.index(name) % len(VPCS)]
        made = {"GroupId": name, "GroupName": name, "VpcId": vpc}
        return made | {"IpPermissions": own[:at], "IpPermissionsEgress": own[at:]}

    described_groups = {name: group(name) for name in GROUPS}

    def listed(description: str, of: str, kind: str, other: str) -> dict[str, Any]:
        _, value = peer(description, kind, other)
        made = {"group": {"ReferencedGroupInfo": value}, "v4": {"CidrIpv4": other}}.get(kind, value)
        egress = described_groups[of]["IpPermissionsEgress"]
        is_egress = any(permission(description, kind, other) == each for each in egress)
        number = port_of(description)
        return {
            "SecurityGroupRuleId": f"sgr-{number}", "GroupId": of, "IsEgress": is_egress, "IpProtocol": "tcp",
            "FromPort": number, "ToPort": number, "Description": description,
        } | made  # fmt: skip

    def interface(n: int) -> dict[str, Any]:
        return {
            "NetworkInterfaceId": f"eni-{n}", "VpcId": rng.choice(VPCS), "PrivateIpAddresses": [
                {"PrivateIpAddress": f"10.0.0.{n}"}
            ], "Groups": [{"GroupId": each} for each in rng.sample(GROUPS, rng.randrange(3))],
        }  # fmt: skip

    regions = ["eu-west-1", "eu-west-1", "us-east-1" if rng.random() < 0.2 else "eu-west-1"]
    subnets = [
        {"SubnetId": f"subnet-{n}", "VpcId": vpc, "CidrBlock": "10.0.0.0/16", "AvailabilityZone": f"{regions[n]}a"}
        for n, vpc in enumerate(VPCS)
    ]
    peering = {
        "VpcPeeringConnectionId": "pcx-1", "Status": {"Code": rng.choice(["active", "pending-acceptance"])},
        "RequesterVpcInfo": {"VpcId": "vpc-0"}, "AccepterVpcInfo": {"VpcId": rng.choice(["vpc-1", "vpc-9"])},
    }  # fmt: skip
    rule_lists = {name: [listed(*each) for each in rules if each[1] == name] for name in GROUPS}
    sections: list[tuple[str, dict[str, Any]]] = [
        *((f"{name}.json", {"SecurityGroups": [each]}) for name, each in described_groups.items()),
        *((f"{name}-rules.json", {"SecurityGroupRules": some_of(rng, made)}) for name, made in rule_lists.items()),
        ("interfaces.json", {"NetworkInterfaces": some_of(rng, [interface(n) for n in range(1, 5)])}),
        ("instances.json", {"Reservations": [{"Instances": [
            {"InstanceId": "i-1", "NetworkInterfaces": [interface(n) for n in range(5, 7)]},
        ]}]}),
        ("vpcs.json", {"Vpcs": some_of(rng, [{"VpcId": vpc, "CidrBlock": "10.0.0.0/16"} for vpc in VPCS])}),
        ("subnets.json", {"Subnets": some_of(rng, subnets)}),
        ("peerings.json", {"VpcPeeringConnections": [peering]}),
        ("lists.json", {"PrefixLists": [{"PrefixListId": each, "PrefixListName": each} for each in LISTS]}),
        *((f"{name}.json", {"Entries": [{"Cidr": cidr} for cidr in cidrs]}) for name, cidrs in ENTRIES.items()),
    ]  # fmt: skip
    files = [Source(name, value) for name, value in rng.sample(sections, rng.randrange(1, len(sections) + 1))]
    there = [source.file.removesuffix(".json") for source in files]
    with_rules = {each["GroupId"] for source in files for each in section(source, "SecurityGroupRules")}
    known = with_rules | {name for name in GROUPS if name in there}
    lists = {name: {cidr.count(":") > 0 for cidr in ENTRIES[name]} for name in LISTS if name in there}
    ids = {each["Description"] for source in files for each in section(source, "SecurityGroupRules")}
    in_files = [each for each in rules if each[1] in there or each[0] in ids]
    refers = {other for description, _, kind, other in in_files if kind == "group" and description not in stale}
    interfaces = [each for source in files for each in section(source, "NetworkInterfaces")]
    for source in files:
        for reservation in section(source, "Reservations"):
            interfaces += [each for instance in reservation["Instances"] for each in instance["NetworkInterfaces"]]
    members = {each["GroupId"] for interface in interfaces for each in interface["Groups"]}
    placed = {each["VpcId"] for source in files for each in section(source, "Subnets")}
    return Part(
        files,
        Counter({
            description: BOTH if kind == "group" else len(lists.get(other, (4, 6))) if kind == "list" else 1
            for description, _, kind, other in in_files
        }),
        (refers | members) - known | {other for *_, kind, other in in_files if kind == "list" and other not in lists},
        set(VPCS) - placed if len(set(regions)) > 1 else set(), sum(bool(each["Groups"]) for each in interfaces),
    )  # fmt: skip


def section(source: Source, name: str) -> list[dict[str, Any]]:
    assert isinstance(source.value, dict)
    found: list[dict[str, Any]] = source.value.get(name, [])
    return found


# OTC -----------------------------------------------------------------------------------------------------------------


def neutron(rng: random.Random) -> Part:
    """OTC's API without what OTC added to it."""
    return otc(rng, is_neutron=True)


def otc(rng: random.Random, *, is_neutron: bool = False) -> Part:
    rules = account_of(rng, ("group", "list", "v4", "v6"))
    subnets = ["subnet-0", "subnet-1", "subnet-2"]

    def rule(description: str, of: str, kind: str, other: str) -> dict[str, Any]:
        peer = {"group": "remote_group_id", "list": "remote_address_group_id"}.get(kind, "remote_ip_prefix")
        number = port_of(description)
        made: dict[str, Any] = {
            "id": f"r{number}", "security_group_id": of, "direction": "egress" if number % 3 else "ingress",
            "ethertype": "IPv6" if kind == "v6" else "IPv4", "protocol": "tcp", "description": description, peer: other,
        }  # fmt: skip
        if is_neutron:
            return made | {"port_range_min": number, "port_range_max": number}
        action = "deny" if number % 5 == 0 else "allow"
        return made | {"multiport": str(number), "priority": 1, "action": action, "enabled": number % 4 > 0}

    def port(n: int) -> dict[str, Any]:
        return {
            "id": f"port-{n}", "name": "", "network_id": rng.choice(subnets), "device_owner": "compute:eu-de-01",
            "fixed_ips": [{"ip_address": f"10.0.0.{n}"}], "security_groups": [rng.choice(GROUPS)],
        }  # fmt: skip

    addresses = "addresses" if is_neutron else "ip_set"
    sections: list[tuple[str, dict[str, Any]]] = [
        ("vpcs.json", {"vpcs": [{"id": each, "name": each} for each in VPCS]}),
        ("subnets.json", {"subnets": some_of(rng, [
            {"id": each, "name": each, "vpc_id": vpc} for each, vpc in zip(subnets, VPCS, strict=True)])}),
        ("peerings.json", {"peerings": [
            {"id": "p", "request_vpc_info": {"vpc_id": "vpc-0"}, "accept_vpc_info": {"vpc_id": "vpc-1"}}
        ]}),
        ("ports.json", {"ports": some_of(rng, [port(n) for n in range(1, 5)])}),
    ]  # fmt: skip
    if is_neutron:
        sections = sections[-1:]
    for name in GROUPS:
        made = [rule(*each) for each in rules if each[1] == name]
        group = {"id": name, "name": name, "security_group_rules": made}
        sections.append((f"{name}.json", {"security_groups": [group]}))
        sections.append((f"{name}-rules.json", {"security_group_rules": some_of(rng, made)}))
    for name in LISTS:
        sections.append((f"{name}.json", {"address_groups": [{"id": name, "name": name, addresses: ["192.0.2.1"]}]}))
    files = [Source(name, value) for name, value in rng.sample(sections, rng.randrange(1, len(sections) + 1))]
    loose = [each for source in files for each in section(source, "security_group_rules")]
    listed = [each for source in files for each in section(source, "security_groups")]
    inside = [each for group in listed for each in group["security_group_rules"]]
    ports = [each for source in files for each in section(source, "ports")]
    groups = {each["id"] for each in listed}
    # If no file lists groups, the rules are all that is known of them.
    groups = groups or {each["security_group_id"] for each in loose}
    lists = {each["id"] for source in files for each in section(source, "address_groups")}
    enabled = [each for each in (*loose, *inside) if each.get("enabled", True)]
    refers = {each["remote_group_id"] for each in enabled if "remote_group_id" in each}
    refers |= {each["security_group_id"] for each in enabled} | {each["security_groups"][0] for each in ports}
    refers_to_lists = {each["remote_address_group_id"] for each in enabled if "remote_address_group_id" in each}
    placed = {each["id"] for source in files for each in section(source, "subnets")}
    return Part(
        files, Counter(dict.fromkeys((each["description"] for each in (*loose, *inside)), 1)),
        (refers - groups) | (refers_to_lists - lists),
        set() if is_neutron
        else {each["network_id"] for each in ports} - placed | ({"add the subnets"} if not placed else set()),
        len(ports),
    )  # fmt: skip


# Terraform -----------------------------------------------------------------------------------------------------------

RULE_TYPES = ("aws_security_group_rule", "aws_vpc_security_group_ingress_rule", "aws_vpc_security_group_egress_rule")


def infrastructure(rng: random.Random, rules: list[tuple[str, str, str, str]]) -> dict[str, Resource]:
    """Resources by address."""
    made: dict[str, Resource] = {}

    def add(address: str, **values: Any) -> None:
        made[address] = resource(address, **values)

    inline: dict[str, dict[str, list[Any]]] = {name: {"ingress": [], "egress": []} for name in GROUPS}
    for description, of, kind, other in rules:
        number = port_of(description)
        own = rng.choice(("", *RULE_TYPES))
        ingress = own == RULE_TYPES[1] or (own != RULE_TYPES[2] and number % 2 > 0)
        peers = {
            "cidr_blocks": [other] if kind == "v4" else [], "ipv6_cidr_blocks": [other] if kind == "v6" else [],
            "prefix_list_ids": [other] if kind == "list" else [],
        }  # fmt: skip
        ports = {"from_port": number, "to_port": number, "description": description}
        if not own or rng.random() < 0.5:
            # A group that exists shows rules that are resources of their own, too.
            shown = {"protocol": "tcp", "self": False, "security_groups": [other] if kind == "group" else []}
            inline[of]["ingress" if ingress else "egress"].append(ports | peers | shown)
        if own == "aws_security_group_rule":
            add(f"{own}.r{number}", id=f"sgrule-{number}", security_group_id=of, protocol="tcp",
                type="ingress" if ingress else "egress", self=False, **ports, **peers,
                source_security_group_id=other if kind == "group" else None)  # fmt: skip
        elif own:
            add(f"{own}.r{number}", id=f"sgr-{number}", security_group_id=of, ip_protocol="tcp",
                **ports, cidr_ipv4=other if kind == "v4" else None, cidr_ipv6=other if kind == "v6" else None,
                prefix_list_id=other if kind == "list" else None,
                referenced_security_group_id=other if kind == "group" else None)  # fmt: skip
    for n, name in enumerate(GROUPS):
        add(f"aws_security_group.{name}", id=name, name=name, vpc_id=VPCS[n % 3], **inline[name])
    for name, cidrs in ENTRIES.items():
        add(f"aws_ec2_managed_prefix_list.{name}", id=name, name=name, entry=[{"cidr": cidr} for cidr in cidrs])
    for vpc in VPCS:
        add(f"aws_vpc.{vpc}", id=vpc)
        add(f"aws_subnet.{vpc}", id=f"subnet-of-{vpc}", vpc_id=vpc)
    add("aws_vpc_peering_connection.p", id="pcx-1", vpc_id="vpc-0", peer_vpc_id="vpc-1", accept_status="active")
    for n in range(1, 4):
        add(f"aws_network_interface.n{n}", id=f"eni-{n}", private_ips=[f"10.0.0.{n}"], subnet_id="subnet-of-vpc-0",
            security_groups=rng.sample(GROUPS, rng.randrange(1, 3)))  # fmt: skip
    return made


def of_resources(resources: Iterable[Resource]) -> tuple[Counter[str], set[str]]:
    """The rules of resources, and the ids that they refer to and none of them has."""
    there = {each["address"].partition(".")[2] for each in resources if "rule" not in each["type"]}
    rules: Counter[str] = Counter()
    refers: set[str] = set()
    for each in resources:
        values = each["values"]
        group = values.get("security_group_id")
        items = [*values.get("ingress", ()), *values.get("egress", ()), *[values] * (each["type"] in RULE_TYPES)]
        refers |= {group} | (set(values["security_groups"]) if "private_ips" in values else set())
        for item in items:
            keys = ("source_security_group_id", "referenced_security_group_id", "prefix_list_id")
            peers = [item.get(key) for key in keys]
            peers += [*item.get("security_groups", ()), *item.get("prefix_list_ids", ())]
            peer = next(filter(None, peers), "")
            families = {cidr.count(":") > 0 for cidr in ENTRIES.get(peer, ())} if peer in there else ()
            rules[item["description"]] = len(families) or (BOTH if peer else 1)
            refers.add(peer)
    return rules, {name for name in refers if isinstance(name, str) and name} - there


def terraform_states(rng: random.Random) -> Part:
    made = infrastructure(rng, account_of(rng, ("group", "list", "v4", "v6")))
    resources = [each for each in made.values() if rng.random() < rng.choice((0.85, 1))]
    files = [[each for each in resources if rng.random() < 0.5]]
    files.append([each for each in resources if each not in files[0]])
    files = [file for file in files if file] if rng.random() < 0.5 else [resources]
    form = rng.choice((state, state_file))
    sources = [Source(f"{n}.json", form(*file)) for n, file in enumerate(files)]
    rules, missing = of_resources(resources)
    return Part(sources, rules, missing, set(), interfaces_in(resources), len(files) > 1)


def interfaces_in(resources: Iterable[Resource]) -> int:
    return sum(each["type"] == "aws_network_interface" for each in resources)


# CloudFormation ------------------------------------------------------------------------------------------------------


def cloudformation(rng: random.Random) -> Part:
    """Two templates. Of each other's groups they know the exports, of strangers' groups the ids."""
    rules = account_of(rng, ("group", "list", "v4", "v6"))
    templates: list[dict[str, Any]] = [{}, {}]
    place = {name: n % 2 for n, name in enumerate((*GROUPS, *LISTS))}
    gone = {name for name in place if rng.random() < rng.choice((0, 0.2))}

    def logical(name: str) -> str:
        return name.replace("-", "")

    def mention(name: str, at: int) -> Any:
        if place[name] != at:
            return {"Fn::ImportValue": f"the-{name}"}
        return rng.choice([{"Ref": logical(name)}, {"Fn::GetAtt": f"{logical(name)}.GroupId"}])

    for name, at in place.items():
        if name in gone:
            continue
        if name in LISTS:
            properties: dict[str, Any] = {"PrefixListName": name, "Entries": [{"Cidr": cidr} for cidr in ENTRIES[name]]}
        else:
            properties = {"GroupDescription": name, "VpcId": "vpc-0"}
        kind = "PrefixList" if name in LISTS else "SecurityGroup"
        templates[at][logical(name)] = {"Type": f"AWS::EC2::{kind}", "Properties": properties}
    counted: Counter[str] = Counter()
    mentioned: list[tuple[str, int]] = []
    for description, of, kind, other in rules:
        number, at, way = port_of(description), place[of], rng.choice(("Ingress", "Egress"))
        end = "Source" if way == "Ingress" else "Destination"
        key = {"group": f"{end}SecurityGroupId", "list": f"{end}PrefixListId", "v4": "CidrIp", "v6": "CidrIpv6"}[kind]
        value = mention(other, at) if kind in ("group", "list") else other
        if kind == "list" and place[other] == at:
            value = {"Ref": logical(other)}
        rule = {"IpProtocol": "tcp", "FromPort": number, "ToPort": number, "Description": description, key: value}
        if of not in gone and rng.random() < 0.5:
            templates[at][logical(of)]["Properties"].setdefault(f"SecurityGroup{way}", []).append(rule)
        else:
            rule["GroupId"] = mention(of, at)
            templates[at][f"R{number}"] = {"Type": f"AWS::EC2::SecurityGroup{way}", "Properties": rule}
            mentioned.append((of, at))
        families = {cidr.count(":") > 0 for cidr in ENTRIES.get(other, ())} if other not in gone else ()
        counted[description] = len(families) or (BOTH if kind in ("group", "list") else 1)
        mentioned += [(other, at)] * (kind in ("group", "list"))
    for n in range(2):
        group = rng.choice(GROUPS)
        card = {"PrivateIpAddress": f"10.0.0.{n}", "GroupSet": [mention(group, n)]}
        templates[n]["Card"] = {"Type": "AWS::EC2::NetworkInterface", "Properties": card}
        mentioned.append((group, n))
    there = [0, 1] if rng.random() < 0.6 else [rng.randrange(2)]
    files = [
        Source(f"{at}.json", {"AWSTemplateFormatVersion": "2010-09-09", "Resources": templates[at], "Outputs": {
            f"Out{logical(name)}": {"Value": {"Ref": logical(name)}, "Export": {"Name": f"the-{name}"}}
            for name in place if place[name] == at and name not in gone
        }})
        for at in there
    ]  # fmt: skip
    by_template = {description: place[of] for description, of, *_ in rules}
    mentioned = [(name, at) for name, at in mentioned if at in there]
    known = {name for name in place if place[name] in there} - gone
    return Part(
        files,
        Counter({
            each: count if place.get(other, at) in there or kind not in ("group", "list") else BOTH
            for (each, count), (_, of, kind, other) in zip(counted.items(), rules, strict=True)
            if (at := by_template[each]) in there
        }),
        {f"the-{name}" for name, at in mentioned if name not in known and place[name] != at},
        {logical(name) for name, at in mentioned if name in gone and place[name] == at}, len(there),
    )  # fmt: skip


# Tests of all providers -----------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[random.Random], Part]] = {
    "aws": aws, "otc": otc, "terraform states": terraform_states, "cloudformation": cloudformation, "neutron": neutron,
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_any_part_of_an_account_is_imported_whole_or_names_what_is_missing(name: str) -> None:
    seed = 20261127
    print("seed", seed)
    rng = random.Random(seed)
    tries = some(40, 2000)
    became = Counter(check(name.partition(" ")[0], PARTS[name](rng)) for _ in range(tries))
    print(became)
    assert became["whole"] >= 3 and became["missing"] >= tries // 5, became


def test_a_rule_that_lost_its_peer_is_told() -> None:
    permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    group = {"GroupId": "sg-0", "GroupName": "web", "IpPermissions": [permission], "IpPermissionsEgress": []}
    own = resource("aws_security_group_rule.r", security_group_id="sg-0", type="ingress", protocol="tcp", from_port=22,
                   to_port=22)  # fmt: skip
    web = resource("aws_security_group.web", id="sg-0", name="web", vpc_id="vpc-0", ingress=[], egress=[])
    for form, document in (("aws", {"SecurityGroups": [group]}), ("terraform", state(web, own))):
        notes = import_sources([Source("a.json", document)], form).draft.made.notes
        assert any(note.startswith("Left out because it names no addresses and no group: ") for note in notes), notes

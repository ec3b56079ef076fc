"""Imports the output of aws ec2 describe-…; the meaning of each export is written down as verdicts."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from exports import imported_files, means

from sgfast.base.errors import PolicyError
from sgfast.policy.model import Policy

ROOT = Path(os.environ.get("SGFAST_CORPUS") or Path(__file__).parents[2] / ".." / "shared" / "corpus").resolve()
ACCOUNT = ROOT / "rules" / "cloudmapper" / "account-data" / "demo" / "us-east-1"


def permission(protocol: str, first: int | None = None, last: int | None = None, **peers: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"IpProtocol": protocol, "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": []}
    if first is not None:
        made |= {"FromPort": first, "ToPort": last}
    return made | {"UserIdGroupPairs": []} | peers


def cidr(*texts: str) -> dict[str, Any]:
    return {
        "IpRanges": [{"CidrIp": text} for text in texts if ":" not in text],
        "Ipv6Ranges": [{"CidrIpv6": text} for text in texts if ":" in text],
    }


def pair(group: str, **more: str) -> dict[str, Any]:
    return {"UserIdGroupPairs": [{"GroupId": group, "UserId": "111122223333"} | more]}


def group(group_id: str, name: str, inbound: list[Any], outbound: list[Any] | None = None, vpc: str = "vpc-a") -> Any:
    everywhere = [permission("-1", **cidr("0.0.0.0/0", "::/0"))]
    return {
        "GroupId": group_id, "GroupName": name, "Description": f"{name} group", "VpcId": vpc, "OwnerId": "111122223333",
        "IpPermissions": inbound, "IpPermissionsEgress": everywhere if outbound is None else outbound, "Tags": [],
    }  # fmt: skip


def interface(eni: str, name: str, addresses: list[str], groups: list[str], vpc: str = "vpc-a", **more: Any) -> Any:
    return {
        "NetworkInterfaceId": eni, "VpcId": vpc, "SubnetId": "subnet-1", "TagSet": [{"Key": "Name", "Value": name}],
        "Groups": [{"GroupId": each, "GroupName": each} for each in groups],
        "PrivateIpAddresses": [{"PrivateIpAddress": each} for each in addresses if ":" not in each],
        "Ipv6Addresses": [{"Ipv6Address": each} for each in addresses if ":" in each],
    } | more  # fmt: skip


def account() -> dict[str, Any]:
    """A web server and its database in one VPC, a runner in a peered one, a stranger in a third."""
    return {
        "SecurityGroups": [
            group("sg-web", "web", [
                permission("tcp", 80, 80, **cidr("0.0.0.0/0", "::/0")),
                permission("6", 22, 22, **cidr("198.51.100.0/24", "203.0.113.7/32")),
                permission("tcp", 9100, 9100, PrefixListIds=[{"PrefixListId": "pl-0123456789abcdef0"}]),
                permission("icmp", 8, -1, **cidr("0.0.0.0/0")),
                permission("58", 128, 0, **cidr("::/0")),
                permission("50", 0, 0, **cidr("198.51.100.0/24")),
            ]),
            group("sg-db", "db", [
                permission("tcp", 5432, 5433, **pair("sg-web")),
                permission("-1", **pair("sg-run", VpcId="vpc-b", PeeringStatus="active")),
                permission("-1", -1, -1, **pair("sg-db")),
            ], []),
            group("sg-run", "run", [permission("udp", 0, 65535, **cidr("10.0.0.0/8"))], vpc="vpc-b"),
        ],
        "NetworkInterfaces": [
            interface("eni-1", "web-1", ["10.0.0.5", "2001:db8::5"], ["sg-web"]),
            interface("eni-2", "db-1", ["10.0.0.6", "10.0.0.7"], ["sg-db"], Ipv4Prefixes=[
                {"Ipv4Prefix": "10.0.9.0/28"},
            ]),
            interface("eni-3", "run-1", ["10.1.0.5"], ["sg-run"], "vpc-b"),
            interface("eni-4", "", ["10.2.0.5"], ["sg-run"], "vpc-c"),
            interface("eni-5", "nat", ["10.0.0.9"], [], InterfaceType="nat_gateway"),
        ],
        "VpcPeeringConnections": [
            {
                "VpcPeeringConnectionId": "pcx-1", "Status": {"Code": "active", "Message": "Active"},
                "RequesterVpcInfo": {"VpcId": "vpc-a", "Region": "eu-west-1"},
                "AccepterVpcInfo": {"VpcId": "vpc-b", "Region": "eu-west-1"},
            },
            {
                "VpcPeeringConnectionId": "pcx-2", "Status": {"Code": "deleted"},
                "RequesterVpcInfo": {"VpcId": "vpc-a"}, "AccepterVpcInfo": {"VpcId": "vpc-c"},
            },
        ],
        "PrefixLists": [
            {"PrefixListId": "pl-0123456789abcdef0", "PrefixListName": "monitors", "AddressFamily": "IPv4"},
            {"PrefixListId": "pl-63a5400a", "PrefixListName": "com.amazonaws.eu-west-1.s3", "AddressFamily": "IPv4"},
        ],
    }  # fmt: skip


ENTRIES = {"Entries": [{"Cidr": "192.0.2.16/28", "Description": "probes"}]}
NAMED_ENTRIES = ENTRIES | {"PrefixListId": "pl-0123456789abcdef0"}
FILES = [("account.json", account()), ("pl-0123456789abcdef0.json", ENTRIES)]

#: The meaning of the account: source, destination, protocol, destination port or (ICMP type, code), and reason.
MEANING = [
    ("192.0.2.1", "10.0.0.5", "tcp", 80, "rule"),
    ("2001:db8:1::1", "2001:db8::5", "tcp", 80, "rule"),
    ("192.0.2.1", "10.0.0.5", "tcp", 443, "no-rule"),
    ("198.51.100.9", "10.0.0.5", "tcp", 22, "rule"),
    ("203.0.113.7", "10.0.0.5", "tcp", 22, "rule"),
    ("203.0.113.8", "10.0.0.5", "tcp", 22, "no-rule"),
    ("192.0.2.17", "10.0.0.5", "tcp", 9100, "rule"),
    ("192.0.2.33", "10.0.0.5", "tcp", 9100, "no-rule"),
    ("192.0.2.1", "10.0.0.5", "icmp", (8, 0), "rule"),
    ("192.0.2.1", "10.0.0.5", "icmp", (13, 0), "no-rule"),
    ("2001:db8:1::1", "2001:db8::5", "icmpv6", (128, 0), "rule"),
    ("2001:db8:1::1", "2001:db8::5", "icmpv6", (128, 1), "no-rule"),
    ("198.51.100.9", "10.0.0.5", "esp", 0, "rule"),
    ("198.51.100.9", "10.0.0.5", "gre", 0, "no-rule"),
    # By group: all addresses of a member, including those in a peered VPC.
    ("10.0.0.5", "10.0.0.7", "tcp", 5432, "rule"),
    ("10.0.0.5", "10.0.9.3", "tcp", 5433, "rule"),
    ("10.0.0.5", "10.0.0.6", "tcp", 5434, "no-rule"),
    ("10.1.0.5", "10.0.0.6", "udp", 53, "rule"),
    ("10.2.0.5", "10.0.0.6", "udp", 53, "vpc-isolated"),
    ("10.0.0.6", "10.0.0.5", "tcp", 80, "no-rule"),  # the database may not send anything
    ("10.0.0.5", "10.1.0.5", "udp", 9, "rule"),
    ("10.9.9.9", "10.1.0.5", "udp", 65535, "rule"),
    ("10.9.9.9", "10.1.0.5", "tcp", 9, "no-rule"),
    ("192.0.2.1", "10.0.0.9", "tcp", 80, None),  # the NAT gateway is not filtered
]


def policy_of(*files: tuple[str, Any]) -> Policy:
    return imported_files(*files).policy()


def test_an_account_means_what_its_permissions_say() -> None:
    export = imported_files(*FILES)
    policy = export.policy()
    assert (export.format.name, policy.settings.profile) == ("aws", "aws")
    means(export, MEANING)
    assert [instance.name for instance in policy.instances] == ["web-1", "db-1", "run-1", "eni-4"]
    assert policy.warnings == (
        "Not an instance because no security group filters it: network interface 'nat' (eni-5).",
        "Peers nothing because it is not active: VPC peering connection pcx-2.",
    )


@pytest.mark.parametrize("status", ["pending-acceptance", "provisioning", "deleted", "expired"])
def test_a_peering_that_is_not_active_is_told_once(status: str) -> None:
    document = account()
    document["VpcPeeringConnections"][1]["Status"]["Code"] = status
    # Each of two regions lists it.
    policy = policy_of(("here.json", document), FILES[1], ("there.json", document))
    assert len(policy.peerings) == 1
    assert "Peers nothing because it is not active: VPC peering connection pcx-2." in policy.warnings


def test_entries_may_stand_in_their_list_or_beside_its_id() -> None:
    inside = account()
    inside["PrefixLists"][0] |= ENTRIES
    older = account()
    older["PrefixLists"][0]["Cidrs"] = ["192.0.2.16/28"]
    for files in ([("a", inside)], [("a", account()), ("b", NAMED_ENTRIES)], [("a", older)]):
        means(imported_files(*files), MEANING)


def test_an_instance_names_its_first_interface() -> None:
    first, second = (
        interface(f"eni-{n}", "", [f"10.0.0.{n}"], ["sg-1"], Attachment={"InstanceId": "i-1", "DeviceIndex": n - 1})
        for n in (1, 2)
    )
    document = {
        "SecurityGroups": [group("sg-1", "one", [])],
        "Reservations": [{"Instances": [
            {"InstanceId": "i-1", "Tags": [{"Key": "Name", "Value": "web"}], "NetworkInterfaces": [first, second]},
            {
                "InstanceId": "i-2", "VpcId": "vpc-a", "PrivateIpAddress": "10.0.0.8",
                "SecurityGroups": [{"GroupId": "sg-1"}],
            },
            {"InstanceId": "i-3", "State": {"Name": "terminated"}, "NetworkInterfaces": []},
        ]}],
        "NetworkInterfaces": [first],
    }  # fmt: skip
    assert [instance.name for instance in policy_of(("a", document)).instances] == ["i-2", "web", "eni-2"]


def test_what_is_in_no_vpc_is_left_out_with_a_warning() -> None:
    """EC2-Classic: neither the group nor the interface has a VPC."""
    document = account()
    classic = interface("eni-9", "old", ["10.9.0.1"], ["sg-web"])
    del classic["VpcId"]
    document["NetworkInterfaces"].append(classic)
    document["SecurityGroups"].append(group("sg-old", "old", [permission("tcp", 22, 22, **cidr("0.0.0.0/0"))]))
    del document["SecurityGroups"][-1]["VpcId"]
    export = imported_files(("a", document), FILES[1])
    means(export, MEANING)
    assert (
        "Left out because it is in no VPC (EC2-Classic), which a policy cannot express: "
        "network interface 'old' (eni-9)."
    ) in export.policy().warnings


def test_groups_and_interfaces_of_other_accounts_mean_what_they_say() -> None:
    """A VPC that is shared: its subnets hold interfaces of another account, whose groups and rules name both."""
    document = account()
    shared = group("sg-shared", "shared", [permission("tcp", 53, 53, **pair("sg-web", UserId="444455556666"))])
    document["SecurityGroups"].append(shared | {"OwnerId": "444455556666"})
    guest = interface("eni-8", "guest", ["10.0.0.30"], ["sg-shared"], OwnerId="444455556666", RequesterManaged=True)
    document["NetworkInterfaces"].append(guest)
    meaning = [("10.0.0.5", "10.0.0.30", "tcp", 53, "rule"), ("10.0.0.6", "10.0.0.30", "tcp", 53, "no-rule")]
    means(imported_files(("a", document), FILES[1]), [*MEANING, *meaning])


def entry(
    number: int, cidr: str, action: str = "allow", *, egress: bool = False, protocol: str = "-1"
) -> dict[str, Any]:
    """A rule of a network ACL."""
    key = "Ipv6CidrBlock" if ":" in cidr else "CidrBlock"
    return {"RuleNumber": number, key: cidr, "RuleAction": action, "Egress": egress, "Protocol": protocol}


def acl(acl_id: str, *inbound: dict[str, Any], subnets: int = 1, **more: Any) -> dict[str, Any]:
    outbound = [entry(100, "0.0.0.0/0", egress=True), entry(32767, "0.0.0.0/0", "deny", egress=True)]
    return {
        "NetworkAclId": acl_id, "VpcId": "vpc-a", "IsDefault": False, "Entries": [*inbound, *outbound],
        "Associations": [{"SubnetId": f"subnet-{n}", "NetworkAclId": acl_id} for n in range(subnets)],
    } | more  # fmt: skip


def test_a_network_acl_that_may_deny_something_is_told_and_no_other() -> None:
    everything, nothing = entry(100, "0.0.0.0/0"), entry(32767, "0.0.0.0/0", "deny")
    sixes = [entry(101, "::/0"), entry(32768, "::/0", "deny")]
    harmless = [
        acl("acl-a", nothing, everything), acl("acl-b", everything, nothing, *sixes), acl("acl-c", nothing, subnets=0),
    ]  # fmt: skip
    assert not any("ACL" in warning for warning in policy_of(("a", account()), FILES[1], ("acls", harmless)).warnings)
    strict = [
        acl("acl-1", nothing), acl("acl-2", entry(50, "192.0.2.0/24", "deny"), everything, nothing),
        acl("acl-3", entry(100, "0.0.0.0/0", protocol="6"), nothing), acl("acl-4", everything, sixes[1]),
        acl("acl-5", everything, nothing, Entries=[everything]), acl("acl-6", entry(100, "10.0.0.0/8"), nothing),
    ]  # fmt: skip
    document = account() | {"NetworkAcls": [*harmless, *strict]}
    export = imported_files(("a", document), FILES[1])
    means(export, MEANING)
    assert (
        "Network ACLs (6) are not applied, so traffic that is reported as allowed may be denied by one: network ACL "
        "acl-1, network ACL acl-2, network ACL acl-3, network ACL acl-4, network ACL acl-5 and 1 more."
    ) in export.policy().warnings


def test_load_balancers_and_nat_gateways_are_told_once() -> None:
    document = account()
    del document["VpcPeeringConnections"][1]
    document["NetworkInterfaces"] += [
        interface("eni-6", "", ["10.0.0.20"], ["sg-web"], Description="ELB app/shop/0123456789abcdef"),
        interface("eni-7", "", ["10.0.0.21"], [], InterfaceType="network_load_balancer"),
    ]
    told = "count as their network interfaces, and what they pass on usually comes from the addresses of these"
    by_interface = policy_of(("a", document), FILES[1]).warnings
    called = "network interface 'ELB app/shop/0123456789abcdef' (eni-6), network interface eni-7"
    assert f"Load balancers (2) {told}: {called}." in by_interface
    arn = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/shop/0123456789abcdef"
    document["LoadBalancers"] = [{"LoadBalancerArn": arn, "LoadBalancerName": "shop", "SecurityGroups": ["sg-web"]}]
    classic = [{"LoadBalancerName": "old", "ListenerDescriptions": [], "SecurityGroups": ["sg-web"], "Instances": []}]
    gateways = [
        {"NatGatewayId": "nat-1", "VpcId": "vpc-a", "NatGatewayAddresses": [{"NetworkInterfaceId": "eni-5"}]},
        {"NatGatewayId": "nat-2", "VpcId": "vpc-a", "State": "deleted", "NatGatewayAddresses": []},
    ]
    files = [("a", document), FILES[1], ("elb", classic), ("nat", {"NatGateways": gateways}), ("nat", gateways)]
    export = imported_files(*files)
    means(export, MEANING)
    assert [warning for warning in export.policy().warnings if "Left out" not in warning] == [
        "Not an instance because no security group filters it: network interface eni-7.",
        f"Load balancers (2) {told}: load balancer shop, load balancer old.",
        "NAT gateways (1) have no security groups and are no instances: NAT gateway nat-1.",
    ]


def test_regions_are_said_where_vpcs_are_in_several() -> None:
    document = account() | {"Subnets": [{"SubnetId": "s", "VpcId": "vpc-c", "AvailabilityZone": "us-west-2-lax-1a"}]}
    policy = policy_of(("a", document), FILES[1])
    assert {vpc.name: vpc.region for vpc in policy.vpcs} == {
        "vpc-a": "eu-west-1", "vpc-b": "eu-west-1", "vpc-c": "us-west-2",
    }  # fmt: skip
    document["SecurityGroups"].append(group("sg-9", "elsewhere", [], vpc="vpc-d"))
    with pytest.raises(PolicyError, match=r"VPC vpc-d: its region is unknown"):
        policy_of(("a", document), FILES[1])


def test_icmp_of_the_other_ip_version_matches_nothing() -> None:
    odd = [
        permission("icmp", -1, -1, **cidr("::/0")), permission("icmpv6", **cidr("0.0.0.0/0")),
        permission("1", **pair("sg-1")),
    ]  # fmt: skip
    policy = policy_of(("a", {"SecurityGroups": [group("sg-1", "one", odd, [])]}))
    assert [(rule.ethertype, rule.protocol) for rule in policy.security_groups[0].rules] == [(4, 1)]
    assert "matches no packet" in policy.warnings[0]


WEB, DB = ("SecurityGroups", 0), ("SecurityGroups", 1)
OTHER_WEB = [group("sg-web", "web", [])]
MOVED = [interface("eni-1", "web-1", ["10.0.0.99"], ["sg-web"])]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((*DB, "IpPermissions", 0), pair("sg-none", UserId="9", VpcPeeringConnectionId="pcx-7"),
         r"none of the files: security group 'sg-none', account '9', peering 'pcx-7' \(see "
         r"account\.json: security group 'db' \(sg-db\), IpPermissions\[0\], UserIdGroupPairs\[0\]\)"),
        ((*DB, "IpPermissions", 0), {"UserIdGroupPairs": [{"GroupName": "amazon-elb-sg", "UserId": "amazon-elb"}]},
         r"none of the files: security group 'amazon-elb-sg', .*account 'amazon-elb' \(see account\.json"),
        ((*WEB, "IpPermissions", 2, "PrefixListIds"), [{"PrefixListId": "pl-63a5400a"}],
         r"prefix list 'pl-63a5400a' \(see account\.json: .*\[2\], PrefixListIds\[0\]\)"),
        (("PrefixLists", 0), {"Entries": [{"Cidr": "192.0.2.0/28"}]},
         r"prefix list 'monitors' \(pl-0123456789abcdef0\).*differs from its entry in account\.json"),
        (("NetworkInterfaces", 0), {"Groups": [{"GroupId": "sg-none"}]},
         r"security group 'sg-none' \(see account\.json: network interface 'web-1' \(eni-1\)\)"),
        ((*WEB, "IpPermissions", 0), {"IpProtocol": "tpc"},
         r"'web' \(sg-web\), IpPermissions\[0\]: unknown protocol 'tpc'"),
        ((*WEB, "IpPermissions", 0), {"ToPort": 70}, r"IpPermissions\[0\]: 80 to 70 is not a range of ports"),
        ((*WEB, "IpPermissions", 0), {"ToPort": None}, r"80 to nothing is not a range of ports"),
        ((*WEB, "IpPermissions", 3), {"FromPort": -1, "ToPort": 3}, r"\[3\]: has an ICMP code \(3\) without a type"),
        ((*WEB, "IpPermissions", 3), {"FromPort": 300}, r"IpPermissions\[3\]: 300 is not an ICMP type"),
        ((*WEB, "IpPermissions", 0), {"SomethingIds": ["x"]}, r"IpPermissions\[0\]: unknown key 'SomethingIds'"),
        ((), {"NextToken": "eyJ"}, r"account\.json: AWS output: NextToken is set, so the list is incomplete"),
        ((*WEB, "IpPermissions", 0, "IpRanges", 0), {"CidrIp": "300.0.0.0/8"},
         r"IpPermissions\[0\], IpRanges\[0\]: '300\.0\.0\.0/8'"),
        ((*WEB, "IpPermissions", 0, "IpRanges", 0), {"CidrIp": "::/0"}, r"is an IPv4 rule, but ::/0 is IPv6"),
        (("NetworkInterfaces", 1, "PrivateIpAddresses", 0), {"PrivateIpAddress": "10.0.0.5"},
         r"10\.0\.0\.5 is an address of both network interface 'web-1' \(eni-1\) and"),
        (None, ("entries.json", ENTRIES), r"entries\.json: AWS output: Entries do not name their prefix list"),
        (None, ("later.json", OTHER_WEB),
         r"later\.json: security group 'web' \(sg-web\): differs from its entry in account\.json"),
        (None, ("later.json", MOVED),
         r"later\.json: network interface 'web-1' \(eni-1\): differs from its entry in account\.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error_by_name(place: Sequence[str | int] | None, value: Any, message: str) -> None:
    """``value`` is what changes in the account at a place, or a file beside it."""
    document: Any = account()
    files = [("account.json", document), FILES[1]]
    if place is None:
        files.append(value)
    else:
        for key in place:
            document = document[key]
        if isinstance(document, list):
            document[:] = value
        else:
            document |= value
    with pytest.raises(PolicyError, match=message) as caught:
        policy_of(*files)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(not ACCOUNT.exists(), reason="no corpus here (set SGFAST_CORPUS)")
def test_the_account_of_cloudmapper() -> None:
    files = [(path.name, json.loads(path.read_text())) for path in sorted(ACCOUNT.glob("*.json"))]
    assert len(files) == 5
    export = imported_files(*files)
    policy = export.policy()
    assert [vpc.name for vpc in policy.vpcs] == ["Prod"]
    assert [instance.name for instance in policy.instances] == ["Bastion", "Web1", "Web2", "eni-00000001"]
    assert len(policy.security_groups) == 8
    meaning = [
        ("1.1.1.1", "10.0.0.1", "tcp", 22, "rule"),
        ("2.2.2.9", "10.0.0.1", "tcp", 22, "rule"),  # written 2.2.2.2/28
        ("2.2.2.16", "10.0.0.1", "tcp", 22, "no-rule"),
        ("10.0.0.1", "10.0.2.1", "tcp", 8000, "rule"),
        ("10.0.3.1", "10.0.2.1", "tcp", 8000, "no-rule"),
        ("10.0.0.1", "172.31.48.168", "tcp", 22, "rule"),
        ("192.0.2.1", "172.31.48.168", "tcp", 443, "rule"),
        ("10.0.2.1", "192.0.2.1", "tcp", 443, "rule"),
    ]
    means(export, meaning)

"""Imports CloudFormation templates; the meaning of each is written down as verdicts (SPEC 10.17)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exports import allowed, means
from test_import_cloudformation_values import read

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.sources import source_of
from sgfast.clouds.loading import load_policy
from sgfast.policy.model import Policy

#: A web server and a database in one VPC, a runner in a peered one, a stranger in a third.
SHOP = """
AWSTemplateFormatVersion: 2010-09-09
Parameters:
  Admins: {Type: String, Default: 198.51.100.0/24}
  Env: {Type: String, Default: prod, AllowedValues: [prod, test]}
Conditions:
  IsProd: !Equals [!Ref Env, prod]
  IsTest: !Not [!Condition IsProd]
Resources:
  Vpc:
    Type: AWS::EC2::VPC
    Properties: {CidrBlock: 10.0.0.0/16, Tags: [{Key: Name, Value: shop}]}
  OtherVpc: {Type: 'AWS::EC2::VPC', Properties: {CidrBlock: 10.1.0.0/16}}
  ThirdVpc: {Type: 'AWS::EC2::VPC', Properties: {CidrBlock: 10.2.0.0/16}}
  Peering: {Type: 'AWS::EC2::VPCPeeringConnection', Properties: {VpcId: !Ref Vpc, PeerVpcId: !GetAtt OtherVpc.VpcId}}
  Subnet: {Type: 'AWS::EC2::Subnet', Properties: {VpcId: !Ref Vpc, CidrBlock: 10.0.0.0/24}}
  Probes:
    Type: AWS::EC2::PrefixList
    Properties:
      PrefixListName: probes
      AddressFamily: IPv4
      MaxEntries: 2
      Entries: [{Cidr: 192.0.2.16/28, Description: probes}]
  Web:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupName: !Sub '${AWS::StackName}-web'
      GroupDescription: Web servers
      VpcId: !Ref Vpc
      SecurityGroupIngress:
        - {IpProtocol: tcp, FromPort: 80, ToPort: 80, CidrIp: 0.0.0.0/0, Description: everyone}
        - {IpProtocol: TCP, FromPort: '80', ToPort: '80', CidrIpv6: '::/0'}
        - {IpProtocol: 6, FromPort: 22, ToPort: 22, CidrIp: !Ref Admins}
        - {IpProtocol: tcp, FromPort: 9100, ToPort: 9100, SourcePrefixListId: !Ref Probes}
        - {IpProtocol: icmp, FromPort: 8, ToPort: -1, CidrIp: 0.0.0.0/0}
        - {IpProtocol: icmpv6, FromPort: -1, ToPort: -1, CidrIpv6: '::/0'}
        - {IpProtocol: '50', CidrIp: 198.51.100.0/24}
        - !If [IsTest, {IpProtocol: -1, CidrIp: 0.0.0.0/0}, !Ref 'AWS::NoValue']
  Db:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupDescription: Databases
      GroupName: db
      VpcId: !Ref Vpc
      SecurityGroupIngress:
        - {IpProtocol: tcp, FromPort: 5432, ToPort: 5433, SourceSecurityGroupId: !GetAtt Web.GroupId}
        - {IpProtocol: -1, SourceSecurityGroupId: !Ref Run}
      SecurityGroupEgress:
        - {IpProtocol: tcp, FromPort: 443, ToPort: 443, DestinationPrefixListId: !GetAtt Probes.PrefixListId}
  Own:
    Type: AWS::EC2::SecurityGroupIngress
    Properties:
      {GroupId: !Ref Db, IpProtocol: udp, FromPort: 53, ToPort: 53, SourceSecurityGroupId: !GetAtt [Db, GroupId]}
  NotHere:
    Type: AWS::EC2::SecurityGroupIngress
    Condition: IsTest
    Properties: {GroupId: !Ref Db, IpProtocol: -1, CidrIp: 0.0.0.0/0}
  Run:
    Type: AWS::EC2::SecurityGroup
    Properties: {GroupDescription: Runners, VpcId: !Ref OtherVpc}
  ToDb:
    Type: AWS::EC2::SecurityGroupEgress
    Condition: IsProd
    Properties:
      {GroupId: !GetAtt Run.GroupId, IpProtocol: udp, FromPort: 1, ToPort: 65535, DestinationSecurityGroupId: !Ref Db}
  WebServer:
    Type: AWS::EC2::Instance
    Properties:
      ImageId: ami-1
      SubnetId: !Ref Subnet
      PrivateIpAddress: 10.0.0.5
      Ipv6Addresses: [{Ipv6Address: '2001:db8::5'}]
      SecurityGroupIds: [!Ref Web]
      Tags: [{Key: Name, Value: web-1}]
  DbCard:
    Type: AWS::EC2::NetworkInterface
    Properties:
      SubnetId: !Ref Subnet
      GroupSet: [!GetAtt Db.GroupId]
      PrivateIpAddresses: [{PrivateIpAddress: 10.0.0.6, Primary: true}, {PrivateIpAddress: 10.0.0.7, Primary: false}]
      Ipv4Prefixes: [{Ipv4Prefix: 10.0.9.0/28}]
  DbServer:
    Type: AWS::EC2::Instance
    Properties:
      NetworkInterfaces: [{DeviceIndex: '0', NetworkInterfaceId: !Ref DbCard}]
      Tags: [{Key: Name, Value: db-1}]
  Runner:
    Type: AWS::EC2::Instance
    Properties:
      NetworkInterfaces:
        - {DeviceIndex: 0, GroupSet: [!Ref Run], PrivateIpAddress: 10.1.0.5}
        - {DeviceIndex: 1, GroupSet: [!Ref Run], PrivateIpAddress: 10.1.0.6}
  Stranger: {Type: 'AWS::EC2::SecurityGroup', Properties: {GroupDescription: Strangers, VpcId: !Ref ThirdVpc}}
  StrangerCard:
    Type: AWS::EC2::NetworkInterface
    Properties: {PrivateIpAddress: 10.2.0.5, GroupSet: [!Ref Stranger], SubnetId: subnet-123}
"""
MEANING = [
    ("192.0.2.1", "10.0.0.5", "tcp", 80, "rule"),
    ("2001:db8:1::1", "2001:db8::5", "tcp", 80, "rule"),
    ("192.0.2.1", "10.0.0.5", "tcp", 443, "no-rule"),
    ("198.51.100.9", "10.0.0.5", "tcp", 22, "rule"),
    ("192.0.2.1", "10.0.0.5", "tcp", 22, "no-rule"),
    ("192.0.2.17", "10.0.0.5", "tcp", 9100, "rule"),
    ("192.0.2.33", "10.0.0.5", "tcp", 9100, "no-rule"),
    ("192.0.2.1", "10.0.0.5", "icmp", (8, 0), "rule"),
    ("192.0.2.1", "10.0.0.5", "icmp", (13, 0), "no-rule"),
    ("2001:db8:1::1", "2001:db8::5", "icmpv6", (128, 0), "rule"),
    ("198.51.100.9", "10.0.0.5", "esp", 0, "rule"),
    ("192.0.2.1", "10.0.0.5", "esp", 0, "no-rule"),
    # By group: all addresses of a member, including those in a peered VPC.
    ("10.0.0.5", "10.0.0.7", "tcp", 5432, "rule"),
    ("10.0.0.5", "10.0.9.3", "tcp", 5433, "rule"),
    ("10.0.0.5", "10.0.0.6", "tcp", 5434, "no-rule"),
    ("10.1.0.6", "10.0.0.6", "udp", 99, "rule"),
    ("10.2.0.5", "10.0.0.6", "udp", 53, "vpc-isolated"),
    # Outbound: the web server has the default rules, the others have their own.
    ("10.0.0.5", "192.0.2.1", "gre", 0, "rule"),
    ("2001:db8::5", "2001:db8:1::1", "udp", 9, "rule"),
    ("10.0.0.6", "192.0.2.17", "tcp", 443, "rule"),
    ("10.0.0.6", "192.0.2.1", "tcp", 443, "no-rule"),
    ("10.1.0.5", "192.0.2.1", "udp", 53, "no-rule"),
]


def test_a_template_means_what_it_says() -> None:
    export = read(SHOP)
    assert export.format.name == "cloudformation"
    assert export.summary() == "4 security groups with 20 rules, 1 address group, 5 instances, 3 VPCs, 1 peering"
    means(export, MEANING)
    policy = export.policy()
    assert [group.name for group in policy.security_groups] == ["Web", "db", "Run", "Stranger"]
    assert {each.name for each in policy.instances} == {"web-1", "db-1", "Runner", "Runner.1", "StrangerCard"}
    assert [vpc.name for vpc in policy.vpcs] == ["shop", "OtherVpc", "ThirdVpc"]
    assert policy.security_groups[0].rules[0].description == "everyone" and policy.warnings == ()


def test_json_yaml_and_what_the_aws_cli_prints_mean_the_same(tmp_path: Path) -> None:
    value = source_of(SHOP.encode(), "shop.yaml").value
    assert isinstance(value, dict) and value["Conditions"]["IsTest"] == {"Fn::Not": [{"Condition": "IsProd"}]}
    wanted = read(SHOP).policy()
    for n, text in enumerate((
        json.dumps(value), json.dumps({"TemplateBody": value, "StagesAvailable": ["Original", "Processed"]}),
        json.dumps({"TemplateBody": SHOP}), json.dumps({"TemplateBody": json.dumps(value)}),
    )):  # fmt: skip
        path = tmp_path / f"{n}.json"
        path.write_text(text)
        policy = load_policy(path)
        assert (policy.security_groups, policy.instances) == (wanted.security_groups, wanted.instances)
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    assert load_policy(path).security_groups == wanted.security_groups


# Groups and their rules


def group(*properties: str, more: str = "") -> Policy:
    """The policy of a group Web with some properties, and of an instance at 10.0.0.5 and 2001:db8::5 in it."""
    lines = "".join(f"      {each}\n" for each in properties)
    return read(f"""
Parameters: {{Group: {{Type: String}}, Port: {{Type: Number}}, Network: {{Type: String}}}}
Resources:
  Web:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupDescription: web
{lines}  Server:
    Type: AWS::EC2::Instance
    Properties:
      {{PrivateIpAddress: 10.0.0.5, Ipv6Addresses: [{{Ipv6Address: '2001:db8::5'}}], SecurityGroupIds: !Ref Web}}
{more}""").policy()


ALL = "{IpProtocol: '-1', CidrIp: 0.0.0.0/0}"
DNS = "{GroupId: !GetAtt Web.GroupId, IpProtocol: udp, FromPort: 53, ToPort: 53, CidrIp: 192.0.2.0/24}"


def outbound(policy: Policy) -> tuple[bool, bool, bool]:
    """Whether the server may send to a resolver, to anybody over IPv4, and to anybody over IPv6."""
    return (
        allowed(policy, "10.0.0.5", "192.0.2.1", "udp", 53),
        allowed(policy, "10.0.0.5", "198.51.100.1", "tcp", 80),
        allowed(policy, "2001:db8::5", "2001:db8:1::1", "tcp", 80),
    )


@pytest.mark.parametrize(
    ("egress", "own", "wanted"),
    [
        ("", "", (True, True, True)),
        ("SecurityGroupEgress: []", "", (True, True, True)),
        ("SecurityGroupEgress: !If [No, a, !Ref 'AWS::NoValue']", "", (True, True, True)),
        (f"SecurityGroupEgress: {ALL}", "", (True, True, False)),
        (
            "SecurityGroupEgress: [{IpProtocol: icmp, FromPort: 252, ToPort: 86, CidrIp: 255.255.255.255/32}]",
            "",
            (False,) * 3,
        ),
        ("", DNS, (True, False, False)),
        # A rule of its own removes the rule to everywhere, even where the group lists it.
        (f"SecurityGroupEgress: [{ALL}]", DNS, (True, False, False)),
        ("SecurityGroupEgress: {IpProtocol: 6, FromPort: 1, ToPort: 80, CidrIp: 0.0.0.0/0}", DNS, (True, True, False)),
        ("SecurityGroupEgress: [{IpProtocol: -1, CidrIpv6: '::/0'}]", DNS, (True, False, True)),
        ("SecurityGroupEgress: [{IpProtocol: -1, CidrIp: 198.51.100.0/24}]", DNS, (True, True, False)),
        ("", "{GroupId: !Ref Web, IpProtocol: -1, CidrIp: 0.0.0.0/0}", (True, True, False)),
    ],
)
def test_outbound_rules_that_nobody_wrote(egress: str, own: str, wanted: tuple[bool, bool, bool]) -> None:
    more = f"  Out: {{Type: 'AWS::EC2::SecurityGroupEgress', Properties: {own}}}\n" if own else ""
    policy = group(*filter(None, [egress]), more=more + "Conditions: {No: !Equals [a, b]}\n")
    assert outbound(policy) == wanted
    removed = [warning for warning in policy.warnings if "CloudFormation removes this rule" in warning]
    assert bool(removed) == (ALL in egress and bool(own))
    assert not removed or "security group Web, SecurityGroupEgress[0]" in removed[0]


def test_a_rule_that_is_written_twice_counts_once() -> None:
    rule = "{IpProtocol: tcp, FromPort: 80, ToPort: 80, CidrIp: 192.0.2.0/24}"
    own = "{GroupId: !Ref Web, IpProtocol: '6', FromPort: '80', ToPort: 80, CidrIp: 192.0.2.9/24}"
    more = f"  In: {{Type: 'AWS::EC2::SecurityGroupIngress', Properties: {own}}}\n"
    policy = group(f"SecurityGroupIngress: [{rule}, {rule}]", more=more)
    assert [rule.direction for rule in policy.security_groups[0].rules] == ["inbound", "outbound", "outbound"]


def test_groups_by_name_as_in_a_default_vpc() -> None:
    policy = group(
        "GroupName: front",
        more="""
  Db: {Type: 'AWS::EC2::SecurityGroup', Properties: {GroupDescription: db, SecurityGroupIngress: [
    {IpProtocol: -1, SourceSecurityGroupName: front}, {IpProtocol: tcp, FromPort: 1, ToPort: 9, CidrIp: 192.0.2.0/24}]}}
  In: {Type: 'AWS::EC2::SecurityGroupIngress', Properties: {GroupName: front, IpProtocol: tcp, FromPort: 80, ToPort: 80,
    SourceSecurityGroupName: !Ref Db, SourceSecurityGroupOwnerId: '111122223333'}}
  DbServer: {Type: 'AWS::EC2::Instance', Properties: {PrivateIpAddress: 10.0.0.6, SecurityGroups: [!Ref Db]}}
  Both: {Type: 'AWS::EC2::Instance', Properties: {PrivateIpAddress: 10.0.0.7, SecurityGroups: [front]}}
  Named: {Type: 'AWS::EC2::SecurityGroup', Properties: {GroupDescription: another, GroupName: Web}}
  ById: {Type: 'AWS::EC2::Instance', Properties: {PrivateIpAddress: 10.0.0.8, SecurityGroups: [!Ref Web]}}
""",
    )
    assert allowed(policy, "10.0.0.7", "10.0.0.6", "gre") and allowed(policy, "10.0.0.6", "10.0.0.7", "tcp", 80)
    assert allowed(policy, "10.0.0.8", "10.0.0.6", "gre") and not allowed(policy, "10.0.0.6", "10.0.0.5", "tcp", 81)
    assert not allowed(
        policy, "192.0.2.1", "10.0.0.6", "tcp", 10
    )


@pytest.mark.parametrize(("emptied", "egress"), [(False, False), (True, False), (False, True)])
def test_the_default_group_of_a_vpc_has_the_rules_that_ec2_gives_it(emptied: bool, egress: bool) -> None:
    policy = read(f"""
Resources:
  Vpc: {{Type: 'AWS::EC2::VPC', Properties: {{CidrBlock: 10.0.0.0/16}}}}
  Subnet: {{Type: 'AWS::EC2::Subnet', Properties: {{VpcId: !Ref Vpc}}}}
  One: {{Type: 'AWS::EC2::Instance', Properties: {{PrivateIpAddress: 10.0.0.5, SubnetId: !Ref Subnet}}}}
  Two: {{Type: 'AWS::EC2::NetworkInterface', Properties:
    {{PrivateIpAddress: 10.0.0.6, SubnetId: !Ref Subnet, GroupSet: [!GetAtt Vpc.DefaultSecurityGroup]}}}}
  In: {{Type: 'AWS::EC2::SecurityGroupIngress', Properties:
    {{GroupId: !GetAtt Vpc.DefaultSecurityGroup, IpProtocol: tcp, FromPort: 22, ToPort: 22, CidrIp: 192.0.2.0/24}}}}
  Out: {{Type: 'AWS::EC2::SecurityGroup{"Egress" if egress else "Ingress"}', Properties:
    {{GroupId: !GetAtt Vpc.DefaultSecurityGroup, IpProtocol: tcp, FromPort: 22, ToPort: 22, CidrIp: 10.0.0.0/24}}}}
  {"Emptied" if emptied else "Other"}:
    Type: {"Custom::VpcRestrictDefaultSG" if emptied else "Custom::Other"}
    Properties: {{DefaultSecurityGroupId: !GetAtt Vpc.DefaultSecurityGroup}}
""").policy()
    assert [group.name for group in policy.security_groups] == ["Vpc.DefaultSecurityGroup"]
    assert allowed(policy, "10.0.0.5", "10.0.0.6", "tcp", 80) is not (emptied or egress)
    assert allowed(policy, "10.0.0.5", "10.0.0.6", "tcp", 22) is not emptied
    assert allowed(policy, "10.0.0.5", "192.0.2.1", "tcp", 80) is not (emptied or egress)
    assert allowed(policy, "192.0.2.1", "10.0.0.5", "tcp", 22) and not allowed(
        policy, "192.0.2.1", "10.0.0.5", "tcp", 23
    )


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{CidrIp: 192.0.2.0/24}", r"SecurityGroupIngress\[0\]: IpProtocol is missing"),
        ("{IpProtocol: tcp, FromPort: 80, ToPort: 79, CidrIp: 0.0.0.0/0}", "80 to 79 is not a range of ports"),
        ("{IpProtocol: -1, CidrIp: '::/0'}", "is an IPv4 rule, but ::/0 is IPv6"),
        ("{IpProtocol: -1, DestinationSecurityGroupId: !Ref Web}", "unknown key 'DestinationSecurityGroupId'"),
        ("{IpProtocol: -1, Cidr: 10.0.0.0/8}", "unknown key 'Cidr' .did you mean 'CidrIp'.*"),
        ("{IpProtocol: tcp, FromPort: !Ref Port, ToPort: !Ref Port, CidrIp: 0.0.0.0/0}",
         r"FromPort is not known: the parameter 'Port' has no default; add a file with .* for 'Port'$"),
        ("tcp", "must be a mapping, not the text 'tcp'"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_is_named(rule: str, said: str) -> None:
    with pytest.raises(
        PolicyError, match=rf"^0\.yaml: security group Web, SecurityGroupIngress\[0\].*{said.split(']: ')[-1]}"
    ):
        group(f"SecurityGroupIngress: [{rule}]")


def test_all_that_is_not_known_is_told_at_once() -> None:
    rule = "{{IpProtocol: tcp, FromPort: {}, ToPort: {}, CidrIp: {}}}"
    rules = [
        rule.format(1, 2, "!Ref Network"),
        rule.format("!Ref Port", 2, "0.0.0.0/0"),
        rule.format(1, 2, "!ImportValue n"),
    ]
    more = "  In: {Type: 'AWS::EC2::SecurityGroupIngress', Condition: Maybe, Properties: {GroupId: sg-1}}\n"
    with pytest.raises(PolicyError) as caught:
        group(
            f"SecurityGroupIngress: [{', '.join(rules)}]",
            more=f"{more}Conditions: {{Maybe: !Equals [!Ref Group, a]}}\n",
        )
    assert str(caught.value) == (
        "0.yaml: security group rule In: Condition is not known: the condition 'Maybe' cannot be decided: the "
        "parameter 'Group' has no default; "
        'add a file with [{"ParameterKey": NAME, "ParameterValue": VALUE}, ...] for '
        "'Group', 'Network', 'Port', 'n'"
    )


def test_a_rule_without_addresses_and_group_is_left_out_with_a_warning() -> None:
    policy = group("SecurityGroupIngress: [{IpProtocol: tcp, FromPort: 80, ToPort: 80}]")
    assert policy.warnings[0] == (
        "Left out because it names no addresses and no group: security group Web, SecurityGroupIngress[0]."
    )


@pytest.mark.parametrize(
    ("database", "port"),
    [("Engine: postgres", 5432), ("Engine: db2-se", 50000), ("Engine: mysql, Port: 3307", 3307), ("Engine: x", None)],
)
def test_the_port_of_a_database_is_its_own_or_that_of_its_engine(database: str, port: int | None) -> None:
    at = "!GetAtt Db.Endpoint.Port"
    rule = f"SecurityGroupIngress: {{IpProtocol: tcp, FromPort: {at}, ToPort: {at}, CidrIp: 10.0.0.0/8}}"
    more = f"  Db: {{Type: 'AWS::RDS::DBInstance', Properties: {{{database}}}}}\n"
    if port is None:
        with pytest.raises(PolicyError, match=r"FromPort is not known: only the cloud knows .* 'Db\.Endpoint\.Port'"):
            group(rule, more=more)
        return
    policy = group(rule, more=more)
    assert [allowed(policy, "10.9.9.9", "10.0.0.5", "tcp", port + n) for n in (-1, 0, 1)] == [False, True, False]


# Values that no file holds


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("!Ref Group", "Group"),
        ("!ImportValue shared-group", "shared-group"),
        ("!ImportValue {'Fn::Sub': '${Group}-id'}", "${Group}-id"),
        ("!Sub '${Group}'", "Group"),
        ("!Select [0, !Ref Group]", "Group[0]"),
        ("!GetAtt Nested.Outputs.Group", "Nested.Outputs.Group"),
        ("!FindInMap [Groups, !Ref 'AWS::Region', web]", "Groups.AWS::Region.web"),
        ("'{{resolve:ssm:/groups/web}}'", "{{resolve:ssm:/groups/web}}"),
        ("sg-0123456789abcdef0", "sg-0123456789abcdef0"),
    ],
)
@pytest.mark.parametrize("place", ["SourceSecurityGroupId", "SourcePrefixListId", "GroupId", "SecurityGroupIds"])
def test_a_reference_to_what_no_file_holds_keeps_its_name(expression: str, name: str, place: str) -> None:
    more = "  Nested: {Type: 'AWS::CloudFormation::Stack', Properties: {TemplateURL: x}}\n"
    rules = ""
    if place == "GroupId":
        rule = f"{{IpProtocol: -1, CidrIp: 10.0.0.0/8, GroupId: {expression}}}"
        more += f"  In: {{Type: 'AWS::EC2::SecurityGroupIngress', Properties: {rule}}}\n"
    elif place == "SecurityGroupIds":
        properties = f"{{PrivateIpAddress: 10.0.0.9, SecurityGroupIds: [{expression}]}}"
        more += f"  I: {{Type: 'AWS::EC2::Instance', Properties: {properties}}}\n"
    else:
        rules = f"SecurityGroupIngress: [{{IpProtocol: -1, {place}: {expression}}}]"
    with pytest.raises(PolicyError) as caught:
        group(*filter(None, [rules]), more=more)
    assert repr(name) in str(caught.value)


def test_a_vpc_that_no_file_holds_is_one_by_its_name() -> None:
    more = """
  Card: {Type: 'AWS::EC2::NetworkInterface', Properties: {PrivateIpAddress: 10.0.0.5, GroupSet: [!Ref Db]}}
  Db: {Type: 'AWS::EC2::SecurityGroup', Properties: {GroupDescription: db, VpcId: !ImportValue net-vpc}}
"""
    policy = group("VpcId: !Ref Network", more=more)
    assert [vpc.name for vpc in policy.vpcs] == ["Network", "net-vpc"]
    assert [each.vpc for each in policy.instances] == ["Network", "net-vpc"]


# Instances


def test_an_instance_whose_address_the_template_does_not_say_is_left_out_with_a_warning() -> None:
    policy = group(
        more="""
  A: {Type: 'AWS::EC2::Instance', Properties: {SecurityGroupIds: [!Ref Web]}}
  B:
    Type: AWS::EC2::Instance
    Condition: Maybe
    Properties: {SecurityGroupIds: !If [Maybe, [!Ref Web], []], PrivateIpAddress: !Ref Network, SubnetId: !Ref Subnet}
  Subnet: {Type: 'AWS::EC2::Subnet', Condition: Maybe, Properties: {VpcId: !Ref Network}}
  C: {Type: 'AWS::EC2::Instance', Properties: {NetworkInterfaces: [{GroupSet: [!Ref Web], DeviceIndex: 0}]}}
  E: {Type: 'AWS::EC2::Instance', Properties: {NetworkInterfaces: !If [Maybe, [{PrivateIpAddress: 10.0.0.9}], []]}}
  D: {Type: 'AWS::EC2::NetworkInterface', Properties: {GroupSet: [!Ref Web], PrivateIpAddress: 10.0.0.8,
      Ipv6Addresses: [{Ipv6Address: !Select [0, !Ref Network]}], Tags: [{Key: Name, Value: !Ref 'AWS::StackName'}]}}
Conditions: {Maybe: !Equals [!Ref Network, a]}
"""
    )
    assert [each.name for each in policy.instances] == ["Server", "D"]
    assert policy.warnings == (
        "Left out because the template does not say its address: instance A, instance B, instance C, instance E.",
        "Has more addresses, which the template does not say: network interface D.",
    )


def test_an_instance_with_an_address_needs_its_condition() -> None:
    card = "{Type: 'AWS::EC2::NetworkInterface', Condition: Maybe, Properties: {PrivateIpAddress: 10.0.0.8}}"
    with pytest.raises(PolicyError, match=r"^0\.yaml: network interface Card: Condition is not .*'Network'$"):
        group(more=f"  Card: {card}\nConditions: {{Maybe: !Equals [!Ref Network, a]}}\n")


def test_an_instance_has_the_groups_of_its_launch_template() -> None:
    launch = "{LaunchTemplate: {LaunchTemplateId: %s, Version: '1'}, PrivateIpAddress: 10.0.0.%d}"
    templates = """
  Flat: {Type: 'AWS::EC2::LaunchTemplate', Properties: {LaunchTemplateData: {SecurityGroupIds: [!Ref Web]}}}
  Card:
    Type: AWS::EC2::LaunchTemplate
    Properties: {LaunchTemplateData: {NetworkInterfaces: [{Groups: [!Ref Web]}]}}
"""
    instances = [
        f"  I{n}: {{Type: 'AWS::EC2::Instance', Properties: {launch % (ref, n)}}}\n"
        for n, ref in enumerate(("!Ref Flat", "!GetAtt Card.LaunchTemplateId", "lt-1"), 6)
    ]
    web = "SecurityGroupIngress: {IpProtocol: tcp, FromPort: 80, ToPort: 80, CidrIp: 192.0.2.0/24}"
    policy = group(web, more=templates + "".join(instances[:2]))
    assert all(allowed(policy, "192.0.2.1", f"10.0.0.{n}", "tcp", 80) for n in (5, 6, 7))
    with pytest.raises(PolicyError, match=r"'lt-1\.SecurityGroupIds'"):
        group(web, more=templates + "".join(instances))


# Several templates, and what is not read

NETWORK = """
Resources:
  Vpc: {Type: 'AWS::EC2::VPC', Properties: {CidrBlock: 10.0.0.0/16}}
  Web: {Type: 'AWS::EC2::SecurityGroup', Properties: {GroupDescription: front, VpcId: !Ref Vpc}}
  Front: {Type: 'AWS::EC2::NetworkInterface', Properties: {PrivateIpAddress: 10.0.0.5, GroupSet: [!Ref Web]}}
Conditions: {No: !Equals [a, b]}
Outputs:
  Group: {Value: !GetAtt Web.GroupId, Export: {Name: front}}
  Vpc: {Value: !Ref Vpc, Export: {Name: !Join ['-', [net, vpc]]}}
  Unused: {Condition: No, Value: x, Export: {Name: front}}
"""
USER = """
Resources:
  Web:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupDescription: back
      VpcId: !ImportValue net-vpc
      SecurityGroupIngress: [{IpProtocol: tcp, FromPort: 80, ToPort: 80, SourceSecurityGroupId: !ImportValue front}]
  Back: {Type: 'AWS::EC2::NetworkInterface', Properties: {PrivateIpAddress: 10.0.0.6, GroupSet: [!Ref Web]}}
"""


def test_a_template_may_use_the_exports_of_another() -> None:
    for texts in ((NETWORK, USER), (USER, NETWORK)):
        policy = read(*texts).policy()
        assert allowed(policy, "10.0.0.5", "10.0.0.6", "tcp", 80) and not allowed(
            policy, "10.0.0.5", "10.0.0.6", "tcp", 81
        )
        # Both have a group with the same logical id.
        assert sorted(group.name[7:] for group in policy.security_groups) == ["Web", "Web"]
        assert [vpc.name for vpc in policy.vpcs] == ["Vpc"]
    with pytest.raises(PolicyError, match=r"^1\.yaml: has the export 'front', as 0\.yaml does$"):
        read(NETWORK, NETWORK)


def test_resources_that_use_groups_or_filter_otherwise_are_counted() -> None:
    policy = group(
        more="""
  Lb: {Type: 'AWS::ElasticLoadBalancingV2::LoadBalancer', Properties: {SecurityGroups: [!Ref Web]}}
  Fn: {Type: 'AWS::Serverless::Function', Properties: {VpcConfig: {SecurityGroupIds: [!Ref Web]}}}
  Off: {Type: 'AWS::Lambda::Function', Condition: No, Properties: {VpcConfig: {SecurityGroupIds: [!Ref Web]}}}
  Bucket: {Type: 'AWS::S3::Bucket'}
  Acl: {Type: 'AWS::EC2::NetworkAcl', Properties: {VpcId: !Ref Network}}
  Entry: {Type: 'AWS::EC2::NetworkAclEntry', Properties: {NetworkAclId: !Ref Acl, Protocol: -1, RuleAction: deny}}
  Inner: {Type: 'AWS::CloudFormation::Stack', Properties: {TemplateURL: x}}
  Part: {Type: 'Our::Web::Tier::MODULE', Properties: {}}
Conditions: {No: !Equals [a, b]}
Transform: [AWS::Serverless-2016-10-31, OurMacro, {Name: 'AWS::Include', Parameters: {Location: x}}]
"""
    )
    processed = "import the output of aws cloudformation get-template --template-stage Processed instead"
    assert policy.warnings == (
        f"CloudFormation may add more resources when it processes the template; to have them, {processed}: "
        "transform OurMacro, transform AWS::Include, Our::Web::Tier::MODULE Part.",
        "Uses security groups, but is no instance with a known address: AWS::ElasticLoadBalancingV2::LoadBalancer Lb, "
        "AWS::Serverless::Function Fn.",
        "Not in the policy, although it filters traffic, too: AWS::EC2::NetworkAcl Acl, "
        "AWS::EC2::NetworkAclEntry Entry.",
        "A nested stack's template is read if it is given, but without the stack's parameters: "
        "AWS::CloudFormation::Stack Inner.",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Resources: {'Fn::ForEach::Groups': [a, [b], {}]}",
         "resource Fn::ForEach::Groups: stands for resources that the template does not list: import the output of aws "
         "cloudformation get-template --template-stage Processed"),
        ("Resources: {A: {Properties: {}}}", "resource A: Type is missing"),
        ("Resources: {A: 1}", "resource A: must be a mapping, not 1"),
        ("Resources: {A: {Type: 'AWS::EC2::SecurityGroup', Properties: {'Fn::Transform': {Name: M}, VpcId: a}}}",
         "security group A: its value is not known: Fn::Transform is computed by CloudFormation alone"),
        ("Resources: {A: {Type: 'AWS::EC2::SecurityGroupIngress', Properties: {IpProtocol: -1}}}",
         "security group rule A: GroupId is missing"),
        ("Resources: {A: {Type: 'AWS::EC2::VPCPeeringConnection', Properties: {VpcId: a}}}", "A: PeerVpcId is missing"),
        ("Resources: {A: {Type: 'AWS::EC2::SecurityGroup', Condition: B}}",
         "security group A: Condition is not known: there is no condition 'B'"),
        ("TemplateBody: 'Resources: {'", "not YAML"),
        ('[{"ParameterKey": "Env", "ParameterValue": "test"}]', "none of the files is a template"),
        ("{}", "is neither a template, with Resources, nor a file with values of parameters"),
        ("TemplateBody: [1]", "template: must be a mapping, not a list of 1"),
        ("TemplateBody: {Parameters: {}}", "template: has no Resources"),
    ],
)  # fmt: skip
def test_a_broken_template_is_one_line_with_file_and_place(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(text, form="cloudformation").policy()
    assert str(caught.value).startswith("0.yaml") and said in str(caught.value) and str(caught.value).isprintable()

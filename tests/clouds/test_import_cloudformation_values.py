"""CloudFormation's functions compute the right values, and no template keeps them busy forever (SPEC 10.17, 11.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from exports import allowed

from sgfast.base.errors import PolicyError
from sgfast.clouds.cloudformation import values as cloudformation_values
from sgfast.clouds.importing.reading import Imported, import_sources
from sgfast.clouds.importing.sources import source_of
from sgfast.policy.model import Policy

HEAD = """
Parameters:
  Office: {Type: String, Default: 192.0.2.0/24}
  First: {Type: Number, Default: 10}
  Yes: {Type: String, Default: 'true'}
  Offices: {Type: CommaDelimitedList, Default: "192.0.2.0/24, 198.51.100.0/24"}
  Listed: {Type: 'List<String>', Default: '192.0.2.0/24,198.51.100.0/24'}
  Missing: {Type: String}
  Stored: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /net/office}
  Looked: {Type: String, Default: '{{resolve:ssm:office}}'}
Mappings:
  Nets:
    prod: {Cidr: 192.0.2.0/24, Several: [198.51.100.0/24, 192.0.2.0/24], 1: 203.0.113.0/24}
Conditions:
  IsYes: !Equals [!Ref Yes, true]
  IsTen: !Equals [!Ref First, '10']
  Never: !Not [!Condition IsYes]
  Both: !And [!Condition IsYes, {Condition: IsTen}]
  Either: !Or [!Equals [!Ref Missing, x], !Condition IsTen]
  Neither: !And [!Equals [!Ref Missing, x], !Condition Never]
  Open: !Equals [!Ref Missing, x]
  Round: !Not [!Condition About]
  About: !Not [!Condition Round]
Resources:
  Vpc: {Type: 'AWS::EC2::VPC', Properties: {CidrBlock: 192.0.0.0/16}}
  Subnet:
    Type: AWS::EC2::Subnet
    Properties: {VpcId: !Ref Vpc, CidrBlock: !Select [2, !Cidr [!GetAtt Vpc.CidrBlock, 3, 8]]}
  Ip: {Type: 'AWS::EC2::EIP'}
  Card:
    Type: AWS::EC2::NetworkInterface
    Properties:
      SubnetId: !Ref Subnet
      GroupSet: [!Ref Web]
      PrivateIpAddresses:
        [{Primary: false, PrivateIpAddress: 198.51.100.9}, {Primary: true, PrivateIpAddress: 192.0.2.10}]
  TwoCards:
    Type: AWS::EC2::Instance
    Properties:
      NetworkInterfaces:
        - {DeviceIndex: '1', SubnetId: !Ref Subnet, GroupSet: [!Ref Web], PrivateIpAddress: 198.51.100.8}
        - {DeviceIndex: '0', SubnetId: !Ref Subnet, GroupSet: [!Ref Web], PrivateIpAddress: 192.0.2.11}
  Peer:
    Type: AWS::EC2::Instance
    Properties: {PrivateIpAddress: 192.0.2.9, SecurityGroupIds: [!Ref Web], SubnetId: !Ref Subnet}
  Server:
    Type: AWS::EC2::Instance
    Properties: {PrivateIpAddress: 10.0.0.5, SecurityGroupIds: [!Ref Web], SubnetId: !Ref Subnet}
"""
GROUP = """
  Web:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupDescription: web
      VpcId: !Ref Vpc
      SecurityGroupIngress:
        IpProtocol: tcp
        FromPort: 22
        ToPort: 22
        CidrIp: """


def read(*texts: str, form: str = "auto") -> Imported:
    """Import texts as files 0.yaml, 1.yaml, …"""
    return import_sources([source_of(text.encode(), f"{n}.yaml") for n, text in enumerate(texts)], form)


def with_cidr(expression: str, *more: str) -> Policy:
    """A policy with one rule, whose CIDR is an expression."""
    return read(HEAD + GROUP + expression + "\n", *more).policy()


def error_with(expression: str, *more: str) -> str:
    with pytest.raises(PolicyError) as caught:
        with_cidr(expression, *more)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 800
    return message


@pytest.mark.parametrize(
    "expression",
    [
        "192.0.2.0/24",
        "!Ref Office",
        "{Ref: Office}",
        "!Sub 192.0.2.0/24",
        "!Sub '${Office}'",
        "!Sub '${ Office }'",
        "!Sub ['${Net}/${Bits}', {Net: 192.0.2.0, Bits: 24}]",
        "!Sub ['${Office}', {Office: 192.0.2.0/24}]",
        "!Join ['', [192.0.2., '0', /24]]",
        "!Join [., [192, 0, 2, 0/24]]",
        "{'Fn::Join': [/, [192.0.2.0, !If [IsYes, 24, 8]]]}",
        "!Select [1, ['198.51.100.0/24', 192.0.2.0/24]]",
        "!Select ['0', !Ref Offices]",
        "!Select [0, !Split [';', !Join [';', !Ref Listed]]]",
        "!Select [1, !Split ['}', !Sub '${!Office}192.0.2.0/24']]",
        "!Select [0, !Split [';', '192.0.2.0/24;198.51.100.0/24']]",
        "!Join [',', [!Select [0, !Ref Offices], !Ref 'AWS::NoValue']]",
        "!If [IsYes, 192.0.2.0/24, 198.51.100.0/24]",
        "!If [Never, !Ref Missing, !Ref Office]",
        "!If [Both, !Ref Office, 198.51.100.0/24]",
        "!If [Either, !Ref Office, 198.51.100.0/24]",
        "!If [Neither, 198.51.100.0/24, !Ref Office]",
        "!FindInMap [Nets, prod, Cidr]",
        "!FindInMap [Nets, !Sub 'pr${X}', {'Fn::Sub': 'Cidr'}]",
        "!Select [1, !FindInMap [Nets, prod, Several]]",
        "!FindInMap [Nets, test, Cidr, {DefaultValue: !Ref Office}]",
        "!Select [2, !Cidr [192.0.0.0/16, 3, 8]]",
        "!Select [0, !Cidr [192.0.2.0/24, '1', '8']]",
        "!Select [0, !Cidr [192.0.2.0/24, 1]]",
        "!GetAtt Subnet.CidrBlock",
        "!GetAtt [Subnet, CidrBlock]",
        "{'Fn::GetAtt': [Subnet, CidrBlock]}",
        "!Sub '${Subnet.CidrBlock}'",
        "!Sub '${Peer.PrivateIp}/24'",
        "!Sub '${TwoCards.PrivateIp}/24'",
        "!Sub '${Card.PrimaryPrivateIpAddress}/24'",
    ],
)
def test_functions_compute_what_the_rule_says(expression: str) -> None:
    policy = with_cidr(expression.replace("'pr${X}'", "['pr${X}', {X: od}]"))
    assert [allowed(policy, source, "10.0.0.5", "tcp", 22) for source in ("192.0.2.200", "198.51.100.1")] == [
        True,
        False,
    ]
    assert not allowed(policy, "192.0.3.1", "10.0.0.5", "tcp", 22)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("!Ref Missing", r"CidrIp is not known: the parameter 'Missing' has no default; .*for 'Missing'"),
        ("!Sub '${Missing}/32'", "the parameter 'Missing' has no default"),
        ("!Join ['', [!Ref Missing, /32]]", "the parameter 'Missing' has no default"),
        ("!Ref Stored", "the parameter 'Stored' is looked up in the Parameter Store"),
        ("!Ref Looked", "'{{resolve:ssm:office}}' is looked up when the stack is made"),
        ("'{{resolve:ssm:office}}'", "is looked up when the stack is made"),
        ("!Sub '{{resolve:ssm:${Office}}}'", "is looked up when the stack is made"),
        ("!ImportValue net-cidr", "the export 'net-cidr' belongs to another stack; .* for 'net-cidr'"),
        ("!ImportValue {'Fn::Sub': '${AWS::StackName}-x'}", r"the export '\$\{AWS::StackName\}-x' belongs to another"),
        ("!Sub '${Ip}/32'", "only the cloud knows the id of the resource 'Ip'"),
        ("!Sub '${Ip.PublicIp}/32'", "only the cloud knows the attribute 'Ip.PublicIp'"),
        ("!If [Open, 192.0.2.0/24, 0.0.0.0/0]", "'Open' cannot be decided: the parameter 'Missing' has no default"),
        ("!If [Round, 192.0.2.0/24, 0.0.0.0/0]", "the condition 'Round' refers to itself"),
        ("!If [Nothing, 192.0.2.0/24, 0.0.0.0/0]", "there is no condition 'Nothing'"),
        ("!If [IsYes, 192.0.2.0/24]", "takes the name of a condition and two values"),
        ("!FindInMap [Nets, !Ref 'AWS::Region', Cidr]", "AWS::Region is known only when the stack is made"),
        ("!FindInMap [Nets, test, Cidr]", "Fn::FindInMap finds nothing at Nets / test / Cidr"),
        ("!FindInMap [Nets, prod]", "Fn::FindInMap takes a list of 3 values"),
        ("!Ref Nowhere", "Ref names 'Nowhere', which is no parameter and no resource"),
        ("!Ref [Office]", "Ref must name a parameter or a resource, not a list of 1"),
        ("!GetAtt Nowhere.CidrBlock", "Fn::GetAtt names 'Nowhere', which is no resource"),
        ("!GetAtt Vpc", "must name a resource and an attribute, not 'Vpc'"),
        ("!Sub [a, b, c]", "must be a text, or a list of a text and a mapping, not a list of 3"),
        ("!Sub '${AWS::NoValue}/32'", "Fn::Sub takes a text, not AWS::NoValue"),
        ("!Sub '${Offices}'", "Fn::Sub takes a text, not a list of 2"),
        ("!Select [2, !Ref Offices]", "Fn::Select takes the item 2 of a list of 2, which has none"),
        ("!Select [-1, !Ref Offices]", "Fn::Select takes a number, not -1"),
        ("!Select [0, !Ref Missing]", "the parameter 'Missing' has no default"),
        ("!Select [0, !GetAZs '']", "only the cloud knows the availability zones"),
        ("!Split ['', a]", "Fn::Split takes a separator and a text"),
        ("!Join [1, [a]]", "Fn::Join takes a separator and a list"),
        ("!Select [0, !Cidr [192.0.2.0/24, 2, 8]]", "cannot take 2 blocks of 8 bits from '192.0.2.0/24'"),
        ("!Select [0, !Cidr [192.0.2.0/8, 257, 8]]", "cannot take 257 blocks"),
        ("!Select [0, !Cidr [192.0.2.0/24, 1, 33]]", "cannot take 1 blocks of 33 bits"),
        ("!Select [0, !Cidr ['x', 1, 8]]", "cannot take 1 blocks of 8 bits from 'x'"),
        (
            "!Transform {Name: Macro}",
            "Fn::Transform is computed by CloudFormation alone: .* --template-stage Processed",
        ),
        ("!Length [a]", "Fn::Length is computed by CloudFormation alone"),
        ("!Base64 x", "'eA==': "),
        ("!Ref Offices", "CidrIp must be a string, not a list of the text '192.0.2.0/24'"),
        ("!Ref Subnet", "'Subnet': "),
    ],
)
def test_what_a_template_does_not_say_is_one_line_with_place_and_cause(expression: str, said: str) -> None:
    message = error_with(expression)
    assert message.startswith("0.yaml: security group Web, SecurityGroupIngress[0]"), message
    with pytest.raises(PolicyError, match=said):
        with_cidr(expression)


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("!Ref Missing", "Missing"),
        ("!Ref Stored", "Stored"),
        ("!ImportValue net-cidr", "net-cidr"),
        ("!Sub '${Ip.PublicIp}/24'", "Ip.PublicIp"),
        ("!Select [0, !GetAtt Vpc.CidrBlocks]", "Vpc.CidrBlocks"),
        ("!Sub '${AWS::StackName}/24'", "AWS::StackName"),
        ("!If [Open, 192.0.2.0/24, 0.0.0.0/0]", "Missing"),
    ],
)
def test_a_file_of_parameters_says_what_the_template_does_not(expression: str, name: str) -> None:
    value = "x" if "Open" in expression else "192.0.2.0" if "/24'" in expression else "192.0.2.0/24"
    given = json.dumps(
        [{"ParameterKey": name, "ParameterValue": value}, {"ParameterKey": "Unused", "ParameterValue": ""}]
    )
    assert f"for '{name}'" in error_with(expression)
    policy = with_cidr(expression, given)
    assert allowed(policy, "192.0.2.1", "10.0.0.5", "tcp", 22) and not allowed(policy, "1.1.1.1", "10.0.0.5", "tcp", 22)


def test_a_parameter_that_is_given_wins_over_its_default() -> None:
    given = '[{"ParameterKey": "Office", "ParameterValue": "203.0.113.0/24"}]'
    policy = with_cidr("!Ref Office", given)
    assert allowed(policy, "203.0.113.1", "10.0.0.5", "tcp", 22) and not allowed(
        policy, "192.0.2.1", "10.0.0.5", "tcp", 22
    )
    other = given.replace("203", "204")
    assert "2.yaml: gives the parameter 'Office' another value" in error_with("!Ref Office", given, other)


def test_the_value_that_a_stack_keeps_is_not_the_default() -> None:
    given = '[{"ParameterKey": "Office", "UsePreviousValue": true}]'
    assert "'Office' has the value of the stack, which is not here" in error_with("!Ref Office", given)


def test_what_describe_stacks_says_of_a_stack_is_taken_from_it() -> None:
    stack: dict[str, Any] = {
        "StackId": "arn:aws:cloudformation:eu-west-1:111122223333:stack/shop/1f2e", "StackName": "shop",
        "Parameters": [
            {"ParameterKey": "Missing", "ParameterValue": "198.51.100.0/24"},
            {"ParameterKey": "Stored", "ParameterValue": "/net/office", "ResolvedValue": "192.0.2.0/24"},
        ],
    }  # fmt: skip
    stacks = json.dumps({"Stacks": [stack]})
    for expression, source in (("!Ref Missing", "198.51.100.1"), ("!Ref Stored", "192.0.2.1")):
        policy = with_cidr(expression, stacks)
        assert allowed(policy, source, "10.0.0.5", "tcp", 22) and not allowed(policy, "1.1.1.1", "10.0.0.5", "tcp", 22)
    for expression in ("${AWS::Region}", "${AWS::AccountId}", "${AWS::Partition}", "${AWS::StackName}"):
        error_with(f"!Sub '{expression}'", stacks)
    said = error_with("!Join ['/', [!Ref 'AWS::Region', !Ref 'AWS::AccountId', !Ref 'AWS::StackName']]", stacks)
    assert "'eu-west-1/111122223333/shop'" in said
    assert "describe 2 stacks, not one" in error_with("!Ref Missing", json.dumps({"Stacks": [stack, stack]}))


# Limits

_TOO_MUCH = r"^0\.yaml: {}: its functions compute more than [0-9,]+ values and characters: import a smaller template$"


def test_texts_that_double_from_function_to_function_are_stopped() -> None:
    expression = "'1234567890'"
    for _ in range(20):
        expression = f"!Sub ['${{a}}${{a}}', {{a: {expression}}}]"
    with pytest.raises(PolicyError, match=_TOO_MUCH.format("security group Web")):
        with_cidr(expression)


@pytest.mark.parametrize(
    ("expression", "uses"),
    [("!Sub {Ref: Long}", 1), ("!Split [x, !Ref Long]", 1), ("!Select [0, !Ref Long]", 1), ("!Base64 {Ref: Long}", 1),
     ("!GetAtt {Ref: Long}", 60), ("!Ref {Ref: Long}", 60), ("!FindInMap [!Ref Missing, !Ref Long, a]", 60),
     ("!GetAtt Big.CidrBlock", 60), ("!If [Same%d, a, b]", 60)],
)  # fmt: skip
def test_a_long_text_costs_steps_each_time_it_is_used(
    expression: str, uses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloudformation_values, "MAX_STEPS", 10_000)
    long = "${a}" * 10_000
    head = HEAD.replace("Parameters:\n", f"Parameters:\n  Long: {{Type: String, Default: '{long}'}}\n")
    same = "".join(f"  Same{n}: !Equals [!Ref Long, !Ref Long]\n" for n in range(60))
    head = head.replace("Conditions:\n", f"Conditions:\n{same}")
    tags = ", ".join(f"{{Key: k, Value: {expression % n if '%' in expression else expression}}}" for n in range(uses))
    head += f"  Big: {{Type: 'AWS::EC2::Subnet', Properties: {{CidrBlock: '{long}'}}}}\n"
    with pytest.raises(PolicyError, match=_TOO_MUCH.format("security group Web")):
        read(head + GROUP + f"192.0.2.0/24\n      Tags: [{tags}]\n").policy()


@pytest.mark.parametrize(
    "expression", ["!GetAtt B.CidrBlock", "!Sub '${B.CidrBlock}'", "!Join ['', [!GetAtt B.CidrBlock]]"]
)
def test_attributes_in_a_circle_are_stopped(expression: str) -> None:
    circle = f"  A: {{Type: 'AWS::EC2::Subnet', Properties: {{CidrBlock: {expression}}}}}\n"
    circle += "  B: {Type: 'AWS::EC2::Subnet', Properties: {CidrBlock: !GetAtt A.CidrBlock}}\n"
    with pytest.raises(
        PolicyError, match=r"^0\.yaml: subnet A: its functions refer to each other more than 100 levels"
    ):
        read(HEAD + circle).policy()


def test_conditions_that_lead_to_each_other_without_end_are_stopped() -> None:
    def chain(length: int) -> str:
        conditions = "".join(f"  C{n}: !Not [!Condition C{n + 1}]\n" for n in range(length))
        last = f"  C{length}: !Equals [a, a]\n"
        return HEAD.replace("Conditions:\n", f"Conditions:\n{conditions}{last}") + GROUP + "!If [C0, 192.0.2.0/24, a]\n"

    assert read(chain(40)).policy().security_groups
    with pytest.raises(PolicyError, match="its conditions refer to each other more than 100 levels deep"):
        read(chain(2000)).policy()


def test_functions_are_nested_as_deep_as_any_value() -> None:
    deep = "!If [IsYes, " * 40 + "192.0.2.0/24" + ", a]" * 40
    assert with_cidr(deep).security_groups
    assert "nested more than 50 levels deep" in error_with("!If [IsYes, " * 60 + "a" + ", a]" * 60)

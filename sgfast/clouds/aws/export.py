"""Export to AWS: calls of EC2's API, or a script of ``aws ec2`` commands (SPEC 13.5)."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sgfast.base.errors import ExportError
from sgfast.clouds.exporting.calls import (
    Call,
    Calls,
    JsonAction,
    Variables,
    first_id,
    only_in_script,
    single_address,
    words,
)
from sgfast.clouds.exporting.delta import Membership, PolicyDelta, policy_delta
from sgfast.clouds.exporting.expressible import Target, expressible
from sgfast.policy.matching import RuleInGroup
from sgfast.policy.model import (
    DEFAULT_GROUP,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    AddressGroupPeer,
    Direction,
    GroupPeer,
    Instance,
    Policy,
    Rule,
    SecurityGroup,
    Vpc,
)
from sgfast.policy.ranges import ALL_PORTS
from sgfast.policy.yaml_nodes import shown_origin

#: Patterns of the ids that AWS assigns, by kind of object.
IDS = {kind: re.compile(rf"{kind}-(?:[0-9a-f]{{17}}|[0-9a-f]{{8}})") for kind in ("sg", "sgr", "vpc", "eni", "pl")}
TARGET = Target(
    "AWS", "aws", address_group_id=IDS["pl"], has_groups_of_both=True, port_protocols=frozenset({TCP, UDP})
)  # fmt: skip

#: The names of EC2's calls. The commands of ``aws ec2`` have the same names in lower case with hyphens (``_command``).
_ADD: dict[Direction, str] = {"inbound": "AuthorizeSecurityGroupIngress", "outbound": "AuthorizeSecurityGroupEgress"}
_TAKE: dict[Direction, str] = {"inbound": "RevokeSecurityGroupIngress", "outbound": "RevokeSecurityGroupEgress"}
_Place = tuple[str, Direction]
#: The limit for the permissions in one call. In the script they are one argument of a command, which Linux limits to
#: 128 KiB.
_BATCH = 100
_PROTOCOLS = {None: "-1", TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}
#: A valid region. It becomes a part of a host's name, and must not contain a variable (``${NAME}``).
_REGION = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_NOT_IN_DESCRIPTIONS = re.compile(r"[^A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!*]")

FUNCTIONS = r'''
# $answer: the result of the last function. $earlier: groups that existed before, each with the number of rules that it
# shall have.
earlier=

rules_of() {  # GROUP
  given=$(aws ec2 describe-security-group-rules --filters "Name=group-id,Values=$1" \
    --query 'SecurityGroupRules[].SecurityGroupRuleId' --output text)
}

make_group() {  # NAME VPC RULES PARAMETERS
  answer=$(aws ec2 describe-security-groups --filters "Name=group-name,Values=$1" "Name=vpc-id,Values=$2" \
    --query 'SecurityGroups[].GroupId' --output text)
  if [ -n "$answer" ] && [ "$answer" != None ]; then
    # An interrupted earlier run has made the group.
    earlier="$earlier $answer=$3"
    return
  fi
  answer=$(aws ec2 create-security-group --cli-input-json "$4" --query GroupId --output text)
  # AWS gives a new group rules that allow all outbound traffic. Remove them.
  rules_of "$answer"
  for rule in $given; do
    aws ec2 revoke-security-group-egress --group-id "$answer" --security-group-rule-ids "$rule" >/dev/null
  done
}

# Stops if a group that existed before has other rules than it shall have, before any instance is put into it.
check_group() {  # GROUP
  case "$earlier " in
    *" $1="*) ;;
    *) return ;;
  esac
  number=${earlier#*" $1="}
  rules_of "$1"
  if [ "$(printf %s "$given" | wc -w)" -ne "${number%% *}" ]; then
    echo "security group $1: was there already, and has other rules, too; delete these or the group" >&2
    exit 1
  fi
}

find_one() {  # NOUN COMMAND...
  noun=$1
  shift
  answer=$(aws ec2 "$@" --output text)
  case $answer in
    '' | None) echo "$noun: AWS knows none" >&2; exit 1 ;;
    *[[:space:]]*) echo "$noun: AWS knows several: $answer" >&2; exit 1 ;;
  esac
}

# Makes a call. The status is 1 if AWS refuses it with the error ACCEPTED, because it would change nothing.
accepting() {  # ACCEPTED COMMAND...
  accepted=$1
  shift
  if output=$(aws ec2 "$@" 2>&1); then return 0; fi
  case $output in
    *"($accepted)"*) return 1 ;;
    *) echo "$output" >&2; exit 1 ;;
  esac
}

rules() {  # ACCEPTED COMMAND GROUP PERMISSION...
  refusal=$1 command=$2 group=$3
  shift 3
  all=$(IFS=,; printf '[%s]' "$*")
  if accepting "$refusal" "$command" --group-id "$group" --ip-permissions "$all"; then return 0; fi
  # AWS refused the whole call because of one of the rules, so change them one by one.
  for permission in "$@"; do
    accepting "$refusal" "$command" --group-id "$group" --ip-permissions "[$permission]" || true
  done
}
'''


def export(old: Policy | None, new: Policy, form: Literal["script", "json"] = "script") -> Calls:
    """Return the calls that change ``old`` into ``new``, which are the same in both forms. Raises ExportError if AWS
    cannot express ``new`` exactly.
    """
    delta = aws_delta(old, new)
    if problems := [*_region_errors(delta)]:
        raise ExportError(shown_origin(new.origin), *problems)
    return _Account(delta).calls()


def aws_delta(old: Policy | None, new: Policy) -> PolicyDelta:
    """Return the delta between two policies, in rules that AWS supports."""
    before = None if old is None else _without_twins(expressible(old, TARGET))
    delta = policy_delta(before, _without_twins(expressible(new, TARGET)))
    if problems := [*_name_errors(delta), *_vpc_errors(delta), *_instance_errors(delta)]:
        raise ExportError(shown_origin(new.origin), *problems)
    # Prefix lists are never changed: those that rules still name exist in AWS already, and no others are deleted.
    return replace(delta, address_groups=(), address_groups_deleted=())


def _without_twins(policy: Policy) -> Policy:
    """Make one rule of rules that are a single rule in AWS (SPEC 13.3): the IPv4 one where AWS asks for no version."""

    def rules(group: SecurityGroup) -> Iterator[Rule]:
        for rule in group.rules:
            has_version = rule.protocol == ICMPV6 or not isinstance(rule.peer, GroupPeer | AddressGroupPeer)
            yield rule if has_version else replace(rule, ethertype=4)

    def distinct(group: SecurityGroup) -> tuple[Rule, ...]:
        first_rules: dict[Rule, Rule] = {}
        for rule in rules(group):
            first_rules.setdefault(rule.without_words(), rule)
        return tuple(first_rules.values())

    groups = (replace(group, rules=distinct(group)) for group in policy.security_groups)
    return replace(policy, security_groups=tuple(groups))


def provider_id(kind: str, item: Any) -> str:
    """Return the id that AWS has assigned to an object of the policy, or "" if it is unknown."""
    return first_id(IDS[kind], item.id, item.name)


def _name_errors(delta: PolicyDelta) -> Iterator[str]:
    for name in dict.fromkeys(address.name for address in (*delta.addresses, *delta.addresses_taken)):
        yield f"address group {name!r}: is a prefix list of AWS; change it there first, and import the account again"
    for group in delta.groups:
        if group.name == DEFAULT_GROUP:
            yield (
                f"security group {group.name!r}: every VPC has it already; import the account, and export what changes "
                "since then"
            )
        elif group.name.startswith("sg-"):
            yield f"security group {group.name!r}: AWS takes no name that begins with sg-; give it another name"


def vpcs_of_groups(policy: Policy) -> dict[str, set[str]]:
    """Return the names of each group's VPC, if it says one, and of its instances' VPCs. If there is only one VPC, all
    groups are in it.
    """
    vpcs_of_group = {group.name: {group.vpc} if group.vpc else set() for group in policy.security_groups}
    for instance in policy.instances:
        for name in instance.security_groups:
            vpcs_of_group[name].add(instance.vpc)
    if len(policy.vpcs) == 1:
        vpcs_of_group |= {name: {policy.vpcs[0].name} for name, vpcs in vpcs_of_group.items() if not vpcs}
    return vpcs_of_group


def _vpc_errors(delta: PolicyDelta) -> Iterator[str]:
    policy = delta.new
    vpcs = vpcs_of_groups(policy)
    for group in policy.security_groups:
        if len(vpcs[group.name]) > 1:
            listed = ", ".join(map(repr, sorted(vpcs[group.name])[:5]))
            yield (
                f"security group {group.name!r}: it and its instances are in several VPCs ({listed}); an AWS group is "
                "in one"
            )
        elif not vpcs[group.name] and group.name not in delta.kept_groups:
            yield (
                f"security group {group.name!r}: has no instances, which would say in which VPC AWS has to make it; "
                "give it its vpc"
            )
    for group_name, rule in ((group_rule.group, group_rule.rule) for group_rule in delta.rules):
        if not isinstance(rule.peer, GroupPeer):
            continue
        for here, peer_vpc in itertools.product(vpcs[group_name], vpcs[rule.peer.name]):
            regions = {policy.vpc_by_name[name].region for name in (here, peer_vpc)}
            if len(regions) > 1 or not policy.connected(here, peer_vpc):
                place = "another region" if len(regions) > 1 else f"VPC {peer_vpc!r}, which is not peered"
                yield (
                    f"security group {group_name!r}, rule {rule.id}: AWS takes no group in {place}; write its addresses"
                )
                break


def _region_errors(delta: PolicyDelta) -> Iterator[str]:
    for vpc in delta.new.vpcs:
        if vpc.region and not _REGION.fullmatch(vpc.region):
            yield (
                f"VPC {vpc.name!r}: AWS has no region {vpc.region!r}; name it in lower-case letters, digits and "
                "hyphens, such as eu-central-1"
            )


def _instance_errors(delta: PolicyDelta) -> Iterator[str]:
    for membership in delta.members:
        if not provider_id("eni", membership.instance) and single_address(membership.instance) is None:
            name = membership.instance.name
            yield f"instance {name!r}: has neither AWS's id nor a single address; give it its id, eni-…"


class _Account:
    def __init__(self, delta: PolicyDelta) -> None:
        self._changes = delta
        # A deleted group is in its VPC of the old policy.
        old = vpcs_of_groups(delta.old) if delta.old is not None else {}
        self._vpcs = {**old, **{name: vpcs for name, vpcs in vpcs_of_groups(delta.new).items() if vpcs}}
        self._variables = Variables()
        self._settings: dict[str, str] = {}
        self._calls: list[Call] = []
        #: The id of each group, or the variable that contains it.
        self._groups: dict[str, str] = {}
        self._region = ""

    def calls(self) -> Calls:
        delta = self._changes
        self._find_groups()
        added = _by_place(delta.rules)
        rules: Counter[str] = Counter()
        for (name, _), of_place in added.items():
            rules[name] += len(of_place)
        for group in delta.groups:
            self._make_group(group.name, group.description, rules[group.name])
        self._change_rules("Add to", _ADD, "InvalidPermission.Duplicate", added)
        for name in (group.name for group in delta.groups):
            line = f"check_group {words(self._groups[name])}"
            self._script_only(f"Check the security group {name}, if it was there already", self._vpc_of(name), line)
        interfaces = {membership.instance.name: self._interface(membership) for membership in delta.members}
        for membership in (*delta.memberships, *delta.memberships_taken):
            self._set_groups(membership, interfaces[membership.instance.name])
        self._change_rules("Take from", _TAKE, "InvalidPermission.NotFound", _by_place(delta.rules_taken))
        for name in (group.name for group in delta.groups_deleted):
            self._call(
                f"Delete the security group {name}", self._vpc_of(name), "DeleteSecurityGroup",
                {"GroupId": self._groups[name]},
                f"accepting InvalidGroup.NotFound delete-security-group --group-id {words(self._groups[name])} || true",
            )  # fmt: skip
        return Calls(delta, TARGET.title, self._calls, self._settings)

    def _call(
        self, about: str, vpc: Vpc | None, action: str, parameters: Mapping[str, Any], *lines: str, **gives: str
    ) -> None:
        region = None if vpc is None else vpc.region or None
        request = JsonAction.of(
            None, about=about, action=action, parameters=parameters, region=region, gives=gives or None
        )
        self._calls.append(Call(about, request, [*self._to_region(vpc), *lines]))

    def _script_only(self, about: str, vpc: Vpc | None, line: str) -> None:
        self._calls.append(only_in_script(about, *self._to_region(vpc), line))

    def _to_region(self, vpc: Vpc | None) -> Iterator[str]:
        """Yield the script's line that selects the VPC's region, if it is not the current region."""
        if vpc is not None and vpc.region not in ("", self._region):
            self._region = vpc.region
            yield f"export AWS_REGION={words(vpc.region)} AWS_DEFAULT_REGION={words(vpc.region)}"

    # Groups

    def _vpc_of(self, group: str) -> Vpc | None:
        vpcs = self._vpcs.get(group, ())
        return self._changes.new.vpc_by_name.get(next(iter(vpcs))) if len(vpcs) == 1 else None

    def _vpc_id(self, vpc: Vpc) -> str:
        if interface_id := provider_id("vpc", vpc):
            return interface_id
        name = self._variables.name("vpc", vpc.name)
        self._settings[name] = f"the id of the VPC {vpc.name}"
        return f"${{{name}}}"

    def _find_groups(self) -> None:
        """Look up the existing groups that the steps mention."""
        mentioned = self._changes.mentioned()
        for name, group in self._changes.groups_there.items():
            if ("group", name) in mentioned:
                self._groups[name] = provider_id("sg", group)
                if not self._groups[name]:
                    self._find_group(name)

    def _find_group(self, name: str) -> None:
        variable = self._variables.name("group", name)
        self._groups[name] = f"${{{variable}}}"
        vpc = self._vpc_of(name)
        filters = {"group-name": name} | ({"vpc-id": self._vpc_id(vpc)} if vpc is not None else {})
        noun = f"security group {name}"
        self._find(noun, vpc, variable, "DescribeSecurityGroups", filters, "SecurityGroups", "GroupId")

    def _find(
        self, noun: str, vpc: Vpc | None, variable: str, action: str, filters: Mapping[str, str], section: str, key: str
    ) -> None:
        filter_words = words(*(f"Name={name},Values={value}" for name, value in filters.items()))
        self._call(
            f"Find the {noun}", vpc, action,
            {"Filters": [{"Name": name, "Values": [value]} for name, value in filters.items()]},
            f"find_one {words(noun)} {_command(action)} --filters {filter_words} --query '{section}[].{key}'",
            f"{variable}=$answer",
            **{variable: f"{section}[0].{key}"},
        )  # fmt: skip

    def _make_group(self, name: str, description: str, rules: int) -> None:
        vpc = self._vpc_of(name)
        assert vpc is not None, "aws_delta refuses it"
        variable, default_rules = self._variables.name("group", name), self._variables.name("rules_of", name)
        self._groups[name] = f"${{{variable}}}"
        parameters = {
            "GroupName": name,
            "Description": described(description) or name,
            "VpcId": self._vpc_id(vpc),
        }
        self._call(
            f"Make the security group {name}", vpc, "CreateSecurityGroup", parameters,
            # The parameters are JSON, because aws would replace an option such as file://x by the content of a file.
            f"make_group {words(name, parameters['VpcId'], str(rules), json.dumps(parameters))}",
            f"{variable}=$answer",
            **{variable: "GroupId"},
        )  # fmt: skip
        # The next two calls are for JSON only, because the script's function make_group does the same.
        self._call(
            f"Find the rules that AWS gives to the new group {name}", vpc, "DescribeSecurityGroupRules",
            {"Filters": [{"Name": "group-id", "Values": [self._groups[name]]}]},
            **{default_rules: "SecurityGroupRules[].SecurityGroupRuleId"},
        )  # fmt: skip
        self._call(
            f"Take them from it: {name}", vpc, "RevokeSecurityGroupEgress",
            {"GroupId": self._groups[name], "SecurityGroupRuleIds": f"${{{default_rules}}}"},
        )  # fmt: skip

    # Rules

    def _change_rules(
        self, about: str, actions: Mapping[Direction, str], accepted: str, rules: Mapping[_Place, Sequence[Rule]]
    ) -> None:
        for (group, direction), of_place in rules.items():
            permissions = [self._permission(rule) for rule in of_place]
            for first in range(0, len(permissions), _BATCH):
                batch = permissions[first : first + _BATCH]
                id, action = self._groups[group], actions[direction]
                command = f"rules {accepted} {_command(action)} {words(id)}"
                lines = [command, *(words(json.dumps(permission)) for permission in batch)]
                self._call(
                    f"{about} the security group {group}: {len(batch)} {direction} rule{'s' if len(batch) > 1 else ''}",
                    self._vpc_of(group), action, {"GroupId": id, "IpPermissions": batch}, " \\\n  ".join(lines),
                )  # fmt: skip

    def _permission(self, rule: Rule) -> dict[str, Any]:
        permission: dict[str, Any] = {"IpProtocol": protocol(rule)}
        if (ends := first_and_last(rule)) is not None:
            permission["FromPort"], permission["ToPort"] = ends
        comment: dict[str, Any] = {}
        if rule.description:
            comment["Description"] = described(rule.description)
        if isinstance(rule.peer, GroupPeer):
            permission["UserIdGroupPairs"] = [{"GroupId": self._groups[rule.peer.name], **comment}]
        elif isinstance(rule.peer, AddressGroupPeer):
            permission["PrefixListIds"] = [{"PrefixListId": prefix_list(self._changes, rule.peer), **comment}]
        elif rule.ethertype == 4:
            permission["IpRanges"] = [{"CidrIp": str(rule.peer or "0.0.0.0/0"), **comment}]
        else:
            permission["Ipv6Ranges"] = [{"CidrIpv6": str(rule.peer or "::/0"), **comment}]
        return permission

    # Memberships

    def _interface(self, membership: Membership) -> str:
        instance = membership.instance
        if interface_id := provider_id("eni", instance):
            return interface_id
        variable = self._variables.name("interface", instance.name)
        vpc = self._changes.new.vpc_by_name[instance.vpc]
        filters = filters_of(instance) | {"vpc-id": self._vpc_id(vpc)}
        self._find(
            f"network interface of {instance.name}", vpc, variable, "DescribeNetworkInterfaces", filters,
            "NetworkInterfaces", "NetworkInterfaceId",
        )  # fmt: skip
        return f"${{{variable}}}"

    def _set_groups(self, membership: Membership, interface: str) -> None:
        groups = [self._groups[name] for name in membership.groups]
        self._call(
            f"Set the groups of {membership.instance.name}: {', '.join(membership.groups)}",
            self._changes.new.vpc_by_name[membership.instance.vpc],
            "ModifyNetworkInterfaceAttribute",
            {"NetworkInterfaceId": interface, "Groups": groups},
            "aws ec2 modify-network-interface-attribute "
            f"--network-interface-id {words(interface)} --groups {words(*groups)}",
        )


def _by_place(rules: Sequence[RuleInGroup]) -> dict[_Place, list[Rule]]:
    """Return the rules by group and direction."""
    by_place: dict[_Place, list[Rule]] = {}
    for group_rule in rules:
        by_place.setdefault((group_rule.group, group_rule.rule.direction), []).append(group_rule.rule)
    return by_place


def first_and_last(rule: Rule) -> tuple[int, int] | None:
    """Return EC2's FromPort and ToPort: ports, or the type and code of ICMP. -1 means all."""
    if rule.protocol in (ICMP, ICMPV6):
        kind = -1 if rule.icmp_type is None else rule.icmp_type
        return kind, -1 if rule.icmp_code is None else rule.icmp_code
    if rule.protocol in TARGET.port_protocols:
        return rule.ports[0] if rule.ports is not None else ALL_PORTS[0]
    return None if rule.protocol is None else (-1, -1)


def described(text: str) -> str:
    """Replace the characters of a description that EC2 does not accept."""
    return _NOT_IN_DESCRIPTIONS.sub("_", text)


def prefix_list(found: PolicyDelta, peer: AddressGroupPeer) -> str:
    """Return the id of the prefix list that a peer names, from the new policy or the old one."""
    policies = (found.new, found.old) if found.old is not None else (found.new,)
    groups = (policy.address_group_by_name.get(peer.name) for policy in policies)
    return next(provider_id("pl", group) for group in groups if group is not None)


def protocol(rule: Rule) -> str:
    return _PROTOCOLS.get(rule.protocol, str(rule.protocol))


def filters_of(instance: Instance) -> dict[str, str]:
    """Return the filter by which EC2 finds the instance's network interface."""
    address = single_address(instance)
    assert address is not None, "aws_delta refuses it"
    key = "addresses.private-ip-address" if address.version == 4 else "ipv6-addresses.ipv6-address"
    return {key: str(address.network_address)}


def _command(action: str) -> str:
    """Return the command of ``aws ec2`` for a call: ``describe-vpcs`` for ``DescribeVpcs``."""
    return re.sub(r"(?<!^)([A-Z])", r"-\1", action).lower()

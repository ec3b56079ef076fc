"""Read AWS CloudFormation templates: their security groups, and the interfaces whose addresses they set.

A template is a file in JSON or YAML, or the output of ``aws cloudformation get-template``. Parameters have their
defaults, unless a file gives them other values. Such a file is the list that ``--parameters`` of the AWS CLI takes, or
the output of ``aws cloudformation describe-stacks``.

- The ids of objects are their logical ids. A template may refer to an object by a parameter without a default, by the
  export of another stack, or by an attribute that only the cloud knows. Such a reference is unresolved (SPEC 2.13).
- EC2 gives a group without outbound rules a rule that allows all outbound traffic. The first
  ``AWS::EC2::SecurityGroupEgress`` removes the rule that allows all outbound IPv4 traffic, even if the group lists it.
  The AWS CDK documents this and works around it.
- Instances whose addresses only the cloud knows are left out with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from sgfast.base.errors import PolicyError
from sgfast.clouds.aws.rules import INTERFACE_ADDRESSES, AwsAccount, meaning, parse_traffic
from sgfast.clouds.cloudformation.values import PROCESSED, Template, Unknown, templates_of
from sgfast.clouds.importing.draft import BOTH_VERSIONS, Draft, DraftInstance, DraftRule
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.sources import Source, source_of
from sgfast.policy.model import Direction
from sgfast.policy.yaml_nodes import show

_GROUP = "AWS::EC2::SecurityGroup"
_VPC = "AWS::EC2::VPC"
_SUBNET = "AWS::EC2::Subnet"
_PEERING = "AWS::EC2::VPCPeeringConnection"
_LIST = "AWS::EC2::PrefixList"
_INSTANCE = "AWS::EC2::Instance"
_INTERFACE = "AWS::EC2::NetworkInterface"
_LAUNCH_TEMPLATE = "AWS::EC2::LaunchTemplate"
_NESTED = "AWS::CloudFormation::Stack"
#: The CDK's resource that removes all rules from the default group of a VPC.
_EMPTIED_DEFAULT = "Custom::VpcRestrictDefaultSG"
_RULES: dict[str, Direction] = {
    "AWS::EC2::SecurityGroupIngress": "inbound",
    "AWS::EC2::SecurityGroupEgress": "outbound",
}
_READ = frozenset((
    _GROUP, _VPC, _SUBNET, _PEERING, _LIST, _INSTANCE, _INTERFACE, _NESTED, _EMPTIED_DEFAULT, *_RULES,
))  # fmt: skip
_GATEWAY = "AWS::EC2::TransitGatewayAttachment"
#: Types of the resources, other than security groups, that filter traffic.
_FILTERS = (
    "AWS::EC2::NetworkAcl", "AWS::EC2::SubnetNetworkAclAssociation", "AWS::NetworkFirewall::Firewall",
    "AWS::NetworkFirewall::RuleGroup",
)  # fmt: skip
#: Transforms that add neither security groups nor instances to a template.
_HARMLESS = ("AWS::CodeDeployBlueGreen", "AWS::LanguageExtensions", "AWS::SecretsManager", "AWS::Serverless")

_INLINE: dict[str, Direction] = {"SecurityGroupIngress": "inbound", "SecurityGroupEgress": "outbound"}
_NOT_PROCESSED = f"CloudFormation may add more resources when it processes the template; to have them, {PROCESSED}"
_NO_ADDRESS = "Left out because the template does not say its address"
#: The VPC of groups that name no VPC.
_DEFAULT_VPC = "default-vpc"
#: The most ids in one list. AWS allows an interface sixteen groups.
_MAX_IDS = 1000


_LISTED_NAMES = 5


def read(sources: Sequence[Source]) -> Draft:
    """Read files into one draft."""
    lacking: list[_NotKnown] = []
    try:
        draft = _Stacks(sources, lacking).draft
    except _NotKnown as error:
        lacking.append(error)
    if lacking:
        raise _missing_values_error(lacking)
    return draft


class _NotKnown(PolicyError):
    """The error for a needed value that the template does not contain."""

    def __init__(self, location: Location, called: str, value: Unknown) -> None:
        super().__init__(f"{location}: {called} is not known: {value.why}")
        #: The name under which a parameter file can supply the value, or "".
        self.name = value.name


class _Properties(JsonObject):
    """The computed properties of a resource. Reading an unknown value raises ``_NotKnown``, except where a method says
    otherwise.
    """

    def get(self, *keys: str) -> object:
        value = super().get(*keys)
        if isinstance(value, Unknown):
            raise _NotKnown(self.location, keys[0], value)
        return value

    def text(self, *keys: str) -> str:
        value = self.get(*keys)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if is_number else super().text(*keys)

    def id(self, key: str) -> str:
        """Return an id, or "" if it is missing. For an id that no file contains, return ``Unknown.id``."""
        value = super().get(key)
        return value.id if isinstance(value, Unknown) and value.id else self.text(key)

    def ids(self, key: str) -> list[str]:
        """Return a list of ids as ``id`` returns them. A property that is a single id counts as a list of one."""
        value = super().get(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        if len(items) > _MAX_IDS:
            raise self.location.error(f"{key} lists more than {_MAX_IDS:,} ids")
        item_ids = [_Properties({key: item}, self.location).id(key) for item in items]
        return [text for text in item_ids if text]

    def known(self, key: str) -> str:
        """Return a text that is only for people, or "" if it is missing or unknown."""
        value = super().get(key)
        return value if isinstance(value, str) else ""

    def parts(self, key: str) -> Iterator[_Properties]:
        """Yield the mappings in a list. A property that is a single mapping counts as a list of one."""
        value = self.get(key)
        for n, item in enumerate(value if isinstance(value, list) else [] if value is None else [value]):
            yield _properties(item, self.location.part(f"{key}[{n}]"))


class _Found(NamedTuple):
    """A resource whose condition is true or cannot be decided."""

    template: Template
    id: str
    name: str
    properties: _Properties
    #: The error that the resource's condition cannot be decided; None if the condition is true.
    doubt: _NotKnown | None

    @property
    def location(self) -> Location:
        return self.properties.location


class _Stacks:
    """The templates of one import, and the draft made from them."""

    def __init__(self, sources: Sequence[Source], lacking: list[_NotKnown]) -> None:
        """Read all templates. ``lacking`` collects errors for unknown values, so that all are reported at once."""
        self.draft = Draft("aws")
        self.draft.is_partial = True
        self._lacking = lacking
        self._account = AwsAccount(self.draft)
        self._vpcs = self._account.vpcs
        self._vpc_of = self._account.vpc_of
        self._group_names: dict[str, list[str]] = {}
        #: The ids of the groups for which the template has a SecurityGroupEgress.
        self._with_outbound: set[str] = set()
        #: The ids of groups that something refers to.
        self._mentioned: set[str] = set()
        self._templates = _templates(sources)
        self._add_notes()
        self._add_vpcs()
        self._add_lists()
        self._add_groups()
        self._add_rules()
        self._add_instances()
        self._add_default_groups()
        self._vpcs.put_into(self.draft)

    def _resources_of_type(self, kind: str, title: str, *, doubtful: bool = False) -> Iterator[_Found]:
        """Yield the resources of a type, which messages call ``title``.

        A condition that cannot be decided is an error for ``_lacking``. With ``doubtful``, the resource is yielded
        with this error, and the caller decides whether it matters.
        """
        for template in self._templates:
            for logical, resource in template.resources.items():
                if resource.type != kind or not (holds := template.holds(resource.condition)):
                    continue
                location = Location(template.file, title, template.identity(logical), logical)
                doubt = _NotKnown(location, "Condition", holds) if isinstance(holds, Unknown) else None
                if doubt is None or doubtful:
                    properties = _properties(template.properties(resource, location), location)
                    yield _Found(template, location.id, logical, properties, doubt)
                else:
                    self._lacking.append(doubt)

    # Parts that are not read

    def _add_notes(self) -> None:
        for template in self._templates:
            for name in template.transforms:
                if not name.startswith(_HARMLESS):
                    self.draft.note(_NOT_PROCESSED, Location(template.file, "transform", name))
            for logical, resource in template.resources.items():
                if template.holds(resource.condition) is False:
                    continue
                location = Location(template.file, resource.type, logical)
                if resource.type == _NESTED:
                    message = "A nested stack's template is read if it is given, but without the stack's parameters"
                    self.draft.note(message, location)
                elif resource.type == _GATEWAY:
                    message = "Not read: VPCs behind a transit gateway do not reach each other in the policy"
                    self.draft.note(message, location)
                elif resource.type.startswith(_FILTERS):
                    self.draft.note("Not in the policy, although it filters traffic, too", location)
                    properties = template.properties(resource, location)
                    shown_properties = properties if isinstance(properties, dict) else {"Properties": properties}
                    shown_properties = {key: value for key, value in shown_properties.items() if key != "Tags"}
                    self.draft.unread_filter(resource.type, location, shown_properties)
                elif resource.type.endswith("::MODULE"):
                    self.draft.note(_NOT_PROCESSED, location)
                elif resource.type not in _READ and _uses_groups(resource.properties):
                    self.draft.note("Uses security groups, but is no instance with a known address", location)

    # VPCs

    def _add_vpcs(self) -> None:
        for vpc in self._resources_of_type(_VPC, "VPC", doubtful=True):
            self._vpcs.seen(vpc.template.file, vpc.id, _name_tag(vpc.properties) or vpc.name)
        for subnet in self._resources_of_type(_SUBNET, "subnet", doubtful=True):
            self._vpc_of[subnet.id] = subnet.properties.id("VpcId")
        for peering in self._resources_of_type(_PEERING, "VPC peering connection"):
            ends = [peering.properties.id(end) for end in ("VpcId", "PeerVpcId")]
            for end, key in zip(ends, ("VpcId", "PeerVpcId"), strict=True):
                if not end:
                    raise peering.properties.error(key, "is missing")
            self.draft.peering(peering.location, *ends)

    # Prefix lists

    def _add_lists(self) -> None:
        for listed in self._resources_of_type(_LIST, "prefix list"):
            addresses = [entry.required("Cidr") for entry in listed.properties.parts("Entries")]
            name = listed.properties.known("PrefixListName") or listed.name
            self._account.prefix_list(Location(listed.template.file, "prefix list", listed.id, name), addresses)

    # Groups and rules

    def _add_groups(self) -> None:
        for group in self._resources_of_type(_GROUP, "security group"):
            name = group.properties.known("GroupName") or group.name
            location = Location(group.template.file, "security group", group.id, name)
            self._vpc_of[group.id] = vpc = group.properties.id("VpcId") or _DEFAULT_VPC
            self.draft.group(location, group.properties.known("GroupDescription"), vpc=vpc)
            self._group_names.setdefault(name, []).append(group.id)
            self._vpcs.seen(group.template.file, vpc)

    def _add_rules(self) -> None:
        inline: list[tuple[str, DraftRule]] = []
        rules_alone: list[tuple[str, DraftRule]] = []
        for kind, direction in _RULES.items():
            for resource in self._resources_of_type(kind, "security group rule"):
                group = self._group_of(resource.properties, "Group")
                if not group:
                    raise resource.properties.error("GroupId", "is missing")
                if direction == "outbound":
                    self._with_outbound.add(group)
                rules_alone += [(group, rule) for rule in self._rules(resource.properties, direction)]
        for resource in self._resources_of_type(_GROUP, "security group"):
            for key, direction in _INLINE.items():
                for item in resource.properties.parts(key):
                    inline += [(resource.id, rule) for rule in self._rules(item, direction)]
            if not any(resource.properties.parts("SecurityGroupEgress")) and resource.id not in self._with_outbound:
                inline += [(resource.id, rule) for rule in _default_outbound(resource.location)]
        added: set[tuple[str, object]] = set()
        for group, rule in inline:
            if group in self._with_outbound and _allows_all_outbound(rule):
                self.draft.note("CloudFormation removes this rule when it makes a SecurityGroupEgress of the group",
                                rule.location)  # fmt: skip
            else:
                self._add_once(added, group, rule)
        for group, rule in rules_alone:
            self._add_once(added, group, rule)

    def _add_once(self, added: set[tuple[str, object]], group: str, rule: DraftRule) -> None:
        """Add a rule if the group does not have an equal one: AWS keeps duplicate rules of a group only once."""
        if (group, meaning(rule)) not in added:
            added.add((group, meaning(rule)))
            self.draft.rule(group, rule)

    def _rules(self, fields: _Properties, direction: Direction) -> list[DraftRule]:
        """Convert a template's rule. If one of its values is unknown, record the error and return no rules."""
        try:
            return self._known_rules(fields, direction)
        except _NotKnown as error:
            self._lacking.append(error)
            return []

    def _known_rules(self, fields: _Properties, direction: Direction) -> list[DraftRule]:
        protocol = fields.required("IpProtocol")
        traffic = parse_traffic(fields.location, protocol, fields.number("FromPort"), fields.number("ToPort"))
        end = "Source" if direction == "inbound" else "Destination"
        peers = {
            "cidrs": fields.text("CidrIp"), "cidrs6": fields.text("CidrIpv6"),
            "groups": self._group_of(fields, f"{end}SecurityGroup"), "lists": fields.id(f"{end}PrefixListId"),
        }  # fmt: skip
        description = fields.known("Description")
        fields.refuse_unread(("SourceSecurityGroupOwnerId",))
        named = {kind: [peer] for kind, peer in peers.items() if peer}
        return self._account.rules(fields.location, direction, traffic, description, **named)

    def _group_of(self, fields: _Properties, key: str) -> str:
        """Return the id of the group in the property ``key`` + Id or ``key`` + Name, or "" if both are missing."""
        named = self._group_named(fields.id(f"{key}Name"))
        group = fields.id(f"{key}Id") or named
        self._mentioned.add(group)
        return group

    def _group_named(self, name: str) -> str:
        """Return the id of a group that is given by name, as is possible in a default VPC, or by id."""
        named = self._group_names.get(name, ())
        return named[0] if len(named) == 1 and name not in self._vpc_of else name

    def _add_default_groups(self) -> None:
        """Add the default groups of VPCs that the templates use. Each allows inbound traffic from its members, and all
        outbound traffic.
        """
        vpcs = self._resources_of_type(_VPC, "VPC", doubtful=True)
        used = [vpc for vpc in vpcs if f"{vpc.id}.DefaultSecurityGroup" in self._mentioned]
        emptying = self._resources_of_type(_EMPTIED_DEFAULT, "resource") if used else ()
        emptied = {change.properties.id("DefaultSecurityGroupId") for change in emptying}
        for vpc in used:
            group = f"{vpc.id}.DefaultSecurityGroup"
            location = Location(vpc.template.file, "security group", group)
            self.draft.group(location, f"The default group of {vpc.name}", vpc=vpc.id)
            if group not in emptied:
                for version in BOTH_VERSIONS:
                    self.draft.rule(group, DraftRule(location, "inbound", version, group=group))
                for rule in _default_outbound(location) if group not in self._with_outbound else ():
                    self.draft.rule(group, rule)

    # Instances

    def _add_instances(self) -> None:
        names: dict[str, str] = {}
        for resource in self._resources_of_type(_INSTANCE, "instance", doubtful=True):
            name = _name_tag(resource.properties) or resource.name
            location = Location(resource.template.file, "instance", resource.id, name)
            try:
                interfaces = [*resource.properties.parts("NetworkInterfaces")] or [resource.properties]
            except _NotKnown:
                self.draft.note(_NO_ADDRESS, location)
                continue
            for n, fields in enumerate(interfaces):
                if fields.id("NetworkInterfaceId"):
                    names[fields.id("NetworkInterfaceId")] = name
                else:
                    numbered = Location(location.file, "instance", f"{resource.id}.{n}") if n else location
                    self._add_interface(resource, fields, numbered)
        for resource in self._resources_of_type(_INTERFACE, "network interface", doubtful=True):
            name = _name_tag(resource.properties) or names.get(resource.id) or resource.name
            location = Location(resource.template.file, "network interface", resource.id, name)
            self._add_interface(resource, resource.properties, location)

    def _add_interface(self, resource: _Found, fields: _Properties, location: Location) -> None:
        addresses, is_complete = _addresses(fields)
        if not addresses:
            self.draft.note(_NO_ADDRESS, location)
            return
        if not is_complete:
            self.draft.note("Has more addresses, which the template does not say", location)
        if resource.doubt is not None:
            self._lacking.append(resource.doubt)
        groups = self._groups_of(fields)
        subnet = fields.id("SubnetId")
        vpc = next((self._vpc_of[group] for group in groups if group in self._vpc_of), "")
        vpc = vpc or self._vpc_of.get(subnet, "") or (f"{subnet}.VpcId" if subnet else _DEFAULT_VPC)
        groups = [f"{vpc}.DefaultSecurityGroup" if group == "default" else group for group in groups or ["default"]]
        self._vpcs.seen(location.file, vpc)
        self._mentioned.update(groups)
        self.draft.instance(DraftInstance(location, vpc, addresses, groups))

    @cached_property
    def _launch_templates(self) -> dict[str, Any]:
        resources = [*self._resources_of_type(_LAUNCH_TEMPLATE, "launch template")]
        return {resource.id: resource for resource in reversed(resources)}

    def _groups_of(self, fields: _Properties) -> list[str]:
        """Return the groups of an instance or interface. If it names none, return those of its launch template."""
        groups = self._named_groups(fields)
        for launch in fields.parts("LaunchTemplate") if not groups else ():
            origin = launch.id("LaunchTemplateId") or launch.id("LaunchTemplateName")
            launch_template = self._launch_templates.get(origin)
            if launch_template is None:
                return [f"{origin}.SecurityGroupIds"]
            for data in launch_template.properties.parts("LaunchTemplateData"):
                groups = self._named_groups(data)
                groups += [group for interface in data.parts("NetworkInterfaces") for group in interface.ids("Groups")]
        return groups

    def _named_groups(self, fields: _Properties) -> list[str]:
        by_name = map(self._group_named, fields.ids("SecurityGroups"))
        return [*fields.ids("GroupSet"), *fields.ids("SecurityGroupIds"), *by_name]


# Values ---------------------------------------------------------------------------------------------------------------


def _properties(value: object, location: Location) -> _Properties:
    if isinstance(value, Unknown):
        raise _NotKnown(location, "its value", value)
    return _Properties(value, location)


def _missing_values_error(lacking: Sequence[_NotKnown]) -> PolicyError:
    """Make one error for all missing values. It has the place of the first one, and the way to supply all of them."""
    names = [*dict.fromkeys(error.name for error in lacking if error.name)]
    message = str(lacking[0])
    if names:
        listed = ", ".join(show(name) for name in names[:_LISTED_NAMES])
        message += f'; add a file with [{{"ParameterKey": NAME, "ParameterValue": VALUE}}, ...] for {listed}'
    if len(names) > _LISTED_NAMES:
        message += f" and {len(names) - _LISTED_NAMES} more"
    return PolicyError(message)


def _addresses(fields: _Properties) -> tuple[list[str], bool]:
    """Return the known addresses of an interface, and whether these are all addresses that the template gives it."""
    addresses: list[str] = []
    is_complete = True
    try:
        addresses.append(fields.text("PrivateIpAddress"))
    except _NotKnown:
        is_complete = False
    for section, key in INTERFACE_ADDRESSES:
        try:
            addresses += [item.required(key) for item in fields.parts(section)]
        except _NotKnown:
            is_complete = False
    return [*dict.fromkeys(address for address in addresses if address)], is_complete


def _name_tag(fields: _Properties) -> str:
    try:
        return next((tag.known("Value") for tag in fields.parts("Tags") if tag.known("Key") == "Name"), "")
    except _NotKnown:
        return ""


def _default_outbound(location: Location) -> list[DraftRule]:
    """Make the rules that EC2 gives to a group without outbound rules."""
    return [DraftRule(location, "outbound", version) for version in BOTH_VERSIONS]


def _allows_all_outbound(rule: DraftRule) -> bool:
    everywhere = rule.cidr.endswith("/0") and rule.ethertype == 4
    return rule.direction == "outbound" and rule.protocol is None and everywhere


def _uses_groups(properties: object) -> bool:
    """Return whether any key in the properties of a resource names security groups."""
    values = [properties]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if any("securitygroup" in key.lower() for key in value):
                return True
            values += value.values()
        elif isinstance(value, list):
            values += value
    return False


# Files ----------------------------------------------------------------------------------------------------------------


def _templates(sources: Sequence[Source]) -> list[Template]:
    """Return the templates in some of the files, with the parameter values from the other files."""
    parameter_values: dict[str, str] = {}
    bodies: list[Source] = []
    for source in sources:
        value = source.value
        if isinstance(value, dict) and "Resources" in value:
            bodies.append(source)
        elif isinstance(value, dict) and "TemplateBody" in value:
            body = value["TemplateBody"]
            bodies.append(source_of(body.encode("utf-8", "surrogatepass"), source.file) if isinstance(body, str)
                          else Source(source.file, body))  # fmt: skip
        else:
            for name, text in _parameter_values(source).items():
                if parameter_values.setdefault(name, text) != text:
                    raise source.error(f"gives the parameter {show(name)} another value than the files before it")
    if not bodies:
        raise sources[0].error("none of the files is a template, with Resources")
    return templates_of(bodies, parameter_values)


def _parameter_values(source: Source) -> dict[str, str]:
    """Read values from a list of parameters, or from the output of ``aws cloudformation describe-stacks`` for a stack.
    """
    location = Location(source.file, "parameters", "")
    if isinstance(source.value, list):
        return _values_of_parameters(JsonObject({"Parameters": source.value}, location))
    document = JsonObject(source.value, location)
    if not document.has("Stacks"):
        raise source.error("is neither a template, with Resources, nor a file with values of parameters")
    stacks = [*document.objects("Stacks")]
    if len(stacks) != 1:
        raise location.error(f"describe {len(stacks)} stacks, not one: use describe-stacks with --stack-name")
    pseudo_parameters = {f"AWS::{key}": stacks[0].text(key) for key in ("StackId", "StackName")}
    parts = pseudo_parameters["AWS::StackId"].split(":")
    if len(parts) > 5:
        pseudo_parameters |= {"AWS::Partition": parts[1], "AWS::Region": parts[3], "AWS::AccountId": parts[4]}
    return {name: text for name, text in pseudo_parameters.items() if text} | _values_of_parameters(stacks[0])


def _values_of_parameters(fields: JsonObject) -> dict[str, str]:
    """Return parameter values by name. If the value names an entry of the Parameter Store, ResolvedValue has the
    entry's value.
    """
    parameters = {}
    for item in fields.objects("Parameters"):
        key = item.required("ParameterKey")
        if item.flag("UsePreviousValue", False):
            raise item.location.error(f"{show(key)} has the value of the stack, which is not here: write the value")
        if item.has("ResolvedValue", "ParameterValue"):
            parameters[key] = item.text("ResolvedValue", "ParameterValue")
    return parameters

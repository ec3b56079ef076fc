"""Export to OpenStack and Open Telekom Cloud: calls of their APIs, or a script of ``openstack`` commands (SPEC 13.6).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from sgfast.base.errors import ExportError
from sgfast.clouds.exporting.calls import (
    Call,
    Calls,
    JsonRequest,
    Variables,
    first_id,
    id_of_rule,
    only_in_script,
    plain_text,
    refuse_several_regions,
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
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Policy,
    Rule,
    SecurityGroup,
)
from sgfast.policy.rule_text import ports_text, rule_text
from sgfast.policy.yaml_nodes import shown_origin

OPENSTACK = Target("OpenStack", "neutron", has_address_groups=True, has_stateless_groups=True)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DIRECTIONS = {"inbound": "ingress", "outbound": "egress"}
_PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp"}
#: The base path of OpenStack's API.
_V2 = "/v2.0"

FUNCTIONS = r'''
# $answer: the result of the last function. $earlier: groups that existed before, each with the number of rules that it
# shall have.
earlier=

find_group() {  # security|address NAME
  listed=$(openstack "$1" group list -f value -c ID -c Name)
  answer=$(echo "$listed" | while read -r id name; do if [ "$name" = "$2" ]; then echo "$id"; fi; done)
  case $answer in
    *[[:space:]]*) echo "$1 group $2: the cloud knows several" >&2; exit 1 ;;
  esac
}

make_group() {  # NAME RULES OPTION...
  find_group security "$1"
  if [ -n "$answer" ]; then
    # An interrupted earlier run has made the group.
    earlier="$earlier $answer=$2"
    return
  fi
  group=$1
  shift 2
  answer=$(openstack security group create "$@" -f value -c id -- "$group")
  # The cloud gives rules to a new group. Remove them.
  given=$(openstack security group rule list "$answer" -f value -c ID)
  for rule in $given; do
    openstack security group rule delete "$rule"
  done
}

make_addresses() {  # NAME ADDRESS...
  group=$1
  find_group address "$group"
  shift
  if [ -n "$answer" ]; then
    there=$(openstack address group show -f value -c addresses "$answer" | tr -d "[]',")
    if [ "$(printf '%s\n' $there | sort)" != "$(printf '%s\n' "$@" | sort)" ]; then
      echo "address group $group: is there already, with other addresses; delete it, or give this one another name" >&2
      exit 1
    fi
    return
  fi
  answer=$(for address in "$@"; do printf -- '--address %s ' "$address"; done)
  answer=$(openstack address group create $answer -f value -c id -- "$group")
}

# Stops if a group that existed before has other rules than it shall have, before any instance is put into it.
check_groups() {
  for each in $earlier; do
    rules=$(openstack security group rule list "${each%=*}" -f value -c ID)
    if [ "$(printf %s "$rules" | wc -w)" -ne "${each#*=}" ]; then
      echo "security group ${each%=*}: was there already, and has other rules, too; delete these or the group" >&2
      exit 1
    fi
  done
}

find_one() {  # NOUN COMMAND...
  noun=$1
  shift
  answer=$(openstack "$@")
  case $answer in
    '') echo "$noun: the cloud knows none" >&2; exit 1 ;;
    *[[:space:]]*) echo "$noun: the cloud knows several" >&2; exit 1 ;;
  esac
}

# Runs a command. A failure with ACCEPTED in its message is no error, because the command would change nothing.
accepting() {  # ACCEPTED COMMAND...
  accepted=$1
  shift
  if ! output=$(openstack "$@" 2>&1); then
    case $output in
      *"$accepted"*) ;;
      *) echo "$output" >&2; exit 1 ;;
    esac
  fi
}
'''


def export(old: Policy | None, new: Policy, form: Literal["script", "json"]) -> Calls:
    """Return the calls that change ``old`` into ``new``, which are the same in both forms. Raises ExportError if
    OpenStack cannot express ``new`` exactly.
    """
    return project_calls(old, new, OPENSTACK)


def project_calls(old: Policy | None, new: Policy, target: Target, place: str = _V2) -> Calls:
    """Return the calls to OpenStack's API, or to one that has other paths of groups and rules. ``place``: the base path
    of groups and rules. Ports always have OpenStack's.
    """
    delta = openstack_delta(old, new, target)
    if problems := [*_removed_rule_errors(delta)]:
        raise ExportError(shown_origin(new.origin), *problems)
    return _Project(delta, target, place).calls()


def openstack_delta(old: Policy | None, new: Policy, target: Target) -> PolicyDelta:
    """Return the delta between two policies, in rules that the target supports."""
    delta = policy_delta(None if old is None else expressible(old, target), expressible(new, target))
    origin = shown_origin(new.origin)
    if any(group.name == DEFAULT_GROUP for group in delta.groups):
        raise ExportError(
            origin,
            f"security group {DEFAULT_GROUP!r}: every project has it already; import the account, and export what "
            "changes since then",
        )
    refuse_several_regions(new, target.title)
    if problems := [*_instance_errors(delta)]:
        raise ExportError(origin, *problems)
    return delta


def provider_id(item: Any) -> str:
    """Return the id that the cloud has assigned to an object of the policy, or "" if it is unknown."""
    return first_id(_UUID, item.id, item.name)


def _instance_errors(delta: PolicyDelta) -> Iterator[str]:
    for membership in delta.members:
        if not provider_id(membership.instance) and single_address(membership.instance) is None:
            name = membership.instance.name
            yield f"instance {name!r}: has neither the id of a port nor a single address; give it its id"


def _removed_rule_errors(delta: PolicyDelta) -> Iterator[str]:
    for group_rule in delta.rules_taken:
        if not rule_id(group_rule.rule):
            yield (
                f"security group {group_rule.group!r}, rule {group_rule.rule.id} ({rule_text(group_rule.rule)}): "
                "can be taken away only by its id; take as the old policy what sgfast import has read"
            )


def rule_id(rule: Rule) -> str:
    """Return the id of the cloud's rule from which this rule comes, or "" if there is none."""
    return id_of_rule(_UUID, rule)


def protocol(rule: Rule, is_otc: bool) -> str:
    if rule.protocol == ICMPV6:
        return "icmpv6" if is_otc else "ipv6-icmp"
    return _PROTOCOLS.get(rule.protocol or 0, str(rule.protocol))


class _Project:
    def __init__(self, found: PolicyDelta, target: Target, place: str) -> None:
        self._changes = found
        self._target = target
        self._place = place
        self._variables = Variables()
        self._calls: list[Call] = []
        #: By kind and name of a group or address group: its id, or the variable that contains the id.
        self._ids: dict[tuple[str, str], str] = {}

    def calls(self) -> Calls:
        delta = self._changes
        settings = {} if self._place == _V2 else {"project": "the id of the project"}
        rules = Counter(group_rule.group for group_rule in delta.rules)
        self._find_groups()
        for addresses in delta.address_groups:
            self._make_address_group(addresses)
        for addresses in delta.addresses:
            self._change_addresses(addresses, "Add addresses to", "add_addresses", "set", " already exist ")
        for group in delta.groups:
            self._make_group(group, rules[group.name])
        for group_rule in (*delta.rules, *self._parts_that_stay()):
            self._add_rule(group_rule)
        if delta.groups:
            self._calls.append(only_in_script("Check the groups that were there already", "check_groups"))
        ports = {member.instance.name: self._port(member) for member in delta.members}
        for member in (*delta.memberships, *delta.memberships_taken):
            self._set_groups(member, ports[member.instance.name])
        for id, removed in {rule_id(group_rule.rule): group_rule for group_rule in delta.rules_taken}.items():
            described = f"rule of {removed.group}: {rule_text(removed.rule)}"
            self._delete(described, "security-group-rules", "security group rule", id)
        for group in delta.groups_deleted:
            id = self._ids["group", group.name]
            self._delete(f"security group {group.name}", "security-groups", "security group", id)
        for addresses in delta.addresses_taken:
            self._change_addresses(addresses, "Take addresses from", "remove_addresses", "unset", " not found ")
        for addresses in delta.address_groups_deleted:
            id = self._ids["addresses", addresses.name]
            self._delete(f"address group {addresses.name}", "address-groups", "address group", id)
        return Calls(delta, self._target.title, self._calls, settings)

    def _parts_that_stay(self) -> Iterator[RuleInGroup]:
        """Return rules that stay although the cloud's rule from which they come is removed. They are added again."""
        whole = {rule_id(group_rule.rule) for group_rule in self._changes.rules_taken}
        return (group_rule for group_rule in self._changes.rules_kept if rule_id(group_rule.rule) in whole - {""})

    def _call(
        self,
        about: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *lines: str,
        gives: Mapping[str, str] | None = None,
        for_each: str = "",
    ) -> None:
        request = JsonRequest.of(
            None, about=about, method=method, path=path, body=body, for_each=for_each or None, gives=gives
        )
        self._calls.append(Call(about, request, lines))

    def _delete(self, described: str, section: str, command: str, id: str) -> None:
        place = self._place if section != "address-groups" else _V2
        self._call(
            f"Delete the {described}", "DELETE", f"{place}/{section}/{id}", None,
            f"accepting ' found for ' {command} delete {words(id)}",
        )  # fmt: skip

    # Groups and address groups

    def _find_groups(self) -> None:
        """Look up the existing groups and address groups that the steps mention."""
        delta = self._changes
        mentioned = delta.mentioned(self._parts_that_stay())
        known_objects: list[tuple[str, str, SecurityGroup | AddressGroup]] = [
            *(("group", name, group) for name, group in delta.groups_there.items()),
            *(("addresses", name, delta.new.address_group_by_name[name]) for name in delta.kept_address_groups),
        ]
        known_objects += [("addresses", group.name, group) for group in delta.address_groups_deleted]
        for kind, name, group in known_objects:
            if (kind, name) in mentioned:
                self._ids[kind, name] = provider_id(group) or self._find_by_name(kind, name)

    def _find_by_name(self, kind: str, name: str) -> str:
        variable = self._variables.name(kind, name)
        noun = "security group" if kind == "group" else "address group"
        section = noun.replace(" ", "-") + "s"
        self._call(
            f"Find the {noun} {name}", "GET", f"{self._place}/{section}?name={name}", None,
            f"find_one {words(f'{noun} {name}')} {noun} show -f value -c id -- {words(name)}",
            f"{variable}=$answer",
            gives={variable: f"{section.replace('-', '_')}[0].id"},
        )  # fmt: skip
        return f"${{{variable}}}"

    def _make_address_group(self, group: AddressGroup) -> None:
        variable = self._variables.name("addresses", group.name)
        addresses = [str(address) for address in group.addresses]
        self._ids["addresses", group.name] = f"${{{variable}}}"
        self._call(
            f"Make the address group {group.name}", "POST", f"{_V2}/address-groups",
            {"address_group": {"name": group.name, "addresses": addresses}},
            f"make_addresses {words(group.name, *addresses)}", f"{variable}=$answer",
            gives={variable: "address_group.id"},
        )  # fmt: skip

    def _change_addresses(self, group: AddressGroup, about: str, action: str, command: str, accepted: str) -> None:
        addresses = [str(address) for address in group.addresses]
        id = self._ids["addresses", group.name]
        # The script adds addresses one by one, because the cloud refuses a list if it has one of them already.
        lines = [
            f"accepting {words(accepted)} address group {command} --address {words(address)} {words(id)}"
            for address in addresses
        ]
        self._call(
            f"{about} the address group {group.name}", "PUT", f"{_V2}/address-groups/{id}/{action}",
            {"addresses": addresses}, *lines,
        )  # fmt: skip

    def _make_group(self, group: SecurityGroup, rules: int) -> None:
        variable = self._variables.name("group", group.name)
        default_rules = self._variables.name("rules_of", group.name)
        self._ids["group", group.name] = f"${{{variable}}}"
        body: dict[str, Any] = {"name": group.name, "description": plain_text(group.description)}
        if not group.stateful:
            body["stateful"] = False
        options = [f"--description={plain_text(group.description)}", *(["--stateless"] if not group.stateful else [])]
        self._call(
            f"Make the security group {group.name}", "POST", f"{self._place}/security-groups", {"security_group": body},
            f"make_group {words(group.name, str(rules), *options)}", f"{variable}=$answer",
            gives={variable: "security_group.id", default_rules: "security_group.security_group_rules[].id"},
        )  # fmt: skip
        # This call is for JSON only, because the script's function make_group does the same.
        self._call(
            f"Take the rules from it that the cloud gives to a new group: {group.name}", "DELETE",
            f"{self._place}/security-group-rules/${{each}}", None, for_each=f"${{{default_rules}}}",
        )  # fmt: skip

    # Rules

    def _add_rule(self, group_rule: RuleInGroup) -> None:
        rule, group = group_rule.rule, self._ids["group", group_rule.group]
        body: dict[str, Any] = {
            "security_group_id": group,
            "direction": _DIRECTIONS[rule.direction],
            "ethertype": f"IPv{rule.ethertype}",
            "protocol": None if rule.protocol is None else protocol(rule, is_otc=self._target is not OPENSTACK),
        }
        options = [f"--{body['direction']}", "--ethertype", body["ethertype"], "--protocol", body["protocol"] or "any"]
        if self._place != _V2:
            body |= {"action": rule.action, "priority": rule.priority}
            if rule.ports is not None:
                body["multiport"] = ports_text(rule.ports, listed=None)
            elif rule.icmp_type is not None:
                body["multiport"] = "-".join(str(n) for n in (rule.icmp_type, rule.icmp_code) if n is not None)
        elif rule.ports is not None:
            body["port_range_min"], body["port_range_max"] = rule.ports[0]
            options += ["--dst-port", "{}:{}".format(*rule.ports[0])]
        elif rule.icmp_type is not None:
            body["port_range_min"] = rule.icmp_type
            options += ["--icmp-type", str(rule.icmp_type)]
            if rule.icmp_code is not None:
                body["port_range_max"] = rule.icmp_code
                options += ["--icmp-code", str(rule.icmp_code)]
        match rule.peer:
            case GroupPeer(name):
                body["remote_group_id"] = self._ids["group", name]
                options += ["--remote-group", body["remote_group_id"]]
            case AddressGroupPeer(name):
                body["remote_address_group_id"] = self._ids["addresses", name]
                options += ["--remote-address-group", body["remote_address_group_id"]]
            case peer:
                body["remote_ip_prefix"] = str(peer or ("0.0.0.0/0" if rule.ethertype == 4 else "::/0"))
                options += ["--remote-ip", body["remote_ip_prefix"]]
        if rule.description:
            body["description"] = plain_text(rule.description)
            options.append(f"--description={body['description']}")
        self._call(
            f"Add to the security group {group_rule.group}: {rule_text(rule)}",
            "POST", f"{self._place}/security-group-rules",
            {"security_group_rule": {key: value for key, value in body.items() if value is not None}},
            f"accepting 'already exists' security group rule create {words(*options, group)}",
        )  # fmt: skip

    # Memberships

    def _port(self, membership: Membership) -> str:
        if port_id := provider_id(membership.instance):
            return port_id
        name = membership.instance.name
        variable = self._variables.name("port", name)
        address = single_address(membership.instance)
        assert address is not None, "export refuses it"
        fixed = f"ip-address={address.network_address}"
        self._call(
            f"Find the port of {name}", "GET",
            f"{_V2}/ports?fixed_ips=ip_address%3D{address.network_address}", None,
            f"find_one {words(f'port of {name}')} port list --fixed-ip {words(fixed)} -f value -c ID",
            f"{variable}=$answer",
            gives={variable: "ports[0].id"},
        )  # fmt: skip
        return f"${{{variable}}}"

    def _set_groups(self, membership: Membership, port: str) -> None:
        groups = [self._ids["group", name] for name in membership.groups]
        group_words = " ".join(f"--security-group {words(group)}" for group in groups)
        self._call(
            f"Set the groups of {membership.instance.name}: {', '.join(membership.groups)}",
            "PUT", f"{_V2}/ports/{port}",
            {"port": {"security_groups": groups}},
            f"openstack port set --no-security-group {group_words} {words(port)}",
        )  # fmt: skip

"""The fields of the documents that people write: for each, its valid values, its description and its default (SPEC 2,
2.14, 9.5).

Readers accept these fields and no others. JSON Schemas, and the checks of values that a program made, come from the
same tables. A schema accepts every document that the reader accepts. The reader refuses more documents, because only
it can check, for example, whether a name exists.
"""

from __future__ import annotations

import re
from functools import cache
from typing import get_args, get_type_hints

from sgfast.base.json_types import Schema, document
from sgfast.policy.field_kinds import (
    FLAG,
    STRING,
    Address,
    ChangeTime,
    Day,
    Description,
    FieldKind,
    Form,
    Key,
    Known,
    ListOf,
    NumberOrText,
    OneOf,
    OneOrSeveral,
    Operation,
    Ports,
    Protocol,
    Scalar,
    Seconds,
    Version,
    text,
    whole,
)
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, Action, Settings
from sgfast.policy.protocols import PROTOCOL_NUMBERS
from sgfast.policy.templates import FAST_ADD, TEMPLATES

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
#: A rule id, which may have more characters than a name. Users may write generated ids (SPEC 2.5), so that a printed
#: policy can be read again.
_RULE_ID = re.compile(r"[A-Za-z0-9_.\-/]{1,100}")
#: The limit for quotas. A document that fits into memory never needs more.
MAX_QUOTA = 1_000_000
#: The highest number of an interface in a section of a pcapng file.
_MAX_INTERFACE = (1 << 20) - 1


def is_line(text: str) -> bool:
    return 1 <= len(text) <= 255 and text.isprintable()


def _is_word(text: str) -> bool:
    return 1 <= len(text) <= 64 and text.isprintable() and " " not in text


def line(requirement: str) -> Scalar:
    """Return the kind of texts that ``is_line`` accepts. The schema also accepts some unprintable characters."""
    pattern = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
    return text(is_line, requirement, minLength=1, maxLength=255, pattern=pattern)


NAME = text(_NAME.fullmatch, "a name of 1 to 64 letters, digits and _ - .", pattern=f"^{_NAME.pattern}$")
RULE_ID = text(
    _RULE_ID.fullmatch, "1 to 100 letters, digits and _ - . / (a string)", pattern=f"^{_RULE_ID.pattern}$"
)  # fmt: skip
LINE = line("a printable text of 1 to 255 characters")
ADDRESS = Address()
_STRING = FieldKind(STRING)
_VERSION = Version()

_NAMED = {
    "name": Key(NAME, "The name, by which the document refers to it: 1 to 64 letters, digits and _ - .", required=""),
    "id": Key(LINE, "The provider's id for it. No verdict depends on it."),
    "label": Key(LINE, "The provider's name for it, if that is not a valid name in this document."),
}  # fmt: skip
_DESCRIPTION = Key(Description(255), "A description for people: up to 255 characters, without < and >.", "")

# Policies -------------------------------------------------------------------------------------------------------------

QUOTAS = Form({
    "security_groups": Key(whole(1, MAX_QUOTA), "How many security groups the account may have."),
    "rules_per_group": Key(whole(1, MAX_QUOTA), "How many rules a group may have, those of its template included."),
})  # fmt: skip

_SECONDS = Seconds(1e9)
TIMEOUTS = Form({
    "tcp_established": Key(_SECONDS, "Established TCP connections."),
    "tcp_fin_wait": Key(_SECONDS, "TCP in the state FIN-WAIT."),
    "tcp_other": Key(_SECONDS, "TCP in every other state."),
    "icmp": Key(_SECONDS, "ICMP and ICMPv6."),
    "bidirectional": Key(_SECONDS, "Other protocols, once packets were allowed in both directions."),
    "unidirectional": Key(_SECONDS, "Other protocols, while packets were allowed in one direction only."),
})  # fmt: skip


def _setting(name: str) -> OneOf:
    return OneOf(get_args(get_type_hints(Settings)[name]))


SETTINGS = Form({
    "profile": Key(_setting("profile"), "The cloud whose defaults apply to all settings that are left out.", "otc"),
    "timeouts": Key(TIMEOUTS, "The seconds without an allowed packet after which a connection ends."),
    "on_change": Key(_setting("on_change"), "The effect of a change of a group on its members' connections."),
    "max_connections": Key(whole(1, 2**31 - 1), "The number of connections that are remembered at most."),
    "infrastructure": Key(
        _setting("infrastructure"), "Whether rules apply to DHCP, neighbour discovery and multicast listeners.",
    ),
    "group_members": Key(
        _setting("group_members"),
        "The meaning of a group as peer. by-owner: the addresses that its members own. by-address: all addresses in "
        "its members' prefixes, even if another instance owns them.",
    ),
})  # fmt: skip

VPC = Form({
    **_NAMED,
    "region": Key(
        text(_is_word, "a word of 1 to 64 characters (a string)", minLength=1, maxLength=64,
             pattern=r"^[^\s\u0000-\u001f\u007f-\u009f]*$"),
        "The region, any word. All VPCs without a region are in the same region.", "",
    ),
    "vni": Key(
        OneOrSeveral(whole(0, (1 << 24) - 1)),
        "The network identifier, or several, by which VXLAN and Geneve mark its packets.", attribute="vnis",
    ),
    # VLAN ids 0 and 4095 are reserved.
    "vlan": Key(OneOrSeveral(whole(1, 4094)), "The VLAN id, or several, by which its packets are known.",
                attribute="vlans"),
    "interface": Key(
        OneOrSeveral(NumberOrText(
            whole(0, _MAX_INTERFACE),
            line(f"an interface's name, up to 255 characters, or its number from 0 to {_MAX_INTERFACE}"),
        )),
        "The interface of a pcapng file, or several, where its packets were captured: a name or a number.",
        attribute="interfaces",
    ),
    "file": Key(
        OneOrSeveral(line("a capture's name or a pattern of names, up to 255 characters")),
        "The capture, or several, with its packets: a name or a pattern of names.", attribute="files",
    ),
})  # fmt: skip

ADDRESS_GROUP = Form({
    **_NAMED,
    "addresses": Key(
        ListOf(ADDRESS), "Its addresses and CIDRs. An empty list is allowed.",
        required=": write addresses: [] if there are none",
    ),
})  # fmt: skip

DIRECTIONS = {"inbound": "inbound", "outbound": "outbound", "ingress": "inbound", "egress": "outbound"}
PEER = Form({
    "cidr": Key(ADDRESS, "An address or a CIDR."),
    "group": Key(_STRING, "The name of a security group."),
    "address_group": Key(_STRING, "The name of an address group."),
}, type="object", minProperties=1, maxProperties=1)  # fmt: skip
_PEER = FieldKind({"anyOf": [{**STRING, "minLength": 1}, PEER.schema]})


def _if(key: str, value: Schema, *without: str) -> Schema:
    """Return a condition: if the key has this value, the object must not have the keys in ``without``."""
    return {
        "if": {"required": [key], "properties": {key: value}},
        "then": {"properties": dict.fromkeys(without, False)},
    }


def _words_for(direction: str) -> Schema:
    return {"enum": [word for word, meaning in DIRECTIONS.items() if meaning == direction]}


def _other_than(*protocols: int) -> Schema:
    """Return the schema of all other protocols, by name or number, and of ``all``."""
    words = [word for word, number in PROTOCOL_NUMBERS.items() if number not in protocols]
    return {"anyOf": [{"enum": ["all", *words]}, {"type": "integer", "not": {"enum": [*protocols]}}]}


RULE = Form({
    "direction": Key(OneOf(DIRECTIONS), "inbound or outbound, as the group's members see it.", required=""),
    "ethertype": Key(
        OneOf({"IPv4": 4, "IPv6": 6}),
        "IPv4 or IPv6. Left out, it follows the address or the protocol, and is otherwise IPv4.",
    ),
    "protocol": Key(Protocol(), "all, a protocol's name, or its number.", required=": write all for every protocol"),
    "ports": Key(Ports(), 'Destination ports: 22, 22-30 or "22,80,8000-8080". Left out, all of them.'),
    "source": Key(_PEER, "Of an inbound rule: an address, a CIDR, or the name of a group. Left out, any address."),
    "destination": Key(
        _PEER, "Of an outbound rule: an address, a CIDR, or the name of a group. Left out, any address.",
    ),
    "icmp_type": Key(whole(0, 255), "The ICMP type. Left out, all of them."),
    "icmp_code": Key(whole(0, 255), "The ICMP code, with a type. Left out, all of them."),
    "action": Key(OneOf(get_args(Action)), "allow or deny. The default is allow.", "allow"),
    "priority": Key(whole(1, 100), "1 to 100; 1, the default, is evaluated first. Of equal priorities, deny wins.", 1),
    "description": _DESCRIPTION,
    "id": Key(RULE_ID, "The rule's id. Left out, it is GROUP/DIRECTION/NUMBER.", ""),
}, dependentRequired={"icmp_code": ["icmp_type"]}, allOf=[
    _if("direction", _words_for("inbound"), "destination"),
    _if("direction", _words_for("outbound"), "source"),
    _if("protocol", _other_than(*sorted(PORT_PROTOCOLS)), "ports"),
    _if("protocol", _other_than(ICMP, ICMPV6), "icmp_type", "icmp_code"),
])  # fmt: skip

SECURITY_GROUP = Form({
    **_NAMED,
    "description": _DESCRIPTION,
    "vpc": Key(Known("VPC"), "The name of the VPC that it was made in, for a group without instances.", ""),
    "stateful": Key(FLAG, "false: its members' filters remember no connections, so replies need rules, too.", True),
    "template": Key(OneOf(TEMPLATES), "A template, whose rules come first.", ()),
    "fast_add": Key(
        ListOf(OneOf(FAST_ADD), uniqueItems=True),
        "Names of common services. The rules that allow them come after those of the template.",
    ),
    "rules": Key(ListOf(FieldKind({"$ref": "#/$defs/rule"})), "Its rules. Without any, nothing is allowed."),
})  # fmt: skip

INSTANCE = Form({
    "name": _NAMED["name"],
    "id": _NAMED["id"],
    "device": Key(LINE, "The provider's id of the machine that the network interface belongs to."),
    "label": _NAMED["label"],
    "vpc": Key(Known("VPC"), "The name of its VPC. It may be left out where there is only one."),
    "addresses": Key(
        ListOf(ADDRESS, least=1, uniqueItems=True),
        "Its addresses and CIDRs. With a CIDR it owns all addresses in it, as a router does.", required="",
    ),
    "security_groups": Key(
        ListOf(Known("security group"), uniqueItems=True),
        "The names of its groups. Without any, it is in the group default.",
    ),
})  # fmt: skip

_PAIR = FieldKind({"type": "array", "minItems": 2, "maxItems": 2, "items": STRING, "uniqueItems": True})
_NEW_GROUP, _NEW_INSTANCE = (FieldKind({"$ref": f"#/$defs/{name}"}) for name in ("security_group", "instance"))

POLICY = Form({
    "version": Key(_VERSION, "The version of the format: 1.", required=": write version: 1"),
    "quotas": Key(QUOTAS, "How many groups an account, and how many rules a group may have."),
    "settings": Key(SETTINGS, "How the cloud's filters behave. A setting that is left out has the profile's default."),
    "vpcs": Key(ListOf(VPC), "The virtual networks. Without this section there is one, named default."),
    "peerings": Key(ListOf(_PAIR), "Pairs of VPCs between which packets may pass."),
    "address_groups": Key(ListOf(ADDRESS_GROUP), "Named lists of addresses, for rules."),
    "security_groups": Key(ListOf(_NEW_GROUP), "The groups of rules."),
    "instances": Key(ListOf(_NEW_INSTANCE), "The protected network interfaces."),
})  # fmt: skip

# Change files ---------------------------------------------------------------------------------------------------------


def _or_null(field: Key) -> Key:
    """Return a field of ``set``, in which a field of a rule may be null: the change removes it then."""
    kind = field.kind if field.required is not None else FieldKind({"anyOf": [field.kind.schema, {"type": "null"}]})
    return Key(kind, field.help)


_GROUP = Key(Known("security group"), "The security group, by its name, id or label.")
_THE_INSTANCE = Key(Known("instance"), "The instance, by its name, id or label, or by its machine's id.")
_RULE = Key(_STRING, "The rule's id.")

SET = Form({key: _or_null(field) for key, field in RULE.by_key.items() if key != "id"})
CHANGE = Form({
    "at": Key(
        ChangeTime(), "The time: seconds after the first packet, or an instant like 2026-01-31T12:00:00Z.", required="",
    ),
    "add_rule": Key(
        Operation({"group": _GROUP, "rule": Key(FieldKind({"$ref": "#/$defs/rule"}), "The new rule.")}),
        "Add a rule to a group.",
    ),
    "remove_rule": Key(Operation({"group": _GROUP, "rule": _RULE}), "Remove a rule from a group."),
    "modify_rule": Key(
        Operation({
            "group": _GROUP,
            "rule": _RULE,
            "set": Key(SET, "The fields to change. null removes a field."),
        }),
        "Change fields of a rule.",
    ),
    "add_member": Key(Operation({"group": _GROUP, "instance": _THE_INSTANCE}), "Put an instance into a group."),
    "remove_member": Key(Operation({"group": _GROUP, "instance": _THE_INSTANCE}), "Take an instance out of a group."),
    "add_instance": Key(_NEW_INSTANCE, "Add an instance, written as in a policy."),
    "remove_instance": Key(Operation({"instance|name": _THE_INSTANCE}), "Remove an instance."),
    "add_address": Key(
        Operation({"instance": _THE_INSTANCE, "address": Key(ADDRESS, "The new address or CIDR.")}),
        "Give an instance another address.",
    ),
    "remove_address": Key(
        Operation({"instance": _THE_INSTANCE, "address": Key(ADDRESS, "One of its addresses or CIDRs.")}),
        "Take an address from an instance.",
    ),
    "add_group": Key(_NEW_GROUP, "Add a security group, written as in a policy."),
    "remove_group": Key(Operation({"group|name": _GROUP}), "Remove a security group."),
    "add_peering": Key(_PAIR, "Peer two VPCs."),
    "remove_peering": Key(_PAIR, "End the peering of two VPCs."),
    "set_address_group": Key(
        Operation({
            "name|address_group": Key(Known("address group"), "The address group, by its name, id or label."),
            "addresses": Key(ListOf(ADDRESS), "Its new addresses, which replace all earlier ones."),
        }),
        "Set the addresses of an address group.",
    ),
}, minProperties=2, maxProperties=2)  # fmt: skip

CHANGES = Form({
    "changes": Key(ListOf(CHANGE), "The changes of the policy during the replay.", required=""),
    "version": Key(_VERSION, "The version of the format: 1."),
})  # fmt: skip

# Expectations files ---------------------------------------------------------------------------------------------------

_END = line("a group, an instance, an address group, a CIDR, an address, internet or any (a string)")
_ENDS = "a security group, an instance, an address group, a CIDR, an address, internet or any; or a list of these."
EXPECTATION = Form({
    "from": Key(
        OneOrSeveral(_END, minItems=1), f"Who opens the connection: {_ENDS}", required=": write any for all addresses",
    ),
    "to": Key(
        OneOrSeveral(_END, minItems=1), f"Who receives the connection: {_ENDS}",
        required=": write any for all addresses",
    ),
    "service": Key(
        OneOrSeveral(line("a service like tcp/443, udp/53, icmp or all (a string)"), minItems=1),
        'A service such as tcp/443, udp/53, "tcp/80,8000-8080", icmp or all; or a list of these.',
        required=": write all for every service",
    ),
    "verdict": Key(OneOf(get_args(Action)), "Whether these connections should be allowed or denied.", required=""),
    "name": Key(LINE, "A name for reports, which no other expectation has.", ""),
    "why": Key(LINE, "The reason for the expectation, which is shown if it fails.", ""),
})  # fmt: skip

EXPECTATIONS = Form({
    "expect": Key(ListOf(EXPECTATION, least=1), "The connections that the policy should allow or deny.", required=""),
    "version": Key(_VERSION, "The version of the format: 1."),
})  # fmt: skip

#: A finding that is accepted. Its first fields but the code say what it is about.
ACCEPTED_FINDING = Form({
    "code": Key(
        text(re.compile(r"SG\d{3}").fullmatch, "a code of findings such as SG004", pattern=r"^SG\d{3}$"),
        "The code of the finding, such as SG004.", required="",
    ),
    "group": Key(LINE, "The security group that the finding is about: its name, label or provider's id."),
    "rule": Key(LINE, "The rule that the finding is about: its id, or its words: inbound tcp/22 from 0.0.0.0/0."),
    "address_group": Key(LINE, "The address group that the finding is about: its name, label or provider's id."),
    "instance": Key(LINE, "An instance that the finding is about: its name, label or provider's id."),
    "reason": Key(LINE, "Why the finding is accepted.", required=": say why the finding is accepted"),
    "until": Key(Day(), "The last day on which the finding is accepted, in UTC. Without it, there is no end."),
})  # fmt: skip

ACCEPTED_FINDINGS = Form({
    "accepted": Key(ListOf(ACCEPTED_FINDING), "The findings that are accepted.", required=""),
    "version": Key(_VERSION, "The version of the format: 1."),
})  # fmt: skip


@cache
def written_schemas() -> dict[str, Schema]:
    """Return the JSON Schemas of the documents that people write, by name, for editors (SPEC 15.5)."""
    definitions = {"security_group": SECURITY_GROUP.schema, "rule": RULE.schema, "instance": INSTANCE.schema}
    return {
        name: document(name, about, root.schema, definitions)
        for name, about, root, definitions in (
            ("policy", "A policy of sgfast: security groups, and the instances in them.", POLICY, definitions),
            ("changes", "Changes of a policy while traffic flows, for sgfast replay --changes.", CHANGES, definitions),
            ("expectations", "What a policy is meant to allow and to deny, for sgfast test.", EXPECTATIONS, {}),
            ("accepted", "Findings that are accepted, for sgfast check --accepted.", ACCEPTED_FINDINGS, {}),
        )
    }

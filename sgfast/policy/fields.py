"""The fields of the documents that people write, each once: what it may be, what an editor says of it, and its default
(SPEC 2, 2.14, 9.5).

Readers accept these fields and no others. The checks of values that a program made and JSON Schemas are made of the
same tables, so a schema accepts every document that the reader accepts. What only a reader can see, such as whether a
name exists, it refuses alone.
"""

from __future__ import annotations

import re
from typing import get_args, get_type_hints

from sgfast.policy.field_kinds import (
    FLAG,
    STRING,
    Address,
    Description,
    Field,
    Fields,
    Items,
    Kind,
    Moment,
    NumberOrText,
    OneOrSeveral,
    Operation,
    Ports,
    Protocol,
    Scalar,
    Schema,
    Seconds,
    Version,
    Word,
    text,
    whole,
)
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, Action, Settings
from sgfast.policy.profiles import PROFILES
from sgfast.policy.protocols import PROTOCOL_NUMBERS
from sgfast.policy.templates import FAST_ADD, TEMPLATES

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
#: Looser than a name: users may write generated ids (SPEC 2.5), so that a printed policy can be read again.
_RULE_ID = re.compile(r"[A-Za-z0-9_.\-/]{1,100}")
#: Higher than any document that fits into memory needs.
MAX_QUOTA = 1_000_000
#: The most interfaces that a section of a pcapng file may have.
_MAX_INTERFACE = (1 << 20) - 1


def is_line(text: str) -> bool:
    return 1 <= len(text) <= 255 and text.isprintable()


def _is_word(text: str) -> bool:
    return 1 <= len(text) <= 64 and text.isprintable() and " " not in text


def line(wanted: str) -> Scalar:
    """A text as ``is_line`` accepts it. The schema lacks some of the characters that Unicode calls unprintable."""
    pattern = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
    return text(is_line, wanted, minLength=1, maxLength=255, pattern=pattern)


NAME = text(_NAME.fullmatch, "a name of 1 to 64 letters, digits and _ - .", pattern=f"^{_NAME.pattern}$")
RULE_ID = text(
    _RULE_ID.fullmatch, "1 to 100 letters, digits and _ - . / (a string)", pattern=f"^{_RULE_ID.pattern}$"
)  # fmt: skip
LINE = line("a printable text of 1 to 255 characters")
ADDRESS = Address()
_STRING = Kind(STRING)
_VERSION = Version()

_NAMED = {
    "name": Field(NAME, "The name, by which the document refers to it: 1 to 64 letters, digits and _ - .", required=""),
    "id": Field(LINE, "The provider's id for it. Nothing that is judged depends on it."),
    "label": Field(LINE, "The provider's name for it, where that cannot be the name here."),
}  # fmt: skip
_DESCRIPTION = Field(Description(255), "For people: up to 255 characters, without < and >.", "")

# Policies -------------------------------------------------------------------------------------------------------------

QUOTAS = Fields({
    "security_groups": Field(whole(1, MAX_QUOTA), "How many security groups the account may have."),
    "rules_per_group": Field(whole(1, MAX_QUOTA), "How many rules a group may have, those of its template included."),
})  # fmt: skip

_SECONDS = Seconds(1e9)
TIMEOUTS = Fields({
    "tcp_established": Field(_SECONDS, "Established TCP connections."),
    "tcp_fin_wait": Field(_SECONDS, "TCP in the state FIN-WAIT."),
    "tcp_other": Field(_SECONDS, "TCP in every other state."),
    "icmp": Field(_SECONDS, "ICMP and ICMPv6."),
    "bidirectional": Field(_SECONDS, "Other protocols, once packets were allowed in both directions."),
    "unidirectional": Field(_SECONDS, "Other protocols, while packets were allowed in one direction only."),
})  # fmt: skip


def _setting(name: str) -> Word:
    return Word(get_args(get_type_hints(Settings)[name]))


SETTINGS = Fields({
    "profile": Field(Word([*PROFILES]), "The cloud whose defaults apply to all that is not written here.", "otc"),
    "timeouts": Field(TIMEOUTS, "After how many seconds without an allowed packet a connection ends."),
    "on_change": Field(_setting("on_change"), "What a change of a group does to its members' connections."),
    "max_connections": Field(whole(1, 2**31 - 1), "How many connections are remembered."),
    "infrastructure": Field(
        _setting("infrastructure"), "Whether rules apply to DHCP, neighbour discovery and multicast listeners."
    ),
    "group_members": Field(
        _setting("group_members"),
        "Whether a rule that names a group is for what its members own, or for their addresses.",
    ),
})  # fmt: skip

VPC = Fields({
    **_NAMED,
    "region": Field(
        text(_is_word, "a word of 1 to 64 characters (a string)", minLength=1, maxLength=64,
             pattern=r"^[^\s\u0000-\u001f\u007f-\u009f]*$"),
        "The region, any word. VPCs without one share one.", "",
    ),
    "vni": Field(
        OneOrSeveral(whole(0, (1 << 24) - 1)),
        "The network identifier, or several, that marks its packets in VXLAN and Geneve.", attribute="vnis",
    ),
    # VLAN ids 0 and 4095 are reserved.
    "vlan": Field(OneOrSeveral(whole(1, 4094)), "The VLAN, or several, that marks its packets.", attribute="vlans"),
    "interface": Field(
        OneOrSeveral(NumberOrText(
            whole(0, _MAX_INTERFACE),
            line(f"an interface's name, up to 255 characters, or its number from 0 to {_MAX_INTERFACE}"),
        )),
        "The interface of a pcapng file, or several, that marks its packets: a name or a number.",
        attribute="interfaces",
    ),
    "file": Field(
        OneOrSeveral(line("a capture's name or a pattern of names, up to 255 characters")),
        "The capture, or several, that has its packets: a name or a pattern of names.", attribute="files",
    ),
})  # fmt: skip

ADDRESS_GROUP = Fields({
    **_NAMED,
    "addresses": Field(
        Items(ADDRESS), "Its addresses and CIDRs. An empty list is allowed.",
        required=": write addresses: [] if there are none",
    ),
})  # fmt: skip

DIRECTIONS = {"inbound": "inbound", "outbound": "outbound", "ingress": "inbound", "egress": "outbound"}
PEER = Fields({
    "cidr": Field(ADDRESS, "An address or a CIDR."),
    "group": Field(_STRING, "The name of a security group."),
    "address_group": Field(_STRING, "The name of an address group."),
}, type="object", minProperties=1, maxProperties=1)  # fmt: skip
_PEER = Kind({"anyOf": [{**STRING, "minLength": 1}, PEER.schema]})


def _if(key: str, value: Schema, *without: str) -> Schema:
    """A condition: if the key has this value, the object does not have these other keys."""
    return {
        "if": {"required": [key], "properties": {key: value}},
        "then": {"properties": dict.fromkeys(without, False)},
    }


def _towards(direction: str) -> Schema:
    return {"enum": [word for word, means in DIRECTIONS.items() if means == direction]}


def _other_than(*protocols: int) -> Schema:
    """Another protocol than these, by name or number; ``all`` is one, too."""
    words = [word for word, number in PROTOCOL_NUMBERS.items() if number not in protocols]
    return {"anyOf": [{"enum": ["all", *words]}, {"type": "integer", "not": {"enum": [*protocols]}}]}


RULE = Fields({
    "direction": Field(Word(DIRECTIONS), "inbound or outbound, as the group's members see it.", required=""),
    "ethertype": Field(
        Word({"IPv4": 4, "IPv6": 6}),
        "IPv4 or IPv6. Left out, it follows the address or the protocol, and is otherwise IPv4.",
    ),
    "protocol": Field(Protocol(), "all, a protocol's name, or its number.", required=": write all for every protocol"),
    "ports": Field(Ports(), 'Destination ports: 22, 22-30 or "22,80,8000-8080". Left out, all of them.'),
    "source": Field(_PEER, "Of an inbound rule: an address, a CIDR, or the name of a group. Left out, any address."),
    "destination": Field(
        _PEER, "Of an outbound rule: an address, a CIDR, or the name of a group. Left out, any address.",
    ),
    "icmp_type": Field(whole(0, 255), "The ICMP type. Left out, all of them."),
    "icmp_code": Field(whole(0, 255), "The ICMP code, with a type. Left out, all of them."),
    "action": Field(Word(get_args(Action)), "allow or deny. The default is allow.", "allow"),
    "priority": Field(
        whole(1, 100), "1 to 100; 1 is looked at first, and is the default. Of equal ones, deny wins.", 1,
    ),
    "description": _DESCRIPTION,
    "id": Field(RULE_ID, "The rule's id. Left out, it is GROUP/DIRECTION/NUMBER.", ""),
}, dependentRequired={"icmp_code": ["icmp_type"]}, allOf=[
    _if("direction", _towards("inbound"), "destination"),
    _if("direction", _towards("outbound"), "source"),
    _if("protocol", _other_than(*sorted(PORT_PROTOCOLS)), "ports"),
    _if("protocol", _other_than(ICMP, ICMPV6), "icmp_type", "icmp_code"),
])  # fmt: skip

FAST_ADD_WORD = Word(FAST_ADD)
SECURITY_GROUP = Fields({
    **_NAMED,
    "description": _DESCRIPTION,
    "stateful": Field(FLAG, "false: its members' filters remember no connections, so replies need rules, too.", True),
    "template": Field(Word(TEMPLATES), "A template, whose rules come first.", ()),
    "fast_add": Field(
        Items(FAST_ADD_WORD, uniqueItems=True),
        "Names of common services. The rules that allow them come after those of the template.",
    ),
    "rules": Field(Items(Kind({"$ref": "#/$defs/rule"})), "Its rules. Without any, nothing is allowed."),
})  # fmt: skip

INSTANCE = Fields({
    "name": _NAMED["name"],
    "id": _NAMED["id"],
    "device": Field(LINE, "The provider's id of the machine that the network interface belongs to."),
    "label": _NAMED["label"],
    "vpc": Field(_STRING, "The name of its VPC. It may be left out where there is only one."),
    "addresses": Field(
        Items(ADDRESS, least=1, uniqueItems=True),
        "Its addresses. A CIDR stands for a router, or for whatever else has all of these.", required="",
    ),
    "security_groups": Field(
        Items(_STRING, uniqueItems=True), "The names of its groups. Without any, it is in the group default.",
    ),
})  # fmt: skip

_PAIR = Kind({"type": "array", "minItems": 2, "maxItems": 2, "items": STRING, "uniqueItems": True})
_NEW_GROUP, _NEW_INSTANCE = (Kind({"$ref": f"#/$defs/{name}"}) for name in ("security_group", "instance"))

POLICY = Fields({
    "version": Field(_VERSION, "The version of the format: 1.", required=": write version: 1"),
    "quotas": Field(QUOTAS, "How many groups an account, and how many rules a group may have."),
    "settings": Field(SETTINGS, "How the cloud's filters behave. What is left out has the profile's default."),
    "vpcs": Field(Items(VPC), "The virtual networks. Without this section there is one, named default."),
    "peerings": Field(Items(_PAIR), "Pairs of VPCs between which packets may pass."),
    "address_groups": Field(Items(ADDRESS_GROUP), "Named lists of addresses, for rules."),
    "security_groups": Field(Items(_NEW_GROUP), "The groups of rules."),
    "instances": Field(Items(_NEW_INSTANCE), "What the groups protect: a network interface each."),
})  # fmt: skip

# Change files ---------------------------------------------------------------------------------------------------------


def _or_null(field: Field) -> Field:
    """A field of a rule that a change may take away."""
    kind = field.kind if field.required is not None else Kind({"anyOf": [field.kind.schema, {"type": "null"}]})
    return Field(kind, field.help)


_GROUP = Field(_STRING, "The security group, by its name, id or label.")
_THE_INSTANCE = Field(_STRING, "The instance, by its name, id or label, or by its machine's id.")
_RULE = Field(_STRING, "The rule's id.")

SET = Fields({key: _or_null(field) for key, field in RULE.fields.items() if key != "id"})
CHANGE = Fields({
    "at": Field(
        Moment(), "When: seconds after the first packet, or an instant like 2026-01-31T12:00:00Z.", required="",
    ),
    "add_rule": Field(
        Operation({"group": _GROUP, "rule": Field(Kind({"$ref": "#/$defs/rule"}), "The new rule.")}),
        "Add a rule to a group.",
    ),
    "remove_rule": Field(Operation({"group": _GROUP, "rule": _RULE}), "Remove a rule from a group."),
    "modify_rule": Field(
        Operation({
            "group": _GROUP,
            "rule": _RULE,
            "set": Field(SET, "The fields that change. null stands for one that is left out."),
        }),
        "Change fields of a rule.",
    ),
    "add_member": Field(Operation({"group": _GROUP, "instance": _THE_INSTANCE}), "Put an instance into a group."),
    "remove_member": Field(Operation({"group": _GROUP, "instance": _THE_INSTANCE}), "Take an instance out of a group."),
    "add_instance": Field(_NEW_INSTANCE, "Add an instance, written as in a policy."),
    "remove_instance": Field(Operation({"instance|name": _THE_INSTANCE}), "Remove an instance."),
    "add_address": Field(
        Operation({"instance": _THE_INSTANCE, "address": Field(ADDRESS, "The new address or CIDR.")}),
        "Give an instance another address.",
    ),
    "remove_address": Field(
        Operation({"instance": _THE_INSTANCE, "address": Field(ADDRESS, "One of its addresses or CIDRs.")}),
        "Take an address from an instance.",
    ),
    "add_group": Field(_NEW_GROUP, "Add a security group, written as in a policy."),
    "remove_group": Field(Operation({"group|name": _GROUP}), "Remove a security group."),
    "add_peering": Field(_PAIR, "Peer two VPCs."),
    "remove_peering": Field(_PAIR, "Peer two VPCs no longer."),
    "set_address_group": Field(
        Operation({
            "name|address_group": Field(_STRING, "The address group, by its name, id or label."),
            "addresses": Field(Items(ADDRESS), "All its new addresses."),
        }),
        "Set the addresses of an address group.",
    ),
}, minProperties=2, maxProperties=2)  # fmt: skip

CHANGES = Fields({
    "changes": Field(Items(CHANGE), "What changes while the capture goes on.", required=""),
    "version": Field(_VERSION, "The version of the format: 1."),
})  # fmt: skip

# Expectations files ---------------------------------------------------------------------------------------------------

_END = line("a group, an instance, an address group, a CIDR, an address, internet or any (a string)")
_ENDS = "a security group, an instance, an address group, a CIDR, an address, internet or any; or a list of these."
EXPECTATION = Fields({
    "from": Field(
        OneOrSeveral(_END, minItems=1), f"Who opens the connection: {_ENDS}",
        required=": write any for all addresses",
    ),
    "to": Field(OneOrSeveral(_END, minItems=1), f"To whom: {_ENDS}", required=": write any for all addresses"),
    "service": Field(
        OneOrSeveral(line("a service like tcp/443, udp/53, icmp or all (a string)"), minItems=1),
        'A service such as tcp/443, udp/53, "tcp/80,8000-8080", icmp or all; or a list of these.',
        required=": write all for every service",
    ),
    "verdict": Field(Word(get_args(Action)), "Whether it is meant to be allowed or denied.", required=""),
    "name": Field(LINE, "A name for reports, which no other expectation has.", ""),
    "why": Field(LINE, "Why, for whoever sees it fail.", ""),
})  # fmt: skip

EXPECTATIONS = Fields({
    "expect": Field(Items(EXPECTATION, least=1), "What the policy is meant to allow and to deny.", required=""),
    "version": Field(_VERSION, "The version of the format: 1."),
})  # fmt: skip

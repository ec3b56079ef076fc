"""JSON Schemas of the documents that people write, for editors (SPEC 15.5).

They are made of what the readers use: keys and descriptions (``keys``), words, patterns and limits. A schema accepts
every document that the reader accepts. What only the reader can see, such as whether a name exists, it refuses alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_type_hints

from sgfast.json_types import Schema, document, one_of
from sgfast.policy.document_reader import (
    MAX_CONNECTIONS,
    MAX_INTERFACE,
    MAX_QUOTA,
    MAX_TIMEOUT_SECONDS,
    MAX_VLAN,
    MAX_VNI,
    NAME,
)
from sgfast.policy.expectations import VERDICTS
from sgfast.policy.keys import (
    ADDRESS_GROUP_FIELDS,
    AT,
    CHANGE_FIELDS,
    CHANGES_FIELDS,
    DOCUMENT_FIELDS,
    EXPECTATION_FIELDS,
    EXPECTATIONS_FIELDS,
    GROUP_FIELDS,
    INSTANCE_FIELDS,
    PEER_FIELDS,
    QUOTA_FIELDS,
    RULE_FIELDS,
    SETTING_FIELDS,
    TIMEOUT_FIELDS,
    VPC_FIELDS,
)
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, Settings
from sgfast.policy.profiles import PROFILES
from sgfast.policy.protocols import PROTOCOL_NUMBERS, USUAL_PROTOCOLS
from sgfast.policy.ranges import LAST_PORT
from sgfast.policy.rules import (
    ACTIONS,
    DESCRIPTION_CHARACTERS,
    DIRECTIONS,
    ETHERTYPES,
    PORT_RANGE,
    RULE_ID,
)
from sgfast.policy.templates import FAST_ADD, TEMPLATES
from sgfast.policy.timestamps import INSTANT, MAX_SECONDS

_STRING: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "pattern": f"^{NAME.pattern}$"}
#: A text as ``is_line`` accepts it, without all the characters that Unicode calls unprintable.
_LINE: Schema = {
    "type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$",
}  # fmt: skip
_DESCRIPTION: Schema = {"type": "string", "maxLength": DESCRIPTION_CHARACTERS, "pattern": "^[^<>]*$"}
_ADDRESS: Schema = {"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}
_VERSION: Schema = {"const": 1}
_REQUIRED_OF_RULE = ("direction", "protocol")
_WORDS = {"id": _LINE, "label": _LINE, "device": _LINE}


def _integer(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _list(items: Schema, **more: Any) -> Schema:
    """Null stands for an empty list."""
    return {"type": ["array", "null"], "items": items, **more}


def _one_or_several(item: Schema, **more: Any) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, **more}]}


def _mapping(
    descriptions: Mapping[str, str], types: Mapping[str, Schema], required: Iterable[str] = (), **more: Any
) -> Schema:
    """An object with these keys and no others. Null stands for one without any, where none is required."""
    needed = [*required]
    return {
        "type": "object" if needed else ["object", "null"],
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
        "properties": {key: {"description": text, **types[key]} for key, text in descriptions.items()},
        **more,
    }


def _other_than(protocols: Iterable[int]) -> Schema:
    """Another protocol than these, by name or number; ``all`` is one, too."""
    words = [word for word, number in PROTOCOL_NUMBERS.items() if number not in protocols]
    return {"anyOf": [one_of(["all", *words]), {"type": "integer", "not": {"enum": [*protocols]}}]}


def _rule_types() -> dict[str, Schema]:
    port = PORT_RANGE.pattern
    ports = {"anyOf": [_integer(0, LAST_PORT), {"type": "string", "pattern": f"^{port}(?:,{port})*$"}]}
    peer = {"anyOf": [
        {"type": "string", "minLength": 1},
        _mapping(PEER_FIELDS, {"cidr": _ADDRESS, "group": _STRING, "address_group": _STRING}, minProperties=1,
                 maxProperties=1) | {"type": "object"},
    ]}  # fmt: skip
    return {
        "direction": one_of(DIRECTIONS),
        "ethertype": one_of(ETHERTYPES),
        "protocol": {"anyOf": [
            one_of(dict.fromkeys((*USUAL_PROTOCOLS, *PROTOCOL_NUMBERS))),
            _integer(0, 255),
            {"type": "string", "pattern": "^(?:[0-9]{1,2}|[01][0-9]{2}|2[0-4][0-9]|25[0-5])$"},
            # Names are read in any case.
            {"type": "string", "pattern": "[A-Z]"},
        ]},
        "ports": {"anyOf": [*ports["anyOf"], {"type": "array", "minItems": 1, "items": ports}]},
        "source": peer,
        "destination": peer,
        "icmp_type": _integer(0, 255),
        "icmp_code": _integer(0, 255),
        "action": one_of(ACTIONS),
        "priority": _integer(1, 100),
        "description": _DESCRIPTION,
        "id": {"type": "string", "pattern": f"^{RULE_ID.pattern}$"},
    }  # fmt: skip


def _if(key: str, value: Schema, *without: str) -> Schema:
    """A condition: if the key has this value, the object does not have these other keys."""
    return {
        "if": {"required": [key], "properties": {key: value}},
        "then": {"properties": dict.fromkeys(without, False)},
    }


def _rule() -> Schema:
    ways = {way: [word for word, means in DIRECTIONS.items() if means == way] for way in ("inbound", "outbound")}
    return _mapping(
        RULE_FIELDS, _rule_types(), _REQUIRED_OF_RULE, dependentRequired={"icmp_code": ["icmp_type"]},
        allOf=[
            _if("direction", one_of(ways["inbound"]), "destination"),
            _if("direction", one_of(ways["outbound"]), "source"),
            _if("protocol", _other_than(sorted(PORT_PROTOCOLS)), "ports"),
            _if("protocol", _other_than((ICMP, ICMPV6)), "icmp_type", "icmp_code"),
        ],
    )  # fmt: skip


def _group() -> Schema:
    types = {
        "name": _NAME,
        **_WORDS,
        "description": _DESCRIPTION,
        "stateful": {"type": "boolean"},
        "template": one_of(TEMPLATES),
        "fast_add": _list(one_of(FAST_ADD), uniqueItems=True),
        "rules": _list({"$ref": "#/$defs/rule"}),
    }
    return _mapping(GROUP_FIELDS, types, ("name",))


def _instance() -> Schema:
    types = {
        "name": _NAME,
        **_WORDS,
        "vpc": _STRING,
        "addresses": {"type": "array", "minItems": 1, "items": _ADDRESS, "uniqueItems": True},
        "security_groups": _list(_STRING, uniqueItems=True),
    }
    return _mapping(INSTANCE_FIELDS, types, ("name", "addresses"))


def _settings() -> Schema:
    types = get_type_hints(Settings)
    seconds = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_SECONDS}
    return _mapping(SETTING_FIELDS, {
        "profile": one_of(PROFILES),
        "timeouts": _mapping(TIMEOUT_FIELDS, dict.fromkeys(TIMEOUT_FIELDS, seconds)),
        "max_connections": _integer(1, MAX_CONNECTIONS),
        **{key: one_of(get_args(types[key])) for key in ("on_change", "infrastructure", "group_members")},
    })  # fmt: skip


def _pair() -> Schema:
    return {"type": "array", "minItems": 2, "maxItems": 2, "items": _STRING, "uniqueItems": True}


def _definitions() -> dict[str, Schema]:
    return {"security_group": _group(), "rule": _rule(), "instance": _instance()}


def policy_schema() -> Schema:
    """JSON Schema of a policy document (SPEC 2)."""
    marks = {
        "vni": _one_or_several(_integer(0, MAX_VNI)),
        "vlan": _one_or_several(_integer(1, MAX_VLAN)),
        "interface": _one_or_several({"anyOf": [_integer(0, MAX_INTERFACE), _LINE]}),
        "file": _one_or_several(_LINE),
    }
    region = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": r"^[^\s\u0000-\u001f\u007f-\u009f]*$"}
    addresses = _list(_ADDRESS)
    root = _mapping(DOCUMENT_FIELDS, {
        "version": _VERSION,
        "quotas": _mapping(QUOTA_FIELDS, dict.fromkeys(QUOTA_FIELDS, _integer(1, MAX_QUOTA))),
        "settings": _settings(),
        "vpcs": _list(_mapping(VPC_FIELDS, {"name": _NAME, **_WORDS, "region": region, **marks}, ("name",))),
        "peerings": _list(_pair()),
        "address_groups": _list(
            _mapping(ADDRESS_GROUP_FIELDS, {"name": _NAME, **_WORDS, "addresses": addresses}, ("name", "addresses"))
        ),
        "security_groups": _list({"$ref": "#/$defs/security_group"}),
        "instances": _list({"$ref": "#/$defs/instance"}),
    }, ("version",))  # fmt: skip
    about = "A policy of sgfast: security groups, and the instances in them."
    return document("policy", about, root, _definitions())


def changes_schema() -> Schema:
    """JSON Schema of a change file (SPEC 9.5)."""
    seconds = {"type": "number", "minimum": -MAX_SECONDS, "maximum": MAX_SECONDS}
    at = {"anyOf": [seconds, {"type": "string", "pattern": f"^{INSTANT.pattern}$"}]}
    new = {
        key: kind if key in _REQUIRED_OF_RULE else {"anyOf": [kind, {"type": "null"}]}
        for key, kind in _rule_types().items()
    }
    fields: dict[str, Schema] = {
        "set": _mapping({key: text for key, text in RULE_FIELDS.items() if key != "id"}, new),
        "address": _ADDRESS,
        "addresses": _list(_ADDRESS),
    }
    operations: dict[str, Schema] = {
        "add_instance": {"$ref": "#/$defs/instance"},
        "add_group": {"$ref": "#/$defs/security_group"},
        "add_peering": _pair(),
        "remove_peering": _pair(),
    }
    for operation, (_, texts) in CHANGE_FIELDS.items():
        if operation not in operations:
            # All other operations name a rule.
            new_rule = {"rule": {"$ref": "#/$defs/rule"}} if operation == "add_rule" else {}
            operations[operation] = _operation(texts, {**fields, **new_rule})
    texts = {"at": AT, **{operation: title for operation, (title, _) in CHANGE_FIELDS.items()}}
    # Besides "at", there is exactly one operation.
    change = _mapping(texts, {"at": at, **operations}, ("at",), minProperties=2, maxProperties=2)
    root = _mapping(CHANGES_FIELDS, {"changes": _list(change), "version": _VERSION}, ("changes",))
    about = "Changes of a policy while traffic flows, for sgfast replay --changes."
    return document("changes", about, root, _definitions())


def _operation(texts: Mapping[str, str], types: Mapping[str, Schema]) -> Schema:
    """An object with exactly these fields. ``a|b`` is one that has two names."""
    described, required, choices = {}, [], []
    for spelled, text in texts.items():
        names = spelled.split("|")
        described.update(dict.fromkeys(names, text))
        if len(names) == 1:
            required += names
        else:
            choices.append({"oneOf": [{"required": [name]} for name in names]})
    found = _mapping(described, {key: types.get(key, _STRING) for key in described}, required)
    return {**found, "type": "object", **({"allOf": choices} if choices else {})}


def expectations_schema() -> Schema:
    """JSON Schema of an expectations file (SPEC 2.14)."""
    several = _one_or_several(_LINE, minItems=1)
    types = {"from": several, "to": several, "service": several, "verdict": one_of(VERDICTS), "name": _LINE}
    item = _mapping(EXPECTATION_FIELDS, {**types, "why": _LINE}, ("from", "to", "service", "verdict"))
    expect = {"type": "array", "minItems": 1, "items": item}
    root = _mapping(EXPECTATIONS_FIELDS, {"expect": expect, "version": _VERSION}, ("expect",))
    return document("expectations", "What a policy is meant to allow and to deny, for sgfast test.", root, {})


#: The schemas of what sgfast reads, by name.
WRITTEN = {"policy": policy_schema, "changes": changes_schema, "expectations": expectations_schema}

"""Convert the output of ``openstack … list -f json`` and ``… show -f json`` into documents of the API.

The rows of a list use column titles as keys ("IP Protocol"). Older versions print fewer columns. If a needed value is
neither printed nor implied, the error names the option that prints it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.sources import Source
from sgfast.clouds.openstack.neutron_objects import ICMP_WORDS
from sgfast.policy.yaml_nodes import show

_ANYWHERE = ("0.0.0.0/0", "::/0")
_PORTS = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")
_TYPE = re.compile(r"(?:type=([0-9]{1,9}))?(?::?code=([0-9]{1,9}))?")
_PAIR = re.compile(r"\b(\w++)='([^']*)'")
_UNTYPED = "An ICMP rule printed without type or code may have type 0 or code 0, which this command omits: check with"


def is_row(value: object) -> bool:
    """Return whether a value is a row that a list command prints."""
    return isinstance(value, dict) and "ID" in value


def is_printed(value: object) -> bool:
    """Return whether a value is a row that a list command prints, or an object that a show command prints."""
    return is_row(value) or (isinstance(value, dict) and isinstance(value.get("id"), str))


def rows_as_documents(source: Source) -> tuple[dict[str, Any], list[str]]:
    """Convert the rows of a list into a document of the API. Return it with notes about it."""
    rows: list[dict[str, Any]] = source.value  # type: ignore[assignment]  # The caller checked is_row().
    document: dict[str, list[Any]] = {}
    notes: dict[str, None] = {}
    for row in rows:
        for title, (section, translate) in _LISTS.items():
            if title in row:
                location = source.location(section.removesuffix("s").replace("_", " "), str(row["ID"])[:100])
                fields = JsonObject(row, location)
                document.setdefault(section, []).append(translate(fields))
                if section == "security_group_rules" and _is_untyped(row):
                    notes[f"{_UNTYPED} openstack security group rule show"] = None
                break
        else:
            titles = ", ".join(f"{title!r}" for title in _LISTS)
            columns = ", ".join(map(show, list(row)[:5]))
            raise source.error(f"unknown list with the columns {columns}: known lists have one of {titles}")
    return document, list(notes)


def _is_untyped(row: dict[str, Any]) -> bool:
    return str(row.get("IP Protocol")) in ICMP_WORDS and "code=" not in str(row.get("Port Range"))


def _rule(fields: JsonObject) -> dict[str, Any]:
    location = fields.location
    protocol = fields.get("IP Protocol")
    prefix = fields.text("IP Range", "Remote IP Prefix")
    group = fields.text("Remote Security Group")
    address_group = fields.text("Remote Address Group")
    ethertype = fields.text("Ethertype", "Ether Type")
    if not fields.has("Direction"):
        raise location.error("this list has no Direction column: print it with --long")
    if not fields.has("Security Group"):
        raise location.error("this list does not say which group the rule is in: print it without naming a group")
    if not ethertype:
        if not prefix:
            raise location.error("this list has no Ethertype column: print it with --long")
        ethertype = "IPv6" if ":" in prefix else "IPv4"
    if group or address_group:
        # For a rule with a group, the command also prints the prefix of any address, which does not apply.
        prefix = "" if prefix in _ANYWHERE else prefix
    low, high = _port_range(location, str(protocol), fields.text("Port Range"))
    rule = {
        "id": fields.get("ID"), "direction": fields.get("Direction"), "ethertype": ethertype, "protocol": protocol,
        "remote_ip_prefix": prefix, "remote_group_id": group, "remote_address_group_id": address_group,
        "port_range_min": low, "port_range_max": high, "security_group_id": fields.get("Security Group"),
        "description": fields.get("Description"),
    }  # fmt: skip
    fields.refuse_unread(("Project", "Tags"))
    return rule


def _port_range(location: Location, protocol: str, text: str) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    match = (_TYPE if protocol in ICMP_WORDS else _PORTS).fullmatch(text)
    if match is None:
        raise location.error(f"Port Range {show(text)} is neither like 22:80 nor like type=8:code=0")
    low, high = (None if part is None else int(part) for part in match.groups())
    # A rule with a code always has a type. The command does not print type 0.
    return (0 if protocol in ICMP_WORDS and low is None else low), high


def _plain(fields: JsonObject) -> dict[str, Any]:
    """Convert a row whose columns are fields of the API. Only the names of servers are used, because the list does not
    have their groups.
    """
    return {
        "id": fields.get("ID"), "name": fields.get("Name"), "description": fields.get("Description"),
        "stateful": fields.get("Stateful", "stateful"), "addresses": _words(fields.get("Addresses")),
    }  # fmt: skip


def _port(fields: JsonObject) -> dict[str, Any]:
    if not fields.has("Security Groups"):
        message = "this list has no Security Groups column: print it with --long, or use openstack port show"
        raise fields.location.error(message)
    return {
        "id": fields.get("ID"), "name": fields.get("Name"), "fixed_ips": _mappings(fields.get("Fixed IP Addresses")),
        "security_groups": _words(fields.get("Security Groups")), "device_owner": fields.get("Device Owner"),
    }  # fmt: skip


#: The known lists, by a column that identifies them: the section of the document, and the function that converts a row.
#: The first column that a row has determines its list.
_LISTS: dict[str, tuple[str, Callable[[JsonObject], dict[str, Any]]]] = {
    "IP Protocol": ("security_group_rules", _rule),
    "MAC Address": ("ports", _port),
    "Addresses": ("address_groups", _plain),
    "Subnets": ("networks", _plain),
    "Networks": ("servers", _plain),
    "Description": ("security_groups", _plain),
}


def shown_as_document(source: Source) -> dict[str, Any]:
    """Convert the output of a show command into a document of the API."""
    value: dict[str, Any] = dict(source.value)  # type: ignore[call-overload]  # The caller checked is_printed().
    kind = _shown_kind(value)
    if not kind:
        message = "an object with an id, but neither a security group nor a rule, port, address group or server"
        raise source.error(message)
    if kind == "security_group":
        value["rules"] = _mappings(value.get("rules", value.get("security_group_rules")))
        value.pop("security_group_rules", None)
    elif kind == "port":
        for key in ("fixed_ips", "allowed_address_pairs"):
            value[key] = _mappings(value.get(key))
        value["security_groups"] = _words(value.pop("security_group_ids", value.get("security_groups")))
    elif kind == "server":
        value["addresses"] = _server_addresses(value["addresses"])
        value["security_groups"] = _mappings(value.get("security_groups"))
    return {kind: value}


def _shown_kind(value: dict[str, Any]) -> str:
    if "fixed_ips" in value:
        return "port"
    if "direction" in value:
        return "security_group_rule"
    if "rules" in value or "security_group_rules" in value:
        return "security_group"
    if "addresses" in value and isinstance(value["addresses"], list | str):
        return "server" if isinstance(value["addresses"], str) and "=" in value["addresses"] else "address_group"
    if isinstance(value.get("addresses"), dict):
        return "server"
    return ""


def _server_addresses(value: object) -> object:
    """Convert a server's addresses into the form of the API: entries by network. Older versions print a text:
    ``net=10.0.0.5, 2001:db8::5; other=…``.
    """
    if isinstance(value, str):
        pairs = (part.partition("=") for part in value.split(";"))
        value = {name.strip(): [text.strip() for text in texts.split(",")] for name, _, texts in pairs}
    if not isinstance(value, dict):
        return value
    return {name: _entries(texts) for name, texts in value.items()}


def _entries(texts: object) -> object:
    if not isinstance(texts, list):
        return texts
    return [{"addr": text} if isinstance(text, str) else text for text in texts]


def _mappings(value: object) -> object:
    """Return a list of mappings. Older versions print a text, with lines like ``ip_address='10.0.0.5', subnet_id='…'``.
    """
    if not isinstance(value, str):
        return value
    return [dict(_PAIR.findall(line)) for line in value.splitlines() if line.strip()]


def _words(value: object) -> object:
    """Return a list of words. Older versions print one text with commas or newlines between the words."""
    return re.split(r"[,\s]+", value.strip()) if isinstance(value, str) and value.strip() else value or []

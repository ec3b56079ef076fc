"""Build minimal ``terraform show -json`` output and state files for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from exports import imported_files

from sgfast.policy.model import Policy

#: A placeholder for a value that is only known after apply.
LATER = object()
Resource = dict[str, Any]


def resource(address: str, *, data: bool = False, **values: Any) -> Resource:
    """Return a resource instance by its address, which may be in a module."""
    kind, rest = address.split(".module.")[-1].split(".")[-2:] if "[" not in address else _ends(address)
    name, _, index = rest.partition("[")
    made: Resource = {
        "address": address, "mode": "data" if data else "managed", "type": kind, "name": name,
        "provider_name": "registry.terraform.io/x/y", "schema_version": 0, "values": values,
    }  # fmt: skip
    if index:
        made["index"] = int(index[:-1]) if index[:-1].isdigit() else index[1:-2]
    return made


def _ends(address: str) -> tuple[str, str]:
    head, bracket, key = address.rpartition("[") if address.endswith("]") else (address, "", "")
    *_, kind, name = head.split(".")
    return kind, name + bracket + key


def values(*resources: Resource) -> dict[str, Any]:
    """Return Terraform's "values": resources within their modules, without unknown values."""
    root: dict[str, Any] = {}
    for each in resources:
        own = f"{each['type']}.{each['name']}"
        address = each["address"].removeprefix("data.")
        module = root
        path = address[: address.rindex(own)].rstrip(".")
        if path:
            children = root.setdefault("child_modules", [])
            module = next((child for child in children if child["address"] == path), None) or {"address": path}
            if module not in children:
                children.append(module)
        known = {key: _known(value) for key, value in each["values"].items() if value is not LATER}
        module.setdefault("resources", []).append(each | {"values": known})
    return {"root_module": root}


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items() if each is not LATER}
    if isinstance(value, list):
        return [None if each is LATER else _known(each) for each in value]
    return value


def _unknown(value: Any) -> Any:
    if value is LATER:
        return True
    if isinstance(value, dict):
        return {key: mark for key, each in value.items() if (mark := _unknown(each))}
    if isinstance(value, list):
        return [_unknown(each) for each in value]
    return False


def state(*resources: Resource) -> dict[str, Any]:
    return {"format_version": "1.0", "terraform_version": "1.9.0", "values": values(*resources)}


def state_file(*resources: Resource) -> dict[str, Any]:
    """Return a state file of version 4. Instances of one resource block are grouped."""
    blocks: dict[tuple[str, ...], dict[str, Any]] = {}
    for each in resources:
        own = f"{'data.' if each['mode'] == 'data' else ''}{each['type']}.{each['name']}"
        module = each["address"][: each["address"].index(own)].rstrip(".")
        made = {"mode": each["mode"], "type": each["type"], "name": each["name"], "provider": "provider[\"x/y\"]"}
        made = ({"module": module} if module else {}) | made | {"instances": []}
        key = {"index_key": each["index"]} if "index" in each else {}
        instance = key | {"schema_version": 1, "attributes": each["values"], "sensitive_attributes": [], "private": ""}
        blocks.setdefault((module, each["mode"], each["type"], each["name"]), made)["instances"].append(instance)
    return {
        "version": 4, "terraform_version": "1.9.0", "serial": 7, "lineage": "0-1", "outputs": {},
        "resources": [*blocks.values()], "check_results": None,
    }  # fmt: skip


def refs(*names: str) -> dict[str, Any]:
    """Return an expression. Like Terraform, it lists each name followed by its shorter prefixes."""
    listed: list[str] = []
    for name in names:
        listed.append(name)
        while "." in name and (name.startswith(("module.", "data.")) or name.count(".") > 1):
            name = name.rpartition(".")[0]
            listed.append(name)
            if name.endswith("]"):
                listed.append(name := name.rpartition("[")[0])
            if name.count(".") == (2 if name.startswith("data.") else 1):
                break
    return {"references": listed}


def block(address: str, for_each: Any = None, **expressions: Any) -> dict[str, Any]:
    """Return a resource's block in the configuration."""
    kind, name = address.split(".")
    made: dict[str, Any] = {"address": address, "mode": "managed", "type": kind, "name": name}
    return made | {"expressions": expressions} | ({"for_each_expression": for_each} if for_each else {})


def plan(
    before: Iterable[Resource], after: Iterable[Resource], *blocks: dict[str, Any], calls: dict[str, Any] | None = None
) -> dict[str, Any]:
    after = list(after)
    changes = [
        {"address": each["address"], "change": {"actions": ["create"], "after_unknown": _unknown(each["values"])}}
        for each in after
        if each["mode"] != "data"
    ]
    return {
        "format_version": "1.2", "terraform_version": "1.9.0",
        "planned_values": values(*(each for each in after if each["mode"] != "data")),
        "prior_state": state(*before, *(each for each in after if each["mode"] == "data")),
        "resource_changes": changes,
        "configuration": {"root_module": {"resources": [*blocks], "module_calls": calls or {}}},
    }  # fmt: skip


def policy_of(document: Any) -> Policy:
    """Import a state or a plan as the file tf.json, and return its policy."""
    return imported_files(("tf.json", document)).policy()

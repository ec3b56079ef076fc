"""JSON Schemas of the documents that people write, for editors (SPEC 15.5). ``fields`` says what is in them."""

from __future__ import annotations

from sgfast.json_types import Schema, document
from sgfast.policy.fields import CHANGES, EXPECTATIONS, INSTANCE, POLICY, RULE, SECURITY_GROUP

_DEFINITIONS = {"security_group": SECURITY_GROUP.schema, "rule": RULE.schema, "instance": INSTANCE.schema}

#: The schemas of the documents that sgfast reads, by name.
WRITTEN: dict[str, Schema] = {
    name: document(name, about, root.schema, definitions)
    for name, about, root, definitions in (
        ("policy", "A policy of sgfast: security groups, and the instances in them.", POLICY, _DEFINITIONS),
        ("changes", "Changes of a policy while traffic flows, for sgfast replay --changes.", CHANGES, _DEFINITIONS),
        ("expectations", "What a policy is meant to allow and to deny, for sgfast test.", EXPECTATIONS, {}),
    )
}

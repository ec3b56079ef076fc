"""Compare the reader of a document with its JSON Schema. The schema must accept all documents that the reader accepts.
A document that only the reader refuses must violate a condition that schemas cannot express (SPEC 15.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.policy.fields import written_schemas
from sgfast.policy.yaml_nodes import MAX_DEPTH, STR, plain_value

#: Patterns of the reader's messages for conditions that schemas cannot express, with the missing information.
READER_ONLY = {
    r"unknown (VPC|security group|address group|instance)\b|has no rule\b": "which names there are",
    r"is ambiguous": "which names there are",
    r"duplicate|already (used|peered|that of|belongs)": "what must be unique in the document",
    r"quota of|is missing, but there are \d+ VPCs": "how many there are",
    r"cannot be in stateful groups": "what a group is that is written elsewhere",
    r"make them agree|icmpv6 in an IPv4 rule": "which IP version an address is of",
    r"not an IPv[46] address|prefix length|host bits are set|with a zone": "what an address is worth",
    r"ports range from|is reversed|has no ports|only allowed in a rule for icmp": "what numbers in a text are worth",
    r"is not a valid time|is out of range: the clock": "which day a month has, and when the clock ends",
    r"left without a security group|already (exists|has)": "what the policy is at the time of a change",
    r"(not|still) in security group|has no address": "what the policy is at the time of a change",
    r"too (much work|large)": "what a document takes to read",
    r"unknown protocol": "names are read in any case",
    r"not the number -?\d+\.0|\d\.0: must|not \d+\.\d+": "JSON Schema takes 1.0 for 1",
    r"not (0[xo])": "YAML alone has hexadecimal and octal numbers",
}
#: The maximum number of nodes. Larger documents test limits, which schemas do not state.
MOST_NODES = 3_000


class NoJson(Exception):
    """Raised if JSON cannot represent the document."""


@cache
def validator(name: str) -> Any:
    from jsonschema import Draft202012Validator

    schema = written_schemas()[name]
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def value_of(root: Node) -> Any:
    """Return a document as an editor reads it: YAML 1.2, core schema."""
    budget = iter(range(MOST_NODES))

    def value(node: Node, depth: int = 0) -> Any:
        if next(budget, None) is None or depth > MAX_DEPTH:
            raise NoJson("too large, or an alias within itself")
        if isinstance(node, ScalarNode):
            if node.tag == STR:
                return node.value
            if node.tag != "?":
                raise NoJson(f"the tag {node.tag}")
            found = plain_value(node.value)
            if found != found or found in (float("inf"), float("-inf")):
                raise NoJson("a number that JSON lacks")
            return found
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise NoJson(f"the tag {node.tag}")
        if isinstance(node, MappingNode):
            keys = [value(key, depth + 1) for key, _ in node.value]
            if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
                raise NoJson("a key that is no text, or that is there twice")
            return {key: value(item, depth + 1) for key, (_, item) in zip(keys, node.value, strict=True)}
        return [value(item, depth + 1) for item in node.value]

    return value(root)


def disagreements(name: str, root: Node, refused: Exception | None) -> Iterator[str]:
    """Yield disagreements with the schema. ``refused`` is the reader's error; None: it accepts the document."""
    try:
        value = value_of(root)
    except NoJson:
        return
    errors = [error.message for error in validator(name).iter_errors(value)]
    if refused is None and errors:
        yield f"the reader accepts what the schema refuses: {errors[0]}\n{value}"
    if refused is not None and not errors and not any(re.search(known, str(refused)) for known in READER_ONLY):
        yield f"only the reader refuses: {refused}\n{value}"

"""The sizes of the tables that a policy compiles to."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from sgfast.base.errors import AmbiguousAddress
from sgfast.policy.lookup import vpc_name
from sgfast.policy.model import Policy
from sgfast.rules.compiler import CompiledPolicy, compile_policy


class TableSizes(NamedTuple):
    """Sizes of the tables of a compiled policy.

    ``rules``: the number of rules.
    ``instances``: the number of instances.
    ``address_classes``: the number of sets of addresses that no rule tells apart.
    ``port_classes``: the number of sets of ports that no rule tells apart.
    ``rule_tables``: the number of rule tables.
    ``bit_vector_tables``: the number of rule tables that are bit vectors.
    ``nbytes``: the memory of the tables in bytes.
    """

    rules: int
    instances: int
    address_classes: int
    port_classes: int
    rule_tables: int
    bit_vector_tables: int
    nbytes: int


def compile_for_check(policy: Policy, vpc: str | None) -> tuple[TableSizes, list[str]]:
    """Compile the policy, and return the sizes of its tables, and warnings.

    A document in which VPCs use the same addresses is valid; only a replay has to name the VPC it sees (SPEC 7.1). Such
    a document is compiled as one VPC sees it: the VPC that sees most addresses.
    """
    warnings = list(policy.warnings)
    vpc = vpc_name(policy, vpc)
    try:
        return _sizes(compile_policy(policy, vpc)), warnings
    except AmbiguousAddress as ambiguous:
        view = None if vpc is not None else _largest_view(policy)
        if view is None:
            raise
        warnings.append(f"{str(ambiguous).removeprefix(policy.origin + ': ')}; compiled as its largest VPC sees it")
        return view, warnings


def _sizes(compiled: CompiledPolicy) -> TableSizes:
    return TableSizes(
        len(compiled.rules), len(compiled.instances), compiled.address_classes, compiled.port_classes,
        compiled.rule_tables, compiled.bit_vector_tables, compiled.nbytes,
    )  # fmt: skip


def _largest_view(policy: Policy) -> TableSizes | None:
    """Return the sizes for the VPC that sees most addresses, of the VPCs that see no address twice."""
    addresses: Counter[str] = Counter()
    for instance in policy.instances:
        addresses[instance.vpc] += len(instance.addresses)
    address_counts = {vpc: sum(addresses[peer] for peer in peers) for vpc, peers in policy._connected_vpcs.items()}
    for vpc in sorted(address_counts, key=lambda seen_vpc: -address_counts[seen_vpc]):
        with suppress(AmbiguousAddress):
            return _sizes(compile_policy(policy, vpc))
    return None

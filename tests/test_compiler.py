"""What compiling a policy may cost (SPEC 11), and what must not cost anything."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from sgfast.compiler import compile_policy
from sgfast.errors import PolicyError
from sgfast.policy.model import GroupPeer, Instance, Policy, Rule, SecurityGroup


def policy(groups: int, instances: int, peer: str | None = None) -> Policy:
    """Each group allows one port of its own, from `peer` or from an address of its own."""
    return Policy(
        security_groups=tuple(
            SecurityGroup(
                f"g{n}",
                (
                    Rule(
                        f"g{n}/inbound/1", "inbound", 4, protocol=6, ports=((n + 1, n + 1),),
                        peer=GroupPeer(peer) if peer else ip_network(f"198.18.{n >> 8}.{n & 255}/32"),
                    ),
                ),
            )
            for n in range(groups)
        ),
        instances=tuple(
            Instance(f"i{n}", "default", (ip_network((10 << 24) + n),), (f"g{n % groups}",)) for n in range(instances)
        ),
    )  # fmt: skip


def test_a_policy_that_would_exhaust_memory_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgfast.compiler.MAX_TABLE_BYTES", 500_000)
    assert compile_policy(policy(100, 100)).rule_tables > 100
    with pytest.raises(PolicyError, match="300 different sets of security groups") as refused:
        compile_policy(policy(300, 300))
    assert "\n" not in str(refused.value)


def test_tables_do_not_grow_with_the_number_of_instances() -> None:
    few, many = compile_policy(policy(10, 100, "g0")), compile_policy(policy(10, 10_000, "g0"))
    assert (few.rule_tables, few.address_classes) == (many.rule_tables, many.address_classes)


def test_groups_no_rule_names_make_no_classes() -> None:
    # Who is in g1 to g9 is of no interest to any rule: their members' addresses are of one class.
    named_once = compile_policy(policy(10, 100, "g0"))
    assert named_once.address_classes == 3      # nobody's IPv4 and others', IPv6, members of g0

"""The limits of ``check`` (SPEC 11.1): below each, something is left out, and it says what; from it on, nothing is."""

from __future__ import annotations

from types import ModuleType

import pytest

from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import Policy
from sgfast.questions.checking import check_policy, coverage, isolation, policy_index, table_sizes
from sgfast.rules.compiler import CompiledPolicy

POLICY = """
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 80, source: 10.0.0.0/8}
      - {direction: inbound, protocol: tcp, ports: 80-90, source: 10.1.0.0/16}
      - {direction: inbound, protocol: tcp, ports: 22, source: web}
instances:
  - {name: a, addresses: [192.0.2.1], security_groups: [web]}
  - {name: b, addresses: [192.0.2.2], security_groups: [web]}
"""


@pytest.mark.parametrize(
    ("module", "limit", "words"),
    [(policy_index, "MAX_PREFIXES", "not"), (coverage, "MAX_STEPS", "were not compared"),
     (isolation, "MAX_LOOKS", "members that can reach each other")],
)  # fmt: skip
def test_below_at_and_above_a_limit(
    module: ModuleType, limit: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left_out(most: int) -> tuple[str, ...]:
        monkeypatch.setattr(module, limit, most)
        return check_policy(parse_policy(POLICY)).left_out

    low, high = -1, getattr(module, limit)
    assert left_out(high) == ()
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if left_out(middle) else (low, middle)
    assert high > 0
    assert any(words in told for told in left_out(high - 1))
    assert left_out(high) == left_out(high + 1) == ()


def test_a_policy_whose_vpcs_share_addresses_is_compiled_for_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 7.1: the hub sees most addresses, but its peers share one. So a peer is next."""
    numbers = range(8)
    policy = parse_policy(
        f"version: 1\nvpcs: [{{name: alone}}, {', '.join(f'{{name: v{n}}}' for n in numbers)}, {{name: hub}}]\n"
        f"peerings: [{', '.join(f'[hub, v{n}]' for n in numbers)}]\nsecurity_groups: [{{name: g}}]\ninstances:\n"
        "  - {name: a, vpc: alone, addresses: [10.0.0.1], security_groups: [g]}\n"
        + "".join(
            f"  - {{name: s{n}, vpc: v{n}, addresses: [10.0.0.1], security_groups: [g]}}\n"
            f"  - {{name: h{n}, vpc: hub, addresses: [10.1.0.{n}], security_groups: [g]}}\n"
            for n in numbers
        )
    )
    seen: list[str | None] = []
    real = table_sizes.compile_policy

    def compiled(policy: Policy, vpc: str | None = None) -> CompiledPolicy:
        seen.append(vpc)
        return real(policy, vpc)

    monkeypatch.setattr(table_sizes, "compile_policy", compiled)
    _, (warning,) = table_sizes.compile_for_check(policy, None)
    assert seen == [None, "hub", "v0"]
    assert "overlap" in warning and warning.endswith("compiled as its largest VPC sees it")

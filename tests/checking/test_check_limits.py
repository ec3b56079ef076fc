"""The limits of ``check`` (SPEC 11.1): below each, something is left out, and it says what; from it on, nothing is."""

from __future__ import annotations

from types import ModuleType

import pytest

from sgfast.checking import check_policy, coverage, isolation, policy_index
from sgfast.policy.document import parse_policy

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

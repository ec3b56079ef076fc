"""The limits of ``suggest`` (SPEC 11.1): at each it works, and beyond it says what to do."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from command import handshake, write_capture

from sgfast.base.errors import SgfastError
from sgfast.questions.suggesting import observing, rules, suggest


@pytest.mark.parametrize(
    ("module", "limit", "needed", "words"),
    [(observing, "MOST_HOSTS", 3, "private addresses; name the instances"),
     (rules, "MOST_RULES", 1, "rules, more than")],
)  # fmt: skip
def test_below_at_and_above_a_limit(
    module: ModuleType, limit: str, needed: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [
        frame for n in range(2) for port in (80, 443)
        for frame in handshake(1000 + 10 * n + port, port, client=f"10.0.0.{n + 1}", server="10.0.0.9")
    ]  # fmt: skip
    capture = write_capture(tmp_path, *frames)
    for most in (needed, needed + 1):
        monkeypatch.setattr(module, limit, most)
        assert suggest([capture]).text
    monkeypatch.setattr(module, limit, needed - 1)
    with pytest.raises(SgfastError, match=words):
        suggest([capture])


@pytest.mark.parametrize(("most", "uncounted"), [(3, 1), (4, 0), (5, 0)])
def test_kinds_of_connections_beyond_the_limit_are_counted_as_left_out(
    most: int, uncounted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [
        frame for n in range(4) for frame in handshake(1000 + n, 80 + 10 * n, client="10.0.0.1", server="10.0.0.9")
    ]
    monkeypatch.setattr(observing, "MOST_KINDS", most)
    found = suggest([write_capture(tmp_path, *frames)])
    told = {each.reason: each.evidence.connections for each in found.left_out}
    assert told.get("too many kinds of connections", 0) >= uncounted
    assert ("too many kinds of connections" in told) == bool(uncounted)


def test_the_error_about_too_many_rules_says_what_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer has many public clients of one port, and another service has few."""
    ends = [(f"8.8.{n // 250}.{n % 250 + 1}", 443) for n in range(40)] + [(f"9.9.9.{n + 1}", 8443) for n in range(5)]
    frames = [frame for client, port in ends for frame in handshake(4000, port, client=client, server="10.0.0.9")]
    capture = write_capture(tmp_path, *frames)
    monkeypatch.setattr(rules, "MOST_RULES", 10)
    with pytest.raises(SgfastError, match=r"would need 45 rules, more than 10: .* for example with --any-above 39,"):
        suggest([capture])
    found = suggest([capture], limits=rules.Limits(any_above=39))
    assert sorted(len(each.rules) for each in found.policy.security_groups) == [6]

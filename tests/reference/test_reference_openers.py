"""The number of openers that the reference remembers (SPEC 9.3). ``test_headers_judged`` tries the engine's bound."""

from __future__ import annotations

import pytest
from peers_and_filter import FILTER, room_for
from scenario import Line, Names, fits, from_reference, policy_of, read_table

from sgfast.reference.engine import LEAST_OPENERS_SEEN, ReferenceEngine


@pytest.mark.parametrize(("bound", "of_the_oldest"), [(0, "no-rule"), (3, "midstream")])
def test_of_too_many_openers_the_latest_are_remembered(
    bound: int, of_the_oldest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is forgotten is inferred, and denied by the rules. The bound holds however small the table is."""
    assert LEAST_OPENERS_SEEN == 1 << 20
    monkeypatch.setattr("sgfast.reference.engine.LEAST_OPENERS_SEEN", bound)
    policy = policy_of(FILTER + room_for(2))
    reference = ReferenceEngine(policy, midstream="infer")
    for line in read_table(f"""
        tcp client:1 > web:81 S  -> deny no-rule
        tcp client:2 > web:81 S  -> deny no-rule
        # again: the latest now
        tcp client:1 > web:81 S  -> deny no-rule
        tcp client:3 > web:81 S  -> deny no-rule
        tcp client:1 > web:81 A  -> deny midstream
        tcp client:3 > web:81 A  -> deny midstream
        tcp client:2 > web:81 A  -> deny {of_the_oldest}
    """, Names(policy, 4)):
        assert isinstance(line, Line)
        assert fits(from_reference(reference.process_frame(line.time_ns, line.frame)), line.expected), line.text

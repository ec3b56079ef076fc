"""Packets of established connections take the fast path. It has the results of the whole pipeline, counts the same, and
says the same of connections, if the report keeps them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from command import CLIENT, SERVER
from differential import counters_of
from frames import ethernet, ip, other, tcp, udp
from traffic import SECOND

from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import RESULT_DTYPE
from sgfast.engine import REASONS, Engine
from sgfast.policy.changes import RemoveRule
from sgfast.policy.model import Policy

POLICY = parse_policy("""
version: 1
security_groups:
  - name: web
    rules: [{id: in, direction: inbound, protocol: tcp}, {id: out, direction: outbound, protocol: all}]
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}
""")
EVERYBODY = parse_policy("""
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: all}
      - {direction: inbound, ethertype: IPv6, protocol: all}
      - {direction: outbound, protocol: all}
      - {direction: outbound, ethertype: IPv6, protocol: all}
instances:
  - {name: web-1, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [web]}
""")
Story = list[tuple[int, bool, str]]
#: (when, from the client, flags); an ACK that is answered makes it established.
OPEN: Story = [(0, True, "S"), (1, False, "SA"), (2, True, "A"), (3, False, "A")]
END = 3 + 600 * SECOND


def connections(engine: Engine) -> list[bytes]:
    engine.dataplane.finish()
    return [row.tobytes() for row in engine.dataplane.take_flows()]


def engine_for(policy: Policy, fast: bool, **options: Any) -> Engine:
    engine = Engine(policy, _reporting=True, **options)
    if not fast:
        engine.dataplane.close_fast_path()
    return engine


def told(story: Story, client: str, fast: bool, wanted: bool, flows: bool, cut: int | None = None) -> dict[str, Any]:
    """Counters and connections after the story, and the results of its packets if they are ``wanted``."""
    engine = engine_for(POLICY, fast, _keep_flows=flows)
    results = np.zeros(len(story), RESULT_DTYPE)
    for number, (time_ns, there, flags) in enumerate(story):
        if cut is not None and time_ns >= cut:
            engine.apply(RemoveRule("web", "in"), cut)
            cut = None
        port = 4001 if flags == "other" else 4000
        flags = "A" if flags == "other" else flags
        frame = ip(client, SERVER, tcp(port, 80, flags)) if there else ip(SERVER, client, tcp(80, port, flags))
        batch = FrameBatch.from_frames([ethernet(frame)], [time_ns])
        engine.dataplane.process_frames(batch, results[number : number + 1] if wanted else None)
    counters = engine.dataplane.counters
    reasons = {word: n for word, n in zip(REASONS, counters["reasons"], strict=True) if n}
    return {
        **counters, "reasons": reasons, "rules": engine.dataplane.rule_counts.tolist(), "flows": connections(engine),
        "results": results.tolist(),
    }  # fmt: skip


STORIES: dict[str, tuple[Story, int | None, dict[str, int]]] = {
    "a nanosecond before its deadline": ([*OPEN, (END - 1, True, "PA")], None, {"rule": 1, "established": 4}),
    # Another connection's packet brings the wheel to the deadline's tick: only the look-up itself can tell then.
    "at its deadline, still in the table": (
        [*OPEN, (END - 1, True, "other"), (END, True, "A")], None, {"rule": 1, "established": 3, "midstream": 2},
    ),
    "at its deadline": ([*OPEN, (END, True, "A")], None, {"rule": 1, "established": 3, "midstream": 1}),
    "prolonged by either end": (
        [*OPEN, (END - 1, False, "A"), (END + 599 * SECOND, True, "A"), (END + 1198 * SECOND, False, "A")], None,
        {"rule": 1, "established": 6},
    ),
    "cut": ([*OPEN, (10, True, "A"), (20, False, "PA")], 15, {"rule": 1, "established": 4, "disconnected": 1}),
    "half closed": ([*OPEN, (10, True, "FA"), (20, False, "A"), (30 + 60 * SECOND, False, "A")], None,
                    {"rule": 1, "established": 5, "midstream": 1}),
    "after a reset": ([*OPEN, (10, True, "R"), (20, False, "A")], None, {"rule": 1, "established": 5}),
    "a SYN among them": ([*OPEN, (10, True, "S"), (20, True, "A")], None, {"rule": 1, "established": 5}),
}  # fmt: skip


@pytest.mark.parametrize("wanted", [False, True], ids=["", "with results"])
@pytest.mark.parametrize("flows", [False, True], ids=["", "keeping flows"])
@pytest.mark.parametrize("client", [CLIENT, "10.0.0.6", "9.9.9.9"], ids=["higher", "two filters", "lower"])
@pytest.mark.parametrize("case", STORIES)
def test_fast_path_counts_what_the_whole_pipeline_counts(case: str, client: str, flows: bool, wanted: bool) -> None:
    story, cut, reasons = STORIES[case]
    fast, slow = (told(story, client, path, wanted, flows, cut) for path in (True, False))
    assert fast == slow
    assert fast["reasons"] == reasons
    assert bool(fast["flows"]) == flows


def layers(kind: str, there: bool) -> bytes:
    six = kind.endswith("6")
    ends = ("2001:db8:9::7", "2001:db8::5") if six else (CLIENT, SERVER)
    source, target = ends if there else ends[::-1]
    match kind[:3]:
        case "tcp":
            layer = tcp(4000, 80, "A") if there else tcp(80, 4000, "A")
        case "udp":
            layer = udp(4000, 53) if there else udp(53, 4000)
        case _:
            layer = other(47, bytes(8))
    return ethernet(ip(source, target, layer))


@pytest.mark.parametrize("wanted", [False, True], ids=["", "with results"])
@pytest.mark.parametrize("kind", ["udp4", "udp6", "gre4", "gre6", "tcp6"])
def test_other_protocols_and_ipv6(kind: str, wanted: bool) -> None:
    # Twice each way, then silence up to the deadline less a nanosecond, and up to the deadline of that.
    last = 600 * SECOND if kind.startswith("tcp") else 180 * SECOND
    times = [10, 20, 30, 40, 40 + last - 1, 40 + 2 * last - 1]
    ways = [True, False, True, False, True, False]
    found = []
    for fast in (False, True):
        engine = engine_for(
            EVERYBODY, fast, midstream="allow" if kind.startswith("tcp") else "deny", _keep_flows=True
        )  # fmt: skip
        results = np.zeros(len(times), RESULT_DTYPE)
        for number, (time_ns, there) in enumerate(zip(times, ways, strict=True)):
            batch = FrameBatch.from_frames([layers(kind, there)], [time_ns])
            engine.dataplane.process_frames(batch, results[number : number + 1] if wanted else None)
        found.append(
            (counters_of(engine), engine.dataplane.rule_counts.tolist(), connections(engine), results.tolist())
        )
    assert found[0] == found[1]
    assert len(found[0][2]) == 2
    assert found[0][0]["reasons"][REASONS.index("established")] == 4

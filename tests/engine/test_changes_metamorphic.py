"""Compares random runs with policy changes against each other (SPEC 6): a change that is undone at once leaves its
disconnections and nothing else, and changes of one instant may come as one list or one by one.

Engines are compared with engines. Only which connections SPEC 6.3 cuts, and until when, comes from the reference
model's table. Hypothesis draws policies and a seed for traffic and changes; every run draws the same, and failures are
printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import numpy as np
from differential import spell
from effort import some
from policy_changes import Changer
from traffic import GROUPS, Crowd, Traffic, drawn

from sgfast.engine import MIDSTREAMS, MODES, Engine, FrameBatch
from sgfast.policy.changed_policy import apply_change, apply_changes
from sgfast.policy.changes import (
    AddAddress,
    AddInstance,
    AddMember,
    AddPeering,
    AddRule,
    Change,
    ModifyRule,
    RemoveAddress,
    RemoveInstance,
    RemoveMember,
    RemovePeering,
    RemoveRule,
)
from sgfast.policy.model import Instance, Policy, Timeouts
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.flows import Flow, flow_of, quoted_flow
from sgfast.reference.packets import parse_frame

SEED = 2024

#: An address that no packet uses and no prefix contains.
ELSEWHERE = ip_network("192.168.77.7/32")
#: Reasons of denials that come before section 4 applies (SPEC 3.4, 3.6).
BEFORE_SECTION_4 = ("malformed", "truncated", "fragment", "vpc-isolated")

CHANGES_OF_HANDS = (AddAddress, RemoveAddress, AddInstance, RemoveInstance, AddPeering, RemovePeering)

Spelled = tuple[Any, ...]
Sides = dict[Hashable, dict[str, int]]


class Pace(Crowd):
    """Traffic whose clock never goes back, so that a part of it is judged at its own times."""

    def _jitter(self) -> int:
        return 0


def roomy(policy: Policy, rng: np.random.Generator, on_change: Any = "cut-inbound") -> Policy:
    """Keys are independent of each other as long as the table has room for all of them (SPEC 5.8). Half of the policies
    use the default timeouts; shorter ones would leave little to cut.
    """
    timeouts = policy.settings.timeouts if rng.integers(2) else Timeouts()
    return replace(policy, settings=replace(
        policy.settings, on_change=on_change, timeouts=timeouts, max_connections=1_000_000
    ))  # fmt: skip


def way(rng: np.random.Generator) -> Any:
    return {
        "mode": MODES[rng.integers(len(MODES))], "midstream": MIDSTREAMS[rng.integers(len(MIDSTREAMS))],
        "vpc": (None, None, "red")[rng.integers(3)],
    }  # fmt: skip


def batch_of(traffic: Traffic, part: slice) -> FrameBatch:
    return FrameBatch.from_frames(traffic.frames[part], traffic.times_ns[part], traffic.wire_lengths[part])


def judge(engine: Engine, traffic: Traffic, part: slice) -> list[Spelled]:
    return [spell(engine, row) for row in engine.process(batch_of(traffic, part))]


def keys_of(traffic: Traffic, start: int) -> list[tuple[Flow | None, bool]]:
    """From packet ``start`` on: the key each packet belongs to, and whether it only quotes the key."""
    keys: list[tuple[Flow | None, bool]] = []
    for frame, length in zip(traffic.frames[start:], traffic.wire_lengths[start:], strict=True):
        packet = parse_frame(frame, length, 1)
        if isinstance(packet, str) or packet.problem is not None:
            keys.append((None, False))
            continue
        flow = flow_of(packet)
        keys.append((flow, False) if flow else (quoted_flow(packet), True))
    return keys


# --- A change that is undone at once


def there_and_back(policy: Policy, rng: np.random.Generator) -> tuple[Change, Change, frozenset[str]]:
    """A change to which SPEC 6.3 applies, its inverse, and the groups it affects."""
    changer = Changer(rng)
    while True:
        group = changer.pick(policy.security_groups)
        instance = changer.pick(policy.instances)
        concerned = frozenset((group.name,))
        kind = int(rng.integers(7))
        if kind == 0:
            rule = replace(changer.rule(), id="there")
            return AddRule(group.name, rule), RemoveRule(group.name, "there"), concerned
        if kind == 1 and group.rules:
            return RemoveRule(group.name, group.rules[-1].id), AddRule(group.name, group.rules[-1]), concerned
        if kind == 2 and group.rules:
            old = changer.pick(group.rules)
            new = replace(changer.rule(), id=old.id, direction=old.direction)
            if replace(new, description=old.description) != old:
                return ModifyRule(group.name, old.id, new), ModifyRule(group.name, old.id, old), concerned
        if kind == 3 and group.name not in instance.security_groups:
            return AddMember(group.name, instance.name), RemoveMember(group.name, instance.name), concerned
        if kind == 4 and group.name in instance.security_groups and len(instance.security_groups) > 1:
            return RemoveMember(group.name, instance.name), AddMember(group.name, instance.name), concerned
        if kind == 5:
            groups = tuple(map(str, rng.choice(GROUPS, int(rng.integers(1, 3)), replace=False)))
            new_instance = Instance("late", "red", (ELSEWHERE,), groups)
            return AddInstance(new_instance), RemoveInstance("late"), frozenset(groups)


def live_inbound(reference: ReferenceEngine, instances: Iterable[str], now: int) -> Sides:
    """The deadlines of what SPEC 6.3 disconnects, by key and instance."""
    found: Sides = {}
    for key, entry in reference._entries.items():
        for (name, _), connection in entry.sides.items():
            if name in instances and not connection.opener.outbound and now < connection.deadline:
                found.setdefault(key, {})[name] = connection.deadline
    return found


def test_change_taken_back_at_once_leaves_the_disconnections_and_nothing_else() -> None:
    seen: Counter[str] = Counter()

    @drawn(SEED, some(14, 35))
    def check(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        policy = roomy(policy, rng)
        traffic = Pace(policy, rng).draw(1200)
        start = int(rng.integers(300, 700))
        now = traffic.times_ns[start]
        how = way(rng)
        untouched, one_by_one, as_one = (Engine(policy, **how) for _ in range(3))
        reference = ReferenceEngine(policy, **how)
        for engine in (untouched, one_by_one, as_one):
            engine.process(batch_of(traffic, slice(start)))
        for frame, time_ns, length in zip(
            traffic.frames[:start], traffic.times_ns[:start], traffic.wire_lengths[:start], strict=True
        ):
            reference.process_frame(time_ns, frame, wire_length=length)

        there, back, groups = there_and_back(policy, rng)
        between = apply_change(policy, there).policy
        concerned = {
            i.name for p in (policy, between) for i in p.instances if not groups.isdisjoint(i.security_groups)
        }
        cut = live_inbound(reference, concerned, now)
        assert one_by_one.apply(there, now).disconnected == len(cut), there
        assert one_by_one.apply(back, now).disconnected == 0, back
        assert as_one.apply([there, back], now).disconnected == len(cut), (there, back)

        calm, changed, once = (judge(e, traffic, slice(start, None)) for e in (untouched, one_by_one, as_one))
        assert changed == once
        keys = keys_of(traffic, start)
        for n, (wanted, got, (flow, quoted)) in enumerate(zip(calm, changed, keys, strict=True), start):
            if flow is None or flow.key not in cut:
                assert got == wanted, (n + 1, there, how)
                seen["same"] += 1
                continue
            holds = {name for name, deadline in cut[flow.key].items() if traffic.times_ns[n] < deadline}
            for side in filter(None, got[2:]):
                name, verdict, reason, _ = side
                if reason in BEFORE_SECTION_4:
                    continue
                if quoted:
                    assert name not in holds or reason == "invalid", (n + 1, got, there, how)
                else:
                    assert (reason == "disconnected") == (name in holds), (n + 1, got, wanted, there, how)
                    assert name not in holds or verdict == "deny", (n + 1, got)
                    seen["disconnected" if name in holds else "free"] += 1
            assert quoted or not holds or got[0] != "allow", (n + 1, got, there, how)

    check()
    print(seen)
    assert seen["same"] > 4_000 and seen["disconnected"] > 120 and seen["free"] > 120


# --- Changes of one instant


def test_changes_of_one_instant_may_come_as_one_list_or_one_by_one() -> None:
    """Where they do not ask the rules about connections again (SPEC 6.7), and no address changes hands (SPEC 6.6)."""
    seen: Counter[Any] = Counter()

    @drawn(SEED, some(14, 35))
    def check(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        on_change = ("cut-inbound", "cut-inbound", "keep")[rng.integers(3)]
        policy = roomy(policy, rng, on_change)
        traffic = Crowd(policy, rng).draw(1000)
        start = int(rng.integers(100, 700))
        changer = Changer(rng)
        changes: list[Change] = []
        after = policy
        while len(changes) < 3:
            more = changer.changes(after)
            if not any(isinstance(change, CHANGES_OF_HANDS) for change in more):
                changes += more
                after = apply_changes(after, more).policy
        how = way(rng)
        listed, single = Engine(policy, **how), Engine(policy, **how)
        for engine in (listed, single):
            engine.process(batch_of(traffic, slice(start)))
        now = listed.dataplane.counters["clock_ns"]
        counted = listed.apply(changes, now).disconnected
        one_by_one = [single.apply(change, now).disconnected for change in changes]
        # A connection between two instances counts for each change that cuts one of its sides.
        assert counted <= sum(one_by_one), (counted, one_by_one, changes)
        assert listed.policy == single.policy, changes
        rows = (judge(engine, traffic, slice(start, None)) for engine in (listed, single))
        for n, (by_list, by_one) in enumerate(zip(*rows, strict=True), start + 1):
            assert by_list == by_one, (n, on_change, how, changes)
            seen["denied as disconnected"] += by_list[1] == "disconnected"
        seen[on_change] += counted

    check()
    print(seen)
    assert seen["keep"] == 0 and seen["cut-inbound"] > 10 and seen["denied as disconnected"] > 120

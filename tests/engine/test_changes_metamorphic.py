"""Compares runs with policy changes against each other: the result must not depend on where batches end, or on a
change that is undone at once (SPEC 6).

Engines are compared with engines. Only which connections SPEC 6.3 cuts, and until when, comes from the reference
model's table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import numpy as np
from differential import counters_of, spell
from metamorphic import (
    BEFORE_SECTION_4,
    ELSEWHERE,
    Pace,
    Sides,
    assert_at_least,
    batch_of,
    drawn,
    judge,
    keys_of,
    roomy,
    way,
    with_settings,
    without_codes,
)
from policy_changes import Changer
from traffic import GROUPS, Crowd, Traffic

from sgfast.engine import RESULT_DTYPE, Engine
from sgfast.errors import AmbiguousAddress
from sgfast.policy.changes import (
    AddAddress,
    AddGroup,
    AddInstance,
    AddMember,
    AddPeering,
    AddRule,
    Change,
    ModifyRule,
    RemoveAddress,
    RemoveGroup,
    RemoveInstance,
    RemoveMember,
    RemovePeering,
    RemoveRule,
    SetAddressGroup,
    apply_change,
)
from sgfast.policy.model import Instance, Policy, SecurityGroup
from sgfast.reference.engine import ReferenceEngine

# --- Batches


def test_where_batches_end_makes_no_difference_to_changes_between_packets() -> None:
    seen: Counter[str] = Counter()

    def case(policy: Policy, rng: np.random.Generator) -> None:
        policy = with_settings(policy, rng, ("cut-inbound", "cut-inbound", "cut-unmatched", "keep")[rng.integers(4)])
        traffic = Crowd(policy, rng).draw(800)
        count = len(traffic.frames)
        how = way(rng)
        changer = Changer(rng)
        whole, cut, single, parts = (Engine(policy, **how, reporting=True) for _ in range(4))

        # Use as few batches as possible here, and record the changes drawn on the way.
        changes: dict[int, tuple[list[Change], int, int]] = {}
        points = sorted({0, *map(int, rng.integers(1, count, 6)), count})
        rows = []
        for start, stop in pairwise(points):
            now = (whole.dataplane.counters["clock_ns"] or traffic.times_ns[0]) + int(rng.integers(2))
            listed = changer.changes(whole.policy)
            try:
                changes[start] = (listed, now, whole.apply(listed, now).disconnected)
            except AmbiguousAddress:
                pass
            else:
                seen["disconnected"] += changes[start][2]
            rows.append(whole.process(batch_of(traffic, slice(start, stop))))
        expected = np.concatenate(rows)

        def again(engine: Engine, cuts: Iterable[int], judge: Callable[[int, int], np.ndarray]) -> None:
            bounds = sorted({*cuts, *points})
            rows = []
            for start, stop in pairwise(bounds):
                if start in changes:
                    listed, now, disconnected = changes[start]
                    assert engine.apply(listed, now).disconnected == disconnected, (start, listed)
                rows.append(judge(start, stop))
            judged = np.concatenate(rows)
            for n in np.flatnonzero(judged != expected):
                raise AssertionError((n + 1, spell(engine, judged[n]), spell(whole, expected[n]), how, changes))
            assert counters_of(engine) == counters_of(whole)
            assert (engine.dataplane.rule_counts == whole.dataplane.rule_counts).all()
            seen["packets"] += count

        again(cut, map(int, rng.integers(0, count, 30)), lambda a, b: cut.process(batch_of(traffic, slice(a, b))))
        again(single, range(count), lambda a, b: single.process(batch_of(traffic, slice(a, b))))
        # A single batch, judged in parts.
        frames = batch_of(traffic, slice(None))

        def part(start: int, stop: int) -> np.ndarray:
            results = np.zeros(stop - start, dtype=RESULT_DTYPE)
            parts.dataplane.process_frames(frames, results, None, start, stop - start)
            return results

        again(parts, map(int, rng.integers(0, count, 10)), part)

    drawn(4, 6, case)
    print(seen)
    assert_at_least({"packets": 40_000, "disconnected": 30}, seen)


# --- A change that is undone at once


def last_rule(policy: Policy, group: str, rng: np.random.Generator) -> Any:
    # Only the last rule returns to its old position and name.
    rules = policy.group_by_name[group].rules
    return rules[-1] if rules else None


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

    def case(policy: Policy, rng: np.random.Generator) -> None:
        policy = roomy(policy, rng)
        crowd = Pace(policy, rng)
        traffic = crowd.draw(1200)
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

    drawn(5, 7, case)
    print(seen)
    assert_at_least({"same": 10_000, "disconnected": 300, "free": 300}, seen)


def test_from_its_deadline_on_a_cut_key_is_as_if_it_had_never_been() -> None:
    """Compare with an engine that sees only the packets of cut keys, from their deadlines on.

    Only keys with one end inside are used: with two filters, only one may have been cut.
    """
    seen: Counter[str] = Counter()

    def case(policy: Policy, rng: np.random.Generator) -> None:
        policy = roomy(policy, rng)
        traffic = Pace(policy, rng).draw(1500)
        start = int(rng.integers(200, 600))
        now = traffic.times_ns[start]
        how = way(rng, midstreams=("deny",))
        engine, fresh = Engine(policy, **how), Engine(policy, **how)
        reference = ReferenceEngine(policy, **how)
        engine.process(batch_of(traffic, slice(start)))
        for frame, time_ns, length in zip(
            traffic.frames[:start], traffic.times_ns[:start], traffic.wire_lengths[:start], strict=True
        ):
            reference.process_frame(time_ns, frame, wire_length=length)
        there, back, groups = there_and_back(policy, rng)
        engine.apply([there, back], now)
        concerned = {i.name for i in policy.instances if not groups.isdisjoint(i.security_groups)} | (
            {there.instance} if isinstance(there, AddMember) else set()
        )
        cut = live_inbound(reference, concerned, now)
        later: list[int] = []
        for n, (flow, _) in enumerate(keys_of(traffic, start), start):
            if flow is None or flow.key not in cut:
                continue
            owners = [reference._owner(end[0]) for end in (flow.sender, flow.receiver)]
            if owners.count(None) == 1 and traffic.times_ns[n] >= max(cut[flow.key].values()):
                later.append(n)
        rows = judge(engine, traffic, slice(start, None))
        alone = Traffic(*([column[n] for n in later] for column in (
            traffic.frames, traffic.times_ns, traffic.wire_lengths,
        )))  # fmt: skip
        for n, wanted in zip(later, judge(fresh, alone, slice(None)) if later else (), strict=True):
            assert rows[n - start] == wanted, (n + 1, there, how)
            seen[wanted[1]] += 1

    drawn(4, 7, case)
    print(seen)
    assert_at_least({"rule": 60, "established": 200}, seen)


def without_effect(policy: Policy, rng: np.random.Generator, kind: int) -> tuple[Change, Change]:
    """A change to which SPEC 6.3 does not apply, and its inverse. ``kind`` selects which of five is tried first."""
    changer = Changer(rng)
    while True:
        group = changer.pick(policy.security_groups)
        vpcs = tuple(map(str, rng.choice([vpc.name for vpc in policy.vpcs], 2, replace=False)))
        if kind == 0:
            peered = frozenset(vpcs) in policy.peerings
            both = AddPeering(*vpcs), RemovePeering(*vpcs)
            return (both[1], both[0]) if peered else both
        if kind == 1:
            old = policy.address_group_by_name["offices"].addresses
            few = tuple(network for network in old if rng.integers(2))
            new = (*few, *map(ip_network, ("203.0.113.0/24", "2a00::/16")))
            return SetAddressGroup("offices", new), SetAddressGroup("offices", old)
        if kind == 2 and group.rules:
            rule = changer.pick(group.rules)
            other = replace(rule, description="another")
            return ModifyRule(group.name, rule.id, other), ModifyRule(group.name, rule.id, rule)
        if kind == 3:
            rules = tuple(replace(changer.rule(), id=f"extra/{n}") for n in range(3))
            return AddGroup(SecurityGroup("extra", rules)), RemoveGroup("extra")
        if kind == 4:
            name = changer.pick(policy.instances).name
            return AddAddress(name, ELSEWHERE), RemoveAddress(name, ELSEWHERE)
        kind = (kind + 1) % 5


def wider(policy: Policy, rng: np.random.Generator) -> tuple[Change, Change]:
    """A change that denies nothing that was allowed before, and its inverse."""
    changer = Changer(rng)
    for _ in range(20):
        group = changer.pick(policy.security_groups)
        rule = group.rules[-1] if group.rules else None
        if rule is not None and rule.action == "deny":
            return RemoveRule(group.name, rule.id), AddRule(group.name, rule)
    return AddRule(group.name, replace(changer.rule(), id="there", action="allow")), RemoveRule(group.name, "there")


def test_change_without_effect_on_connections_taken_back_is_as_if_it_had_never_been() -> None:
    """Not with ``--vpc``: there a removed peering hides its addresses, which forgets connections."""
    seen: Counter[Any] = Counter()

    def case(policy: Policy, rng: np.random.Generator) -> None:
        turn = seen["turns"] % 8
        seen["turns"] += 1
        on_change = "cut-inbound" if turn < 5 else ("keep", "cut-unmatched", "forget-unmatched")[turn - 5]
        policy = roomy(policy, rng, on_change)
        if turn > 5:
            policy = without_codes(policy)
        traffic = Crowd(policy, rng).draw(1000)
        start = int(rng.integers(100, 700))
        how = way(rng, vpcs=(None,))
        untouched, one_by_one, as_one = (Engine(policy, **how) for _ in range(3))
        for engine in (untouched, one_by_one, as_one):
            engine.process(batch_of(traffic, slice(start)))
        now = untouched.dataplane.counters["clock_ns"]
        # Under keep, no change affects a connection; under the other two, no change that only allows more does.
        if turn < 5:
            there, back = without_effect(policy, rng, turn)
        else:
            there, back = there_and_back(policy, rng)[:2] if on_change == "keep" else wider(policy, rng)
        for change in (there, back, [there, back]):
            engine = as_one if isinstance(change, list) else one_by_one
            assert engine.apply(change, now).disconnected == 0, change
        calm = judge(untouched, traffic, slice(start, None))
        for engine in (one_by_one, as_one):
            for n, (got, wanted) in enumerate(zip(judge(engine, traffic, slice(start, None)), calm, strict=True)):
                assert got == wanted, (start + n + 1, there, on_change, how)
        seen[on_change, type(there).__name__.removeprefix("Add").removeprefix("Remove")] += 1
        seen["established"] += sum(row[1] == "established" for row in calm)

    drawn(5, 8, case)
    print(seen)
    kinds = ("Peering", "SetAddressGroup", "ModifyRule", "Group", "Address")
    assert_at_least({"established": 10_000} | {("cut-inbound", kind): 1 for kind in kinds}, seen)

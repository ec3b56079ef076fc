"""Compares random runs with policy changes against each other (SPEC 6): a change that is undone at once leaves its
disconnections and nothing else, and changes of one instant may come as one list or one by one.

Engines are compared with engines. Only which connections SPEC 6.3 cuts, and until when, comes from the reference
model's table. Hypothesis draws policies and a seed for traffic and changes; every run draws the same, and failures are
printed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import numpy as np
from differential import spell
from effort import some
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from policy_changes import Changer
from traffic import GROUPS, Crowd, Traffic, policies

from sgfast.engine import MIDSTREAMS, MODES, Engine, FrameBatch
from sgfast.errors import PolicyError
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
from sgfast.policy.model import Instance, Network, Policy, Rule, SecurityGroup, Timeouts
from sgfast.reference.addresses import longest_prefix_owner, visible_prefixes
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.flows import Flow, flow_of, quoted_flow
from sgfast.reference.packets import parse_frame

SEED = int(os.environ.get("SGFAST_METAMORPHIC_SEED", "2024"))
#: A factor on the number of policies that are drawn.
EFFORT = float(os.environ.get("SGFAST_METAMORPHIC_EFFORT") or some(0.4, 1))

#: An address that no packet uses and no prefix contains.
ELSEWHERE = ip_network("192.168.77.7/32")
#: Reasons of denials that come before section 4 applies (SPEC 3.4, 3.6).
BEFORE_SECTION_4 = ("malformed", "truncated", "fragment", "vpc-isolated")

Spelled = tuple[Any, ...]
Sides = dict[Hashable, dict[str, int]]


def drawn(number: int, rounds: int, test: Callable[[Policy, np.random.Generator], None]) -> None:
    """Run ``test`` for this many policies, this many times each."""
    print(f"seed {SEED}")

    @seed(SEED)
    @settings(
        max_examples=max(1, round(number * EFFORT)), database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(policies(), st.integers(0, 2**32 - 1))
    def run(policy: Policy, case_seed: int) -> None:
        for n in range(rounds):
            try:
                test(policy, np.random.default_rng((case_seed, n)))
            except AssertionError as error:
                raise AssertionError(f"SGFAST_METAMORPHIC_SEED={SEED}, case {case_seed}, {n}: {error}") from error

    run()


def assert_at_least(minimum: dict[Any, int], seen: Counter[Any]) -> None:
    """Counts events that must occur, or the comparison proves little."""
    assert {what: seen[what] for what, least in minimum.items() if seen[what] < round(least * min(EFFORT, 1))} == {}


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


def without_codes(policy: Policy) -> Policy:
    """The table does not store the code of a query and asks the current rules for code 0. A query allowed with another
    code may therefore be cut by any change under cut-unmatched.
    """
    return replace(policy, security_groups=tuple(
        replace(group, rules=tuple(replace(rule, icmp_code=None) for rule in group.rules))
        for group in policy.security_groups
    ))  # fmt: skip


def way(rng: np.random.Generator, *, vpcs: Any = (None, None, "red")) -> Any:
    return {
        "mode": MODES[rng.integers(len(MODES))], "midstream": MIDSTREAMS[rng.integers(len(MIDSTREAMS))],
        "vpc": vpcs[rng.integers(len(vpcs))],
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


# --- Changes of one instant


def closing(changer: Changer) -> AddRule:
    """A change that denies everything that a group's instances receive, or everything they send."""
    direction = changer.pick(("inbound", "outbound"))
    rule = Rule("closed", direction, changer.pick((4, 4, 6)), action="deny")
    return AddRule(str(changer.pick(GROUPS)), rule)


def hands(policy: Policy, changes: Iterable[Change], vpc: str | None, addresses: Iterable[Any]) -> int:
    """The most times that an address changes hands. Raises PolicyError if it is owned twice meanwhile."""
    owners: dict[Any, list[str | None]] = {}
    for change in (None, *changes):
        if change is not None:
            policy = apply_change(policy, change).policy
        own, peers = visible_prefixes(policy, vpc)
        for address in addresses:
            owner = longest_prefix_owner(own, address) or longest_prefix_owner(peers, address)
            names = owners.setdefault(address, [])
            if not names or names[-1] != (owner and owner.name):
                names.append(owner and owner.name)
    return max(map(len, owners.values())) - 1


def addresses_of(policy: Policy, traffic: Traffic, changes: Iterable[Change]) -> set[Any]:
    """The addresses of the traffic, and one of each network that anyone has or gets."""
    packets = (parse_frame(frame, len(frame), 1) for frame in traffic.frames)
    found: set[Any] = {end for packet in packets if not isinstance(packet, str) for end in (packet.src, packet.dst)}
    networks: list[Network] = [network for instance in policy.instances for network in instance.addresses]
    for change in changes:
        if isinstance(change, AddInstance):
            networks += change.instance.addresses
        elif isinstance(change, AddAddress | RemoveAddress):
            networks.append(change.address)
    return found | {ip_address(network[0]) for network in networks}


def cuts_more(by_list: Spelled, by_one: Spelled) -> bool:
    """Whether the first side that differs when changes come one by one was cut only there."""
    listed, single = next(pair for pair in zip(by_list[2:], by_one[2:], strict=True) if pair[0] != pair[1])
    if listed is None or single is None:
        return False
    return single[2] == "disconnected" or (listed[2], single[2]) == ("related", "invalid")


def compare_list_with_one_by_one(
    policy: Policy, rng: np.random.Generator, changes: list[Change], traffic: Traffic, how: Any, start: int,
    seen: Counter[str], *, may_cut_more: bool = False,
) -> None:  # fmt: skip
    """With ``may_cut_more``, changes one by one may cut a connection that the list does not. Nothing else may differ.
    """
    listed, single = Engine(policy, **how), Engine(policy, **how)
    for engine in (listed, single):
        engine.process(batch_of(traffic, slice(start)))
    now = listed.dataplane.counters["clock_ns"]
    counted = listed.apply(changes, now).disconnected
    one_by_one = [single.apply(change, now).disconnected for change in changes]
    # A connection between two instances counts for each change that cuts one of its sides.
    assert counted <= sum(one_by_one), (counted, one_by_one, changes)
    assert listed.policy == single.policy, changes
    seen["disconnected"] += counted
    told = (policy.settings.on_change, how, changes)

    excused: set[Hashable] = set()
    rows = (judge(engine, traffic, slice(start, None)) for engine in (listed, single))
    for n, (by_list, by_one, (flow, _)) in enumerate(zip(*rows, keys_of(traffic, start), strict=True), start):
        seen["packets"] += 1
        seen["denied as disconnected"] += by_list[1] == "disconnected"
        if by_list == by_one or (flow is not None and flow.key in excused):
            continue
        # If a key is first judged differently, then the changes one by one have cut it.
        assert may_cut_more and flow is not None and cuts_more(by_list, by_one), (n + 1, by_list, by_one, told)
        excused.add(flow.key)
        seen["cut in between"] += 1


def test_changes_of_one_instant_may_come_as_one_list_or_one_by_one() -> None:
    """Where changes do not re-check connections against rules (cut-inbound, keep), the final state and all later
    verdicts are the same.

    Under cut-unmatched they may differ, because every change has its own "new rules" (SPEC 6.7): one by one, a
    connection is cut if some policy in between does not match it, even if the last one does. As one list, only the last
    policy counts. It still holds that one by one cuts whatever the list cuts, and that all other keys are judged alike.

    Lists in which an address is removed and added again are not drawn. One by one, its connections are forgotten (SPEC
    6.6); as one list, the address was never gone.
    """
    seen: Counter[Any] = Counter()

    def case(policy: Policy, rng: np.random.Generator) -> None:
        on_change = ("cut-inbound", "cut-inbound", "keep", "cut-unmatched", "cut-unmatched")[rng.integers(5)]
        policy = roomy(policy, rng, on_change)
        traffic = Crowd(policy, rng).draw(1000)
        how = way(rng)
        changer = Changer(rng)
        for _ in range(10):
            changes: list[Change] = []
            after = policy
            closed = closing(changer) if rng.integers(2) else None
            if closed is not None:
                changes.append(closed)
                after = apply_change(after, closed).policy
            while len(changes) < 3:
                more = changer.changes(after)
                for change in more:
                    after = apply_change(after, change).policy
                changes += more
            if closed is not None and rng.integers(2):
                try:
                    apply_change(after, RemoveRule(closed.group, closed.rule.id))
                except PolicyError:
                    continue
                changes.append(RemoveRule(closed.group, closed.rule.id))
            try:
                if hands(policy, changes, how["vpc"], addresses_of(policy, traffic, changes)) <= 1:
                    break
            except PolicyError:
                pass        # owned twice meanwhile, so it would be rejected one by one
        else:
            return
        here: Counter[str] = Counter()
        compare_list_with_one_by_one(
            policy, rng, changes, traffic, how, int(rng.integers(100, 700)), here,
            may_cut_more=on_change == "cut-unmatched",
        )  # fmt: skip
        seen.update({(on_change, what): count for what, count in here.items()})

    drawn(5, 9, case)
    print(seen)
    assert seen["keep", "disconnected"] == 0
    assert_at_least({
        ("cut-inbound", "disconnected"): 12, ("cut-unmatched", "disconnected"): 4,
        ("cut-unmatched", "cut in between"): 5, ("keep", "packets"): 3_000,
        **{(on_change, "denied as disconnected"): 50 for on_change in ("cut-inbound", "cut-unmatched")},
    }, seen)  # fmt: skip

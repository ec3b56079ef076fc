"""Changes of one instant have the same result as one list and one by one (SPEC 6): engines against engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import frames as wire
import numpy as np
from differential import spell
from metamorphic import (
    Spelled,
    assert_at_least,
    batch_of,
    drawn,
    judge,
    keys_of,
    roomy,
    way,
    without_codes,
)
from policy_changes import Changer
from traffic import GROUPS, Crowd, Traffic

from sgfast.engine import Engine
from sgfast.errors import PolicyError
from sgfast.policy.changes import (
    AddAddress,
    AddInstance,
    AddRule,
    Change,
    RemoveAddress,
    RemoveRule,
    apply_change,
)
from sgfast.policy.model import Network, Policy, Rule
from sgfast.reference.addresses import longest_prefix_owner, visible_prefixes
from sgfast.reference.flows import flow_of
from sgfast.reference.packets import parse_frame


def closing(changer: Changer) -> AddRule:
    """A change that denies everything that a group's instances receive, or everything they send."""
    direction = changer.pick(("inbound", "outbound"))
    rule = Rule("closed", direction, changer.pick((4, 4, 6)), action="deny")
    return AddRule(str(changer.pick(GROUPS)), rule)


def questions(traffic: Traffic, stop: int) -> list[bytes]:
    """ICMP errors about sent packets, in both directions. Errors change and refresh nothing (SPEC 4.6), so they can
    probe which connections in a table are alive and not cut.
    """
    asked = {}
    for frame in traffic.frames[:stop]:
        packet = parse_frame(frame, len(frame), 1)
        if isinstance(packet, str) or packet.problem is not None or frame[12:14] not in (b"\x08\0", b"\x86\xdd"):
            continue
        flow = flow_of(packet)
        if flow is not None:
            asked[flow] = (packet, frame[14:])
    errors = []
    for packet, quote in asked.values():
        src, dst = str(packet.src), str(packet.dst)
        layer = wire.icmp_error(3, 1, quote, quoted_bytes=64) if packet.version == 4 else wire.icmpv6_error(1, 0, quote)
        errors.append(wire.ethernet(wire.ip(dst, src, layer)))
    return errors


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

    errors = questions(traffic, start)
    known = list(zip(errors, *(
        [spell(e, row) for row in e.process_frames(errors, [now] * len(errors))] for e in (listed, single)
    ), strict=True))  # fmt: skip
    for error, by_list, by_one in known:
        if by_list != by_one:
            assert may_cut_more and cuts_more(by_list, by_one), (error, by_list, by_one, told)
            seen["cut in between"] += 1

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


def test_changes_that_all_allow_more_or_all_allow_less_cut_the_same_unmatched_one_by_one() -> None:
    """No intermediate policy denies what both ends of the list allow."""
    seen: Counter[str] = Counter()

    def case(policy: Policy, rng: np.random.Generator) -> None:
        policy = without_codes(roomy(policy, rng, "cut-unmatched"))
        traffic = Crowd(policy, rng).draw(800)
        changer = Changer(rng)
        more = bool(rng.integers(3) == 0)
        changes: list[Change] = []
        for n in range(int(rng.integers(2, 5))):
            group = changer.pick(policy.security_groups)
            old = changer.pick(group.rules) if group.rules else None
            taken = {change.rule for change in changes if isinstance(change, RemoveRule)}
            if old is not None and old.id not in taken and (old.action == "deny") == more:
                changes.append(RemoveRule(group.name, old.id))
            else:
                rule = changer.rule() if more or rng.integers(2) else closing(changer).rule
                changes.append(AddRule(group.name, replace(rule, id=f"new/{n}", action="allow" if more else "deny")))
        compare_list_with_one_by_one(policy, rng, changes, traffic, way(rng), int(rng.integers(100, 500)), seen)

    drawn(4, 7, case)
    print(seen)
    assert_at_least({"disconnected": 10, "denied as disconnected": 40}, seen)

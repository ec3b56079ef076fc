"""Draw random policies to export, and compare them with what is imported back."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
from traffic import Crowd, as_capture

from sgfast import Policy
from sgfast.base.errors import ExportError
from sgfast.clouds.exporting.delta import policy_delta
from sgfast.clouds.exporting.expressible import Target, expressible
from sgfast.policy.model import (
    DEFAULT_VPC,
    AddressGroup,
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Rule,
    SecurityGroup,
    Vpc,
)
from sgfast.questions.suggesting import suggest
from sgfast.rules.reaching.difference import difference

GROUPS = ("a", "b", "c")
#: The networks that contain all instances and some of the CIDRs of rules.
BLOCKS = {4: "10.1.0.0/24", 6: "2001:db8:1::/64"}
_CIDRS = {
    4: ("10.1.0.0/24", "10.1.0.16/28", "10.1.0.17/32", "10.1.0.0/16", "192.0.2.0/24", "192.0.2.7/32"),
    6: ("2001:db8:1::/64", "2001:db8:1::10/124", "2001:db8::/32", "2001:db8:2::7/128"),
}
_PORTS = (((22, 22),), ((1, 1), (80, 81)), ((80, 90),), ((85, 443),), ((0, 65535),), ((1, 65535),))
#: The maximum number of rules of one direction in a group of AWS.
_MOST_RULES = 60
_PROBLEM = re.compile(r"security group '(\w+)', rule (\S+) \(")


def random_policy(pick: random.Random, more_protocols: tuple[int, ...] = (47,)) -> Policy:
    """Draw three groups in one VPC, with rules of all kinds, and instances with an address of each IP version or
    one."""
    groups = []
    for name in GROUPS:
        rules = [_rule(pick, f"{name}/{n}", more_protocols) for n in range(pick.randrange(7))]
        groups.append(SecurityGroup(name, tuple(rules), f"of {name}"))
    instances = []
    for n in range(1, pick.randrange(2, 5)):
        texts = pick.choice(((4,), (4, 6), (4,)))
        addresses = tuple(ip_network(BLOCKS[version].split("/")[0].rstrip("0") + str(15 + n)) for version in texts)
        members = tuple(sorted(pick.sample(GROUPS, pick.randrange(1, 3))))
        instances.append(Instance(f"i{n}", DEFAULT_VPC, addresses, members))
    networks = tuple(ip_network(pick.choice(_CIDRS[version])) for version in (4, 6))
    return Policy((Vpc(DEFAULT_VPC),), frozenset(), (AddressGroup("some", networks),), tuple(groups), tuple(instances))


def _rule(pick: random.Random, id: str, more_protocols: tuple[int, ...]) -> Rule:
    family = pick.choice((4, 4, 4, 6))
    icmp = 1 if family == 4 else 58
    protocol = pick.choice((None, 6, 6, 6, 17, icmp, *more_protocols))
    kind = pick.choice((None, 8, 9)) if protocol == icmp else None
    peer: Any = pick.choice((None, "cidr", "cidr", "group", "group", "some"))
    if peer == "cidr":
        peer = ip_network(pick.choice(_CIDRS[family]))
    elif peer == "group":
        peer = GroupPeer(pick.choice(GROUPS))
    elif peer == "some":
        peer = AddressGroupPeer("some")
    action = pick.choice(("allow", "allow", "allow", "deny"))
    if family == 6 and action == "deny":
        peer = None  # all IPv6 but one CIDR needs more CIDRs than a group of AWS may have
    return Rule(
        id, pick.choice(("inbound", "inbound", "outbound")), 4 if family == 4 else 6, protocol,
        pick.choice((None, *_PORTS)) if protocol in (6, 17) else None, kind,
        None if kind is None else pick.choice((None, 1)), peer,
        action, pick.choice((1, 1, 2)),
    )  # fmt: skip


def renamed(policy: Policy, names: dict[str, str]) -> Policy:
    """Return the policy with other names of its groups."""

    def of(rule: Rule) -> Rule:
        return replace(rule, peer=GroupPeer(names[rule.peer.name])) if isinstance(rule.peer, GroupPeer) else rule

    return replace(
        policy,
        security_groups=tuple(
            replace(each, name=names[each.name], rules=tuple(map(of, each.rules))) for each in policy.security_groups
        ),
        instances=tuple(
            replace(each, security_groups=tuple(names[name] for name in each.security_groups))
            for each in policy.instances
        ),
    )


def exportable(policy: Policy, target: Target) -> Policy:
    """Return the policy without rules that the target cannot express, and without denials that need too many rules."""
    while True:
        try:
            rewritten = expressible(policy, target)
            if all(len(group.rules) <= _MOST_RULES for group in rewritten.security_groups):
                return policy
            groups = [
                replace(group, rules=tuple(rule for rule in group.rules if rule.action == "allow"))
                for group in policy.security_groups
            ]
        except ExportError as error:
            wrong = {(match[1], match[2]) for problem in error.problems for match in _PROBLEM.finditer(problem)}
            assert wrong, error.problems
            groups = [
                replace(group, rules=tuple(rule for rule in group.rules if (group.name, rule.id) not in wrong))
                for group in policy.security_groups
            ]
        policy = replace(policy, security_groups=tuple(groups))


def assert_same(sent: Policy, back: Policy, target: Target) -> None:
    """Check that the imported policy equals the exported one except for ids and order, and allows the same packets."""
    wanted, found = expressible(sent, target), expressible(back, target)
    assert {group.name: _rules(group, wanted) for group in wanted.security_groups} == {
        group.name: _rules(group, found) for group in found.security_groups if group.name in sent.group_by_name
    }
    assert {frozenset(each.addresses): set(each.security_groups) for each in sent.instances} == {
        frozenset(each.addresses): set(each.security_groups) for each in back.instances
    }
    change = difference(sent, replace(back, settings=sent.settings, gaps=sent.gaps))
    assert not change.opened and not change.closed


def _rules(group: SecurityGroup, policy: Policy) -> set[Rule]:
    """Return the group's rules, with addresses in place of address groups, which a cloud may not have."""
    return {rule.without_words() for rule in group.rules}


def without(value: Any, values: dict[str, Any]) -> Any:
    """Return a request with the values of its variables inserted."""
    if isinstance(value, dict):
        return {key: without(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [without(each, values) for each in value]
    if not isinstance(value, str):
        return value
    if whole := re.fullmatch(r"\$\{(\w+)\}", value):
        return values[whole[1]]
    return re.sub(r"\$\{(\w+)\}", lambda found: str(values[found[1]]), value)


def run(document: dict[str, Any], needed: dict[str, str], make: Callable[[dict[str, Any]], Any]) -> None:
    """Make the API calls of an export in JSON (SPEC 13.4)."""
    import jmespath  # type: ignore[import-untyped]

    assert set(document["needs"]) == set(needed)
    values: dict[str, Any] = dict(needed)
    for request in document["calls"]:
        answer = None
        for each in without(request.get("for_each", [""]), values):
            answer = make(without(request, values | {"each": each}))
        for name, path in request.get("gives", {}).items():
            values[name] = jmespath.search(path, answer)
            assert values[name] is not None, (request, answer)


def seeds(count: int, seed: int) -> Iterator[random.Random]:
    for n in range(seed, seed + count):
        print("seed", n)
        yield random.Random(n)


def assert_policies_and_their_changes_come_back(
    picks: Iterable[random.Random], target: Target, apply: Callable[[Policy | None, Policy], Policy],
    calls: Callable[[Policy, Policy], Sequence[Any]], more_protocols: tuple[int, ...] = (47,),
) -> None:  # fmt: skip
    """Check exports of random policies. ``apply`` makes the calls that lead from one policy (None: an empty cloud) to
    another, and imports the cloud. ``calls`` only returns these calls.
    """
    for pick in picks:
        first, second = (exportable(random_policy(pick, more_protocols), target) for _ in range(2))
        back = apply(None, first)
        assert_same(first, back, target)
        assert {group.description for group in back.security_groups} >= {f"of {name}" for name in GROUPS}
        # Make another policy for the same instances. One of its groups is new, and one old group is missing.
        second = renamed(replace(second, instances=first.instances), dict(zip(GROUPS, "abd", strict=True)))
        second = exportable(second, target)
        back = apply(back, second)
        assert_same(second, back, target)
        assert "c" not in back.group_by_name
        assert calls(back, second) == []


def kept(today: Policy, folder: Path, pick: random.Random, target: Target) -> Policy:
    """Return the policy with the rules that it lacks for random traffic, and that the target can express."""
    traffic = Crowd(today, np.random.default_rng(pick.randrange(1 << 32))).draw(300)
    found = suggest([as_capture(folder, traffic)], policy=today, keep=True, unanswered=True)
    new = exportable(found.policy, target)
    assert _ids(today) <= _ids(new)
    return new


def _ids(policy: Policy) -> set[str]:
    return {rule.id for group in policy.security_groups for rule in group.rules}


def assert_kept_policies_only_add(
    picks: Iterable[random.Random], target: Target, folder: Path, apply: Callable[[Policy | None, Policy], Policy]
) -> None:
    """Check that all rules of a cloud are still there, with their ids, when what a kept policy adds was applied."""
    added = 0
    for pick in picks:
        today = apply(None, exportable(random_policy(pick), target))
        new = kept(today, folder, pick, target)
        delta = policy_delta(expressible(today, target), expressible(new, target))
        assert not (delta.rules_taken or delta.groups_deleted or delta.memberships or delta.memberships_taken)
        then = apply(today, new)
        assert _ids(today) <= _ids(then)
        assert_same(new, then, target)
        added += len(delta.rules)
    assert added > 10

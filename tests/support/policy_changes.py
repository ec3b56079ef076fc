"""Random policy changes (SPEC 6.1) for the differential tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import numpy as np
from traffic import GROUPS, NETWORKS, PORTS

from sgfast.base.errors import PolicyError
from sgfast.policy.changed_policy import apply_change
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
)
from sgfast.policy.model import (
    AddressGroupPeer,
    GroupPeer,
    Instance,
    Policy,
    Rule,
    SecurityGroup,
    Timeouts,
)


class Changer:
    """Draw valid changes of a policy. All draws come from ``rng``."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def changes(self, policy: Policy) -> list[Change]:
        """Draw one change, or sometimes several that are applied as one. All are valid."""
        drawn: list[Change] = []
        for _ in range(int(self.pick((1, 1, 1, 2, 3)))):
            for _ in range(20):
                change = self._change(policy)
                try:
                    policy = apply_change(policy, change).policy
                except PolicyError:
                    continue
                drawn.append(change)
                break
        return drawn

    def rule(self) -> Rule:
        """Draw a rule without an id."""
        family = int(self.pick((4, 4, 6)))
        protocol = self.pick((None, 6, 6, 17, 1 if family == 4 else 58))
        ports = None
        if protocol in (6, 17) and self.rng.integers(3):
            first = int(self.pick(PORTS[:7]))
            ports = ((first, min(65535, first + int(self.pick((0, 0, 400))))),)
        peer = self.pick(
            (None, None, ip_network(str(self.pick(NETWORKS[family]))), GroupPeer(str(self.pick(GROUPS))),
             AddressGroupPeer("offices"))
        )  # fmt: skip
        return Rule(
            "", self.pick(("inbound", "inbound", "outbound")), family, protocol, ports, peer=peer,      # type: ignore[arg-type]
            action=self.pick(("allow", "allow", "allow", "deny")), priority=int(self.pick((1, 1, 2, 100))),
        )  # fmt: skip

    def _change(self, policy: Policy) -> Change:
        group = self.pick(policy.security_groups)
        instance = self.pick(policy.instances or (Instance("nobody", "red", (), ()),))
        rule = self.pick(group.rules) if group.rules else None
        vpcs = [vpc.name for vpc in policy.vpcs]
        host = int(self.rng.integers(4, 14))
        address = ip_network(str(self.pick((f"10.0.{host % 2}.{host}/32", f"2001:db8:0:{host % 2}::{host}/128",
                                            "10.0.0.0/24", "10.0.1.0/25"))))  # fmt: skip
        kind = int(self.rng.integers(20))
        if kind < 4:
            return AddRule(group.name, self.rule())
        if kind < 6 and rule is not None:
            return RemoveRule(group.name, rule.id)
        if kind < 8 and rule is not None:
            new = replace(self.rule(), direction=rule.direction)
            return ModifyRule(group.name, rule.id, self.pick((new, new, rule, replace(rule, description="other"))))
        if kind < 10:
            return AddMember(group.name, instance.name)
        if kind < 12:
            return RemoveMember(group.name, instance.name)
        if kind == 12:
            name = f"new{self.rng.integers(3)}"
            return AddInstance(Instance(name, str(self.pick(vpcs)), (address,), (group.name,)))
        if kind == 13:
            return RemoveInstance(instance.name)
        if kind == 14:
            return AddAddress(instance.name, address)
        if kind == 15:
            return RemoveAddress(instance.name, self.pick(instance.addresses or (address,)))
        if kind == 16:
            return self.pick((
                AddGroup(SecurityGroup("extra", (), stateful=bool(self.rng.integers(2)))), RemoveGroup("extra")
            ))
        if kind == 17:
            return AddPeering(str(self.pick(vpcs)), str(self.pick(vpcs)))
        if kind == 18 and policy.peerings:
            return RemovePeering(*sorted(self.pick(sorted(policy.peerings, key=sorted))))
        prefixes = ("198.51.100.0/25", "198.51.100.128/31", "2001:db8:9::/121", "2001:db8:9::7/128")
        return SetAddressGroup("offices", tuple(ip_network(p) for p in prefixes if self.rng.integers(2)))


class Mover(Changer):
    """Draw changes that often move addresses between a few instances, or leave addresses without an instance."""

    def __init__(self, rng: np.random.Generator, addresses: Sequence[str]) -> None:
        super().__init__(rng)
        self.addresses = [ip_network(address) for address in addresses]

    def _change(self, policy: Policy) -> Change:
        instance = self.pick(policy.instances[:3] or (Instance("nobody", "red", (), ()),))
        address = self.pick(self.addresses)
        return (RemoveAddress if address in instance.addresses else AddAddress)(instance.name, address)


def another(policy: Policy, rng: np.random.Generator) -> Policy:
    """Return the policy after some changes, sometimes with other settings."""
    changer = Changer(rng)
    other = policy
    for _ in range(int(rng.integers(1, 6))):
        for change in changer.changes(other):
            other = apply_change(other, change).policy
    settings = other.settings
    if not rng.integers(3):
        timeouts = changer.pick((Timeouts(), Timeouts(2, 5, 3, 1.5, 1, 2), Timeouts(20, 3, 2, 3, 8, 4)))
        infrastructure = changer.pick(("exempt", "by-role", "filtered"))
        settings = replace(
            settings, timeouts=timeouts, infrastructure=infrastructure,
            max_connections=int(changer.pick((40, 1_000_000))),
        )  # fmt: skip
    return replace(other, settings=settings)


def without_one_port(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """Yield the policy without one of its rules, or without one port of a rule with several ports."""
    for g, group in enumerate(policy.security_groups):
        for n, rule in enumerate(group.rules):
            ports = [port for first, last in rule.ports or () for port in range(first, last + 1)]
            fewer = [replace(rule, ports=tuple((p, p) for p in ports if p != port)) for port in ports if len(ports) > 1]
            for kept in [[rest] for rest in fewer] or [[]]:
                groups = list(policy.security_groups)
                groups[g] = replace(group, rules=(*group.rules[:n], *kept, *group.rules[n + 1 :]))
                yield f"{rule.id} {ports}", replace(policy, security_groups=tuple(groups))
